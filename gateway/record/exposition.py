"""The recorder's counters in Prometheus' form, and the HTTP server that gives them; imported at the first scrape."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from gateway.record.latency import GROWTH, SHORTEST, Histogram
from gateway.record.metrics import Reading
from gateway.record.recorder import Recorder

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; dense where a robot's budgets lie."""


class Exposition:
    """Answers scrapes on a socket that listens already."""

    def __init__(self, listening: socket.socket, recorder: Recorder, readings: Callable[[], Iterable[Reading]]) -> None:
        registry = CollectorRegistry()
        registry.register(_Collector(recorder, readings))
        self._server = _Server(listening)
        self._server.set_app(make_wsgi_app(registry))

    def answer(self) -> None:
        """Take one connection; a thread answers it."""
        self._server.handle_request()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket) -> None:
        # Never bound by itself: the gateway has had the address since its start.
        super().__init__(listening.getsockname()[:2], _Quiet, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.timeout = 0
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Scrapes are not logged."""


class _Collector:
    def __init__(self, recorder: Recorder, readings: Callable[[], Iterable[Reading]]) -> None:
        self._recorder = recorder
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        recorder = self._recorder
        durations = HistogramMetricFamily(
            "edgeway_request_duration_seconds",
            "Time from a request's arrival to its answer",
            labels=("model", "version", "accelerator", "code"),
        )
        for (model, version, accelerator, code), histogram in list(recorder.durations.items()):
            labels = (model, version, accelerator, code.name)
            durations.add_metric(labels, cumulative(histogram), histogram.total)
        yield durations
        attempts = CounterMetricFamily("edgeway_attempts", "Tries on a target", labels=("target", "reason"))
        for (worker, reason), count in list(recorder.attempts.items()):
            attempts.add_metric((worker, reason), count)
        yield attempts
        fallbacks = CounterMetricFamily(
            "edgeway_fallbacks", "Answers of another than the first target", labels=("model", "reason")
        )
        for (model, reason), count in list(recorder.fallbacks.items()):
            fallbacks.add_metric((model, reason), count)
        yield fallbacks
        for name, text, counter in (
            ("edgeway_budget_missed", "Requests answered late or not in time", recorder.budget_missed),
            ("edgeway_shed", "Requests refused because a limit was reached", recorder.shed),
        ):
            family = CounterMetricFamily(name, text, labels=("model",))
            for model, count in list(counter.items()):
                family.add_metric((model,), count)
            yield family
        yield from _families(self._readings())


def _families(readings: Iterable[Reading]) -> Iterable[Metric]:
    families: dict[str, Metric] = {}
    for reading in readings:
        family = families.get(reading.name)
        if family is None:
            kind = CounterMetricFamily if reading.counter else GaugeMetricFamily
            labels = [name for name, _ in reading.labels]
            family = families[reading.name] = kind(reading.name, reading.help, labels=labels)
        family.add_metric([value for _, value in reading.labels], reading.value)  # type: ignore[attr-defined]
    return families.values()


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus buckets of one of ours; a bucket that straddles a bound counts above it, an error of 2 %."""
    buckets: list[tuple[str, float]] = []
    seen, index, upper = 0, 0, SHORTEST * GROWTH
    counts = list(histogram.counts)
    for bound in BOUNDS:
        while index < len(counts) and upper <= bound:
            seen += counts[index]
            index += 1
            upper *= GROWTH
        buckets.append((str(bound), seen))
    buckets.append(("+Inf", sum(counts)))
    return buckets
