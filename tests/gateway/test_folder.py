"""A followed folder of manifests: what a change of it means, and what a mistake in it does not touch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import TrustSettings
from gateway.errors import InvalidRequest, NotFound
from gateway.models.folder import MAX_BYTES, MAX_FILES, ORIGIN, File, Follower, look
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import content_hash, parse_manifests
from gateway.models.signing import Trust

SHA = "a" * 64


def text(version: str, note: str = "", spec: str = "", name: str = "m") -> str:
    return (
        f"apiVersion: edge.ai/v1\nkind: ModelDeployment\nmetadata: {{name: {name}, labels: {{note: '{note}'}}}}\n"
        f'spec:\n  model: {{uri: "file:m.onnx", version: "{version}", checksum: sha256:{SHA}}}\n{spec}'
    )


@cache
def declared(version: str, note: str = "", spec: str = "") -> ModelDeployment:
    return parse_manifests(text(version, note, spec), "x.yaml")[0]


class Deployments:
    """What was accepted, in memory; ready at once unless ``states`` says otherwise."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], ModelDeployment] = {}
        self.origin: dict[tuple[str, str], str] = {}
        self.states: dict[str, str] = {}
        self.withdrawn: list[tuple[str, str]] = []

    def origins(self) -> Mapping[tuple[str, str], str]:
        return self.origin

    def state(self, name: str, version: str) -> str:
        return self.states.get(version, "ready") if (name, version) in self.known else ""

    async def accept(self, manifests, origin, signed) -> None:
        merged = self.known | {(m.name, m.version): m for m in manifests}
        if sum(m.spec.traffic.percent or 0 for m in merged.values()) > 100:
            raise InvalidRequest("percents over 100")
        self.known = merged
        self.origin |= dict.fromkeys(((m.name, m.version) for m in manifests), origin)

    async def delete(self, name, version, origin) -> None:
        if (name, version) not in self.known:
            raise NotFound(version)
        if self.origin[name, version] == origin:
            self.remove(version)
            self.withdrawn.append((name, version))

    def apply(self, manifest: ModelDeployment) -> None:
        """By hand."""
        self.known[manifest.name, manifest.version] = manifest
        self.origin[manifest.name, manifest.version] = ""

    def remove(self, version: str) -> None:
        """By hand."""
        self.known.pop(("m", version), None)
        self.origin.pop(("m", version), None)

    def notes(self) -> dict[str, str]:
        """What is in force: the note of each version."""
        return {version: manifest.metadata.labels["note"] for (_, version), manifest in self.known.items()}


class Watched:
    """A follower of a real folder, looking when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deployments = Deployments()
        self.said: list[tuple[str, str]] = []
        self.restart()

    def restart(self) -> None:
        trust = Trust(TrustSettings())
        self.follower = Follower(
            self.folder, trust, self.deployments, lambda kind, text: self.said.append((kind, text))
        )

    async def look(self) -> None:
        for _ in range(2):  # a change is taken on the second look that finds it the same
            await self.follower.look()

    @property
    def problems(self) -> list[str]:
        return [text for kind, text in self.said if kind == "manifest-refused"]


@pytest.fixture
def watched(folder):
    return Watched(folder)


contents = st.dictionaries(st.sampled_from("1234"), st.sampled_from(["a", "b"]), max_size=3)
folders = st.dictionaries(
    st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]), st.none() | contents.filter(bool), max_size=3
)


def files_of(state: dict) -> dict[str, File]:
    """None: a file with a mistake."""
    return {
        name: File(name, problem="broken")
        if said is None
        else File(name, tuple(declared(v, n) for v, n in said.items()))
        for name, said in state.items()
    }


def follower_of(deployments: Deployments) -> Follower:
    return Follower(Path("/srv"), Trust(TrustSettings()), deployments, lambda kind, text: None)


@given(st.lists(folders, max_size=6))
def test_whatever_the_folder_goes_through_what_is_in_force_is_what_its_files_say(states):
    deployments = Deployments()
    follower, before = follower_of(deployments), {}
    for state in states:
        origin = dict(deployments.origin)
        deployments.withdrawn.clear()
        asyncio.run(follower.take(files_of(state)))
        good = {name: said for name, said in state.items() if said is not None}
        every = [version for said in good.values() for version in said]
        twice = {version for version in every if every.count(version) > 1}
        assert not {version for _, version in deployments.withdrawn} & set(every)  # not even for a moment
        for version in twice:  # it belongs to one of them
            owner = origin.get(("m", version), "").removeprefix(ORIGIN)
            owners = [name for name in sorted(good) if version in good[name]]
            holder = owner if owner in owners else owners[0]
            others = [name for name in owners if name != holder]
            assert all(deployments.origin.get(("m", version), ORIGIN + holder) != ORIGIN + name for name in others)
        for name, said in good.items():
            if not twice & said.keys():
                for version, note in said.items():
                    assert deployments.notes()[version] == note
                    assert deployments.origin["m", version] == ORIGIN + name
        for (_, version), source in deployments.origin.items():
            name = source.removeprefix(ORIGIN)
            untouched = name in state and (state[name] is None or bool(twice & state[name].keys()))
            assert version in every or untouched
        for (_, version), source in origin.items():  # a file with a mistake loses nothing
            name = source.removeprefix(ORIGIN)
            if name in state and state[name] is None and version not in every:
                assert deployments.notes()[version] == before[version]
        before = deployments.notes()


by_hand = st.tuples(st.sampled_from(["apply", "delete"]), st.sampled_from("1234"))


@given(st.lists(folders | by_hand, max_size=10), st.booleans())
def test_what_an_operator_applied_is_never_withdrawn_and_stays_until_its_file_changes(steps, restarts):
    deployments = Deployments()
    follower, state = follower_of(deployments), {}
    asyncio.run(follower.take({}))
    for step in steps:
        if isinstance(step, tuple):
            verb, version = step
            deployments.apply(declared(version, "hand")) if verb == "apply" else deployments.remove(version)
            applied = deployments.notes()
            if restarts and verb == "apply":
                follower = follower_of(deployments)
            asyncio.run(follower.take(files_of(state)))
            if verb == "apply":
                assert deployments.notes()[version] == applied[version] == "hand"
        else:
            by_hand_before = {v for (_, v), source in deployments.origin.items() if not source}
            state = step
            asyncio.run(follower.take(files_of(state)))
            assert by_hand_before <= deployments.notes().keys()


async def test_a_file_with_a_mistake_is_told_once_and_stops_no_other(watched, folder):
    (folder / "a.yaml").write_text(text("1"))
    (folder / "b.yaml").write_text(text("2"))
    await watched.look()
    assert watched.deployments.notes().keys() == {"1", "2"}
    (folder / "a.yaml").write_text(text("1").replace(f"sha256:{SHA}", "md5:1"))
    (folder / "b.yaml").write_text(text("2", "new"))
    (folder / "c.yaml").write_text(text("3"))
    for _ in range(3):
        await watched.look()
    assert watched.deployments.notes() == {"1": "", "2": "new", "3": ""}
    assert len(watched.problems) == 1
    assert f"{folder / 'a.yaml'}:5: spec.model.checksum: " in watched.problems[0]
    (folder / "a.yaml").write_text("{")
    (folder / "c.yaml").unlink()
    await watched.look()
    assert watched.deployments.notes() == {"1": "", "2": "new"}
    assert len(watched.problems) == 2
    (folder / "a.yaml").write_text(text("1", "repaired"))
    await watched.look()
    assert watched.deployments.notes() == {"1": "repaired", "2": "new"}


def config_map(folder: Path, stamp: str, files: dict[str, str]) -> None:
    """As the kubelet does it: a new folder, and one rename that makes all its files the present ones."""
    (folder / stamp).mkdir()
    for name, content in files.items():
        (folder / stamp / name).write_text(content)
        os.utime(folder / stamp / name, (1, 1))
    old = folder / "..data"
    behind = old.resolve() if old.is_symlink() else None
    (folder / "..data_tmp").symlink_to(stamp)
    (folder / "..data_tmp").rename(old)
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for link in folder.glob("*.yaml"):
        if not link.exists():
            link.unlink()
    if behind:
        for file in behind.iterdir():
            file.unlink()
        behind.rmdir()


async def test_the_swap_of_a_config_map_is_seen_though_times_and_sizes_stay(watched, folder):
    config_map(folder, "..one", {"a.yaml": text("1", "x"), "b.yaml": text("2", "x")})
    await watched.look()
    assert watched.deployments.notes() == {"1": "x", "2": "x"}
    uri = watched.deployments.known["m", "1"].spec.model.uri
    content = content_hash(watched.deployments.known["m", "2"])
    config_map(folder, "..two", {"a.yaml": text("1", "y"), "b.yaml": text("2", "x")})
    await watched.look()
    assert watched.deployments.notes() == {"1": "y", "2": "x"}
    assert uri == (folder / "m.onnx").as_uri()  # not of ..one, which is gone, so what did not change is the same
    assert content_hash(watched.deployments.known["m", "2"]) == content
    config_map(folder, "..three", {"b.yaml": text("2", "x")})
    await watched.look()
    assert watched.deployments.notes() == {"2": "x"}
    assert watched.problems == []


async def test_a_version_that_moves_to_another_file_is_not_withdrawn(watched, folder):
    (folder / "a.yaml").write_text(text("1") + "---\n" + text("2"))
    await watched.look()
    (folder / "a.yaml").write_text(text("2"))
    (folder / "b.yaml").write_text(text("1"))
    await watched.look()
    (folder / "a.yaml").rename(folder / "c.yaml")
    await watched.look()
    assert watched.deployments.withdrawn == []
    assert watched.deployments.origin == {("m", "1"): "folder:b.yaml", ("m", "2"): "folder:c.yaml"}


async def test_a_version_in_two_files_stays_with_the_one_that_had_it_and_the_error_names_both(watched, folder):
    (folder / "b.yaml").write_text(text("1", "had it"))
    await watched.look()
    (folder / "a.yaml").write_text(text("1", "wants it"))
    await watched.look()
    assert watched.deployments.notes() == {"1": "had it"}
    assert len(watched.problems) == 1
    assert str(folder / "a.yaml") in watched.problems[0]
    assert "declared in b.yaml already" in watched.problems[0]
    (folder / "b.yaml").unlink()
    await watched.look()
    assert watched.deployments.notes() == {"1": "wants it"}
    assert watched.deployments.withdrawn == []


async def test_files_that_went_while_the_gateway_was_down_take_their_versions_along(watched, folder):
    for version in "123":
        (folder / f"{version}.yaml").write_text(text(version))
    await watched.look()
    watched.deployments.apply(declared("3", "hand"))
    watched.restart()
    for version in "23":
        (folder / f"{version}.yaml").unlink()
    await watched.look()
    assert watched.deployments.notes() == {"1": "", "3": "hand"}


async def test_the_old_version_of_an_edited_file_serves_until_the_new_one_is_ready(watched, folder):
    (folder / "m.yaml").write_text(text("1"))
    await watched.look()
    watched.deployments.states["2"] = "loading"
    (folder / "m.yaml").write_text(text("2"))
    await watched.look()
    assert watched.deployments.notes().keys() == {"1", "2"}
    watched.deployments.states["2"] = "failed"
    await watched.look()
    assert watched.deployments.notes().keys() == {"1", "2"}
    watched.deployments.states["3"] = "loading"
    (folder / "m.yaml").write_text(text("3"))
    await watched.look()
    assert "1" in watched.deployments.notes()
    watched.deployments.states["3"] = "ready"
    await watched.look()
    assert watched.deployments.notes().keys() == {"3"}


async def test_a_file_that_goes_waits_for_no_version_that_is_only_known(watched, folder):
    watched.deployments.states["1"] = "unloaded"
    for version in "12":
        (folder / f"{version}.yaml").write_text(text(version))
    await watched.look()
    watched.restart()  # then all that is in the folder is offered again
    (folder / "2.yaml").unlink()
    await watched.look()
    assert watched.deployments.notes().keys() == {"1"}


async def test_what_a_new_version_names_as_previous_is_kept_while_its_file_is_there(watched, folder):
    (folder / "m.yaml").write_text(text("1"))
    await watched.look()
    (folder / "m.yaml").write_text(text("2", spec='  rollback: {previousVersion: "1"}\n'))
    await watched.look()
    assert watched.deployments.notes().keys() == {"1", "2"}
    (folder / "m.yaml").unlink()
    await watched.look()
    assert watched.deployments.notes() == {}


async def test_percents_may_change_places_between_files_whose_order_is_the_wrong_one(watched, folder):
    def put(first: int, second: int) -> None:
        (folder / "a.yaml").write_text(text("1", spec=f"  traffic: {{percent: {first}}}\n"))
        (folder / "b.yaml").write_text(text("2", spec=f"  traffic: {{percent: {second}}}\n"))

    put(10, 90)
    await watched.look()
    put(90, 10)
    await watched.look()
    shares = {v: m.spec.traffic.percent for (_, v), m in watched.deployments.known.items()}
    assert (shares, watched.problems) == ({"1": 90, "2": 10}, [])
    put(95, 10)
    await watched.look()
    assert (len(watched.problems), watched.deployments.known["m", "1"].spec.traffic.percent) == (1, 90)
    (folder / "b.yaml").unlink()  # makes room for what was refused
    await watched.look()
    assert watched.deployments.known["m", "1"].spec.traffic.percent == 95


async def test_what_the_gateway_could_not_keep_is_offered_again_and_told_once(watched, folder, monkeypatch):
    (folder / "a.yaml").write_text(text("1"))
    (folder / "b.yaml").write_text(text("2"))
    await watched.look()
    full = OSError(28, "No space left on device")
    for verb in ("accept", "delete"):
        monkeypatch.setattr(watched.deployments, verb, AsyncMock(side_effect=full))
    (folder / "a.yaml").write_text(text("1", "new"))
    (folder / "b.yaml").unlink()
    monkeypatch.setattr("gateway.models.folder._RETRY", 0.0)
    for _ in range(3):
        await watched.look()
    assert watched.deployments.notes() == {"1": "", "2": ""}
    assert sorted(problem.split(":")[-1] for problem in watched.problems) == [" [Errno 28] No space left on device"] * 2
    monkeypatch.undo()
    await watched.look()
    assert watched.deployments.notes() == {"1": "new"}
    assert len(watched.problems) == 2


async def test_what_is_no_manifest_is_left_alone_and_what_cannot_be_one_is_refused(watched, folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a.yaml").write_text(text("1"))
    (folder / "dir.yaml").mkdir()
    (folder / ".hidden.yaml").write_text("{")
    (folder / "notes.txt").write_text("{")
    await watched.look()
    assert (watched.deployments.known, watched.problems) == ({}, [])
    os.mkfifo(folder / "fifo.yaml")
    (folder / "long.yaml").write_text(text("2") + "#" * MAX_BYTES)
    (folder / "bytes.yaml").write_bytes(b"\xff")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "good.yaml").write_text(text("3"))
    await watched.look()
    assert watched.deployments.notes().keys() == {"3"}
    said = "\n".join(sorted(watched.problems))
    for part in ("bytes.yaml: is not UTF-8", "fifo.yaml: is not a regular file", "long.yaml: is longer than 64 KiB"):
        assert part in said
    assert len(watched.problems) == 4


async def test_only_so_many_files_are_followed_and_those_beyond_lose_nothing(watched, folder):
    (folder / "z.yaml").write_text(text("kept"))
    await watched.look()
    for number in range(MAX_FILES):
        (folder / f"{number:04}.yaml").write_text("{")
    assert len(look(folder)) == MAX_FILES + 1
    await watched.look()
    assert watched.deployments.notes().keys() == {"kept"}
    assert sum("the first 1000 by name are followed" in problem for problem in watched.problems) == 1


async def test_a_folder_that_cannot_be_read_changes_nothing(watched, folder, tmp_path):
    (folder / "a.yaml").write_text(text("1"))
    await watched.look()
    aside = folder.rename(tmp_path / "aside")
    for _ in range(3):
        await watched.look()
    assert watched.deployments.notes().keys() == {"1"}
    assert len(watched.problems) == 1
    aside.rename(folder)
    await watched.look()
    folder.rename(tmp_path / "aside")
    await watched.look()
    assert len(watched.problems) == 2
    aside.rename(folder)
    (folder / "a.yaml").write_text(text("2"))
    await watched.look()
    assert watched.deployments.notes().keys() == {"2"}


async def test_a_file_that_is_still_being_written_is_not_taken(watched, folder):
    await watched.look()
    path = folder / "a.yaml"
    for part in (text("1", "whole"), text("1", "more") + "#", text("1", "most") + "##"):
        path.write_text(part)
        await watched.follower.look()
        assert watched.deployments.known == {}
    await watched.follower.look()
    assert watched.deployments.notes() == {"1": "most"}
