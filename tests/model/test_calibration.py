"""Calibration: the expected calibration error and the reliability diagram."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.errors import ConfigurationError
from fer_batch.model import calibration
from fer_batch.model.calibration import (
    BINS,
    draw_reliability_diagram,
    measure_calibration,
    measure_share_error,
)


def draw_labels(true_p: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).random(len(true_p)) < true_p


def test_calibrated_probabilities_have_a_small_error() -> None:
    p = np.random.default_rng(1).random(30_000)
    figures = measure_calibration(p, draw_labels(p))
    assert figures["ece"] < 0.015
    assert figures["ece"] == pytest.approx(figures["ece_if_perfect"], abs=0.006)


def test_a_known_miscalibration_is_measured() -> None:
    p = np.random.default_rng(1).uniform(0.2, 0.6, 30_000)
    figures = measure_calibration(p, draw_labels(p + 0.3))
    assert figures["ece"] == pytest.approx(0.3, abs=0.01)
    assert figures["ece_low"] < figures["ece"] < figures["ece_high"]
    assert figures["ece_if_perfect"] < 0.02


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 200))
def test_bins_have_equal_mass_and_their_distances_add_up_to_the_error(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    p, happy = rng.random(rows), rng.random(rows) < 0.5
    figures = measure_calibration(p, happy)
    counts = [bin_["rows"] for bin_ in figures["bins"]]
    assert sum(counts) == rows
    assert len(counts) == min(BINS, rows)
    assert max(counts) - min(counts) <= 1
    distances = [
        abs(bin_["confidence"] - bin_["share_happy"]) * bin_["rows"] for bin_ in figures["bins"]
    ]
    assert figures["ece"] == pytest.approx(sum(distances) / rows, abs=1e-9)


def test_without_rows_the_figures_are_none() -> None:
    figures = measure_calibration(np.zeros(0), np.zeros(0, np.bool_))
    assert figures["ece"] is None
    json.dumps(figures, allow_nan=False)


def test_the_reliability_diagram_is_a_valid_png() -> None:
    p = np.random.default_rng(1).random(100)
    image = cv2.imdecode(
        np.frombuffer(
            draw_reliability_diagram(measure_calibration(p, draw_labels(p)), "some $CNN"), np.uint8
        ),
        cv2.IMREAD_COLOR,
    )
    assert image is not None
    assert image.std() > 5


def test_the_error_against_shares_is_the_distance_of_the_means_of_bins() -> None:
    p = np.linspace(0, 0.9, 1500, dtype=np.float32)
    assert measure_share_error(p[::-1], (p + 0.1)[::-1]) == pytest.approx(0.1, abs=1e-6)
    # Within a bin, distances in both directions cancel.
    assert measure_share_error(p, p + np.tile((0.1, -0.1), 750)) == pytest.approx(0, abs=1e-3)
    assert measure_share_error(p[:0], p[:0]) is None


def test_a_diagram_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    calibration.check_can_draw()
    monkeypatch.setattr(calibration, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="with the extra `train`"):
        calibration.check_can_draw()
