"""What a worker expects of a run, before and after it has seen some."""

from __future__ import annotations

import pytest

from workers.loaded import ANY_RUN, LoadedModel


def test_nothing_is_expected_of_a_model_that_never_ran():
    assert LoadedModel(1, None).expected(100) is None


def test_a_slower_run_is_believed_at_once_and_a_faster_one_slowly():
    model = LoadedModel(1, None)
    model.took(100, 0.010)
    model.took(100, 0.020)
    assert model.expected(100) == 0.020
    model.took(100, 0.010)
    assert 0.010 < model.expected(100) < 0.020


def test_a_size_never_seen_is_guessed_in_proportion_but_for_the_cost_of_any_run():
    model = LoadedModel(1, None)
    model.took(4, ANY_RUN / 2)
    assert model.expected(4 << 20) == ANY_RUN  # nothing of it grows with the size
    heavy = LoadedModel(2, None)
    heavy.took(1 << 20, 0.003)
    assert heavy.expected(1 << 26) == pytest.approx(0.003 * 64, rel=0.05)
    assert heavy.expected(16) == pytest.approx(0.003)
