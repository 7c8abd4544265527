"""Short forms of the show commands: what the project promises, with real processes."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

SHORT = {
    "clients": [],
    "conformance": ["--every", "20"],
    "mixing": ["--seconds", "3"],
    "workers": ["--kills", "2"],
    "hang": ["--seconds", "9", "--hang", "4"],
    "lifecycle": [],
    "bad_input": [],
    "model_files": [],
}


@pytest.mark.parametrize("name", SHORT)
def test_the_show_holds_in_its_short_form(name):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.show.{name}", *SHORT[name]], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_overhead_benchmark_measures_both_sizes():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--rounds", "1", "--calls", "50", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=110,
    )
    figures = json.loads(done.stdout)
    assert {name: figures[name]["ratio"] > 0 for name in ("64B", "frame")} == {"64B": True, "frame": True}
