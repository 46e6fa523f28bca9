"""How people come to a shop: visits of several photographs, by camera and time, with known truth.

Faces of one visit are alike: a visitor mostly keeps an expression while the camera delivers a
photograph every few seconds. What a photograph looks like is left to `shops` (synthetic faces) and
`fer2013_shop` (faces of FER2013).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fer_batch.records import CalledClass

CORRELATION = 0.5
"""Intraclass correlation: of the expressions in two photographs of a visitor."""
MEAN_PHOTOGRAPHS = 4
"""The mean number of photographs of a visit, which is geometric."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The rates of a shop in the long run: shares (0 to 1) of all faces."""

    happy: float
    sad: float

    def draw(self, rng: np.random.Generator) -> CalledClass:
        """Draw what a face shows."""
        at = rng.random()
        if at < self.happy:
            return CalledClass.HAPPY
        return CalledClass.SAD if at < self.happy + self.sad else CalledClass.NEITHER


@dataclass(frozen=True, slots=True)
class Traffic:
    """The visits of a day. Opening hours are hours of the local day."""

    visits: int
    cameras: tuple[str, ...]
    opens: int
    closes: int
    most_people: int = 1

    def shrink(self, share: float) -> Traffic:
        """The traffic of a day with this share of the visits."""
        visits = max(1, round(self.visits * share))
        return Traffic(visits, self.cameras, self.opens, self.closes, self.most_people)


@dataclass(frozen=True, slots=True)
class Photograph:
    """One photograph: seconds since local midnight, and what the face of each person shows."""

    camera: str
    second: int
    faces: tuple[CalledClass, ...]

    @property
    def name(self) -> str:
        """Camera and local time, as `till_143005`, for the object's key."""
        minutes, seconds = divmod(self.second, 60)
        return f"{self.camera}_{minutes // 60:02}{minutes % 60:02}{seconds:02}"


Visit = tuple[Photograph, ...]
"""The photographs of one visit, in order of time; all have the same number of faces."""


def draw_visits(rng: np.random.Generator, traffic: Traffic, mix: Mix) -> Iterator[Visit]:
    """Draw the visits of a day. No camera delivers two photographs in one second."""
    used: dict[str, set[int]] = {camera: set() for camera in traffic.cameras}
    for _ in range(traffic.visits):
        camera = traffic.cameras[rng.integers(len(traffic.cameras))]
        people = int(rng.integers(1, traffic.most_people + 1))
        expressions = [mix.draw(rng) for _ in range(people)]
        second = int(rng.integers(traffic.opens * 3600, traffic.closes * 3600))
        photographs = []
        for _ in range(rng.geometric(1 / MEAN_PHOTOGRAPHS)):
            while second in used[camera]:
                second += 1
            used[camera].add(second)
            faces = tuple(_vary(rng, expression, mix) for expression in expressions)
            photographs.append(Photograph(camera, second, faces))
            second += int(rng.integers(2, 7))
        yield tuple(photographs)


def count_faces(photographs: Iterable[Photograph]) -> Counter[CalledClass]:
    """Count the faces by what they show."""
    return Counter(face for photograph in photographs for face in photograph.faces)


def _vary(rng: np.random.Generator, expression: CalledClass, mix: Mix) -> CalledClass:
    """Keep the visitor's expression, or draw another one of the shop.

    Each of two photographs keeps it with the square root of the correlation.
    """
    return expression if rng.random() < math.sqrt(CORRELATION) else mix.draw(rng)
