"""Shadow traffic and feedback, with real processes from the request to the figure."""

from __future__ import annotations

import csv
import itertools
import json
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Gateway, manifest, model_of, poisonable, scaled, slow_for, value, wait_for
from edgeway.client import AsyncLabels, Client, InferenceError, Labels, NotFound
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

pytestmark = pytest.mark.system

SHADOW = "traffic: {percent: 0, shadow: true}"


def doubled_size():
    """y = 2 |x|: agrees with ``scaled(2.0)`` where x is not negative."""
    weight = numpy_helper.from_array(np.float32(2.0), "factor")
    nodes = [helper.make_node("Abs", ["x"], ["size"]), helper.make_node("Mul", ["size", "factor"], ["y"])]
    return model_of(nodes, [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["n"])], [weight])


def deploy(gateway: Gateway, folder: Path, version: str, model, more: str = "", targets: str = "[cpu]") -> None:
    spec = f"targets: {targets}\n{more}"
    path = manifest(folder, "m", version, model.SerializeToString(), spec)
    gateway.deploy(path)


def status(gateway: Gateway, version: str):
    answer = Control(gateway.control).call("GetDeployments", control.GetRequest(name="m"))
    return next(each for each in answer.deployments[0].versions if each.version == version)


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    text = urllib.request.urlopen(f"http://{gateway.ready['metrics']}/metrics").read().decode()
    for line in text.splitlines():
        if line.startswith(name) and all(f'{key}="{each}"' in line for key, each in labels.items()):
            return float(line.rpartition(" ")[2])
    return 0.0


def copies(gateway: Gateway, became: str, version: str = "2") -> float:
    return metric(gateway, "edgeway_mirror_requests_total", became=became, version=version)


def test_the_agreement_of_a_shadow_is_the_share_of_requests_that_it_answers_alike(folder, gateway_in):
    gateway = gateway_in(None, "--metrics", "127.0.0.1:0")
    deploy(gateway, folder, "1", scaled(2.0))
    deploy(gateway, folder, "2", doubled_size(), SHADOW)
    with Client(gateway.unix) as client:

        def ask(x: float, **more) -> None:
            assert client.infer("m", {"x": np.array([x], np.float32)}, **more)["y"].tolist() == [2 * x]

        def copied(x: float) -> bool:
            """Whether the shadow got a copy; while it comes up, it gets none."""
            before = copies(gateway, "compared")
            asked[0] += 1
            ask(x)
            wait_for(lambda: copies(gateway, "compared") + copies(gateway, "skipped") == asked[0], 5, "its end")
            return copies(gateway, "compared") > before

        asked, expected = [0], []
        for number in range(16):
            x = -1.0 if number % 4 == 3 else 1.0
            wait_for(lambda x=x: copied(x), 10, "a copy")
            expected.append(x > 0)
        ask(-7.0, version="1")  # pinned: not copied
        assert copies(gateway, "compared") + copies(gateway, "skipped") == asked[0]
        wait_for(lambda: status(gateway, "2").agreement_detail.total == len(expected), 5, "the comparison")
    seen = status(gateway, "2")
    assert seen.shadow
    assert (seen.agreement_detail.right, seen.agreement_detail.total) == (sum(expected), len(expected))
    assert seen.agreement == pytest.approx(sum(expected) / len(expected))
    assert seen.agreement_detail.low < seen.agreement < seen.agreement_detail.high
    assert (seen.requests, seen.errors, seen.latency.count) == (0, 0, 0)
    assert not status(gateway, "1").HasField("agreement")
    shown = {row["version"]: row for row in gateway.get("deployments", "m")[0]["versions"]}
    assert shown["2"]["agreementCount"] == len(expected)
    assert shown["1"]["agreement"] is None
    assert metric(gateway, "edgeway_model_agreement", version="2") == pytest.approx(seen.agreement)


@pytest.mark.parametrize("bad", ["raising", "crashing", "hanging"])
def test_a_bad_shadow_never_fails_or_delays_an_answer(folder, gateway_in, bad):
    options = {"serviceMs": 2, "faults": [{"afterRuns": 6, "hang": True}]}
    chip = {"name": "sim", "backend": "simulated", "hangSeconds": 0.5, "options": options}
    config = {"workers": [{"name": "cpu", "backend": "cpu", "instances": 1}, *([chip] if bad == "hanging" else [])]}
    gateway = gateway_in(config, "--metrics", "127.0.0.1:0")
    model = {"raising": picky(), "crashing": poisonable(), "hanging": scaled(2.0)}[bad]
    dtype = np.int32 if bad == "crashing" else np.float32
    deploy(gateway, folder, "1", harmless() if bad == "crashing" else scaled(2.0))
    with Client(gateway.unix) as client:

        def times(count: int) -> np.ndarray:
            took = []
            for number in range(count):
                began = time.perf_counter()
                client.infer("m", {"x": np.array([-1 if number % 2 else 1], dtype)}, budget_ms=1000)
                took.append(time.perf_counter() - began)
                time.sleep(max(0.0, 0.005 - took[-1]))  # 200 a second
            return np.array(took)

        times(20)
        without = np.percentile(times(100), 90)
        deploy(gateway, folder, "2", model, SHADOW, "[sim]" if bad == "hanging" else "[cpu]")
        wait_for(lambda: times(10).size and copies(gateway, "failed") > 0, 15, "the first copy")
        beside = np.percentile(times(100), 90)
    assert beside < 3 * without + 0.005
    real, shadow = status(gateway, "1"), status(gateway, "2")
    assert (real.errors, shadow.requests, shadow.errors) == (0, 0, 0)
    events = gateway.get("events")
    assert {event["worker"] for event in events if event["kind"] == "worker-died"} <= {"shadow", "sim"}
    assert any(event["kind"] == "shadow-paused" for event in events) == (bad in ("crashing", "hanging"))
    assert shadow.agreement < 1.0


@pytest.mark.parametrize("rule", ["minAgreement", "minAccuracy"])
def test_a_canary_with_wrong_outputs_is_left_by_its_copies_or_by_late_labels(folder, gateway_in, rule):
    gateway = gateway_in()
    deploy(gateway, folder, "1", scaled(2.0))
    deploy(
        gateway, folder, "2", scaled(-2.0), f"traffic: {{percent: 50}}\nrollback: {{{rule}: 0.9, previousVersion: '1'}}"
    )
    with Client(gateway.unix) as client, Labels(gateway.control) as labels:
        numbers = itertools.count()

        def left() -> bool:
            for index in classes()[:10]:
                answer = client.infer("m", {"x": scores(index)}, request_id=(request := f"r{next(numbers)}"))
                if rule == "minAccuracy":
                    assert labels.send("m", request, str(index)).right == (answer.version == "1")
            return status(gateway, "2").state == "rolledBack"

        wait_for(left, 20, "the roll-back")
    told = [event["message"] for event in gateway.get("events", "m") if rule in event["message"]]
    assert told, gateway.get("events", "m")
    assert (status(gateway, "1").errors, status(gateway, "2").errors) == (0, 0)
    assert status(gateway, "1").percent == 100


def harmless():
    """y = x on INT32 of any size."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return model_of(nodes, [value("x", TensorProto.INT32, ["n"])], [value("y", TensorProto.INT32, ["n"])])


def picky():
    """Takes what ``scaled`` does, and fails on each run: a reshape that can't be."""
    shape = numpy_helper.from_array(np.array([7, 3], np.int64), "shape")
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["odd"]),
        helper.make_node("Flatten", ["odd"], ["flat"]),
        helper.make_node("Squeeze", ["flat"], ["y"]),
    ]
    return model_of(nodes, [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, None)], [shape])


def classes() -> list[int]:
    return [int(index) for index in np.random.default_rng(7).integers(0, 10, 60)]


def scores(index: int) -> np.ndarray:
    row = np.zeros(10, np.float32)
    row[index] = 1.0
    return row


async def test_labels_that_come_later_give_exactly_the_offline_accuracy(folder, gateway_in):
    gateway = gateway_in()
    deploy(gateway, folder, "1", scaled(2.0), "samples: {every: 10, maxMB: 1}")
    truth = np.random.default_rng(8).integers(0, 10, 60)
    with Client(gateway.unix) as client:
        for number, index in enumerate(classes()):
            client.infer("m", {"x": scores(index)}, request_id=f"r{number}")
    wait_for(lambda: len(list((folder / "state" / "samples" / "m" / "1").glob("*.npz"))) == 6, 5, "the samples")
    with Labels(gateway.control) as labels:
        told = [labels.send("m", f"r{number}", str(truth[number])) for number in range(20)]
        with pytest.raises(NotFound, match="remembered"):
            labels.send("m", "never", "1")
        with pytest.raises(NotFound, match="no deployment"):
            labels.send("nothing", "r1", "1")
    assert [each.predicted for each in told] == [str(index) for index in classes()[:20]]
    async with AsyncLabels(gateway.control) as labels:
        verdict = await labels.send("m", "r20", str(truth[20]))
    assert verdict.right == (classes()[20] == truth[20])

    one = gateway.run("feedback", "m", "--request-id", "r21", "--label", str(truth[21]))
    assert one.returncode == 0, one.stderr
    assert one.stdout.startswith(f"m 1 answered {classes()[21]}: ")
    with (folder / "labels.csv").open("w") as file:
        csv.writer(file).writerows([("id", "label"), *((f"r{n}", truth[n]) for n in range(22, 60)), ("lost", 3)])
    many = gateway.run("feedback", "m", "--file", str(folder / "labels.csv"), "-o", "json")
    right = sum(classes()[n] == truth[n] for n in range(22, 60))
    assert many.returncode == 1
    told_of = json.loads(many.stdout)
    assert (told_of["labels"], told_of["right"], told_of["wrong"]) == (39, right, 38 - right)
    assert [each["requestId"] for each in told_of["refused"]] == ["lost"]

    offline = sum(predicted == real for predicted, real in zip(classes(), truth, strict=True))
    wait_for(lambda: status(gateway, "1").accuracy_detail.total == 60, 5, "the last label's figure")
    assert status(gateway, "1").accuracy_detail.right == offline
    shown = gateway.get("deployments", "m")[0]["versions"][0]
    assert shown["accuracy"] == pytest.approx(offline / 60)
    assert shown["accuracyLow"] < offline / 60 < shown["accuracyHigh"]


def test_feedback_for_outputs_that_mean_no_label_is_refused_with_the_reason(folder, gateway_in):
    gateway = gateway_in()
    deploy(gateway, folder, "1", slow_for(0.001))  # y: FP32 [1]
    with Client(gateway.unix) as client, Labels(gateway.control) as labels:
        client.infer("m", {"x": np.ones(1, np.float32)}, request_id="a")
        with pytest.raises(InferenceError, match="row of scores") as caught:
            labels.send("m", "a", "1")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    done = gateway.run("feedback", "m", "--request-id", "a")
    assert done.returncode == 2
    assert "--label" in done.stderr


def test_outputs_that_are_no_longer_those_of_the_reference_have_a_drift(folder, gateway_in):
    gateway = gateway_in(None, "--metrics", "127.0.0.1:0")
    chance = np.random.default_rng(3)
    usual = chance.normal(0.0, 1.0, (400, 10)).astype(np.float32)
    np.savez(folder / "reference.npz", y=2 * usual)
    deploy(gateway, folder, "1", scaled(2.0), "drift: {reference: 'file:reference.npz', output: y, window: 100}")
    with Client(gateway.unix) as client:

        def drifts(inputs: np.ndarray) -> float:
            for row in inputs:
                client.infer("m", {"x": row})
            seen = status(gateway, "1")
            return seen.drift if seen.HasField("drift") else -1.0

        wait_for(lambda: "needs 100 answers" in status(gateway, "1").drift_detail, 10, "what the observer lacks")
        score = wait_for(lambda: max(0.0, drifts(usual[chance.integers(0, 400, 20)]) + 0.001), 20, "a score")
        assert score < 0.2
        wait_for(lambda: drifts(usual[chance.integers(0, 400, 20)] * np.float32(0.2)) > 0.3, 20, "the drift")
    shown = gateway.get("deployments", "m")[0]["versions"][0]
    assert shown["drift"] > 0.3
    assert shown["driftDetail"]
    assert metric(gateway, "edgeway_model_drift", version="1") > 0.3
