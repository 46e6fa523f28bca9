"""How the happy rates of facilities differ, for those that may be compared.

A facility is comparable if an audit of its own faces corrects its rate. Two of them are compared
over the longest period that both published last.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fer_batch.phrases import format_count
from fer_batch.reporting import wording
from fer_batch.reporting.loading import FacilityRows, Row
from fer_batch.satisfaction.change import MAX_Q_VALUE, Difference, compute_q_values
from fer_batch.satisfaction.differences import compute_difference
from fer_batch.satisfaction.estimator import Rate

NOT_COMPARABLE = "not comparable"
"""Said of the rate of a facility without an audit of its own, beside those of other facilities."""
COMPARABLE = (
    "Facilities with an audit of their own faces may be compared. The others are not comparable: "
    "the program's errors differ between facilities, and without an audit it is not known by how "
    "much."
)
SHOWN = 20
"""At most so many differences are listed; of more, only clear ones."""


@dataclass(frozen=True, slots=True)
class Differences:
    """One sentence for each pair that is listed, in alphabetical order, and what is left out."""

    lines: Sequence[str]
    more: str = ""


def is_comparable(row: Row | None) -> bool:
    """Whether a summary may be compared with those of other facilities."""
    return row is not None and row["method"] == "local"


def describe_differences(facilities: Sequence[FacilityRows]) -> Differences:
    """The differences between all pairs of comparable facilities.

    A difference is clear if its q value over all pairs is at most `MAX_Q_VALUE`. Facilities are
    never ordered by their rates.
    """
    ordered = sorted(facilities, key=lambda each: each.facility["name"].casefold())
    found = [
        (one, other, *pair, compute_difference(*map(_get_rate, pair)))
        for one, other in itertools.combinations(ordered, 2)
        if (pair := _find_pair(one, other)) is not None
    ]
    q_values = compute_q_values([each[-1].p_value for each in found]) if found else ()
    clear = [q_value <= MAX_Q_VALUE for q_value in q_values]
    lines = [
        _describe(one.facility["name"], other.facility["name"], row, difference, is_clear=is_clear)
        for (one, other, row, _, difference), is_clear in zip(found, clear, strict=True)
        if is_clear or len(found) <= SHOWN
    ]
    left_out = len(found) - len(lines[:SHOWN])
    more = (
        f"{left_out:,} more pairs: `fer-batch query how_do_facilities_differ` lists them."
        if left_out
        else ""
    )
    return Differences(lines[:SHOWN], more)


def _find_pair(one: FacilityRows, other: FacilityRows) -> tuple[Row, Row] | None:
    """The summaries of the longest period that both have last, if both may be compared."""
    for row in reversed(_list_comparable(one)):
        for candidate in _list_comparable(other):
            if (row["period"], row["last_day"]) == (candidate["period"], candidate["last_day"]):
                return row, candidate
    return None


def _list_comparable(each: FacilityRows) -> list[Row]:
    """The newest summaries that may be compared, the shortest period first."""
    return [row for row in (each.as_of, *each.periods) if row is not None and is_comparable(row)]


def _get_rate(row: Row) -> Rate:
    return Rate(row["happy_rate"], row["happy_rate_low"], row["happy_rate_high"])


def _describe(one: str, other: str, row: Row, difference: Difference, *, is_clear: bool) -> str:
    low, high = (round(100 * value) for value in (difference.low, difference.high))
    days = wording.name_days(row)
    if not is_clear:
        return f"{one} and {other}: no clear difference ({low} to {high} points, {days})."
    points = abs(round(100 * difference.difference))
    side = "above" if difference.difference > 0 else "below"
    least, most = sorted((abs(low), abs(high)))
    return (
        f"{one} is about {format_count(points, 'point')} {side} {other} "
        f"(very likely {least} to {most}, {days})."
    )
