"""The called happy rate of a facility by weekday and by hour, with small cells suppressed.

The cells are further sums of faces. A cell with few faces or sessions is suppressed, and so that it
cannot be computed either, the suppressed cells of a weekday together are never few: the total of a
weekday follows from its published days. Only rates are returned, without numbers of faces, so that
two reports cannot be subtracted. Arithmetic only; counting by hour is left to revisions.sql.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fer_batch.satisfaction.figures import MIN_FACES, MIN_SESSIONS, is_published
from fer_batch.satisfaction.periods import WEEK_DAYS, WEEKS, find_week_end

Sums = tuple[int, int, int]
"""Faces called happy, all faces, sessions."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Called happy rates (0 to 1) of four complete ISO weeks.

    `weekdays` has the rate of each weekday (0: Monday) with published days. `hours` has those of
    (weekday, local hour); None: suppressed. A weekday and hour without faces is missing.
    """

    first_day: date
    last_day: date
    weekdays: Mapping[int, float]
    hours: Mapping[tuple[int, int], float | None]


def compute_patterns(days: Sequence[Mapping[str, Any]], as_of: date) -> Patterns | None:
    """The patterns of the newest four complete ISO weeks that ended by `as_of`.

    `days` are newest daily summaries of one facility with `capture_day`, `method`,
    `model_version` and `hours` (as `satisfaction_summary` stores them). Only published days of the
    newest model version count. None unless each of the four weeks has such a day: otherwise the
    next report would differ from this one by a single week.
    """
    last_day = find_week_end(as_of - timedelta(days=WEEK_DAYS - 1))
    first_day = last_day - timedelta(days=WEEK_DAYS * WEEKS - 1)
    used = [
        day
        for day in days
        if first_day <= day["capture_day"] <= last_day and is_published(day["method"])
    ]
    if used:
        newest = max(used, key=lambda day: day["capture_day"])["model_version"]
        used = [day for day in used if day["model_version"] == newest and day["hours"]]
    if len({find_week_end(day["capture_day"]) for day in used}) < WEEKS:
        return None
    cells: dict[int, dict[int, Sums]] = defaultdict(dict)
    for day in used:
        of_weekday = cells[day["capture_day"].weekday()]
        for hour, (happy, sad, neither, sessions) in day["hours"].items():
            known = of_weekday.get(int(hour), (0, 0, 0))
            faces = happy + sad + neither
            of_weekday[int(hour)] = known[0] + happy, known[1] + faces, known[2] + sessions
    hours: dict[tuple[int, int], float | None] = {}
    weekdays = {}
    for weekday, by_hour in cells.items():
        happy, faces, _ = add(*by_hour.values())
        weekdays[weekday] = happy / faces
        hidden = find_hidden(by_hour)
        for hour, sums in by_hour.items():
            hours[weekday, hour] = None if hour in hidden else sums[0] / sums[1]
    return Patterns(first_day, last_day, weekdays, hours)


def find_hidden(by_hour: Mapping[int, Sums]) -> set[int]:
    """The hours of a weekday that are suppressed: the small ones, and with them so many others,
    the smallest first, that the suppressed ones are not few together."""
    hidden = {hour for hour, sums in by_hour.items() if _is_small(sums, 1)}
    by_size = sorted(set(by_hour) - hidden, key=lambda hour: (by_hour[hour][1], hour))
    while hidden and by_size and _is_small(add(*(by_hour[hour] for hour in hidden)), len(hidden)):
        hidden.add(by_size.pop(0))
    return hidden


def _is_small(sums: Sums, cells: int) -> bool:
    _, faces, sessions = sums
    # A session that goes on into the next hour counts in both.
    return faces < MIN_FACES or sessions < MIN_SESSIONS * (1 if cells == 1 else 2)


def add(*cells: Sums) -> Sums:
    """The sums of several cells together."""
    happy, faces, sessions = (sum(each) for each in zip(*cells, strict=True))
    return happy, faces, sessions
