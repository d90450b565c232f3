"""Accuracy measures against scikit-learn and double loops."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from simulator.measures import quality


def test_log_loss_against_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=2000) * 4, (draw.random(2000) < 0.3).astype(np.float32)
    loss = quality.log_loss(logits, labels)
    assert loss.mean() == pytest.approx(sklearn_log_loss(labels, expit(logits)), rel=1e-12)


def test_log_loss_of_extreme_logits_and_soft_labels() -> None:
    loss = quality.log_loss(np.array([1e4, 1e4, -1e4, 50.0, 0.3]), np.array([1.0, 0.0, 1.0, 1.0, 0.25]))
    soft = -0.25 * math.log(expit(0.3)) - 0.75 * math.log(1 - expit(0.3))
    np.testing.assert_allclose(loss, [0, 1e4, 1e4, math.exp(-50), soft], rtol=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_against_scikit_learn(examples: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([float(s) for s, _ in examples]), np.array([float(y) for _, y in examples])
    if labels.min() == labels.max():
        assert math.isnan(quality.auc(scores, labels))
    else:
        assert quality.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_calibration_by_hand() -> None:
    """Two groups of equal predictions, 0.2 (clicked 1 in 4) and 0.8 (clicked 3 in 4), in any order of the examples."""
    logits = np.log([0.25] * 4 + [4.0] * 4)
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0], np.float32)
    for shuffle in ([0, 1, 2, 3, 4, 5, 6, 7], [7, 0, 5, 2, 3, 4, 1, 6]):
        assert quality.calibration(logits[shuffle], labels[shuffle]) == pytest.approx(1.0)


def test_calibration_of_a_calibrated_and_a_shifted_model() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=100_000) - 1
    labels = (draw.random(100_000) < expit(logits)).astype(np.float32)
    right, shifted = quality.calibration(logits, labels), quality.calibration(logits + 1, labels)
    assert right == pytest.approx(1, abs=0.02) and shifted > 1.4
    assert math.isnan(quality.calibration(logits, np.zeros(len(logits))))


def slow_ranking_loss(scores: np.ndarray, relevance: np.ndarray) -> float:
    total = mass = 0.0
    for i, j in permutations(range(len(scores)), 2):
        weight = float(relevance[i]) * (1 - float(relevance[j]))
        total += weight * float(np.logaddexp(0, -(float(scores[i]) - float(scores[j]))))
        mass += weight
    return total / mass if mass > 0 else float("nan")


@pytest.mark.parametrize("truth", ["labels", "probabilities"])
def test_ranking_loss_against_loops(truth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(7, 9)) * 3
    relevance = draw.random((7, 9)) if truth == "probabilities" else (draw.random((7, 9)) < 0.3).astype(np.float64)
    relevance[2], relevance[4] = 0, 1  # no positive; no negative
    expected = [slow_ranking_loss(s, r) for s, r in zip(scores, relevance, strict=True)]
    assert math.isnan(expected[2]) and math.isnan(expected[4])
    np.testing.assert_allclose(quality.ranking_loss(scores, relevance), expected, rtol=1e-5)
    monkeypatch.setattr(quality, "CHUNK_PAIRS", 40)  # many chunks
    np.testing.assert_allclose(quality.ranking_loss(scores, relevance), expected, rtol=1e-5)


def test_ranking_loss_of_extreme_scores_and_a_shift() -> None:
    right, relevance = np.array([[5000.0, -5000.0]]), np.array([[1.0, 0.0]])
    assert quality.ranking_loss(right, relevance)[0] == 0
    assert quality.ranking_loss(-right, relevance)[0] == 10_000
    assert quality.ranking_loss(np.array([[3.0, 3.0]]), relevance)[0] == pytest.approx(math.log(2))


@given(st.integers(1, 4), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_regret_against_every_slate(k: int, bias: float, seed: int) -> None:
    """The best of all slates has regret 0; any other loses what its expected clicks fall short of it."""
    draw = np.random.default_rng(seed)
    relevance = draw.random(5)
    slates = np.array(list(permutations(range(5), k)))
    clicks = np.array([sum(relevance[i] * (p + 1) ** -bias for p, i in enumerate(slate)) for slate in slates])
    got = quality.regret(relevance[slates], np.broadcast_to(relevance, (len(slates), 5)), bias)
    np.testing.assert_allclose(got, 1 - clicks / clicks.max(), atol=1e-12)
    assert (got >= 0).all() and (got <= 1).all() and got.min() == pytest.approx(0, abs=1e-12)


def test_regret_where_nothing_is_relevant() -> None:
    assert quality.regret(np.zeros((1, 2)), np.zeros((1, 5)), 0.5)[0] == 0
    assert quality.regret(np.zeros((1, 2)), np.array([[0, 0, 0, 0, 1.0]]), 0.5)[0] == 1
