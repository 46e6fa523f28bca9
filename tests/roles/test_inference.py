"""A reader of the views cannot get at the counts of a suppressed day by adding and subtracting."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row

from tests.fixtures.servers import LOGINS, switch_login
from tests.fixtures.tables import Tables
from tests.satisfaction.conftest import Calendar

FIRST = date(2026, 2, 2)
DAYS = [FIRST + timedelta(n) for n in range(28)]
SMALL, LATER_SMALL = DAYS[9], DAYS[23]
"""A day with few faces, and one that is published, revised by an erasure and then suppressed."""
CAMERAS = {"till": 200, "door": 100}
HOURS = {"9": [2, 1, 3, 2], "10": [4, 2, 4, 3], "11": [30, 10, 60, 20], "12": [50, 10, 40, 20]}


@pytest.fixture
def measured(tables: Tables) -> Tables:
    calendar = Calendar(tables)
    tables.add("north-mall", target_rate=0.35, group="malls")
    tables.add("kiosk", target_rate=0.35, group="malls")
    more: dict[str, Any] = {"rule": "gap", "cameras": CAMERAS, "hours": HOURS}
    for number, day in enumerate(DAYS):
        clusters = np.tile([10 - number % 3, 2, 8], (20, 1))
        if day == SMALL:
            clusters = np.tile([1, 0, 0], (19, 1))
        calendar.write_day(clusters, day, **more)
        calendar.write_day(np.tile([1, 0, 0], (13, 1)), day, "kiosk", **more)
    sundays = [("north-mall", day) for day in DAYS[6::7]] + [("kiosk", day) for day in DAYS[6::7]]
    calendar.summarize(*sundays, *DAYS)
    # Another revision of a published day, with so few faces that nothing may be published.
    calendar.write_day(np.tile([1, 0, 0], (5, 1)), LATER_SMALL, **more)
    calendar.summarize(LATER_SMALL, *DAYS[6::7])
    return tables


def ask(tables: Tables, statement: str) -> list[dict[str, Any]]:
    """The rows that the login of an analyst gets."""
    url = switch_login(tables.url, LOGINS["reader"])
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_no_view_leads_to_a_suppressed_day(measured: Tables) -> None:
    days = ask(measured, "SELECT * FROM fer.satisfaction_daily")
    hidden = {(r["facility_id"], r["capture_day"]) for r in days if r["method"] == "suppressed"}
    assert {("north-mall", SMALL), ("north-mall", LATER_SMALL), ("kiosk", SMALL)} <= hidden
    assert len(hidden) == 30

    # Periods minus their published days.
    for period in ask(measured, "SELECT * FROM fer.satisfaction_period"):
        inside = [
            day
            for day in days
            if day["facility_id"] == period["facility_id"]
            and period["first_day"] <= day["capture_day"] <= period["last_day"]
        ]
        for count in ("faces", "sessions", "faces_scored"):
            published = sum(day[count] or 0 for day in inside)
            assert period[count] in (None, published) or period[count] - published >= 30, count
        if period["facility_id"] == "kiosk":
            assert (period["faces"], period["happy_rate"], period["sad_rate"]) == (None, None, None)

    # A rate plus its change: both figures of each change are published.
    back = {"period before": 1, "week before": 7}
    changes = ask(measured, "SELECT * FROM fer.change_public WHERE period = 'day'")
    assert changes
    for row in changes:
        later = row["facility_id"], row["last_day"]
        earlier = row["facility_id"], row["last_day"] - timedelta(back[row["comparison"]])
        assert {later, earlier}.isdisjoint(hidden)

    # Hours: nothing of a facility without a published day, and no counts.
    hours = ask(measured, "SELECT * FROM fer.happy_by_hour")
    assert {row["facility_id"] for row in hours} == {"north-mall"}
    assert not any("faces" in column or "sessions" in column for column in hours[0])

    # What was not scored, and cameras: numbers of images, whatever the faces.
    for view in ("camera_daily", "not_scored_daily"):
        columns = {
            column
            for table, column in measured.query(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = 'fer'"
            )
            if table == view
        }
        assert columns
        assert not any(word in name for name in columns for word in ("face", "happy", "sad"))


def test_a_reader_gets_no_statistics_of_hidden_columns(measured: Tables) -> None:
    measured.execute("ANALYZE fer.satisfaction_summary")
    seen = ask(measured, "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'fer'")
    assert seen == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(measured, "SELECT faces FROM fer.satisfaction_summary")
