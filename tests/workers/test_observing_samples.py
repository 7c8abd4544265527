"""Inputs are kept up to a bound, oldest out first."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from workers.observing.drift import NoReference
from workers.observing.reference import read_reference
from workers.observing.samples import REQUEST, SampleFolder


def stored(folder):
    found = []
    for path in sorted(folder.iterdir()):
        with np.load(path) as arrays:
            found.append({name: arrays[name] for name in arrays.files})
    return found


def test_a_sample_holds_the_inputs_and_the_id_of_the_request(tmp_path):
    SampleFolder(tmp_path / "m" / "1", 10_000).keep("r1", {"x": np.arange(3), "word": np.array([b"a", b"bc"], object)})
    (sample,) = stored(tmp_path / "m" / "1")
    assert (str(sample[REQUEST]), sample["x"].tolist(), sample["word"].tolist()) == ("r1", [0, 1, 2], [b"a", b"bc"])


def test_the_oldest_goes_when_the_folder_is_full_also_after_a_restart(tmp_path):
    folder = SampleFolder(tmp_path, 20_000)
    for number in range(20):
        folder.keep("", {"x": np.full(500, number)})
    (tmp_path / "5.tmp").write_bytes(b"half")
    again = SampleFolder(tmp_path, 20_000)
    again.keep("", {"x": np.full(500, 20)})
    assert [int(sample["x"][0]) for sample in stored(tmp_path)] == [17, 18, 19, 20]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000


def test_a_sample_larger_than_the_folder_costs_nobody_its_place(tmp_path):
    folder = SampleFolder(tmp_path, 20_000)
    folder.keep("", {"x": np.zeros(10)})
    folder.keep("", {"x": np.zeros(100_000)})
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 100])
def test_a_file_that_is_no_reference_is_refused(tmp_path, content):
    path = tmp_path / "reference.npz"
    path.write_bytes(content)
    with pytest.raises(NoReference, match=r"reference\.npz is no \.npz file of numbers"):
        read_reference(path)


def test_a_reference_that_was_damaged_on_its_way_is_refused(tmp_path):
    path = tmp_path / "reference.npz"
    np.savez_compressed(path, y=np.random.default_rng(0).random((300, 10)))
    whole = path.read_bytes()
    for at in range(0, len(whole), 211):
        path.write_bytes(whole[:at] + b"\xff\x00\xff" + whole[at + 3 :])
        with contextlib.suppress(NoReference):  # some bytes matter to nobody
            read_reference(path)


def test_a_reference_with_pickled_objects_is_refused(tmp_path):
    np.savez(tmp_path / "reference.npz", y=np.array([object(), 1], object))
    with pytest.raises(NoReference, match=r"no \.npz file of numbers"):
        read_reference(tmp_path / "reference.npz")


def test_a_reference_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "reference.npz", y=np.zeros(17 * 1024 * 1024))
    with pytest.raises(NoReference, match="bytes unpacked, at most"):
        read_reference(tmp_path / "reference.npz")
