"""Published figures to export: days, weeks and four weeks of two facilities."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fer_batch.export import publishing
from fer_batch.storage.folder import LocalFolder
from tests.satisfaction.conftest import Calendar, draw_clusters, list_days

DAYS = list_days(28, date(2026, 2, 2))
"""Four ISO weeks, in two months."""
TOO_FEW = date(2026, 2, 10)
"""A day with 20 faces of the North Mall, which is suppressed."""


COPY = """
    INSERT INTO fer.satisfaction_summary
    SELECT (jsonb_populate_record(s, jsonb_build_object(
        'period', CAST(:period AS text), 'capture_day', day, 'first_day', day::date - :days + 1
    ))).*
    FROM fer.satisfaction_summary AS s
    CROSS JOIN generate_series(CAST(:first AS date), :last, CAST(:step AS interval)) AS day
    WHERE s.capture_day = '2026-02-02' AND s.period = 'day'
        AND (s.facility_id, :period, day) <> ('north-mall', 'day', '2026-02-10')
"""


@pytest.fixture
def published(tables: Any) -> Calendar:
    """28 days of the North Mall and of a facility whose id is a number and whose name is odd.

    The days, weeks and four weeks are copies of one day.
    """
    calendar = Calendar(tables)
    tables.add("north-mall", target_rate=0.35, group="north")
    tables.add("007", name='=HYPERLINK("x") Ä, "B"', time_zone="Pacific/Auckland")
    for facility_id, faces in (("north-mall", 300), ("007", 400)):
        clusters = draw_clusters(1, faces)
        calendar.write_day(clusters, DAYS[0], facility_id, not_scored={"no_face": 3, "empty": 1})
    calendar.write_day(draw_clusters(1, 20), TOO_FEW)
    for period, first, step, days in (
        ("day", DAYS[1], "1 day", 1),
        ("week", DAYS[6], "7 days", 7),
        ("four weeks", DAYS[27], "7 days", 28),
    ):
        params = {"period": period, "first": first, "last": DAYS[-1], "step": step, "days": days}
        tables.execute(COPY, **params)
    return calendar


@pytest.fixture
def export_to(tables: Any) -> Any:
    """Export to a folder; returns what was done."""

    def export(folder: Path, **selection: Any) -> publishing.Exported:
        chosen = publishing.Selection(**selection)
        (exported,) = publishing.export(tables.engine, [LocalFolder(folder)], chosen)
        return exported

    return export


def read_views(tables: Any) -> dict[tuple[str, str, date], Mapping[str, Any]]:
    """The rows of the published views by period, facility and last day."""
    daily = tables.query("SELECT *, capture_day AS last_day FROM fer.satisfaction_daily")
    longer = tables.query("SELECT * FROM fer.satisfaction_period")
    rows = [dict(row._mapping) for row in (*daily, *longer)]
    return {(r.get("period", "day"), r["facility_id"], r["last_day"]): r for r in rows}
