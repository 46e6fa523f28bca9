"""What worse pictures cost: Happy against Sad on crops changed as framing, light and cameras do.

The changes are the same each time, the noise too, so two CNNs see the same crops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch.fer2013 import CROP_PX, HAPPY, SAD, Split

_Crop = NDArray[np.uint8]
"""[48,48]."""


def robustness(
    classify: Callable[[NDArray[np.uint8]], NDArray[np.float32]], rows: Split
) -> list[dict[str, Any]]:
    """For each change its name, and how many of the Happy and Sad `rows` are `wrong` after it,
    with the `accuracy` of the others; first as they are. Empty where no row is Happy or Sad.

    `classify` maps uint8 [N,48,48] to float32 [N,7].
    """
    polar = np.isin(rows.labels, (HAPPY, SAD))
    crops, is_happy = rows.pixels[polar], rows.labels[polar] == HAPPY
    found = []
    for name, change in CHANGES.items() if len(crops) else ():
        said = classify(np.stack([change(crop) for crop in crops]))
        wrong = int(((said[:, HAPPY] >= said[:, SAD]) != is_happy).sum())
        found.append({"change": name, "wrong": wrong, "accuracy": 1 - wrong / len(crops)})
    return found


def _framed(*, scale: float = 1.0, shift_px: float = 0.0, turn_deg: float = 0.0) -> Any:
    """Scaled and turned about the middle, moved right and down; the edge is continued."""
    centre = ((CROP_PX - 1) / 2, (CROP_PX - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, turn_deg, scale)
    matrix = np.add(matrix, (0, 0, shift_px))
    return lambda crop: cv2.warpAffine(
        crop, matrix, (CROP_PX, CROP_PX), borderMode=cv2.BORDER_REPLICATE
    )


def _lit(gain: float | NDArray[np.float64], around: float = 0.0) -> Any:
    """The distance of each grey value from `around` times `gain` (one, or one for each column)."""
    return lambda crop: (
        ((crop.astype(np.float64) - around) * gain + around).clip(0, 255).astype(np.uint8)
    )


def _blurred(sigma_px: float) -> Any:
    return lambda crop: cv2.GaussianBlur(crop, (0, 0), sigma_px)


def few_pixels(size_px: int) -> Any:
    """Shrunk to `size_px` across and enlarged again, as small crops are before they are scored."""

    def change(crop: _Crop) -> Any:
        small = cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC)

    return change


def as_jpeg(quality: int) -> Any:
    """Compressed and read again."""

    def change(crop: _Crop) -> Any:
        _, written = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.imdecode(written, cv2.IMREAD_GRAYSCALE)

    return change


def _noisy(sigma: float) -> Any:
    """Normal noise, another for each pixel and crop, yet the same for the same crop."""

    def change(crop: _Crop) -> Any:
        noise = np.random.default_rng(int(crop.sum())).normal(0, sigma, crop.shape)
        return (crop + noise).clip(0, 255).round().astype(np.uint8)

    return change


CHANGES: dict[str, Callable[[_Crop], _Crop]] = {
    "none": lambda crop: crop,
    "enlarged by 1.2": _framed(scale=1.2),
    "reduced by 0.8": _framed(scale=0.8),
    "moved by 4 pixels": _framed(shift_px=4),
    "turned by 20° to the left": _framed(turn_deg=20),
    "turned by 20° to the right": _framed(turn_deg=-20),
    "a third of the light": _lit(1 / 3),
    "a quarter of the contrast": _lit(0.25, around=128),
    "light from one side": _lit(np.linspace(0.4, 1.2, CROP_PX)),
    "blurred, sigma 1.5 pixels": _blurred(1.5),
    "24 pixels across": few_pixels(24),
    "16 pixels across": few_pixels(16),
    "JPEG of quality 30": as_jpeg(30),
    "noise, sigma 12 grey values": _noisy(12),
}
"""Each change of a 48×48 crop by its name."""
