"""Weekday and hour: called rates, and that suppressed cells cannot be computed from the others."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.satisfaction.figures import MIN_FACES, MIN_SESSIONS
from fer_batch.satisfaction.patterns import Sums, add, compute_patterns, find_hidden

MONDAY = date(2026, 11, 2)
SUNDAY = MONDAY + timedelta(27)
MANY = [30, 10, 60, 50]
"""Faces called happy, sad and neither, and sessions, of an hour."""


def build_days(hours: dict[str, list[int]], **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "capture_day": MONDAY + timedelta(n),
            "method": "benchmark",
            "model_version": "a",
            "hours": hours,
        }
        | changes
        for n in range(28)
    ]


def test_rates_of_weekdays_and_hours() -> None:
    days = build_days({"9": MANY, "17": [10, 10, 80, 50]})
    patterns = compute_patterns(days, SUNDAY)
    assert patterns is not None
    assert (patterns.first_day, patterns.last_day) == (MONDAY, SUNDAY)
    assert dict(patterns.weekdays) == dict.fromkeys(range(7), 0.2)
    assert {patterns.hours[weekday, 9] for weekday in range(7)} == {0.3}
    assert {patterns.hours[weekday, 17] for weekday in range(7)} == {0.1}


def test_a_single_small_hour_hides_a_second_one() -> None:
    """The total of a weekday follows from its published days: it would reveal a single hour."""
    days = build_days({"9": [1, 0, 1, 2], "10": [8, 2, 10, 10], "11": MANY, "12": MANY})
    patterns = compute_patterns(days, SUNDAY)
    assert patterns is not None
    shown = {hour for (weekday, hour), rate in patterns.hours.items() if rate is not None}
    assert shown == {11, 12}
    assert patterns.hours[0, 9] is patterns.hours[0, 10] is None


@pytest.mark.parametrize("used", [range(7), range(21), [n for n in range(28) if n // 7 != 1]])
def test_fewer_than_four_weeks_have_no_patterns(used: Any) -> None:
    """Windows of four weeks cannot be subtracted to less than four weeks."""
    days = build_days({"9": MANY})
    assert compute_patterns([days[n] for n in used], SUNDAY) is None
    assert compute_patterns(days, SUNDAY - timedelta(1)) is None


def test_suppressed_days_and_other_model_versions_do_not_count() -> None:
    days = build_days({"9": MANY})
    noise = {"9": [900, 0, 0, 500]}
    suppressed = [day | {"method": "suppressed", "hours": noise} for day in days[:3]]
    former = [day | {"model_version": "b", "hours": noise} for day in days[3:5]]
    patterns = compute_patterns([*suppressed, *former, *days[5:]], SUNDAY)
    assert patterns is not None
    assert set(patterns.weekdays.values()) == {0.3}


def test_days_without_capture_times_have_no_patterns() -> None:
    assert compute_patterns(build_days({}), SUNDAY) is None
    assert compute_patterns([], SUNDAY) is None


@st.composite
def draw_hours(draw: st.DrawFn) -> dict[int, Sums]:
    hours = {}
    for hour in draw(st.sets(st.integers(8, 20), min_size=1)):
        faces = draw(st.integers(1, 150))
        happy = draw(st.integers(0, faces))
        hours[hour] = (happy, faces, draw(st.integers(1, faces)))
    return hours


@given(draw_hours())
def test_suppressed_hours_cannot_be_computed(hours: dict[int, Sums]) -> None:
    """The exact sums of the weekday and of each shown hour are taken to be known.

    Every set of hours that is a linear combination of these is large, or everything is hidden.
    """
    hidden, names = find_hidden(hours), sorted(hours)
    for hour in set(names) - hidden:
        assert hours[hour][1] >= MIN_FACES
        assert hours[hour][2] >= MIN_SESSIONS
    rows = [[1.0] * len(names)]
    rows += [[float(name == hour) for name in names] for hour in names if hour not in hidden]
    known = np.array(rows)
    outside = np.eye(len(names)) - np.linalg.pinv(known) @ known
    for hour in hidden:
        alone = np.array([float(name == hour) for name in names])
        is_computable = np.abs(outside @ alone).max() < 1e-9
        if is_computable:  # only if the weekday has a single hour: its own total is published
            assert len(names) == 1
    if hidden and hidden != set(names):
        _, faces, sessions = add(*(hours[hour] for hour in hidden))
        assert faces >= MIN_FACES
        assert sessions >= MIN_SESSIONS
