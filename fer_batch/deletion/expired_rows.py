"""Rows that have expired, other than those per image: summaries, audits, findings, runs.

They are deleted some days at a time, each time in one transaction. Dropping the rows per image is
left to retention.py, files to expired_files.py, the order of all kinds of data to maintenance.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.deletion.expired import Expired
from fer_batch.log import get_logger
from fer_batch.settings import Settings

log = get_logger(__name__)

DAYS_AT_ONCE = 7
"""The rows of so many days are deleted in one transaction."""

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class RowKind:
    """A kind of rows, the field of `Settings` with its period, and its statements.

    `find` counts what has expired by day, `delete` deletes the rows of some of these days. With
    `lock`, no other session with this lock may run meanwhile.
    """

    kind: str
    setting: str
    find: sa.TextClause
    delete: sa.TextClause
    lock: str | None = None

    def compute_before(self, settings: Settings, today: date) -> date:
        """The day before which it has expired."""
        return today - timedelta(days=getattr(settings, self.setting))


SUMMARIES = RowKind(
    "summaries and changes",
    "summary_retention_days",
    _STATEMENTS["find_summaries"],
    _STATEMENTS["delete_summaries"],
)
KINDS = (
    SUMMARIES,
    RowKind(
        "audits",  # after the summaries that they corrected
        "summary_retention_days",
        _STATEMENTS["find_audits"],
        _STATEMENTS["delete_audits"],
    ),
    RowKind(
        "findings",
        "finding_retention_days",
        _STATEMENTS["find_findings"],
        _STATEMENTS["delete_findings"],
        lock="findings",
    ),
    RowKind(
        "runs, listings and deliveries",
        "run_retention_days",
        _STATEMENTS["find_runs"],
        _STATEMENTS["delete_runs"],
    ),
)


def find(target: sa.Engine, kind: RowKind, settings: Settings, today: date) -> Expired:
    """How many rows of a kind have expired. Nothing is written."""
    before = kind.compute_before(settings, today)
    return _describe(kind, before, sum(_count_by_day(target, kind, before).values()))


def delete(target: sa.Engine, kind: RowKind, settings: Settings, today: date) -> Expired:
    """Delete the rows of a kind that have expired. It may be interrupted and run again.

    The horizon of summaries must have been set before (`retention.set_horizon`).
    """
    before = kind.compute_before(settings, today)
    days = sorted(_count_by_day(target, kind, before))
    deleted = 0
    for first in range(0, len(days), DAYS_AT_ONCE):
        chunk = days[first : first + DAYS_AT_ONCE]
        with connections.transaction(target) as connection:
            if kind.lock is not None:
                connections.lock(connection, kind.lock)
            params = {"days": chunk, "before": before}
            rows = connection.execute(kind.delete, params).scalar_one()
        log.info(f"deleted {kind.kind}", rows=rows, day=chunk[0].isoformat(), days=len(chunk))
        deleted += rows
    return _describe(kind, before, deleted)


def _count_by_day(target: sa.Engine, kind: RowKind, before: date) -> dict[date, int]:
    """The number of expired rows by the day that they are deleted with."""
    counts: dict[date, int] = {}
    with connections.transaction(target) as connection:
        for day, rows in connection.execute(kind.find, {"before": before}):
            counts[day] = counts.get(day, 0) + rows
    return counts


def _describe(kind: RowKind, before: date, rows: int) -> Expired:
    return Expired(kind.kind, f"FER_{kind.setting.upper()}", before, rows, "rows")
