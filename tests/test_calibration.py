"""Calibration: whether stated probabilities come true."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.calibration import BINS, calibration, diagram


def drawn(true_p: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).random(len(true_p)) < true_p


def test_probabilities_that_come_true_have_hardly_an_error() -> None:
    p = np.random.default_rng(1).random(30_000)
    found = calibration(p, drawn(p))
    assert found["ece"] < 0.015
    assert found["ece"] == pytest.approx(found["ece_if_perfect"], abs=0.006)


def test_probabilities_that_do_not_come_true_have_the_error_that_they_have() -> None:
    p = np.random.default_rng(1).uniform(0.2, 0.6, 30_000)
    found = calibration(p, drawn(p + 0.3))
    assert found["ece"] == pytest.approx(0.3, abs=0.01)
    assert found["ece_low"] < found["ece"] < found["ece_high"]
    assert found["ece_if_perfect"] < 0.02


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 200))
def test_bins_share_the_rows_equally_and_the_error_is_theirs(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    p, happy = rng.random(rows), rng.random(rows) < 0.5
    found = calibration(p, happy)
    counts = [one["rows"] for one in found["bins"]]
    assert sum(counts) == rows
    assert len(counts) == min(BINS, rows)
    assert max(counts) - min(counts) <= 1
    distances = [abs(one["confidence"] - one["share_happy"]) * one["rows"] for one in found["bins"]]
    assert found["ece"] == pytest.approx(sum(distances) / rows, abs=1e-9)


def test_without_rows_nothing_is_claimed() -> None:
    found = calibration(np.zeros(0), np.zeros(0, np.bool_))
    assert found["ece"] is None
    json.dumps(found, allow_nan=False)


def test_the_diagram_is_a_picture() -> None:
    p = np.random.default_rng(1).random(100)
    picture = cv2.imdecode(
        np.frombuffer(diagram(calibration(p, drawn(p)), "some $CNN"), np.uint8), cv2.IMREAD_COLOR
    )
    assert picture is not None
    assert picture.std() > 5
