"""Environments of other runtimes: made once, and what can't be had says why."""

import sys
from pathlib import Path

import pytest

from benchmarks import runtimes


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def recorded(monkeypatch):
    """Commands, which are not run; the environment's folder appears as ``venv`` would make it."""
    commands = []

    def run(*command):
        commands.append(command)
        if "venv" in command:
            Path(command[-1], "bin").mkdir(parents=True)

    monkeypatch.setattr(runtimes, "_run", run)
    return commands


def test_an_environment_that_is_there_is_not_made_again(elsewhere, recorded):
    assert runtimes.ready("litert")
    made = len(recorded)
    assert not runtimes.ready("litert")
    assert len(recorded) == made
    assert runtimes.interpreter("litert") == elsewhere / "litert" / "bin" / "python"


def test_other_bounds_make_it_anew(elsewhere, recorded, monkeypatch):
    assert runtimes.ready("litert")
    monkeypatch.setitem(runtimes.RUNTIMES, "litert", runtimes.Runtime(("ai-edge-litert>=9",), "pass"))
    assert runtimes.ready("litert")


def test_what_cannot_be_installed_says_why_and_goes_on_saying_it(elsewhere, monkeypatch):
    monkeypatch.setitem(runtimes.RUNTIMES, "litert", runtimes.Runtime((), "raise SystemExit('Error: no such chip')"))
    monkeypatch.setattr(runtimes, "PIP", ("-c", "pass"))
    run = runtimes._run  # pip itself is not needed here, and takes 4 s to unpack
    monkeypatch.setattr(runtimes, "_run", lambda *command: run(*command, *["--without-pip"] * ("venv" in command)))
    with pytest.raises(runtimes.Missing, match="no such chip"):
        runtimes.ready("litert")
    with pytest.raises(runtimes.Missing, match="no such chip"):
        runtimes.interpreter("litert")
    assert not (elsewhere / "litert").exists()


def test_one_that_nobody_made_is_missing_with_the_command_that_makes_it(elsewhere):
    with pytest.raises(runtimes.Missing, match="make runtimes RUNTIMES=qnn"):
        runtimes.interpreter("qnn")


def test_a_python_that_is_not_here_is_named():
    with pytest.raises(runtimes.Missing, match=r"no Python 3\.1 "):
        runtimes._base("3.1")
    assert runtimes._base("") == Path(sys.executable).resolve()


def test_only_one_that_was_asked_for_by_name_is_a_failure(elsewhere, monkeypatch, capsys):
    monkeypatch.setattr(runtimes, "_made", lambda name, *_: (_ for _ in ()).throw(runtimes.Missing("no wheel")))
    assert runtimes.main([]) == 0
    assert runtimes.main(["qnn"]) == 1
    assert runtimes.main(["abacus"]) == 2
    assert capsys.readouterr().out.count("no wheel") == len(runtimes.RUNTIMES) + 1
