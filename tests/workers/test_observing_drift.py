"""The drift score: near 0 for what is alike, an alarm for what is not, and an answer to whatever models give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import entropy

from workers.observing.bins import Frequent, Quantiles
from workers.observing.drift import DriftWatch, NoReference, Reference, surely
from workers.observing.features import Class, Scores, Values, form_of

SEEDS = st.integers(0, 2**32 - 1)


def scores(random, count, sharpness=4.0, classes=6):
    logits = random.normal(0, 1, (count, classes)) * sharpness
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def watched(reference, outputs, window=250, limit=0.2):
    """Of all evaluations: the scores, and whether each was an alarm."""
    watch = DriftWatch(Reference(reference, window), window, limit)
    seen = [watch.score for bins in watch.reference.sort(outputs) if watch.add(bins)]
    return [score.value for score in seen], [score.alarm for score in seen]


@pytest.mark.parametrize("window", [50, 250, 1000])
@given(SEEDS)
def test_answers_like_the_reference_have_a_score_near_zero(window, seed):
    random = np.random.default_rng(seed)
    values, alarms = watched(scores(random, 1000), scores(random, 2 * window), window)
    assert max(values) < 0.1
    assert not any(alarms)


@pytest.mark.parametrize(("window", "sharpness"), [(50, 0.2), (250, 1.0), (1000, 2.0)])
@given(SEEDS)
def test_a_model_that_has_become_unsure_is_an_alarm_in_the_first_full_window(window, sharpness, seed):
    """The smaller the window, the clearer that has to be."""
    random = np.random.default_rng(seed)
    _, alarms = watched(scores(random, 1000), scores(random, window, sharpness=sharpness), window)
    assert alarms == [True]


@given(SEEDS)
def test_classes_that_come_more_often_than_before_are_an_alarm(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, 1000)
    reference = Reference(labels[:, None], 250)
    assert isinstance(reference.form, Class)
    moved = np.where(random.random(250) < 0.8, 3, random.integers(0, 5, 250))
    assert watched(labels[:, None], moved[:, None])[1] == [True]
    assert watched(labels[:, None], random.integers(0, 5, 250)[:, None])[1] == [False]


@given(SEEDS, st.floats(-5, 5), st.floats(0.1, 10))
def test_values_that_have_moved_by_their_spread_are_an_alarm_whatever_their_unit(seed, centre, spread):
    random = np.random.default_rng(seed)
    reference = random.normal(centre, spread, (1000, 1)).astype(np.float32)
    assert watched(reference, random.normal(centre + 2 * spread, spread, (250, 1)))[1] == [True]
    assert watched(reference, random.normal(centre, spread, (250, 1)))[1] == [False]


@given(st.lists(st.integers(0, 400), min_size=2, max_size=12), st.data())
def test_the_score_is_never_above_the_index_as_scipy_computes_it(expected, data):
    found = data.draw(st.lists(st.integers(0, 400), min_size=len(expected), max_size=len(expected)))
    a, b = np.array(expected), np.array(found)
    used = a + b > 0
    value = surely(a, b, max(1, a.sum()), max(1, b.sum()))
    if used.sum() < 2:
        assert value == 0.0
    else:
        p, q = a[used] + 0.5, b[used] + 0.5
        assert 0.0 <= value <= entropy(p, q) + entropy(q, p)


def test_the_more_answers_say_so_the_less_of_a_drift_is_in_doubt():
    expected, found = np.full(10, 1000), np.array([30, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    sure = [surely(expected, found * n, 10_000, int(found.sum()) * n) for n in (1, 4, 16)]
    assert sure[0] < sure[1] < sure[2] < entropy(expected, found) + entropy(found, expected)


def test_the_window_counts_as_one_histogram_of_its_answers_would():
    random = np.random.default_rng(0)
    reference, outputs = Reference(scores(random, 500), 100), scores(random, 1000, sharpness=2.5)
    watch = DriftWatch(reference, 100, None)
    bins = reference.sort(outputs)
    for at, answer in enumerate(bins, 1):
        if watch.add(answer):
            newest = bins[at - 100 : at]
            counts = [
                np.bincount([row for one in newest for row in one[i]], minlength=feature.binning.count)
                for i, feature in enumerate(reference.features.values())
            ]
            assert watch.score == reference.score(counts, 100, None)
    assert watch.answers == 100


def test_there_is_no_score_before_the_window_is_full_and_then_ten_per_window():
    random = np.random.default_rng(0)
    watch = DriftWatch(Reference(scores(random, 500), 50), 50, 0.2)
    fresh = [at for at, bins in enumerate(watch.reference.sort(scores(random, 100)), 1) if watch.add(bins)]
    assert fresh == list(range(50, 101, 5))


def test_answers_that_are_no_numbers_are_an_alarm():
    reference = scores(np.random.default_rng(0), 500)
    assert watched(reference, np.full((250, 6), np.nan, np.float32))[1] == [True]


def test_answers_of_another_form_are_an_alarm():
    random = np.random.default_rng(0)
    assert watched(scores(random, 500), random.normal(0, 1, (250, 1)))[1] == [True]


def test_a_constant_output_that_moves_either_way_is_an_alarm():
    reference = np.full((300, 1), 7.0)
    assert [watched(reference, np.full((250, 1), moved))[1] for moved in (7.0, 6.9, 7.1)] == [[False], [True], [True]]


@pytest.mark.parametrize("kept", ["U", "S", "O"])
def test_texts_are_classes_however_the_reference_keeps_them(kept):
    random = np.random.default_rng(0)
    words = random.choice(["ball", "cup", "fork"], (300, 1))
    answers = np.array([word.encode() for word in random.choice(["ball", "cup", "fork"], 250)], object)[:, None]
    reference = np.char.encode(words).astype("O") if kept == "O" else words.astype(kept)
    assert watched(reference, answers)[1] == [False]
    answers[:200] = b"cup"
    assert watched(reference, answers)[1] == [True]


def test_too_few_samples_are_no_reference():
    with pytest.raises(NoReference, match="at least 200 samples are needed, there are 199"):
        Reference(np.zeros((199, 3)), 250)


@pytest.mark.parametrize(
    ("output", "form"),
    [
        (np.zeros((10, 3), np.float32), Scores()),
        (np.zeros((10, 1, 3), np.uint8), Scores()),
        (np.arange(10)[:, None], Class()),
        (np.array([b"a", b"b"], object), Class()),
        (np.arange(1000)[:, None], Values(several=False)),
        (np.zeros((10, 3, 480, 640), np.float16), Values(several=True)),
        (np.zeros(10), Values(several=False)),
        (np.zeros((10, 4), bool), Values(several=True)),
    ],
)
def test_scores_classes_and_values_are_told_apart(output, form):
    assert form_of(output) == form


ANYTHING = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint64, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@given(st.sampled_from(["scores", "class", "values"]), ANYTHING)
def test_no_answer_is_too_odd_to_be_counted(kind, answer):
    random = np.random.default_rng(0)
    outputs = {"scores": scores(random, 200), "class": random.integers(0, 4, (200, 1)), "values": random.random(200)}
    watch = DriftWatch(Reference(outputs[kind], 50), 50, 0.2)
    for _ in range(50):
        watch.add(watch.reference.sort(answer[None])[0])
    assert watch.score is not None
    assert np.isfinite(watch.score.value)


@given(hnp.arrays(np.float32, st.integers(1, 40)), st.integers(1, 12), hnp.arrays(np.float32, 9))
def test_every_number_has_a_bin(reference, bins, values):
    binning = Quantiles.of(reference, bins)
    assert (np.diff(binning.edges) > 0).all()
    assert {*binning.sort(values)} <= set(range(binning.count))


def test_seldom_classes_share_a_bin():
    values = np.array([1] * 50 + [2] * 45 + [3] * 3 + [4] * 2)
    binning = Frequent.of(values, 10)
    assert (binning.count, binning.sort(np.array([1, 2, 3, 4, 99])).tolist()) == (3, [0, 1, 2, 2, 2])
