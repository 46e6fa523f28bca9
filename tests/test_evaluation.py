"""The figures of a CNN, on probabilities whose figures can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fer_batch.errors import ConfigurationError
from fer_batch.evaluation import choose_uncertain_below, faces_of, figures, rows_of
from fer_batch.fer2013 import Split
from tests.support import kaggle

HAPPY, SAD, SURPRISE, NEUTRAL = 3, 4, 5, 6


def says(happy: float, sad: float, surprise: float = 0.0) -> list[float]:
    return [0, 0, 0, happy, sad, surprise, 1 - happy - sad - surprise]


def split(labels: list[int], votes: list[list[float]] | None = None) -> Split:
    return Split(
        np.zeros((len(labels), 48, 48), np.uint8),
        np.array(labels, np.int8),
        np.arange(len(labels), dtype=np.int32),
        None if votes is None else np.array(votes, np.float32),
    )


def votes_of(happiness: int, sadness: int) -> list[float]:
    return [10 - happiness - sadness, happiness, 0, sadness, 0, 0, 0, 0, 0, 0]


FOUND = figures(
    np.array(
        [
            says(0.9, 0.05),  # Happy, right
            says(0.4, 0.3),  # Happy, right, uncertain
            says(0.1, 0.6),  # Happy, wrong
            says(0.2, 0.7),  # Sad, right
            says(0.6, 0.1),  # Sad, wrong
            says(0.1, 0.2, 0.7),  # Surprise
            says(0.6, 0.0),  # Neutral, called Happy
            says(0.2, 0.5),  # Neutral, called Sad
            says(0.1, 0.1),  # Neutral, uncertain
            says(0.3, 0.2),  # Neutral, uncertain
        ],
        np.float32,
    ),
    split(
        [HAPPY, HAPPY, HAPPY, SAD, SAD, SURPRISE, NEUTRAL, NEUTRAL, NEUTRAL, NEUTRAL],
        [
            votes_of(10, 0),
            votes_of(5, 0),
            votes_of(6, 0),
            votes_of(0, 6),
            votes_of(6, 4),
            *[votes_of(9, 0)] * 5,
        ],
    ),
    uncertain_below=0.5,
)


def test_happy_and_sad_are_compared_with_each_other_alone() -> None:
    assert FOUND["happy_sad"] == {
        "rows": 5,
        "wrong": 2,
        # Six voters saw happiness in the wrong Sad one; those of the wrong Happy one agree.
        "wrong_contradicting_votes": 1,
        "accuracy": pytest.approx(3 / 5),
        "recall_happy": pytest.approx(2 / 3),
        "recall_sad": pytest.approx(1 / 2),
    }


def test_consensus_counts_rows_whose_label_six_voters_share() -> None:
    assert FOUND["happy_sad_consensus"] == {"rows": 3, "accuracy": pytest.approx(2 / 3)}


def test_certain_faces_reach_the_threshold_with_the_larger_of_the_two() -> None:
    assert FOUND["certain"] == {
        "uncertain_below": 0.5,
        "share": pytest.approx(4 / 5),
        "accuracy": pytest.approx(2 / 4),
    }


def test_neutral_faces_are_followed() -> None:
    assert FOUND["neutral"] == {
        "rows": 4,
        "uncertain": pytest.approx(2 / 4),
        "called_happy": pytest.approx(1 / 4),
        "called_sad": pytest.approx(1 / 4),
    }


def test_seven_and_three_classes() -> None:
    # Right: both Happy ones, the Sad one, Surprise, and the two neutral faces left uncertain.
    assert FOUND["seven"]["rows"] == 10
    assert FOUND["seven"]["accuracy"] == pytest.approx(6 / 10)
    assert FOUND["seven"]["recall"]["happy"] == pytest.approx(2 / 3)
    assert FOUND["seven"]["recall"]["neutral"] == pytest.approx(2 / 4)
    assert FOUND["seven"]["recall"]["fear"] is None
    confusion = np.array(FOUND["seven"]["confusion"])
    assert confusion.sum() == 10
    assert confusion[NEUTRAL].tolist() == [0, 0, 0, 1, 1, 0, 2]
    assert FOUND["three"]["confusion"] == [[2, 1, 0], [1, 1, 0], [1, 1, 3]]
    assert FOUND["three"]["accuracy"] == pytest.approx(6 / 10)


def test_other_labels_are_followed_like_neutral_faces() -> None:
    assert FOUND["others"]["surprise"] == {
        "rows": 1,
        "uncertain": 1,
        "called_happy": 0,
        "called_sad": 0,
    }
    assert set(FOUND["others"]) == {"angry", "disgust", "fear", "surprise"}


def test_accuracy_is_told_by_thirds_of_light_contrast_and_sharpness() -> None:
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
    right = np.array([says(0.1, 0.6)] * 3 + [says(0.6, 0.1)] * 6, np.float32)
    found = figures(right, rows, 0.5)["conditions"]
    assert [third["accuracy"] for third in found["brightness"]] == [0, 1, 1]
    assert [third["rows"] for third in found["sharpness"]] == [3, 3, 3]
    assert found["sharpness"][2]["from"] > 1000
    assert found["contrast"][0]["to"] < found["contrast"][1]["from"]


def test_any_labelled_faces_can_be_measured(tmp_path: Path) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (3, 48, 48), np.uint8)
    path = tmp_path / "faces.npz"
    np.savez(path, x=crops, y=np.array([0, 1, 0]))
    rows = faces_of(path)
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
def test_faces_of_another_form_are_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "faces.npz"
    np.savez(path, **arrays)
    with pytest.raises(ConfigurationError, match=r"faces\.npz"):
        faces_of(path)


def test_a_file_of_one_array_is_no_faces(tmp_path: Path) -> None:
    np.save(tmp_path / "faces.npy", np.zeros((2, 48, 48), np.uint8))
    with pytest.raises(ConfigurationError, match="no npz file"):
        faces_of(tmp_path / "faces.npy")


def test_a_figure_without_rows_is_none_not_a_number() -> None:
    found = figures(np.array([says(0.9, 0.1)], np.float32), split([HAPPY]), 0.99)
    assert found["happy_sad"]["recall_sad"] is None
    assert found["certain"]["accuracy"] is None
    assert found["happy_sad_consensus"] == {"rows": 0, "accuracy": None}
    assert found["neutral"]["uncertain"] is None
    json.dumps(found, allow_nan=False)


def test_the_threshold_keeps_as_many_faces_as_98_right_of_100_allow() -> None:
    # Half of the faces under 0.6 are wrong, all others are right.
    low = [says(0.55, 0.1)] * 10
    high = [says(0.7, 0.1)] * 490
    labels = [HAPPY, SAD] * 5 + [HAPPY] * 490
    assert choose_uncertain_below(np.array(low + high, np.float32), np.array(labels, np.int8)) == 0
    low *= 5
    labels = [HAPPY, SAD] * 25 + [HAPPY] * 490
    found = choose_uncertain_below(np.array(low + high, np.float32), np.array(labels, np.int8))
    assert found == pytest.approx(0.555)


def test_the_threshold_leaves_four_in_five_neutral_faces_uncertain() -> None:
    sure = [says(0.9, 0.0)] * 50
    neutral = [says(0.1, 0.0)] * 7 + [says(0.1, 0.3)] + [says(0.1, 0.6)] * 2
    labels = np.array([HAPPY] * 50 + [NEUTRAL] * 10, np.int8)
    found = choose_uncertain_below(np.array(sure + neutral, np.float32), labels)
    assert found == pytest.approx(0.305)


def test_a_threshold_that_cannot_be_reached_ends_at_095() -> None:
    wrong = np.array([says(0.99, 0.0)] * 10, np.float32)
    assert choose_uncertain_below(wrong, np.full(10, SAD, np.int8)) == 0.95


@settings(max_examples=30)
@given(
    chances=arrays(np.float32, (60, 7), elements=st.floats(0.015625, 1, width=32)),
    labels=arrays(np.int8, 60, elements=st.sampled_from([HAPPY, SAD, NEUTRAL])),
)
def test_what_the_threshold_leaves_is_98_right_and_few_are_neutral_and_no_smaller_one_does(
    chances: np.ndarray, labels: np.ndarray
) -> None:
    probabilities = chances / chances.sum(axis=1, keepdims=True)
    rows = split(labels.tolist())
    chosen = choose_uncertain_below(probabilities, labels)

    def suits(threshold: float) -> bool:
        found = figures(probabilities, rows, threshold)
        uncertain = found["neutral"]["uncertain"]
        right = found["certain"]["accuracy"]
        return right is not None and right >= 0.98 and (uncertain is None or uncertain >= 0.8)

    assert chosen == 0.95 or suits(chosen)
    assert not any(suits(step * 0.005) for step in range(round(chosen / 0.005)))


def test_wrong_splits_cards_and_data_are_refused(tmp_path: Path) -> None:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", kaggle.rows(7, 0))
    with pytest.raises(ConfigurationError, match="no split 'Test'"):
        rows_of(data, None, "Test")
    with pytest.raises(ConfigurationError, match="no rows of PrivateTest"):
        rows_of(data, None, "PrivateTest")
