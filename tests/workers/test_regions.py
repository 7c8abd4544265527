"""A worker's regions: views and copies, shrinking files, and who may write."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeway import frames
from edgeway.frames import FrameError, Places, RegionPlace, TensorPlace
from edgeway.tensors import BY_NAME
from workers.backend import InvalidInput, Tensor
from workers.regions import VIEWED, Fill, Regions, RunRegions

SIZE = 1 << 20
INFER = bytes((frames.INFER, 1, 2, 3))


@pytest.fixture
def named() -> Iterator[Path]:
    path = Path("/dev/shm") / f"edgeway-test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    yield path
    path.unlink()


def sealed(size: int = SIZE, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, bytes(range(256)) * (size // 256))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def told(fd: int, is_sealed: bool, size: int = SIZE) -> Regions:
    regions = Regions()
    regions.add(frames.pack_region(1, size, is_sealed), [fd])
    return regions


def run(
    regions: Regions, inputs: tuple[RegionPlace, ...] = (), outputs: tuple[RegionPlace, ...] = (), token: int = 1
) -> RunRegions:
    fds = [os.eventfd(token, os.EFD_NONBLOCK)] if outputs else []
    found, infer = regions.of_run(frames.pack_region_places(Places(inputs, outputs)) + INFER, fds)
    assert infer == INFER
    assert not fds
    return found


def read(using: RunRegions, slot: memoryview, where: TensorPlace) -> Tensor:
    """An input as a run has it, after what must be done before each run."""
    fills: list[Fill] = []
    tensor = using.tensor(slot, where, fills)
    for fill in fills:
        fill.now()
    return tensor


def place(nbytes: int, datatype: str = "UINT8", offset: int = 0) -> TensorPlace:
    code = BY_NAME[datatype]
    return TensorPlace(0, code.code, (nbytes // (code.itemsize or 1),), offset, nbytes)


def test_a_large_tensor_of_a_sealed_region_is_viewed_as_it_lies():
    fd = sealed()
    ours = os.dup(fd)
    slot = memoryview(bytearray(SIZE))
    tensor = read(run(told(fd, True), (RegionPlace(0, 1, 64, VIEWED),)), slot, place(VIEWED))
    assert bytes(tensor.data[:4]) == bytes([64, 65, 66, 67])
    os.pwrite(ours, b"\xff", 64)
    assert tensor.data[0] == 0xFF
    assert tensor.data.readonly
    assert not any(slot)
    os.close(ours)


@pytest.mark.parametrize(
    ("nbytes", "offset", "datatype"),
    [(VIEWED - 64, 64, "UINT8"), (VIEWED, 65, "UINT8"), (VIEWED, 64, "INT64"), (VIEWED, 64, "BOOL")],
)
def test_what_is_small_or_askew_or_may_be_an_index_is_copied(nbytes, offset, datatype):
    fd = sealed()
    ours = os.dup(fd)
    slot = memoryview(bytearray(SIZE))
    tensor = read(run(told(fd, True), (RegionPlace(0, 1, offset, nbytes),)), slot, place(nbytes, datatype))
    before = bytes(tensor.data[:1])
    os.pwrite(ours, b"\xff", offset)
    assert bytes(tensor.data[:1]) == before == bytes([offset])
    os.close(ours)


def test_a_named_region_is_read_into_the_slot_and_never_mapped(named):
    slot = memoryview(bytearray(SIZE))
    regions = told(os.open(named, os.O_RDWR), False)
    tensor = read(run(regions, (RegionPlace(0, 1, 256, VIEWED),)), slot, place(VIEWED, offset=128))
    assert bytes(tensor.data) == named.read_bytes()[256 : 256 + VIEWED] == bytes(slot[128 : 128 + VIEWED])
    assert named.name not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("left", [0, 100, 255 + VIEWED])
def test_a_region_that_has_shrunk_is_an_invalid_input(named, left):
    regions = told(os.open(named, os.O_RDWR), False)
    piece = RegionPlace(0, 1, 256, VIEWED)
    os.truncate(named, left)
    with pytest.raises(InvalidInput, match="smaller"):
        read(run(regions, (piece,)), memoryview(bytearray(SIZE)), place(VIEWED))
    status, _, text = run(regions, (), (piece,)).deliver(memoryview(b""), 0, [0], [output(VIEWED)])
    assert (status, "smaller" in text) == (frames.INVALID_INPUT, True)
    assert named.stat().st_size == left


def output(nbytes: int) -> Tensor:
    return Tensor("UINT8", (nbytes,), memoryview(b"\x07" * nbytes))


def test_outputs_go_where_each_is_wanted(named):
    regions = told(os.open(named, os.O_RDWR), False)
    slot = memoryview(bytearray(1024))
    wanted, outputs = [2, 0, 1], [output(10), output(20), output(30)]
    there = run(regions, (), (RegionPlace(0, 1, 4096, 25),))
    assert there.room_needed(wanted, outputs) == 128
    status, places, _ = there.deliver(slot, 64, wanted, outputs)
    assert status == frames.OK
    assert [(each.index, each.offset, each.nbytes) for each in places] == [(2, 64, 10), (0, 0, 20), (1, 128, 30)]
    assert named.read_bytes()[4096:4117] == b"\x07" * 20 + bytes([20])
    assert bytes(slot[64:74]) == b"\x07" * 10
    assert bytes(slot[128:158]) == b"\x07" * 30


def test_an_output_without_enough_room_is_refused_and_writes_nothing(named):
    before = named.read_bytes()
    there = run(told(os.open(named, os.O_RDWR), False), (), (RegionPlace(0, 1, 0, 9), RegionPlace(1, 1, 64, 64)))
    status, places, text = there.deliver(memoryview(b""), 0, [1, 0], [output(10), output(10)])
    assert (status, places) == (frames.INVALID_INPUT, [])
    assert "10 bytes" in text
    assert "9" in text
    assert named.read_bytes() == before


def test_who_has_no_right_to_write_writes_nothing(named):
    before = named.read_bytes()
    there = run(told(os.open(named, os.O_RDWR), False), (), (RegionPlace(0, 1, 0, 64),), token=0)
    status, places, _ = there.deliver(memoryview(b""), 0, [0], [output(10)])
    assert (status, places) == (frames.OUTRUN, [])
    assert named.read_bytes() == before


def test_a_dropped_region_is_closed_when_its_last_run_has_ended():
    fd = sealed()
    identity = os.fstat(fd).st_ino
    regions = told(fd, True)
    using = run(regions, (RegionPlace(0, 1, 0, VIEWED),))
    regions.drop(frames.pack_drop_region(1))
    tensor = read(using, memoryview(b""), place(VIEWED))
    assert os.fstat(fd).st_ino == identity
    del using
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert tensor.data[1] == 1  # a view keeps the memory
    with pytest.raises(FrameError, match="never announced"):
        run(regions, (RegionPlace(0, 1, 0, 16),))


@pytest.mark.parametrize("piece", [RegionPlace(0, 1, SIZE, 1), RegionPlace(0, 1, 1, SIZE), RegionPlace(0, 2, 0, 1)])
def test_a_place_outside_of_what_was_announced_breaks_the_protocol(piece):
    regions = told(sealed(), True)
    with pytest.raises(FrameError):
        run(regions, (piece,))


@pytest.mark.parametrize(("size", "seals"), [(SIZE, fcntl.F_SEAL_GROW), (2 * SIZE, fcntl.F_SEAL_SHRINK)])
def test_what_is_not_sealed_is_not_mapped(size, seals):
    with pytest.raises(FrameError, match="not a sealed"):
        told(sealed(seals=seals), True, size)
