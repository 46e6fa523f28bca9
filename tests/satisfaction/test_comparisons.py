"""Changes against earlier periods in the database, and their q values over the facilities."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from scipy import stats

from fer_batch.database import results
from fer_batch.records import Batch
from fer_batch.satisfaction import comparisons
from fer_batch.satisfaction.change import MAX_Q_VALUE
from tests.fixtures.tables import CARD, VERSION
from tests.satisfaction.conftest import MONDAY, Calendar, draw_clusters, list_days

TUESDAY = MONDAY + timedelta(1)
NEXT_MONDAY = MONDAY + timedelta(7)
CALM, HAPPIER = (0.3, 0.1, 0.6), (0.7, 0.05, 0.25)
OTHER = "b" * 64
CHANGES = "SELECT * FROM fer.satisfaction_change ORDER BY facility_id, period, capture_day, 4"


def read_changes(calendar: Calendar, period: str = "day", **equal: Any) -> list[dict[str, Any]]:
    rows = [dict(row._mapping) for row in calendar.tables.query(CHANGES)]
    rows = [row for row in rows if row["period"] == period]
    return [row for row in rows if all(row[name] == value for name, value in equal.items())]


def write(calendar: Calendar, day: date, mix: Any = CALM, seed: int = 1, **others: Any) -> Any:
    faces = others.pop("faces", 400)
    name = others.pop("facility_id", "north-mall")
    return calendar.write_day(draw_clusters(seed, faces, mix), day, name, **others)


@pytest.mark.parametrize(
    ("mix", "is_found"), [(CALM, False), (HAPPIER, True), ((0.05, 0.3, 0.65), True)]
)
def test_a_real_change_is_found_and_no_other(calendar: Calendar, mix: Any, is_found: bool) -> None:
    write(calendar, MONDAY, seed=1)
    write(calendar, TUESDAY, mix, seed=2)
    calendar.summarize(MONDAY, TUESDAY)
    (change,) = read_changes(calendar)
    assert (change["capture_day"], change["comparison"]) == (TUESDAY, "period before")
    first, second = calendar.read("satisfaction_daily")
    difference = second["happy_rate"] - first["happy_rate"]
    assert change["happy_change"] == pytest.approx(difference, abs=2e-6)
    assert change["happy_change_low"] <= change["happy_change"] <= change["happy_change_high"]
    assert (change["happy_q_value"] <= MAX_Q_VALUE) is is_found
    assert (change["happy_change_low"] > 0 or change["happy_change_high"] < 0) is is_found
    # One facility: the q value is the p value.
    assert change["happy_q_value"] == change["happy_p_value"]
    # The classifier's errors cancel: the range is narrower than those of both rates suggest.
    widths = sum(row["happy_rate_high"] - row["happy_rate_low"] for row in (first, second))
    assert change["happy_change_high"] - change["happy_change_low"] < widths


def test_a_day_is_compared_with_the_day_before_and_a_week_ago(calendar: Calendar) -> None:
    days = list_days(9)
    for n, day in enumerate(days):
        write(calendar, day, seed=n)
    calendar.summarize(*days)
    compared = {(row["capture_day"], row["comparison"]) for row in read_changes(calendar)}
    assert compared == {
        *((day, "period before") for day in days[1:]),
        *((day, "week before") for day in days[7:]),
    }


def test_weeks_are_compared_with_the_period_before(calendar: Calendar) -> None:
    days = [MONDAY + timedelta(n) for n in range(56)]
    for n, day in enumerate(days):
        write(calendar, day, HAPPIER if n >= 28 else CALM, seed=n, faces=60)
    calendar.summarize(*days)
    weeks = read_changes(calendar, "week")
    assert [row["capture_day"] for row in weeks] == [
        days[6] + timedelta(7 * n) for n in range(1, 8)
    ]
    assert [row["happy_p_value"] < 0.001 for row in weeks] == [n == 4 for n in range(1, 8)]
    (month,) = read_changes(calendar, "four weeks")
    assert (month["capture_day"], month["comparison"]) == (days[-1], "period before")
    assert month["happy_change_low"] > 0.3


# Which are comparable


def compare_days(calendar: Calendar) -> int:
    calendar.summarize(MONDAY, TUESDAY)
    return len(read_changes(calendar))


def test_only_published_figures_are_compared(calendar: Calendar) -> None:
    write(calendar, MONDAY, faces=29)
    write(calendar, TUESDAY)
    assert compare_days(calendar) == 0
    write(calendar, MONDAY, faces=100)
    write(calendar, TUESDAY + timedelta(1), is_due=False)
    assert compare_days(calendar) == 1
    calendar.summarize(TUESDAY + timedelta(1))
    assert len(read_changes(calendar)) == 1


def test_other_model_versions_and_methods_are_not_compared(calendar: Calendar) -> None:
    """Raw rates of two versions neither: they make different errors."""
    with calendar.tables.transaction() as connection:
        results.register_model_version(connection, OTHER, {}, {})
        results.register_model_version(connection, "c" * 64, {}, CARD)
    write(calendar, MONDAY)
    for version in (OTHER, "c" * 64):
        write(calendar, TUESDAY, model_version=version)
        assert compare_days(calendar) == 0
    write(calendar, TUESDAY)
    assert compare_days(calendar) == 1


def test_raw_rates_of_one_version_are_compared(calendar: Calendar) -> None:
    with calendar.tables.transaction() as connection:
        results.register_model_version(connection, OTHER, {}, {})
    first = write(calendar, MONDAY, model_version=OTHER)
    second = write(calendar, TUESDAY, HAPPIER, model_version=OTHER)
    assert first["method"] == second["method"] == "raw"
    assert compare_days(calendar) == 1
    (change,) = read_changes(calendar)
    expected = second["called_happy_rate"] - first["called_happy_rate"]
    assert change["happy_change"] == pytest.approx(expected, abs=2e-6)


def test_sessions_and_blocks_are_not_compared(calendar: Calendar) -> None:
    write(calendar, MONDAY, rule="gap")
    write(calendar, TUESDAY, rule="blocks")
    assert compare_days(calendar) == 0


def test_a_change_whose_day_is_no_longer_published_is_deleted(calendar: Calendar) -> None:
    for n in range(3):
        write(calendar, MONDAY + timedelta(n), seed=n)
    calendar.summarize(*list_days(3))
    assert len(read_changes(calendar)) == 2
    write(calendar, MONDAY, faces=10)
    calendar.summarize(MONDAY)
    assert [row["capture_day"] for row in read_changes(calendar)] == [MONDAY + timedelta(2)]


def test_a_revised_day_changes_the_later_ones(calendar: Calendar) -> None:
    """The day after and the day a week later are compared with it."""
    for day in (MONDAY, TUESDAY, NEXT_MONDAY):
        write(calendar, day)
    calendar.summarize(MONDAY, TUESDAY, NEXT_MONDAY)
    assert {row["happy_change"] for row in read_changes(calendar)} == {0}
    write(calendar, MONDAY, HAPPIER)
    calendar.summarize(MONDAY)
    changes = read_changes(calendar)
    assert [row["capture_day"] for row in changes] == [TUESDAY, NEXT_MONDAY]
    assert all(row["happy_change"] < -0.2 for row in changes)


# Over the facilities


def write_facilities(calendar: Calendar, count: int, happier: int) -> list[str]:
    """Two days of some facilities; the first ones are happier on the second day."""
    names = [f"shop-{n:02}" for n in range(count)]
    for n, name in enumerate(names):
        calendar.tables.add(name)
        write(calendar, MONDAY, seed=2 * n, facility_id=name)
        mix = HAPPIER if n < happier else CALM
        write(calendar, TUESDAY, mix, seed=2 * n + 1, facility_id=name)
    return names


def check_q_values(calendar: Calendar) -> list[dict[str, Any]]:
    rows = read_changes(calendar, capture_day=TUESDAY)
    for name in ("happy", "sad"):
        p, q = ([row[f"{name}_{kind}_value"] for row in rows] for kind in "pq")
        assert q == pytest.approx(stats.false_discovery_control(p), abs=2e-6)
    return rows


def test_q_values_are_over_the_facilities_of_the_day(calendar: Calendar) -> None:
    names = write_facilities(calendar, count=12, happier=2)
    calendar.summarize(*((name, TUESDAY) for name in names))
    rows = check_q_values(calendar)
    assert [row["facility_id"] for row in rows] == names
    assert [row["happy_q_value"] <= MAX_Q_VALUE for row in rows] == [n < 2 for n in range(12)]
    assert any(row["happy_q_value"] > row["happy_p_value"] for row in rows)


def test_a_run_of_one_facility_keeps_the_q_values_of_all_consistent(calendar: Calendar) -> None:
    names = write_facilities(calendar, count=6, happier=1)
    for name in names:  # a run for each
        calendar.summarize((name, TUESDAY))
    before = check_q_values(calendar)
    assert len(before) == 6
    write(calendar, TUESDAY, HAPPIER, seed=99, facility_id=names[-1])
    calendar.summarize((names[-1], TUESDAY))
    after = check_q_values(calendar)
    assert after[-1]["happy_q_value"] < before[-1]["happy_q_value"]
    q_values = [[row["happy_q_value"] for row in rows[:-1]] for rows in (before, after)]
    assert q_values[0] != q_values[1]
    # A facility that leaves the day, too.
    write(calendar, TUESDAY, faces=5, facility_id=names[0])
    calendar.summarize((names[0], TUESDAY))
    assert len(check_q_values(calendar)) == 5


def test_the_changes_of_a_day_and_of_the_day_a_week_later_are_written(calendar: Calendar) -> None:
    for day in (MONDAY, TUESDAY, NEXT_MONDAY, NEXT_MONDAY + timedelta(1)):
        write(calendar, day)
    calendar.summarize(*list_days(9))
    with calendar.tables.transaction() as connection:
        comparisons.write_changes(
            connection, [Batch("north-mall", TUESDAY)], calendar.tables.facilities, "run-2"
        )
    changes = "SELECT capture_day FROM fer.satisfaction_change WHERE run_id = 'run-2' ORDER BY 1"
    # Tuesday, and the day a week later that is compared with it.
    days = [day for (day,) in calendar.tables.query(changes)]
    assert days == [TUESDAY, NEXT_MONDAY + timedelta(1)]
    assert {row["model_version"] for row in calendar.read("satisfaction_daily")} == {VERSION}
