"""Robustness: accuracy of Happy against Sad on crops with common image corruptions.

The corruptions imitate framing, light and cameras (after Hendrycks, Dietterich 2019). They are
deterministic, noise included, so two CNNs are measured on the same crops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch.model.fer2013 import CROP_PX, HAPPY, SAD, Split

_Crop = NDArray[np.uint8]
"""[48,48] gray values."""
_Corruption = Callable[[_Crop], _Crop]


def measure_corruptions(
    classify: Callable[[NDArray[np.uint8]], NDArray[np.float32]], rows: Split
) -> list[dict[str, Any]]:
    """The errors on the Happy and Sad `rows` under each of `CORRUPTIONS`, unchanged crops first.

    `classify` maps uint8 [N,48,48] to class probabilities float32 [N,7]. Keys: `change` (the name
    of the corruption), `wrong` (rows) and `accuracy` (0 to 1). Empty if no row is Happy or Sad.
    """
    is_polar = np.isin(rows.labels, (HAPPY, SAD))
    crops, is_happy = rows.pixels[is_polar], rows.labels[is_polar] == HAPPY
    results = []
    for name, corrupt in CORRUPTIONS.items() if len(crops) else ():
        probabilities = classify(np.stack([corrupt(crop) for crop in crops]))
        predicts_happy = probabilities[:, HAPPY] >= probabilities[:, SAD]
        wrong = int((predicts_happy != is_happy).sum())
        results.append({"change": name, "wrong": wrong, "accuracy": 1 - wrong / len(crops)})
    return results


def _warp(*, scale: float = 1.0, shift_px: float = 0.0, turn_deg: float = 0.0) -> Any:
    """Scale and rotate about the center, then move right and down; edge pixels are replicated."""
    center = ((CROP_PX - 1) / 2, (CROP_PX - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, turn_deg, scale)
    matrix = np.add(matrix, (0, 0, shift_px))
    return lambda crop: cv2.warpAffine(
        crop, matrix, (CROP_PX, CROP_PX), borderMode=cv2.BORDER_REPLICATE
    )


def _scale_light(gain: float | NDArray[np.float64], around: float = 0.0) -> Any:
    """Multiply the distance of each gray value from `around` by `gain`, a scalar or one value per
    column."""
    return lambda crop: (
        ((crop.astype(np.float64) - around) * gain + around).clip(0, 255).astype(np.uint8)
    )


def _blur(sigma_px: float) -> Any:
    return lambda crop: cv2.GaussianBlur(crop, (0, 0), sigma_px)


def downsample(size_px: int) -> Any:
    """A function that shrinks a crop uint8 [48,48] to `size_px` pixels across and enlarges it
    again, as small crops are enlarged before they are scored."""

    def corrupt(crop: _Crop) -> Any:
        small = cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC)

    return corrupt


def compress_jpeg(quality: int) -> Any:
    """A function that compresses a crop uint8 [48,48] as JPEG (`quality` 0 to 100) and decodes it
    again."""

    def corrupt(crop: _Crop) -> Any:
        _, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)

    return corrupt


def _add_noise(sigma: float) -> Any:
    """Add normal noise, seeded by the crop: equal for equal crops, different for others."""

    def corrupt(crop: _Crop) -> Any:
        noise = np.random.default_rng(int(crop.sum())).normal(0, sigma, crop.shape)
        return (crop + noise).clip(0, 255).round().astype(np.uint8)

    return corrupt


CORRUPTIONS: dict[str, _Corruption] = {
    "none": lambda crop: crop,
    "enlarged by 1.2": _warp(scale=1.2),
    "reduced by 0.8": _warp(scale=0.8),
    "moved by 4 pixels": _warp(shift_px=4),
    "turned by 20° to the left": _warp(turn_deg=20),
    "turned by 20° to the right": _warp(turn_deg=-20),
    "a third of the light": _scale_light(1 / 3),
    "a quarter of the contrast": _scale_light(0.25, around=128),
    "light from one side": _scale_light(np.linspace(0.4, 1.2, CROP_PX)),
    "blurred, sigma 1.5 pixels": _blur(1.5),
    "24 pixels across": downsample(24),
    "16 pixels across": downsample(16),
    "JPEG of quality 30": compress_jpeg(30),
    "noise, sigma 12 grey values": _add_noise(12),
}
"""Each corruption of a 48×48 crop by its name. The card stores the names, so they do not change."""
