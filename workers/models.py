"""The models of a worker: loaded and unloaded as the gateway orders, on threads of their own."""

from __future__ import annotations

import gc
import queue
import time
from typing import Any, Dict, Optional

from edgeway.upkeep import Upkeep
from edgeway.v1 import worker_pb2
from workers.backend import Backend, RunsElsewhere, Settings, TensorSpec
from workers.background import Background
from workers.forms import Forms
from workers.golden import Agreement, Rule
from workers.loaded import LoadedModel
from workers.loading import LoadError, begin_anew, check, limits_of, load
from workers.process import resident_bytes
from workers.schedule import Schedule
from workers.sender import Sender
from workers.threads import start

LONGEST_WAY = 0.1
"""Seconds that a load gives way to others between two of its own runs, at most."""


class Models:
    """By handle. Orders are carried out one after the other, those in the background beside the others."""

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        schedule: Schedule,
        forms: Forms,
        upkeep: Upkeep,
        sender: Sender,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._schedule = schedule
        self._forms = forms
        self._upkeep = upkeep
        self._sender = sender
        self._models: Dict[int, LoadedModel] = {}
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._later: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """What is carried out in the background."""
        self._behind: Dict[int, Any] = {}
        """By model: the queue in which the order to unload it must go behind that to load it."""
        self.unloaded = 0
        """So many were."""

    def start(self) -> None:
        start("loader", self._load_all)
        start("background", self._load_in_background)

    def load(self, order: Any) -> None:
        orders = self._later if order.background else self._orders
        self._behind[order.model] = orders
        orders.put(order)

    def unload(self, order: Any) -> None:
        self._behind.pop(order.model, self._orders).put(order)

    def find(self, handle: int) -> Optional[LoadedModel]:
        return self._models.get(handle)

    def closed(self, model: LoadedModel) -> None:
        """Its last run has left after it was to be unloaded, or there was none."""
        self._forms.forget_model(model.handle)
        self.unloaded += 1
        gc.collect()
        self._sender.control(unloaded=worker_pb2.Unloaded(model=model.handle))

    def _load_all(self) -> None:
        while True:
            self._carry_out(self._orders.get())

    def _load_in_background(self) -> None:
        background = Background(pools=self._settings.threads > 1)
        while True:
            order = self._later.get()
            background.begin()
            self._carry_out(order)
            background.end()

    def _carry_out(self, order: Any) -> None:
        if isinstance(order, worker_pb2.Unload):
            model = self._models.pop(order.model, None)
            if model is not None and model.close():
                self.closed(model)
        else:
            with self._settings.progress.of(order.model):
                self._load(order)

    def _load(self, order: Any) -> None:
        before, began = resident_bytes(), time.monotonic()
        try:
            loaded_model, rule = load(self._backend, order)
            model = LoadedModel(order.model, loaded_model, limits_of(order))
            tell = self._settings.progress.teller()
            tell("warming up")
            self._sender.control(warming=worker_pb2.Warming(model=order.model))
            warmup = model.warm_up(order.warmup_runs)
            if rule is not None:
                tell("golden samples")
            agreement = self._hold_to_golden(order, model, rule)
            begin_anew(loaded_model)
        except LoadError as refused:
            failed = worker_pb2.LoadFailed(model=order.model, reason=refused.reason, message=str(refused))
            return self._sender.control(load_failed=failed)
        loaded = worker_pb2.Loaded(
            model=order.model,
            platform=model.model.platform,
            inputs=[_spec(spec) for spec in model.model.inputs],
            outputs=[_spec(spec) for spec in model.model.outputs],
            memory_bytes=max(0, resident_bytes() - before),
            load_seconds=time.monotonic() - began,
            warmup_seconds=warmup,
            provenance=model.model.provenance,
            kind=loaded_model.kind if isinstance(loaded_model, RunsElsewhere) else "",
        )
        if agreement is not None:
            loaded.golden, loaded.golden_deviation = agreement.text, agreement.deviation
        self._models[order.model] = model
        self._upkeep.settle()  # a full collection later would stop a run for some 10 ms
        return self._sender.control(loaded=loaded)

    def _hold_to_golden(self, order: Any, model: LoadedModel, rule: Optional[Rule]) -> Optional[Agreement]:
        """Raises LoadError: it disagrees, and is closed."""
        if rule is None:
            return None
        try:
            return check(order, model.model, rule, self._give_way)
        except LoadError:
            model.close()
            raise

    def _give_way(self, seconds: float) -> None:
        """A run of the loader's own took so long: leave as much time to others, if there are any."""
        if self._schedule.taken or len(self._schedule):
            time.sleep(min(seconds, LONGEST_WAY))


def _spec(spec: TensorSpec) -> Any:
    told = worker_pb2.TensorSpec(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
    if spec.quantisation is not None:
        told.quantization.scale.extend(spec.quantisation.scale)
        told.quantization.zero_point.extend(spec.quantisation.zero_point)
        told.quantization.axis = spec.quantisation.axis
    return told
