"""Memory: what is available, whether tasks wait for it, and what that refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.device.memory import (
    Available,
    MemoryReader,
    MemoryWatch,
    Pressure,
    cgroup_paths,
    mem_available,
    refuse_load,
    stalled_us,
)

MB = 1 << 20


def reader(tree) -> MemoryReader:
    return MemoryReader(tree.root / "proc", tree.root / "cgroup")


def device(tree, available_mb: int = 4096, cgroup: str = "0::/robot/edgeway") -> MemoryReader:
    tree.put("proc/meminfo", f"MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable:   {available_mb * 1024} kB")
    tree.put("proc/self/cgroup", cgroup)
    return reader(tree)


def limit(tree, path: str, limit_mb: object, used_mb: int, cache_mb: int = 0) -> None:
    tree.put(f"cgroup/{path}/memory.max", limit_mb if limit_mb == "max" else int(limit_mb) * MB)
    tree.put(f"cgroup/{path}/memory.current", used_mb * MB)
    tree.put(f"cgroup/{path}/memory.stat", f"anon 5\ninactive_file {cache_mb * MB}")


# -- what is available ---------------------------------------------------------------------------------------------


def test_without_a_cgroup_limit_the_machine_says_what_is_available(tree):
    assert device(tree).available() == Available(4096 * MB)


def test_a_cgroup_without_a_limit_does_not_count(tree):
    memory = device(tree)
    limit(tree, "robot/edgeway", "max", 100)
    assert memory.available() == Available(4096 * MB)


def test_the_limit_of_our_cgroup_counts_when_it_leaves_less(tree):
    memory = device(tree)
    limit(tree, "robot/edgeway", 1024, 300)
    assert memory.available() == Available(724 * MB, 1024 * MB)


def test_the_limit_of_a_cgroup_above_us_counts_too(tree):
    memory = device(tree)
    limit(tree, "robot/edgeway", 2048, 100)
    limit(tree, "robot", 512, 500)
    assert memory.available() == Available(12 * MB, 512 * MB)


def test_the_machine_counts_when_it_has_less_than_the_cgroup(tree):
    memory = device(tree, available_mb=64)
    limit(tree, "robot/edgeway", 1024, 300)
    assert memory.available() == Available(64 * MB)


def test_cached_files_that_can_go_are_not_used_memory(tree):
    memory = device(tree)
    limit(tree, "robot/edgeway", 1024, 1000, cache_mb=600)
    assert memory.available().free == 624 * MB


def test_the_soft_limit_counts_as_the_kernel_slows_us_there(tree):
    memory = device(tree)
    limit(tree, "robot/edgeway", 1024, 300)
    tree.put("cgroup/robot/edgeway/memory.high", 512 * MB)
    assert memory.available() == Available(212 * MB, 512 * MB)


def test_a_cgroup_of_version_1_counts(tree):
    memory = device(tree, cgroup="9:name=systemd:/\n4:cpu,memory:/robot\n0::/")
    tree.put("cgroup/memory/robot/memory.limit_in_bytes", 1024 * MB)
    tree.put("cgroup/memory/robot/memory.usage_in_bytes", 800 * MB)
    tree.put("cgroup/memory/robot/memory.stat", f"cache 0\ntotal_inactive_file {100 * MB}")
    assert memory.available() == Available(324 * MB, 1024 * MB)


def test_no_limit_of_version_1_is_no_limit(tree):
    memory = device(tree, cgroup="4:memory:/robot")
    tree.put("cgroup/memory/robot/memory.limit_in_bytes", 9223372036854771712)
    tree.put("cgroup/memory/robot/memory.usage_in_bytes", 800 * MB)
    assert memory.available() == Available(4096 * MB)


def test_in_a_container_the_root_of_the_tree_is_ours(tree):
    memory = device(tree, cgroup="0::/kubepods/pod7/not-there")
    tree.put("cgroup/memory.max", 256 * MB)
    tree.put("cgroup/memory.current", 56 * MB)
    assert memory.available() == Available(200 * MB, 256 * MB)


def test_a_cgroup_path_does_not_lead_out_of_the_tree(tree):
    memory = device(tree, cgroup="0::/../../elsewhere")
    assert memory.available() == Available(4096 * MB)


def test_more_used_than_allowed_is_nothing_left(tree):
    memory = device(tree)
    limit(tree, "robot/edgeway", 100, 300)
    assert memory.available().free == 0


@pytest.mark.parametrize("content", ["", "MemAvailable:", "MemAvailable: lots kB", "MemFree: 1 kB"])
def test_a_meminfo_that_does_not_say_is_unknown(content):
    assert mem_available(content) is None


def test_nothing_readable_is_unknown_and_nothing_raises(tree):
    (tree.root / "proc/meminfo").mkdir(parents=True)
    assert reader(tree).available() == Available(None)
    assert reader(tree).stalled() == {}


@given(st.text(max_size=200))
def test_no_text_makes_the_parsers_raise(text):
    mem_available(text)
    stalled_us(text)
    cgroup_paths(text)


# -- refusing ------------------------------------------------------------------------------------------------------


def test_a_model_that_fits_is_loaded():
    assert refuse_load(2048 * MB, Available(2112 * MB), 64 * MB, pressed=False) == ""


def test_a_model_that_does_not_fit_is_refused_with_the_figures():
    reason = refuse_load(2048 * MB, Available(812 * MB, 1024 * MB), 64 * MB, pressed=False)
    assert reason == "needs 2048 MB, 812 MB are available (cgroup limit 1024 MB), of which 64 MB stay free"


def test_the_reserve_is_not_given_away():
    assert refuse_load(2048 * MB, Available(2111 * MB), 64 * MB, pressed=False)


def test_what_other_loads_were_promised_is_not_given_twice():
    reason = refuse_load(1024 * MB, Available(2000 * MB), 0, pressed=False, promised=1024 * MB)
    assert reason == "needs 1024 MB, 2000 MB are available and 1024 MB are promised to other loads"


def test_under_pressure_nothing_is_loaded():
    assert "short of memory" in refuse_load(0, Available(None), 0, pressed=True)


def test_unknown_memory_refuses_nothing():
    assert refuse_load(2048 * MB, Available(None), 64 * MB, pressed=False) == ""


def test_a_model_that_does_not_say_what_it_needs_is_loaded():
    assert refuse_load(0, Available(1), 64 * MB, pressed=False) == ""


# -- pressure ------------------------------------------------------------------------------------------------------


class Stall:
    """Totals of waiting time on a scripted clock, twice a second."""

    def __init__(self, limit_percent: float = 20.0) -> None:
        self.pressure = Pressure(limit_percent)
        self.now = 0.0
        self.total = 5_000_000

    def run(self, seconds: float, percent: float) -> tuple[float | None, bool]:
        state: tuple[float | None, bool] = (None, False)
        for _ in range(round(seconds / 0.5)):
            self.now += 0.5
            self.total += round(0.5e6 * percent / 100)
            state = self.pressure.step({"machine": self.total}, self.now)
        return state


def test_what_waited_before_we_began_is_no_pressure():
    assert Stall().run(0.5, 0) == (None, False)
    assert Stall().run(2, 0) == (0.0, False)


def test_waiting_is_pressure_within_two_seconds_and_its_share_is_told():
    stall = Stall()
    stall.run(10, 0)
    percent, pressed = stall.run(2, 60)
    assert pressed
    assert percent == pytest.approx(60, abs=1)


def test_pressure_ends_only_after_a_calm_while():
    stall = Stall()
    stall.run(10, 60)
    assert stall.run(4, 0)[1]
    assert not stall.run(4, 0)[1]


def test_pressure_just_below_its_limit_goes_on_but_does_not_begin():
    stall = Stall()
    assert not stall.run(30, 15)[1]
    stall.run(5, 40)
    assert stall.run(60, 15)[1]


def test_the_worse_of_machine_and_cgroup_counts():
    pressure = Pressure(20.0)
    pressure.step({"machine": 0, "cgroup": 0}, 0.0)
    percent, pressed = pressure.step({"machine": 10_000, "cgroup": 500_000}, 1.0)
    assert (percent, pressed) == (50.0, True)


def test_a_counter_that_goes_back_or_vanishes_is_no_pressure():
    pressure = Pressure(20.0)
    pressure.step({"machine": 1_000_000}, 0.0)
    assert pressure.step({"machine": 0}, 1.0) == (0.0, False)
    assert pressure.step({}, 2.0)[1] is False


def test_totals_are_read_of_machine_and_cgroup(tree):
    memory = device(tree)
    tree.put("proc/pressure/memory", "some avg10=1.00 avg60=0.00 avg300=0.00 total=77\nfull avg10=0 total=9")
    tree.put("cgroup/robot/edgeway/memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5")
    assert memory.stalled() == {"machine": 77, "cgroup": 5}


def test_a_watch_refuses_by_what_is_available_now_and_not_at_the_last_sample(tree):
    watch = MemoryWatch(device(tree, available_mb=4096), 20.0, lambda state: None)
    assert watch.refuse(2048 * MB, 64 * MB) == ""
    device(tree, available_mb=100)
    assert watch.refuse(2048 * MB, 64 * MB).startswith("needs 2048 MB, 100 MB are available")


def test_this_machine_can_be_read():
    memory = MemoryReader()
    free = memory.available().free
    assert free is None or free > 0
    assert all(total >= 0 for total in memory.stalled().values())
