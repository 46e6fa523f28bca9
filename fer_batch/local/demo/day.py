"""The input of a demo: facilities, their images of one day, and the expected result.

Facilities are created by `shops` (synthetic faces), `fer2013_day`, `fer2013_shop` and
`photographs`. Here is what they have in common: objects, the registry and the comparison with the
tables.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.faces import ImageKind
from fer_batch.local.demo.drawing import draw_face
from fer_batch.local.demo.visits import Mix
from fer_batch.records import CalledClass, Outcome

SEED = 48
NAME_TEMPLATE = "{camera}_{captured_at:%H%M%S}.{*}"
"""The names of images with camera and local time: `visits.Photograph.name` with an extension."""


@dataclass(frozen=True, slots=True)
class DemoImage:
    """One object of the day: its name below the facility's prefix, and its expected outcome.

    `content` is its bytes, or the file with them. `outcome` is None if it is unknown. `face` is
    what the one face of a crop shows, None if it is unknown.
    """

    name: str
    content: bytes | Path
    outcome: Outcome | None = Outcome.SCORED
    face: CalledClass | None = None

    @property
    def data(self) -> bytes:
        """The bytes of the object."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


@dataclass(frozen=True, slots=True)
class DemoFacility:
    """One facility of a demo with the images of one day.

    `faces` counts the faces of different images by what they show, and `mix` is the shop that they
    come from; both are None if they are unknown. With `has_times` the names of the images carry
    camera and local time. A closed day has no images.
    """

    facility_id: str
    name: str
    time_zone: str
    image_kind: ImageKind
    images: Sequence[DemoImage]
    faces: Counter[CalledClass] | None = None
    mix: Mix | None = None
    has_times: bool = False
    group: str | None = None
    target_rate: float | None = None
    publish_period: Literal["day", "week"] = "day"
    closed_weekdays: Sequence[str] = ()

    @property
    def outcomes(self) -> Counter[str] | None:
        """The expected number of images with each outcome; None if it is unknown."""
        if any(image.outcome is None for image in self.images):
            return None
        return Counter(str(image.outcome) for image in self.images)

    @property
    def true_rates(self) -> Mix | None:
        """The shares of all faces of the day that are happy and sad, if there are any."""
        return compute_rates(self.faces) if self.faces else None


def compute_rates(faces: Counter[CalledClass]) -> Mix:
    """The shares of happy and sad faces; at least one face is needed."""
    return Mix(
        faces[CalledClass.HAPPY] / faces.total(),
        faces[CalledClass.SAD] / faces.total(),
    )


def encode_image(pixels: Pixels, extension: str, *parameters: int) -> bytes:
    """Encode a picture in the format of the extension. Raises ValueError if OpenCV cannot."""
    is_encoded, data = cv2.imencode(extension, pixels, list(parameters))
    if not is_encoded:
        raise ValueError(f"OpenCV cannot write {extension}")
    return data.tobytes()


def make_broken_files(kind: ImageKind, camera: str) -> list[DemoImage]:
    """Return broken and unsuitable files, each with its expected outcome."""
    rng = np.random.default_rng(SEED)
    whole = encode_image(draw_face(rng, "level", 96), ".jpg")
    page = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
    bomb = bytearray(encode_image(np.zeros((16, 16, 3), np.uint8), ".png"))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2  # width and height in the header chunk
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")  # and its checksum
    files = [
        ("jpg", b"", Outcome.EMPTY),
        ("jpg", b"", Outcome.EMPTY),
        ("jpg", whole[: len(whole) // 2], Outcome.UNREADABLE),
        ("jpg", page, Outcome.UNSUPPORTED),
        ("png", bytes(bomb), Outcome.TOO_LARGE),
    ]
    if kind == "crops":
        speck = encode_image(np.full((8, 8, 3), 128, np.uint8), ".png")
        files.append(("png", speck, Outcome.TOO_SMALL))
    # Shortly after midnight, when no visitor comes.
    return [
        DemoImage(f"{camera}_0000{second:02}.{extension}", data, outcome)
        for second, (extension, data, outcome) in enumerate(files)
    ]


def format_registry(facilities: Sequence[DemoFacility]) -> str:
    """Return a facility registry for the demo, with permissions that state their purpose."""
    return "\n".join(_format_facility(facility) for facility in facilities)


def _format_facility(facility: DemoFacility) -> str:
    optional = ""
    if facility.group is not None:
        optional += f'group = "{facility.group}"\n'
    if facility.closed_weekdays:
        optional += f"closed_weekdays = {json.dumps(list(facility.closed_weekdays))}\n"
    if facility.has_times:
        optional += f'name_template = "{NAME_TEMPLATE}"\n'
    if facility.target_rate is not None:
        optional += f"target_rate = {facility.target_rate}\n"
    if facility.publish_period != "day":
        optional += f'publish_period = "{facility.publish_period}"\n'
    return f"""[facility.{facility.facility_id}]
name = "{facility.name}"
time_zone = "{facility.time_zone}"
image_kind = "{facility.image_kind}"
audience = "customers"
jurisdiction = "EU"
{optional}
[facility.{facility.facility_id}.permission]
purpose = "fer-batch demo on this machine"
lawful_basis = "given by the person who runs the demo"
approved_by = "the person who runs the demo"
valid_until = 2099-12-31
notice_day = 2000-01-01
assessment_day = 2000-01-01
"""


def list_objects(facility: DemoFacility, day: date) -> Iterator[tuple[str, bytes]]:
    """Yield the facility's objects of the day as (key, bytes)."""
    for image in facility.images:
        yield f"{facility.facility_id}/{day.isoformat()}/{image.name}", image.data


def compare_summary(facility: DemoFacility, summary: Mapping[str, Any] | None) -> list[str]:
    """Return a message for each difference between the counts of a summary and the input."""
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
    return problems


def compare_rates(facility: DemoFacility, summary: Mapping[str, Any] | None) -> list[str]:
    """Return a message for each published interval without the rate of the day's faces."""
    if summary is None or facility.true_rates is None:
        return []
    problems = []
    for name, rate in (("happy", facility.true_rates.happy), ("sad", facility.true_rates.sad)):
        low, high = summary[f"{name}_rate_low"], summary[f"{name}_rate_high"]
        if low is not None and not low <= rate <= high:
            problems.append(
                f"{facility.facility_id}: the {name} rate is {low:.3f} to {high:.3f}, "
                f"expected {rate:.3f}"
            )
    return problems
