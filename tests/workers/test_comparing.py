"""Two answers are held against each other by the rule of the manifest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workers.comparing import Rule, agree, cosine, distance, excess, top1

RULES = [Rule(), Rule(rtol=0.0), Rule(top1=1.0), Rule(cosine=0.999999)]
ANY = hnp.arrays(
    st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@pytest.mark.parametrize("rule", RULES)
@given(array=ANY)
def test_an_answer_agrees_with_itself_whatever_is_in_it(rule, array):
    assert agree(rule, array, array.copy())


@given(ANY, ANY)
def test_no_pair_of_answers_raises(a, b):
    for rule in RULES:
        assert agree(rule, a, b) in (True, False)


@given(
    hnp.arrays(np.float64, 5, elements=st.floats(-100, 100)), hnp.arrays(np.float64, 5, elements=st.floats(-100, 100))
)
def test_tolerance_is_that_of_numpy(expected, found):
    inside = np.isclose(found, expected, rtol=0.1, atol=0.5)
    assert agree(Rule(rtol=0.1, atol=0.5), expected, found) == bool(inside.all())


def test_what_is_beyond_the_tolerance_is_said():
    assert excess(np.array([1.0, 10.0]), np.array([1.0, 12.5]), 0.1, 0.5) == pytest.approx(1.0)
    assert excess(np.array([1.0]), np.array([np.nan]), 9.0, 9.0) == np.inf


def test_top1_counts_rows_with_the_same_largest_value():
    a = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
    b = np.array([[0.2, 0.3], [0.1, 0.2], [0.6, 0.5], [9.0, 0.0]])
    assert top1(a, b) == 0.75
    assert agree(Rule(top1=0.75), a, b)
    assert not agree(Rule(top1=0.8), a, b)


def test_the_cosine_looks_at_the_direction_only():
    a = np.array([3.0, 4.0])
    assert cosine(a, 7 * a) == pytest.approx(1.0)
    assert cosine(a, -a) == pytest.approx(-1.0)
    assert cosine(a, np.array([np.nan, 1.0])) == -1.0


def test_without_a_rule_another_scale_sign_or_top_class_disagrees_and_rounding_does_not():
    a = np.array([0.01, 0.02, 0.96, 0.01], np.float32)
    assert agree(Rule(), a, a + np.float32(0.004))
    assert not agree(Rule(), a, 2 * a)
    assert not agree(Rule(), a, -a)
    assert not agree(Rule(), np.array([0.5, 0.499]), np.array([0.499, 0.5]))
    assert distance(np.zeros(2), np.ones(2)) == np.inf


@pytest.mark.parametrize("other", [np.array([b"a", b"c"], object), np.array([b"a"], object), np.array([1, 2])])
def test_text_and_labels_must_be_equal(other):
    assert not agree(Rule(), np.array([b"a", b"b"], object), other)
    assert not agree(Rule(), np.array([4]), np.array([5]))
