"""Tensors in memory that clients share: with stock clients, and what hostile ones can't do."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from onnx import TensorProto

from benchmarks.harness import Gateway, identity, put, scaled, scratch, slow_for, wait_for
from benchmarks.rig import in_flight
from edgeway.v1 import open_inference_pb2 as oip

pytestmark = pytest.mark.system
SHM = Path("/dev/shm")


@pytest.fixture(scope="module")
def serving() -> Iterator[Gateway]:
    with scratch() as made:
        put(made / "models", "identity", identity())
        put(made / "models", "double", scaled(2.0))
        put(made / "models", "text", identity(TensorProto.STRING))
        with Gateway(made, flags=["--model-repository", str(made / "models")]) as gateway:
            yield gateway


@pytest.fixture
def client(serving: Gateway) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(serving.unix)
    yield made
    made.unregister_system_shared_memory()
    made.close()


@pytest.fixture
def region(client: triton.InferenceServerClient) -> Iterator[Any]:
    """A region ``r`` of 64 kB, made and registered by the stock client."""
    key = f"edgeway-test-{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region("r", key, 65536)
    client.register_system_shared_memory("r", key, 65536)
    yield handle
    client.unregister_system_shared_memory("r")
    with contextlib.suppress(Exception):
        shm.destroy_shared_memory_region(handle)


def asked(
    client: triton.InferenceServerClient,
    model: str,
    shape: list[int],
    size: int,
    offset: int = 0,
    region: str = "r",
    into: tuple[str, int, int] | None = None,
    datatype: str = "FP32",
) -> triton.InferResult:
    tensor = triton.InferInput("x", shape, datatype)
    tensor.set_shared_memory(region, size, offset)
    output = triton.InferRequestedOutput("y")
    if into is not None:
        output.set_shared_memory(*into)
    return client.infer(model, [tensor], outputs=[output])


def test_a_stock_client_has_inputs_and_outputs_in_its_region(client, region):
    x = np.arange(1000, dtype=np.float32)
    shm.set_shared_memory_region(region, [x])
    result = asked(client, "double", [1000], 4000, into=("r", 8000, 4096))
    output = result.get_output("y")
    assert output.parameters["shared_memory_region"].string_param == "r"
    assert output.parameters["shared_memory_byte_size"].int64_param == 4000
    assert output.parameters["shared_memory_offset"].int64_param == 4096
    assert shm.get_contents_as_numpy(region, np.float32, [1000], 4096).tolist() == (2 * x).tolist()


def test_an_input_in_a_region_gives_an_answer_in_the_message(client, region):
    x = np.arange(16, dtype=np.float32)
    shm.set_shared_memory_region(region, [x], offset=64)
    assert asked(client, "double", [16], 64, 64).as_numpy("y").tolist() == (2 * x).tolist()


def test_text_lies_in_a_region_with_lengths_before_its_elements(client, region):
    elements = [b"edge", "wäy".encode(), b""]
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    region._mpsm_handle.buf[: len(raw)] = raw
    result = asked(client, "text", [3], len(raw), into=("r", 100, 1024), datatype="BYTES")
    assert result.get_output("y").parameters["shared_memory_byte_size"].int64_param == len(raw)
    assert shm.get_contents_as_numpy(region, np.object_, [3], 1024).tolist() == elements


def test_the_extension_is_announced_and_regions_are_shown(client, region):
    assert "system_shared_memory" in client.get_server_metadata().extensions
    status = client.get_system_shared_memory_status("r").regions["r"]
    assert (status.name, status.offset, status.byte_size) == ("r", 0, 65536)
    client.unregister_system_shared_memory("r")
    client.unregister_system_shared_memory("r")  # a second time does no harm
    assert not client.get_system_shared_memory_status().regions


def test_over_tcp_shared_memory_is_refused_by_default(serving, region):
    with triton.InferenceServerClient(serving.address) as client:
        assert "system_shared_memory" not in client.get_server_metadata().extensions
        for call in (
            lambda: client.register_system_shared_memory("t", "t", 64),
            lambda: client.get_system_shared_memory_status(),
            lambda: client.unregister_system_shared_memory("r"),
            lambda: asked(client, "identity", [4], 16),
        ):
            with pytest.raises(triton.InferenceServerException) as refused:
                call()
            assert refused.value.status() == "StatusCode.PERMISSION_DENIED"


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """(status, message)"""
    with pytest.raises(triton.InferenceServerException) as refused:
        call()
    return refused.value.status().removeprefix("StatusCode."), refused.value.message()


@pytest.fixture
def file() -> Iterator[Callable[..., str]]:
    """Makes files in /dev/shm; their names."""
    made: list[Path] = []

    def make(size: int = 4096, mode: int = 0o600) -> str:
        path = SHM / f"edgeway-test-{uuid.uuid4().hex}"
        made.append(path)
        path.touch()
        path.chmod(mode)
        os.truncate(path, size)
        return path.name

    yield make
    for path in made:
        path.unlink(missing_ok=True)


def test_keys_that_are_no_regular_file_of_the_folder_are_refused(client, file):
    regular = file()
    made = [SHM / f"edgeway-test-{kind}-{uuid.uuid4().hex}" for kind in ("link", "pipe", "folder", "absent")]
    link, pipe, directory, absent = made
    link.symlink_to(SHM / regular)
    os.mkfifo(pipe)
    directory.mkdir()
    try:
        keys = [each.name for each in made]
        answers = {refusal(lambda key=key: client.register_system_shared_memory("h", key, 64)) for key in keys}
    finally:
        link.unlink()
        pipe.unlink()
        directory.rmdir()
    assert {status for status, _ in answers} == {"INVALID_ARGUMENT"}
    texts = {text.replace(absent.name, "").split("expected")[1] for _, text in answers}
    assert len(texts) == 1  # it does not say which of them exist
    assert not client.get_system_shared_memory_status().regions


@pytest.mark.parametrize(
    "key", ["", "/", "//x", "a/b", "/../shadow", "..", ".", "../../etc/passwd", "x" * 300, "/proc/self/mem", "a\0b"]
)
def test_keys_that_are_no_file_names_are_refused(client, key):
    assert refusal(lambda: client.register_system_shared_memory("h", key, 64))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (0, 0),
        (4097, 0),
        (1, 4096),
        (4096, 1),
        (1 << 63, 0),
        ((1 << 64) - 1, 0),
        ((1 << 64) - 32, 64),
        (64, (1 << 64) - 32),
    ],
)
def test_ranges_beyond_the_file_are_refused(client, file, size, offset):
    key = file(4096)
    assert refusal(lambda: client.register_system_shared_memory("h", key, size, offset))[0] in (
        "INVALID_ARGUMENT",
        "RESOURCE_EXHAUSTED",
    )
    assert not client.get_system_shared_memory_status().regions


@pytest.mark.parametrize("name", ["", "edgeway:x", "n" * 300, "a\0b"])
def test_names_that_are_none_are_refused(client, file, name):
    key = file()
    assert refusal(lambda: client.register_system_shared_memory(name, key, 64))[0] == "INVALID_ARGUMENT"


def test_a_name_is_taken_once(client, file):
    client.register_system_shared_memory("twice", file(), 64)
    assert refusal(lambda: client.register_system_shared_memory("twice", file(), 64))[0] == "ALREADY_EXISTS"
    assert refusal(lambda: client.get_system_shared_memory_status("never"))[0] == "NOT_FOUND"


def test_regions_and_their_bytes_are_limited(folder, gateway_in, file):
    gateway = gateway_in({"sharedMemory": {"maxMB": 1}})
    with triton.InferenceServerClient(gateway.unix) as client:
        key = file(1 << 20)
        client.register_system_shared_memory("all", key, 1 << 20)
        assert refusal(lambda: client.register_system_shared_memory("more", key, 1))[0] == "RESOURCE_EXHAUSTED"
        client.unregister_system_shared_memory("all")
        for number in range(256):
            client.register_system_shared_memory(f"r{number}", key, 64)
        assert refusal(lambda: client.register_system_shared_memory("more", key, 1))[0] == "RESOURCE_EXHAUSTED"
        opened = descriptors(gateway)
        client.unregister_system_shared_memory()
        assert descriptors(gateway) == opened - 256


def descriptors(gateway: Gateway) -> int:
    assert gateway.process is not None
    return len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user")
def test_another_users_file_is_refused_though_the_gateway_could_open_it(client, file):
    private, of_group, open_to_all = file(mode=0o600), file(mode=0o660), file(mode=0o666)
    for name in (private, of_group, open_to_all):
        os.chown(SHM / name, 12345, 12345)
    assert refusal(lambda: client.register_system_shared_memory("p", private, 64))[0] == "INVALID_ARGUMENT"
    assert refusal(lambda: client.register_system_shared_memory("g", of_group, 64))[0] == "INVALID_ARGUMENT"
    client.register_system_shared_memory("a", open_to_all, 64)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives the socket to another group")
def test_a_socket_that_lets_others_in_reaches_only_what_these_may_open(folder, gateway_in, file):
    gateway = gateway_in({})
    os.chown(gateway.unix.removeprefix("unix:"), -1, 12345)
    own, of_group = file(mode=0o600), file(mode=0o660)
    os.chown(SHM / of_group, -1, 12345)
    with triton.InferenceServerClient(gateway.unix) as client:
        assert refusal(lambda: client.register_system_shared_memory("o", own, 64))[0] == "INVALID_ARGUMENT"
        client.register_system_shared_memory("g", of_group, 64)


@pytest.mark.parametrize(
    ("size", "offset", "expected"),
    [
        (16, 0, "OK"),
        (16, 65520, "OK"),
        (16, 65521, "INVALID_ARGUMENT"),
        (16, (1 << 63) - 8, "INVALID_ARGUMENT"),
        (16, -16, "INVALID_ARGUMENT"),
        (-16, 0, "INVALID_ARGUMENT"),
        (15, 0, "INVALID_ARGUMENT"),
        (17, 0, "INVALID_ARGUMENT"),
        (0, 0, "INVALID_ARGUMENT"),
    ],
)
def test_places_of_tensors_must_lie_in_their_region(client, region, size, offset, expected):
    def call() -> None:
        asked(client, "identity", [4], size, offset)

    if expected == "OK":
        call()
    else:
        assert refusal(call)[0] == expected


@pytest.mark.parametrize("into", [("r", 16, 65521), ("r", 1 << 40, 0), ("r", -1, 0), ("r", 16, -1), ("r", 15, 0)])
def test_places_of_outputs_must_have_room_in_their_region(client, region, into):
    assert refusal(lambda: asked(client, "identity", [4], 16, into=into))[0] == "INVALID_ARGUMENT"


def test_regions_that_nobody_registered_are_not_found(client, region):
    assert refusal(lambda: asked(client, "identity", [4], 16, region="never"))[0] == "NOT_FOUND"
    assert refusal(lambda: asked(client, "identity", [4], 16, into=("never", 16, 0)))[0] == "NOT_FOUND"
    client.unregister_system_shared_memory("r")
    assert refusal(lambda: asked(client, "identity", [4], 16))[0] == "NOT_FOUND"


def test_data_and_a_region_for_one_tensor_contradict_each_other(serving, client, region):
    for how in ("raw", "typed"):
        request = oip.ModelInferRequest(model_name="identity")
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[4])
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_byte_size"].int64_param = 16
        if how == "raw":
            request.raw_input_contents.append(bytes(16))
        else:
            tensor.contents.fp32_contents.extend([0] * 4)
        with grpc.insecure_channel(serving.unix) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request.SerializeToString(), timeout=5)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_text_tensor_whose_lengths_lie_is_refused(client, region):
    region._mpsm_handle.buf[:16] = (1 << 31).to_bytes(4, "little") * 4
    status, _ = refusal(lambda: asked(client, "text", [4], 16, datatype="BYTES"))
    assert status == "INVALID_ARGUMENT"


def test_a_region_that_shrinks_under_load_harms_nobody(serving, client, file):
    key = file(1 << 20)
    client.register_system_shared_memory("shrinking", key, 1 << 20)
    worker = serving.worker()
    stop = threading.Event()

    def shrink_and_grow() -> None:
        while not stop.is_set():
            for size in (0, 4096, 1 << 19, 1 << 20):
                os.truncate(SHM / key, size)

    hostile = threading.Thread(target=shrink_and_grow)
    hostile.start()
    seen: Counter[str] = Counter()
    try:
        for number in range(400):
            into = ("shrinking", 1 << 19, 1 << 19) if number % 2 else None
            try:
                asked(client, "double", [1 << 17], 1 << 19, region="shrinking", into=into)
                seen["OK"] += 1
            except triton.InferenceServerException as refused:
                seen[refused.status()] += 1
    finally:
        stop.set()
        hostile.join()
    assert set(seen) <= {"OK", "StatusCode.INVALID_ARGUMENT"}
    assert seen["StatusCode.INVALID_ARGUMENT"]
    assert serving.process.poll() is None
    assert (serving.worker()["pid"], serving.worker()["restarts"]) == (worker["pid"], worker["restarts"])
    os.truncate(SHM / key, 1 << 20)
    asked(client, "double", [1 << 17], 1 << 19, region="shrinking")


def test_unregistering_while_a_run_uses_the_region_is_safe(folder, gateway_in, file):
    put(folder / "models", "slow", slow_for(0.4))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    key = file()
    (SHM / key).write_bytes(np.float32(3).tobytes() + bytes(4092))
    with triton.InferenceServerClient(gateway.unix) as client, ThreadPoolExecutor(1) as pool:
        client.register_system_shared_memory("r", key, 4096)
        running = pool.submit(asked, client, "slow", [1], 4, 0, "r", ("r", 4, 64))
        wait_for(lambda: in_flight(gateway), 5, "the run")
        client.unregister_system_shared_memory("r")
        assert not client.get_system_shared_memory_status().regions
        (SHM / key).unlink()
        result = running.result(10)
        assert result.get_output("y").parameters["shared_memory_byte_size"].int64_param == 4
        assert refusal(lambda: asked(client, "slow", [1], 4))[0] == "NOT_FOUND"
    assert gateway.worker()["restarts"] == 0


def test_with_all_callers_over_tcp_may_share_memory_too(folder, gateway_in, file):
    put(folder / "models", "double", scaled(2.0))
    flags = ("--model-repository", str(folder / "models"), "--client-shared-memory", "all")
    gateway = gateway_in({"sharedMemory": {"clients": "off"}}, *flags)
    key = file()
    (SHM / key).write_bytes(np.ones(1024, np.float32).tobytes())
    with triton.InferenceServerClient(gateway.address) as client:
        client.register_system_shared_memory("r", key, 4096)
        assert asked(client, "double", [4], 16).as_numpy("y").tolist() == [2, 2, 2, 2]


def test_where_it_is_off_shared_memory_is_not_offered(folder, gateway_in, file):
    put(folder / "models", "double", scaled(2.0))
    config = {"sharedMemory": {"clients": "off"}}
    gateway = gateway_in(config, "--model-repository", str(folder / "models"))
    with triton.InferenceServerClient(gateway.unix) as client:
        assert refusal(lambda: client.register_system_shared_memory("r", file(), 64))[0] == "UNIMPLEMENTED"
        assert refusal(lambda: asked(client, "double", [4], 16))[0] == "UNIMPLEMENTED"
        assert "system_shared_memory" not in client.get_server_metadata().extensions
