"""Draws synthetic faces: cartoon heads that smile, droop or stay level, alone or in a frame.

The demo needs pictures with known labels that show no real person. Looks, pose, light, blur and
noise depend only on the random generator that is passed in: the same generator state yields the
same pixels. Nothing is taken from a photograph, and the CNN that ships is never trained on these
pictures. How a head is painted is left to `heads`.

A visitor is painted once, without an expression. Each photograph then adds an expression and what
the camera does, which is several times faster than painting everything again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch.imaging.decoding import Pixels
from fer_batch.local.demo.heads import (
    Expression,
    Mouth,
    paint_expression,
    paint_head,
    paint_torso,
)
from fer_batch.local.demo.looks import Looks, jitter_color
from fer_batch.local.demo.painter import Painter
from fer_batch.records import Box

FRAME_WIDTH_PX, FRAME_HEIGHT_PX = 640, 480
MAX_FACES = 5
CROP_PX = 48
_CROP_UNITS = 1.86
"""Side of a crop in units. As in FER2013, a crop shows a face from the hairline to the chin."""
_MARGIN = 0.06
"""The painted picture is larger than a crop by this share: a visitor moves between photographs."""


class Portrait:
    """A visitor before a wall, who is photographed in square crops that the face fills."""

    def __init__(self, rng: np.random.Generator, size_px: int = CROP_PX) -> None:
        self._size_px = size_px
        self._fine_px = max(size_px, 2 * CROP_PX)
        side_px = self._fine_px + round(_MARGIN * self._fine_px)
        self._canvas = _draw_wall(rng, side_px, side_px)
        self._unit_px = self._fine_px / _CROP_UNITS * rng.uniform(0.92, 1.06)
        self._center_px = (side_px / 2, side_px / 2 - 0.08 * self._unit_px)
        self._turn = _draw_turn(rng)
        self._looks = Looks.draw_random(rng)
        painter = self._build_painter(self._canvas)
        paint_torso(painter, self._looks)
        paint_head(painter, self._looks, light=rng.uniform(0, 2 * np.pi))

    def photograph(self, rng: np.random.Generator, expression: Expression) -> Pixels:
        """Return a crop of the visitor with this expression: uint8 BGR, size_px x size_px x 3."""
        canvas = self._canvas.copy()
        paint_expression(self._build_painter(canvas), self._looks, expression)
        x, y = rng.integers(0, canvas.shape[0] - self._fine_px + 1, 2)
        crop = canvas[y : y + self._fine_px, x : x + self._fine_px]
        size_px = self._size_px
        small = cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA)
        blur_px = rng.uniform(0.0, 0.6) * size_px / CROP_PX
        return _simulate_camera(rng, np.asarray(small, np.float32), blur_px, rng.uniform(0.5, 4.0))

    def _build_painter(self, canvas: NDArray[np.float32]) -> Painter:
        return Painter(canvas, self._center_px, self._unit_px, turn=self._turn)


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """What a camera sees without visitors: `canvas` is float32 BGR 480 x 640 x 3."""

    canvas: NDArray[np.float32]
    light: float
    counter: int
    counter_color: tuple[float, float, float]

    @classmethod
    def draw_random(cls, rng: np.random.Generator) -> Self:
        """Draw a room from the generator; nothing else influences it."""
        canvas = _draw_wall(rng, FRAME_HEIGHT_PX, FRAME_WIDTH_PX)
        _furnish(rng, canvas)
        return cls(
            canvas,
            light=rng.uniform(0, 2 * np.pi),
            counter=int(FRAME_HEIGHT_PX * rng.uniform(0.90, 0.96)),
            counter_color=jitter_color(rng, (80, 105, 135), 25),
        )


class Group:
    """Visitors in a room, at most five, who are photographed in frames of the whole room.

    `boxes` has the box of each face from hairline to chin. Raises ValueError for more visitors.
    """

    def __init__(self, rng: np.random.Generator, room: Room, faces: int) -> None:
        if faces > MAX_FACES:
            raise ValueError(f"a frame holds at most {MAX_FACES} faces, not {faces}")
        self._canvas = room.canvas.copy()
        self._positions = _place_heads(rng, faces)
        self._looks = [Looks.draw_random(rng) for _ in range(faces)]
        self._turns = [_draw_turn(rng) for _ in range(faces)]
        self.boxes = [_compute_box(painter) for painter in self._build_painters(self._canvas)]
        # From the back to the front, so that no shoulders hide a face.
        order = sorted(range(faces), key=lambda n: self._positions[n][1])
        painters = self._build_painters(self._canvas)
        for n in order:
            x, y, unit_px = self._positions[n]
            paint_torso(Painter(self._canvas, (x, y), unit_px, reach=14.0), self._looks[n])
            paint_head(painters[n], self._looks[n], room.light)
        self._canvas[room.counter :] = np.asarray(room.counter_color, dtype=np.float32)

    def photograph(self, rng: np.random.Generator, expressions: Sequence[Expression]) -> Pixels:
        """Return a frame with an expression for each visitor: uint8 BGR 480 x 640 x 3."""
        canvas = self._canvas.copy()
        for painter, looks, expression in zip(
            self._build_painters(canvas), self._looks, expressions, strict=True
        ):
            paint_expression(painter, looks, expression)
        return _simulate_camera(rng, canvas, rng.uniform(0, 0.9), rng.uniform(0.5, 4.0))

    def _build_painters(self, canvas: NDArray[np.float32]) -> list[Painter]:
        return [
            Painter(canvas, (x, y), unit_px, turn=turn)
            for (x, y, unit_px), turn in zip(self._positions, self._turns, strict=True)
        ]


def draw_face(rng: np.random.Generator, mouth: Mouth, size_px: int = CROP_PX) -> Pixels:
    """Draw one face that fills a square crop: uint8 BGR, size_px x size_px x 3."""
    return Portrait(rng, size_px).photograph(rng, Expression(mouth))


def _place_heads(rng: np.random.Generator, faces: int) -> list[tuple[float, float, float]]:
    """Return x and y of the middle and half the height of each head, in px; they do not overlap."""
    columns = max(faces, 2)
    column_px = FRAME_WIDTH_PX / columns
    positions = []
    for column in rng.permutation(columns)[:faces]:
        unit_px = rng.uniform(34, min(75.0, column_px / 2.4))
        sway = column_px / 2 - 1.15 * unit_px
        x = (column + 0.5) * column_px + rng.uniform(-sway, sway)
        y = rng.uniform(max(1.3 * unit_px, 130), FRAME_HEIGHT_PX - 2.2 * unit_px)
        positions.append((float(x), float(y), float(unit_px)))
    return positions


def _draw_turn(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(0, 0.09), -0.22, 0.22))


def _compute_box(painter: Painter) -> Box:
    corners = np.array([(x, y) for x in (-0.75, 0.75) for y in (-0.75, 1.0)])
    middle = painter.to_px(corners).mean(axis=0)
    width, height = 1.5 * painter.unit_px, 1.75 * painter.unit_px
    return Box(
        round(middle[0] - width / 2), round(middle[1] - height / 2), round(width), round(height)
    )


def _draw_wall(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Draw a plain wall, lit from one side: float32 BGR."""
    gray = rng.uniform(95, 205)
    tone = np.asarray(jitter_color(rng, (gray, gray, gray), 18), dtype=np.float32)
    x, y = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    turn = rng.uniform(0, 2 * np.pi)
    ramp = (x * np.cos(turn) + y * np.sin(turn)) * rng.uniform(0.05, 0.22)
    wall: NDArray[np.float32] = (tone * (1 + ramp[..., None])).astype(np.float32)
    return wall


def _furnish(rng: np.random.Generator, canvas: NDArray[np.float32]) -> None:
    """Draw posters and a shelf: edges and surfaces without a face."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = int(rng.integers(40, 220)), int(rng.integers(20, 160))
        gray = rng.uniform(60, 210)
        canvas[y : y + h, x : x + w] = np.asarray(
            jitter_color(rng, (gray, gray, gray), 28), np.float32
        )
        canvas[y : y + 3, x : x + w] *= 0.6
    shelf = int(rng.integers(30, height - 30))
    canvas[shelf : shelf + 6] *= rng.uniform(0.55, 0.85)


def _simulate_camera(
    rng: np.random.Generator, canvas: NDArray[np.float32], blur_px: float, noise: float
) -> Pixels:
    """Apply the exposure, contrast, blur and noise of a camera."""
    mean = canvas.mean()
    canvas = (canvas - mean) * rng.uniform(0.85, 1.15) + mean * rng.uniform(0.82, 1.15)
    if blur_px > 0.2:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), blur_px), dtype=np.float32)
    grain = rng.normal(0.0, noise, canvas.shape[:2])[..., None]
    return np.clip(np.round(canvas + grain), 0, 255).astype(np.uint8)
