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
from statistics import fmean
from typing import NamedTuple


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
    ARCHIVED = "archived"  # final until a listing contains it and does not call it archived
    REFUSED = "refused"  # final until a listing contains it again: S3 returns others of its day
    DECODER_CRASHED = "decoder_crashed"  # final: decoding it crashed or hung scoring processes
    CHANGED = "changed"  # retried: overwritten between listing and fetching
    FETCH_FAILED = "fetch_failed"  # retried: S3 failed for this object, after retries


class Emotion(StrEnum):
    """The forced choice between two expressions, by the CNN's own probabilities."""

    HAPPY = "Happy"
    SAD = "Sad"


class CalledClass(StrEnum):
    """What a face is called and counted as, by a `CallingRule`."""

    HAPPY = "happy"
    SAD = "sad"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class CallingRule:
    """Thresholds, 0 to 1, for the shares of people who would call a face happy or sad.

    They are part of the manifest. `happy_from` is 0.5, the majority; `sad_from` comes from the
    card.
    """

    happy_from: float
    sad_from: float

    def call(self, p_happy: float, p_sad: float) -> CalledClass:
        """Happy from `happy_from` on, else sad from `sad_from` on, else neither."""
        if p_happy >= self.happy_from:
            return CalledClass.HAPPY
        return CalledClass.SAD if p_sad >= self.sad_from else CalledClass.NEITHER


@dataclass(frozen=True, slots=True)
class Batch:
    """One facility's capture day."""

    facility_id: str
    capture_day: date


class ListedImage(NamedTuple):
    """One object of a batch's listing, as it is written into the ledger.

    `is_archived` is whether, by the listing, S3 does not return it before it is restored.
    """

    key: str
    etag: str
    size_bytes: int
    is_archived: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """One S3 object as it was listed. `member` is empty until archives are supported."""

    batch: Batch
    key: str
    etag: str
    size_bytes: int
    member: str = ""
    is_archived: bool = False


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

    def count_shared_px(self, other: Box) -> int:
        """The number of pixels that are in both rectangles."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(width, 0) * max(height, 0)


@dataclass(frozen=True, slots=True)
class FaceScore:
    """The result for one face.

    `p_happy`, `p_sad` and `p_neither` (0 to 1, their sum is 1) estimate which shares of people
    would call the face happy, sad, or anything else. `happy_margin` (-1 to 1) is the CNN's own
    probability of happy minus that of sad, as trained on the labels of FER2013: it decides the
    forced choice `emotion`.
    """

    box: Box
    p_happy: float
    p_sad: float
    p_neither: float
    happy_margin: float
    called_class: CalledClass
    detector_score: float | None = None

    @property
    def emotion(self) -> Emotion:
        return choose_emotion(self.happy_margin)


def choose_emotion(happy_margin: float) -> Emotion:
    """Happy unless the CNN finds sad more probable."""
    return Emotion.HAPPY if happy_margin >= 0 else Emotion.SAD


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The outcome of one image, with its faces if it was scored.

    `reason` states briefly why an image was not scored ("JPEG ends early"); it has at most
    200 characters and holds nothing of the image's content. `called_class` is that of the means
    over its faces; it is None without faces.
    """

    image: Image
    outcome: Outcome
    reason: str = ""
    width_px: int | None = None
    height_px: int | None = None
    faces: tuple[FaceScore, ...] = ()
    called_class: CalledClass | None = None

    @classmethod
    def from_faces(
        cls,
        image: Image,
        width_px: int,
        height_px: int,
        faces: tuple[FaceScore, ...],
        rule: CallingRule,
    ) -> ImageScore:
        """The score of an image that was decoded: `scored`, or `no_face` without faces."""
        if not faces:
            return cls(image, Outcome.NO_FACE, "no face was found", width_px, height_px)
        called_class = rule.call(
            fmean(face.p_happy for face in faces), fmean(face.p_sad for face in faces)
        )
        return cls(image, Outcome.SCORED, "", width_px, height_px, faces, called_class)

    @property
    def emotion(self) -> Emotion | None:
        """The forced choice by the mean margin of its faces; None without faces."""
        if not self.faces:
            return None
        return choose_emotion(fmean(face.happy_margin for face in self.faces))


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
