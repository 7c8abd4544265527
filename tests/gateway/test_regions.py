"""Regions: bounds of untrusted numbers, whose files may be used, limits, and the end of a region."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeway.frames import (
    INFER,
    FrameError,
    Places,
    RegionPlace,
    Reply,
    TensorPlace,
    pack_region_places,
    unpack_region_places,
)
from edgeway.v1 import open_inference_pb2 as oip
from gateway.errors import AlreadyExists, InvalidRequest, NotFound, NotOffered, Shed
from gateway.front.decode import Decoder
from gateway.front.region_forms import RegionForm, region_form
from gateway.front.regions import RegionOffer
from gateway.regions.files import FOLDER, may_use
from gateway.regions.placement import Placement, Placing
from gateway.regions.region import MAX_INT, Region, RegionSpan, within
from gateway.regions.registry import Regions
from gateway.request import OutputTensor, Request

U64 = (1 << 64) - 1
numbers = st.one_of(st.integers(-(1 << 70), 1 << 70), st.sampled_from([0, 1, MAX_INT, MAX_INT + 1, U64, U64 - 31]))
sizes = st.integers(0, 1 << 64)


@pytest.fixture
def file() -> Iterator[Path]:
    path = Path(FOLDER) / f"edgeway-test-{uuid.uuid4().hex}"
    path.touch(0o600)
    os.truncate(path, 4096)
    yield path
    path.unlink(missing_ok=True)


@given(numbers, numbers, sizes)
def test_a_range_lies_within_a_size_exactly_if_both_its_ends_do(offset, nbytes, size):
    expected = nbytes >= 0 and 0 <= offset <= size and 0 <= offset + nbytes <= size
    assert within(offset, nbytes, size) == expected


@given(st.integers(0, 1000), st.integers(1, 1000), numbers, numbers)
def test_a_span_never_leaves_its_region(begin, size, offset, nbytes):
    region = Region(1, "r", "k", begin, size, -1, False, lambda ended: None)
    try:
        span = region.span(offset, nbytes)
    except InvalidRequest:
        assert offset < 0 or nbytes < 0 or offset + nbytes > size
    else:
        assert begin <= span.offset
        assert span.offset + span.nbytes <= begin + size
        assert (span.offset - begin, span.nbytes) == (offset, nbytes)


@given(
    offset=st.one_of(st.integers(0, 4100), st.integers(0, U64)),
    nbytes=st.one_of(st.integers(0, 4100), st.integers(0, U64)),
)
def test_whatever_range_is_registered_lies_in_the_file(offset, nbytes):
    path = Path(FOLDER) / f"edgeway-test-{uuid.uuid4().hex}"
    path.touch(0o600)
    os.truncate(path, 4096)
    regions = Regions(U64)
    try:
        region = regions.register("r", path.name, offset, nbytes, os.getegid())
    except InvalidRequest:
        assert not nbytes or offset + nbytes > 4096
    else:
        assert nbytes
        assert region.offset + region.nbytes <= 4096
    finally:
        regions.close()
        path.unlink()
    assert regions.bytes == 0


@given(
    st.dictionaries(
        st.sampled_from(["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "shared_memory_x"]),
        st.one_of(numbers, st.booleans(), st.none(), st.text(max_size=3), st.floats()),
    )
)
def test_parameters_of_a_tensor_give_a_place_or_a_refusal(given_parameters):
    try:
        form = region_form("input 'x'", given_parameters)
    except (InvalidRequest, NotOffered):
        assert given_parameters
        return
    if form is None:
        assert not given_parameters
    else:
        assert form.region
        assert 0 <= form.offset <= MAX_INT
        assert 0 <= form.nbytes <= MAX_INT


def test_the_offset_is_zero_where_none_is_given():
    given_parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 8, "binary_data_size": 3}
    assert region_form("x", given_parameters) == RegionForm("r", 0, 8)


OURS, OTHERS, GROUP = os.geteuid(), os.geteuid() + 1, os.getegid()


@pytest.mark.parametrize(
    ("owner", "file_group", "mode", "group", "allowed"),
    [
        (OURS, GROUP, 0o600, GROUP, True),
        (OURS, GROUP, 0o600, GROUP + 1, False),  # members of that group can call, and could not open it themselves
        (OURS, GROUP + 1, 0o660, GROUP + 1, True),
        (OTHERS, GROUP, 0o600, GROUP, False),  # as root we could open it
        (OTHERS, GROUP, 0o640, GROUP, False),
        (OTHERS, GROUP, 0o660, GROUP, True),
        (OTHERS, GROUP + 1, 0o660, GROUP, False),
        (OTHERS, GROUP + 1, 0o666, GROUP, True),
        (OTHERS, GROUP + 1, 0o664, GROUP, False),
        (OTHERS, GROUP + 1, 0o662, GROUP, False),
    ],
)
def test_a_file_may_be_used_if_every_possible_caller_could_open_it(owner, file_group, mode, group, allowed):
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, file_group, 4096, 0, 0, 0))
    assert may_use(status, group) == allowed


def test_names_of_made_regions_are_not_listed_and_survive_unregistering(file):
    regions = Regions(1 << 20)
    made = regions.create(4096)
    named = regions.register("r", file.name, 0, 4096, GROUP)
    assert regions.registered() == [named]
    with pytest.raises(NotFound):
        regions.registered(made.name)
    regions.unregister(made.name)
    regions.unregister()
    assert regions.find(made.name) is made
    with pytest.raises(NotFound):
        regions.find("r")
    regions.end(made)
    assert regions.bytes == 0


def test_a_name_is_taken_once_and_limits_hold(file):
    regions = Regions(8192, max_regions=2)
    regions.register("r", file.name, 0, 4096, GROUP)
    with pytest.raises(AlreadyExists):
        regions.register("r", file.name, 0, 16, GROUP)
    with pytest.raises(Shed, match="maxMB"):
        regions.create(4097)
    regions.create(4096)
    with pytest.raises(Shed, match="limit"):
        regions.create(1)


def test_a_region_ends_with_its_last_user_and_tells_who_has_it_open():
    regions = Regions(8192)
    region = regions.create(4096)
    told: list[int] = []
    region.holders.add(told.append)
    region.enter()
    regions.end(region)
    os.fstat(region.fd)  # still open
    assert (told, regions.bytes) == ([], 4096)
    region.leave()
    assert (told, regions.bytes) == ([region.number], 0)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(region.fd)


def test_a_made_region_can_neither_shrink_nor_grow():
    regions = Regions(8192)
    region = regions.create(4096)
    for size in (0, 4095, 4097):
        with pytest.raises(PermissionError):
            os.ftruncate(region.fd, size)
    regions.close()


def placement(outputs: dict[int, RegionSpan]) -> Placement:
    return Placement(Placing([], outputs))


def span(nbytes: int) -> RegionSpan:
    return RegionSpan(Region(7, "r", "k", 0, nbytes, -1, False, lambda ended: None), 0, nbytes)


def test_the_right_to_write_outputs_is_taken_once():
    placed = placement({0: span(16)})
    token = os.dup(placed.token)
    assert len(os.read(token, 8)) == 8
    with pytest.raises(BlockingIOError):
        os.read(token, 8)
    placed.close()
    os.close(token)


def test_nobody_writes_outputs_once_the_request_is_over():
    placed = placement({0: span(16)})
    token = os.dup(placed.token)
    placed.close()
    with pytest.raises(BlockingIOError):
        os.read(token, 8)
    os.close(token)


def test_a_second_try_has_a_right_of_its_own_and_the_first_none_any_more():
    placed = placement({0: span(16)})
    first = os.dup(placed.token)
    placed.renew()
    second = os.dup(placed.token)
    with pytest.raises(BlockingIOError):
        os.read(first, 8)
    assert len(os.read(second, 8)) == 8
    placed.close()
    os.close(first)
    os.close(second)


def test_an_output_that_was_written_into_a_region_is_told_by_reference():
    placed = placement({1: span(100)})
    outputs = [OutputTensor("a", "FP32", (1,), memoryview(bytes(4))), OutputTensor("b", "UINT8", (9,), memoryview(b""))]
    places = [TensorPlace(0, 11, (1,), 0, 4), TensorPlace(1, 2, (9,), 0, 9)]
    told = placed.delivered(outputs, Reply(1, 0, 0.0, 0.0, 0.0, 0, places, ""))
    placed.close()
    assert told[0] is outputs[0]
    assert isinstance(told[1].data, RegionSpan)
    assert told[1].data.nbytes == 9
    assert placed.holds(1, 100)
    assert not placed.holds(1, 101)
    assert not placed.holds(0, 4)


places = st.builds(
    RegionPlace, st.integers(0, 65535), st.integers(0, (1 << 32) - 1), st.integers(0, U64), st.integers(0, U64)
)


@given(st.lists(places, max_size=5), st.lists(places, max_size=5))
def test_places_survive_their_frame(inputs, outputs):
    frame = pack_region_places(Places(inputs, outputs)) + bytes((INFER, 7))
    assert unpack_region_places(frame) == (Places(inputs, outputs), bytes((INFER, 7)))
    for cut in range(len(frame) - 1):
        with pytest.raises(FrameError):
            unpack_region_places(frame[:cut])


def test_what_is_remembered_of_a_message_ends_with_its_region_and_the_next_of_that_name_is_found(file):
    """The same bytes, before and after the name means another part of the file."""
    regions = Regions(1 << 20)
    decoder = Decoder(RegionOffer(regions, os.getegid))
    message = oip.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype="UINT8", shape=[100])
    tensor.parameters["shared_memory_region"].string_param = "frames"
    tensor.parameters["shared_memory_byte_size"].int64_param = 100
    content = message.SerializeToString()

    def asked() -> Request:
        request = decoder.decode(content, 50.0, None, (("priority", "2"),))
        for region in request.regions:
            region.leave()
        return request

    forms = []
    for begin in (0, 1024):
        region = regions.register("frames", file.name, begin, 512, os.getegid())
        requests = [asked() for _ in range(3)]
        for request in requests:
            assert request.inputs[0].data == RegionSpan(region, begin, 100)
            assert (request.nbytes, request.priority) == (len(content) + 100, 2)
        assert region.users == 0
        assert requests[1].form is requests[2].form is not None
        forms.append(requests[2].form)
        regions.unregister("frames")
        with pytest.raises(NotFound):
            asked()
    assert forms[0] is not forms[1], "a plan for the one must not be used for the other"
