"""What the benchmarks make of their readings: figures, verdicts, and the comparison with what was saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench import bare, measure, probes, saved, tail
from benchmarks.bench.alternate import TURNS, Party, alternate
from benchmarks.bench.cases import FRAME, SMALL
from benchmarks.bench.effort import SHORT
from benchmarks.bench.figures import Figure, Reading
from benchmarks.bench.rows import BY_NAME, ROWS, chosen
from edgeway.v1 import open_inference_pb2 as oip

AT_MOST, AT_LEAST = BY_NAME["small-p50"], BY_NAME["small-rate"]


def figure(*values: float, row=AT_MOST) -> Figure:
    return Figure(row, tuple(Reading(value) for value in values))


def test_a_figure_is_the_median_of_its_rounds_and_one_disturbed_round_changes_neither_it_nor_its_noise():
    found = figure(1.0, 1.4, 1.1, 1.2, 9.0)
    assert (found.value, found.low, found.high) == (1.2, 1.0, 9.0)
    assert found.noise == pytest.approx(2.3 * 0.3)


def test_quiet_rounds_still_leave_a_twentieth_of_a_ratio_as_noise():
    assert figure(2.0, 2.0, 2.0).noise == pytest.approx(0.1)


def test_a_count_has_the_noise_of_its_row():
    row = BY_NAME["faults-frame"]
    assert figure(0.2, 0.2, row=row).noise == row.grain


def test_a_row_is_short_on_the_wrong_side_of_its_bound():
    assert [figure(value).state for value in (AT_MOST.bound, AT_MOST.bound + 0.01)] == ["ok", "SHORT"]
    assert [figure(value, row=AT_LEAST).state for value in (AT_LEAST.bound, AT_LEAST.bound - 0.01)] == ["ok", "SHORT"]


def test_the_tail_is_judged_against_that_of_direct():
    assert tail.ratio(tail.spread([1.0] * 98 + [3.0] * 2), tail.spread([2.0] * 98 + [3.0] * 2)) == pytest.approx(2.0)


def test_a_row_that_could_not_be_measured_says_why():
    found = Figure(AT_MOST, (), "not offered: whatever")
    assert found.state == "absent"
    assert "not offered: whatever" in found.line()
    assert found.plain()["missing"] == "not offered: whatever"


@pytest.mark.parametrize(
    ("then", "now", "row", "worse"),
    [
        ((1.2, 1.3, 1.25), 1.36, AT_MOST, False),
        ((1.2, 1.3, 1.25), 1.37, AT_MOST, True),
        ((1.2, 1.3, 1.25), 0.50, AT_MOST, False),
        ((0.7, 0.7, 0.7), 0.67, AT_LEAST, False),
        ((0.7, 0.7, 0.7), 0.65, AT_LEAST, True),
        ((0.7, 0.7, 0.7), 0.90, AT_LEAST, False),
    ],
)
def test_a_row_is_worse_when_it_has_moved_by_more_than_its_noise(tmp_path, then, now, row, worse):
    path = tmp_path / "ratios.json"
    saved.write(path, [figure(*then, row=row)])
    assert saved.compare([figure(now, row=row)], saved.read(path)) == worse


def test_a_row_that_can_no_longer_be_measured_is_worse(tmp_path):
    path = tmp_path / "ratios.json"
    saved.write(path, [figure(1.0), Figure(AT_LEAST, (), "not offered")])
    assert list(saved.read(path).rows) == [AT_MOST.name]
    assert saved.compare([Figure(AT_MOST, (), "gone")], saved.read(path)) == 1


def test_a_noisy_run_is_not_taken_for_a_slow_gateway(tmp_path):
    path = tmp_path / "ratios.json"
    saved.write(path, [figure(1.0, 1.0, 1.0)])
    assert saved.compare([figure(1.3, 1.3, 1.3)], saved.read(path)) == 1
    assert saved.compare([figure(1.1, 1.3, 1.5)], saved.read(path)) == 0


def test_figures_of_another_machine_are_compared_with_a_word_of_warning(tmp_path, capsys):
    path = tmp_path / "ratios.json"
    saved.write(path, [figure(1.0)])
    saved.compare([figure(1.0)], saved.read(path))
    assert "note" not in capsys.readouterr().out
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "machine": {**content["machine"], "cpus": "1000"}}))
    saved.compare([figure(1.0)], saved.read(path))
    assert "cpus was 1000" in capsys.readouterr().out


def test_a_probe_that_fails_costs_its_own_rows_only(monkeypatch):
    def fails(*_: object):
        raise RuntimeError("no server")

    good = measure.Probe((AT_LEAST.name,), lambda *_: {AT_LEAST.name: Reading(0.7)})
    monkeypatch.setattr(measure, "PROBES", (measure.Probe((AT_MOST.name,), fails), good))
    bad, fine = measure.measure([AT_MOST, AT_LEAST], replace(SHORT, rounds=3))
    assert (bad.state, bad.missing) == ("FAILED", "failed: RuntimeError: no server")
    assert (fine.state, len(fine.readings)) == ("ok", 3)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "ratios.json"
    path.write_text(json.dumps({"machine": {}, "rows": {"small-p50": {"value": 1}}}))
    with pytest.raises(ValueError, match="expected a machine, and rows"):
        saved.read(path)


def test_rows_are_chosen_by_name_or_by_group():
    assert [row.name for row in chosen(["faults", "large"])] == ["large", "faults-frame", "faults-large"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(ValueError, match="got 'fast'"):
        chosen(["fast"])


def test_the_documentation_knows_every_row_and_its_limits():
    table = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text().splitlines()
    for row in ROWS:
        line = next(line for line in table if line.startswith("|") and f"`{row.name}`" in line)
        if row.bound is None:
            assert "not judged" in line, line
            continue
        assert f"{row.aim:g}" in line, line
        assert f"{row.bound:g}" in line, line


def test_every_row_has_one_probe():
    assert sorted(name for probe in probes.PROBES for name in probe.rows) == sorted(BY_NAME)


def test_parties_take_turns_and_every_call_that_counts_is_noted():
    order: list[str] = []
    parties = [Party(name, lambda name=name: order.append(name)) for name in ("a", "b")]
    spent = alternate(parties, 5 * TURNS, 0)
    assert [len(each.seconds) for each in spent.values()] == [5 * TURNS] * 2
    assert "".join(order) == ("a" * 6 + "b" * 6) * TURNS
    order.clear()
    alternate(parties, 5 * TURNS, 1)
    assert order[0] == "b"


def test_the_direct_server_reads_what_a_stock_message_says():
    header, raw = bare.split(FRAME.message())
    form = bare.form_of(header)
    assert (form.model, form.shape, form.region) == (FRAME.name, FRAME.shape, "")
    assert bytes(raw) == FRAME.array().tobytes()
    header, raw = bare.split(FRAME.region_message("camera"))
    assert bare.form_of(header) == replace(form, region="camera", nbytes=FRAME.nbytes)
    assert raw.nbytes == 0


async def test_the_direct_server_answers_what_protobuf_reads(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(SMALL.make())
    answer = await bare.Direct({SMALL.name: str(path)}).infer(SMALL.message(), None)
    response = oip.ModelInferResponse.FromString(answer)
    assert (response.model_name, list(response.outputs[0].shape)) == (SMALL.name, list(SMALL.shape))
    assert np.array_equal(np.frombuffer(response.raw_output_contents[0], np.float32), SMALL.array())
