"""Robustness to corruptions, measured with transparent classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fer_batch.model.corruptions import CORRUPTIONS, measure_corruptions
from fer_batch.model.fer2013 import Split

HAPPY, SAD, NEUTRAL = 3, 4, 6
GRAY = np.random.default_rng(7).integers(40, 220, (6, 48, 48)).astype(np.uint8)


def build_split(crops: NDArray[np.uint8], labels: list[int]) -> Split:
    return Split(crops, np.array(labels, np.int8), np.arange(len(labels), dtype=np.int32))


def predict(is_happy: NDArray[np.bool_]) -> NDArray[np.float32]:
    predictions = np.zeros((len(is_happy), 7), np.float32)
    predictions[:, HAPPY], predictions[:, SAD] = is_happy, ~is_happy
    return predictions


def measure(classify: Any, rows: Split) -> dict[str, tuple[int, float]]:
    return {
        result["change"]: (result["wrong"], result["accuracy"])
        for result in measure_corruptions(classify, rows)
    }


def test_a_brightness_classifier_fails_only_on_corruptions_of_brightness() -> None:
    rows = build_split(np.full((4, 48, 48), 120, np.uint8), [HAPPY, HAPPY, HAPPY, SAD])
    results = measure(lambda crops: predict(crops.mean(axis=(1, 2)) > 100), rows)
    assert results["none"] == (1, 0.75)
    assert results["a third of the light"] == (3, 0.25)
    for name in ("turned by 20° to the left", "16 pixels across", "JPEG of quality 30"):
        assert results[name] == (1, 0.75)


def test_only_happy_and_sad_rows_are_measured() -> None:
    rows = build_split(GRAY, [HAPPY, NEUTRAL, SAD, NEUTRAL, 0, 1])
    batch_sizes: list[int] = []

    def classify(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch_sizes.append(len(crops))
        return predict(np.zeros(len(crops), np.bool_))

    assert set(measure(classify, rows).values()) == {(1, 0.5)}
    assert batch_sizes == [2] * len(CORRUPTIONS)
    assert measure_corruptions(classify, build_split(GRAY[:1], [NEUTRAL])) == []


def test_corruptions_do_not_depend_on_other_crops() -> None:
    seen: list[NDArray[np.uint8]] = []

    def classify(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(crops)
        return predict(np.ones(len(crops), np.bool_))

    measure_corruptions(classify, build_split(GRAY, [HAPPY] * 6))
    measure_corruptions(classify, build_split(GRAY[::-1], [HAPPY] * 6))
    for first, second in zip(seen[: len(CORRUPTIONS)], seen[len(CORRUPTIONS) :], strict=True):
        assert np.array_equal(first, second[::-1])


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "none"])
def test_every_corruption_returns_a_changed_crop(name: str) -> None:
    for crop in GRAY:
        before = crop.copy()
        changed = CORRUPTIONS[name](crop)
        assert (changed.shape, changed.dtype) == ((48, 48), np.dtype(np.uint8))
        assert not np.array_equal(changed, crop)
        assert np.array_equal(crop, before)


def test_geometric_corruptions_match_their_names() -> None:
    dot = np.zeros((48, 48), np.uint8)
    dot[24, 24] = 255
    moved = CORRUPTIONS["moved by 4 pixels"](dot)
    assert np.argwhere(moved).tolist() == [[28, 28]]
    bar = np.zeros((48, 48), np.uint8)
    bar[4, 23:25] = 255  # on top, in the middle
    left, right = (CORRUPTIONS[f"turned by 20° to the {side}"](bar) for side in ("left", "right"))
    assert np.argwhere(left)[:, 1].max() < 23
    assert np.argwhere(right)[:, 1].min() > 24
    assert (CORRUPTIONS["enlarged by 1.2"](bar)[0] > 0).any()  # 20 pixels above the middle, now 24
    assert np.argwhere(CORRUPTIONS["reduced by 0.8"](bar))[:, 0].min() > 6


def test_light_from_one_side_darkens_the_other_side() -> None:
    lit = CORRUPTIONS["light from one side"](np.full((48, 48), 200, np.uint8))
    assert lit[0, 0] == 80
    assert lit[0, -1] == 240
    assert (np.diff(lit[0].astype(int)) > 0).all()


def test_less_contrast_moves_gray_values_towards_the_middle() -> None:
    crop = np.full((48, 48), 28, np.uint8)
    crop[:, 24:] = 228
    changed = CORRUPTIONS["a quarter of the contrast"](crop)
    assert (changed[0, 0], changed[0, -1]) == (103, 153)
