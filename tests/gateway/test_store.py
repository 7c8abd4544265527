"""Model files on disk: nothing half-written, nothing unchecked, nothing that is needed deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import StoreSettings
from gateway.models.artifact import ArtifactRefused, LinkLost, Wanted
from gateway.models.files import local_path
from gateway.models.space import Item, to_go
from gateway.models.store import Store

MB = 1 << 20


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "state")
    made.prepare()
    return made


@pytest.fixture
def models(tmp_path):
    return tmp_path / "state" / "models"


def untold(done: int, total: int) -> None:
    """Nobody wants to know how far it is."""


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def source(folder: Path, content: bytes, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def wanted(folder: Path, content: bytes, name: str = "m.onnx", external: bool = False) -> Wanted:
    path = source(folder, content, name)
    return Wanted(path.as_uri(), sha(content), len(content), name if external else "")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class Source:
    """Counts what is asked of it; gives these bytes, whatever the URI."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.asked = 0

    def __call__(self, wanted: Wanted, part: Path, told: object) -> str:
        """Goes on where the file ends."""
        self.asked += 1
        had = part.stat().st_size if part.exists() else 0
        with part.open("ab") as file:
            file.write(self.content[had:])
        return sha(part.read_bytes())


# -- one file ----------------------------------------------------------------------------------------------------


def test_a_file_is_copied_under_its_checksum_and_the_source_may_go(store, tmp_path):
    model = wanted(tmp_path, b"model")
    artifact = store.fetch(model, (), untold)
    (tmp_path / "m.onnx").unlink()
    assert artifact.path.read_bytes() == b"model"
    assert store.fetch(model, (), untold).path == artifact.path  # the copy is enough
    assert Store(tmp_path / "state").fetch(model, (), untold).path == artifact.path  # also after a restart


def test_a_wrong_checksum_is_refused_and_leaves_nothing(store, tmp_path, models):
    uri = source(tmp_path, b"model").as_uri()
    with pytest.raises(ArtifactRefused, match=sha(b"model")):
        store.fetch(Wanted(uri, "0" * 64), (), untold)
    assert files(models) == set()


@pytest.mark.parametrize("damage", ["other bytes", "other bytes, same size and times", "hard link", "symbolic link"])
def test_a_damaged_copy_is_fetched_again(store, tmp_path, damage):
    model = wanted(tmp_path, b"model")
    copy = store.fetch(model, (), untold).path
    before = copy.stat()
    copy.chmod(0o600)
    if damage == "hard link":
        os.link(copy, tmp_path / "another")
    elif damage == "symbolic link":
        copy.rename(tmp_path / "moved")
        copy.symlink_to(tmp_path / "moved")
    else:
        copy.write_bytes(b"rot" if damage == "other bytes" else b"rotty")
        if damage != "other bytes":
            os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = store.fetch(model, (), untold).path
    assert (again.read_bytes(), again.is_symlink(), again.stat().st_nlink) == (b"model", False, 1)


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr("gateway.models.stock.file_sha256", lambda path: hashed.append(path) or sha(path.read_bytes()))
    model = wanted(tmp_path, b"model")
    Store(tmp_path / "state").fetch(model, (), untold)
    store = Store(tmp_path / "state")
    for _ in range(3):
        store.fetch(model, (), untold)
    assert len(hashed) == 1


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_regular_file_is_refused(store, tmp_path, kind):
    path = tmp_path / "m.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(ArtifactRefused, match=r"m\.onnx"):
        store.fetch(Wanted(path.as_uri(), "0" * 64), (), untold)


@pytest.mark.parametrize("uri", ["s3://bucket/m.onnx", "https://host/m.onnx", "file://elsewhere/m.onnx"])
def test_a_uri_that_cannot_be_fetched_yet_is_refused_with_the_reason(uri):
    with pytest.raises(ArtifactRefused, match="file"):
        local_path(uri)


def test_two_who_want_the_same_file_fetch_it_once(tmp_path):
    fetched = Source(b"model")
    both = threading.Barrier(2)
    store = Store(tmp_path / "state", fetched)

    def install() -> None:
        both.wait(5)
        store.fetch(Wanted("s3://b/m.onnx", sha(b"model")), (), untold)

    threads = [threading.Thread(target=install) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert fetched.asked == 1


# -- what was begun ----------------------------------------------------------------------------------------------


def test_a_download_that_lost_its_link_goes_on_after_a_restart(tmp_path, models):
    def cut(wanted: Wanted, part: Path, told: object) -> str:
        part.write_bytes(b"mod")
        raise LinkLost("the link is gone")

    model = Wanted("s3://b/m.onnx", sha(b"model"))
    with pytest.raises(ArtifactRefused, match="the link is gone"):
        Store(tmp_path / "state", cut).fetch(model, (), untold)
    seen = []

    def rest(wanted: Wanted, part: Path, told: object) -> str:
        seen.append(part.read_bytes())
        return Source(b"model")(wanted, part, told)

    again = Store(tmp_path / "state", rest)
    again.prepare()
    assert again.fetch(model, (), untold).path.read_bytes() == b"model"
    assert seen == [b"mod"]


@pytest.mark.parametrize("failure", [ArtifactRefused("too long"), OSError(5, "Input/output error")])
def test_a_download_that_nobody_can_go_on_with_leaves_nothing(tmp_path, models, failure):
    def fails(wanted: Wanted, part: Path, told: object) -> str:
        part.write_bytes(b"mod")
        part.with_name(part.name + ".from").write_text("x")
        raise failure

    with pytest.raises(ArtifactRefused, match=r"too long|m\.onnx: Input/output error"):
        Store(tmp_path / "state", fails).fetch(Wanted("s3://b/m.onnx", sha(b"model")), (), untold)
    assert files(models) == set()


def test_sweeping_takes_what_no_manifest_wants(tmp_path, models):
    here, gone = wanted(tmp_path, b"here", "here.onnx"), wanted(tmp_path, b"gone", "gone.onnx")
    store = Store(tmp_path / "state", wanted=lambda: {here.key, "1" * 64})
    store.prepare()
    for each in (here, gone):
        store.fetch(each, (), untold)
    for key in ("1" * 64, "2" * 64):
        (models / "partial" / key).write_bytes(b"beginning")
    names, later = store.sweep()
    assert (set(names), later) == ({f"{gone.key}.onnx", "2" * 64}, False)
    assert files(models) == {f"{here.key}.onnx", f"partial/{'1' * 64}"}


def test_what_is_being_fetched_is_swept_later(tmp_path, models):
    def sweeps(wanted: Wanted, part: Path, told: object) -> str:
        part.write_bytes(b"mod")
        assert store.sweep() == ([], True)
        assert part.exists()
        raise LinkLost("the link is gone")

    store = Store(tmp_path / "state", sweeps)
    with pytest.raises(LinkLost):
        store.fetch(Wanted("s3://b/m.onnx", sha(b"model")), (), untold)
    assert store.sweep() == ([sha(b"model")], False)


# -- files without checksum ----------------------------------------------------------------------------------------


def test_a_file_without_checksum_is_fetched_anew_only_with_another_edition(tmp_path):
    fetched, needed = Source(b"samples"), set[str]()
    store = Store(tmp_path / "state", fetched, wanted=lambda: needed)
    first = Wanted("s3://b/golden.npz", "", edition="first")
    assert store.fetch(first, (), untold).sha256 == sha(b"samples")
    fetched.content = b"others"
    assert Store(tmp_path / "state", fetched).fetch(first, (), untold).sha256 == sha(b"samples")
    second = Wanted("s3://b/golden.npz", "", edition="second")
    assert store.fetch(second, (), untold).path.read_bytes() == b"others"
    needed.add(second.key)
    assert store.sweep() == ([f"{sha(b'samples')}.npz"], False)
    assert store.fetch(second, (), untold).sha256 == sha(b"others")
    assert fetched.asked == 2


# -- external data -------------------------------------------------------------------------------------------------


def test_a_model_with_external_data_has_a_folder_of_its_own(store, tmp_path, models):
    model, weights = wanted(tmp_path, b"model"), wanted(tmp_path, b"weights", "w.bin", external=True)
    artifact = store.fetch(model, [weights], untold)
    assert artifact.external == (("w.bin", sha(b"weights")),)
    assert (artifact.path.name, artifact.path.with_name("w.bin").read_bytes()) == ("model.onnx", b"weights")
    assert {path.stat().st_nlink for path in artifact.path.parent.iterdir()} == {1}
    other = store.fetch(model, [wanted(tmp_path, b"others", "w.bin", external=True)], untold)
    assert other.path.with_name("w.bin").read_bytes() == b"others"
    assert artifact.path.with_name("w.bin").read_bytes() == b"weights"
    assert files(models / "partial") == set()


def test_external_data_that_the_store_has_is_not_fetched_again(store, tmp_path):
    weights = wanted(tmp_path, b"weights", "w.bin", external=True)
    store.fetch(wanted(tmp_path, b"first"), [weights], untold)
    (tmp_path / "w.bin").unlink()
    second = store.fetch(wanted(tmp_path, b"second"), [weights], untold)
    assert second.path.with_name("w.bin").read_bytes() == b"weights"


def test_a_folder_of_which_a_file_was_changed_is_made_again(store, tmp_path):
    model, weights = wanted(tmp_path, b"model"), wanted(tmp_path, b"weights", "w.bin", external=True)
    data = store.fetch(model, [weights], untold).path.with_name("w.bin")
    data.chmod(0o600)
    data.write_bytes(b"rot")
    assert store.fetch(model, [weights], untold).path.with_name("w.bin").read_bytes() == b"weights"


def test_two_files_of_external_data_may_be_alike(store, tmp_path):
    alike = [wanted(tmp_path, b"weights", name, external=True) for name in ("a.bin", "b.bin")]
    path = store.fetch(wanted(tmp_path, b"model"), alike, untold).path
    assert [path.with_name(name).read_bytes() for name in ("a.bin", "b.bin")] == [b"weights"] * 2
    assert {file.stat().st_nlink for file in path.parent.iterdir()} == {1}


@pytest.mark.parametrize("names", [("model.onnx",), ("w.bin", "w.bin"), ("",)])
def test_external_data_needs_names_of_its_own(store, tmp_path, names):
    weights = [Wanted(source(tmp_path, b"w", "x").as_uri(), sha(b"w"), None, name) for name in names]
    with pytest.raises(ArtifactRefused, match="a name of its own"):
        store.fetch(wanted(tmp_path, b"model"), weights, untold)


# -- room ----------------------------------------------------------------------------------------------------------


def test_room_is_made_by_the_oldest_use_and_never_of_what_is_kept(tmp_path, models):
    contents = {name: name.encode() * MB for name in "abcd"}
    kept: dict[str, str] = {}
    store = Store(tmp_path / "state", None, StoreSettings(max_mb=3, reserve_mb=0), lambda: kept)
    each = {name: wanted(tmp_path, content, f"{name}.onnx") for name, content in contents.items()}
    for age, name in enumerate("abc"):
        os.utime(store.fetch(each[name], (), untold).path, (age, age))
    kept[each["a"].key] = "detector 1"
    store.fetch(each["d"], (), untold)
    assert files(models) == {f"{each[name].key}.onnx" for name in "acd"}


def test_a_limit_that_was_lowered_holds_again_after_a_collection(tmp_path, models):
    each = [wanted(tmp_path, name.encode() * MB, f"{name}.onnx") for name in "abc"]
    for age, file in enumerate(each):
        os.utime(Store(tmp_path / "state").fetch(file, (), untold).path, (age, age))
    kept = {each[0].key: "detector 1"}
    store = Store(tmp_path / "state", None, StoreSettings(max_mb=2, reserve_mb=0), lambda: kept)
    assert store.collect(0) == [f"{each[1].key}.onnx"]
    assert store.collect(3 * MB) == [f"{each[2].key}.onnx"]  # one byte more than can be had, and nothing that is kept


def test_without_room_nothing_goes_and_the_reason_says_who_has_it(tmp_path, models):
    old, big = wanted(tmp_path, b"o" * MB, "old.onnx"), wanted(tmp_path, b"b" * 3 * MB, "big.onnx")
    idle = wanted(tmp_path, b"i" * MB, "idle.onnx")
    store = Store(tmp_path / "state", None, StoreSettings(max_mb=3, reserve_mb=0), lambda: {old.key: "detector 2.3"})
    for each in (old, idle):
        store.fetch(each, (), untold)
    with pytest.raises(ArtifactRefused) as refused:
        store.fetch(big, (), untold)
    for word in ("big.onnx", "3.0 MB needed", "1.0 MB free", "store.maxMB is 3", "detector 2.3 1.0 MB"):
        assert word in str(refused.value)
    assert files(models) == {f"{old.key}.onnx", f"{idle.key}.onnx"}


def test_a_download_of_unknown_size_is_ended_where_the_room_ends(tmp_path, models):
    def endless(wanted: Wanted, part: Path, told: object) -> str:
        with part.open("wb") as file:
            while True:
                file.write(b"x" * 65536)
                told(file.tell(), 0)

    store = Store(tmp_path / "state", endless, StoreSettings(max_mb=2, reserve_mb=0))
    with pytest.raises(ArtifactRefused, match=r"no room for m\.onnx"):
        store.fetch(Wanted("https://h/m.onnx", "0" * 64), (), untold)
    assert files(models) == set()


def test_the_size_that_a_server_tells_is_refused_before_a_byte_comes(tmp_path):
    came = []

    def tells(wanted: Wanted, part: Path, told: object) -> str:
        told(0, 5 * MB)
        came.append(1)
        return ""

    store = Store(tmp_path / "state", tells, StoreSettings(max_mb=2, reserve_mb=0))
    with pytest.raises(ArtifactRefused, match=r"5\.0 MB needed"):
        store.fetch(Wanted("https://h/m.onnx", "0" * 64), (), untold)
    assert came == []


def test_room_that_one_download_needs_is_not_promised_to_another(tmp_path):
    def both(wanted: Wanted, part: Path, told: object) -> str:
        told(0, 2 * MB)
        if wanted.uri.endswith("first.onnx"):
            with pytest.raises(ArtifactRefused, match=r"2\.0 MB needed, 1\.0 MB free"):
                store.fetch(Wanted("https://h/second.onnx", "2" * 64), (), untold)
        part.write_bytes(b"first")
        return sha(b"first")

    store = Store(tmp_path / "state", both, StoreSettings(max_mb=3, reserve_mb=0))
    store.fetch(Wanted("https://h/first.onnx", sha(b"first")), (), untold)


def test_room_for_a_model_with_external_data_is_made_before_any_of_it_is_fetched(tmp_path):
    store = Store(tmp_path / "state", Source(), StoreSettings(max_mb=3, reserve_mb=0))
    weights = Wanted("https://h/w.bin", "2" * 64, 3 * MB, "w.bin")
    with pytest.raises(ArtifactRefused, match=r"no room for m\.onnx: 4\.0 MB needed"):
        store.fetch(Wanted("https://h/m.onnx", "1" * 64, MB), [weights], untold)


KEYS = st.sampled_from("abcdefgh")
ITEMS = st.lists(
    st.builds(Item, st.uuids().map(lambda u: Path(str(u))), st.frozensets(KEYS, min_size=1), st.integers(0, 50),
              st.floats(0, 100)), max_size=12,
)  # fmt: skip


@given(ITEMS, st.frozensets(KEYS), st.integers(-10, 200))
def test_nothing_that_is_kept_goes_and_no_more_than_is_needed(items, kept, short):
    going = to_go(items, kept, short)
    free = [item for item in items if not item.keys & kept]
    assert set(going) <= set(free)
    assert sum(item.size for item in going) >= short or set(going) == set(free)
    assert sum(item.size for item in going[:-1]) < short or not going
    assert all(went.used <= stays.used for went in going for stays in set(free) - set(going))


@settings(max_examples=25)  # these write files
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3)), max_size=10), st.frozensets(st.integers(0, 7)))
def test_the_store_stays_within_its_budget_or_says_so(tmp_path_factory, wishes, kept):
    folder = tmp_path_factory.mktemp("store")
    contents = {(which, size): bytes([which]) * (size * MB // 2) for which, size in wishes}
    keys = {sha(content): f"model {which}" for (which, _), content in contents.items() if which in kept}
    store = Store(folder, None, StoreSettings(max_mb=2, reserve_mb=0), lambda: keys)
    there: set[str] = set()
    for wish in wishes:
        model = wanted(folder, contents[wish], "m.onnx")
        try:
            path = store.fetch(model, (), untold).path
        except ArtifactRefused as refused:
            assert "no room" in str(refused)
        else:
            there.add(path.stem)
        names = {path.stem for path in (folder / "models").glob("*.onnx")}
        assert sum(path.stat().st_size for path in (folder / "models").glob("*.onnx")) <= 2 * MB
        assert there & keys.keys() <= names
        there &= names


# -- troubles ------------------------------------------------------------------------------------------------------


def test_what_is_not_of_the_store_is_told_and_left_alone(store, models):
    (models / "notes.txt").write_text("mine")
    (models / ("a" * 64 + ".onnx")).symlink_to("/etc/passwd")
    (models / "partial" / f"{'b' * 64}.whole").mkdir()
    told = store.prepare()
    assert [Path(line.split(":")[0]).name for line in sorted(told)] == ["a" * 64 + ".onnx", "notes.txt"]
    assert (models / "notes.txt").exists()
    assert list((models / "partial").iterdir()) == []


def test_a_folder_that_went_is_made_again(store, tmp_path, models):
    shutil.rmtree(models)
    assert (store.sweep(), store.collect(MB)) == (([], False), [])
    assert store.fetch(wanted(tmp_path, b"model"), (), untold).path.read_bytes() == b"model"


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "models").write_text("no folder")
    with pytest.raises(ArtifactRefused, match=r"the model store can't take m\.onnx: (Not a directory|File exists)"):
        Store(tmp_path / "state").fetch(wanted(tmp_path, b"model"), (), untold)


def test_progress_is_told_from_the_beginning_to_the_end(store, tmp_path):
    seen: list[tuple[int, int]] = []
    store.fetch(wanted(tmp_path, b"m" * 3 * MB), (), lambda done, total: seen.append((done, total)))
    assert (seen[0], seen[-1]) == ((0, 3 * MB), (3 * MB, 3 * MB))
    assert seen == sorted(seen)
