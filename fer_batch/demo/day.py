"""What a demo runs on: some facilities, their images of one day, and what must come out.

Here the day is drawn: nobody's faces, with a known share of smiles, and a few broken files. The
drawing depends on nothing but its seed, so every machine draws the same day. The other kinds of
days are made by the modules beside this one.
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

from fer_batch.demo.drawing import draw_face, draw_frame
from fer_batch.demo.heads import Mouth
from fer_batch.faces import ImageKind
from fer_batch.images import Pixels
from fer_batch.records import Outcome

SEED = 48
MAX_SHARE_ERROR = 0.10


@dataclass(frozen=True, slots=True)
class DemoImage:
    """One object of the day: its name below the facility's prefix, and the outcome it must get.

    `content` are its bytes, or the file that holds them. `outcome` is None where nobody knows it
    beforehand.
    """

    name: str
    content: bytes | Path
    outcome: Outcome | None = Outcome.SCORED

    @property
    def data(self) -> bytes:
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


@dataclass(frozen=True, slots=True)
class DemoFacility:
    """One facility of a demo; `true_share` is the share of smiles that was drawn, if any was."""

    facility_id: str
    name: str
    time_zone: str
    image_kind: ImageKind
    images: Sequence[DemoImage]
    target_share: float = 0.6
    true_share: float | None = None

    @property
    def outcomes(self) -> Counter[str] | None:
        """How many images must end with each outcome; None where nobody knows."""
        if any(image.outcome is None for image in self.images):
            return None
        return Counter(str(image.outcome) for image in self.images)


@dataclass(frozen=True, slots=True)
class Scene:
    """How many faces of each kind a facility's day shows."""

    smiles: int
    droops: int
    levels: int

    @property
    def true_share(self) -> float:
        """Smiles among smiles and droops: what the happy share should be."""
        return self.smiles / (self.smiles + self.droops)

    def mouths(self, rng: np.random.Generator) -> list[Mouth]:
        """All of them, shuffled."""
        counts: dict[Mouth, int] = {
            "smile": self.smiles,
            "droop": self.droops,
            "level": self.levels,
        }
        every = [mouth for mouth, count in counts.items() for _ in range(count)]
        return [every[index] for index in rng.permutation(len(every))]


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


def drawn_day() -> list[DemoFacility]:
    """The three facilities of the demo with their images."""
    facilities = []
    for number, plan in enumerate(PLANS):
        rng = np.random.default_rng((SEED, number))
        good = _crops(plan, rng) if plan.image_kind == "crops" else _frames(plan, rng)
        images = [*good, *broken(plan.image_kind)]
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


def _crops(plan: Plan, rng: np.random.Generator) -> Iterator[DemoImage]:
    for number, mouth in enumerate(plan.scene.mouths(rng)):
        yield _encoded(f"face-{number:04}", draw_face(rng, mouth), number)


def _frames(plan: Plan, rng: np.random.Generator) -> Iterator[DemoImage]:
    mouths = plan.scene.mouths(rng)
    number = 0
    while mouths:
        shown, mouths = mouths[: (count := int(rng.integers(1, 4)))], mouths[count:]
        yield _encoded(f"frame-{number:04}", draw_frame(rng, shown)[0], 0)
        number += 1
    for _ in range(plan.empty_frames):
        yield _encoded(f"frame-{number:04}", draw_frame(rng, [])[0], 0, Outcome.NO_FACE)
        number += 1


def _encoded(
    name: str, pixels: Pixels, number: int, outcome: Outcome = Outcome.SCORED
) -> DemoImage:
    """As a camera would deliver it: mostly JPEG, every fourth a PNG."""
    if number % 4 == 3:
        return DemoImage(f"{name}.png", encoded(pixels, ".png"), outcome)
    return DemoImage(f"{name}.jpg", encoded(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 92), outcome)


def encoded(pixels: Pixels, extension: str, *parameters: int) -> bytes:
    """The bytes of a picture in the format of the extension."""
    done, data = cv2.imencode(extension, pixels, list(parameters))
    if not done:
        raise ValueError(f"OpenCV does not write {extension}")
    return data.tobytes()


def broken(kind: ImageKind) -> list[DemoImage]:
    """Files as a bad night delivers them, each with the outcome that it must get."""
    rng = np.random.default_rng(SEED)
    whole = encoded(draw_face(rng, "level", 96), ".jpg")
    page = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
    bomb = bytearray(encoded(np.zeros((16, 16, 3), np.uint8), ".png"))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2  # width and height in the header chunk
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")  # and its checksum
    speck = encoded(np.full((8, 8, 3), 128, np.uint8), ".png")
    found = [
        DemoImage("upload-1.jpg", b"", Outcome.EMPTY),
        DemoImage("upload-2.jpg", b"", Outcome.EMPTY),
        DemoImage("cut-short.jpg", whole[: len(whole) // 2], Outcome.UNREADABLE),
        DemoImage("error-page.jpg", page, Outcome.UNSUPPORTED),
        DemoImage("bomb.png", bytes(bomb), Outcome.TOO_LARGE),
    ]
    return found if kind == "frames" else [*found, DemoImage("speck.png", speck, Outcome.TOO_SMALL)]


def registry_text(facilities: Sequence[DemoFacility]) -> str:
    """A facility registry for the demo, with permissions that say what they are for."""
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


def keyed(facility: DemoFacility, day: date) -> Iterator[tuple[str, bytes]]:
    """The facility's objects of the day as (key, bytes)."""
    for image in facility.images:
        yield f"{facility.facility_id}/{day.isoformat()}/{image.name}", image.data


def compare(facility: DemoFacility, summary: Mapping[str, Any] | None) -> list[str]:
    """How a summary differs from what was made, in words; nothing where it does not."""
    if summary is None:
        return [f"{facility.facility_id}: has no summary"]
    problems = []
    if facility.outcomes is not None:
        found = Counter(summary["not_scored"]) + Counter(scored=summary["images_scored"])
        for outcome in sorted(facility.outcomes | found):
            wanted, counted = facility.outcomes[outcome], found[outcome]
            if wanted != counted:
                problems.append(
                    f"{facility.facility_id}: {counted} images are {outcome}, {wanted} were made"
                )
    if not summary["is_complete"]:
        problems.append(f"{facility.facility_id}: the summary is not complete")
    if facility.true_share is not None:
        share = summary["happy_share"]
        if share is None or not abs(share - facility.true_share) <= MAX_SHARE_ERROR:
            problems.append(
                f"{facility.facility_id}: the happy share is {share}, "
                f"{facility.true_share:.3f} was drawn"
            )
    return problems
