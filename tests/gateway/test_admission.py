"""Places: bounded per class and in all, shed at once, the lowest first."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.slots import CLASSES, InFlight, Place, class_limits
from gateway.admission.streams import Streams
from gateway.errors import Shed, Superseded


def places(requests: int = 2, nbytes: int = 100, low: int = 100) -> InFlight:
    return InFlight(requests, nbytes, class_limits(requests, 100, 100, low))


def stays() -> bool:
    return False


def goes() -> bool:
    return True


def test_a_full_gateway_sheds_and_takes_again_once_someone_left():
    within = places()
    first = within.enter(10, 5, stays)
    second = within.enter(10, 5, stays)
    with pytest.raises(Shed, match="maxInFlight"):
        within.enter(10, 5, stays)
    within.leave(first)
    with pytest.raises(Shed, match="maxInFlightMB"):
        within.enter(95, 5, stays)
    within.leave(second)
    within.enter(1000, 5, stays)  # one alone is never too big
    assert (within.requests, within.bytes) == (1, 1000)


def test_a_full_class_sheds_while_others_have_places():
    within = places(requests=4, low=50)
    for _ in range(2):
        within.enter(1, 9, stays)
    with pytest.raises(Shed, match=r"low class.*classPercent\.low"):
        within.enter(1, 7, stays)
    within.enter(1, 5, stays)
    within.enter(1, 1, stays)


def test_a_small_limit_leaves_every_class_a_place():
    assert class_limits(1, 100, 50, 1) == (1, 1, 1)


def test_a_higher_class_takes_the_place_of_the_youngest_waiting_request_of_the_lowest():
    gone: list[str] = []

    def evictor(name: str, waits: bool = True):
        def evict() -> bool:
            if waits:
                gone.append(name)
            return waits

        return evict

    within = places(requests=4)
    within.enter(1, 9, evictor("running", waits=False))
    within.enter(1, 9, evictor("older"))
    youngest = within.enter(1, 9, evictor("younger"))
    within.enter(1, 5, evictor("normal"))
    within.enter(1, 1, stays)
    assert gone == ["younger"]
    assert isinstance(youngest.ended, Shed)
    within.leave(youngest)  # it has none any more
    assert within.requests == 4
    within.enter(1, 4, stays)
    assert gone == ["younger", "older"]
    with pytest.raises(Shed):
        within.enter(1, 9, stays)
    within.enter(1, 2, stays)
    assert gone == ["younger", "older", "normal"]


@given(
    st.integers(1, 8),
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 60), st.booleans(), st.booleans()), max_size=60),
)
def test_counts_always_add_up_and_no_limit_is_ever_passed(requests, low, steps):
    within = places(requests, 100, low)
    inside: list[Place] = []
    for priority, nbytes, waits, leaves in steps:
        if leaves and inside:
            within.leave(inside.pop(0))
        with contextlib.suppress(Shed):
            inside.append(within.enter(nbytes, priority, goes if waits else stays))
        inside = [place for place in inside if place.ended is None]
        assert within.requests == len(inside) == sum(within.counts) <= requests
        assert within.bytes == sum(place.nbytes for place in inside)
        assert within.bytes <= 100 or len(inside) == 1
        for which in range(len(CLASSES)):
            count = sum(place.which == which for place in inside)
            assert count == within.counts[which] <= within.limits[which]


def frame(waits: bool = True) -> Place:
    return Place(1, 1, goes if waits else stays)


def test_a_newer_frame_of_a_stream_ends_the_one_that_waits_and_no_other():
    streams = Streams()
    first, second, other, of_another_model = frame(), frame(), frame(), frame()
    streams.join("m", "front", first)
    streams.join("m", "rear", other)
    streams.join("n", "front", of_another_model)
    streams.join("m", "front", second)
    assert isinstance(first.ended, Superseded)
    assert [place.ended for place in (second, other, of_another_model)] == [None] * 3


def test_a_frame_that_a_worker_has_begun_is_left_to_it():
    streams = Streams()
    begun = frame(waits=False)
    streams.join("m", "front", begun)
    streams.join("m", "front", frame())
    assert begun.ended is None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans()), max_size=30))
def test_of_each_stream_at_most_one_frame_waits_and_nothing_is_left_behind(steps):
    streams = Streams()
    inside: list[tuple[str, Place]] = []
    for key, waits, leaves in steps:
        if leaves and inside:
            gone, place = inside.pop(0)
            streams.leave("m", gone, place)
        inside.append((key, frame(waits)))
        streams.join("m", *inside[-1])
        for each in "ab":
            assert sum(k == each and p.evict is goes and p.ended is None for k, p in inside) <= 1
    for key, place in inside:
        streams.leave("m", key, place)
    assert len(streams) == 0
