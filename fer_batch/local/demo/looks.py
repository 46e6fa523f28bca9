"""The random looks of a synthetic head: colors, proportions, hair, beard and glasses.

All lengths are in the painter's units (half the height of the head). How a head is painted is left
to `heads`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fer_batch.local.demo.painter import Color

_SKINS: tuple[Color, ...] = (
    (186, 206, 240),
    (160, 188, 232),
    (140, 172, 222),
    (116, 150, 204),
    (92, 126, 182),
    (76, 106, 158),
)
_HAIRS: tuple[Color, ...] = (
    (30, 30, 34),
    (34, 46, 64),
    (44, 66, 98),
    (88, 128, 172),
    (124, 134, 142),
    (42, 62, 122),
)
_CLOTHES: tuple[Color, ...] = (
    (120, 80, 50),
    (60, 60, 160),
    (90, 130, 70),
    (70, 70, 70),
    (190, 190, 200),
    (150, 110, 140),
)
_STYLES: tuple[Literal["bald", "short", "long", "fringe"], ...] = (
    "bald",
    "short",
    "short",
    "long",
    "long",
    "fringe",
)


@dataclass(frozen=True, slots=True)
class Looks:
    """The features that distinguish one head from another."""

    skin: Color
    hair: Color
    clothes: Color
    half_width: float
    jaw: float
    eye_gap: float
    eye_size: float
    nose: float
    mouth_width: float
    brow_width: float
    hair_style: Literal["bald", "short", "long", "fringe"]
    has_beard: bool
    has_glasses: bool
    gaze: float
    side: float
    nod: float
    strength: float
    is_mouth_open: bool
    parting: float

    @classmethod
    def draw_random(cls, rng: np.random.Generator) -> Looks:
        """Draw looks from the generator; nothing else influences them."""
        style = _STYLES[rng.integers(len(_STYLES))]
        return cls(
            skin=jitter_color(rng, _SKINS[rng.integers(len(_SKINS))], 8),
            hair=jitter_color(rng, _HAIRS[rng.integers(len(_HAIRS))], 8),
            clothes=jitter_color(rng, _CLOTHES[rng.integers(len(_CLOTHES))], 20),
            half_width=rng.uniform(0.72, 0.80),
            jaw=rng.uniform(0.10, 0.20),
            eye_gap=rng.uniform(0.31, 0.36),
            eye_size=rng.uniform(0.145, 0.175),
            nose=rng.uniform(0.22, 0.30),
            mouth_width=rng.uniform(0.31, 0.37),
            brow_width=rng.uniform(0.055, 0.085),
            hair_style=style,
            has_beard=bool(style != "long" and rng.random() < 0.15),
            has_glasses=bool(rng.random() < 0.12),
            gaze=rng.uniform(-0.03, 0.03),
            side=rng.uniform(-0.07, 0.07),
            nod=rng.uniform(-0.04, 0.04),
            strength=rng.uniform(0.85, 1.15),
            is_mouth_open=bool(rng.random() < 0.8),
            parting=rng.uniform(-0.45, 0.45),
        )


def jitter_color(rng: np.random.Generator, color: Color, by: float) -> Color:
    """Return the color with each channel shifted by up to `by`, at random."""
    b, g, r = (float(np.clip(c + rng.uniform(-by, by), 0, 255)) for c in color)
    return (b, g, r)
