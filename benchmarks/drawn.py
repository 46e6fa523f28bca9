"""The synthetic day of images, drawn with the demo's code; the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import cv2
import numpy as np

from fer_batch.local.demo.day import DemoFacility, DemoImage, encode_image
from fer_batch.local.demo.drawing import MAX_FACES, Group, Room, draw_face
from fer_batch.local.demo.heads import Expression, Mouth

SEED = 4
DAY = date(2026, 1, 15)
CROPS, FRAMES = "bench-crops", "bench-frames"
"""The ids of the two facilities."""
MOUTHS: tuple[Mouth, ...] = ("smile", "droop", "level")


def build_crops_day(count: int) -> DemoFacility:
    """Gray crops of 48×48 and 1 to 2 KB, three JPEGs to one PNG."""
    return DemoFacility(CROPS, "Crops", "UTC", "crops", list(_generate_crops(count)))


def build_frames_day(count: int) -> DemoFacility:
    """Color JPEGs of 640×480 with 0 to 5 faces, each number of faces equally often."""
    return DemoFacility(FRAMES, "Frames", "UTC", "frames", list(_generate_frames(count)))


def _generate_crops(count: int) -> Iterator[DemoImage]:
    rng = np.random.default_rng((SEED, 0))
    for number in range(count):
        face = draw_face(rng, MOUTHS[number % len(MOUTHS)])
        gray = np.asarray(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), np.uint8)
        if number % 4 == 3:
            yield DemoImage(f"face-{number:06}.png", encode_image(gray, ".png"))
        else:
            data = encode_image(gray, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
            yield DemoImage(f"face-{number:06}.jpg", data)


def _generate_frames(count: int) -> Iterator[DemoImage]:
    rng = np.random.default_rng((SEED, 1))
    for number in range(count):
        mouths = [MOUTHS[n] for n in rng.integers(0, len(MOUTHS), number % (MAX_FACES + 1))]
        group = Group(rng, Room.draw_random(rng), len(mouths))
        frame = group.photograph(rng, [Expression(mouth) for mouth in mouths])
        data = encode_image(frame, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 90)
        yield DemoImage(f"frame-{number:06}.jpg", data)
