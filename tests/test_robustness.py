"""What is said of worse pictures, by classifiers that can be seen through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fer_batch.fer2013 import Split
from fer_batch.robustness import CHANGES, robustness

HAPPY, SAD, NEUTRAL = 3, 4, 6
GREY = np.random.default_rng(7).integers(40, 220, (6, 48, 48)).astype(np.uint8)


def split(crops: NDArray[np.uint8], labels: list[int]) -> Split:
    return Split(crops, np.array(labels, np.int8), np.arange(len(labels), dtype=np.int32))


def says(is_happy: NDArray[np.bool_]) -> NDArray[np.float32]:
    said = np.zeros((len(is_happy), 7), np.float32)
    said[:, HAPPY], said[:, SAD] = is_happy, ~is_happy
    return said


def found(classify: Any, rows: Split) -> dict[str, tuple[int, float]]:
    return {one["change"]: (one["wrong"], one["accuracy"]) for one in robustness(classify, rows)}


def test_who_judges_by_the_light_alone_fails_without_it_and_bears_what_keeps_it() -> None:
    rows = split(np.full((4, 48, 48), 120, np.uint8), [HAPPY, HAPPY, HAPPY, SAD])
    said = found(lambda crops: says(crops.mean(axis=(1, 2)) > 100), rows)
    assert said["none"] == (1, 0.75)
    assert said["a third of the light"] == (3, 0.25)
    for kept in ("turned by 20° to the left", "16 pixels across", "JPEG of quality 30"):
        assert said[kept] == (1, 0.75)


def test_only_happy_and_sad_rows_count() -> None:
    rows = split(GREY, [HAPPY, NEUTRAL, SAD, NEUTRAL, 0, 1])
    asked: list[int] = []

    def classify(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(crops))
        return says(np.zeros(len(crops), np.bool_))

    assert set(found(classify, rows).values()) == {(1, 0.5)}
    assert asked == [2] * len(CHANGES)
    assert robustness(classify, split(GREY[:1], [NEUTRAL])) == []


def test_two_networks_see_the_same_crops_whatever_stands_beside_them() -> None:
    seen: list[NDArray[np.uint8]] = []

    def classify(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(crops)
        return says(np.ones(len(crops), np.bool_))

    robustness(classify, split(GREY, [HAPPY] * 6))
    robustness(classify, split(GREY[::-1], [HAPPY] * 6))
    for first, second in zip(seen[: len(CHANGES)], seen[len(CHANGES) :], strict=True):
        assert np.array_equal(first, second[::-1])


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "none"])
def test_every_change_leaves_a_crop_but_another_one(name: str) -> None:
    for crop in GREY:
        before = crop.copy()
        changed = CHANGES[name](crop)
        assert (changed.shape, changed.dtype) == ((48, 48), np.uint8)
        assert not np.array_equal(changed, crop)
        assert np.array_equal(crop, before)


def test_moves_go_where_their_names_say() -> None:
    dot = np.zeros((48, 48), np.uint8)
    dot[24, 24] = 255
    moved = CHANGES["moved by 4 pixels"](dot)
    assert np.argwhere(moved).tolist() == [[28, 28]]
    bar = np.zeros((48, 48), np.uint8)
    bar[4, 23:25] = 255  # on top, in the middle
    left, right = (CHANGES[f"turned by 20° to the {side}"](bar) for side in ("left", "right"))
    assert np.argwhere(left)[:, 1].max() < 23
    assert np.argwhere(right)[:, 1].min() > 24
    assert (CHANGES["enlarged by 1.2"](bar)[0] > 0).any()  # 20 pixels above the middle, now 24
    assert np.argwhere(CHANGES["reduced by 0.8"](bar))[:, 0].min() > 6


def test_light_from_one_side_darkens_the_other() -> None:
    lit = CHANGES["light from one side"](np.full((48, 48), 200, np.uint8))
    assert lit[0, 0] == 80
    assert lit[0, -1] == 240
    assert (np.diff(lit[0].astype(int)) > 0).all()


def test_less_contrast_brings_grey_values_towards_the_middle() -> None:
    crop = np.full((48, 48), 28, np.uint8)
    crop[:, 24:] = 228
    changed = CHANGES["a quarter of the contrast"](crop)
    assert (changed[0, 0], changed[0, -1]) == (103, 153)
