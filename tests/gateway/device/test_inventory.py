"""Which sensors tell about which worker."""

from __future__ import annotations

import msgspec
import pytest

from gateway.config import HeatSettings, WorkerConfig
from gateway.device.inventory import readers_of
from gateway.device.sensors import Reading, read_all


def config(backend: str, **fields) -> WorkerConfig:
    return msgspec.convert({"name": "w", "backend": backend, **fields}, WorkerConfig)


def seen(tree, backend: str, sysfs: str | None = None, **fields) -> Reading:
    heat = HeatSettings(sysfs_root=sysfs or str(tree.root))
    readers = readers_of(config(backend, **fields), heat, tree.root / "proc")
    return read_all("sensors", readers, 1.0)


def temperatures(reading: Reading) -> dict[str, float]:
    return {part.source: part.temperature_c for part in reading.parts if part.temperature_c is not None}


@pytest.fixture
def orin(tree):
    for number, kind in enumerate(["cpu-thermal", "gpu-thermal", "soc0-thermal", "tj-thermal", "PMIC-Die"]):
        tree.zone(number, kind, 50000 + number * 1000)
    tree.put("class/devfreq/17000000.gpu/device/load", 500)
    return tree


def test_a_gpu_of_a_jetson_is_told_by_its_own_zones_and_devfreq(orin):
    reading = seen(orin, "tensorrt")
    assert temperatures(reading) == {"gpu-thermal": 51.0, "tj-thermal": 53.0}
    assert reading.load == 0.5


def test_the_cpu_is_told_by_cpu_and_soc_zones(orin):
    assert temperatures(seen(orin, "cpu")) == {"cpu-thermal": 50.0, "soc0-thermal": 52.0}


@pytest.mark.parametrize("backend", ["openvino", "litert"])
def test_runtimes_on_the_cpu_are_told_like_the_cpu(orin, backend):
    assert temperatures(seen(orin, backend)) == {"cpu-thermal": 50.0, "soc0-thermal": 52.0}


def test_zones_of_the_config_take_the_place_of_the_usual_ones(orin):
    assert temperatures(seen(orin, "cpu", zones=["tj-thermal"])) == {"tj-thermal": 53.0}


def test_a_zone_of_the_config_that_is_not_there_is_a_problem(orin):
    assert "no thermal zone of type 'npu-thermal'" in seen(orin, "cpu", zones=["npu-thermal"]).problem


def test_an_edge_tpu_is_told_by_its_driver_and_chosen_by_index(tree):
    for index, temp in enumerate([50000, 60000]):
        tree.put(f"class/apex/apex_{index}/temp", temp)
    tree.zone(0, "cpu-thermal", 90000)
    assert temperatures(seen(tree, "edgetpu")) == {"apex_0": 50.0, "apex_1": 60.0}
    assert temperatures(seen(tree, "edgetpu", options={"device": "pci:1"})) == {"apex_1": 60.0}


def test_a_simulated_accelerator_has_the_sensors_of_its_own_tree(tree):
    tree.zone(0, "sim-thermal", 70000)
    tree.cooling(0, "thermal-devfreq-0", 2)
    reading = seen(tree, "simulated", sysfs="/sys", options={"sysfsRoot": str(tree.root)})
    assert temperatures(reading) == {"sim-thermal": 70.0}
    assert reading.throttled is True


def test_a_simulated_accelerator_without_a_tree_has_no_sensor_of_the_real_machine():
    assert readers_of(config("simulated"), HeatSettings()) == []


def test_a_simulated_accelerator_uses_the_tree_of_the_device_when_that_is_a_fake(tree):
    tree.zone(0, "any-thermal", 70000)
    assert temperatures(seen(tree, "simulated")) == {"any-thermal": 70.0}


def test_a_target_elsewhere_has_no_sensors():
    assert readers_of(config("remote", options={"url": "127.0.0.1:1"}), HeatSettings()) == []


def test_a_raspberry_pi_is_told_by_the_bits_of_its_firmware(tree):
    tree.put("devices/platform/soc/soc:firmware/get_throttled", "4")
    assert seen(tree, "cpu").throttled is True


def test_an_unknown_backend_on_this_machine_reads_without_raising():
    read_all("sensors", readers_of(config("cpu"), HeatSettings()), 1.0)
