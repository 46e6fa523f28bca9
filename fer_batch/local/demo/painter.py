"""Soft strokes and fills in the units of a face, on a picture of any size.

A unit is half the height of the head. x grows to the right, y down; (0, 0) is the middle of the
head. The pose (rotation, size, position) is applied to the points, not to the picture, so that a
face is drawn once, sharp, at its final position. The parts of a face are left to `heads`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]
"""Blue, green, red, 0 to 255."""
Points = NDArray[np.float64]
"""Shape (n, 2): x, y in units."""
Mask = NDArray[np.float32]
"""float32, shape of the patch, 0 to 1."""

_SHIFT = 4  # OpenCV takes points in 1/16 px
_TURN = np.linspace(0.0, 2 * np.pi, 48, endpoint=False)
_ROUND = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


def trace_ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    """Return 48 points of an ellipse; `turn` is in radians."""
    x, y = rx * _ROUND[:, 0], ry * _ROUND[:, 1]
    c, s = np.cos(turn), np.sin(turn)
    return np.stack([cx + c * x - s * y, cy + s * x + c * y], axis=1)


def trace_curve(*knots: tuple[float, float]) -> Points:
    """Return 24 points of a smooth line through the knots (a polynomial in a common parameter)."""
    line: Points = _compute_basis(len(knots)) @ np.asarray(knots, dtype=np.float64)
    return line


@cache
def _compute_basis(knots: int) -> NDArray[np.float64]:
    """Return the weight of each knot in each of a curve's 24 points; shape (24, knots)."""
    at, t = np.linspace(0.0, 1.0, knots), np.linspace(0.0, 1.0, 24)
    spread: NDArray[np.float64] = np.vander(t, knots) @ np.linalg.inv(np.vander(at))
    return spread


def join_lines(*lines: Points) -> Points:
    """Join consecutive lines into one outline."""
    return np.concatenate(lines, axis=0)


@dataclass
class Painter:
    """Paints on `canvas` (float32, height x width x 3, BGR 0 to 255), in place.

    `unit_px` is the length of one unit; `turn` is clockwise, in radians. Only the square patch
    around the head, `reach` units to each side, is changed: a small face in a large frame is fast.
    """

    canvas: NDArray[np.float32]
    center_px: tuple[float, float]
    unit_px: float
    turn: float = 0.0
    reach: float = 2.2
    _origin: tuple[int, int] = field(init=False)
    _patch: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        height, width = self.canvas.shape[:2]
        reach_px = self.reach * self.unit_px
        x0, y0 = (max(0, int(c - reach_px)) for c in self.center_px)
        x1 = min(width, int(self.center_px[0] + reach_px) + 1)
        y1 = min(height, int(self.center_px[1] + reach_px) + 1)
        self._origin = (x0, y0)
        self._patch = self.canvas[y0:y1, x0:x1]

    def to_px(self, points: Points) -> NDArray[np.float64]:
        """Convert points in units to pixels of the whole canvas."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        turned = points @ np.array([[c, s], [-s, c]])
        points_px: NDArray[np.float64] = turned * self.unit_px + np.asarray(self.center_px)
        return points_px

    def build_mask(self, outlines: Sequence[Points], soft: float = 0.0) -> Mask:
        """Return 1 inside any of the outlines, 0 outside; edges are blurred over `soft` units."""
        mask = np.zeros(self._patch.shape[:2], dtype=np.float32)
        rows, columns, values = self._fill_mask(outlines, soft)
        mask[rows, columns] = values
        return mask

    def blend(self, mask: Mask, color: Color, opacity: float = 1.0) -> None:
        """Blend a color into the patch, weighted by the mask."""
        self._blend_region(np.s_[:, :], mask * np.float32(opacity), color)

    def shade(self, mask: Mask, factor: float) -> None:
        """Make the masked part of the patch lighter (factor > 1) or darker (< 1)."""
        self._patch *= 1 + mask[..., None] * np.float32(factor - 1)

    def shade_outlines(
        self, outlines: Sequence[Points], factor: float, soft: float, within: Mask | None = None
    ) -> None:
        """Shade the inside of outlines, if `within` is given only there."""
        rows, columns, values = self._fill_mask(outlines, soft)
        if within is not None:
            values = values * within[rows, columns]
        self._patch[rows, columns] *= 1 + values[..., None] * np.float32(factor - 1)

    def fill(
        self,
        outlines: Points | Sequence[Points],
        color: Color,
        soft: float = 0.0,
        opacity: float = 1.0,
        within: Mask | None = None,
    ) -> None:
        """Fill outlines with a color, if `within` is given only there."""
        rows, columns, values = self._fill_mask(_to_list(outlines), soft)
        if within is not None:
            values = values * within[rows, columns]
        self._blend_region((rows, columns), values * np.float32(opacity), color)

    def stroke(
        self,
        lines: Points | Sequence[Points],
        width: float,
        color: Color,
        soft: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Draw lines of `width` units."""
        placed = [self._to_patch(line) for line in _to_list(lines)]
        thickness = max(1, round(width * self.unit_px))
        rows, columns, drawn = self._allocate_region(placed, soft * self.unit_px * 3 + thickness)
        cv2.polylines(
            drawn,
            self._to_fixed_point(placed, rows, columns),
            False,
            255,
            thickness,
            cv2.LINE_AA,
            _SHIFT,
        )
        # A line thinner than one pixel is drawn one pixel wide with less opacity.
        faint = min(1.0, width * self.unit_px) * opacity
        self._blend_region((rows, columns), self._soften(drawn, soft) * np.float32(faint), color)

    def _blend_region(self, where: tuple[slice, slice], strength: Mask, color: Color) -> None:
        below = self._patch[where]
        below += strength[..., None] * (np.asarray(color, dtype=np.float32) - below)

    def _fill_mask(self, outlines: Sequence[Points], soft: float) -> tuple[slice, slice, Mask]:
        placed = [self._to_patch(outline) for outline in outlines]
        rows, columns, drawn = self._allocate_region(placed, soft * self.unit_px * 3 + 1)
        for points in self._to_fixed_point(placed, rows, columns):
            cv2.fillPoly(drawn, [points], 255, cv2.LINE_AA, _SHIFT)
        return rows, columns, self._soften(drawn, soft)

    def _to_patch(self, points: Points) -> NDArray[np.float64]:
        patch_px: NDArray[np.float64] = self.to_px(points) - np.asarray(self._origin)
        return patch_px

    def _allocate_region(
        self, placed: Sequence[NDArray[np.float64]], margin_px: float
    ) -> tuple[slice, slice, NDArray[np.uint8]]:
        """Return the rows and columns that points and margin cover, and an empty mask for them."""
        height, width = self._patch.shape[:2]
        points = np.concatenate(placed)
        x0, y0 = np.clip(np.floor(points.min(axis=0) - margin_px), 0, (width - 1, height - 1))
        x1, y1 = np.clip(np.ceil(points.max(axis=0) + margin_px), (x0, y0), (width - 1, height - 1))
        rows, columns = slice(int(y0), int(y1) + 1), slice(int(x0), int(x1) + 1)
        return rows, columns, np.zeros((int(y1 - y0) + 1, int(x1 - x0) + 1), dtype=np.uint8)

    @staticmethod
    def _to_fixed_point(
        placed: Sequence[NDArray[np.float64]], rows: slice, columns: slice
    ) -> list[NDArray[np.int32]]:
        """Return the points relative to the corner of the region, in OpenCV's 1/16 pixels."""
        corner = (columns.start, rows.start)
        return [np.round((points - corner) * (1 << _SHIFT)).astype(np.int32) for points in placed]

    def _soften(self, drawn: NDArray[np.uint8], soft: float) -> Mask:
        mask = drawn.astype(np.float32) / np.float32(255)
        sigma = soft * self.unit_px
        if sigma > 0.3:
            mask = np.asarray(
                cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE),
                dtype=np.float32,
            )
        return mask

    def build_ramp(self, direction: float) -> Mask:
        """Return -1 to 1 across the head, growing towards `direction` (radians, 0 is right)."""
        height, width = self._patch.shape[:2]
        x = (np.arange(width) + self._origin[0] - self.center_px[0]) / self.unit_px
        y = (np.arange(height) + self._origin[1] - self.center_px[1]) / self.unit_px
        ramp = x[None, :] * np.cos(direction) + y[:, None] * np.sin(direction)
        clipped: Mask = np.clip(ramp, -1, 1).astype(np.float32)
        return clipped


def _to_list(shapes: Points | Sequence[Points]) -> list[Points]:
    return [shapes] if isinstance(shapes, np.ndarray) else list(shapes)
