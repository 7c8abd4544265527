"""Shares and their intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from gateway.observation.figures import Accuracy, Agreement, interval


@given(st.integers(0, 5000), st.data())
def test_the_interval_is_that_of_wilson_as_scipy_computes_it(total, data):
    right = data.draw(st.integers(0, total))
    low, high = interval(right, total)
    if total:
        reference = binomtest(right, total).proportion_ci(0.95, "wilson")
        assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    else:
        assert (low, high) == (0.0, 1.0)


def test_nothing_seen_speaks_against_nobody():
    assert Agreement(0, 0).rate == Accuracy(0, 0).rate == 1.0
    assert Agreement(3, 4).rate == Accuracy(3, 4).rate == 0.75
