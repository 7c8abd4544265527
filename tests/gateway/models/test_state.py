"""The state on disk: all of a change or nothing, and a damaged file never keeps the gateway from starting."""

from __future__ import annotations

import pytest

from gateway.event import KEPT, Event
from gateway.models.rollout import Rollout, Standing
from gateway.models.signing import Highest
from gateway.models.state import Change, State, StateUnusable, Stored


@pytest.fixture
def state(tmp_path):
    made = State(tmp_path)
    assert made.open() == ""
    yield made
    made.close()


def stored(sequence: int, **more) -> Stored:
    return Stored(sequence, 1.5, {"n": sequence}, **more)


def reopened(state: State, folder):
    state.close()
    again = State(folder)
    again.open()
    try:
        return again.read()
    finally:
        again.close()


def test_what_was_committed_is_there_after_a_restart_in_its_order(state, tmp_path):
    rollout = Rollout((Standing("1", "c", (1, 2), 10, (50, 100)),), ("1",) * 100)
    manifests = {("m", "2"): stored(5), ("m", "1"): stored(3, origin="folder:a.yaml")}
    event = Event(7, 2.5, "rolled-back", "why", "m", "1", "cpu")
    state.commit(Change(manifests, (), {"m": rollout}, {"m": Highest(4, "c")}, [event]))
    known = reopened(state, tmp_path)
    assert [(s.sequence, s.manifest, s.origin) for s in known.manifests] == [
        (3, {"n": 3}, "folder:a.yaml"),
        (5, {"n": 5}, ""),
    ]
    assert (known.rollouts, known.counters, list(known.events)) == ({"m": rollout}, {"m": Highest(4, "c")}, [event])


def test_what_is_forgotten_is_gone_but_its_counter_stays(state, tmp_path):
    state.commit(Change({("m", "1"): stored(1)}, (), {"m": Rollout()}, {"m": Highest(4, "c")}))
    state.commit(Change({}, [("m", "1")], {"m": None}))
    known = reopened(state, tmp_path)
    assert (known.manifests, known.rollouts, known.counters) == ([], {}, {"m": Highest(4, "c")})


def test_a_change_that_fails_half_way_leaves_nothing_behind(state, tmp_path):
    state.commit(Change({("m", "1"): stored(1)}))
    broken = Change({("m", "2"): stored(2), ("m", "3"): Stored(3, 1.0, {"n": 1}, object())})
    with pytest.raises(StateUnusable):
        state.commit(broken)
    state.commit(Change({("m", "4"): stored(4)}))
    assert [each.sequence for each in reopened(state, tmp_path).manifests] == [1, 4]


def test_only_the_newest_events_are_kept(state, tmp_path):
    for start in (1, 1 + KEPT):
        state.commit(Change(events=[Event(n, 0.0, "k", "m") for n in range(start, start + KEPT)]))
    events = reopened(state, tmp_path).events
    assert (len(events), events[0].sequence) == (KEPT, 1 + KEPT)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at" * 100, b"\0" * 8192])
def test_a_damaged_database_is_put_aside_and_said(tmp_path, content):
    (tmp_path / "state.db").write_bytes(content)
    state = State(tmp_path)
    assert "damaged" in state.open()
    assert (tmp_path / "state.db.damaged").read_bytes() == content
    state.commit(Change({("m", "1"): stored(1)}))
    assert len(state.read().manifests) == 1
    state.close()


def test_entries_that_cannot_be_read_are_named_and_the_others_are_read(state, tmp_path):
    state.commit(Change({("m", "1"): stored(1), ("m", "2"): stored(2)}, (), {"m": Rollout(), "n": Rollout()}))
    state._database.execute("UPDATE manifests SET content = '{half' WHERE version = '1'")
    state._database.execute("UPDATE rollouts SET content = '[]' WHERE name = 'n'")
    known = reopened(state, tmp_path)
    assert ([each.sequence for each in known.manifests], list(known.rollouts)) == ([2], ["m"])
    assert [problem.split(":")[0] for problem in known.problems] == ["m 1", "n"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match=r"state\.db"):
        State(tmp_path / "file" / "state").open()
