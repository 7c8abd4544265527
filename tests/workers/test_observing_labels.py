"""Labels find the answers of their requests, hours later and after a death of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.observing.labels import Labels, predicted


@pytest.fixture
def labels(tmp_path):
    labels = Labels(tmp_path / "observer" / "labels.sqlite", kept=1500)
    yield labels
    labels.close()


def test_a_label_is_held_against_what_the_version_had_predicted(labels):
    labels.answered("digits", "1", "a", "7")
    assert labels.label("digits", "a", "7") == ("1", "7", True)
    assert labels.label("digits", "b", "7") is None
    assert labels.label("other", "a", "7") is None
    assert labels.accuracy("digits", "1", 10) == (1, 1)


def test_a_second_label_replaces_the_first(labels):
    labels.answered("m", "1", "a", "7")
    labels.label("m", "a", "7")
    assert labels.label("m", "a", " 8 ").right is False
    assert labels.accuracy("m", "1", 10) == (0, 1)


def test_the_newest_answer_with_an_id_counts(labels):
    labels.answered("m", "1", "a", "7")
    labels.answered("m", "2", "a", "8")
    assert labels.label("m", "a", "8") == ("2", "8", True)
    assert labels.accuracy("m", "1", 10) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=60), st.integers(1, 30))
def test_accuracy_is_that_of_the_newest_labels(sent, window):
    database = Labels(None)
    for request in range(21):
        database.answered("m", "1", str(request), str(request % 3))
    known = {}
    for request, label in sent:
        database.label("m", str(request), str(label))
        known.pop(request, None)  # a replaced label is a new one
        known[request] = label == request % 3
    newest = list(known.values())[-window:]
    assert database.accuracy("m", "1", window) == (sum(newest), len(newest))


def test_no_more_answers_are_remembered_than_the_bound_and_a_part(labels):
    for number in range(5000):
        labels.answered("m", "1", str(number), "7")
    labels.answered("other", "1", "a", "7")
    assert labels.label("m", "4999", "7") is not None
    assert labels.label("m", "2500", "7") is None
    assert labels.label("other", "a", "7") is not None


def test_a_version_that_was_deleted_is_forgotten(labels):
    labels.answered("m", "1", "a", "7")
    labels.label("m", "a", "7")
    labels.forget("m", "1")
    assert labels.label("m", "a", "7") is None
    assert labels.accuracy("m", "1", 10) == (0, 0)


def test_a_killed_process_loses_nothing_that_was_committed(tmp_path):
    path = tmp_path / "labels.sqlite"
    code = f"""
import os, signal
from pathlib import Path
from workers.observing.labels import Labels
labels = Labels(Path({str(path)!r}))
labels.answered("m", "1", "a", "7")
labels.label("m", "a", "7")
labels.answered("m", "1", "b", "7")
labels.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == -signal.SIGKILL
    again = Labels(path)
    assert again.accuracy("m", "1", 10) == (1, 1)
    assert again.label("m", "b", "8") == ("1", "7", False)
    again.close()


def test_a_damaged_database_is_put_aside(tmp_path):
    path = tmp_path / "labels.sqlite"
    path.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    labels = Labels(path)
    labels.answered("m", "1", "a", "7")
    labels.close()
    assert path.with_name("labels.sqlite.damaged").exists()


@pytest.mark.parametrize(
    ("output", "label"),
    [
        (np.array([0.1, 0.7, 0.2]), "1"),
        (np.array([[[1, 2, 3, 0]]], np.uint8), "2"),
        (np.array([[41]], np.int64), "41"),
        (np.array(True), "1"),
        (np.array([b"cat"], object), "cat"),
        (np.array([0.7]), None),
        (np.zeros((2, 3)), None),
        (np.array([b"cat", b"dog"], object), None),
        (np.array([b"x" * 1000], object), None),
        (np.zeros((0, 3)), None),
    ],
)
def test_the_predicted_label_is_the_top_class_or_the_one_element(output, label):
    assert predicted(output) == label
