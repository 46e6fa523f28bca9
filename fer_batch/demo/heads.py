"""What a drawn head consists of: looks drawn by lot, an expression, and how both are painted.

All lengths are in the painter's units (half the head's height). Where a head stands and what
the camera makes of it is left to `drawing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fer_batch.demo.painter import Colour, Mask, Painter, Points, closed, curve, ellipse

Mouth = Literal["smile", "droop", "level"]

_SKINS: tuple[Colour, ...] = (
    (186, 206, 240),
    (160, 188, 232),
    (140, 172, 222),
    (116, 150, 204),
    (92, 126, 182),
    (76, 106, 158),
)
_HAIRS: tuple[Colour, ...] = (
    (30, 30, 34),
    (34, 46, 64),
    (44, 66, 98),
    (88, 128, 172),
    (124, 134, 142),
    (42, 62, 122),
)
_CLOTHES: tuple[Colour, ...] = (
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
    """What tells one head from another."""

    skin: Colour
    hair: Colour
    clothes: Colour
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
    def by_lot(cls, rng: np.random.Generator) -> Looks:
        style = _STYLES[rng.integers(len(_STYLES))]
        return cls(
            skin=jitter(rng, _SKINS[rng.integers(len(_SKINS))], 8),
            hair=jitter(rng, _HAIRS[rng.integers(len(_HAIRS))], 8),
            clothes=jitter(rng, _CLOTHES[rng.integers(len(_CLOTHES))], 20),
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


@dataclass(frozen=True, slots=True)
class _Eyes:
    """Eyes and brows of an expression. Heights are below the middle of eye or brow."""

    upper_lid: float  # how far over the middle, in eye sizes
    lower_lid: float  # how far under it, in eye sizes
    outer_corner: float
    iris: float
    brow_inner: float
    brow_middle: float
    brow_outer: float
    brow_height: float


_EYES: dict[Mouth, _Eyes] = {
    "smile": _Eyes(0.44, 0.18, 0.0, -0.01, 0.02, -0.08, 0.01, 0.0),
    "droop": _Eyes(0.06, 0.34, 0.05, 0.02, -0.10, 0.02, 0.12, 0.06),
    "level": _Eyes(0.55, 0.45, 0.0, -0.01, 0.02, -0.04, 0.03, 0.0),
}


@dataclass(frozen=True, slots=True)
class _ClosedMouth:
    """A closed mouth: its corners lie `fall` under its height, its middle `rise` over it."""

    height: float
    width: float  # of the looks' mouth width
    fall: float
    rise: float
    upper_lip: float
    lower_lip: float
    fold: float


_DROOP = _ClosedMouth(0.50, 1.0, 0.10, 0.0, 0.07, 0.14, 0.9)
_LEVEL = _ClosedMouth(0.53, 0.92, 0.0, 0.0, 0.10, 0.14, 0.0)


def jitter(rng: np.random.Generator, colour: Colour, by: float) -> Colour:
    """The colour, each channel moved by up to `by`."""
    b, g, r = (float(np.clip(c + rng.uniform(-by, by), 0, 255)) for c in colour)
    return (b, g, r)


def paint_head(p: Painter, looks: Looks, mouth: Mouth, light: float) -> None:
    """A whole head. The light comes from the direction `light`, in radians, 0 is right."""
    _paint_behind(p, looks)
    head = _paint_skin(p, looks, light)
    _paint_beard(p, looks, head)
    _paint_hair(p, looks, head)
    _paint_nose(p, looks, light)
    _paint_eyes(p, looks, mouth)
    if mouth == "smile":
        _paint_smile(p, looks)
    else:
        _paint_closed_mouth(p, looks, _DROOP if mouth == "droop" else _LEVEL)
    _paint_glasses(p, looks)


def paint_torso(p: Painter, looks: Looks) -> None:
    """Shoulders and what is below them, as far as the painter reaches."""
    down = closed(curve((-1.42, 2.1), (-1.35, 14.0)), curve((1.35, 14.0), (1.42, 2.1)))
    p.fill([ellipse(0, 2.25, 1.45, 0.95), down], looks.clothes, soft=0.02)
    sleeves = [curve((s * 1.02, 2.5), (s * 0.98, 14.0)) for s in (-1, 1)]
    p.stroke(sleeves, 0.04, _times(looks.clothes, 0.7), soft=0.02, opacity=0.7)


def _times(colour: Colour, factor: float) -> Colour:
    b, g, r = (float(np.clip(c * factor, 0, 255)) for c in colour)
    return (b, g, r)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    b, g, r = (a * (1 - share) + z * share for a, z in zip(one, other, strict=True))
    return (b, g, r)


def _outline(looks: Looks) -> Points:
    t = np.linspace(0.0, 2 * np.pi, 72, endpoint=False)
    down = np.maximum(0.0, np.sin(t))
    x = looks.half_width * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.9
    return np.stack([x * (1 - looks.jaw * down**1.5), np.sin(t)], axis=1)


def _paint_behind(p: Painter, looks: Looks) -> None:
    """Neck, hair that falls behind the head, ears."""
    w = looks.half_width
    neck = closed(curve((-0.40, 0.6), (-0.40, 1.5)), curve((0.40, 1.5), (0.40, 0.6)))
    if looks.hair_style == "long":
        p.fill(ellipse(0, 0.02, w + 0.16, 1.12), looks.hair, soft=0.02)
        p.fill(ellipse(0, 0.65, w + 0.20, 0.80), looks.hair, soft=0.02)
    elif looks.hair_style != "bald":
        p.fill(ellipse(0, -0.24, w + 0.05, 0.86), looks.hair, soft=0.02)
    p.fill(neck, _times(looks.skin, 0.70), soft=0.03)
    if looks.hair_style != "long":
        ears = [ellipse(side * (w + 0.02), 0.02, 0.10, 0.19) for side in (-1, 1)]
        p.fill(ears, _times(looks.skin, 0.84), soft=0.015)


def _paint_skin(p: Painter, looks: Looks, light: float) -> Mask:
    """The head with its shading. Returns its mask."""
    outline = _outline(looks)
    head = p.mask([outline], soft=0.012)
    p.blend(head, looks.skin)
    inner = p.mask([outline * 0.86], soft=0.16)
    p.shade(head * (1 - inner), 0.70)  # the sides turn away from the light
    p.shade(head * p.ramp(light), 1.16)
    x, y = looks.side, looks.nod
    cheeks = [ellipse(x + s * 0.40, y + 0.24, 0.16, 0.12) for s in (-1, 1)]
    p.glow([*cheeks, ellipse(x, y - 0.62, 0.34, 0.14)], 1.10, soft=0.10, within=head)
    p.glow([ellipse(x, y + 0.80, 0.16, 0.07)], 1.07, soft=0.06, within=head)
    return head


def _paint_hair(p: Painter, looks: Looks, head: Mask) -> None:
    if looks.hair_style == "bald":
        return
    w, part = looks.half_width, looks.parting
    low = -0.58 if looks.hair_style == "fringe" else -0.68
    temple = 0.12 if looks.hair_style == "long" else -0.16
    left, right, top = (-w - 0.12, temple), (w + 0.12, temple), (part, low - 0.10)
    hairline = closed(
        curve(left, (-w * 0.80, low + 0.16), (-w * 0.35, low), top),
        curve(top, (w * 0.35, low), (w * 0.80, low + 0.16), right),
    )
    cap = closed(hairline, curve(right, (w + 0.12, -0.95), (0, -1.55), (-w - 0.12, -0.95), left))
    crown = p.mask([ellipse(0, -0.20, w + 0.10, 0.92), ellipse(0, -0.60, w * 0.8, 0.56)], 0.015)
    p.fill(cap, looks.hair, soft=0.03, within=np.maximum(head, crown))
    strands = [
        curve(
            top, (part + (x - part) * 0.45, -1.02 + 0.10 * abs(x)), (x, -0.42 - 0.2 * (1 - abs(x)))
        )
        for x in np.linspace(-w * 0.95, w * 0.95, 9)
    ]
    p.stroke(strands, 0.018, _times(looks.hair, 0.62), soft=0.015, opacity=0.45)
    shine = curve((part - 0.34, -0.90), (part, -0.99), (part + 0.34, -0.92))
    p.stroke(shine, 0.10, _times(looks.hair, 1.5), soft=0.07, opacity=0.45)


def _paint_eyes(p: Painter, looks: Looks, mouth: Mouth) -> None:
    """Sockets, eyes and brows. A smile narrows the eyes from below, a droop from above."""
    eyes, ey, size, k = _EYES[mouth], looks.nod - 0.14, looks.eye_size, looks.strength
    skin = looks.skin
    for side in (-1, 1):
        cx = looks.side + side * looks.eye_gap
        p.fill(ellipse(cx, ey - 0.02, size * 1.5, size * 1.0), _times(skin, 0.62), 0.07, 0.55)
        hang = eyes.outer_corner * k
        inner, outer = (cx - side * size, ey + hang * 0.2), (cx + side * size, ey + hang)
        top, bottom = ey - eyes.upper_lid * size, ey + eyes.lower_lid * size
        upper, lower = curve(inner, (cx, top), outer), curve(outer, (cx, bottom), inner)
        eye = p.mask([closed(upper, lower)], soft=0.008)
        p.blend(eye, (222, 226, 230))
        iris = (cx + looks.gaze, ey + eyes.iris)
        p.fill(ellipse(*iris, size * 0.50, size * 0.50), (50, 62, 78), 0.01, within=eye)
        p.fill(ellipse(*iris, size * 0.24, size * 0.24), (14, 14, 16), 0.01, within=eye)
        glint = ellipse(iris[0] - 0.02, iris[1] - 0.03, 0.018, 0.018)
        p.fill(glint, (250, 250, 250), 0.004, within=eye)
        p.stroke(upper, 0.045, (26, 28, 34), soft=0.01)
        p.stroke(lower, 0.022, _times(skin, 0.48), soft=0.01, opacity=0.8)
        above = 0.05 if mouth != "droop" else 0.03
        fold = curve((inner[0], inner[1] - above), (cx, top - 0.075), (outer[0], outer[1] - above))
        p.stroke(fold, 0.022, _times(skin, 0.55), soft=0.012, opacity=0.7)
        if mouth != "level":
            bag = curve((inner[0], bottom + 0.04), (cx, bottom + 0.10), (outer[0], bottom + 0.03))
            p.stroke(bag, 0.03, _times(skin, 0.62), soft=0.02, opacity=0.7)
        if mouth == "smile":
            feet = [curve(outer, (outer[0] + side * 0.10, ey + up)) for up in (-0.05, 0.01, 0.07)]
            p.stroke(feet, 0.018, _times(skin, 0.6), soft=0.01, opacity=0.6)
        _paint_brow(p, looks, mouth, side)


def _paint_brow(p: Painter, looks: Looks, mouth: Mouth, side: int) -> None:
    eyes, k = _EYES[mouth], looks.strength
    y = looks.nod - 0.42 + eyes.brow_height
    cx = looks.side + side * looks.eye_gap
    inner_x = cx - side * (0.22 if mouth == "droop" else 0.19)
    brow = curve(
        (inner_x, y + eyes.brow_inner * k),
        (cx, y + eyes.brow_middle),
        (cx + side * 0.23, y + eyes.brow_outer * k),
    )
    colour = _mix(looks.hair, (30, 30, 40), 0.4)
    p.stroke(brow, looks.brow_width, colour, soft=0.018, opacity=0.92)
    if mouth == "droop":
        crease = curve((inner_x - side * 0.05, y - 0.06), (inner_x - side * 0.02, y + 0.06))
        p.stroke(crease, 0.02, _times(looks.skin, 0.55), soft=0.015, opacity=0.7)


def _paint_nose(p: Painter, looks: Looks, light: float) -> None:
    x, y, half = looks.side * 1.3, looks.nod + 0.22, looks.nose / 2
    skin = looks.skin
    s = -1 if np.cos(light) > 0 else 1  # the side in the shadow
    bridge = curve((x + s * 0.06, y - 0.36), (x + s * 0.10, y - 0.03))
    p.stroke(bridge, 0.06, _times(skin, 0.66), soft=0.04, opacity=0.65)
    p.stroke(curve((x, y - 0.30), (x, y - 0.04)), 0.07, _times(skin, 1.18), soft=0.04, opacity=0.6)
    p.fill(ellipse(x, y + 0.06, half * 1.1, 0.05), _times(skin, 0.60), soft=0.03, opacity=0.7)
    wings = [
        curve((x + t * 0.9, y - 0.07), (x + t * 1.15, y), (x + t * 0.8, y + 0.05))
        for t in (-half, half)
    ]
    p.stroke(wings, 0.022, _times(skin, 0.52), soft=0.012, opacity=0.8)
    holes = [ellipse(x + t * 0.48, y + 0.045, 0.035, 0.018) for t in (-half, half)]
    p.fill(holes, _times(skin, 0.28), soft=0.01, opacity=0.9)


def _paint_smile(p: Painter, looks: Looks) -> None:
    x, y, k = looks.side, looks.nod + 0.52, looks.strength
    w = looks.mouth_width * 1.22
    left, right = (x - w, y - 0.08 * k), (x + w, y - 0.08 * k)
    lip, dark = _mix(looks.skin, (70, 60, 160), 0.5), _times(looks.skin, 0.52)
    for s in (-1, 1):  # the fold from the nose past the corner of the mouth, the lifted cheek
        end = (x + s * (w + 0.09), y + 0.04)
        fold = curve((x + s * 0.19, y - 0.30), (x + s * 0.40, y - 0.20), end)
        p.stroke(fold, 0.04, dark, soft=0.03, opacity=0.75)
        p.glow([ellipse(x + s * 0.44, y - 0.28, 0.15, 0.10)], 1.12, soft=0.06)
    upper = curve(left, (x, y + 0.02), right)
    if looks.is_mouth_open:
        lower = curve(right, (x, y + 0.26 * k), left)
        inside = p.mask([closed(upper, lower)], soft=0.008)
        p.stroke(lower, 0.07, lip, soft=0.015)
        p.stroke(upper, 0.05, lip, soft=0.015)
        p.blend(inside, (40, 26, 60))
        teeth = closed(upper, curve(right, (x, y + 0.16 * k), left))
        p.fill(teeth, (236, 240, 242), soft=0.012, within=inside)
    else:
        p.stroke(curve((x - w * 0.8, y), (x, y + 0.15), (x + w * 0.8, y)), 0.08, lip, soft=0.03)
        p.stroke(curve(left, (x, y + 0.11 * k), right), 0.035, (40, 34, 66), soft=0.01)
    corners = [curve(c, (c[0] + s * 0.05, c[1] - 0.05)) for s, c in ((-1, left), (1, right))]
    p.stroke(corners, 0.035, _times(looks.skin, 0.42), soft=0.015)
    chin = curve((x - 0.2, y + 0.36 * k), (x, y + 0.39 * k), (x + 0.2, y + 0.36 * k))
    p.stroke(chin, 0.05, _times(looks.skin, 0.7), soft=0.04, opacity=0.5)


def _paint_closed_mouth(p: Painter, looks: Looks, shape: _ClosedMouth) -> None:
    x, y, fall = looks.side, looks.nod + shape.height, shape.fall * looks.strength
    w = looks.mouth_width * shape.width
    left, right = (x - w, y + fall), (x + w, y + fall)
    middle = (x, y - shape.rise * looks.strength)
    lip, dark = _mix(looks.skin, (74, 66, 150), 0.42), _times(looks.skin, 0.52)
    p.fill(ellipse(x, y + 0.23, 0.20, 0.04), _times(looks.skin, 0.62), soft=0.05, opacity=0.6)
    line = curve(left, middle, right)
    p.fill(closed(curve(left, (x, middle[1] - shape.upper_lip), right), line[::-1]), lip, 0.02)
    lower = curve(right, (x, y + shape.lower_lip), left)
    p.fill(closed(line, lower), _times(lip, 1.08), soft=0.02)
    p.stroke(line, 0.035, (40, 34, 60), soft=0.01)
    if not shape.fall:
        return
    for s, corner in ((-1, left), (1, right)):
        hook = curve(corner, (corner[0] + s * 0.05, corner[1] + 0.08))
        p.stroke(hook, 0.04, dark, soft=0.02, opacity=0.9)
        fold = curve((x + s * 0.20, y - 0.28), (x + s * 0.34, y - 0.10), (x + s * 0.42, y + 0.10))
        p.stroke(fold, 0.03, dark, soft=0.03, opacity=shape.fold)
    chin = curve((x - 0.15, y + 0.27), (x, y + 0.22), (x + 0.15, y + 0.27))
    p.stroke(chin, 0.03, dark, soft=0.025, opacity=0.7)


def _paint_glasses(p: Painter, looks: Looks) -> None:
    if not looks.has_glasses:
        return
    x, ex, y, r = looks.side, looks.eye_gap, looks.nod - 0.13, looks.eye_size * 1.6
    rims = [ellipse(x + s * ex, y, r, r * 0.82) for s in (-1, 1)]
    bridge = curve((x - ex + r, y), (x, y - 0.04), (x + ex - r, y))
    lines = [*(closed(rim, rim[:1]) for rim in rims), bridge]
    p.stroke(lines, 0.018, (40, 40, 46), soft=0.005, opacity=0.75)


def _paint_beard(p: Painter, looks: Looks, head: Mask) -> None:
    if not looks.has_beard:
        return
    y = looks.nod + 0.36
    chin = closed(
        curve((-0.9, 0.1), (-0.45, y + 0.1), (0, y), (0.45, y + 0.1), (0.9, 0.1)),
        curve((0.9, 0.1), (0.9, 1.2), (-0.9, 1.2), (-0.9, 0.1)),
    )
    p.fill(chin, _mix(looks.hair, looks.skin, 0.45), soft=0.10, opacity=0.65, within=head)
