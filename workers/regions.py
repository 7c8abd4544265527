"""The worker's end of clients' regions: reads inputs out of them, and writes outputs into them.

A region that a client has named may shrink at any time, and touching a map of what is gone would kill the process
(SIGBUS). So it is never mapped: its bytes are read into the slot and written by system calls, which say that there are
fewer. A region that the gateway has made is sealed against shrinking, and large tensors of it are viewed as they lie.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from edgeway import frames
from edgeway.datatypes import BY_CODE, BY_NAME
from edgeway.frames import ALIGNMENT, FrameError, RegionPlace, TensorPlace
from workers.backend import InvalidInput, Tensor
from workers.slots import read_tensor, room_needed, write_tensors

MOST = 256
"""Sets of places remembered."""
VIEWED = 64 * 1024
"""Bytes from which on a tensor is viewed instead of copied: a copy of fewer costs no more than a view."""
COPIED_TYPES = frozenset(BY_NAME[name].code for name in ("INT32", "INT64", "UINT32", "UINT64", "BYTES", "BOOL"))
"""Never viewed: runtimes check indices, sizes and lengths first and use them afterwards, and the client may write
between."""

_F_GET_SEALS = getattr(fcntl, "F_GET_SEALS", 1034)
_F_SEAL_SHRINK = getattr(fcntl, "F_SEAL_SHRINK", 2)


class OutRun(Exception):
    """The right to write the outputs was another's, or is no more."""


class Region:
    """One region. Its descriptor is closed when it was dropped and the last run that uses it has ended."""

    def __init__(self, number: int, size: int, sealed: bool, fd: int) -> None:
        """Takes the descriptor. Raises FrameError: said to be sealed, and is not."""
        self.number = number
        self.size = size
        self.fd = fd
        self.map: Optional[memoryview] = None
        if not sealed:
            return
        if os.fstat(fd).st_size < size or not fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK:
            raise FrameError(f"region {number} is not a sealed memfd of {size} bytes")
        with contextlib.suppress(OSError):  # beyond the worker's memory limit it is read like any other
            self.map = memoryview(mmap.mmap(fd, size))

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target``. Raises InvalidInput: the region has shrunk."""
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self.fd, [target[done:]], offset + done)
            except OSError as failed:
                raise InvalidInput(f"a shared memory region can't be read: {failed.strerror}") from failed
            if not count:
                raise InvalidInput("a shared memory region has become smaller than what was registered")
            done += count

    def write_from(self, source: memoryview, offset: int) -> None:
        """Write all of ``source``. Raises InvalidInput: the region has shrunk, or its file system is full."""
        try:
            if os.fstat(self.fd).st_size < offset + len(source):  # writing beyond the end would make it grow again
                raise InvalidInput("a shared memory region has become smaller than what was registered")
            done = 0
            while done < len(source):
                done += os.pwritev(self.fd, [source[done:]], offset + done)
        except OSError as failed:
            raise InvalidInput(f"a shared memory region can't be written: {failed.strerror}") from failed

    def __del__(self) -> None:
        os.close(self.fd)


class Token:
    """The right to write a request's outputs; see ``edgeway.frames.Places``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def take(self) -> bool:
        """Whether it is ours now."""
        try:
            return len(os.read(self._fd, 8)) == 8
        except BlockingIOError:
            return False

    def __del__(self) -> None:
        os.close(self._fd)


class Piece(NamedTuple):
    """A tensor's place in a region that is open here."""

    region: Region
    offset: int
    nbytes: int


class Fill(NamedTuple):
    """An input that must be copied out of its region before each run."""

    piece: Piece
    target: memoryview

    def now(self) -> None:
        """Raises InvalidInput: the region has shrunk."""
        self.piece.region.read_into(self.target, self.piece.offset)


class RunRegions:
    """What one run has to do with regions. It keeps them open until the run has ended."""

    def __init__(self, inputs: Dict[int, Piece], outputs: Dict[int, Piece], token: Optional[Token], key: bytes) -> None:
        """``inputs``, ``outputs``: by position among the model's. ``key``: equal for runs with the same of both."""
        self._inputs = inputs
        self._outputs = outputs
        self._token = token
        self.key = key

    @property
    def takes_outputs(self) -> bool:
        return bool(self._outputs)

    def tensor(self, slot: memoryview, place: TensorPlace, fills: List[Fill]) -> Tensor:
        """An input, wherever it lies; what must be done before each run, so that it lies there, is added to ``fills``.

        Raises:
            FrameError: it lies outside of its slot, or is not the size that its type and shape have.
        """
        piece = self._inputs.get(place.index)
        if piece is None:
            return read_tensor(slot, place)
        if piece.nbytes != place.nbytes:
            raise FrameError(f"input {place.index} has {place.nbytes} bytes, and {piece.nbytes} in its region")
        view = piece.region.map
        if (
            view is not None
            and place.nbytes >= VIEWED
            and not piece.offset % ALIGNMENT
            and place.dtype in BY_CODE
            and place.dtype not in COPIED_TYPES
        ):
            return read_tensor(view, place._replace(offset=piece.offset))
        if place.offset + place.nbytes > len(slot):
            raise FrameError(f"input {place.index} lies outside of its slot")
        fills.append(Fill(piece, slot[place.offset : place.offset + place.nbytes]))
        return read_tensor(slot, place)

    def room_needed(self, wanted: Sequence[int], outputs: Sequence[Tensor]) -> int:
        """Bytes that those outputs take in the slot which have no place in a region."""
        return room_needed([output for index, output in zip(wanted, outputs) if index not in self._outputs])

    def deliver(
        self, slot: memoryview, offset: int, wanted: Sequence[int], outputs: Sequence[Tensor]
    ) -> Tuple[int, List[TensorPlace], str]:
        """Write each output where it is wanted, those of the slot from ``offset`` on: status, places and message."""
        try:
            return frames.OK, self._deliver(slot, offset, wanted, outputs), ""
        except InvalidInput as refused:
            return frames.INVALID_INPUT, [], str(refused)
        except OutRun:
            return frames.OUTRUN, [], "another attempt has written the outputs, or nobody wants them any more"

    def _deliver(
        self, slot: memoryview, offset: int, wanted: Sequence[int], outputs: Sequence[Tensor]
    ) -> List[TensorPlace]:
        inside = [index in self._outputs for index in wanted]
        for index, output, there in zip(wanted, outputs, inside):
            if there and output.data.nbytes > self._outputs[index].nbytes:
                raise InvalidInput(
                    f"output {index} has {output.data.nbytes} bytes, and room in its shared memory region for "
                    f"{self._outputs[index].nbytes}"
                )
        kept = [(index, output) for index, output, there in zip(wanted, outputs, inside) if not there]
        written = iter(write_tensors(slot, offset, [index for index, _ in kept], [output for _, output in kept]))
        if self._token is None or not self._token.take():
            raise OutRun
        places = []
        for index, output, there in zip(wanted, outputs, inside):
            if there:
                piece = self._outputs[index]
                piece.region.write_from(output.data, piece.offset)
                code = BY_NAME[output.datatype].code
                places.append(TensorPlace(index, code, output.shape, 0, output.data.nbytes))
            else:
                places.append(next(written))
        return places


class Regions:
    """All regions that the gateway has told of. The reading thread's."""

    def __init__(self) -> None:
        self._regions: Dict[int, Region] = {}
        self._known: Dict[bytes, Tuple[Dict[int, Piece], Dict[int, Piece]]] = {}
        """Inputs and outputs by the bytes that said where they lie, as long as all regions stay."""

    def add(self, frame: bytes, fds: List[int]) -> None:
        """REGION; takes the descriptor out of ``fds``. Raises FrameError."""
        number, size, sealed = frames.unpack_region(frame)
        if len(fds) != 1:
            raise FrameError(f"region {number} came with {len(fds)} descriptors")
        self._regions[number] = Region(number, size, sealed, fds.pop())

    def drop(self, frame: bytes) -> None:
        """DROP_REGION."""
        self._regions.pop(frames.unpack_drop_region(frame), None)
        self._known.clear()

    def of_run(self, frame: bytes, fds: List[int]) -> Tuple[RunRegions, bytes]:
        """PLACES: what the run has to do with regions, and its INFER. Takes the descriptor out of ``fds``.

        Raises:
            FrameError: malformed, or about regions that are not here.
        """
        key, infer = frames.split_region_places(frame)
        known = self._known.get(key)
        if known is None:
            places, _ = frames.unpack_region_places(frame)
            inputs = {place.index: self._piece(place) for place in places.inputs}
            known = inputs, {place.index: self._piece(place) for place in places.outputs}
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[key] = known
        inputs, outputs = known
        if len(fds) != bool(outputs):
            raise FrameError(f"places of {len(outputs)} outputs came with {len(fds)} descriptors")
        return RunRegions(inputs, outputs, Token(fds.pop()) if fds else None, key), infer

    def _piece(self, place: RegionPlace) -> Piece:
        region = self._regions.get(place.region)
        if region is None:
            raise FrameError(f"region {place.region} was never announced")
        if place.offset + place.nbytes > region.size:
            raise FrameError(f"tensor {place.index} lies outside of region {place.region}")
        return Piece(region, place.offset, place.nbytes)
