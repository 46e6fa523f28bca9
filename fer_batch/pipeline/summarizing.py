"""Summaries of a run: of its days, then of the weeks and four weeks that contain them, and changes.

Each transaction writes the summaries of a limited number of facility days. How a summary is
counted and estimated is left to the package `satisfaction`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections, schema
from fer_batch.facilities.registry import Facility
from fer_batch.pipeline.selection import Selection
from fer_batch.records import Batch
from fer_batch.satisfaction import comparisons, periods, revisions
from fer_batch.testing.failpoints import failpoint

SUMMARY_BATCH = 500
"""Facility days that one transaction summarizes. Each takes a lock, and PostgreSQL has a few
thousand locks for all sessions together."""


def summarize(
    engine: sa.Engine,
    batches: Sequence[Batch],
    facilities: Mapping[str, Facility],
    selection: Selection,
    model_version: str,
) -> list[dict[str, Any]]:
    """Write a new revision of each summary that changed; returns the latest of each batch.

    The summaries of weeks and of four weeks that contain the days follow in the tables. Raises
    DatabaseError for a model version that is not registered.
    """
    schema.analyze(engine, (batch.capture_day for batch in batches))
    due_until = selection.find_last_due_day()
    summaries: list[dict[str, Any]] = []
    for begin in range(0, len(batches), SUMMARY_BATCH):
        with connections.transaction(engine) as connection:
            summaries += revisions.write_summaries(
                connection,
                batches[begin : begin + SUMMARY_BATCH],
                model_version,
                facilities,
                selection.run_id,
                due_until=due_until,
            )
            failpoint("summary.commit.before")
        failpoint("summary.commit.after")
    pending: list[Batch] = []
    if selection.lookback_days:  # a backfill may not have come to the other days of the week yet
        with connections.transaction(engine) as connection:
            pending = periods.list_pending_weeks(connection, facilities, due_until)
    _summarize_periods(
        engine, [*batches, *pending], facilities, selection.run_id, due_until=due_until
    )
    return summaries


def estimate_anew(
    engine: sa.Engine, days: Sequence[date], facilities: Mapping[str, Facility], run_id: str
) -> list[dict[str, Any]]:
    """Summarize consecutive days, oldest first, again from their stored results.

    Each day is counted for the model version of its newest summary. Days without a summary, and
    days whose rows were permanently deleted, are left alone.
    """
    batches = [Batch(facility_id, day) for day in days for facility_id in facilities]
    summaries: list[dict[str, Any]] = []
    for batch in batches:
        with connections.transaction(engine) as connection:
            newest = revisions.find_newest(connection, batch)
            if newest is not None:
                summaries += revisions.write_summaries(
                    connection,
                    [batch],
                    newest["model_version"],
                    facilities,
                    run_id,
                    is_asked=True,
                )
    _summarize_periods(engine, batches, facilities, run_id, asked=(days[0], days[-1]))
    return summaries


def _summarize_periods(
    engine: sa.Engine,
    batches: Sequence[Batch],
    facilities: Mapping[str, Facility],
    run_id: str,
    *,
    due_until: date = date.min,
    asked: tuple[date, date] | None = None,
) -> None:
    """Write the summaries of the weeks and four weeks of the batches, and all changes.

    `due_until` and `asked` are those of `periods.write_period_summaries`.
    """
    ids = sorted({batch.facility_id for batch in batches})
    for begin in range(0, len(ids), SUMMARY_BATCH):
        chunk = set(ids[begin : begin + SUMMARY_BATCH])
        of_chunk = [batch for batch in batches if batch.facility_id in chunk]
        with connections.transaction(engine) as connection:
            periods.write_period_summaries(
                connection, of_chunk, facilities, run_id, due_until=due_until, asked=asked
            )
            comparisons.write_changes(connection, of_chunk, facilities, run_id)
