"""Spans, made of an outcome after its answer has left: server, attempts, worker runs."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

from gateway.errors import Code
from gateway.request import AttemptRecord, Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_METHOD = "inference.GRPCInferenceService/ModelInfer"


def build_trace(otlp: str | None, sample_ratio: float) -> Tracing | None:
    """Tracing to an OTLP/gRPC collector, if the config or an OTEL_* variable names one; else None, which costs nothing.

    Args:
        otlp: URL of the collector; None: as OTEL_EXPORTER_OTLP_ENDPOINT says.
        sample_ratio: part of the requests without a parent that are traced.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if otlp is None and not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    return Tracing(otlp, sample_ratio)


class Tracing:
    """Makes spans with the OpenTelemetry SDK, which sends them from a thread of its own."""

    def __init__(self, otlp: str | None, sample_ratio: float) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._ratio = sample_ratio
        self._propagator = TraceContextTextMapPropagator()
        exporter = OTLPSpanExporter(endpoint=otlp, insecure=True if otlp and otlp.startswith("http:") else None)
        self._processor = BatchSpanProcessor(exporter)

        def make(name: str, attributes: dict[str, Any]) -> TracerProvider:
            return TracerProvider(resource=Resource.create({"service.name": name, **attributes}))

        self._make = make
        self._gateway = self._provider(os.environ.get("OTEL_SERVICE_NAME", "edgeway"), {})
        self._workers: dict[tuple[str, int], TracerProvider] = {}

    def record(self, outcome: Outcome) -> None:
        """Spans of one request; without a sampled parent only a share of them."""
        parent = outcome.traceparent
        if parent is None:
            if random.random() >= self._ratio:  # noqa: S311 - sampling, not secrecy
                return
            context = None
        else:
            if not parent.endswith("1"):  # the caller decided against it
                return
            carrier = {"traceparent": parent, "tracestate": outcome.tracestate or ""}
            context = self._propagator.extract(carrier)
        self._spans(outcome, context)

    def close(self) -> None:
        """Send what is left, for at most two seconds."""
        self._processor.force_flush(2000)
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _spans(self, outcome: Outcome, context: Any) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        offset = time.time() - time.monotonic()
        server = self._start(self._gateway, "edgeway.infer", context, outcome.received + offset, SpanKind.SERVER)
        server.set_attributes(_attributes(outcome))
        if outcome.code not in (Code.OK, Code.CANCELLED):
            server.set_status(Status(StatusCode.ERROR, outcome.message))
        inside = set_span_in_context(server)
        for attempt in outcome.attempts:
            span = self._start(self._gateway, "edgeway.attempt", inside, attempt.started + offset, SpanKind.INTERNAL)
            span.set_attributes(
                {
                    "edgeway.target": attempt.target,
                    "edgeway.accelerator": attempt.accelerator,
                    "edgeway.kind": attempt.kind,
                    "edgeway.provenance": attempt.provenance,
                }
            )
            if attempt.error:
                span.set_attribute("edgeway.reason", attempt.reason)
                span.set_status(Status(StatusCode.ERROR, attempt.error))
            if attempt.run_started:
                run = self._start(
                    self._worker(attempt),
                    "edgeway.run",
                    set_span_in_context(span),
                    attempt.run_started + offset,
                    SpanKind.INTERNAL,
                )
                run.set_attributes({"edgeway.model": outcome.model, "edgeway.version": outcome.version})
                if attempt.shared > 1:
                    run.set_attribute("edgeway.shared", attempt.shared)
                run.end(_ns(attempt.run_ended + offset))
            span.end(_ns(attempt.ended + offset))
        server.end(_ns(outcome.finished + offset))

    def _start(self, provider: TracerProvider, name: str, context: Any, at: float, kind: Any) -> Span:
        return provider.get_tracer("edgeway").start_span(name, context, kind, start_time=_ns(at))

    def _worker(self, attempt: AttemptRecord) -> TracerProvider:
        """A provider with the worker's own resource; one per process that ever was."""
        key = (attempt.target, attempt.worker_pid)
        if key not in self._workers:
            if len(self._workers) >= 64:
                self._workers.clear()
            attributes = {
                "edgeway.target": attempt.target,
                "edgeway.accelerator": attempt.accelerator,
                "edgeway.kind": attempt.kind,
                "process.pid": attempt.worker_pid,
            }
            self._workers[key] = self._provider("edgeway-worker", attributes)
        return self._workers[key]

    def _provider(self, name: str, attributes: dict[str, Any]) -> TracerProvider:
        provider = self._make(name, attributes)
        provider.add_span_processor(self._processor)
        return provider


def _attributes(outcome: Outcome) -> dict[str, Any]:
    return {
        "rpc.system.name": "grpc",
        "rpc.method": _METHOD,
        "rpc.response.status_code": outcome.code.name,
        "edgeway.model": outcome.model,
        "edgeway.version": outcome.version,
        "edgeway.target": outcome.target,
        "edgeway.accelerator": outcome.accelerator,
        "edgeway.kind": outcome.kind,
        "edgeway.provenance": outcome.served.provenance if outcome.served is not None else "",
        "edgeway.degraded": outcome.degraded,
        "edgeway.reason": outcome.reason,
        "edgeway.budget_ms": outcome.budget * 1e3,
        "edgeway.skipped": [f"{name}: {why}" for name, why in outcome.skipped.items()],
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
