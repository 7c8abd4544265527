"""The worker's maps of the gateway's slots."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Dict, List, Sequence

from edgeway.frames import FrameError, TensorPlace, aligned
from edgeway.tensors import BY_CODE, BY_NAME, nbytes
from workers.backend import Tensor

_F_GET_SEALS = getattr(fcntl, "F_GET_SEALS", 1034)
_F_SEAL_SHRINK = getattr(fcntl, "F_SEAL_SHRINK", 2)


class Slots:
    """Slot number -> mapped memory."""

    def __init__(self) -> None:
        self._views: Dict[int, memoryview] = {}

    def add(self, slot: int, size: int, fd: int) -> None:
        """Map a slot; the descriptor is closed.

        Raises:
            FrameError: smaller than claimed, or not sealed against shrinking: touching it could kill us.
        """
        try:
            if os.fstat(fd).st_size < size or not fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK:
                raise FrameError(f"slot {slot} is not a sealed memfd of {size} bytes")
            self._views[slot] = memoryview(mmap.mmap(fd, size))
        except OSError as failed:
            raise FrameError(f"slot {slot} can't be mapped: {failed}") from failed
        finally:
            os.close(fd)

    def drop(self, slot: int) -> None:
        self._views.pop(slot, None)

    def view(self, slot: int) -> memoryview:
        try:
            return self._views[slot]
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
