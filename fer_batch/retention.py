"""Retention: rows per image of old days are dropped, and no run brings such a day back.

A day is dropped for all facilities at once, with its partitions; summaries stay. How far that has
gone is the retention horizon, which only moves forward. Deleting a facility's day or one image on
demand is for erasure.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from fer_batch import database
from fer_batch.database import statement
from fer_batch.errors import ConfigurationError
from fer_batch.log import logger
from fer_batch.records import Batch
from fer_batch.settings import Settings

log = logger(__name__)

LOCK_TIMEOUT_S = 30
"""So long a partition waits for what is under way on its table; then it is for the next time."""


@dataclass(frozen=True, slots=True)
class DroppedDay:
    """A capture day, and how many rows of `image` and `face_result` its partitions hold or held."""

    capture_day: date
    images: int
    faces: int


def horizon(connection: sa.Connection) -> date | None:
    """The first capture day that was not dropped; None if retention never was asked for."""
    found: date | None = connection.execute(statement("retention_horizon")).scalar_one()
    return found


def without_deleted(
    connection: sa.Connection, batches: Sequence[Batch], capture_day: date
) -> list[Batch]:
    """The batches, in their order, less those whose rows were deleted for good.

    Raises ConfigurationError if the capture day lies before the horizon, or every batch of it was
    erased: such a day is never listed again.
    """
    first_day = horizon(connection)
    if first_day is not None and capture_day < first_day:
        raise ConfigurationError(
            f"the rows of {capture_day} were dropped by retention, as those of all days before "
            f"{first_day}",
            "Its summaries stay as they are; a run can be about a later day",
        )
    erased = _erased(connection, batches)
    left = []
    for batch in batches:
        facts = {"facility": batch.facility_id, "day": batch.capture_day.isoformat()}
        if batch in erased:
            log.info("left out: the day was erased", **facts)
        elif first_day is not None and batch.capture_day < first_day:
            log.info("left out: retention has dropped the day", **facts)
        else:
            left.append(batch)
    if not any(batch.capture_day == capture_day for batch in left):
        raise ConfigurationError(
            f"{capture_day} was erased for every facility of this run",
            "An erased day is not read again; a run can be about another day or facility",
        )
    return left


def _erased(connection: sa.Connection, batches: Sequence[Batch]) -> set[Batch]:
    question = {
        "facility_ids": sorted({batch.facility_id for batch in batches}),
        "capture_days": sorted({batch.capture_day for batch in batches}),
    }
    rows = connection.execute(statement("erased_days"), question)
    return {Batch(row.facility_id, row.capture_day) for row in rows}


def expired(source: Settings | str, before: date) -> list[DroppedDay]:
    """What `retain` would drop. Nothing is written."""
    target = database.engine(source)
    try:
        database.check_migrated(target)
        with database.transaction(target) as connection:
            days = _expired(connection, before)
            return [_counted(connection, day, parts) for day, parts in days.items()]
    finally:
        target.dispose()


def retain(source: Settings | str, before: date) -> list[DroppedDay]:
    """Drop the rows per image of all days before a day; returns what was dropped, oldest first.

    The horizon is written first, so that no run brings a day back. Each day is then detached
    without stopping readers and writers, and dropped. It may be ended at any moment and asked for
    again. Raises DatabaseUnavailableError where something was under way on the tables for longer
    than the lock timeout: the days before are dropped then.
    """
    target = database.engine(source)
    try:
        database.check_migrated(target)
        with database.transaction(target) as connection:
            database.lock(connection, "retention")  # listings that saw the old horizon have ended
            connection.execute(statement("set_retention_horizon"), {"before_day": before})
        with database.transaction(target) as connection:
            days = _expired(connection, before)
        return [_drop(target, day, parts) for day, parts in days.items()]
    finally:
        target.dispose()


def _expired(connection: sa.Connection, before: date) -> dict[date, list[Any]]:
    found = connection.execute(statement("expired_partitions"), {"before_day": before}).all()
    return {day: list(parts) for day, parts in groupby(found, lambda row: row.capture_day)}


def _drop(target: sa.Engine, day: date, parts: Sequence[Any]) -> DroppedDay:
    """Detach a day's partitions one by one, then drop and record them in one transaction."""
    alone = target.execution_options(isolation_level="AUTOCOMMIT")
    with database.translate_errors(), alone.connect() as connection:
        # Outside of a transaction, as CONCURRENTLY wants it. It waits for what is under way on
        # the table, but nothing that comes later waits for it.
        connection.execute(statement("lock_timeout"), {"timeout": f"{LOCK_TIMEOUT_S}s"})
        for part in parts:
            if part.detach is not None:
                _as_it_stands(connection, part.detach)
    with database.transaction(target) as connection:
        connection.execute(statement("lock_timeout"), {"timeout": f"{LOCK_TIMEOUT_S}s"})
        dropped = _counted(connection, day, parts)
        for part in parts:
            _as_it_stands(connection, part.drop_table)
        connection.execute(
            statement("record_deletion"),
            {
                "kind": "retention",
                "facility_id": None,
                "capture_day": day,
                "image_key": None,
                "images": dropped.images,
                "faces": dropped.faces,
            },
        )
    log.info("dropped", day=day.isoformat(), images=dropped.images, faces=dropped.faces)
    return dropped


def _counted(connection: sa.Connection, day: date, parts: Sequence[Any]) -> DroppedDay:
    rows = {p.parent: _as_it_stands(connection, p.count_rows).scalar_one() for p in parts}
    return DroppedDay(day, rows.get("image", 0), rows.get("face_result", 0))


def _as_it_stands(connection: sa.Connection, sql: str) -> sa.CursorResult[Any]:
    """A statement that the database has composed, names quoted by its own format('%I')."""
    return connection.execution_options(no_parameters=True).exec_driver_sql(sql)
