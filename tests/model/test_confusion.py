"""Confusion matrices: true classes by votes and labels, and counts for reduced crops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fer_batch.model.confusion import (
    count_confusion,
    find_labeled,
    find_plurality,
    measure_confusions,
    read_confusion,
)
from fer_batch.model.fer2013 import VOTE_COLUMNS, Split
from fer_batch.records import CallingRule

RULE = CallingRule(0.5, 0.4)


def build_votes(**counts: int) -> list[int]:
    return [counts.get(column, 0) for column in VOTE_COLUMNS]


@pytest.mark.parametrize(
    ("counts", "true"),
    [
        ({"happiness": 10}, 0),
        ({"happiness": 4, "neutral": 3, "surprise": 3}, 0),
        ({"sadness": 4, "neutral": 3, "fear": 3}, 1),
        ({"neutral": 6, "sadness": 4}, 2),
        ({"happiness": 5, "neutral": 5}, 2),  # a tie
        ({"happiness": 5, "sadness": 5}, 2),
        ({"sadness": 4, "unknown": 4, "neutral": 2}, 2),
        ({"NF": 10}, 2),
        ({}, 2),
    ],
)
def test_the_plurality_of_the_voters(counts: dict[str, int], true: int) -> None:
    assert find_plurality(np.array([build_votes(**counts)], np.float32)).tolist() == [true]


def test_labels_other_than_happy_and_sad_are_neither() -> None:
    assert find_labeled(np.array([3, 4, 6, 0, -1], np.int8)).tolist() == [0, 1, 2, 2, 2]


def test_rows_are_true_and_columns_are_called() -> None:
    true, called = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 1, 1, 2, 2])
    assert count_confusion(true, called) == [[1, 0, 1], [0, 1, 0], [0, 1, 2]]
    nothing = np.empty(0, np.intp)
    assert count_confusion(nothing, nothing) == [[0, 0, 0]] * 3


def build_split(votes: list[list[int]] | None) -> Split:
    """A bright crop (Happy), a dark one (Sad) and one of fine stripes (Happy)."""
    crops = np.zeros((3, 48, 48), np.uint8)
    crops[0], crops[2, ::2] = 255, 255
    return Split(
        crops,
        np.array([3, 4, 3], np.int8),
        np.arange(3, dtype=np.int32),
        None if votes is None else np.array(votes, np.float32),
    )


def classify(crops: np.ndarray) -> np.ndarray:
    """Happy where a crop has a bright pixel, otherwise Sad."""
    is_happy = (crops > 200).any(axis=(1, 2))
    rows = np.zeros((len(crops), 7), np.float32)
    rows[np.arange(len(crops)), np.where(is_happy, 3, 4)] = 1
    return rows


def test_crops_are_also_counted_when_they_are_reduced() -> None:
    votes = [build_votes(happiness=9), build_votes(sadness=9), build_votes(neutral=9)]
    confusions = measure_confusions(classify, build_split(votes), None, RULE)
    assert {truth: list(by_size) for truth, by_size in confusions.items()} == {
        "plurality": ["48", "24", "20"],
        "kaggle": ["48", "24", "20"],
    }
    assert confusions["plurality"]["48"] == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert confusions["kaggle"]["48"] == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    # The stripes become gray.
    assert confusions["plurality"]["24"] == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert confusions["kaggle"]["20"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_without_votes_only_labels_are_counted() -> None:
    assert list(measure_confusions(classify, build_split(None), None, RULE)) == ["kaggle"]
    nothing = build_split(None).select(np.zeros(3, np.bool_))
    empty = measure_confusions(classify, nothing, None, RULE)
    assert empty["kaggle"] == dict.fromkeys(("48", "24", "20"), [[0, 0, 0]] * 3)


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"confusions": None},
        {"confusions": {"PrivateTest": {}}},
        {"confusions": {"PublicTest": {"kaggle": {"48": [[1, 0, 0]] * 3}}}},
        {"confusions": {"PublicTest": {"plurality": {"24": [[1, 0, 0]] * 3}}}},
    ],
)
def test_a_card_may_have_no_matrix_for_rates(card: dict[str, Any]) -> None:
    assert read_confusion(card) is None


def test_the_matrix_for_rates_is_that_of_the_votes_on_public_test() -> None:
    counts = [[816, 5, 59], [5, 233, 157], [59, 126, 2129]]
    matrix = read_confusion({"confusions": {"PublicTest": {"plurality": {"48": counts}}}})
    assert matrix is not None
    assert matrix.dtype == np.float64
    assert matrix.tolist() == counts
