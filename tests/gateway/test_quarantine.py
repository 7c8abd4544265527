"""Quarantine: the same request is refused, another one never is, and nothing stays for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.quarantine import Quarantine, fingerprint
from gateway.request import InputTensor


def tensor(name="x", data=b"\x01\x02", shape=None, datatype="UINT8"):
    return InputTensor(name, datatype, (len(data),) if shape is None else shape, memoryview(data))


names = st.text("abx", min_size=1, max_size=3)
contents = st.one_of(st.binary(max_size=12), st.integers(0, 3000).map(lambda size: bytes(size)))
tensors = st.builds(tensor, names, contents, st.sampled_from([None, (1, 2), (12,)]), st.sampled_from(["UINT8", "INT8"]))
requests = st.tuples(names, names, st.lists(tensors, max_size=3, unique_by=lambda tensor: tensor.name))


def key(request):
    model, version, inputs = request
    return model, version, sorted((t.name, t.datatype, t.shape, bytes(t.data)) for t in inputs)


@given(st.lists(requests, max_size=8), st.lists(requests, max_size=8))
def test_exactly_the_requests_that_were_added_are_held(added, others):
    quarantine = Quarantine()
    for request in added:
        quarantine.add(*request, now=0.0)
    keys = [key(request) for request in added]
    for request in (*added, *others):
        assert quarantine.holds(*request, now=1.0) == (key(request) in keys)


@given(requests)
def test_what_is_held_is_suspicious_in_any_order_of_its_inputs(request):
    model, version, inputs = request
    quarantine = Quarantine()
    quarantine.add(model, version, inputs, now=0.0)
    assert quarantine.suspicious(model, version, inputs[::-1])
    assert quarantine.holds(model, version, inputs[::-1], now=0.0)


@given(st.binary(min_size=1, max_size=4000), st.data())
def test_a_request_that_differs_in_one_byte_is_another_one(content, data):
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= 0xFF
    quarantine = Quarantine()
    quarantine.add("m", "1", [tensor(data=content)], now=0.0)
    assert not quarantine.holds("m", "1", [tensor(data=bytes(changed))], now=0.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100)), max_size=60), st.integers(1, 8))
def test_there_are_never_more_than_its_size(added, size):
    quarantine = Quarantine(size=size)
    moment = 0.0
    for number, pause in added:
        moment += pause
        quarantine.add("m", "1", [tensor(data=bytes([number]))], moment)
        assert 0 < len(quarantine) <= size
        assert quarantine.holds("m", "1", [tensor(data=bytes([number]))], moment)


@given(st.floats(0.1, 1e4), st.floats(0, 1e6), st.floats(0, 2e4))
def test_a_request_is_held_for_its_time_and_no_longer(seconds, began, later):
    quarantine = Quarantine(seconds)
    quarantine.add("m", "1", [tensor()], began)
    assert quarantine.holds("m", "1", [tensor()], began + later) == (began + later < began + seconds)


def test_an_expired_one_is_suspicious_until_it_is_seen_and_not_after():
    quarantine = Quarantine(10.0)
    quarantine.add("m", "1", [tensor()], 0.0)
    assert quarantine.suspicious("m", "1", [tensor()])
    assert not quarantine.holds("m", "1", [tensor()], 11.0)
    assert not quarantine.suspicious("m", "1", [tensor()])
    assert not quarantine


def test_the_one_that_nobody_sent_for_longest_makes_room():
    quarantine = Quarantine(size=2)
    first, second, third = ([tensor(data=bytes([number]))] for number in range(3))
    quarantine.add("m", "1", first, 0.0)
    quarantine.add("m", "1", second, 1.0)
    assert quarantine.holds("m", "1", first, 2.0)
    quarantine.add("m", "1", third, 3.0)
    assert quarantine.holds("m", "1", first, 4.0)
    assert not quarantine.holds("m", "1", second, 4.0)


def test_a_frame_that_only_begins_like_the_quarantined_one_is_not_hashed():
    """Every frame of a camera may begin with the same black rows."""
    poison = bytes(100_000) + bytes([1]) * 100_000
    other = bytes(100_000) + bytes([2]) * 100_000
    quarantine = Quarantine()
    quarantine.add("m", "1", [tensor(data=poison)], 0.0)
    assert not quarantine.suspicious("m", "1", [tensor(data=other)])


def test_the_parts_of_a_request_do_not_run_into_each_other():
    assert fingerprint("ab", "c", []) != fingerprint("a", "bc", [])
    split = [tensor("x", b"ab"), tensor("y", b"c")]
    assert fingerprint("m", "1", split) != fingerprint("m", "1", [tensor("x", b"a"), tensor("y", b"bc")])
