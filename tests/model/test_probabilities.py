"""From class probabilities to the shares of voters and the called class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fer_batch.model.fer2013 import HAPPY, SAD
from fer_batch.model.probabilities import (
    CALLED_CLASSES,
    VoteCalibration,
    call_classes,
    compute_vote_shares,
    estimate_probabilities,
    merge_classes,
)
from fer_batch.records import CalledClass, CallingRule
from tests.support.models import VOTE_CALIBRATION

CALIBRATION = VoteCalibration.model_validate(VOTE_CALIBRATION)
WEIGHT = st.floats(-20, 20)


def build_class_probabilities(happy: float, sad: float, neutral: float) -> np.ndarray:
    rest = (1 - happy - sad - neutral) / 4
    return np.array([[rest, rest, rest, happy, sad, rest, neutral]], np.float32)


def test_a_calibration_is_the_softmax_of_linear_scores_of_the_logarithms() -> None:
    probabilities = CALIBRATION.apply(build_class_probabilities(0.5, 0.2, 0.1))
    ratios = np.array([np.exp(0.5) * 0.5 / 0.1, np.exp(-0.5) * 0.2**2 / 0.1, 1])
    assert probabilities[0] == pytest.approx(ratios / ratios.sum(), abs=1e-6)
    assert probabilities.dtype == np.float32


def test_probabilities_of_zero_and_one_are_finite() -> None:
    probabilities = CALIBRATION.apply(np.eye(7, dtype=np.float32))
    assert np.isfinite(probabilities).all()
    assert probabilities[HAPPY, 0] > 0.99
    assert CALIBRATION.apply(np.empty((0, 7), np.float32)).shape == (0, 3)


@given(
    weights=arrays(np.float64, (2, 8), elements=WEIGHT),
    logits=arrays(np.float64, (4, 7), elements=st.floats(-40, 40)),
    happy_from=st.floats(0, 1),
    sad_from=st.floats(0, 1),
    is_calibrated=st.booleans(),
)
def test_probabilities_add_up_to_one_and_the_called_class_follows_the_rule(
    weights: np.ndarray,
    logits: np.ndarray,
    happy_from: float,
    sad_from: float,
    is_calibrated: bool,
) -> None:
    happy, sad = weights.tolist()
    calibration = VoteCalibration(weights=(happy[:7], sad[:7]), intercepts=(happy[7], sad[7]))
    class_probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = estimate_probabilities(
        class_probabilities.astype(np.float32), calibration if is_calibrated else None
    )
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max() < 1e-6
    rule = CallingRule(happy_from, sad_from)
    for called, (p_happy, p_sad, _) in zip(
        call_classes(probabilities, rule), probabilities.tolist(), strict=True
    ):
        assert CALLED_CLASSES[called] is rule.call(p_happy, p_sad)


def test_a_threshold_belongs_to_the_class_that_begins_there() -> None:
    rows = np.array([[0.5, 0.5, 0], [0.25, 0.375, 0.375], [0.25, 0.25, 0.5]], np.float32)
    called = call_classes(rows, CallingRule(0.5, 0.375))
    assert [CALLED_CLASSES[index] for index in called] == list(CalledClass)
    assert CALLED_CLASSES == ("happy", "sad", "neither")


def test_without_a_calibration_the_other_five_classes_are_neither() -> None:
    merged = merge_classes(build_class_probabilities(0.5, 0.2, 0.1))
    assert merged[0] == pytest.approx([0.5, 0.2, 0.3])
    assert (HAPPY, SAD) == (3, 4)


def test_voters_of_any_other_answer_count_as_neither() -> None:
    votes = np.zeros((3, 10), np.float32)
    votes[0, [0, 1, 3, 7, 8, 9]] = (1, 4, 2, 1, 1, 1)  # neutral, happiness, sadness, …, NF
    votes[1, 1] = 10
    assert compute_vote_shares(votes) == pytest.approx(
        np.array([[0.4, 0.2, 0.4], [1, 0, 0], [0, 0, 1]])
    )
