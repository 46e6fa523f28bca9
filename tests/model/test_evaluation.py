"""The metrics of a CNN, on probabilities whose metrics can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fer_batch.errors import ConfigurationError
from fer_batch.model import evaluation
from fer_batch.model.evaluation import (
    choose_uncertain_below,
    compute_metrics,
    load_faces,
    load_split,
)
from fer_batch.model.fer2013 import Split
from tests.support import kaggle

HAPPY, SAD, SURPRISE, NEUTRAL = 3, 4, 5, 6


def build_row(happy: float, sad: float, surprise: float = 0.0) -> list[float]:
    return [0, 0, 0, happy, sad, surprise, 1 - happy - sad - surprise]


def build_split(labels: list[int], votes: list[list[float]] | None = None) -> Split:
    return Split(
        np.zeros((len(labels), 48, 48), np.uint8),
        np.array(labels, np.int8),
        np.arange(len(labels), dtype=np.int32),
        None if votes is None else np.array(votes, np.float32),
    )


def build_votes(happiness: int, sadness: int) -> list[float]:
    return [10 - happiness - sadness, happiness, 0, sadness, 0, 0, 0, 0, 0, 0]


METRICS = compute_metrics(
    np.array(
        [
            build_row(0.9, 0.05),  # Happy, right
            build_row(0.4, 0.3),  # Happy, right, uncertain
            build_row(0.1, 0.6),  # Happy, wrong
            build_row(0.2, 0.7),  # Sad, right
            build_row(0.6, 0.1),  # Sad, wrong
            build_row(0.1, 0.2, 0.7),  # Surprise
            build_row(0.6, 0.0),  # Neutral, called Happy
            build_row(0.2, 0.5),  # Neutral, called Sad
            build_row(0.1, 0.1),  # Neutral, uncertain
            build_row(0.3, 0.2),  # Neutral, uncertain
        ],
        np.float32,
    ),
    build_split(
        [HAPPY, HAPPY, HAPPY, SAD, SAD, SURPRISE, NEUTRAL, NEUTRAL, NEUTRAL, NEUTRAL],
        [
            build_votes(10, 0),
            build_votes(5, 0),
            build_votes(6, 0),
            build_votes(0, 6),
            build_votes(6, 4),
            *[build_votes(9, 0)] * 5,
        ],
    ),
    uncertain_below=0.5,
)


def test_happy_and_sad_are_compared_only_with_each_other() -> None:
    assert METRICS["happy_sad"] == {
        "rows": 5,
        "wrong": 2,
        # Six voters saw happiness in the misclassified Sad face; those of the Happy face agree.
        "wrong_contradicting_votes": 1,
        "accuracy": pytest.approx(3 / 5),
        "recall_happy": pytest.approx(2 / 3),
        "recall_sad": pytest.approx(1 / 2),
    }


def test_consensus_rows_have_six_votes_for_their_label() -> None:
    assert METRICS["happy_sad_consensus"] == {"rows": 3, "accuracy": pytest.approx(2 / 3)}


def test_certain_faces_reach_the_threshold() -> None:
    assert METRICS["certain"] == {
        "uncertain_below": 0.5,
        "share": pytest.approx(4 / 5),
        "accuracy": pytest.approx(2 / 4),
    }


def test_predictions_for_neutral_faces_are_counted() -> None:
    assert METRICS["neutral"] == {
        "rows": 4,
        "uncertain": pytest.approx(2 / 4),
        "called_happy": pytest.approx(1 / 4),
        "called_sad": pytest.approx(1 / 4),
    }


def test_metrics_of_seven_and_three_classes() -> None:
    # Right: both Happy ones, the Sad one, Surprise, and the two neutral faces left uncertain.
    assert METRICS["seven"]["rows"] == 10
    assert METRICS["seven"]["accuracy"] == pytest.approx(6 / 10)
    assert METRICS["seven"]["recall"]["happy"] == pytest.approx(2 / 3)
    assert METRICS["seven"]["recall"]["neutral"] == pytest.approx(2 / 4)
    assert METRICS["seven"]["recall"]["fear"] is None
    confusion = np.array(METRICS["seven"]["confusion"])
    assert confusion.sum() == 10
    assert confusion[NEUTRAL].tolist() == [0, 0, 0, 1, 1, 0, 2]
    assert METRICS["three"]["confusion"] == [[2, 1, 0], [1, 1, 0], [1, 1, 3]]
    assert METRICS["three"]["accuracy"] == pytest.approx(6 / 10)


def test_predictions_for_other_labels_are_counted() -> None:
    assert METRICS["others"]["surprise"] == {
        "rows": 1,
        "uncertain": 1,
        "called_happy": 0,
        "called_sad": 0,
    }
    assert set(METRICS["others"]) == {"angry", "disgust", "fear", "surprise"}


def test_accuracy_is_given_by_thirds_of_brightness_contrast_and_sharpness() -> None:
    rng = np.random.default_rng(1)
    dark, flat, sharp = (np.full((3, 48, 48), 100, np.uint8) for _ in range(3))
    dark[:] = 10
    flat += np.arange(48, dtype=np.uint8)  # some contrast, no edges
    sharp[:] = rng.integers(0, 256, sharp.shape)
    rows = Split(
        np.concatenate([dark, flat, sharp]),
        np.full(9, HAPPY, np.int8),
        np.arange(9, dtype=np.int32),
    )
    right = np.array([build_row(0.1, 0.6)] * 3 + [build_row(0.6, 0.1)] * 6, np.float32)
    result = compute_metrics(right, rows, 0.5)["conditions"]
    assert [third["accuracy"] for third in result["brightness"]] == [0, 1, 1]
    assert [third["rows"] for third in result["sharpness"]] == [3, 3, 3]
    assert result["sharpness"][2]["from"] > 1000
    assert result["contrast"][0]["to"] < result["contrast"][1]["from"]


def test_labeled_faces_of_another_data_set_are_loaded(tmp_path: Path) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (3, 48, 48), np.uint8)
    path = tmp_path / "faces.npz"
    np.savez(path, x=crops, y=np.array([0, 1, 0]))
    rows = load_faces(path)
    assert rows.labels.tolist() == [HAPPY, SAD, HAPPY]
    assert np.array_equal(rows.pixels, crops)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((2, 48, 48), np.uint8)},
        {"x": np.zeros((2, 48, 48), np.float32), "y": np.zeros(2)},
        {"x": np.zeros((2, 64, 64), np.uint8), "y": np.zeros(2)},
        {"x": np.zeros((0, 48, 48), np.uint8), "y": np.zeros(0)},
        {"x": np.zeros((2, 48, 48), np.uint8), "y": np.array([0, 2])},
        {"x": np.zeros((2, 48, 48), np.uint8), "y": np.zeros(3)},
        {"x": np.zeros((2, 48, 48), np.uint8), "y": np.array(["a", None], object)},
    ],
)
def test_invalid_faces_are_rejected(arrays: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "faces.npz"
    np.savez(path, **arrays)
    with pytest.raises(ConfigurationError, match=r"faces\.npz"):
        load_faces(path)


def test_an_npy_file_is_rejected(tmp_path: Path) -> None:
    np.save(tmp_path / "faces.npy", np.zeros((2, 48, 48), np.uint8))
    with pytest.raises(ConfigurationError, match="not an npz file"):
        load_faces(tmp_path / "faces.npy")


def test_a_metric_without_rows_is_none() -> None:
    result = compute_metrics(
        np.array([build_row(0.9, 0.1)], np.float32), build_split([HAPPY]), 0.99
    )
    assert result["happy_sad"]["recall_sad"] is None
    assert result["certain"]["accuracy"] is None
    assert result["happy_sad_consensus"] == {"rows": 0, "accuracy": None}
    assert result["neutral"]["uncertain"] is None
    json.dumps(result, allow_nan=False)


def test_the_threshold_is_the_smallest_with_an_accuracy_of_98_percent() -> None:
    # Half of the faces under 0.6 are wrong, all others are right.
    low = [build_row(0.55, 0.1)] * 10
    high = [build_row(0.7, 0.1)] * 490
    labels = [HAPPY, SAD] * 5 + [HAPPY] * 490
    assert choose_uncertain_below(np.array(low + high, np.float32), np.array(labels, np.int8)) == 0
    low *= 5
    labels = [HAPPY, SAD] * 25 + [HAPPY] * 490
    result = choose_uncertain_below(np.array(low + high, np.float32), np.array(labels, np.int8))
    assert result == pytest.approx(0.555)


def test_the_threshold_leaves_four_in_five_neutral_faces_uncertain() -> None:
    confident = [build_row(0.9, 0.0)] * 50
    neutral = [build_row(0.1, 0.0)] * 7 + [build_row(0.1, 0.3)] + [build_row(0.1, 0.6)] * 2
    labels = np.array([HAPPY] * 50 + [NEUTRAL] * 10, np.int8)
    result = choose_uncertain_below(np.array(confident + neutral, np.float32), labels)
    assert result == pytest.approx(0.305)


def test_the_threshold_is_at_most_095() -> None:
    wrong = np.array([build_row(0.99, 0.0)] * 10, np.float32)
    assert choose_uncertain_below(wrong, np.full(10, SAD, np.int8)) == 0.95


@settings(max_examples=30)
@given(
    weights=arrays(np.float32, (60, 7), elements=st.floats(0.015625, 1, width=32)),
    labels=arrays(np.int8, 60, elements=st.sampled_from([HAPPY, SAD, NEUTRAL])),
)
def test_the_threshold_is_the_smallest_that_meets_both_requirements(
    weights: np.ndarray, labels: np.ndarray
) -> None:
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    rows = build_split(labels.tolist())
    chosen = choose_uncertain_below(probabilities, labels)

    def meets_requirements(threshold: float) -> bool:
        metrics = compute_metrics(probabilities, rows, threshold)
        uncertain = metrics["neutral"]["uncertain"]
        accuracy = metrics["certain"]["accuracy"]
        if accuracy is None or accuracy < 0.98:
            return False
        return uncertain is None or uncertain >= 0.8

    # The calibration does not depend on the threshold, and its bootstrap is slow.
    with mock.patch.object(evaluation, "measure_calibration"):
        assert chosen == 0.95 or meets_requirements(chosen)
        smaller = (step * 0.005 for step in range(round(chosen / 0.005)))
        # Thresholds with the same certain faces have the same metrics: one of them is enough.
        larger = probabilities[:, [HAPPY, SAD]].max(axis=1)
        by_certain = {
            int((larger >= np.float32(threshold)).sum()): threshold for threshold in smaller
        }
        assert not any(map(meets_requirements, by_certain.values()))


def test_unknown_and_empty_splits_are_rejected(tmp_path: Path) -> None:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", kaggle.draw_rows(7, 0))
    with pytest.raises(ConfigurationError, match="no split 'Test'"):
        load_split(data, None, "Test")
    with pytest.raises(ConfigurationError, match="no rows of PrivateTest"):
        load_split(data, None, "PrivateTest")
