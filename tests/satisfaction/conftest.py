"""Summaries of days written from called counts, without images."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from fer_batch.records import Batch
from fer_batch.satisfaction import comparisons, periods, revisions
from fer_batch.satisfaction.estimator import ClusterTotals
from fer_batch.satisfaction.figures import compute_figures
from tests.fixtures.tables import VERSION

MONDAY = date(2026, 3, 2)
CALLED = ("called_happy", "called_sad", "called_neither")


class Calendar:
    """Days of facilities, each given by the called counts of its clusters."""

    def __init__(self, tables: Any) -> None:
        self.tables = tables

    def write_day(
        self,
        called: Any,
        day: date,
        facility_id: str = "north-mall",
        *,
        rule: str = "blocks",
        is_due: bool = True,
        **others: Any,
    ) -> dict[str, Any]:
        """Write the summary of a day with `called` [C,3], as `revisions.write_summaries` does."""
        facility = self.tables.facilities[facility_id]
        k = np.asarray(called, dtype=np.int64).reshape(-1, 3)
        k = k[k.sum(axis=1) > 0]
        counts = k.sum(axis=0).tolist()
        totals = {rule: ClusterTotals.from_clusters(k).to_json()} if sum(counts) else {}
        with self.tables.transaction() as connection:
            confusion = revisions.Confusions(connection).load(others.get("model_version", VERSION))
            row = {
                "facility_id": facility_id,
                "capture_day": day,
                "first_day": day,
                "period": "day",
                "model_version": VERSION,
                "time_zone": facility.time_zone,
                "images": sum(counts),
                "images_scored": sum(counts),
                "images_pending": 0,
                "not_scored": {},
                "faces": sum(counts),
                "faces_scored": sum(counts),
                **dict(zip(CALLED, counts, strict=True)),
                "totals": totals,
                "is_complete": is_due,
                "is_below_expected": False,
                **compute_figures(totals, "day", facility, confusion, is_due=is_due),
            }
            return revisions.write_revision(connection, row | others, "run-1", facility, confusion)

    def summarize(self, *days: date | tuple[str, date], **params: Any) -> list[dict[str, Any]]:
        """Write the summaries of the longer periods, and the changes.

        `params` are those of `periods.write_period_summaries`. Returns the newest summaries of the
        periods that contain the days: weeks, then four weeks.
        """
        batches = to_batches(days)
        facilities = self.tables.facilities
        with self.tables.transaction() as connection:
            periods.write_period_summaries(connection, batches, facilities, "run-1", **params)
            comparisons.write_changes(connection, batches, facilities, "run-1")
        rows = self.tables.query(
            "SELECT DISTINCT ON (s.period, s.facility_id, s.capture_day) s.*"
            " FROM fer.satisfaction_summary AS s"
            " JOIN unnest(CAST(:ids AS text[]), CAST(:days AS date[])) AS asked (id, day)"
            " ON s.facility_id = asked.id AND asked.day BETWEEN s.first_day AND s.capture_day"
            " WHERE s.period <> 'day'"
            " ORDER BY s.period DESC, s.facility_id, s.capture_day, s.revision DESC",
            ids=[batch.facility_id for batch in batches],
            days=[batch.capture_day for batch in batches],
        )
        return [dict(row._mapping) for row in rows]

    def read(self, view: str, facility_id: str = "north-mall") -> list[dict[str, Any]]:
        """The rows of a view of a facility, in order of time."""
        order = "capture_day" if view == "satisfaction_daily" else "period, last_day"
        rows = self.tables.query(
            f"SELECT * FROM fer.{view} WHERE facility_id = :id ORDER BY {order}",  # noqa: S608
            id=facility_id,
        )
        return [dict(row._mapping) for row in rows]

    def read_weeks(self, facility_id: str = "north-mall", period: str = "week") -> Any:
        rows = self.read("satisfaction_period", facility_id)
        return [row for row in rows if row["period"] == period]


def to_batches(days: Iterable[date | tuple[str, date]]) -> list[Batch]:
    return [Batch(*d) if isinstance(d, tuple) else Batch("north-mall", d) for d in days]


def list_days(count: int, begin: date = MONDAY) -> list[date]:
    return [begin + timedelta(n) for n in range(count)]


def draw_clusters(seed: int, faces: int, mix: Any = (0.3, 0.1, 0.6), clusters: int = 20) -> Any:
    """[clusters, 3] called counts of independent faces, of about the same number each."""
    sizes = [(i + 1) * faces // clusters - i * faces // clusters for i in range(clusters)]
    return np.random.default_rng(seed).multinomial(sizes, mix)


@pytest.fixture
def calendar(tables: Any) -> Calendar:
    return Calendar(tables)
