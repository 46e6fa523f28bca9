"""The input of a demo: facilities, their images of one day, and the expected result.

This module draws the day: synthetic faces with a known share of smiles, and a few broken files. The
drawing depends only on its seed, so every machine draws the same day. The other kinds of days are
created by `fer2013_day` and `photographs`.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.faces import ImageKind
from fer_batch.local.demo.drawing import draw_face, draw_frame
from fer_batch.local.demo.heads import Mouth
from fer_batch.records import Outcome

SEED = 48
MAX_SHARE_ERROR = 0.10


@dataclass(frozen=True, slots=True)
class DemoImage:
    """One object of the day: its name below the facility's prefix, and its expected outcome.

    `content` is its bytes, or the file with them. `outcome` is None if it is unknown.
    """

    name: str
    content: bytes | Path
    outcome: Outcome | None = Outcome.SCORED

    @property
    def data(self) -> bytes:
        """The bytes of the object."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


@dataclass(frozen=True, slots=True)
class DemoFacility:
    """One facility of a demo; `true_share` is the share of smiles that was drawn, if known."""

    facility_id: str
    name: str
    time_zone: str
    image_kind: ImageKind
    images: Sequence[DemoImage]
    target_share: float = 0.6
    true_share: float | None = None

    @property
    def outcomes(self) -> Counter[str] | None:
        """The expected number of images with each outcome; None if it is unknown."""
        if any(image.outcome is None for image in self.images):
            return None
        return Counter(str(image.outcome) for image in self.images)


@dataclass(frozen=True, slots=True)
class Scene:
    """The number of faces of each kind on a facility's day."""

    smiles: int
    droops: int
    levels: int

    @property
    def true_share(self) -> float:
        """Smiles among smiles and droops: the expected happy share."""
        return self.smiles / (self.smiles + self.droops)

    def draw_mouths(self, rng: np.random.Generator) -> list[Mouth]:
        """Return the mouth of each face, in random order."""
        counts: dict[Mouth, int] = {
            "smile": self.smiles,
            "droop": self.droops,
            "level": self.levels,
        }
        mouths = [mouth for mouth, count in counts.items() for _ in range(count)]
        return [mouths[index] for index in rng.permutation(len(mouths))]


@dataclass(frozen=True, slots=True)
class Plan:
    """A facility to draw."""

    facility_id: str
    name: str
    time_zone: str
    image_kind: ImageKind
    scene: Scene
    target_share: float
    empty_frames: int = 0


PLANS = (
    Plan("harbour-cafe", "Harbour Café", "Europe/Berlin", "crops", Scene(238, 42, 20), 0.75),
    Plan("maple-clinic", "Maple Clinic", "America/Toronto", "crops", Scene(143, 117, 20), 0.7),
    Plan("lotus-mall", "Lotus Mall", "Asia/Tokyo", "frames", Scene(140, 60, 12), 0.7, 6),
)


def draw_day() -> list[DemoFacility]:
    """Draw the three facilities of the demo with their images."""
    facilities = []
    for number, plan in enumerate(PLANS):
        rng = np.random.default_rng((SEED, number))
        good = _draw_crops(plan, rng) if plan.image_kind == "crops" else _draw_frames(plan, rng)
        images = [*good, *make_broken_files(plan.image_kind)]
        facilities.append(
            DemoFacility(
                plan.facility_id,
                plan.name,
                plan.time_zone,
                plan.image_kind,
                images,
                plan.target_share,
                plan.scene.true_share,
            )
        )
    return facilities


def _draw_crops(plan: Plan, rng: np.random.Generator) -> Iterator[DemoImage]:
    for number, mouth in enumerate(plan.scene.draw_mouths(rng)):
        yield _make_image(f"face-{number:04}", draw_face(rng, mouth), number)


def _draw_frames(plan: Plan, rng: np.random.Generator) -> Iterator[DemoImage]:
    mouths = plan.scene.draw_mouths(rng)
    number = 0
    while mouths:
        count = int(rng.integers(1, 4))
        yield _make_image(f"frame-{number:04}", draw_frame(rng, mouths[:count])[0], 0)
        mouths = mouths[count:]
        number += 1
    for _ in range(plan.empty_frames):
        yield _make_image(f"frame-{number:04}", draw_frame(rng, [])[0], 0, Outcome.NO_FACE)
        number += 1


def _make_image(
    name: str, pixels: Pixels, number: int, outcome: Outcome = Outcome.SCORED
) -> DemoImage:
    """Encode an image as a camera would deliver it: JPEG, every fourth a PNG."""
    if number % 4 == 3:
        return DemoImage(f"{name}.png", encode_image(pixels, ".png"), outcome)
    return DemoImage(
        f"{name}.jpg", encode_image(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 92), outcome
    )


def encode_image(pixels: Pixels, extension: str, *parameters: int) -> bytes:
    """Encode a picture in the format of the extension. Raises ValueError if OpenCV cannot."""
    is_encoded, data = cv2.imencode(extension, pixels, list(parameters))
    if not is_encoded:
        raise ValueError(f"OpenCV cannot write {extension}")
    return data.tobytes()


def make_broken_files(kind: ImageKind) -> list[DemoImage]:
    """Return broken and unsuitable files, each with its expected outcome."""
    rng = np.random.default_rng(SEED)
    whole = encode_image(draw_face(rng, "level", 96), ".jpg")
    page = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
    bomb = bytearray(encode_image(np.zeros((16, 16, 3), np.uint8), ".png"))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2  # width and height in the header chunk
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")  # and its checksum
    speck = encode_image(np.full((8, 8, 3), 128, np.uint8), ".png")
    files = [
        DemoImage("upload-1.jpg", b"", Outcome.EMPTY),
        DemoImage("upload-2.jpg", b"", Outcome.EMPTY),
        DemoImage("cut-short.jpg", whole[: len(whole) // 2], Outcome.UNREADABLE),
        DemoImage("error-page.jpg", page, Outcome.UNSUPPORTED),
        DemoImage("bomb.png", bytes(bomb), Outcome.TOO_LARGE),
    ]
    return files if kind == "frames" else [*files, DemoImage("speck.png", speck, Outcome.TOO_SMALL)]


def format_registry(facilities: Sequence[DemoFacility]) -> str:
    """Return a facility registry for the demo, with permissions that state their purpose."""
    return "\n".join(
        f"""[facility.{facility.facility_id}]
name = "{facility.name}"
time_zone = "{facility.time_zone}"
image_kind = "{facility.image_kind}"
target_share = {facility.target_share}

[facility.{facility.facility_id}.permission]
purpose = "fer-batch demo on this machine"
lawful_basis = "given by the person who runs the demo"
approved_by = "the person who runs the demo"
valid_until = 2099-12-31
"""
        for facility in facilities
    )


def list_objects(facility: DemoFacility, day: date) -> Iterator[tuple[str, bytes]]:
    """Yield the facility's objects of the day as (key, bytes)."""
    for image in facility.images:
        yield f"{facility.facility_id}/{day.isoformat()}/{image.name}", image.data


def compare_summary(facility: DemoFacility, summary: Mapping[str, Any] | None) -> list[str]:
    """Return a message for each difference between a summary and the input."""
    if summary is None:
        return [f"{facility.facility_id}: there is no summary"]
    problems = []
    if facility.outcomes is not None:
        counts = Counter(summary["not_scored"]) + Counter(scored=summary["images_scored"])
        for outcome in sorted(facility.outcomes | counts):
            expected, actual = facility.outcomes[outcome], counts[outcome]
            if expected != actual:
                problems.append(
                    f"{facility.facility_id}: {actual} images are {outcome}, expected {expected}"
                )
    if not summary["is_complete"]:
        problems.append(f"{facility.facility_id}: the summary is not complete")
    if facility.true_share is not None:
        share = summary["happy_share"]
        if share is None or not abs(share - facility.true_share) <= MAX_SHARE_ERROR:
            problems.append(
                f"{facility.facility_id}: the happy share is {share}, "
                f"expected {facility.true_share:.3f}"
            )
    return problems
