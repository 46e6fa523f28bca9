"""The totals of groups of facilities in a report, and how they changed since last week.

The arithmetic is that of `satisfaction.group_totals`; here it is decided which summaries are added
up and compared, and what is said about a change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fer_batch.reporting import wording
from fer_batch.reporting.loading import FacilityRows, ReportRows, Row
from fer_batch.satisfaction.change import MAX_Q_VALUE, compute_q_values
from fer_batch.satisfaction.group_totals import (
    GroupChange,
    GroupTotal,
    compare_group,
    estimate_group,
)

_SINCE = {"day": "the same weekday a week before", "week": "the week before"}
"""The periods of totals, and what each is compared with."""


@dataclass(frozen=True, slots=True)
class Total:
    """A total of a group, and a sentence about its change since last week, which may be empty."""

    figure: GroupTotal
    change: str


def build_totals(
    by_group: Mapping[str, Sequence[FacilityRows]], rows: ReportRows
) -> dict[tuple[str, str], Total]:
    """The totals by group and period (`day`, `week`).

    A change is clear if its q value over all groups is at most `MAX_Q_VALUE`.
    """
    totals = {}
    for period, since in _SINCE.items():
        found = {name: _list_of_period(members, period) for name, members in by_group.items()}
        changes = {
            name: compare_group(
                [(each.earlier[period], row) for each, row in of_group if period in each.earlier],
                rows.confusions,
            )
            for name, of_group in found.items()
        }
        clear = _find_clear(changes)
        for name, of_group in found.items():
            figure = estimate_group([row for _, row in of_group], rows.confusions)
            sentence = _describe(figure, changes[name], since, is_clear=name in clear)
            totals[name, period] = Total(figure, sentence)
    return totals


def _list_of_period(members: Sequence[FacilityRows], period: str) -> list[tuple[FacilityRows, Row]]:
    """The newest day of each facility, or its week if that is the newest one of the group."""
    if period == "day":
        return [(each, each.as_of) for each in members if each.as_of is not None]
    weeks = [(each, row) for each in members for row in each.periods if row["period"] == "week"]
    newest = max((row["last_day"] for _, row in weeks), default=None)
    return [(each, row) for each, row in weeks if row["last_day"] == newest]


def _find_clear(changes: Mapping[str, GroupChange | None]) -> set[str]:
    """The groups whose change is clear."""
    found = {name: change for name, change in changes.items() if change is not None}
    q_values = compute_q_values([change.happy.p_value for change in found.values()])
    return {name for name, q_value in zip(found, q_values, strict=True) if q_value <= MAX_Q_VALUE}


def _describe(total: GroupTotal, change: GroupChange | None, since: str, *, is_clear: bool) -> str:
    if total.rate is None or change is None:
        return ""
    what = ""
    if change.facilities < total.facilities:
        what = f" in the {change.facilities} facilities with figures of both"
    if not is_clear:
        return f"No clear change against {since}{what}."
    happy = change.happy
    return f"It {wording.describe_change(happy.difference, happy.low, happy.high, since)}{what}."
