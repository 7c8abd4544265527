"""``apply --wait``: when it ends and how, and what it shows until then."""

from __future__ import annotations

import pytest

from edgeway.v1 import control_pb2 as control
from gateway.cli.get import version_row
from gateway.cli.waiting import Lines, wait

FETCHING = {"state": "fetching", "progress": control.Progress(done=12_500_000, total=50_000_000)}
READY = {"state": "ready", "percent": 10}


class Scripted:
    """A gateway whose version ``m 1`` goes through these states, one at each look; the last one stays."""

    def __init__(self, *states: dict | None) -> None:
        self.states = list(states)
        self.looks = 0

    def call(self, rpc, request):
        state = self.states[min(self.looks, len(self.states) - 1)]
        self.looks += 1
        versions = [] if state is None else [control.VersionStatus(version="1", **state)]
        deployment = control.DeploymentStatus(name="m", versions=versions)
        return control.GetDeploymentsResponse(deployments=[deployment])


def waited(*states: dict | None, may_idle: bool = False, timeout: float = 60.0) -> Scripted:
    gateway = Scripted(*states)
    wait(gateway, {("m", "1"): may_idle}, timeout)
    return gateway


@pytest.mark.parametrize(
    ("state", "may_idle"),
    [(READY, False), ({"state": "ready", "current": True}, False), ({"state": "ready"}, True)],
)
def test_it_ends_when_the_version_is_ready_and_takes_its_share(state, may_idle, capsys):
    assert waited(FETCHING, {"state": "loading"}, state, may_idle=may_idle).looks == 3
    assert capsys.readouterr().out == "m 1: ready\n"


def test_ready_is_not_enough_for_a_version_that_is_to_take_requests(capsys):
    assert waited({"state": "ready"}, READY).looks == 2
    with pytest.raises(SystemExit) as ended:
        waited({"state": "ready"}, timeout=0)
    assert ended.value.code == 1
    assert "m 1: ready, but it takes no requests yet" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["failed", "barred", "rolledBack", "unloaded"])
def test_it_fails_with_state_and_reason_when_the_version_will_not_come(state, capsys):
    with pytest.raises(SystemExit) as ended:
        waited(FETCHING, {"state": state, "reason": "for a reason"}, may_idle=True)
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith(f"edgeway: m 1: {state}: for a reason\n")


def test_it_fails_when_the_version_is_deleted_or_the_time_is_over(capsys):
    with pytest.raises(SystemExit):
        waited(FETCHING, None)
    assert "deleted while it was awaited" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        waited(FETCHING, timeout=0.2)
    assert ended.value.code == 1
    assert "not ready after 0.2 s: m 1: fetching 12.5 of 50.0 MB" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_and_a_log_gets_none(capsys, monkeypatch):
    waited(FETCHING, FETCHING, READY)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    waited(FETCHING, FETCHING, FETCHING, {"state": "loading"}, READY)
    shown = capsys.readouterr()
    assert "m 1: fetching 12.5 of 50.0 MB" in shown.err
    assert "m 1: loading" in shown.err
    assert shown.out == "m 1: ready\n"


def test_a_log_gets_a_line_every_five_seconds_at_most(capsys):
    lines, status = Lines(100.0), control.VersionStatus(version="1", **FETCHING)
    for tenth in range(121):
        lines.update({("m", "1"): status}, 100.0 + tenth / 10)
    assert capsys.readouterr().err == "m 1: fetching 12.5 of 50.0 MB\n" * 2


def test_the_progress_is_in_get_deployments():
    row = version_row(control.VersionStatus(version="1", **FETCHING))
    assert row["progress"] == {"done": 12_500_000, "total": 50_000_000}
    assert version_row(control.VersionStatus(version="1", state="fetching"))["progress"] is None
    unknown = control.VersionStatus(version="1", progress=control.Progress(done=1))
    assert version_row(unknown)["progress"] == {"done": 1, "total": None}
