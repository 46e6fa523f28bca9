"""The calibration to the voters' shares, and the threshold of Sad against neutral."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.model.probabilities import VoteCalibration, compute_features, compute_vote_shares
from fer_batch.records import CallingRule
from fer_batch.training import vote_calibration

SADNESS = 3


def draw_class_probabilities(rows: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(7, 0.5), rows).astype(np.float32)


def draw_votes(shares: np.ndarray, seed: int = 2) -> np.ndarray:
    """Ten voters a row, who answer happiness, sadness or neutral."""
    counts = np.random.default_rng(seed).multinomial(10, shares)
    votes = np.zeros((len(shares), 10), np.float32)
    votes[:, [1, SADNESS, 0]] = counts
    return votes


def test_a_known_calibration_is_found() -> None:
    true = VoteCalibration(
        weights=((0.1, 0, 0, 1.2, 0, -0.3, -0.5), (0, 0.2, 0, 0, 1.5, 0, -0.6)),
        intercepts=(-1.0, -0.7),
    )
    class_probabilities = draw_class_probabilities(20_000)
    shares = true.apply(class_probabilities).astype(np.float64)
    votes = draw_votes(shares / shares.sum(axis=1, keepdims=True))
    fitted = vote_calibration.fit(class_probabilities, votes)
    assert np.abs(np.subtract(fitted.weights, true.weights)).max() < 0.03
    assert np.abs(np.subtract(fitted.intercepts, true.intercepts)).max() < 0.1
    assert np.abs(fitted.apply(class_probabilities) - shares).mean() < 0.005


@pytest.mark.parametrize("answers", [{1: 10}, {0: 10}, {1: 5, SADNESS: 5}, {9: 10}])
def test_unanimous_votes_give_a_finite_calibration(answers: dict[int, int]) -> None:
    class_probabilities = draw_class_probabilities(60)
    votes = np.zeros((60, 10), np.float32)
    votes[:, list(answers)] = list(answers.values())
    fitted = vote_calibration.fit(class_probabilities, votes)
    assert np.isfinite(fitted.weights).all()
    expected = compute_vote_shares(votes)
    assert np.abs(fitted.apply(class_probabilities) - expected).max() < 0.01


def test_the_fit_is_a_minimum_for_classes_that_are_separated_perfectly() -> None:
    class_probabilities = np.repeat(np.eye(7, dtype=np.float32), 30, axis=0)
    votes = np.repeat(np.eye(10, dtype=np.float32)[[4, 5, 6, 1, 3, 2, 0]] * 10, 30, axis=0)
    fitted = vote_calibration.fit(class_probabilities, votes)
    inputs = compute_features(class_probabilities)
    residuals = fitted.apply(class_probabilities) - compute_vote_shares(votes)
    gradient = residuals[:, :2].T @ inputs + vote_calibration.L2_WEIGHT * np.array(fitted.weights)
    assert np.abs(gradient).max() < 0.1  # the parameters are rounded, the features reach -13.8
    assert np.abs(residuals).max() < 0.05


def test_no_row_gives_equal_shares() -> None:
    fitted = vote_calibration.fit(np.empty((0, 7), np.float32), np.empty((0, 10), np.float32))
    assert fitted.apply(draw_class_probabilities(1))[0] == pytest.approx([1 / 3] * 3)


def build_sad_votes(rows: int, votes: int = 6) -> np.ndarray:
    table = np.zeros((rows, 10), np.float32)
    table[:, SADNESS], table[:, 0] = votes, 10 - votes
    return table


def test_two_thirds_of_the_sad_faces_are_called_sad() -> None:
    p_sad = np.array([0.45, 0.41, 0.386, 0.31, 0.2, 0.9])
    rows = np.column_stack([np.full(6, 0.1), p_sad, 0.9 - p_sad]).astype(np.float32)
    assert vote_calibration.choose_rule(rows, build_sad_votes(6)) == CallingRule(0.5, 0.38)
    rows[5] = (0.5, 0.5, 0)  # called happy, whatever its p_sad
    assert vote_calibration.choose_rule(rows, build_sad_votes(6)) == CallingRule(0.5, 0.31)


def test_faces_without_a_consensus_for_sad_do_not_count() -> None:
    rows = np.array([[0.1, 0.455, 0.445], [0.1, 0.05, 0.85]], np.float32)
    votes = np.concatenate([build_sad_votes(1), build_sad_votes(1, votes=5)])
    assert vote_calibration.choose_rule(rows, votes) == CallingRule(0.5, 0.45)


@pytest.mark.parametrize("p", [(0.4, 0.6, 0), (0.9, 0.05, 0.05)])
def test_the_threshold_is_at_most_one_half(p: tuple[float, float, float]) -> None:
    rows = np.array([p] * 3, np.float32)
    assert vote_calibration.choose_rule(rows, build_sad_votes(3)) == CallingRule(0.5, 0.5)
    assert vote_calibration.choose_rule(rows[:0], build_sad_votes(0)) == CallingRule(0.5, 0.5)


@given(st.lists(st.floats(0.03125, 1, width=32), min_size=1, max_size=30))
def test_the_threshold_is_the_largest_that_calls_enough_faces_sad(p_sad: list[float]) -> None:
    rows = np.array([(0, p, 1 - p) for p in p_sad], np.float32)
    chosen = vote_calibration.choose_rule(rows, build_sad_votes(len(p_sad))).sad_from

    def is_enough(threshold: float) -> bool:
        return 3 * sum(p >= threshold for p in p_sad) >= 2 * len(p_sad)

    assert is_enough(chosen)
    assert chosen == 0.5 or not is_enough(round(chosen + 0.01, 2))
