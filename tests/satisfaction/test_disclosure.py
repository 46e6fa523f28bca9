"""Nothing that is suppressed can be computed from what is published.

Whoever reads the views knows the called counts of each published period exactly (rates times
faces), and may add and subtract them. A part of the faces can be computed if its indicator is a
linear combination of the indicators of the published periods. No such part may have fewer than 30
faces or fewer than 10 sessions. The faces of a day have two parts: those of its first summary, and
those of images that came later.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fer_batch.satisfaction.figures import MIN_FACES, MIN_SESSIONS, RATES
from tests.satisfaction.conftest import CALLED, MONDAY, Calendar, draw_clusters

WEEKS = 5
DAYS = [MONDAY + timedelta(n) for n in range(7 * WEEKS)]
Counts = tuple[int, ...]
"""Faces called happy, sad and neither, and sessions."""
Indicator = npt.NDArray[np.float64]
"""[2 × days] which parts belong to a set: the first ones of all days, then the late ones."""
NO_FACES = (0, 0, 0, 0)


@dataclass
class History:
    """What the days of a facility hold, and which sets of it were published."""

    parts: list[Counts] = field(default_factory=lambda: [NO_FACES] * (2 * len(DAYS)))
    published: list[Indicator] = field(default_factory=list)

    def indicate(self, *parts: int) -> Indicator:
        return np.isin(np.arange(len(self.parts)), parts).astype(float)

    def find_set(self, counts: Counts, days: range) -> Indicator:
        """The parts of some days that add up to published counts, found by trying all."""
        choices = [[(), (n,), (n, n + len(DAYS))] for n in days]
        for chosen in itertools.product(*choices):
            parts = list(itertools.chain.from_iterable(chosen))
            if add_up(self.parts[n] for n in parts) == counts:
                return self.indicate(*parts)
        pytest.fail(f"{counts} are no faces of these days")

    def list_small_sets(self) -> Iterator[tuple[int, ...]]:
        """Sets of up to three parts with faces, but too few faces or sessions."""
        occurring = [n for n, counts in enumerate(self.parts) if counts != NO_FACES]
        for size in (1, 2, 3):
            for chosen in itertools.combinations(occurring, size):
                *called, sessions = add_up(self.parts[n] for n in chosen)
                if sum(called) < MIN_FACES or sessions < MIN_SESSIONS:
                    yield chosen


def add_up(all_counts: Iterable[Counts]) -> Counts:
    return tuple(map(sum, zip(NO_FACES, *all_counts, strict=True)))


def list_computable(
    sets: Iterable[tuple[int, ...]], published: Sequence[Indicator]
) -> list[tuple[int, ...]]:
    """The sets that are linear combinations of the published ones."""
    rows = np.array(published)
    outside = np.eye(rows.shape[1]) - np.linalg.pinv(rows) @ rows
    return [each for each in sets if np.abs(outside[:, each].sum(axis=1)).max() < 1e-9]


def read_published(row: Any) -> Counts | None:
    """What the rates of a row of a view reveal; None if it is suppressed."""
    if row["happy_rate"] is None:
        assert {row[name] for name in RATES} == {None}
        return None
    faces = row["faces"]
    happy, sad = (round(row[f"called_{name}_rate"] * faces) for name in ("happy", "sad"))
    return happy, sad, faces - happy - sad, row["sessions"]


def count(called: Any) -> Counts:
    called = called[called.sum(axis=1) > 0]
    return (*called.sum(axis=0).tolist(), len(called))


def publish(calendar: Calendar, name: str, seed: int, rule: str) -> History:
    """Five weeks of a small facility, in which some images and some whole days come late."""
    rng = random.Random(seed)
    history = History()
    contents: list[Any] = []

    def write(number: int, *, is_due: bool = True) -> None:
        calendar.write_day(contents[number], DAYS[number], name, rule=rule, is_due=is_due)

    def summarize(days: Sequence[date]) -> None:
        calendar.summarize(*((name, day) for day in days))

    for number in range(len(DAYS)):
        faces = rng.choice([0, 4, 15, 25, 28, 32, 45, 80])
        clusters = max(1, min(faces, rng.choice([4, 9, 10, 12, 20])))
        contents.append(draw_clusters(100 * seed + number, faces, clusters=clusters))
        history.parts[number] = count(contents[number])
        write(number, is_due=rng.random() < 0.8)
        if number % 7 == 6:
            summarize(DAYS[: number + 1])
    for number in range(len(DAYS)):
        if rng.random() < 0.4:
            late = draw_clusters(7000 + 100 * seed + number, rng.choice([1, 5, 29, 40, 70]))
            history.parts[number + len(DAYS)] = count(late)
            contents[number] = np.concatenate([contents[number], late])
        write(number)
        if rng.random() < 0.3:
            summarize(DAYS[number : number + 1])
    summarize(DAYS)
    return history


@pytest.mark.parametrize("publish_period", ["day", "week"])
@pytest.mark.parametrize(("seed", "rule"), [(1, "blocks"), (2, "gap"), (3, "gap")])
def test_no_small_part_can_be_computed(
    calendar: Calendar, publish_period: str, seed: int, rule: str
) -> None:
    calendar.tables.add("kiosk", publish_period=publish_period, target_rate=0.3)
    history = publish(calendar, "kiosk", seed, rule)
    days = calendar.read("satisfaction_daily", "kiosk")
    rows = [
        *((row, range(n, n + 1)) for n, row in enumerate(days)),
        *((row, range(7 * n, 7 * n + 7)) for n, row in enumerate(calendar.read_weeks("kiosk"))),
    ]
    for row, own in rows:
        counts = read_published(row)
        if counts is not None:
            history.published.append(history.find_set(counts, own))
    # Four weeks are made of published weeks; of their older revisions too, if they were kept.
    weeks = read_revisions(calendar, history)
    for n, row in enumerate(calendar.read_weeks("kiosk", "four weeks")):
        counts = read_published(row)
        if counts is not None:
            history.published.append(find_weeks(counts, weeks[n : n + 4]))
    has_faces = [counts != NO_FACES for counts in history.parts]
    hidden = [n for n, row in enumerate(days) if row["happy_rate"] is None and has_faces[n]]
    assert {days[n]["faces_scored"] for n in hidden} == {None}
    small = list(history.list_small_sets())
    assert min(len(hidden), len(small), len(history.published)) > 3
    assert list_computable(small, history.published) == []
    # No suppressed day as it was first summarized, however many faces it has.
    assert list_computable([(n,) for n in hidden], history.published) == []


def read_revisions(calendar: Calendar, history: History) -> list[list[tuple[Counts, Indicator]]]:
    """The published revisions of each week, with what they were made of."""
    rows = calendar.tables.query(
        "SELECT * FROM fer.satisfaction_summary WHERE facility_id = 'kiosk' AND period = 'week'"
        " AND happy_rate IS NOT NULL"
    )
    weeks: list[list[tuple[Counts, Indicator]]] = [[] for _ in range(WEEKS)]
    for row in rows:
        begin = (row.first_day - MONDAY).days
        counts = read_published(row._mapping)
        assert counts is not None
        indicator = history.find_set(counts, range(begin, begin + 7))
        weeks[begin // 7].append((counts, indicator))
    return weeks


def find_weeks(counts: Counts, weeks: Sequence[list[tuple[Counts, Indicator]]]) -> Indicator:
    """The revisions of weeks that add up to the counts of four weeks."""
    for chosen in itertools.product(*([None, *week] for week in weeks)):
        used = [each for each in chosen if each is not None]
        if add_up(part for part, _ in used) == counts:
            return np.sum([indicator for _, indicator in used], axis=0)
    pytest.fail(f"{counts} are not the faces of published weeks")


def test_a_total_of_all_days_would_be_noticed() -> None:
    """These tests find the small day that a week with suppressed days in it reveals."""
    history = History()
    history.parts[:7] = [(20, 10, 30, 20)] * 6 + [(3, 2, 4, 5)]
    days = [history.indicate(n) for n in range(6)]
    small = list(history.list_small_sets())
    assert list_computable(small, days) == []
    assert list_computable(small, [*days, history.indicate(*range(7))]) == [(6,)]
    assert list_computable(small, [*days, history.indicate(*range(6))]) == []


def test_successive_figures_differ_by_no_small_part(calendar: Calendar) -> None:
    """Whoever keeps what was published earlier learns nothing from the difference either."""
    calendar.tables.add("kiosk")
    publish(calendar, "kiosk", 5, "gap")
    rows = calendar.tables.query(
        "SELECT * FROM fer.satisfaction_summary WHERE facility_id = 'kiosk'"
        " AND happy_rate IS NOT NULL ORDER BY period, capture_day, revision"
    )
    changes = [
        (
            sum(abs(first._mapping[name] - second._mapping[name]) for name in CALLED),
            abs(first.sessions - second.sessions),
        )
        for first, second in itertools.pairwise(rows)
        if (first.period, first.capture_day) == (second.period, second.capture_day)
    ]
    assert any(faces for faces, _ in changes)
    for faces, sessions in changes:
        assert faces == 0 or (faces >= MIN_FACES and sessions >= MIN_SESSIONS)
