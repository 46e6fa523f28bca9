"""How a synthetic head with given looks and expression is painted.

All lengths are in the painter's units (half the height of the head). The looks are drawn in
`looks`. Where a head is placed, and what the camera does to the picture, is left to `drawing`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal, TypeVar

import numpy as np

from fer_batch.local.demo.looks import Looks
from fer_batch.local.demo.painter import (
    Color,
    Mask,
    Painter,
    Points,
    join_lines,
    trace_curve,
    trace_ellipse,
)

Mouth = Literal["smile", "droop", "level"]

_PARTED_FROM = 0.6
"""The clarity from which the lips of a smile may be parted."""


@dataclass(frozen=True, slots=True)
class Expression:
    """What a face shows, from a `clarity` of 0 (hardly different from level) to 1."""

    mouth: Mouth
    clarity: float = 1.0


@dataclass(frozen=True, slots=True)
class _Eyes:
    """Eyes and brows of an expression. Heights are measured down from the middle of eye or brow."""

    upper_lid: float  # above the middle, in eye sizes
    lower_lid: float  # below the middle, in eye sizes
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
    """A closed mouth: its corners are `fall` below its height, its middle is `rise` above it."""

    height: float
    width: float  # relative to the mouth width of the looks
    fall: float
    rise: float
    upper_lip: float
    lower_lip: float
    fold: float


_Shape = TypeVar("_Shape", _Eyes, _ClosedMouth)

_DROOP = _ClosedMouth(0.50, 1.0, 0.10, 0.0, 0.07, 0.14, 0.9)
_LEVEL = _ClosedMouth(0.53, 0.92, 0.0, 0.0, 0.10, 0.14, 0.0)


def paint_head(p: Painter, looks: Looks, light: float) -> None:
    """Paint a head without an expression. The light comes from `light`, in radians; 0 is right."""
    _paint_behind(p, looks)
    head = _paint_skin(p, looks, light)
    _paint_beard(p, looks, head)
    _paint_hair(p, looks, head)
    _paint_nose(p, looks, light)


def paint_expression(p: Painter, looks: Looks, expression: Expression) -> None:
    """Paint eyes, mouth and glasses onto a head."""
    _paint_eyes(p, looks, expression)
    if expression.mouth == "smile":
        _paint_smile(p, looks, expression.clarity)
    elif expression.mouth == "droop":
        _paint_closed_mouth(p, looks, _interpolate(_LEVEL, _DROOP, expression.clarity))
    else:
        _paint_closed_mouth(p, looks, _LEVEL)
    _paint_glasses(p, looks)


def _interpolate(level: _Shape, clear: _Shape, clarity: float) -> _Shape:
    """The shape between that of a level mouth and that of a clear expression."""
    pairs = zip(astuple(level), astuple(clear), strict=True)
    return type(level)(*(low + (high - low) * clarity for low, high in pairs))


def paint_torso(p: Painter, looks: Looks) -> None:
    """Paint the shoulders and everything below them, as far as the painter reaches."""
    down = join_lines(
        trace_curve((-1.42, 2.1), (-1.35, 14.0)), trace_curve((1.35, 14.0), (1.42, 2.1))
    )
    p.fill([trace_ellipse(0, 2.25, 1.45, 0.95), down], looks.clothes, soft=0.02)
    sleeves = [trace_curve((s * 1.02, 2.5), (s * 0.98, 14.0)) for s in (-1, 1)]
    p.stroke(sleeves, 0.04, _scale_color(looks.clothes, 0.7), soft=0.02, opacity=0.7)


def _scale_color(color: Color, factor: float) -> Color:
    b, g, r = (float(np.clip(c * factor, 0, 255)) for c in color)
    return (b, g, r)


def _mix_colors(one: Color, other: Color, share: float) -> Color:
    b, g, r = (a * (1 - share) + z * share for a, z in zip(one, other, strict=True))
    return (b, g, r)


def _trace_outline(looks: Looks) -> Points:
    t = np.linspace(0.0, 2 * np.pi, 72, endpoint=False)
    down = np.maximum(0.0, np.sin(t))
    x = looks.half_width * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.9
    return np.stack([x * (1 - looks.jaw * down**1.5), np.sin(t)], axis=1)


def _paint_behind(p: Painter, looks: Looks) -> None:
    """Paint the neck, the hair behind the head, and the ears."""
    w = looks.half_width
    neck = join_lines(
        trace_curve((-0.40, 0.6), (-0.40, 1.5)), trace_curve((0.40, 1.5), (0.40, 0.6))
    )
    if looks.hair_style == "long":
        p.fill(trace_ellipse(0, 0.02, w + 0.16, 1.12), looks.hair, soft=0.02)
        p.fill(trace_ellipse(0, 0.65, w + 0.20, 0.80), looks.hair, soft=0.02)
    elif looks.hair_style != "bald":
        p.fill(trace_ellipse(0, -0.24, w + 0.05, 0.86), looks.hair, soft=0.02)
    p.fill(neck, _scale_color(looks.skin, 0.70), soft=0.03)
    if looks.hair_style != "long":
        ears = [trace_ellipse(side * (w + 0.02), 0.02, 0.10, 0.19) for side in (-1, 1)]
        p.fill(ears, _scale_color(looks.skin, 0.84), soft=0.015)


def _paint_skin(p: Painter, looks: Looks, light: float) -> Mask:
    """Paint the head with its shading; return its mask."""
    outline = _trace_outline(looks)
    head = p.build_mask([outline], soft=0.012)
    p.blend(head, looks.skin)
    inner = p.build_mask([outline * 0.86], soft=0.16)
    p.shade(head * (1 - inner), 0.70)  # the sides turn away from the light
    p.shade(head * p.build_ramp(light), 1.16)
    x, y = looks.side, looks.nod
    cheeks = [trace_ellipse(x + s * 0.40, y + 0.24, 0.16, 0.12) for s in (-1, 1)]
    p.shade_outlines(
        [*cheeks, trace_ellipse(x, y - 0.62, 0.34, 0.14)], 1.10, soft=0.10, within=head
    )
    p.shade_outlines([trace_ellipse(x, y + 0.80, 0.16, 0.07)], 1.07, soft=0.06, within=head)
    return head


def _paint_hair(p: Painter, looks: Looks, head: Mask) -> None:
    if looks.hair_style == "bald":
        return
    w, part = looks.half_width, looks.parting
    low = -0.58 if looks.hair_style == "fringe" else -0.68
    temple = 0.12 if looks.hair_style == "long" else -0.16
    left, right, top = (-w - 0.12, temple), (w + 0.12, temple), (part, low - 0.10)
    hairline = join_lines(
        trace_curve(left, (-w * 0.80, low + 0.16), (-w * 0.35, low), top),
        trace_curve(top, (w * 0.35, low), (w * 0.80, low + 0.16), right),
    )
    cap = join_lines(
        hairline, trace_curve(right, (w + 0.12, -0.95), (0, -1.55), (-w - 0.12, -0.95), left)
    )
    crown = p.build_mask(
        [trace_ellipse(0, -0.20, w + 0.10, 0.92), trace_ellipse(0, -0.60, w * 0.8, 0.56)], 0.015
    )
    p.fill(cap, looks.hair, soft=0.03, within=np.maximum(head, crown))
    strands = [
        trace_curve(
            top, (part + (x - part) * 0.45, -1.02 + 0.10 * abs(x)), (x, -0.42 - 0.2 * (1 - abs(x)))
        )
        for x in np.linspace(-w * 0.95, w * 0.95, 9)
    ]
    p.stroke(strands, 0.018, _scale_color(looks.hair, 0.62), soft=0.015, opacity=0.45)
    shine = trace_curve((part - 0.34, -0.90), (part, -0.99), (part + 0.34, -0.92))
    p.stroke(shine, 0.10, _scale_color(looks.hair, 1.5), soft=0.07, opacity=0.45)


def _paint_eyes(p: Painter, looks: Looks, expression: Expression) -> None:
    """Paint sockets, eyes and brows. A smile narrows the eyes from below, a droop from above."""
    mouth, clarity = expression.mouth, expression.clarity
    eyes = _interpolate(_EYES["level"], _EYES[mouth], clarity)
    ey, size, k = looks.nod - 0.14, looks.eye_size, looks.strength
    skin = looks.skin
    for side in (-1, 1):
        cx = looks.side + side * looks.eye_gap
        p.fill(
            trace_ellipse(cx, ey - 0.02, size * 1.5, size * 1.0),
            _scale_color(skin, 0.62),
            0.07,
            0.55,
        )
        hang = eyes.outer_corner * k
        inner, outer = (cx - side * size, ey + hang * 0.2), (cx + side * size, ey + hang)
        top, bottom = ey - eyes.upper_lid * size, ey + eyes.lower_lid * size
        upper, lower = trace_curve(inner, (cx, top), outer), trace_curve(outer, (cx, bottom), inner)
        eye = p.build_mask([join_lines(upper, lower)], soft=0.008)
        p.blend(eye, (222, 226, 230))
        iris = (cx + looks.gaze, ey + eyes.iris)
        p.fill(trace_ellipse(*iris, size * 0.50, size * 0.50), (50, 62, 78), 0.01, within=eye)
        p.fill(trace_ellipse(*iris, size * 0.24, size * 0.24), (14, 14, 16), 0.01, within=eye)
        glint = trace_ellipse(iris[0] - 0.02, iris[1] - 0.03, 0.018, 0.018)
        p.fill(glint, (250, 250, 250), 0.004, within=eye)
        p.stroke(upper, 0.045, (26, 28, 34), soft=0.01)
        p.stroke(lower, 0.022, _scale_color(skin, 0.48), soft=0.01, opacity=0.8)
        above = 0.05 if mouth != "droop" else 0.03
        fold = trace_curve(
            (inner[0], inner[1] - above), (cx, top - 0.075), (outer[0], outer[1] - above)
        )
        p.stroke(fold, 0.022, _scale_color(skin, 0.55), soft=0.012, opacity=0.7)
        if mouth != "level":
            bag = trace_curve(
                (inner[0], bottom + 0.04), (cx, bottom + 0.10), (outer[0], bottom + 0.03)
            )
            p.stroke(bag, 0.03, _scale_color(skin, 0.62), soft=0.02, opacity=0.7 * clarity)
        if mouth == "smile":
            feet = [
                trace_curve(outer, (outer[0] + side * 0.10, ey + up)) for up in (-0.05, 0.01, 0.07)
            ]
            p.stroke(feet, 0.018, _scale_color(skin, 0.6), soft=0.01, opacity=0.6 * clarity)
        _paint_brow(p, looks, expression, eyes, side)


def _paint_brow(p: Painter, looks: Looks, expression: Expression, eyes: _Eyes, side: int) -> None:
    is_droop, k = expression.mouth == "droop", looks.strength
    y = looks.nod - 0.42 + eyes.brow_height
    cx = looks.side + side * looks.eye_gap
    inner_x = cx - side * (0.19 + 0.03 * expression.clarity * is_droop)
    brow = trace_curve(
        (inner_x, y + eyes.brow_inner * k),
        (cx, y + eyes.brow_middle),
        (cx + side * 0.23, y + eyes.brow_outer * k),
    )
    color = _mix_colors(looks.hair, (30, 30, 40), 0.4)
    p.stroke(brow, looks.brow_width, color, soft=0.018, opacity=0.92)
    if is_droop:
        crease = trace_curve((inner_x - side * 0.05, y - 0.06), (inner_x - side * 0.02, y + 0.06))
        faint = 0.7 * expression.clarity
        p.stroke(crease, 0.02, _scale_color(looks.skin, 0.55), soft=0.015, opacity=faint)


def _paint_nose(p: Painter, looks: Looks, light: float) -> None:
    x, y, half = looks.side * 1.3, looks.nod + 0.22, looks.nose / 2
    skin = looks.skin
    s = -1 if np.cos(light) > 0 else 1  # the side in the shadow
    bridge = trace_curve((x + s * 0.06, y - 0.36), (x + s * 0.10, y - 0.03))
    p.stroke(bridge, 0.06, _scale_color(skin, 0.66), soft=0.04, opacity=0.65)
    p.stroke(
        trace_curve((x, y - 0.30), (x, y - 0.04)),
        0.07,
        _scale_color(skin, 1.18),
        soft=0.04,
        opacity=0.6,
    )
    p.fill(
        trace_ellipse(x, y + 0.06, half * 1.1, 0.05),
        _scale_color(skin, 0.60),
        soft=0.03,
        opacity=0.7,
    )
    wings = [
        trace_curve((x + t * 0.9, y - 0.07), (x + t * 1.15, y), (x + t * 0.8, y + 0.05))
        for t in (-half, half)
    ]
    p.stroke(wings, 0.022, _scale_color(skin, 0.52), soft=0.012, opacity=0.8)
    holes = [trace_ellipse(x + t * 0.48, y + 0.045, 0.035, 0.018) for t in (-half, half)]
    p.fill(holes, _scale_color(skin, 0.28), soft=0.01, opacity=0.9)


def _paint_smile(p: Painter, looks: Looks, clarity: float) -> None:
    x, y, k = looks.side, looks.nod + 0.52, looks.strength * clarity
    w = looks.mouth_width * (0.92 + 0.30 * clarity)
    left, right = (x - w, y - 0.08 * k), (x + w, y - 0.08 * k)
    lip, dark = _mix_colors(looks.skin, (70, 60, 160), 0.5), _scale_color(looks.skin, 0.52)
    for s in (-1, 1):  # the fold from the nose past the corner of the mouth, the lifted cheek
        end = (x + s * (w + 0.09), y + 0.04)
        fold = trace_curve((x + s * 0.19, y - 0.30), (x + s * 0.40, y - 0.20), end)
        p.stroke(fold, 0.04, dark, soft=0.03, opacity=0.75 * clarity)
        cheek = trace_ellipse(x + s * 0.44, y - 0.28, 0.15, 0.10)
        p.shade_outlines([cheek], 1 + 0.12 * clarity, soft=0.06)
    upper = trace_curve(left, (x, y + 0.02), right)
    if looks.is_mouth_open and clarity > _PARTED_FROM:
        lower = trace_curve(right, (x, y + 0.26 * k), left)
        inside = p.build_mask([join_lines(upper, lower)], soft=0.008)
        p.stroke(lower, 0.07, lip, soft=0.015)
        p.stroke(upper, 0.05, lip, soft=0.015)
        p.blend(inside, (40, 26, 60))
        teeth = join_lines(upper, trace_curve(right, (x, y + 0.16 * k), left))
        p.fill(teeth, (236, 240, 242), soft=0.012, within=inside)
    else:
        p.stroke(
            trace_curve((x - w * 0.8, y), (x, y + 0.15), (x + w * 0.8, y)), 0.08, lip, soft=0.03
        )
        p.stroke(trace_curve(left, (x, y + 0.11 * k), right), 0.035, (40, 34, 66), soft=0.01)
    corners = [trace_curve(c, (c[0] + s * 0.05, c[1] - 0.05)) for s, c in ((-1, left), (1, right))]
    p.stroke(corners, 0.035, _scale_color(looks.skin, 0.42), soft=0.015)
    chin = trace_curve((x - 0.2, y + 0.36 * k), (x, y + 0.39 * k), (x + 0.2, y + 0.36 * k))
    p.stroke(chin, 0.05, _scale_color(looks.skin, 0.7), soft=0.04, opacity=0.5)


def _paint_closed_mouth(p: Painter, looks: Looks, shape: _ClosedMouth) -> None:
    x, y, fall = looks.side, looks.nod + shape.height, shape.fall * looks.strength
    w = looks.mouth_width * shape.width
    left, right = (x - w, y + fall), (x + w, y + fall)
    middle = (x, y - shape.rise * looks.strength)
    lip, dark = _mix_colors(looks.skin, (74, 66, 150), 0.42), _scale_color(looks.skin, 0.52)
    p.fill(
        trace_ellipse(x, y + 0.23, 0.20, 0.04),
        _scale_color(looks.skin, 0.62),
        soft=0.05,
        opacity=0.6,
    )
    line = trace_curve(left, middle, right)
    p.fill(
        join_lines(trace_curve(left, (x, middle[1] - shape.upper_lip), right), line[::-1]),
        lip,
        0.02,
    )
    lower = trace_curve(right, (x, y + shape.lower_lip), left)
    p.fill(join_lines(line, lower), _scale_color(lip, 1.08), soft=0.02)
    p.stroke(line, 0.035, (40, 34, 60), soft=0.01)
    if not shape.fall:
        return
    for s, corner in ((-1, left), (1, right)):
        hook = trace_curve(corner, (corner[0] + s * 0.05, corner[1] + 0.08))
        p.stroke(hook, 0.04, dark, soft=0.02, opacity=shape.fold)
        fold = trace_curve(
            (x + s * 0.20, y - 0.28), (x + s * 0.34, y - 0.10), (x + s * 0.42, y + 0.10)
        )
        p.stroke(fold, 0.03, dark, soft=0.03, opacity=shape.fold)
    chin = trace_curve((x - 0.15, y + 0.27), (x, y + 0.22), (x + 0.15, y + 0.27))
    p.stroke(chin, 0.03, dark, soft=0.025, opacity=0.78 * shape.fold)


def _paint_glasses(p: Painter, looks: Looks) -> None:
    if not looks.has_glasses:
        return
    x, ex, y, r = looks.side, looks.eye_gap, looks.nod - 0.13, looks.eye_size * 1.6
    rims = [trace_ellipse(x + s * ex, y, r, r * 0.82) for s in (-1, 1)]
    bridge = trace_curve((x - ex + r, y), (x, y - 0.04), (x + ex - r, y))
    lines = [*(join_lines(rim, rim[:1]) for rim in rims), bridge]
    p.stroke(lines, 0.018, (40, 40, 46), soft=0.005, opacity=0.75)


def _paint_beard(p: Painter, looks: Looks, head: Mask) -> None:
    if not looks.has_beard:
        return
    y = looks.nod + 0.36
    chin = join_lines(
        trace_curve((-0.9, 0.1), (-0.45, y + 0.1), (0, y), (0.45, y + 0.1), (0.9, 0.1)),
        trace_curve((0.9, 0.1), (0.9, 1.2), (-0.9, 1.2), (-0.9, 0.1)),
    )
    p.fill(chin, _mix_colors(looks.hair, looks.skin, 0.45), soft=0.10, opacity=0.65, within=head)
