"""Spans at a collector, and figures at the metrics endpoint."""

import contextlib
import urllib.request
from concurrent import futures

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness import identity, manifest, put, scaled, wait_for
from edgeway.client import Client, NotFound

pytestmark = pytest.mark.system
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),)


class Collector(otlp_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[tuple[str, object]] = []

    def Export(self, request, context):  # noqa: N802 - the RPC's name
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return otlp.ExportTraceServiceResponse()

    def named(self, name: str):
        return [(service, span) for service, span in self.spans if span.name == name]


@pytest.fixture
def collector():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service = Collector()
    otlp_grpc.add_TraceServiceServicer_to_server(service, server)
    service.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield service
    server.stop(None)


def attributes(span) -> dict:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_one_trace_joins_the_caller_the_gateway_and_the_worker(folder, gateway_in, collector):
    put(folder / "models", "m", identity())
    gateway = gateway_in({"telemetry": {"otlp": collector.address}}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix) as client:
        client.infer("m", {"x": np.ones(1, np.float32)}, metadata=TRACEPARENT)
    gateway.stop()
    ((gateway_name, server),) = collector.named("edgeway.infer")
    (attempt,) = (span for _, span in collector.named("edgeway.attempt"))
    ((worker_name, run),) = collector.named("edgeway.run")
    assert {span.trace_id.hex() for span in (server, attempt, run)} == {TRACE_ID}
    assert server.parent_span_id.hex() == PARENT_ID
    assert (attempt.parent_span_id, run.parent_span_id) == (server.span_id, attempt.span_id)
    assert (gateway_name, worker_name) == ("edgeway", "edgeway-worker")
    assert (
        server.start_time_unix_nano <= run.start_time_unix_nano <= run.end_time_unix_nano <= server.end_time_unix_nano
    )
    facts = attributes(server)
    assert (facts["rpc.method"], facts["rpc.response.status_code"]) == (
        "inference.GRPCInferenceService/ModelInfer",
        "OK",
    )
    assert (facts["edgeway.model"], facts["edgeway.version"], facts["edgeway.target"]) == ("m", "1", "cpu")
    for span in (server, attempt):  # where it ran, and how that was proved
        facts = attributes(span)
        assert facts["edgeway.kind"] == "cpu"
        assert "CPUExecutionProvider" in facts["edgeway.provenance"]


def test_a_fallback_is_one_trace_with_the_skipped_target_and_both_attempts(folder, gateway_in, collector):
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), accelerator="simulated")
    faults = [{"afterRuns": 5, "error": True}]
    workers = [
        {"name": "sim", "backend": "simulated", "options": {"faults": faults}},
        {"name": "cpu", "backend": "cpu"},
    ]
    gateway = gateway_in({"workers": workers}, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
    gateway.deploy(path)
    with Client(gateway.unix) as client:
        results = [client.infer("m", {"x": np.ones(1, np.float32)}, metadata=TRACEPARENT) for _ in range(2)]
    gateway.stop()
    assert results[-1].reason == "failed"
    last = max((span for _, span in collector.named("edgeway.infer")), key=lambda span: span.start_time_unix_nano)
    attempts = [span for _, span in collector.named("edgeway.attempt") if span.parent_span_id == last.span_id]
    assert [attributes(span)["edgeway.target"] for span in attempts] == ["sim", "cpu"]
    skipped = attributes(last)["edgeway.skipped"].values
    assert [value.string_value for value in skipped] == ["sim: failed"]


def test_a_run_that_several_requests_share_says_so_in_the_trace_of_each(folder, gateway_in, collector):
    batching = "batching: {maxSize: 2, maxDelayMs: 1000}"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), batching, "cpu")
    gateway = gateway_in({"telemetry": {"otlp": collector.address}, "budget": {"defaultMs": 20000}})
    gateway.deploy(path)
    with Client(gateway.unix) as client, futures.ThreadPoolExecutor(2) as callers:

        def ask(number: int) -> float:
            given = {"x": np.full(1, number, np.float32)}
            return float(client.infer("m", given, budget_ms=20000, metadata=TRACEPARENT)["y"][0])

        assert list(callers.map(ask, range(2))) == [0.0, 2.0]
    gateway.stop()
    assert [attributes(run)["edgeway.shared"] for _, run in collector.named("edgeway.run")] == [2, 2]


def test_a_caller_that_does_not_sample_is_not_traced(folder, gateway_in, collector):
    put(folder / "models", "m", identity())
    telemetry = {"telemetry": {"otlp": collector.address, "sampleRatio": 1.0}}
    gateway = gateway_in(telemetry, "--model-repository", str(folder / "models"))
    with Client(gateway.unix) as client:
        unsampled = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00"),)
        client.infer("m", {"x": np.ones(1, np.float32)}, metadata=unsampled)
        client.infer("m", {"x": np.ones(1, np.float32)})
    gateway.stop()
    assert len(collector.named("edgeway.infer")) == 1


def test_a_collector_that_is_gone_costs_no_request(folder, gateway_in):
    put(folder / "models", "m", identity())
    telemetry = {"telemetry": {"otlp": "http://127.0.0.1:1", "sampleRatio": 1.0}}
    gateway = gateway_in(telemetry, "--model-repository", str(folder / "models"))
    with Client(gateway.unix) as client:
        for _ in range(50):
            client.infer("m", {"x": np.ones(1, np.float32)})
    assert gateway.stop() == 0


def scrape(gateway) -> dict[tuple[str, ...], float]:
    """(name, label values ...) -> value."""
    with urllib.request.urlopen(f"http://{gateway.ready['metrics']}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(sample.name, *sorted(sample.labels.values())): sample.value for f in families for sample in f.samples}


def test_the_metrics_endpoint_counts_requests_fallbacks_misses_and_restarts(folder, gateway_in):
    put(folder / "models", "m", identity())
    gateway = gateway_in({}, "--model-repository", str(folder / "models"), "--metrics", "127.0.0.1:0")
    with Client(gateway.unix) as client:
        for _ in range(7):
            client.infer("m", {"x": np.ones(1, np.float32)})
        with contextlib.suppress(NotFound):
            client.infer("nobody", {"x": np.ones(1, np.float32)})
    figures = wait_for(
        lambda: (
            (found := scrape(gateway)).get(("edgeway_request_duration_seconds_count", "1", "OK", "cpu", "m")) == 7
            and found
        ),
        5,
        "the count of all seven",
    )
    assert figures["edgeway_attempts_total", "", "cpu"] == 7
    assert figures["edgeway_worker_restarts_total", "cpu", "cpu", "cpu"] == 0
    assert any(key[0] == "edgeway_model_info" and "m" in key for key in figures)
    (target,) = (key for key in figures if key[0] == "edgeway_target_info")
    assert {"m", "cpu", "all nodes on CPUExecutionProvider"} < set(target)
    assert not any("nobody" in key for key in figures)  # names that nobody serves make no series
