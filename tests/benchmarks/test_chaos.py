"""The load generator's plan, what is counted of its samples, scenarios as plain data, and the pictures."""

import itertools
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from benchmarks.chaos import Action, Class, Sample, Tally, classes_of, scenario_of
from benchmarks.load import arrivals
from benchmarks.show.heat import departure, moves, strays
from benchmarks.show.kill import returns
from benchmarks.timelines import MOST_DOTS, Panel, figures, svg, verdict_lines

SCENARIOS = sorted((Path(__file__).resolve().parents[2] / "examples" / "scenarios").glob("*.yaml"))


def sample(sent, target="sim", outcome="served", latency=0.005, budget=0.02, reason="", caller="normal"):
    return Sample(caller, sent, latency, budget, outcome, target, reason)


def test_arrivals_are_the_same_for_the_same_seed_and_others_for_another():
    each = Class("normal", 50.0, 20.0)
    assert list(arrivals(each, 0, 10.0, 1)) == list(arrivals(each, 0, 10.0, 1))
    assert list(arrivals(each, 0, 10.0, 1)) != list(arrivals(each, 0, 10.0, 2))


def test_arrivals_are_poisson():
    times = [at for at, _ in arrivals(Class("normal", 100.0, 20.0), 0, 200.0, 1)]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(0.01, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.05)  # of an exponential gap, the same as its mean


def test_a_class_asks_only_in_its_windows():
    each = Class("normal", 100.0, 20.0, windows=((1.0, 2.0), (3.0, 4.0)))
    times = [at for at, _ in arrivals(each, 0, 5.0, 1)]
    assert times
    assert all(1 <= at < 2 or 3 <= at < 4 for at in times)


def test_an_answer_after_the_budget_is_no_error_but_not_in_budget():
    tally = Tally([sample(0.0), sample(0.1, latency=0.03), sample(0.2, "", "expired"), sample(0.3, "", "refused")])
    assert (tally.in_budget(), tally.missed(), tally.errors()) == (1, 3, 2)
    assert tally.figures()["classes"]["normal"]["late"] == 2


def test_switches_are_counted_within_a_class():
    mixed = [sample(0.0, caller="a"), sample(0.1, "cpu", caller="b"), sample(0.2, caller="a"), sample(0.3, caller="b")]
    assert Tally(mixed).switches() == [0.3]


def test_a_return_counts_from_the_kill_to_the_first_answer_of_a_request_sent_after_it():
    tally = Tally([sample(0.95, latency=0.2), sample(1.1, "cpu"), sample(1.4, latency=0.01), sample(1.5)])
    assert returns(tally, [1.0]) == [pytest.approx(410.0)]
    assert returns(tally, [2.0]) == [float("inf")]


def of_heat(text):
    """One answer a second: ``s`` of the accelerator, ``h`` of the CPU for heat, ``o`` for another reason."""
    kinds = {"s": ("sim", ""), "h": ("cpu", "hot"), "o": ("cpu", "slow")}
    return Tally([sample(float(at), kinds[kind][0], reason=kinds[kind][1]) for at, kind in enumerate(text)])


def test_three_answers_in_a_row_from_the_other_side_are_a_move():
    assert moves(of_heat("ssshhhhsss")) == [3.0, 7.0]
    assert moves(of_heat("sshhsshh")) == []


def test_an_answer_of_another_for_any_other_reason_than_heat_is_no_move():
    assert moves(of_heat("sssooossshohohsss")) == [9.0, 14.0]


def test_answers_from_the_other_side_are_counted_as_astray():
    assert strays(of_heat("sshsshsss")) == 2
    assert strays(of_heat("sshhhshhhsss")) == 1
    assert strays(of_heat("ssshhhsss")) == 0


def test_traffic_has_left_when_five_answers_in_a_row_come_from_elsewhere():
    few = [sample(at, "cpu") for at in range(4)]
    assert departure([*few, sample(4.0)]) is None
    assert departure([sample(-1.0), *few, sample(4.0, "cpu")]) == 0


def test_classes_are_shares_of_the_rate():
    high, low = classes_of("high:1:20,low:3:50", 80.0)
    assert (high.rate, high.budget_ms, high.priority) == (20.0, 20.0, 2)
    assert (low.rate, low.priority) == (60.0, 8)
    assert classes_of("high:5:20", None)[0].rate == 5.0


def test_a_repeated_kill_ends_with_its_stretch_and_a_stop_goes_on():
    assert [at for at, _ in Action("sim", 1.0, 2.0, end=6.0).signals(60.0)] == [1.0, 3.0, 5.0]
    assert [(at, what.name) for at, what in Action("sim", 1.0, stop=2.0).signals(60.0)] == [
        (1.0, "SIGSTOP"),
        (3.0, "SIGCONT"),
    ]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_can_be_played(path):
    scenario = scenario_of(yaml.safe_load(path.read_text()))
    names = [worker["name"] for worker in scenario.device["workers"]]
    assert yaml.safe_load(scenario.spec)["targets"] == names
    assert all(each.rate > 0 and each.budget_ms > 0 for each in scenario.classes)
    assert {action.worker for action in scenario.actions} <= set(names)


def test_a_picture_is_small_and_shows_every_request_that_missed_its_budget():
    many = [sample(at / 100, "cpu" if at % 3 else "sim") for at in range(30_000)]
    late = [sample(at, latency=0.1) for at in (10.0, 100.0)]
    picture = svg([Panel("a < b", [*many, *late], [(5.0, "kill & back")], 300.0)])
    ElementTree.fromstring(picture)
    assert len(picture) < 60_000
    assert picture.count("h0") <= 2 * MOST_DOTS + len(late)
    y = f"{Panel.y(100.0):.0f}"
    assert picture.count(f" {y}h0") == len(late)


def test_figures_replace_those_of_the_run_before():
    page = "text\n<!-- figures: kill -->\nold \\1\n<!-- end -->\nmore\n<!-- figures: hang -->\n<!-- end -->\n"
    once = figures(page, "kill", "ok     \\1")
    assert "old" not in once
    assert figures(once, "kill", "ok     \\1") == once
    assert once.endswith("more\n<!-- figures: hang -->\n<!-- end -->\n")


def test_only_verdicts_and_controls_are_figures():
    said = "title\n  normal 5\n  ok     one\n  control two\n  control: the sender\n  SHORT  three\n"
    assert verdict_lines(said) == "ok     one\ncontrol two\nSHORT  three"
