"""The records that pass from one step to the next, and the closed list of outcomes.

On its way from the listing to a row, an image is an `Image`, then a `FetchedImage`, then the
`ExtractedFaces` of imaging.faces, and at last an `ImageScore` with its `FaceScore`s. A step that
cannot go on returns the `ImageScore` at once. Nothing here touches S3, Postgres, a clock or an
image decoder, so every other module may import these types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


class Outcome(StrEnum):
    """The result of processing an image. Every listed image ends with exactly one.

    A final outcome is not retried while the image has the same ETag. The SQL function
    `fer.is_final` decides which outcomes are final.
    """

    SCORED = "scored"  # final: its faces were detected and classified
    NO_FACE = "no_face"  # final: decoded, but no face was detected
    EMPTY = "empty"  # final: an object of 0 bytes
    UNREADABLE = "unreadable"  # final: damaged or truncated
    UNSUPPORTED = "unsupported"  # final: its content is not a supported JPEG, PNG or WebP
    TOO_LARGE = "too_large"  # final: more bytes or pixels than the settings allow
    TOO_SMALL = "too_small"  # final: its shorter side is below FER_MIN_IMAGE_PX
    MISSING = "missing"  # final until a listing contains it again: absent when it was fetched
    DECODER_CRASHED = "decoder_crashed"  # final: decoding it crashed or hung scoring processes
    CHANGED = "changed"  # retried: overwritten between listing and fetching
    FETCH_FAILED = "fetch_failed"  # retried: S3 failed for this object, after retries


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
    """One S3 object as it was listed. `member` is empty until archives are supported."""

    batch: Batch
    key: str
    etag: str
    size_bytes: int
    member: str = ""


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """An image with its bytes, not decoded yet."""

    image: Image
    data: bytes


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in the upright image, in pixels; (x, y) is its upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FaceScore:
    """The CNN's result for one face. The three probabilities sum to 1."""

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

    `reason` states briefly why an image was not scored ("JPEG ends early"); it has at most
    200 characters and holds nothing of the image's content.
    """

    image: Image
    outcome: Outcome
    reason: str = ""
    width_px: int | None = None
    height_px: int | None = None
    faces: tuple[FaceScore, ...] = ()

    @classmethod
    def from_faces(
        cls, image: Image, width_px: int, height_px: int, faces: tuple[FaceScore, ...]
    ) -> ImageScore:
        """The score of an image that was decoded: `scored`, or `no_face` without faces."""
        if faces:
            return cls(image, Outcome.SCORED, "", width_px, height_px, faces)
        return cls(image, Outcome.NO_FACE, "no face was found", width_px, height_px)


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Images of one batch whose key lies between two keys, both included, in byte order."""

    batch: Batch
    first_key: str
    last_key: str
    image_count: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Key ranges with their image counts: the unit of a mapped task and of a retry."""

    name: str
    ranges: tuple[KeyRange, ...] = field(default=())

    @property
    def image_count(self) -> int:
        return sum(r.image_count for r in self.ranges)
