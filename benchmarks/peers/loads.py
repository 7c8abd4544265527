"""Requests: stock Open Inference Protocol messages, with the tensors in them or in shared memory."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.models import SPECS, Spec
from edgeway.v1 import open_inference_pb2 as oip

PLACES = Path("/dev/shm")  # where POSIX shared memory lies on Linux


@dataclass(frozen=True)
class Load:
    """One kind of request."""

    model: str
    shared: bool = False

    @property
    def spec(self) -> Spec:
        return SPECS[self.model]


LOADS: Mapping[str, Load] = {
    "small": Load("identity_small"),
    "frame": Load("camera_u8"),
    "frame-shm": Load("camera_u8", shared=True),
    "big": Load("big_io"),
    "vision": Load("vision_224"),
}


def message(model: str) -> bytes:
    """ModelInferRequest with the tensor in it."""
    spec = SPECS[model]
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype=spec.datatype, shape=spec.shape)
    request.raw_input_contents.append(spec.tensor().tobytes())
    return request.SerializeToString()


@dataclass(frozen=True)
class Region:
    """System shared memory as Triton's extension has it: the input first, then room for the answer."""

    name: str
    model: str

    @property
    def key(self) -> str:
        return f"/{self.name}"

    @property
    def given(self) -> int:
        """Bytes of the input."""
        return SPECS[self.model].tensor().nbytes

    @property
    def answered(self) -> int:
        """Bytes of the answer."""
        return int(np.prod(SPECS[self.model].answer)) * 4

    @property
    def size(self) -> int:
        return self.given + self.answered

    def registration(self) -> bytes:
        """SystemSharedMemoryRegisterRequest."""
        request = oip.SystemSharedMemoryRegisterRequest(name=self.name, key=self.key, offset=0, byte_size=self.size)
        return bytes(request.SerializeToString())

    def message(self) -> bytes:
        """ModelInferRequest whose tensors lie in the region."""
        spec = SPECS[self.model]
        request = oip.ModelInferRequest(model_name=self.model)
        self._place(request.inputs.add(name="x", datatype=spec.datatype, shape=spec.shape), 0, self.given)
        self._place(request.outputs.add(name="y"), self.given, self.answered)
        return bytes(request.SerializeToString())

    def _place(self, tensor: Any, offset: int, size: int) -> None:
        tensor.parameters["shared_memory_region"].string_param = self.name
        tensor.parameters["shared_memory_byte_size"].int64_param = size
        if offset:
            tensor.parameters["shared_memory_offset"].int64_param = offset

    def map(self) -> mmap.mmap:
        """The memory, made here, with the input in it. ``remove`` it afterwards."""
        path = os.open(PLACES / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(path, self.size)
            memory = mmap.mmap(path, self.size)
        finally:
            os.close(path)
        memory[: self.given] = SPECS[self.model].tensor().tobytes()
        return memory

    def remove(self) -> None:
        (PLACES / self.name).unlink(missing_ok=True)


def answer(content: bytes) -> np.ndarray:
    """Output ``y`` of a ModelInferResponse, flat: raw, or typed as some servers answer."""
    response = oip.ModelInferResponse.FromString(content)
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float32)
    return np.asarray(response.outputs[0].contents.fp32_contents, np.float32)


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Poisson arrivals in seconds since the start; the same seed gives the same."""
    chance = random.Random(seed)
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)
