"""The records that flow from one step to the next, and the closed list of outcomes.

Nothing here touches S3, Postgres, a clock or an image: these are the words of the system as
types, which every other module may import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


class Outcome(StrEnum):
    """What became of an image. Every image seen ends with exactly one."""

    SCORED = "scored"
    NO_FACE = "no_face"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    VANISHED = "vanished"
    KILLED_WORKER = "killed_worker"
    CHANGED = "changed"
    FETCH_FAILED = "fetch_failed"


class Emotion(StrEnum):
    """The larger of p_happy and p_sad of a face."""

    HAPPY = "Happy"
    SAD = "Sad"


@dataclass(frozen=True, slots=True)
class Batch:
    """One facility's capture day."""

    facility_id: str
    capture_day: date


@dataclass(frozen=True, slots=True)
class Image:
    """One S3 object as a listing saw it. `member` is empty until archives are read."""

    batch: Batch
    key: str
    etag: str
    size_bytes: int
    member: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in the upright image, in pixels; (x, y) is its upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FaceScore:
    """What the CNN says of one face. The three probabilities sum to 1."""

    box: Box
    p_happy: float
    p_sad: float
    p_neither: float
    is_uncertain: bool
    detector_score: float | None = None

    @property
    def emotion(self) -> Emotion:
        return Emotion.HAPPY if self.p_happy >= self.p_sad else Emotion.SAD


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The outcome of one image, with its faces if it was scored.

    `reason` says in a few words why an image was not scored ("JPEG ends early"); it is never
    more than 200 characters and holds nothing of the image's content.
    """

    image: Image
    outcome: Outcome
    reason: str = ""
    width_px: int | None = None
    height_px: int | None = None
    faces: tuple[FaceScore, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Images of one batch whose key lies between two keys, both included, in byte order."""

    batch: Batch
    first_key: str
    last_key: str
    image_count: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Some key ranges with their counts: the unit of a mapped task and of a retry."""

    name: str
    ranges: tuple[KeyRange, ...] = field(default=())

    @property
    def image_count(self) -> int:
        return sum(r.image_count for r in self.ranges)
