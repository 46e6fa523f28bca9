"""Which summary a facility should have by a time of its own time zone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.facilities.registry import WEEKDAYS
from fer_batch.freshness.expectations import FacilityDays, Summary, find_due_day, judge

SATURDAY = date(2026, 11, 28)
SIX = time(6)
NEXT = timedelta(days=1)


def write_summaries(*days: date, zone: str = "Europe/Berlin") -> dict[date, Summary]:
    """Summaries as the nightly run writes them, at 03:20 of the next day."""
    night = time(3, 20, tzinfo=ZoneInfo(zone))
    return {day: Summary(datetime.combine(day + NEXT, night), True) for day in days}


BERLIN = FacilityDays(
    "north-mall",
    "Europe/Berlin",
    permission_valid_until=date(2027, 1, 1),
    summaries=write_summaries(SATURDAY - NEXT, SATURDAY),
)


def at(day: date, hour: int, minute: int = 0, zone: str = "Europe/Berlin") -> datetime:
    return datetime.combine(day, time(hour, minute), ZoneInfo(zone)).astimezone(UTC)


SUNDAY = SATURDAY + NEXT
MONDAY = SUNDAY + NEXT


@pytest.mark.parametrize(
    ("zone", "now", "expected"),
    [
        ("Europe/Berlin", at(SUNDAY, 5, 59), SATURDAY - NEXT),
        ("Europe/Berlin", at(SUNDAY, 6), SATURDAY),
        ("Asia/Tokyo", at(SUNDAY, 5, 59), SATURDAY),  # there it is 13:59
        ("America/Los_Angeles", at(SUNDAY, 6), SATURDAY - NEXT),  # 21:00 of Saturday
        ("Pacific/Kiritimati", datetime(2026, 11, 28, 16, tzinfo=UTC), SATURDAY),
    ],
)
def test_yesterday_is_that_of_the_facility(zone: str, now: datetime, expected: date) -> None:
    assert find_due_day(zone, now, SIX) == expected


def test_a_summary_that_is_due_and_missing_is_told() -> None:
    assert judge(BERLIN, at(SUNDAY, 7), SIX).state == "fresh"
    assert judge(BERLIN, at(MONDAY, 5), SIX).state == "fresh"
    late = judge(BERLIN, at(MONDAY, 6), SIX)
    assert (late.state, late.expected_day, late.newest_day) == ("missing", SUNDAY, SATURDAY)
    assert late.detail == "no summary of 2026-11-29 by 06:00 Europe/Berlin"
    assert judge(replace(BERLIN, summaries={}), at(SUNDAY, 7), SIX).newest_day is None


def test_a_summary_that_was_written_before_the_day_was_over_does_not_count() -> None:
    by_hand = Summary(at(SUNDAY, 17), False)  # a run of the same day, started by a person
    facility = replace(BERLIN, summaries={**BERLIN.summaries, SUNDAY: by_hand})
    late = judge(facility, at(MONDAY, 7), SIX)
    assert (late.state, late.newest_day) == ("missing", SATURDAY)
    assert "before that day was over" in late.detail


def test_closed_days_are_not_expected_and_hide_no_open_day_before_them() -> None:
    facility = replace(BERLIN, closed_weekdays=("sun",))
    assert judge(facility, at(MONDAY, 7), SIX).state == "fresh"
    missing = replace(facility, summaries=write_summaries(SATURDAY - NEXT))
    assert judge(missing, at(MONDAY, 7), SIX).expected_day == SATURDAY
    assert judge(missing, at(MONDAY, 7), SIX).state == "missing"
    never = replace(missing, closed_weekdays=WEEKDAYS)
    assert judge(never, at(MONDAY, 7), SIX).state == "not expected"


@pytest.mark.parametrize(
    ("until", "denied", "state"),
    [
        (None, (), "not expected"),
        (SUNDAY, (), "not expected"),  # on Monday, Sunday's images may not be read any more
        (MONDAY, (), "missing"),
        (MONDAY, (SUNDAY,), "not expected"),  # a run found another reason
        (MONDAY, (SATURDAY,), "missing"),
    ],
)
def test_without_permission_nothing_is_expected(
    until: date | None, denied: tuple[date, ...], state: str
) -> None:
    facility = replace(BERLIN, permission_valid_until=until, denied_days=denied)
    assert judge(facility, at(MONDAY, 7), SIX).state == state


def test_no_summary_of_an_erased_day_is_expected() -> None:
    facility = replace(BERLIN, erased_days=(SUNDAY,))
    monday = judge(facility, at(MONDAY, 7), SIX)
    assert (monday.state, monday.detail) == (
        "not expected",
        "2026-11-29 was erased: it is not read",
    )
    assert judge(facility, at(MONDAY + NEXT, 7), SIX).state == "missing"


def test_a_facility_that_publishes_by_week_has_a_summary_each_day_and_after_each_week() -> None:
    week = [SUNDAY - timedelta(days=number) for number in range(7)]
    facility = replace(BERLIN, publish_period="week", summaries=write_summaries(*week))
    late = judge(facility, at(MONDAY, 7), SIX)
    assert (late.state, late.detail) == ("missing", "no summary of the week until 2026-11-29")
    assert judge(replace(facility, weeks=(SUNDAY,)), at(MONDAY, 7), SIX).state == "fresh"
    assert judge(replace(facility, publish_period="day"), at(MONDAY, 7), SIX).state == "fresh"
    # Within a week its summary is not due; the first week may have begun in the middle.
    assert judge(BERLIN, at(SUNDAY, 7), SIX).state == "fresh"


@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"]),
    st.integers(0, 2 * 366 * 24 * 3600),
    st.times(),
    st.sets(st.sampled_from(WEEKDAYS), max_size=6),
)
def test_a_facility_whose_nights_all_happened_is_fresh_at_any_time(
    zone: str, second: int, by: time, closed: set[str]
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    today = now.astimezone(ZoneInfo(zone)).date()
    days = [today - timedelta(days=number) for number in range(1, 15)]
    facility = FacilityDays(
        "a", zone, tuple(closed), "day", date.max, write_summaries(*days, zone=zone)
    )
    assert judge(facility, now, by.replace(tzinfo=None)).state == "fresh"
