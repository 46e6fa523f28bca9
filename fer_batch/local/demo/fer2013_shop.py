"""Many shops made of real faces: PrivateTest of FER2013, mixed by the voters as in a shop.

What a face shows is what most FER+ voters said, as in the confusion matrix of the card, which
comes from the other test split (PublicTest). A face may occur in several facilities, but only once
in a facility's day. The pixels do not leave this machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch.local.demo.day import SEED, DemoFacility, DemoImage, encode_image
from fer_batch.local.demo.visits import Mix, Photograph, Traffic, count_faces, draw_visits
from fer_batch.model import fer2013
from fer_batch.model.confusion import find_plurality
from fer_batch.model.probabilities import CALLED_CLASSES
from fer_batch.records import CalledClass

FACILITIES = 200
VOTES = "fer2013new.csv"
OTHER_SHARE = 1 / 14
"""Of the faces that are neither happy nor sad, the share that voters do not call neutral."""
TRAFFIC = Traffic(visits=75, cameras=("till", "exit"), opens=8, closes=20)
HAPPY, SAD = (0.15, 0.35), (0.03, 0.07)
"""From which to which rate the shops differ."""


class Faces:
    """The faces of PrivateTest in groups: happy, sad, neutral and other.

    FER2013 has some pictures twice; only the first of them is used. `pixels` [N,48,48] and `votes`
    [N,10] are those that remain.
    """

    def __init__(self, pixels: NDArray[np.uint8], votes: NDArray[np.float32]) -> None:
        _, first = np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)
        self.pixels, self.votes = pixels[np.sort(first)], votes[np.sort(first)]
        votes = self.votes
        true = find_plurality(votes)
        is_neutral = votes.argmax(axis=1) == fer2013.VOTES_OF_CLASS[fer2013.NEUTRAL]
        is_neither = true == CALLED_CLASSES.index(CalledClass.NEITHER)
        self._rows = {
            "happy": np.flatnonzero(true == CALLED_CLASSES.index(CalledClass.HAPPY)),
            "sad": np.flatnonzero(true == CALLED_CLASSES.index(CalledClass.SAD)),
            "neutral": np.flatnonzero(is_neither & is_neutral),
            "other": np.flatnonzero(is_neither & ~is_neutral),
        }

    @cached_property
    def _data(self) -> list[bytes]:
        """The encoded faces."""
        return [encode_image(face, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95) for face in self.pixels]

    def draw_images(
        self, rng: np.random.Generator, photographs: Sequence[Photograph]
    ) -> Iterator[DemoImage]:
        """Give each photograph a face of its own that shows what the photograph shows.

        Raises ValueError if there are not enough faces.
        """
        for photograph, row in zip(photographs, self.draw_rows(rng, photographs), strict=True):
            yield DemoImage(f"{photograph.name}.jpg", self._data[row])

    def draw_rows(
        self, rng: np.random.Generator, photographs: Sequence[Photograph]
    ) -> Iterator[int]:
        """The rows of `pixels` and `votes` of the faces that `draw_images` gives."""
        left = {name: list(rng.permutation(rows)) for name, rows in self._rows.items()}
        for photograph in photographs:
            (face,) = photograph.faces
            group: str = face.value
            if face == CalledClass.NEITHER:
                group = "other" if rng.random() < OTHER_SHARE else "neutral"
            if not left[group]:
                raise ValueError(f"PrivateTest has too few {group} faces")
            yield int(left[group].pop())


def load_fer2013_shops(archive: Path, facilities: int = FACILITIES) -> list[DemoFacility]:
    """Return facilities with one day of about 300 faces each.

    The file fer2013new.csv of FER+ must be beside the archive. Raises ConfigurationError if one of
    them is missing or invalid.
    """
    faces = load_faces(archive)
    return [_draw_facility(faces, number) for number in range(facilities)]


def load_faces(archive: Path) -> Faces:
    """The faces of PrivateTest with their votes; see `load_fer2013_shops`."""
    split = fer2013.read(archive, archive.with_name(VOTES))["PrivateTest"]
    if split.votes is None:  # cannot be, because the votes were read; for the type checker
        raise ValueError("there are no votes")
    return Faces(split.pixels, split.votes)


def draw_mix(rng: np.random.Generator) -> Mix:
    """Draw the rates of a shop."""
    return Mix(rng.uniform(*HAPPY), rng.uniform(*SAD))


def _draw_facility(faces: Faces, number: int) -> DemoFacility:
    rng = np.random.default_rng((SEED, number))
    mix = draw_mix(rng)
    photographs = list(itertools.chain.from_iterable(draw_visits(rng, TRAFFIC, mix)))
    return DemoFacility(
        facility_id=f"fer2013-shop-{number + 1:03}",
        name=f"FER2013 shop {number + 1}",
        time_zone="UTC",
        image_kind="crops",
        images=list(faces.draw_images(rng, photographs)),
        faces=count_faces(photographs),
        mix=mix,
        has_times=True,
    )
