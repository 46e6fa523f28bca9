"""The questions about weeks, changes, weekdays, hours, cameras and groups, with their answers.

test_queries.py has those that need no more than days.
"""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from fer_batch.export import named_queries
from fer_batch.satisfaction.differences import compute_difference
from fer_batch.satisfaction.estimator import Rate
from fer_batch.satisfaction.patterns import compute_patterns
from tests.satisfaction.conftest import Calendar

FIRST, LAST = date(2026, 2, 2), date(2026, 3, 1)
"""Four ISO weeks; the last day is a Sunday."""
HOURS = {"9": [2, 1, 3, 2], "10": [4, 2, 4, 3], "11": [30, 10, 60, 20], "12": [50, 10, 40, 20]}
COPY = """
    INSERT INTO fer.satisfaction_summary
    SELECT (jsonb_populate_record(s, jsonb_build_object('capture_day', day, 'first_day', day))).*
    FROM fer.satisfaction_summary AS s
    CROSS JOIN generate_series(CAST(:first AS date), :last, '1 day') AS day
    WHERE s.facility_id = :facility AND s.capture_day = CAST(:first AS date) - 1
"""

COMPARED = ("comparable_facilities", "lowest_happy_percent", "highest_happy_percent")
BESIDE_EACH_OTHER = (
    "which_facilities_were_satisfied",
    "which_weeks_met_the_target",
    "which_days_were_best",
    "which_days_missed_the_target_most",
    "how_did_the_happy_rate_change",
    "how_do_weekdays_compare",
)
RATE = """
    SELECT happy_rate, happy_rate_low, happy_rate_high
    FROM fer.satisfaction_period
    WHERE facility_id = :facility AND period = 'week'
    ORDER BY last_day DESC
    LIMIT 1
"""


def make_clusters(happy: int, sad: int, neither: int) -> Any:
    """[20, 3] called counts of 20 equal sessions."""
    return np.tile([happy, sad, neither], (20, 1))


def ask(tables: Any, name: str, **values: str) -> list[dict[str, Any]]:
    query = named_queries.find_query(name)
    checked = named_queries.check_values(query, values)
    return [dict(row) for row in named_queries.run_query(tables.engine, query, checked).rows]


def select(rows: list[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


@pytest.fixture
def measured(tables: Any) -> Any:
    """The North Mall stays the same, the South Mall falls in its last week, the Kiosk is small."""
    calendar = Calendar(tables)
    tables.add("north-mall", target_rate=0.35, group="malls")
    tables.add("south", name="South Mall", target_rate=0.35, group="malls")
    tables.add("kiosk", target_rate=0.35)
    cameras = {"till": 200, "door": 100, "exit": 40}
    more: dict[str, Any] = {"rule": "gap", "cameras": cameras, "hours": HOURS}
    calendar.write_day(make_clusters(10, 2, 8), FIRST, **more)
    calendar.write_day(make_clusters(10, 2, 8), FIRST, "south", **more)
    calendar.write_day(make_clusters(1, 0, 0), FIRST, "kiosk", **more)
    fall = LAST - timedelta(6)
    copies = [(FIRST, LAST, "north-mall"), (FIRST, LAST, "kiosk")]
    for first, last, facility in [*copies, (FIRST, fall - timedelta(1), "south")]:
        params = {"first": first + timedelta(1), "last": last, "facility": facility}
        tables.execute(COPY, **params)
    calendar.write_day(make_clusters(3, 2, 15), fall, "south", **more)
    tables.execute(COPY, first=fall + timedelta(1), last=LAST, facility="south")
    tables.execute(
        'UPDATE fer.satisfaction_summary SET cameras = \'{"till": 190, "exit": 9}\''
        " WHERE capture_day = :last AND facility_id = 'north-mall'",
        last=LAST,
    )
    sundays = [FIRST + timedelta(6 + 7 * week) for week in range(4)]
    calendar.summarize(
        *((name, day) for name in ("north-mall", "south", "kiosk") for day in sundays)
    )
    return tables


def test_weeks_and_changes(measured: Any) -> None:
    weeks = ask(measured, "which_weeks_met_the_target", facility="south", weeks="2")
    assert select(weeks, "first_day", "last_day", "verdict", "change") == [
        (date(2026, 2, 16), date(2026, 2, 22), "satisfied", "no clear change"),
        (date(2026, 2, 23), LAST, "not satisfied", "fell"),
    ]
    assert weeks[1]["points_since_week_before"] < -30
    assert len(ask(measured, "which_weeks_met_the_target")) == 3 * 4

    changed = ask(measured, "what_changed_since_last_week")
    assert select(changed, "facility_name", "period", "last_day", "change") == [
        ("South Mall", "day", LAST, "fell"),
        ("South Mall", "week", LAST, "fell"),
        ("North-Mall", "day", LAST, "no clear change"),
        ("North-Mall", "week", LAST, "no clear change"),
    ]
    assert changed[2]["happy_points"] == 0
    assert changed[0]["from_points"] < changed[0]["happy_points"] < changed[0]["to_points"] < 0


def test_weekdays_best_days_and_groups(measured: Any) -> None:
    weekdays = ask(measured, "how_do_weekdays_compare", facility="north-mall", weeks="4")
    columns = ("weekday", "days", "faces", "called_happy_percent", "satisfied_days")
    assert select(weekdays, *columns) == [
        (day, 4, 4 * 400, 50, 4) for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    ]
    best = ask(measured, "which_days_were_best")
    assert {row["facility_name"] for row in best} == {"North-Mall", "South Mall"}
    assert all(row["points_above_at_least"] > 0 for row in best)
    assert len(ask(measured, "which_days_were_best", facility="south")) == 21
    groups = ask(measured, "how_do_groups_compare")
    counts = ("facilities", "satisfied", "inconclusive", "not_satisfied", "without_rate", "faces")
    assert select(groups, "facility_group", *counts) == [
        ("malls", 2, 1, 0, 1, 0, 800),
        ("no group", 1, 0, 0, 0, 1, None),
    ]
    # Without audits of their own, rates are not compared, and days are not ranked together.
    assert [groups[0][name] for name in COMPARED] == [0, None, None]
    assert [row["facility_name"] for row in best] == sorted(row["facility_name"] for row in best)
    points = [row["points_above_at_least"] for row in best if row["facility_name"] == "South Mall"]
    assert points == sorted(points, reverse=True)
    for name in BESIDE_EACH_OTHER:
        rows = ask(measured, name)
        assert {row["with_other_facilities"] for row in rows} == {"not comparable"}, name
    assert ask(measured, "how_do_facilities_differ") == []


def test_facilities_with_an_audit_each_are_compared(measured: Any) -> None:
    """The interval of the difference is that of the report: the two audits are independent."""
    measured.execute(
        "UPDATE fer.satisfaction_summary SET method = 'local'"
        " WHERE method = 'benchmark' AND facility_id IN ('north-mall', 'south')"
    )
    (found,) = ask(measured, "how_do_facilities_differ")
    one, other = (
        Rate(*measured.query(RATE, facility=facility)[0]) for facility in ("north-mall", "south")
    )
    difference = compute_difference(one, other)
    assert (found["facility_name"], found["other_facility_name"]) == ("North-Mall", "South Mall")
    assert (found["week_until"], found["difference"]) == (LAST, "higher")
    assert [found[name] for name in ("points_higher", "from_points", "to_points")] == [
        round(100 * value) for value in (difference.difference, difference.low, difference.high)
    ]
    assert len(ask(measured, "how_do_facilities_differ", facility="south")) == 1
    assert ask(measured, "how_do_facilities_differ", facility="kiosk") == []
    groups = ask(measured, "how_do_groups_compare")
    audited, lowest, highest = (groups[0][name] for name in COMPARED)
    assert audited == 2
    assert lowest < 20 < highest
    assert select(
        ask(measured, "which_facilities_were_satisfied"), "facility_name", "with_other_facilities"
    ) == [("Kiosk", "not comparable"), ("North-Mall", "comparable"), ("South Mall", "comparable")]


def test_hours_show_no_small_cell_nor_one_that_can_be_computed(measured: Any) -> None:
    """24 faces at 9 o'clock are few; 40 at 10 are suppressed with them, 64 together are not few."""
    hours = ask(measured, "which_hours_have_the_most_happy_faces", facility="north-mall")
    assert len(hours) == 4 * 7
    sundays = [row for row in hours if row["weekday"] == "Sun"]
    assert select(sundays, "first_day", "hour", "called_happy_percent", "is_suppressed") == [
        (FIRST, 12, 50, False),
        (FIRST, 11, 30, False),
        (FIRST, 9, None, True),
        (FIRST, 10, None, True),
    ]
    assert not any("faces" in name or "sessions" in name for name in hours[0])
    # No day of the kiosk is published.
    assert ask(measured, "which_hours_have_the_most_happy_faces", facility="kiosk") == []


def test_the_hours_of_the_view_are_those_of_the_report(measured: Any) -> None:
    """For facilities of different sizes: many cells lie around the thresholds."""
    draw = random.Random(1)
    for facility_id in ("north-mall", "south"):
        for seed in range(28):
            hours = {
                str(hour): [draw.randint(0, 4), draw.randint(0, 2), draw.randint(1, 5), many]
                for hour in range(8, 20)
                if draw.random() < 0.7 and (many := draw.randint(1, 4))
            }
            measured.execute(
                "UPDATE fer.satisfaction_summary SET hours = CAST(:hours AS jsonb)"
                " WHERE facility_id = :facility AND capture_day = :day AND period = 'day'",
                hours=str(hours).replace("'", '"'),
                facility=facility_id,
                day=FIRST + timedelta(seed),
            )
        days = measured.query(
            "SELECT capture_day, method, model_version, hours FROM fer.satisfaction_summary"
            " WHERE facility_id = :facility AND period = 'day'",
            facility=facility_id,
        )
        patterns = compute_patterns([dict(day._mapping) for day in days], LAST)
        assert patterns is not None
        cells = measured.query(
            "SELECT weekday, hour, called_happy_percent, is_suppressed FROM fer.happy_by_hour"
            " WHERE facility_id = :facility",
            facility=facility_id,
        )
        assert {(weekday - 1, hour): percent for weekday, hour, percent, _ in cells} == {
            cell: None if rate is None else pytest.approx(100 * rate, abs=0.5)
            for cell, rate in patterns.hours.items()
        }
        suppressed = {is_suppressed for *_, is_suppressed in cells}
        assert suppressed == {True, False}


def test_hours_need_a_published_day_in_each_of_the_four_weeks(measured: Any) -> None:
    measured.execute(
        "DELETE FROM fer.satisfaction_summary WHERE facility_id = 'north-mall'"
        " AND period = 'day' AND capture_day BETWEEN '2026-02-09' AND '2026-02-15'"
    )
    assert ask(measured, "which_hours_have_the_most_happy_faces", facility="north-mall") == []


def test_cameras(measured: Any) -> None:
    quiet = ask(measured, "which_cameras_went_quiet")
    columns = ("facility_name", "camera", "images", "usual_images", "problem")
    assert select(quiet, *columns, "last_day_with_images") == [
        ("North-Mall", "door", 0, 100, "stopped", LAST - timedelta(1)),
        ("North-Mall", "exit", 9, 40, "far fewer images", LAST),
    ]
    cameras = ask(measured, "how_many_images_per_camera", facility="north-mall")
    assert select(cameras, "camera", "capture_day", "images", "percent_of_usual") == [
        ("door", LAST, 0, 0),
        ("exit", LAST, 9, 23),
        ("till", LAST, 190, 95),
    ]
    assert len(ask(measured, "how_many_images_per_camera")) == 9


def test_what_has_no_rate_and_what_is_not_clear(measured: Any) -> None:
    without = ask(measured, "which_facilities_have_no_rate")
    assert select(without, "facility_name", "capture_day", "reason", "last_rate") == [
        ("Kiosk", LAST, "suppressed", None)
    ]
    # A fall in the last week: the interval of the four weeks contains the target.
    (still_open,) = ask(measured, "how_many_faces_are_still_needed")
    columns = ("facility_name", "period", "last_day", "target_percent", "faces")
    assert select([still_open], *columns) == [("South Mall", "four weeks", LAST, 35, 28 * 400)]
    assert still_open["from_percent"] < 35 < still_open["to_percent"]
    needed = still_open["faces_needed"]
    times = f"about {needed / still_open['faces']:.1f} times as many" if needed else "more faces"
    assert still_open["means"].startswith(times)


def test_a_facility_that_publishes_by_week_has_a_rate(tables: Any) -> None:
    tables.add("north-mall", publish_period="week")
    calendar = Calendar(tables)
    calendar.write_day(make_clusters(10, 2, 8), FIRST)
    tables.execute(
        COPY, first=FIRST + timedelta(1), last=FIRST + timedelta(6), facility="north-mall"
    )
    (without,) = ask(tables, "which_facilities_have_no_rate")
    assert without["reason"] == "its last week has no rate"
    calendar.summarize(FIRST + timedelta(6))
    assert ask(tables, "which_facilities_have_no_rate") == []


def test_no_query_returns_a_rate_of_a_suppressed_day(measured: Any) -> None:
    """Of the kiosk no rate is published; nothing in any answer may tell one."""
    for name, query in named_queries.load_queries().items():
        if any(parameter.is_required for parameter in query.parameters):
            continue
        for row in ask(measured, name):
            if row.get("facility_name") == "Kiosk" or row.get("facility_id") == "kiosk":
                told = {
                    column: value
                    for column, value in row.items()
                    if value is not None
                    and any(part in column for part in ("happy", "sad", "neither", "points"))
                    and column != "target_rate"
                }
                assert not told, name
