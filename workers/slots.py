"""The worker's maps of the gateway's slots."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Dict, List, NamedTuple, Sequence

from edgeway.datatypes import BY_CODE, BY_NAME, nbytes
from edgeway.frames import MARK_BYTES, FrameError, TensorPlace, aligned
from workers.backend import Tensor

_F_GET_SEALS = getattr(fcntl, "F_GET_SEALS", 1034)
_F_SEAL_SHRINK = getattr(fcntl, "F_SEAL_SHRINK", 2)


class SlotMemory(NamedTuple):
    """One mapped slot."""

    tensors: memoryview
    """What inputs and outputs may use."""
    mark: memoryview
    """The end of the slot, see ``begin``."""

    def begin(self) -> None:
        """Note that the run is about to begin, where the gateway can read it should this process die."""
        self.mark[0] = 1


class Slots:
    """Slot number -> mapped memory."""

    def __init__(self) -> None:
        self._slots: Dict[int, SlotMemory] = {}

    def add(self, slot: int, size: int, fd: int) -> None:
        """Map a slot; the descriptor is closed.

        Raises:
            FrameError: smaller than claimed, or not sealed against shrinking: touching it could kill us.
        """
        try:
            if size <= MARK_BYTES:
                raise FrameError(f"slot {slot} of {size} bytes has no room but for its mark")
            if os.fstat(fd).st_size < size or not fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK:
                raise FrameError(f"slot {slot} is not a sealed memfd of {size} bytes")
            memory = memoryview(mmap.mmap(fd, size))
            self._slots[slot] = SlotMemory(memory[:-MARK_BYTES], memory[-MARK_BYTES:])
        except OSError as failed:
            raise FrameError(f"slot {slot} can't be mapped: {failed}") from failed
        finally:
            os.close(fd)

    def drop(self, slot: int) -> None:
        self._slots.pop(slot, None)

    def memory(self, slot: int) -> SlotMemory:
        try:
            return self._slots[slot]
        except KeyError:
            raise FrameError(f"slot {slot} was never announced") from None


def read_tensor(view: memoryview, place: TensorPlace) -> Tensor:
    """A tensor of a slot as a read-only view.

    Raises:
        FrameError: outside of the slot, or not the size that its type and shape have.
    """
    datatype = BY_CODE.get(place.dtype)
    if datatype is None or place.offset + place.nbytes > len(view):
        raise FrameError(f"tensor {place.index} lies outside of its slot or has no known type")
    if datatype.itemsize and nbytes(datatype.name, place.shape) != place.nbytes:
        raise FrameError(f"tensor {place.index} has {place.nbytes} bytes, which its shape contradicts")
    return Tensor(datatype.name, place.shape, view[place.offset : place.offset + place.nbytes].toreadonly())


def room_needed(outputs: Sequence[Tensor]) -> int:
    """Bytes that the outputs take in a slot, each aligned."""
    needed = 0
    for output in outputs:
        needed += aligned(output.data.nbytes)
    return needed


def write_tensors(
    view: memoryview, offset: int, indices: Sequence[int], outputs: Sequence[Tensor]
) -> List[TensorPlace]:
    """Copy the outputs into a slot, from an aligned offset on; ``indices`` are their positions in the model."""
    places = []
    for index, output in zip(indices, outputs):
        end = offset + output.data.nbytes
        view[offset:end] = output.data
        places.append(TensorPlace(index, BY_NAME[output.datatype].code, output.shape, offset, output.data.nbytes))
        offset = aligned(end)
    return places
