"""Edge TPUs, as far as they can be had without one: a fake sysfs, and a stub of libedgetpu built here."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tflite_models import compiled, scaled
from edgeway.tensors import to_array, to_bytes
from workers.backend import (
    DEVICE_BUSY,
    MISSING_DEVICE,
    MISSING_LIBRARY,
    NO_PERMISSION,
    WRONG_DRIVER,
    BackendUnavailable,
    DeviceFault,
    ModelRejected,
    NotOnDevice,
    RunFailed,
    Settings,
    Tensor,
)
from workers.backends.edgetpu import EdgeTpuBackend, Options, look
from workers.edge_tpus import Roots, check, choose, find
from workers.loaded import NeverCancelled

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")


class Box:
    """A machine as sysfs and the device nodes tell of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sys", "dev", "proc", "locks"):
            (folder / name).mkdir()

    @property
    def roots(self) -> Roots:
        return Roots(*(str(self.folder / name) for name in ("sys", "dev", "proc", "locks")))

    @property
    def options(self) -> dict[str, str]:
        return {
            "sysfsRoot": f"{self.folder}/sys",
            "devRoot": f"{self.folder}/dev",
            "lockFolder": f"{self.folder}/locks",
        }

    def apex(self, number: int = 0, node: bool = True) -> Path:
        device = self.folder / "sys/class/apex" / f"apex_{number}"
        device.mkdir(parents=True)
        if node:
            (self.folder / "dev" / device.name).touch()
        return device

    def usb(self, port: str = "2-1", ids: tuple[str, str] = ("18d1", "9302"), number: int = 4) -> Path:
        device = self.folder / "sys/bus/usb/devices" / port
        device.mkdir(parents=True)
        for name, text in (("idVendor", ids[0]), ("idProduct", ids[1]), ("busnum", "2"), ("devnum", str(number))):
            (device / name).write_text(f"{text}\n")
        node = self.folder / "dev/bus/usb/002" / f"{number:03}"
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
        return device


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


@pytest.fixture(scope="session")
def stub(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the stub of libedgetpu with")
    library = tmp_path_factory.mktemp("stub") / "libedgetpu.so.1"
    source = Path(__file__).parent / "stubs/edgetpu.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True, timeout=60)
    return str(library)


@pytest.fixture
def behave(tmp_path, monkeypatch):
    """``behave("takes")``: the stub does that from now on."""
    file = tmp_path / "behaviour"
    monkeypatch.setenv("STUB_EDGETPU", str(file))
    return file.write_text


def backend(box: Box, library: str, **more: object) -> EdgeTpuBackend:
    return EdgeTpuBackend(Settings("coral", options={**box.options, "library": library, **more}))


def run(model) -> np.ndarray:
    values = np.zeros([max(1, size) for size in model.inputs[0].shape], np.uint8)
    if model.inputs[0].datatype == "FP32":
        values = values.astype(np.float32)
    given = {model.inputs[0].name: Tensor(model.inputs[0].datatype, values.shape, to_bytes(values))}
    (got,) = model.run(given, [model.outputs[0].name], NeverCancelled())
    return to_array(got.datatype, got.shape, memoryview(got.data))


def test_devices_are_found_by_the_kernels_word_pcie_first(box):
    box.usb("2-1", number=4)
    box.usb("10-2", ("1a6e", "089a"), number=5)
    box.usb("1-1", ("1d6b", "0002"), number=6)
    box.apex(10)
    box.apex(2)
    found = find(box.roots)
    assert [(device.which, device.name) for device in found] == [
        ("pci:0", "apex_2"),
        ("pci:1", "apex_10"),
        ("usb:0", "2-1"),
        ("usb:1", "10-2"),
    ]
    assert found[2].node == str(box.folder / "dev/bus/usb/002/004")


@pytest.mark.parametrize(
    ("wanted", "got"),
    [("", [0, 1, 2]), ("usb", [1, 2]), ("pci:0", [0]), ("usb:1", [2]), (":1", [1]), ("usb:7", [])],
)
def test_a_device_is_wanted_by_kind_and_number(box, wanted, got):
    box.apex()
    box.usb("2-1", number=4)
    box.usb("2-2", number=5)
    found = find(box.roots)
    assert choose(found, wanted) == [found[index] for index in got]


@pytest.mark.parametrize("options", [{"device": "gpu:0"}, {"device": 0}, {"speed": 9}, {"allowCpu": "yes"}])
def test_an_option_that_makes_no_sense_is_refused_by_name(options):
    with pytest.raises(BackendUnavailable, match=f"options.{next(iter(options))}"):
        EdgeTpuBackend(Settings("coral", options=options))


def test_without_a_device_that_is_the_reason_though_the_library_lacks_too(box):
    probe = look(Options(roots=box.roots))
    assert (probe.available, probe.code) == (False, MISSING_DEVICE)
    assert "1a6e:089a" in probe.reason
    assert probe.remedy


def test_a_device_that_no_driver_has_taken_wants_one(box):
    pci = box.folder / "sys/bus/pci/devices/0000:03:00.0"
    pci.mkdir(parents=True)
    (pci / "vendor").write_text("0x1ac1\n")
    (pci / "device").write_text("0x089a\n")
    probe = look(Options(roots=box.roots))
    assert probe.code == WRONG_DRIVER
    assert "gasket" in probe.remedy


def test_a_device_without_its_library_wants_the_library(box):
    box.apex()
    probe = look(Options(library="libedgetpu-that-is-nowhere.so.1", roots=box.roots))
    assert probe.code == MISSING_LIBRARY
    assert "cannot open shared object file" in probe.reason
    with pytest.raises(BackendUnavailable, match="cannot open shared object file") as refused:
        backend(box, "libedgetpu-that-is-nowhere.so.1")
    assert refused.value.code == MISSING_LIBRARY


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become a user without the permission")
def test_a_node_that_is_not_for_this_user_is_said(folder):
    folder.chmod(0o755)
    box = Box(folder)
    box.apex()
    (box.folder / "dev/apex_0").chmod(0o600)
    code = (
        "import os, sys\n"
        "from workers.backends.edgetpu import *\n"
        "os.setuid(65534)\n"
        "probe = look(Options(roots=Roots(*sys.argv[1:])))\n"
        "print(probe.code, probe.reason, '|', probe.remedy)"
    )
    names = [str(box.folder / name) for name in ("sys", "dev", "proc", "locks")]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(NO_PERMISSION), done.stderr
    assert "apex_0" in done.stdout
    assert "udev" in done.stdout


def test_a_node_that_is_not_there_is_a_missing_device(box):
    box.apex(node=False)
    probe = look(Options(roots=box.roots))
    assert probe.code == MISSING_DEVICE
    assert "apex_0 is not" in probe.reason


def test_another_process_that_has_the_node_open_is_named(box):
    box.apex()
    (device,) = find(box.roots)
    holder = box.folder / "proc/4242/fd"
    holder.mkdir(parents=True)
    (holder.parent / "comm").write_text("frigate\n")
    (holder / "7").symlink_to(device.node)
    with pytest.raises(BackendUnavailable, match="process 4242 \\(frigate\\)") as busy:
        check(device, box.roots)
    assert busy.value.code == DEVICE_BUSY


def test_a_real_process_that_has_the_node_open_is_named(box):
    box.apex()
    (device,) = find(box.roots)
    code = f"file = open({device.node!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(BackendUnavailable, match=f"process {other.pid} "):
            check(device, Roots(box.roots.sysfs, box.roots.dev, "/proc", box.roots.locks))
        other.stdin.close()


def test_a_device_of_another_worker_is_busy_and_a_second_one_is_taken(box, stub, behave):
    behave("takes")
    box.usb("2-1", number=4)
    first = backend(box, stub)
    with pytest.raises(BackendUnavailable, match=f"in use by another worker, process {os.getpid()}") as busy:
        backend(box, stub)
    assert busy.value.code == DEVICE_BUSY
    box.usb("2-2", number=5)
    second = backend(box, stub)
    assert (first.device, second.device) == ("Coral Edge TPU usb:0 (2-1)", "Coral Edge TPU usb:1 (2-2)")
    for made in (first, second):
        made._owned.release()


def test_the_lock_of_a_process_that_died_holds_nobody_up(box, stub, behave):
    behave("takes")
    box.apex()
    path = box.folder / "locks/edgeway-edgetpu-apex_0.lock"
    code = (
        f"import fcntl, os; file = open({str(path)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    made = backend(box, stub)
    assert path.read_text() == f"{os.getpid()}\n"
    made._owned.release()


def test_what_libedgetpu_refuses_without_a_word_is_told_apart(box, stub, behave):
    behave("none")
    box.apex()
    with pytest.raises(BackendUnavailable, match="No EdgeTPU device is found!") as refused:
        backend(box, stub)
    assert refused.value.code in (DEVICE_BUSY, WRONG_DRIVER)
    with (box.folder / "locks/edgeway-edgetpu-apex_0.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it was let go of


def test_a_compiled_model_runs_on_the_device_and_says_how_much_of_it(box, stub, behave):
    behave("takes")
    box.usb()
    made = backend(box, stub)
    model = made.load(compiled(), "m")
    assert model.provenance == "1 of 2 nodes on the Edge TPU, 1 on the CPU (DEQUANTIZE)"
    assert model.inputs[0].quantisation.zero_point == (128,)
    assert (model.kind, made.kind) == ("", "hardware")
    assert run(model).shape == (1, 2)
    model.close()
    made._owned.release()


def test_a_delegate_that_takes_nothing_over_is_not_believed(box, stub, behave):
    behave("idle")
    box.usb()
    made = backend(box, stub)
    with pytest.raises(NotOnDevice, match="took over none"):
        made.load(compiled(), "m")
    made._owned.release()


def test_a_model_that_was_not_compiled_is_refused_or_runs_on_the_cpu_and_says_so(box, stub, behave):
    behave("takes")
    box.usb()
    made = backend(box, stub)
    with pytest.raises(NotOnDevice, match="not compiled for the Edge TPU"):
        made.load(scaled(2.0), "m")
    with pytest.raises(ModelRejected, match="Flatbuffer"):
        made.load(b"edgetpu-custom-op", "m")
    made._owned.release()
    made = backend(box, stub, allowCpu=True)
    model = made.load(scaled(2.0), "m")
    assert model.kind == "cpu"
    assert model.provenance == "1 of 1 nodes on the CPU (XNNPACK: 1 part): not compiled for the Edge TPU"
    assert run(model).tolist() == [0.0]
    made._owned.release()


def test_a_run_that_fails_is_the_models_fault_while_the_device_is_there_else_the_devices(box, stub, behave):
    behave("takes")
    device = box.usb()
    made = backend(box, stub)
    model = made.load(compiled(), "m")
    behave("fails")
    with pytest.raises(RunFailed, match="USB transfer error"):
        run(model)
    assert not made.heat().lost
    shutil.rmtree(device)
    with pytest.raises(DeviceFault, match="gone from the bus"):
        run(model)
    assert "2-1) is gone" in made.heat().lost
    model.close()
    made._owned.release()


def test_a_model_whose_first_run_fails_is_not_loaded(box, stub, behave):
    behave("fails")
    box.usb()
    made = backend(box, stub)
    with pytest.raises(ModelRejected, match=r"run on zeros failed on Coral Edge TPU usb:0 .*USB transfer error"):
        made.load(compiled(), "m")
    made._owned.release()


@pytest.mark.hardware
def test_a_real_edge_tpu_is_opened():
    probe = EdgeTpuBackend.probe()
    if not probe.available:
        pytest.skip(f"edgetpu: {probe.reason}")
    made = EdgeTpuBackend(Settings("coral"))
    with pytest.raises(NotOnDevice):
        made.load(scaled(2.0), "m")
