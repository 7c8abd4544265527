"""The models of a remote endpoint that are wanted: each in use while it is there and fits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeway.v1 import worker_pb2
from gateway.dispatch.remote.pauses import delay_after, set_or_later
from gateway.dispatch.remote.ports import Endpoint
from gateway.dispatch.remote.trial import Trial
from gateway.dispatch.remote.worker import RemoteWorker
from gateway.errors import Code
from gateway.remote.agreement import mismatch
from gateway.remote.failure import Disagreed, NotServing, RemoteFailure
from gateway.request import Signature
from gateway.target import Golden, Target

_OF_THE_MODEL = (Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT)


@dataclass(slots=True, eq=False)
class RemoteModel:
    """One model of the endpoint. ``signature``: as the endpoint says."""

    handle: int
    target: Target
    name: str
    version: str
    golden: Golden | None
    """What it has to answer right before it answers anybody else."""
    signature: Signature | None = None
    task: asyncio.Task[None] | None = None
    doubts: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a run that says that it may have gone: it is looked at before it would be."""

    @property
    def form(self) -> Signature:
        """What answers are read by: the version's signature, once it is settled."""
        found = self.target.signature or self.signature
        assert found is not None
        return found


class RemoteModels:
    """Looks at each again and again, and tells the worker."""

    def __init__(self, endpoint: Endpoint, worker: RemoteWorker, who: str, doubts: asyncio.Event) -> None:
        """``who``: what the endpoint calls itself; ``doubts``: is set when the endpoint may be gone."""
        self._endpoint = endpoint
        self._worker = worker
        self._who = who
        self._doubts = doubts
        self.known: dict[int, RemoteModel] = {}
        """By handle."""

    def load(self, handle: int, limit: float) -> None:
        """``limit``: seconds that an answer may take meanwhile."""
        found = self._worker.target_of(handle)
        if found is None:
            return
        target, order = found
        options = self._worker.options
        model = RemoteModel(handle, target, options.model or order.name, options.version, order.golden)
        self.known[handle] = model
        model.task = asyncio.create_task(self._keep(model, limit), name=f"{model.name} on {self._worker.name}")

    def unload(self, handle: int) -> None:
        model = self.known.pop(handle, None)
        if model is not None and model.task is not None:
            model.task.cancel()

    def close(self) -> None:
        for handle in list(self.known):
            self.unload(handle)

    async def _keep(self, model: RemoteModel, limit: float) -> None:
        """Have the model in use while it is there and fits; try again while it is not."""
        failures, told = 0, ""
        while True:
            try:
                signature = await self._fitting(model)
                self._worker.received(worker_pb2.ToGateway(warming=worker_pb2.Warming(model=model.handle)))
                trial = Trial(self._endpoint, model.name, model.version, signature, limit)
                seconds = await trial.probe(model.target.signature or signature)
                if model.golden is not None:
                    model.target.golden = await trial.check(model.golden)
            except RemoteFailure as failed:
                if str(failed) != told and not self._doubts.is_set():
                    told = str(failed)
                    self._worker.keep_out(model.handle, told, isinstance(failed, Disagreed))
                failures += 1
                await asyncio.sleep(delay_after(failures))
                continue
            failures, told, model.signature = 0, "", signature
            self._tell_loaded(model, signature, seconds)
            told = await self._until_it_goes(model)
            model.signature = None
            self._worker.keep_out(model.handle, told)

    async def _until_it_goes(self, model: RemoteModel) -> str:
        """Look at a model that is there, again and again; why it is there no longer, or fits no longer."""
        while True:
            await set_or_later(model.doubts)
            model.doubts.clear()
            try:
                model.signature = await self._fitting(model)
            except RemoteFailure as failed:
                if isinstance(failed, NotServing) or failed.code in _OF_THE_MODEL:
                    return str(failed)
                self._doubts.set()  # the whole endpoint is in doubt: who keeps it looks at once

    async def _fitting(self, model: RemoteModel) -> Signature:
        """Raises RemoteFailure: it is not there, or does not fit the local model."""
        signature = await self._endpoint.model(model.name, model.version, self._worker.hang_seconds)
        if model.target.signature is not None:
            problem = mismatch(model.target.signature, signature)
            if problem:
                raise RemoteFailure(Code.FAILED_PRECONDITION, f"it is not the same model: {problem}")
        return signature

    def _tell_loaded(self, model: RemoteModel, signature: Signature, seconds: Sequence[float]) -> None:
        loaded = worker_pb2.Loaded(model=model.handle, platform=signature.platform, warmup_seconds=seconds)
        for spec in signature.inputs:
            loaded.inputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        for spec in signature.outputs:
            loaded.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        version = f" version {model.version}" if model.version else ""
        loaded.provenance = f"model {model.name}{version} of {self._who or 'a server'} at {self._worker.options.url}"
        model.target.barred = False
        self._worker.received(worker_pb2.ToGateway(loaded=loaded))
