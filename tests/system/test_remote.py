"""Remote targets: a second gateway, or a server that misbehaves on purpose, behind a real gateway."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto

from benchmarks.harness import Gateway, identity, manifest, put, scaled, scratch, wait_for
from edgeway.client import Client, InferenceError
from edgeway.v1 import open_inference_pb2 as oip

pytestmark = pytest.mark.system
X = np.arange(3, dtype=np.float32)
SERVICE = "inference.GRPCInferenceService"


@dataclass
class Elsewhere:
    """A server of the protocol that is no Edgeway: y = 2 x, in typed contents, as some servers answer."""

    shape: tuple[int, ...] = (-1,)
    datatype: str = "FP32"
    credentials: grpc.ServerCredentials | None = None
    released: threading.Event = field(default_factory=threading.Event)
    slow: bool = False
    calls: list[tuple[Any, dict[str, str], float]] = field(default_factory=list)
    cancelled: int = 0
    factor: float = 2.0
    address: str = "127.0.0.1:0"
    missing: set[str] = field(default_factory=set)
    """Models that it does not have."""

    def start(self) -> Elsewhere:
        self._server = grpc.server(ThreadPoolExecutor(8))
        names = ("ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer")
        methods = oip.SERVICES[SERVICE]
        table = {
            name: grpc.unary_unary_rpc_method_handler(
                getattr(self, name), methods[name].request.FromString, lambda answer: answer.SerializeToString()
            )
            for name in names
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, table),))
        if self.credentials is None:
            port = self._server.add_insecure_port(self.address)
        else:
            port = self._server.add_secure_port(self.address, self.credentials)
        self.url = f"127.0.0.1:{port}"
        self._server.start()
        return self

    def stop(self) -> None:
        self.released.set()
        self._server.stop(0).wait()

    def ServerReady(self, request, context):  # noqa: N802
        return oip.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request, context):  # noqa: N802
        return oip.ServerMetadataResponse(name="elsewhere", version="7")

    def ModelReady(self, request, context):  # noqa: N802
        return oip.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request, context):  # noqa: N802
        if request.name in self.missing:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model is called {request.name!r}")
        spec = oip.ModelMetadataResponse.TensorMetadata
        one = spec(name="x", datatype=self.datatype, shape=self.shape)
        other = spec(name="y", datatype="FP32", shape=self.shape)
        return oip.ModelMetadataResponse(name=request.name, platform="other", inputs=[one], outputs=[other])

    def ModelInfer(self, request, context):  # noqa: N802
        self.calls.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        context.add_callback(self._ended)
        if self.slow:
            self.released.wait(5)
        x = np.frombuffer(request.raw_input_contents[0], np.float32)
        answer = oip.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
        answer.outputs[0].contents.fp32_contents.extend(self.factor * x)
        return answer

    def _ended(self) -> None:
        self.cancelled += self.slow and not self.released.is_set()


@contextlib.contextmanager
def elsewhere(**how: Any) -> Iterator[Elsewhere]:
    server = Elsewhere(**how).start()
    try:
        yield server
    finally:
        server.stop()


def certificate(folder: Path, name: str) -> tuple[bytes, bytes]:
    """(key, self-signed certificate for 127.0.0.1); the second also as a file."""
    key = ec.generate_private_key(ec.SECP256R1())
    called, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(timezone.utc)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("far.example")])
    made = (
        x509.CertificateBuilder(called, called, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    content = made.public_bytes(pem)
    (folder / f"{name}.pem").write_bytes(content)
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()), content


def worker(name: str, url: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "backend": "remote", "options": {"url": url, **options}}


CPU = {"name": "cpu", "backend": "cpu"}


def apply(gateway: Gateway, name: str, targets: str, more: str = "", model: bytes | None = None) -> None:
    """Two times x here; what a remote target makes of x is its own affair."""
    spec = f"targets: {targets}\n{more}"
    content = scaled(2.0).SerializeToString() if model is None else model
    done = gateway.run("apply", "-f", manifest(gateway.folder, name, "1", content, spec), "--wait", "--timeout", "20")
    assert done.returncode == 0, done.stderr


def target(gateway: Gateway, model: str, name: str) -> dict[str, Any]:
    return next(each for each in gateway.get("targets", model) if each["worker"] == name)


def ready(gateway: Gateway, model: str, name: str, limit: float = 10) -> None:
    wait_for(lambda: target(gateway, model, name)["state"] == "ready", limit, f"{name} being ready")


@pytest.fixture(scope="module")
def far() -> Iterator[Gateway]:
    """The other gateway: its models can be told from the near one's by their answers."""
    with scratch() as made:
        put(made / "models", "m", scaled(20.0))
        put(made / "models", "text", identity(TensorProto.STRING))
        with Gateway(made, {"workers": [CPU]}, ["--model-repository", str(made / "models")]) as gateway:
            yield gateway


@pytest.fixture(scope="module")
def odd() -> Iterator[Elsewhere]:
    with elsewhere() as server:
        yield server


@pytest.fixture(scope="module")
def near(far: Gateway, odd: Elsewhere) -> Iterator[Gateway]:
    with scratch() as made:
        workers = [
            worker("far", far.address),
            worker("socket", far.unix),
            worker("named", far.address, model="m", version="1"),
            worker("odd", odd.url),
            CPU,
        ]
        with Gateway(made, {"workers": workers}) as gateway:
            yield gateway


@pytest.mark.parametrize("name", ["far", "socket", "named"])
def test_another_gateway_serves_over_tcp_or_a_unix_socket_and_the_answer_says_so(near, name):
    model = "other" if name == "named" else "m"
    apply(near, model, f"[{name}, cpu]")
    ready(near, model, name)
    with Client(near.unix) as client:
        answer = client.infer(model, {"x": X})
    assert answer["y"].tolist() == (20 * X).tolist()
    assert (answer.served_by, answer.accelerator, answer.kind) == (name, "remote", "remote")
    assert (answer.degraded, answer.reason) == (False, "")
    assert "edgeway" in target(near, model, name)["provenance"]


def test_elements_of_any_length_and_empty_tensors_pass_as_they_are(near):
    apply(near, "text", "[far]", model=identity(TensorProto.STRING).SerializeToString())
    ready(near, "text", "far")
    with Client(near.unix) as client:
        for words in ([b"", b"\0a", "ä".encode() * 300], []):
            x = np.array(words, np.object_)
            assert client.infer("text", {"x": x})["y"].tolist() == words


def test_a_remote_target_needs_no_file(near):
    path = Path(manifest(near.folder, "m", "9", b"never here", "targets: [far]"))
    (near.folder / "m-9.onnx").unlink()
    done = near.run("apply", "-f", str(path), "--wait", "--timeout", "20")
    assert done.returncode == 0, done.stderr
    with Client(near.unix) as client:
        assert client.infer("m", {"x": X}, version="9")["y"].tolist() == (20 * X).tolist()


@pytest.mark.parametrize("more", ["", "hardware: {accelerator: remote}", "hardware: {accelerator: far}"])
def test_what_does_not_name_it_in_targets_never_leaves_the_device(near, more):
    path = Path(manifest(near.folder, "m", "home", scaled(2.0).SerializeToString()))
    plain = "\n".join(line for line in path.read_text().splitlines() if "accelerator" not in line)
    path.write_text(f"{plain}\n  {more}\n".replace("name: m}", "name: home}"))
    near.run("apply", "-f", str(path), "--wait", "--timeout", "5")
    served = {each["worker"]: each for each in near.get("targets", "home")}
    assert all(each["state"] == "lost" for name, each in served.items() if name != "cpu"), served
    assert "only a manifest that names it in targets" in "".join(
        each["reason"] for name, each in served.items() if name != "cpu"
    ) or set(served) == {"cpu"}
    near.run("delete", "home")


def test_degrade_never_asks_it_only_where_it_is_the_first(near):
    apply(near, "m", "[cpu, far]", "latency: {degrade: never}")
    with Client(near.unix) as client:
        assert {client.infer("m", {"x": X}).served_by for _ in range(5)} == {"cpu"}
    apply(near, "m", "[far, cpu]", "latency: {degrade: never}")
    ready(near, "m", "far")
    with Client(near.unix) as client:
        assert {client.infer("m", {"x": X}).served_by for _ in range(5)} == {"far"}


def test_tensors_in_memory_that_the_client_shares_are_read_and_written_for_it(near):
    apply(near, "m", "[far, cpu]")
    ready(near, "m", "far")
    with Client(near.unix) as client, client.region(1 << 20) as region:
        assert region.shared, region.reason
        x, y = region.array((3,), np.float32), region.array((3,), np.float32)
        x[:] = X
        answer = client.infer("m", {"x": x}, into={"y": y})
    assert answer.served_by == "far"
    assert y.tolist() == (20 * X).tolist()


def test_budget_priority_and_trace_are_passed_on_and_typed_answers_are_read(near, odd):
    apply(near, "m", "[odd, cpu]")
    ready(near, "m", "odd")
    odd.calls.clear()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Client(near.unix) as client:
        answer = client.infer("m", {"x": X}, budget_ms=400, priority=3, metadata=[("traceparent", trace)])
    assert answer["y"].tolist() == (2 * X).tolist()
    assert answer.served_by == "odd"
    request, metadata, left = odd.calls[-1]
    assert 0 < left <= 0.4
    assert 0 < request.parameters["timeout"].int64_param <= 400_000
    assert request.parameters["priority"].int64_param == 3
    assert metadata["edgeway-hops"] == "1"
    assert metadata["traceparent"] == trace


def test_a_slow_one_loses_the_race_and_its_call_is_cancelled(near, odd):
    apply(near, "m", "[odd, cpu]")
    ready(near, "m", "odd")
    before = odd.cancelled
    odd.slow = True
    try:
        with Client(near.unix) as client:
            answers = [client.infer("m", {"x": X}, budget_ms=200) for _ in range(4)]
        assert {(each.served_by, each.reason) for each in answers} == {("cpu", "slow")}
        assert all(each.budget_left_ms > 0 for each in answers)
        wait_for(lambda: odd.cancelled > before, 5, "the end of a call that nobody waits for")
    finally:
        odd.released.set()
        odd.slow = False


def test_another_model_of_the_same_name_is_kept_out_with_the_reason(near, odd):
    odd.datatype = "FP64"
    try:
        apply(near, "m2", "[odd, cpu]")
        why = "it is not the same model: its input 'x' is FP64, the local model's FP32"
        wait_for(lambda: target(near, "m2", "odd")["reason"] == why, 5, "the reason")
        with Client(near.unix) as client:
            answer = client.infer("m2", {"x": X})
        assert (answer.served_by, answer.degraded) == ("cpu", True)
    finally:
        odd.datatype = "FP32"
    ready(near, "m2", "odd")  # it is looked at again, and fits now


def test_it_is_held_to_the_golden_samples_like_any_other(near):
    for name, factor in (("right", 20.0), ("wrong", 2.0)):
        np.savez(near.folder / f"{name}.npz", x=X.reshape(3, 1), y=np.float32(factor) * X.reshape(3, 1))
        rule = f'golden: {{uri: "file:{name}.npz"}}'
        apply(near, name, "[named, cpu]", rule, scaled(factor).SerializeToString())
    says = "barred: sample 1: output y[0] is 20, golden 2: off by 18, allowed 0.021"
    wait_for(lambda: target(near, "wrong", "named")["reason"] == says, 10, "its being kept out")
    ready(near, "right", "named")
    with Client(near.unix) as client:
        answer = client.infer("wrong", {"x": X})
        assert (answer.served_by, answer.reason) == ("cpu", "barred")
        assert client.infer("right", {"x": X}).served_by == "named"


def version(gateway: Gateway, model: str) -> dict[str, Any]:
    return gateway.get("deployments", model)[0]["versions"][0]


def is_now(gateway: Gateway, model: str, state: str, limit: float = 20) -> None:
    wait_for(lambda: version(gateway, model)["state"] == state, limit, f"{model} being {state}")


def test_a_version_of_remote_targets_that_disagree_is_barred_until_they_agree(near, odd):
    np.savez(near.folder / "seven.npz", x=X.reshape(3, 1), y=np.float32(7) * X.reshape(3, 1))
    spec = 'targets: [odd]\ngolden: {uri: "file:seven.npz"}'
    path = manifest(near.folder, "seven", "1", scaled(7.0).SerializeToString(), spec)
    done = near.run("apply", "-f", path, "--wait", "--timeout", "30")
    assert done.returncode == 1
    assert "seven 1: barred: odd: barred: sample 1: output y[0] is 2, golden 7" in done.stderr
    assert version(near, "seven")["state"] == "barred"
    odd.factor = 7.0
    try:
        is_now(near, "seven", "ready")
        with Client(near.unix) as client:
            assert client.infer("seven", {"x": X})["y"].tolist() == (7 * X).tolist()
    finally:
        odd.factor = 2.0


def test_a_version_whose_only_endpoint_never_answers_fails_with_the_reason_and_comes_when_it_does(
    folder: Path, gateway_in: Callable[..., Gateway]
):
    socket = folder / "far.sock"
    gateway = gateway_in({"workers": [{**worker("far", f"unix:{socket}"), "loadSeconds": 3}, CPU]})
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), "targets: [far]")
    done = gateway.run("apply", "-f", path, "--wait", "--timeout", "30")
    assert done.returncode == 1
    assert f"m 1: failed: far: unix:{socket}: " in done.stderr, done.stderr
    with elsewhere(address=f"unix:{socket}"):
        is_now(gateway, "m", "ready", 40)
    kinds = [event["kind"] for event in gateway.get("events", "m")]
    steps = [kind for kind in kinds if kind.startswith("version-")]
    assert steps == [f"version-{state}" for state in ("verifying", "loading", "failed", "loading", "warming", "ready")]


def test_a_version_whose_only_endpoint_has_it_no_longer_is_not_ready_until_it_has(near, odd):
    apply(near, "comes", "[odd]")
    odd.missing.add("comes")
    try:
        is_now(near, "comes", "failed")
        assert "odd: " in version(near, "comes")["reason"]
    finally:
        odd.missing.clear()
    is_now(near, "comes", "ready")


def test_the_probe_and_the_samples_of_a_remote_target_are_its_warm_up(near, odd):
    odd.released.clear()
    odd.slow = True
    try:
        path = manifest(near.folder, "slow", "1", scaled(2.0).SerializeToString(), "targets: [odd]")
        assert near.run("apply", "-f", path).returncode == 0
        is_now(near, "slow", "warming")
        assert target(near, "slow", "odd")["reason"] == "loading: warming up"
    finally:
        odd.slow = False
        odd.released.set()
    is_now(near, "slow", "ready")


def test_what_came_from_another_gateway_is_not_sent_on(near, odd):
    apply(near, "loop", "[odd, cpu]")
    apply(near, "only", "[odd]")
    ready(near, "loop", "odd")
    with Client(near.unix) as client:
        first, second = (client.infer("loop", {"x": X}, metadata=[("edgeway-hops", str(n))]) for n in (0, 1))
        assert (first.served_by, second.served_by, second.reason) == ("odd", "cpu", "loop")
        for hops in ("1", "2"):
            with pytest.raises(InferenceError, match=r"another gateway|come through 2 gateways"):
                client.infer("only", {"x": X}, metadata=[("edgeway-hops", hops)])


def test_two_gateways_that_name_each_other_answer_once(folder):
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    one = Gateway(folder / "a", {"workers": [worker("peer", f"unix:{folder}/b/infer.sock"), CPU]})
    other = Gateway(folder / "b", {"workers": [worker("peer", f"unix:{folder}/a/infer.sock"), CPU]})
    with one, other:
        for gateway, factor in ((one, 2.0), (other, 3.0)):
            apply(gateway, "m", "[peer, cpu]", model=scaled(factor).SerializeToString())
        for gateway in (one, other):
            ready(gateway, "m", "peer")
        with Client(one.unix) as client:
            answer = client.infer("m", {"x": X})
        assert answer["y"].tolist() == (3 * X).tolist()
        assert (answer.served_by, answer.degraded) == ("peer", False)


def test_tls_is_checked_and_who_fails_is_lost_with_the_reason(folder, gateway_in: Callable[..., Gateway]):
    pair = certificate(folder, "server")
    certificate(folder, "stranger")
    with elsewhere(credentials=grpc.ssl_server_credentials([pair])) as server:
        ca = str(folder / "server.pem")
        gateway = gateway_in(
            {
                "workers": [
                    worker("good", server.url, tls={"ca": ca}),
                    worker("called", server.url, tls={"ca": ca, "serverName": "far.example"}),
                    worker("misnamed", server.url, tls={"ca": ca, "serverName": "near.example"}),
                    worker("wrong", server.url, tls={"ca": str(folder / "stranger.pem")}),
                    worker("nofile", server.url, tls={"ca": str(folder / "none.pem")}),
                    worker("plain", server.url),
                    CPU,
                ]
            }
        )
        apply(gateway, "m", "[good, cpu]")
        ready(gateway, "m", "good")
        wait_for(lambda: "ready" in gateway.worker("called")["state"], 5, "the connection by another name")
        with Client(gateway.unix) as client:
            assert client.infer("m", {"x": X}).served_by == "good"
        for name in ("misnamed", "wrong", "nofile", "plain"):
            wait_for(lambda name=name: gateway.worker(name)["state"] == "lost", 5, f"the loss of {name}")
        assert "none.pem: No such file" in gateway.worker("nofile")["reason"]
        assert "CERTIFICATE_VERIFY_FAILED" in gateway.worker("wrong")["reason"]


def test_beyond_loopback_it_wants_tls_or_says_that_it_is_insecure(folder):
    gateway = Gateway(folder, {"workers": [worker("far", "192.0.2.7:8001"), CPU]})
    with pytest.raises(RuntimeError, match=r"192\.0\.2\.7:8001 is beyond loopback.*tls.*insecure: true"):
        gateway.start()
    gateway.process.wait()
    gateway.process.stdout.close()


def returns(gateway: Gateway) -> None:
    """One that was ejected comes back with the next requests, which probe it."""
    with Client(gateway.unix) as client:
        wait_for(lambda: client.infer("m", {"x": X}).served_by == "far", 10, "the return")


def traffic(gateway: Gateway, seconds: float, trouble: Callable[[], None]) -> list[Any]:
    """Answers of one caller at a time; ``trouble`` comes after a third of the time. An error fails the test."""
    answers, end = [], time.monotonic() + seconds
    timer = threading.Timer(seconds / 3, trouble)
    timer.start()
    with Client(gateway.unix) as client:
        while time.monotonic() < end:
            answers.append(client.infer("m", {"x": X}, budget_ms=500))
    timer.join()
    return answers


def test_a_remote_that_is_killed_or_stands_still_costs_no_answer_and_comes_back(
    folder, gateway_in: Callable[..., Gateway]
):
    with scratch() as made:
        put(made / "models", "m", scaled(20.0))
        other = Gateway(made, {"workers": [CPU]}, ["--model-repository", str(made / "models")]).start()
        gateway = gateway_in({"workers": [worker("far", other.unix), CPU]})
        try:
            apply(gateway, "m", "[far, cpu]")
            ready(gateway, "m", "far")
            assert other.process is not None
            pid = other.process.pid
            answers = traffic(gateway, 3.9, lambda: os.kill(pid, signal.SIGSTOP))
            assert {each.served_by for each in answers} == {"far", "cpu"}
            assert answers[0].served_by == "far"
            state = wait_for(lambda: gateway.worker("far")["state"] == "lost" and gateway.worker("far"), 5, "its loss")
            assert "hung" in state["reason"]
            os.kill(pid, signal.SIGCONT)
            returns(gateway)
            answers = traffic(gateway, 1.5, other.process.kill)
            assert {each.served_by for each in answers} == {"far", "cpu"}
            assert "lost" in {each.reason for each in answers}
            other.stop()
            other.start()
            returns(gateway)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(other.process.pid, signal.SIGCONT)
            other.stop()
