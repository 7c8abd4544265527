"""Asks a model of a remote endpoint what tells whether it may serve, before anybody else does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from edgeway.datatypes import nbytes
from gateway.dispatch.remote.ports import Endpoint
from gateway.errors import Code
from gateway.remote.failure import Disagreed, RemoteFailure
from gateway.remote.golden import Comparison, Disagrees, Unusable, numbers, read_samples
from gateway.remote.messages import BadAnswer, infer_request, metadata, read_answer
from gateway.request import InputTensor, Signature
from gateway.target import Golden

PROBES = 2
_LOWEST = 9
"""Priority."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One model. ``limit``: seconds that an answer may take."""

    endpoint: Endpoint
    name: str
    version: str
    signature: Signature
    """As the endpoint says."""
    limit: float

    async def probe(self, form: Signature) -> list[float]:
        """Seconds of runs on zeros, whose answers must have this form. None where an input has a size that nobody can
        guess. Raises RemoteFailure.
        """
        inputs = []
        for spec in self.signature.inputs:
            shape = tuple(1 if index == 0 and size < 0 else size for index, size in enumerate(spec.shape))
            if any(size < 0 for size in shape):
                return []
            zeros = memoryview(bytes(nbytes(spec.datatype, shape)))
            inputs.append(InputTensor(spec.name, spec.datatype, shape, zeros))
        message = self._message(inputs, ())
        took = []
        for _ in range(PROBES):
            began = monotonic()
            try:
                read_answer(await self._ask(message), form, ())
            except BadAnswer as wrong:
                raise RemoteFailure(Code.INTERNAL, f"probe: {wrong}") from wrong
            except RemoteFailure as failed:
                if failed.code == Code.INVALID_ARGUMENT and any(-1 in spec.shape for spec in self.signature.inputs):
                    return []  # one row is not what it takes
                raise RemoteFailure(failed.code, f"probe: {failed}") from failed
            took.append(monotonic() - began)
        return took[1:]

    async def check(self, golden: Golden) -> str:
        """Hold it to its golden samples, as often as it is loaded: nobody tells when the endpoint changes its file.

        Returns:
            what it agrees with.

        Raises:
            RemoteFailure: it disagrees, or can't be asked.
        """
        try:
            return f"{await self._agrees(golden)} samples"
        except Disagrees as wrong:
            raise Disagreed(f"barred: {wrong}") from wrong
        except (Unusable, BadAnswer) as wrong:
            raise RemoteFailure(Code.FAILED_PRECONDITION, str(wrong)) from wrong

    async def _agrees(self, golden: Golden) -> int:
        signature = self.signature
        arrays = await asyncio.to_thread(read_samples, golden.path)
        outputs = [index for index, spec in enumerate(signature.outputs) if spec.name in arrays]
        absent = [spec.name for spec in signature.inputs if spec.name not in arrays]
        if absent or not outputs:
            raise Unusable(f"golden samples: no array for {', '.join(absent) or 'any output'}")
        wanted = [signature.outputs[index].name for index in outputs]
        comparison = Comparison(golden, any(signature.outputs[i].datatype in ("INT8", "UINT8") for i in outputs))
        count = arrays[wanted[0]].count
        for index in range(count):
            inputs = []
            for spec in signature.inputs:
                array = arrays[spec.name]
                shape = array.shape if len(array.shape) == len(spec.shape) else (1, *array.shape)
                inputs.append(InputTensor(spec.name, array.datatype, shape, array.sample(index)))
            view, places = read_answer(await self._ask(self._message(inputs, wanted)), signature, outputs)
            for name, place in zip(wanted, places, strict=True):
                array = arrays[name]
                got = numbers(signature.outputs[place.index].datatype, view[place.offset : place.offset + place.nbytes])
                classes = array.shape[-1] if array.shape else 1
                right = numbers(array.datatype, array.sample(index))
                comparison.compare(f"sample {index}: output {name}", got, right, classes)
        comparison.end()
        return count

    def _message(self, inputs: Sequence[InputTensor], wanted: Sequence[str]) -> bytes:
        return infer_request(self.name, self.version, inputs, wanted, self.limit, _LOWEST)

    async def _ask(self, message: bytes) -> bytes:
        return await self.endpoint.infer(message, self.limit, metadata(None))
