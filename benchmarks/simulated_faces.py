"""Simulated faces of a facility: which class each has, what it is called, and in which visit.

Visitors differ: the true classes of a visit are drawn from shares of its own, which are drawn from
a Dirichlet distribution around the shares of the period. Its concentration follows from the
intraclass correlation ρ of two faces of a visit: 0 for independent faces, 1 if all faces of a visit
are of one class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_batch.satisfaction.estimator import ClusterTotals
from fer_batch.satisfaction.intervals import Floats

BLOCKS = 20
SESSION_GAP_S, SESSION_MAX_S = 60, 300
"""A session ends at a gap above the first, or when it has lasted for the second."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Size:
    """A period: its faces, the sessions that they come in, and ρ within a session."""

    faces: int
    sessions: int
    correlation: float

    def __str__(self) -> str:
        return f"{self.faces:,} / {self.sessions} / {self.correlation:g}"


def normalize_rows(counts: Floats) -> Floats:
    """A confusion matrix in counts as probabilities of the called class, given the true class."""
    rows: Floats = counts / counts.sum(axis=1, keepdims=True)
    return rows


def draw_visit_mixes(
    mix: Floats, correlation: float, visits: int, rng: np.random.Generator
) -> Floats:
    """[visits, 3] the shares of the true classes in each visit, with the mean `mix`."""
    if correlation == 0:
        return np.tile(mix, (visits, 1))
    return rng.dirichlet(mix * (1 - correlation) / correlation, visits)


def draw_called(mixes: Floats, called_given_true: Floats, rng: np.random.Generator) -> Ints:
    """[faces] the called class of a face of each row of `mixes` [faces, 3]."""
    thresholds = (mixes @ called_given_true).cumsum(axis=1)[:, :2]
    called: Ints = (rng.random((len(mixes), 1)) > thresholds).sum(axis=1)
    return called


def draw_period(
    size: Size, mix: Floats, called_given_true: Floats, rng: np.random.Generator
) -> list[ClusterTotals]:
    """The totals of a period by sessions, which have equally many faces, and by blocks."""
    session = np.repeat(np.arange(size.sessions), size.faces // size.sessions)
    mixes = draw_visit_mixes(mix, size.correlation, size.sessions, rng)
    return count_clusters(draw_called(mixes[session], called_given_true, rng), session)


def count_clusters(called: Ints, session: Ints) -> list[ClusterTotals]:
    """The totals of faces in time order, by their `session` and by blocks of equal size."""
    block = np.arange(len(called)) * BLOCKS // len(called)
    return [
        ClusterTotals.from_clusters(
            np.bincount(cluster * 3 + called, minlength=3 * (int(cluster.max()) + 1)).reshape(-1, 3)
        )
        for cluster in (session, block)
    ]


@dataclass(frozen=True, slots=True)
class Shop:
    """A day of two cameras, ten hours and `visits` visitors, some of whom come twice.

    `has_long_visits` draws the number of photographs of a visit from a geometric distribution with
    a long tail; otherwise there are about five. `frame_every_s` is the interval of a camera that
    takes a frame at fixed times; without it, photographs follow each other at random intervals.
    """

    visits: int
    correlation: float
    has_long_visits: bool
    frame_every_s: float | None

    def __str__(self) -> str:
        frames = f"a frame every {self.frame_every_s:g} s" if self.frame_every_s else "photographs"
        length = "some long visits" if self.has_long_visits else "short visits"
        return f"{self.visits:,} visitors, ρ {self.correlation:g}, {length}, {frames}"


def draw_shop_day(
    shop: Shop, mix: Floats, called_given_true: Floats, rng: np.random.Generator
) -> list[ClusterTotals]:
    """The totals of a day whose sessions are found from camera and time, as counting finds them."""
    visits = rng.poisson(shop.visits)
    starts = rng.uniform(0, 36_000, visits)
    visitor = np.arange(visits)
    returning = rng.random(visits) < 0.15
    starts = np.concatenate([starts, starts[returning] + rng.uniform(600, 1200, returning.sum())])
    visitor = np.concatenate([visitor, visitor[returning]])
    camera = rng.integers(0, 2, len(starts))
    tail = np.minimum(rng.geometric(1 / 8, len(starts)), 60)
    faces = tail if shop.has_long_visits else 1 + rng.poisson(4, len(starts))
    of_visit = np.repeat(np.arange(len(starts)), faces)
    number = np.arange(len(of_visit)) - np.repeat(faces.cumsum() - faces, faces)
    if shop.frame_every_s:
        times = starts[of_visit] + number * shop.frame_every_s
        times = np.ceil(times / shop.frame_every_s) * shop.frame_every_s
    else:
        intervals = rng.exponential(8, len(of_visit))
        elapsed = intervals.cumsum()
        times = starts[of_visit] + elapsed - elapsed[faces.cumsum() - faces][of_visit]
    mixes = draw_visit_mixes(mix, shop.correlation, visits, rng)
    called = draw_called(mixes[visitor[of_visit]], called_given_true, rng)
    order = np.argsort(times, kind="stable")
    session = find_sessions(times[order], camera[of_visit][order])
    return count_clusters(called[order], session)


def find_sessions(times: Floats, cameras: Ints) -> Ints:
    """[faces] the number of the session of each face, for faces in time order."""
    session = np.empty(len(times), np.int64)
    latest: dict[int, tuple[float, float, int]] = {}  # camera: first and last time, session
    count = 0
    for i, (time, camera) in enumerate(zip(times.tolist(), cameras.tolist(), strict=True)):
        first, last, current = latest.get(camera, (-np.inf, -np.inf, -1))
        if time - last > SESSION_GAP_S or time - first > SESSION_MAX_S:
            first, current, count = time, count, count + 1
        latest[camera] = (first, time, current)
        session[i] = current
    return session
