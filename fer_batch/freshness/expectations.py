"""Which summary a facility should have by now, and whether it has it.

Arithmetic on days and times only, without any input or output. A facility publishes rates by day or
by week, but each night writes a summary of its day in any case.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from fer_batch.facilities.registry import WEEKDAYS

LOOKED_BACK_DAYS = 7
"""The newest open day is looked for among so many days."""

State = Literal["fresh", "missing", "not expected"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The newest summary of a day: when it was written, and whether the day is complete."""

    created_at: datetime
    is_complete: bool


@dataclass(frozen=True, slots=True)
class FacilityDays:
    """A facility with the summaries of its last days, and the last days of its summarized weeks.

    `denied_days` are capture days on which a run found that its images may not be read,
    `erased_days` those that were erased as a whole.
    """

    facility_id: str
    time_zone: str
    closed_weekdays: Collection[str] = ()
    publish_period: str = "day"
    permission_valid_until: date | None = None
    summaries: Mapping[date, Summary] = field(default_factory=dict)
    weeks: Collection[date] = ()
    denied_days: Collection[date] = ()
    erased_days: Collection[date] = ()


@dataclass(frozen=True, slots=True)
class Freshness:
    """The state of a facility. `expected_day` is None if no summary is expected.

    `newest_day` is the newest day that has a summary of a time after its end.
    """

    facility_id: str
    time_zone: str
    expected_day: date | None
    newest_day: date | None
    is_complete: bool | None
    state: State
    detail: str


def judge(facility: FacilityDays, now: datetime, by: time) -> Freshness:
    """Whether the facility has the summaries that it should have. `now` is timezone-aware."""
    due_day = find_due_day(facility.time_zone, now, by)
    over = [day for day in facility.summaries if is_over(facility, day)]
    newest = max(over, default=None)
    expected = find_open_day(facility, due_day)
    is_complete = None if newest is None else facility.summaries[newest].is_complete

    def answer(state: State, detail: str, day: date | None) -> Freshness:
        return Freshness(
            facility.facility_id, facility.time_zone, day, newest, is_complete, state, detail
        )

    if expected is None:
        return answer("not expected", "closed on every weekday", None)
    if reason := find_denial(facility, expected):
        return answer("not expected", reason, None)
    if expected not in over:
        when = f"{by:%H:%M} {facility.time_zone}"
        problem = f"no summary of {expected} by {when}"
        if expected in facility.summaries:
            problem = f"the summary of {expected} was written before that day was over"
        return answer("missing", problem, expected)
    sunday = due_day - timedelta(days=due_day.isoweekday() % 7)
    if facility.publish_period == "week" and is_week_missing(facility, sunday):
        return answer("missing", f"no summary of the week until {sunday}", expected)
    return answer("fresh", "", expected)


def find_due_day(time_zone: str, now: datetime, by: time) -> date:
    """The newest capture day whose summary is due: yesterday, from the time `by` of today on."""
    local = now.astimezone(ZoneInfo(time_zone))
    return local.date() - timedelta(days=1 if local.time() >= by else 2)


def find_open_day(facility: FacilityDays, due_day: date) -> date | None:
    """The newest day up to the due one on which the facility is open; None if it never is."""
    for number in range(LOOKED_BACK_DAYS):
        day = due_day - timedelta(days=number)
        if WEEKDAYS[day.weekday()] not in facility.closed_weekdays:
            return day
    return None


def find_denial(facility: FacilityDays, day: date) -> str:
    """Why the images of a day may not be read the morning after; empty: they may."""
    until = facility.permission_valid_until
    if until is None:
        return "no permission is recorded"
    if until <= day:  # it must be valid on the day on which the run reads the images
        return f"the permission ended on {until}"
    if day in facility.denied_days:
        return f"the images of {day} may not be read: see the finding no_permission"
    if day in facility.erased_days:
        return f"{day} was erased: it is not read"
    return ""


def is_over(facility: FacilityDays, day: date) -> bool:
    """Whether the summary of a day was written after the day had ended."""
    zone = ZoneInfo(facility.time_zone)
    end = datetime.combine(day + timedelta(days=1), time(), zone)
    return facility.summaries[day].created_at >= end


def is_week_missing(facility: FacilityDays, sunday: date) -> bool:
    """Whether a week has days with summaries, and no summary of its own although it is over."""
    week = {sunday - timedelta(days=number) for number in range(7)}
    has_days = bool(week & facility.summaries.keys())
    return has_days and sunday in facility.summaries and sunday not in facility.weeks
