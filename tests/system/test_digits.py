"""The camera's frames: digits of halves that nobody mixes, upright or turned."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[2] / "examples" / "digits" / "frames.py"


@pytest.fixture(scope="module")
def frames():
    spec = importlib.util.spec_from_file_location("frames_of_digits", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("degrees", "quarters"), [(1e-9, 0), (90, 1), (180, 2), (-90, 3)])
def test_a_digit_is_turned_counter_clockwise_about_its_middle(frames, degrees, quarters):
    digit = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    rows = frames._interpolation(176)
    turned = frames._turned(digit, 176, degrees)
    assert turned == pytest.approx(np.rot90(rows @ digit @ rows.T, quarters), abs=1e-5)


def test_frames_that_are_not_turned_are_those_of_always(frames):
    upright, turned = frames.Frames(3), frames.Frames(3)
    turned.degrees = 20.0
    (first, label), (second, same) = upright.next(), turned.next()
    assert label == same
    assert (first != second).any()
    turned.degrees = 0.0
    assert (upright.next()[0] == turned.next()[0]).all()


def test_validation_and_test_are_the_halves_of_what_training_never_saw(frames):
    digits = {split: frames.Frames(1, split)._digits for split in ("train", "held-out", "validation", "test")}
    assert {split: len(each) for split, each in digits.items()} == {
        "train": 1297,
        "held-out": 500,
        "validation": 250,
        "test": 250,
    }
    both = np.concatenate([digits["validation"], digits["test"]]).reshape(500, -1)
    assert sorted(both.tolist()) == sorted(digits["held-out"].reshape(500, -1).tolist())
