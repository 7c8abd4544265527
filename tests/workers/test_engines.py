"""The cache of engines: what another device, another version or half a build left is never used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engines import MANIFEST, EngineCache, Entry, Origin, fault, model_digest, outgoing

MB = 1 << 20
ORIN = Origin("a" * 64, "Orin", "8.7", 8 << 30, "540.4 CUDA 12.6", {"tensorrt": "10.3.0"}, {"fp16": True})

text = st.text(max_size=8)
origins = st.builds(
    Origin,
    model=text,
    device=text,
    capability=text,
    memory=st.integers(0, 1 << 40),
    driver=text,
    libraries=st.dictionaries(text, text, max_size=3),
    options=st.dictionaries(text, st.one_of(text, st.booleans(), st.integers(0, 9), st.none()), max_size=3),
)
entries = st.lists(st.builds(Entry, text, st.integers(0, 100), st.floats(0, 9)), max_size=8, unique_by=lambda e: e.name)


def build(cache: EngineCache, origin: Origin = ORIN, content: bytes = b"engine", name: str = "m.engine") -> str:
    made = cache.begin(origin)
    (Path(made.folder) / name).write_bytes(content)
    return made.commit()


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(str(tmp_path / "engines"), 100 * MB)


def again(cache: EngineCache) -> EngineCache:
    """As after a restart."""
    return EngineCache(cache._root, cache._limit)


@given(origins, origins)
def test_two_origins_have_one_key_only_if_they_are_equal(one, other):
    assert (one.key() == other.key()) == (one == other and one.text() == other.text())


@given(origins)
def test_the_order_in_which_things_were_said_is_no_part_of_the_key(origin):
    turned = replace(
        origin,
        libraries=dict(reversed(list(origin.libraries.items()))),
        options=dict(reversed(list(origin.options.items()))),
    )
    assert turned.key() == origin.key()


@pytest.mark.parametrize(
    "other",
    [
        {"model": "b" * 64},
        {"device": "Xavier"},
        {"capability": "7.2"},
        {"memory": 16 << 30},
        {"driver": "560.1 CUDA 12.6"},
        {"libraries": {"tensorrt": "10.3.1"}},
        {"libraries": {"tensorrt": "10.3.0", "cudnn": "9"}},
        {"options": {"fp16": False}},
        {"options": {"fp16": 1}},
    ],
    ids=str,
)
def test_an_engine_of_anything_else_is_built_anew_and_not_tried(cache, other):
    build(cache)
    assert cache.find(replace(ORIN, **other)) is None
    assert cache.find(ORIN) is not None


def test_an_engine_survives_a_restart(cache):
    folder = build(cache)
    found = again(cache).find(ORIN)
    assert found == folder
    assert (Path(found) / "m.engine").read_bytes() == b"engine"


def test_an_entry_that_was_copied_from_another_device_under_our_name_is_removed(cache, tmp_path):
    theirs = replace(ORIN, device="Xavier")
    folder = Path(build(cache, theirs))
    shutil.copytree(folder, folder.with_name(ORIN.key()))
    assert cache.find(ORIN) is None
    assert not folder.with_name(ORIN.key()).exists()
    assert cache.find(theirs) is not None


@pytest.mark.parametrize("harm", ["cut", "bit", "gone", "manifest cut", "manifest gone", "manifest text", "link"])
def test_an_entry_that_is_not_as_it_was_built_is_never_used(cache, harm):
    folder = Path(build(cache, content=bytes(1000)))
    engine, manifest = folder / "m.engine", folder / MANIFEST
    if harm == "cut":
        engine.write_bytes(bytes(999))
    elif harm == "bit":
        engine.write_bytes(bytes(999) + b"\1")
    elif harm == "gone":
        engine.unlink()
    elif harm == "manifest cut":
        manifest.write_bytes(manifest.read_bytes()[:-5])
    elif harm == "manifest gone":
        manifest.unlink()
    elif harm == "manifest text":
        manifest.write_text("[[1]]")
    else:
        engine.rename(folder.parent / "elsewhere")
        engine.symlink_to(folder.parent / "elsewhere")
    assert again(cache).find(ORIN) is None
    assert build(again(cache)) == str(folder)
    assert cache.find(ORIN) == str(folder)


@given(st.integers(0, 400))
def test_a_manifest_that_ends_anywhere_is_no_manifest(end):
    whole = json.dumps({"origin": json.loads(ORIN.text()), "files": {"e": [1, "x"]}})
    try:
        read = json.loads(whole[:end])
    except ValueError:
        read = None
    assert bool(fault(read, ORIN, {"e": (1, "x")})) == (end < len(whole))


def test_a_build_that_is_not_committed_leaves_nothing(cache, tmp_path):
    made = cache.begin(ORIN)
    (Path(made.folder) / "m.engine").write_bytes(b"half")
    assert cache.find(ORIN) is None
    made.discard()
    assert list((tmp_path / "engines").iterdir()) == []


_BUILDER = """
import sys
from workers.engines import EngineCache, Origin
ORIN = Origin("a" * 64, "Orin", "8.7", 8 << 30, "540.4 CUDA 12.6", {"tensorrt": "10.3.0"}, {"fp16": True})
made = EngineCache(sys.argv[1], 1 << 30).begin(ORIN)
open(made.folder + "/m.engine", "wb").write(b"half")
print("half", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_builder_left_is_removed_at_the_next_start_and_a_living_one_is_left_alone(tmp_path):
    root = tmp_path / "engines"
    command = [sys.executable, "-c", _BUILDER, str(root)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    builder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    try:
        assert builder.stdout.readline() == b"half\n"
        beside = EngineCache(str(root), MB)
        assert len(list(root.iterdir())) == 1
        assert beside.find(ORIN) is None
        builder.send_signal(signal.SIGKILL)
        builder.wait(10)
        after = EngineCache(str(root), MB)
        assert list(root.iterdir()) == []
        assert after.find(ORIN) is None
    finally:
        builder.kill()
        builder.communicate()


def test_the_first_of_two_builds_stays_and_the_other_is_told_where(cache):
    one, other = cache.begin(ORIN), cache.begin(ORIN)
    for made, content in ((one, b"one"), (other, b"other")):
        (Path(made.folder) / "m.engine").write_bytes(content)
    assert one.commit() == other.commit() == cache.find(ORIN)
    assert (Path(cache.find(ORIN)) / "m.engine").read_bytes() == b"one"
    assert len(cache.entries()) == 1


@given(entries, st.integers(0, 300))
def test_the_oldest_go_until_the_rest_fit_and_not_one_more(entries, limit):
    gone = outgoing(entries, limit)
    rest = [entry for entry in entries if entry.name not in gone]
    assert sum(entry.size for entry in rest) <= limit
    if gone:
        last = next(entry for entry in entries if entry.name == gone[-1])
        assert sum(entry.size for entry in rest) + last.size > limit
        assert all(last.used <= entry.used for entry in rest)


@given(entries, st.integers(0, 300), st.data())
def test_the_newest_one_stays_whatever_its_size(entries, limit, data):
    if entries:
        keep = data.draw(st.sampled_from(entries)).name
        assert keep not in outgoing(entries, limit, keep)


def test_a_full_cache_loses_what_was_not_used_for_longest(tmp_path):
    cache = EngineCache(str(tmp_path), 2500)
    first, second, third = (replace(ORIN, model=name) for name in "123")
    for at, origin in enumerate((first, second)):
        os.utime(Path(build(cache, origin, bytes(600))) / MANIFEST, (at, at))
    assert cache.find(first) is not None  # used now, so the second is the oldest
    build(cache, third, bytes(600))
    assert cache.find(second) is None
    assert cache.find(first) is not None
    assert cache.find(third) is not None


def test_a_models_digest_is_also_of_the_files_that_it_names():
    digests = {
        model_digest(b"m", {}),
        model_digest(b"m", {"w": b"1"}),
        model_digest(b"m", {"w": b"2"}),
        model_digest(b"m", {"v": b"1"}),
        model_digest(b"m", {"v": b"1", "w": b"2"}),
    }
    assert len(digests) == 5
    assert model_digest(b"m", {"v": b"1", "w": b"2"}) == model_digest(b"m", {"w": b"2", "v": b"1"})
