"""The protocol beyond inference: control of models, health, reflection, what is not offered, and who may do what."""

import socket
import subprocess

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from benchmarks.harness import Gateway, identity, put, scaled, wait_for
from edgeway.client import Client
from edgeway.v1 import control_pb2 as control
from edgeway.v1 import open_inference_pb2 as oip

pytestmark = pytest.mark.system
SERVICE = "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING


def code_of(address: str, rpc: str, request: bytes = b"") -> grpc.StatusCode:
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(f"/{SERVICE}/{rpc}")(request, timeout=5)
        except grpc.RpcError as failed:
            return failed.code()
    return grpc.StatusCode.OK


def test_health_follows_models_that_come_and_go(folder, gateway_in):
    repository = folder / "models"
    model = put(repository, "early", identity())
    gateway = gateway_in({}, "--model-repository", str(repository))
    with grpc.insecure_channel(gateway.unix) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="early"), timeout=20)
        assert next(watch).status == SERVING
        put(repository, "late", identity())
        wait_for(lambda: any(m.name == "late" for m in index(gateway.unix)), 3, "the late model")
        assert stub.Check(health_pb2.HealthCheckRequest(service="late"), timeout=5).status == SERVING
        model.unlink()
        model.parent.rmdir()
        model.parent.parent.rmdir()
        assert next(watch).status != SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(health_pb2.HealthCheckRequest(service="never"), timeout=5)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def index(address: str):
    with triton.InferenceServerClient(address) as client:
        return [model for model in client.get_model_repository_index().models if model.state == "READY"]


def test_a_new_version_in_the_repository_takes_over_within_a_second(folder, gateway_in):
    repository = folder / "models"
    put(repository, "m", scaled(2.0), "1")
    gateway = gateway_in({}, "--model-repository", str(repository))
    with Client(gateway.unix) as client:
        assert client.infer("m", {"x": np.ones(1, np.float32)})["y"].tolist() == [2.0]
        put(repository, "m", scaled(3.0), "2")
        wait_for(lambda: client.infer("m", {"x": np.ones(1, np.float32)})["y"].tolist() == [3.0], 2, "version 2")
        assert client.infer("m", {"x": np.ones(1, np.float32)}, version="1")["y"].tolist() == [2.0]


def test_explicit_control_loads_and_unloads_on_the_data_listeners(folder, gateway_in):
    put(folder / "models", "m", identity())
    gateway = gateway_in({}, "--model-repository", str(folder / "models"), "--model-control", "explicit")
    client = triton.InferenceServerClient(gateway.unix)
    with pytest.raises(triton.InferenceServerException):
        client.is_model_ready("m")
    client.load_model("m")
    assert client.is_model_ready("m")
    client.unload_model("m")
    wait_for(lambda: not index(gateway.unix), 5, "the unloading")
    with pytest.raises(triton.InferenceServerException) as refused:
        client.load_model("m", config="{}")
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_writing_rpcs_are_refused_on_data_listeners_and_work_on_the_control_socket(serving):
    request = oip.RepositoryModelLoadRequest(model_name="identity").SerializeToString()
    assert code_of(serving.unix, "RepositoryModelLoad", request) is grpc.StatusCode.PERMISSION_DENIED
    assert code_of(serving.control, "RepositoryModelLoad", request) is grpc.StatusCode.OK
    with grpc.insecure_channel(serving.unix) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/edgeway.v1.Control/GetEvents")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "rpc",
    ["CudaSharedMemoryRegister", "CudaSharedMemoryStatus", "CudaSharedMemoryUnregister"],
)
def test_what_comes_later_answers_unimplemented(serving, rpc):
    assert code_of(serving.unix, rpc) is grpc.StatusCode.UNIMPLEMENTED


def test_streams_answer_unimplemented(serving):
    with grpc.insecure_channel(serving.unix) as channel, pytest.raises(grpc.RpcError) as refused:
        next(channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([b""]), timeout=5))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("rpc", ["TraceSetting", "LogSettings"])
def test_settings_are_shown_and_a_change_is_refused(serving, rpc):
    assert code_of(serving.unix, rpc) is grpc.StatusCode.OK
    if rpc == "TraceSetting":
        change = oip.TraceSettingRequest()
        change.settings["trace_rate"].value.append("7")
    else:
        change = oip.LogSettingsRequest()
        change.settings["log_verbose_level"].uint32_param = 3
    assert code_of(serving.unix, rpc, change.SerializeToString()) is not grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [("request", "sequence_id", 7), ("output", "classification", 3), ("input", "shared_memory_flags", "r")],
)
def test_what_a_client_may_send_is_honoured_or_unimplemented(serving, where, key, value):
    request = oip.ModelInferRequest(model_name="identity")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1])
    output = request.outputs.add(name="y")
    request.raw_input_contents.append(bytes(4))
    parameters = {"request": request, "input": tensor, "output": output}[where].parameters
    if isinstance(value, str):
        parameters[key].string_param = value
    else:
        parameters[key].int64_param = value
    assert code_of(serving.unix, "ModelInfer", request.SerializeToString()) is grpc.StatusCode.UNIMPLEMENTED


def test_unknown_custom_parameters_pass(serving):
    request = oip.ModelInferRequest(model_name="identity")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1])
    tensor.parameters["binary_data_size"].int64_param = 4
    request.parameters["my_own"].string_param = "x"
    request.raw_input_contents.append(bytes(4))
    assert code_of(serving.unix, "ModelInfer", request.SerializeToString()) is grpc.StatusCode.OK


def test_facts_of_a_refusal_travel_as_trailing_metadata(serving):
    request = oip.ModelInferRequest(model_name="identity")
    with grpc.insecure_channel(serving.unix) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(request.SerializeToString(), timeout=5)
    trailing = dict(refused.value.trailing_metadata())
    assert int(trailing["edgeway-total-us"]) >= 0


def test_reflection_is_on_for_the_control_socket_only(serving):
    def services(address: str) -> list[str]:
        with grpc.insecure_channel(address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            (answer,) = stub.ServerReflectionInfo(asked, timeout=5)
            return [service.name for service in answer.list_services_response.service]

    assert {SERVICE, "edgeway.v1.Control", "grpc.health.v1.Health"} <= set(services(serving.control))
    with pytest.raises(grpc.RpcError) as refused:
        services(serving.unix)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_operators_verbs_name_what_is_missing(serving):
    wrong = (
        ("Promote", control.PromoteRequest(name="x"), grpc.StatusCode.NOT_FOUND),
        ("Feedback", control.FeedbackRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        ("Feedback", control.FeedbackRequest(name="x", request_id="a", label="1"), grpc.StatusCode.NOT_FOUND),
    )
    with grpc.insecure_channel(serving.control) as channel:
        for verb, request, code in wrong:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(f"/edgeway.v1.Control/{verb}")(request.SerializeToString(), timeout=5)
            assert refused.value.code() is code


def test_tcp_beyond_loopback_needs_tls_or_insecure(folder):
    gateway = Gateway(folder, tcp="0.0.0.0:0")
    done = subprocess.run(gateway.command(), capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "--insecure" in done.stderr


def test_a_port_that_another_program_holds_is_reported(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = Gateway(folder, tcp=f"127.0.0.1:{taken.getsockname()[1]}")
        done = subprocess.run(gateway.command(), capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "can't be bound" in done.stderr


def test_the_control_socket_is_for_its_owner_only(serving):
    mode = (serving.folder / "control.sock").stat().st_mode & 0o777
    assert mode == 0o600


def test_answers_larger_than_the_slot_get_a_larger_one(folder, gateway_in):
    from onnx import TensorProto, helper

    from benchmarks.harness import model_of, value

    nodes = [helper.make_node("Expand", ["x", "shape"], ["y"])]
    inputs = [value("x", TensorProto.FLOAT, [1]), value("shape", TensorProto.INT64, [1])]
    put(folder / "models", "grow", model_of(nodes, inputs, [value("y", TensorProto.FLOAT, ["n"])]))
    gateway = gateway_in({"limits": {"maxMessageMB": 16}}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix, deadline_ms=5000) as client:
        for size in (10, 1_000_000, 3_000_000, 10):
            result = client.infer("grow", {"x": np.ones(1, np.float32), "shape": np.array([size], np.int64)})
            assert result["y"].shape == (size,)
            assert result["y"].all()
        with pytest.raises(Exception, match="maxMessageMB"):
            client.infer("grow", {"x": np.ones(1, np.float32), "shape": np.array([5_000_000], np.int64)})
        assert client.infer("grow", {"x": np.ones(1, np.float32), "shape": np.array([3], np.int64)})["y"].sum() == 3
