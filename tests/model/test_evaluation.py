"""The metrics of a CNN, on probabilities whose metrics can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.model.classifier import load_artifact
from fer_batch.model.evaluation import compute_metrics, evaluate, load_faces, load_split
from fer_batch.model.fer2013 import Split
from fer_batch.model.probabilities import VoteCalibration
from fer_batch.records import CallingRule
from tests.support import kaggle
from tests.support.models import VOTE_CALIBRATION, write_tiny_cnn

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
            build_row(0.4, 0.3),  # Happy, right, called neither
            build_row(0.1, 0.6),  # Happy, wrong
            build_row(0.2, 0.7),  # Sad, right
            build_row(0.6, 0.1),  # Sad, wrong
            build_row(0.1, 0.2, 0.7),  # Surprise
            build_row(0.6, 0.0),  # Neutral, called Happy
            build_row(0.2, 0.5),  # Neutral, called Sad
            build_row(0.1, 0.1),  # Neutral, called neither
            build_row(0.3, 0.2),  # Neutral, called neither
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
    rule=CallingRule(happy_from=0.5, sad_from=0.45),
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


def test_called_classes_of_consensus_rows_are_counted() -> None:
    # Six voters saw happiness in the misclassified Sad face, nine in each of the last five.
    assert METRICS["votes"] == {
        "rows": 9,
        "accuracy": pytest.approx(4 / 9),
        "neutral_called_sad": None,
        "sad_called_sad": 1,
        "happy_called_happy": pytest.approx(3 / 8),
        "confusion": [[3, 2, 3], [0, 1, 0], [0, 0, 0]],
    }


def test_neutral_and_tied_votes_are_neither() -> None:
    neutral, tied, unknown = build_votes(1, 2), build_votes(5, 0), [0.0] * 8 + [9.0, 1.0]
    votes = compute_metrics(
        np.array([build_row(0.1, 0.6)] * 2 + [build_row(0.9, 0)] * 2, np.float32),
        build_split([SAD, NEUTRAL, HAPPY, HAPPY], [neutral, tied, neutral, unknown]),
    )["votes"]
    # Five votes for one column are no consensus.
    assert (votes["rows"], votes["neutral_called_sad"]) == (3, 0.5)
    assert votes["confusion"] == [[0, 0, 0], [0, 0, 0], [2, 1, 0]]


def test_probabilities_are_compared_with_the_shares_of_voters() -> None:
    rows = np.array([build_row(0.7, 0.1), build_row(0.1, 0.5)], np.float32)
    split = build_split([HAPPY, SAD], [build_votes(8, 1), build_votes(0, 4)])
    assert compute_metrics(rows, split)["probabilities"] == pytest.approx(
        # Each row is a bin.
        {"ece_happy": 0.1, "ece_sad": 0.05, "ece_neither": 0.15}
    )


def test_a_calibration_changes_only_the_metrics_of_voters_and_called_classes() -> None:
    rng = np.random.default_rng(1)
    rows = rng.dirichlet(np.ones(7), 40).astype(np.float32)
    votes = rng.multinomial(10, np.full(10, 0.1), 40).tolist()
    votes += [[0, 10] + [0] * 8]
    split = build_split(rng.integers(0, 7, 41).tolist(), votes)
    rows = np.concatenate([rows, np.full((1, 7), 1 / 7, np.float32)])
    calibration = VoteCalibration.model_validate(VOTE_CALIBRATION)
    before, after = compute_metrics(rows, split), compute_metrics(rows, split, calibration)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"votes", "probabilities", "neutral", "others"}


def test_called_classes_of_neutral_faces_are_counted() -> None:
    assert METRICS["neutral"] == {
        "rows": 4,
        "called_happy": pytest.approx(1 / 4),
        "called_sad": pytest.approx(1 / 4),
        "called_neither": pytest.approx(2 / 4),
    }


def test_metrics_of_seven_and_three_classes() -> None:
    # Right: both Happy ones, the Sad one, Surprise, and two neutral faces.
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


def test_called_classes_of_other_labels_are_counted() -> None:
    assert METRICS["others"]["surprise"] == {
        "rows": 1,
        "called_happy": 0,
        "called_sad": 0,
        "called_neither": 1,
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
    result = compute_metrics(right, rows)["conditions"]
    assert [third["accuracy"] for third in result["brightness"]] == [0, 1, 1]
    assert [third["rows"] for third in result["sharpness"]] == [3, 3, 3]
    assert result["sharpness"][2]["from"] > 1000
    assert result["contrast"][0]["to"] < result["contrast"][1]["from"]


def test_labeled_faces_of_another_data_set_are_loaded(tmp_path: Path) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (3, 48, 48), np.uint8)
    path = tmp_path / "faces.npz"
    np.savez(path, x=crops, y=np.array([0, 1, 2]))
    rows = load_faces(path)
    assert rows.labels.tolist() == [HAPPY, SAD, -1]
    assert rows.true_classes is not None
    assert rows.true_classes.tolist() == [0, 1, 2]
    assert np.array_equal(rows.pixels, crops)
    last = rows.select(np.array([False, False, True]))
    assert last.true_classes is not None
    assert last.true_classes.tolist() == [2]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64])
def test_faces_of_another_data_set_are_compared_with_their_classes(
    tmp_path: Path, dtype: Any
) -> None:
    """The tiny CNN calls bright crops happy, dark ones sad and gray ones neither."""
    grays, true = (250, 250, 5, 5, 127, 127, 5), (0, 0, 1, 1, 2, 0, 2)
    crops = np.repeat(np.array(grays, np.uint8), 48 * 48).reshape(-1, 48, 48)
    np.savez(tmp_path / "faces.npz", x=crops, y=np.array(true, dtype))
    cnn = load_artifact(write_tiny_cnn(tmp_path))
    result = evaluate(cnn, load_faces(tmp_path / "faces.npz"), 1)
    matrix = [[2, 0, 1], [0, 2, 0], [0, 1, 1]]
    assert result["votes"] == {
        "rows": 7,
        "accuracy": pytest.approx(5 / 7),
        "neutral_called_sad": None,
        "sad_called_sad": 1,
        "happy_called_happy": pytest.approx(2 / 3),
        "confusion": matrix,
    }
    assert result["confusions"] == {"given": dict.fromkeys(("48", "24", "20"), matrix)}
    assert 0 < result["probabilities"]["ece_sad"] < 1
    assert result["happy_sad"]["rows"] == 5
    assert result["three"]["confusion"][2] == [0, 2, 0]
    assert not {"seven", "neutral", "others"} & set(result)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((2, 48, 48), np.uint8)},
        {"x": np.zeros((2, 48, 48), np.float32), "y": np.zeros(2)},
        {"x": np.zeros((2, 64, 64), np.uint8), "y": np.zeros(2)},
        {"x": np.zeros((0, 48, 48), np.uint8), "y": np.zeros(0)},
        {"x": np.zeros((2, 48, 48), np.uint8), "y": np.array([0, 3])},
        {"x": np.zeros((2, 48, 48), np.uint8), "y": np.array([0, 1.5])},
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
    result = compute_metrics(np.array([build_row(0.9, 0.1)], np.float32), build_split([HAPPY]))
    assert result["happy_sad"]["recall_sad"] is None
    assert result["happy_sad_consensus"] == {"rows": 0, "accuracy": None}
    assert result["votes"] == {
        "rows": 0,
        "accuracy": None,
        "neutral_called_sad": None,
        "sad_called_sad": None,
        "happy_called_happy": None,
        "confusion": [[0, 0, 0]] * 3,
    }
    assert set(result["probabilities"].values()) == {None}
    assert result["neutral"]["called_sad"] is None
    json.dumps(result, allow_nan=False)
    no_row = build_split([HAPPY], [build_votes(10, 0)]).select(np.zeros(1, np.bool_))
    nothing = compute_metrics(np.empty((0, 7), np.float32), no_row)
    assert set(nothing["probabilities"].values()) == {None}
    json.dumps(nothing, allow_nan=False)


def test_unknown_and_empty_splits_are_rejected(tmp_path: Path) -> None:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", kaggle.draw_rows(7, 0))
    with pytest.raises(ConfigurationError, match="no split 'Test'"):
        load_split(data, None, "Test")
    with pytest.raises(ConfigurationError, match="no rows of PrivateTest"):
        load_split(data, None, "PrivateTest")
