"""Retention: rows per image of old days are dropped, and no run lists such a day again.

A day is dropped for all facilities together, as its partitions; summaries stay. All days before
the retention horizon, which only moves forward, are dropped. Faces of audits lose everything that
leads to their images; their labels stay, as counts. Deleting a facility's day or a single image on
request is left to erasure.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections, deletions, schema, tables
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError
from fer_batch.findings import history
from fer_batch.log import get_logger
from fer_batch.records import Batch
from fer_batch.settings import Settings

log = get_logger(__name__)

LOCK_TIMEOUT_S = 30
"""How long detaching a partition waits for transactions that use its table; then it fails."""

_STATEMENTS = load_statements(__file__)
# For the session: DETACH … CONCURRENTLY runs outside of a transaction.
_SET_LOCK_TIMEOUT = sa.text("SELECT set_config('lock_timeout', :timeout, false)")


@dataclass(frozen=True, slots=True)
class DroppedDay:
    """A capture day with the number of `image` and `face_result` rows to drop, or dropped."""

    capture_day: date
    images: int
    faces: int


def filter_deleted(
    connection: sa.Connection, batches: Sequence[Batch], capture_day: date
) -> list[Batch]:
    """The batches, in their order, without those whose rows were deleted for good.

    Raises ConfigurationError if the capture day is before the horizon, or if all its batches were
    erased: such a day is never listed again.
    """
    first_day = deletions.load_horizon(connection)
    if first_day is not None and capture_day < first_day:
        raise ConfigurationError(
            f"the rows of {capture_day} were dropped by retention, as those of all days before "
            f"{first_day}",
            "Its summaries stay as they are; run a later day",
        )
    erased = deletions.load_erased_days(connection, batches)
    remaining = []
    for batch in batches:
        context = {"facility": batch.facility_id, "day": batch.capture_day.isoformat()}
        if batch in erased:
            log.info("skipped: the day was erased", **context)
        elif first_day is not None and batch.capture_day < first_day:
            log.info("skipped: retention has dropped the day", **context)
        else:
            remaining.append(batch)
    if not any(batch.capture_day == capture_day for batch in remaining):
        raise ConfigurationError(
            f"{capture_day} was erased for every facility of this run",
            "An erased day is not read again; run another day or facility",
        )
    return remaining


def find_expired(source: Settings | str, before: date) -> list[DroppedDay]:
    """The days that `retain` would drop. Nothing is written."""
    target = connections.create_engine(source)
    try:
        schema.check_migrated(target)
        with connections.transaction(target) as connection:
            days = _find_partitions(connection, before)
            schema.become_owner(connection)
            return [_count_rows(connection, day, parts) for day, parts in days.items()]
    finally:
        target.dispose()


def retain(source: Settings | str, before: date) -> list[DroppedDay]:
    """Drop the rows per image of all days before `before`; returns the dropped days, oldest first.

    The horizon is written first, so that no run lists a dropped day again. Each day is then
    detached, as the owner of the tables, without blocking readers and writers, and dropped. It may
    be interrupted at any time and run again. Raises DatabaseUnavailableError if a transaction used
    the tables for longer than the lock timeout; earlier days are dropped by then.
    """
    target = connections.create_engine(source)
    try:
        schema.check_migrated(target)
        with connections.transaction(target) as connection:
            # Waits for the listings that checked the previous horizon.
            connections.lock(connection, "retention")
            connection.execute(_STATEMENTS["set_horizon"], {"before_day": before})
        with connections.transaction(target) as connection:
            days = _find_partitions(connection, before)
        return [_drop_day(target, day, parts) for day, parts in days.items()]
    finally:
        target.dispose()


def _find_partitions(connection: sa.Connection, before: date) -> dict[date, list[Any]]:
    """The partitions of the days before a day, by capture day, images first."""
    params = {"before_day": before}
    rows = connection.execute(_STATEMENTS["find_expired_partitions"], params).all()
    return {day: list(parts) for day, parts in groupby(rows, lambda row: row.capture_day)}


def _drop_day(target: sa.Engine, day: date, parts: Sequence[Any]) -> DroppedDay:
    """Detach a day's partitions one by one, then drop and record them in one transaction."""
    lock_timeout = {"timeout": f"{LOCK_TIMEOUT_S}s"}
    engine = target.execution_options(isolation_level="AUTOCOMMIT")
    with connections.translate_errors(), engine.connect() as connection:
        # Outside of a transaction, as CONCURRENTLY requires. It waits for the transactions that
        # use the table, but later transactions do not wait for it.
        connection.execute(_SET_LOCK_TIMEOUT, lock_timeout)
        schema.become_owner(connection, is_local=False)
        try:
            for part in parts:
                if part.detach is not None:
                    _execute_raw(connection, part.detach)
        finally:
            schema.reset_role(connection)
    with connections.transaction(target) as connection:
        connection.execute(_SET_LOCK_TIMEOUT, lock_timeout)
        schema.become_owner(connection)
        dropped = _count_rows(connection, day, parts)
        for part in parts:
            _execute_raw(connection, part.drop_table)
        connection.execute(_STATEMENTS["strip_audit_faces"], {"capture_day": day})
        schema.reset_role(connection)
        # They may name keys of images.
        history.forget_day(connection, day, facility_id=None)
        connection.execute(
            sa.insert(tables.deletion).values(
                kind="retention", capture_day=day, images=dropped.images, faces=dropped.faces
            )
        )
    log.info("dropped", day=day.isoformat(), images=dropped.images, faces=dropped.faces)
    return dropped


def _count_rows(connection: sa.Connection, day: date, parts: Sequence[Any]) -> DroppedDay:
    rows = {p.parent: _execute_raw(connection, p.count_rows).scalar_one() for p in parts}
    return DroppedDay(day, rows.get("image", 0), rows.get("face_result", 0))


def _execute_raw(connection: sa.Connection, sql: str) -> sa.CursorResult[Any]:
    """Run a statement that the database composed, with names quoted by its format('%I')."""
    return connection.execution_options(no_parameters=True).exec_driver_sql(sql)
