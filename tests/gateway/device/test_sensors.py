"""Readers of sysfs: what they make of files that are there, missing, damaged, or meant differently."""

from __future__ import annotations

import errno
import os
import types
from pathlib import Path

import pytest

from gateway.device import sensors
from gateway.device.apex import ApexTpus
from gateway.device.cpu import CountersOfX86, CpuLoad, FrequencyCaps
from gateway.device.jetson import JetsonGpu
from gateway.device.nvml import NvmlGpu
from gateway.device.raspberry import ThrottledBits
from gateway.device.sensors import Reading, join, reported
from gateway.device.zones import CoolingDevices, ThermalZones, zone_types


def every(kind: str) -> bool:
    return True


def temperatures(reading: Reading) -> dict[str, float | None]:
    return {part.source: part.temperature_c for part in reading.parts}


# -- thermal zones -------------------------------------------------------------------------------------------------


def test_zones_are_read_in_thousandths_of_a_degree_and_the_hottest_counts(tree):
    tree.zone(0, "cpu-thermal", 45500)
    tree.zone(1, "gpu-thermal", 61000)
    reading = ThermalZones(tree.root, every).read(1.0)
    assert temperatures(reading) == {"cpu-thermal": 45.5, "gpu-thermal": 61.0}
    assert reading.temperature_c == 61.0


def test_a_zone_is_found_by_its_type_after_it_was_renumbered(tree):
    tree.zone(0, "gpu-thermal", 50000)
    tree.zone(1, "cpu-thermal", 40000)
    zones = ThermalZones(tree.root, lambda kind: kind == "gpu-thermal")
    assert temperatures(zones.read(0.0)) == {"gpu-thermal": 50.0}
    tree.zone(0, "cpu-thermal", 41000)
    tree.zone(1, "gpu-thermal", 52000)
    assert temperatures(zones.read(1.0)) == {"gpu-thermal": 52.0}


def test_two_zones_of_one_type_stay_apart(tree):
    tree.zone(0, "acpitz", 30000)
    tree.zone(1, "acpitz", 40000)
    assert temperatures(ThermalZones(tree.root, every).read(0.0)) == {"acpitz": 30.0, "acpitz#2": 40.0}


def test_a_zone_that_was_asked_for_and_is_not_there_is_a_problem_and_no_temperature(tree):
    reading = ThermalZones(tree.root, lambda kind: False, expected=["tj-thermal"]).read(0.0)
    assert reading.temperature_c is None
    assert "no thermal zone of type 'tj-thermal'" in reading.problem


@pytest.mark.parametrize("content", ["", "garbage", "4 5", "0x10", "nan", "45.5", "\u00b0"])
def test_a_temperature_that_is_no_whole_number_is_a_problem(tree, content):
    zone = tree.zone(0, "gpu-thermal", 1)
    (zone / "temp").write_text(content, "utf-8")
    reading = ThermalZones(tree.root, every).read(0.0)
    assert reading.temperature_c is None
    assert reading.problem


def test_a_folder_in_the_place_of_a_file_is_a_problem(tree):
    zone = tree.zone(0, "gpu-thermal", 1)
    (zone / "temp").unlink()
    (zone / "temp").mkdir()
    assert "directory" in ThermalZones(tree.root, every).read(0.0).problem


def test_a_pipe_in_the_place_of_a_file_does_not_block(tree):
    zone = tree.zone(0, "gpu-thermal", 1)
    (zone / "temp").unlink()
    os.mkfifo(zone / "temp")
    assert ThermalZones(tree.root, every).read(0.0).problem


@pytest.mark.parametrize("number", [errno.EIO, errno.EAGAIN, errno.EINVAL, errno.ENODATA])
def test_an_error_of_the_driver_is_a_problem(tree, monkeypatch, number):
    tree.zone(0, "gpu-thermal", 50000)

    def refuse(path, *rest):
        if Path(path).name == "temp":
            raise OSError(number, os.strerror(number))
        return open_(path, *rest)

    open_ = os.open
    monkeypatch.setattr(sensors.os, "open", refuse)
    reading = ThermalZones(tree.root, every).read(0.0)
    assert reading.temperature_c is None
    assert os.strerror(number) in reading.problem


def test_negative_temperatures_are_read_as_they_are(tree):
    tree.zone(0, "gpu-thermal", -87900)
    assert ThermalZones(tree.root, every).read(0.0).temperature_c == -87.9


def test_whole_degrees_are_known_by_the_trip_points(tree):
    tree.zone(0, "odd", 71, ("passive", 95))
    tree.zone(1, "cold", 71, ("passive", 95000))
    assert temperatures(ThermalZones(tree.root, every).read(0.0)) == {"odd": 71.0, "cold": 0.071}


def test_a_small_number_without_trip_points_is_no_temperature(tree):
    tree.zone(0, "odd", 71)
    reading = ThermalZones(tree.root, every).read(0.0)
    assert reading.temperature_c is None
    assert "may be degrees" in reading.problem


def test_the_limit_is_the_lowest_passive_trip_point_and_no_fan(tree):
    tree.zone(0, "soc", 50000, ("active", 45000), ("passive", 80000), ("passive", 90000), ("critical", 105000))
    assert ThermalZones(tree.root, every).read(0.0).limit_c == 80.0


@pytest.mark.parametrize("raw", [0, -274000, 2147483647, 5000])
def test_a_trip_point_that_makes_no_sense_is_no_limit(tree, raw):
    tree.zone(0, "soc", 50000, ("passive", raw))
    assert ThermalZones(tree.root, every).read(0.0).limit_c is None


def test_the_fixed_value_of_a_pmic_is_left_out_unless_asked_for(tree):
    tree.zone(0, "PMIC-Die", 100000)
    tree.zone(1, "GPU-therm", 50000)
    assert temperatures(ThermalZones(tree.root, every).read(0.0)) == {"GPU-therm": 50.0}
    assert ThermalZones(tree.root, every, expected=["PMIC-Die"]).read(0.0).temperature_c == 100.0


def test_no_zones_at_all_are_unknown(tree):
    reading = ThermalZones(tree.root / "nowhere", every).read(0.0)
    assert (reading.temperature_c, reading.throttled, reading.problem) == (None, None, "")
    assert zone_types(tree.root / "nowhere") == []


# -- cooling devices -----------------------------------------------------------------------------------------------


def test_a_fan_at_full_speed_is_no_throttling(tree):
    tree.cooling(0, "pwm-fan", 3)
    tree.cooling(1, "Processor", 0)
    assert CoolingDevices(tree.root).read(0.0).throttled is False


@pytest.mark.parametrize("kind", ["Processor", "thermal-cpufreq-0", "devfreq-17000000.gpu", "idle-cpu0"])
def test_a_cooling_device_of_the_chip_that_acts_is_throttling(tree, kind):
    tree.cooling(0, kind, 1)
    assert CoolingDevices(tree.root).read(0.0).throttled is True


def test_devices_that_only_cool_otherwise_tell_nothing(tree):
    tree.cooling(0, "TCC Offset", 5)
    tree.cooling(1, "Fan", 1)
    assert CoolingDevices(tree.root).read(0.0).throttled is None


def test_the_idle_injector_at_rest_is_no_throttling(tree):
    tree.cooling(0, "intel_powerclamp", -1)
    assert CoolingDevices(tree.root).read(0.0).throttled is False


# -- CPU -----------------------------------------------------------------------------------------------------------


def test_throttle_counters_count_by_their_growth(tree):
    counter = "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    tree.put(counter, 1000)
    reader = CountersOfX86(tree.root)
    assert reader.read(0.0).throttled is None
    assert reader.read(1.0).throttled is False
    tree.put(counter, 1003)
    reading = reader.read(2.0)
    assert (reading.throttled, reading.throttle_events) == (True, 3)
    assert reader.read(3.0).throttled is False


def test_a_core_that_comes_back_with_a_fresh_counter_is_no_throttling(tree):
    counter = "devices/system/cpu/cpu1/thermal_throttle/package_throttle_count"
    tree.put(counter, 1000)
    reader = CountersOfX86(tree.root)
    reader.read(0.0)
    tree.put(counter, 0)
    assert reader.read(1.0).throttled is False


def test_a_frequency_limit_that_sinks_is_throttling_but_not_one_set_before(tree):
    limit = "devices/system/cpu/cpu0/cpufreq/scaling_max_freq"
    tree.put("devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", 3_000_000)
    tree.put(limit, 2_000_000)
    caps = FrequencyCaps(tree.root)
    assert caps.read(0.0).throttled is False
    tree.put(limit, 1_200_000)
    assert caps.read(1.0).throttled is True
    tree.put(limit, 2_000_000)
    assert caps.read(2.0).throttled is False


def test_without_cpufreq_throttling_is_unknown(tree):
    assert FrequencyCaps(tree.root).read(0.0).throttled is None


def test_the_load_of_the_cpu_is_the_share_of_time_it_was_not_idle(tree):
    tree.put("stat", "cpu  100 0 100 700 100 0 0 0 0 0")
    load = CpuLoad(tree.root)
    assert load.read(0.0).load is None
    tree.put("stat", "cpu  150 0 150 750 150 0 0 0 0 0")
    assert load.read(1.0).load == pytest.approx(0.5)


@pytest.mark.parametrize("content", ["", "cpu", "cpu a b c d e", "cpu 1 2"])
def test_a_damaged_stat_file_is_a_problem(tree, content):
    tree.put("stat", content)
    assert CpuLoad(tree.root).read(0.0).problem


# -- Raspberry Pi, Jetson, Coral -----------------------------------------------------------------------------------

BITS = "devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("text", "throttled"), [("0", False), ("50000", False), ("0x50000", False), ("50005", True), ("0x8", True)]
)
def test_only_what_the_firmware_does_now_is_throttling(tree, text, throttled):
    tree.put(BITS, text)
    assert ThrottledBits(tree.root).read(0.0).throttled is throttled


def test_what_happened_between_two_readings_is_an_event(tree):
    tree.put(BITS, "0")
    bits = ThrottledBits(tree.root)
    bits.read(0.0)
    tree.put(BITS, "40000")
    reading = bits.read(1.0)
    assert (reading.throttled, reading.throttle_events) == (False, 1)
    assert bits.read(2.0).throttle_events == 0


def test_throttling_that_begins_and_stays_is_one_event(tree):
    tree.put(BITS, "0")
    bits = ThrottledBits(tree.root)
    bits.read(0.0)
    tree.put(BITS, "40004")
    assert [bits.read(at).throttle_events for at in (1.0, 2.0, 3.0)] == [1, 0, 0]


@pytest.mark.parametrize("text", ["", "throttled=0x0", "ffffffff", "-1"])
def test_bits_that_mean_nothing_are_a_problem(tree, text):
    tree.put(BITS, text)
    reading = ThrottledBits(tree.root).read(0.0)
    assert (reading.throttled, bool(reading.problem)) == (None, True)


def jetson(tree, load: object) -> JetsonGpu:
    tree.put("class/devfreq/17000000.ga10b/device/of_node/name", "gpu\0")
    tree.put("class/devfreq/17000000.ga10b/device/load", load)
    tree.put("class/devfreq/15340000.vic/device/load", 999)
    return JetsonGpu(tree.root)


def test_the_load_of_a_jetson_gpu_is_in_thousandths(tree):
    assert jetson(tree, 425).read(0.0).load == 0.425


@pytest.mark.parametrize("load", [-1, 1001, "busy"])
def test_a_load_beyond_thousandths_is_unknown(tree, load):
    reading = jetson(tree, load).read(0.0)
    assert (reading.load, bool(reading.problem)) == (None, True)


def test_an_over_current_event_is_throttling_though_the_chip_is_cold_but_one_at_boot_is_not(tree):
    reader = jetson(tree, 0)
    tree.put("class/hwmon/hwmon4/oc1_event_cnt", 7)
    assert reader.read(0.0).throttled is None
    assert reader.read(1.0).throttled is False
    tree.put("class/hwmon/hwmon4/oc1_event_cnt", 8)
    assert reader.read(2.0).throttled is True


def test_an_edge_tpu_throttles_from_its_first_trip_point_on(tree):
    tree.put("class/apex/apex_0/trip_point0_temp", 85000)
    tree.put("class/apex/apex_0/temp", 84900)
    tpu = ApexTpus(tree.root)
    reading = tpu.read(0.0)
    assert (reading.temperature_c, reading.throttled, reading.limit_c) == (84.9, False, 85.0)
    tree.put("class/apex/apex_0/temp", 85000)
    assert tpu.read(1.0).throttled is True


def test_the_old_driver_of_edge_tpus_has_no_temperature(tree):
    tree.put("class/apex/apex_0/node_0_num_mapped_pages", 0)
    reading = ApexTpus(tree.root).read(0.0)
    assert (reading.temperature_c, reading.throttled) == (None, None)
    assert reading.problem


def test_an_edge_tpu_on_usb_is_a_problem_and_not_cold(tree):
    assert "USB" in ApexTpus(tree.root).read(0.0).problem


# -- NVML ----------------------------------------------------------------------------------------------------------


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801 - the binding's name
    pass


class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801
    pass


class NVMLError_GpuIsLost(NVMLError):  # noqa: N801
    pass


def raising(error: Exception):
    def function(*arguments):
        raise error

    return function


def nvml(**functions) -> types.SimpleNamespace:
    """A module like pynvml of a recent driver, with some functions replaced, or missing where None."""
    module = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: f"gpu{index}",
        "nvmlDeviceGetTemperatureV": lambda handle, sensor: 61,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x1,
        "nvmlDeviceGetUtilizationRates": lambda handle: types.SimpleNamespace(gpu=37),
        "nvmlDeviceGetMarginTemperature": lambda handle: 26,
    } | functions
    return types.SimpleNamespace(**{name: each for name, each in module.items() if each is not None})


def test_a_gpu_tells_temperature_load_and_where_it_slows_down():
    reading = NvmlGpu(0, nvml()).read(0.0)
    assert (reading.temperature_c, reading.load, reading.limit_c, reading.throttled) == (61.0, 0.37, 87.0, False)


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [(0x0, False), (0x1, False), (0x4, False), (0x20, True), (0x40, True), (0x44, True), (0x8, True), (0x88, False)],
)
def test_only_heat_is_throttling_and_neither_idling_nor_a_power_limit(reasons, throttled):
    library = nvml(nvmlDeviceGetCurrentClocksEventReasons=lambda handle: reasons)
    assert NvmlGpu(0, library).read(0.0).throttled is throttled


def test_old_names_are_used_where_the_binding_or_the_driver_lacks_the_new_ones():
    library = nvml(
        nvmlDeviceGetTemperatureV=raising(NVMLError_FunctionNotFound("no symbol")),
        nvmlDeviceGetTemperature=lambda handle, sensor: 70,
        nvmlDeviceGetCurrentClocksEventReasons=None,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x40,
        nvmlDeviceGetMarginTemperature=None,
        nvmlDeviceGetTemperatureThreshold=lambda handle, which: 93,
    )
    reading = NvmlGpu(0, library).read(0.0)
    assert (reading.temperature_c, reading.throttled, reading.limit_c) == (70.0, True, 93.0)


def test_what_a_gpu_does_not_support_is_unknown():
    refused = raising(NVMLError_NotSupported("not supported"))
    library = nvml(
        nvmlDeviceGetTemperatureV=refused,
        nvmlDeviceGetTemperature=refused,
        nvmlDeviceGetCurrentClocksEventReasons=refused,
        nvmlDeviceGetCurrentClocksThrottleReasons=refused,
        nvmlDeviceGetUtilizationRates=refused,
        nvmlDeviceGetMarginTemperature=refused,
        nvmlDeviceGetTemperatureThreshold=refused,
    )
    reading = NvmlGpu(0, library).read(0.0)
    assert (reading.temperature_c, reading.throttled, reading.load, reading.lost) == (None, None, None, "")


def test_a_lost_gpu_is_lost_and_looked_for_again_later():
    library = nvml(nvmlDeviceGetTemperatureV=raising(NVMLError_GpuIsLost("GPU is lost")))
    gpu = NvmlGpu(0, library)
    assert "GPU is lost" in gpu.read(0.0).lost
    library.nvmlDeviceGetTemperatureV = lambda handle, sensor: 50
    assert gpu.read(100.0).temperature_c == 50.0


def test_a_missing_library_is_a_problem_and_tried_again_only_after_a_while():
    tries = []

    def missing():
        tries.append(1)
        raise NVMLError("library not found")

    gpu = NvmlGpu(0, nvml(nvmlInit=missing))
    assert [bool(gpu.read(at).problem) for at in (0.0, 0.5, 29.0, 31.0)] == [True] * 4
    assert len(tries) == 2


def test_a_missing_binding_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert "edgeway[tensorrt]" in NvmlGpu().read(0.0).problem


def test_throttling_of_a_gpu_counts_once_when_it_begins():
    library = nvml(nvmlDeviceGetCurrentClocksEventReasons=lambda handle: 0x40)
    gpu = NvmlGpu(0, library)
    assert [gpu.read(at).throttle_events for at in (0.0, 1.0)] == [1, 0]


# -- joining -------------------------------------------------------------------------------------------------------


def test_one_sensor_that_throttles_is_enough_and_one_that_is_silent_hides_none():
    readings = [
        Reading("a", 1.0, 40.0, throttled=False),
        Reading("b", 1.0, problem="EIO"),
        Reading("c", 1.0, throttled=True),
    ]
    joined = join("all", 1.0, readings)
    assert (joined.temperature_c, joined.throttled, joined.problem) == (40.0, True, "EIO")
    assert [part.source for part in joined.parts] == ["a", "b", "c"]


def test_a_report_of_the_worker_is_a_reading():
    reading = reported("tpu", 3.0, 55.0, None)
    assert (reading.temperature_c, reading.at, reading.vouched) == (55.0, 3.0, True)
