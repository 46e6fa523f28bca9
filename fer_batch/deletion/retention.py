"""Retention: rows per image of old days are dropped, and no run lists such a day again.

A day is dropped for all facilities together, as its partitions, in one transaction: whoever reads
sees all of its rows or none. Summaries stay. All days before the retention horizon, which only
moves forward, are dropped. Faces of audits lose everything that leads to their images; their labels
stay. Deleting other rows that have expired is left to expired_rows.py, deleting a
facility's day or a single image on request to erasure.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import sqlalchemy as sa

from fer_batch.database import connections, deletions, tables
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError, LockTimeoutError
from fer_batch.findings import history
from fer_batch.log import get_logger
from fer_batch.records import Batch
from fer_batch.testing.failpoints import failpoint

log = get_logger(__name__)

PATIENCE_S = 30.0
"""For how long dropping a day is tried while other sessions use the tables or the findings."""
_PAUSE_S = 1.0
LOCK_TIMEOUT = "400ms"
"""Whoever comes later waits behind a lock that is waited for. `fer.drop_day` waits for the first
lock with no other lock held, and hardly for the next ones: together for less than PostgreSQL's
deadlock_timeout (1 s), so that no other session is ever canceled as the victim of a deadlock."""

_STATEMENTS = load_statements(__file__)
_SET_LOCK_TIMEOUT = sa.text("SELECT set_config('lock_timeout', :timeout, true)")


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

    Raises ConfigurationError if the capture day is before the horizon, or if no batch is left: such
    days are never listed again.
    """
    first_day = deletions.load_horizon(connection)
    if first_day is not None and capture_day < first_day:
        raise ConfigurationError(
            f"the rows of {capture_day} were dropped by retention, as those of all days before "
            f"{first_day}",
            "Its summaries are not written again; run a later day",
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
    if not remaining:
        raise ConfigurationError(
            f"{capture_day} was erased for every facility of this run",
            "An erased day is not read again; run another day or facility",
        )
    return remaining


def find_expired(target: sa.Engine, before: date) -> list[DroppedDay]:
    """The days that `retain` would drop. Nothing is written."""
    return [_count_day(target, day) for day in _list_days(target, before)]


def set_horizon(target: sa.Engine, kind: Literal["rows", "summaries"], before: date) -> None:
    """Record that what is before this day is deleted, before it is, so that no run writes it."""
    with connections.transaction(target) as connection:
        # Waits for the listings that checked the previous horizon.
        connections.lock(connection, "retention")
        parameters = {"kind": kind, "before_day": before}
        connection.execute(_STATEMENTS["set_horizon"], parameters)


def retain(target: sa.Engine, before: date) -> list[DroppedDay]:
    """Drop the rows per image of all days before `before`; returns the dropped days, oldest first.

    The horizon is written first, so that no run lists a dropped day again. It may be interrupted at
    any time and run again. Raises LockTimeoutError, which names the sessions, if other sessions
    used the tables for as long as `PATIENCE_S`; earlier days are dropped by then.
    """
    set_horizon(target, "rows", before)
    dropped = [
        counted
        for day in _list_days(target, before)
        # Counted before anything is locked, because it takes longer than dropping.
        if _drop_patiently(target, counted := _count_day(target, day))
    ]
    with connections.transaction(target) as connection:
        # What was found on days without images, or since their day was forgotten.
        history.forget_days_before(connection, before)
    return dropped


def _list_days(target: sa.Engine, before: date) -> Sequence[date]:
    """The days before a day that have rows per image, oldest first."""
    with connections.transaction(target) as connection:
        days = connection.execute(_STATEMENTS["list_days"], {"before_day": before})
        return days.scalars().all()


def _count_day(target: sa.Engine, day: date) -> DroppedDay:
    with connections.transaction(target) as connection:
        row = connection.execute(_STATEMENTS["count_day"], {"capture_day": day}).one()
    return DroppedDay(day, *row)


def _drop_patiently(target: sa.Engine, day: DroppedDay) -> bool:
    """Drop a day, again after a pause while its tables are in use; returns whether it was there."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return _drop_day(target, day)
        except LockTimeoutError as error:
            if time.monotonic() + _PAUSE_S > end:
                raise LockTimeoutError(
                    f"the rows per image of {day.capture_day} were not dropped: "
                    f"{_describe_blockers(target)}",
                    "No row per image of the day was deleted. The next run continues with it; end "
                    "a transaction that stays open for days",
                ) from error
            time.sleep(_PAUSE_S)


def _drop_day(target: sa.Engine, day: DroppedDay) -> bool:
    """Drop and record a day in one transaction; returns whether it was there.

    Raises LockTimeoutError, with no row per image changed, if a lock is not free at once.
    """
    params = {"capture_day": day.capture_day}
    with connections.transaction(target) as connection:
        # What was found that day may name keys of images. In a transaction of its own: nobody is to
        # wait for these rows at the locks of the tables, nor these locks for that of the findings.
        connection.execute(_SET_LOCK_TIMEOUT, {"timeout": LOCK_TIMEOUT})
        history.forget_day(connection, day.capture_day, facility_id=None)
    failpoint("drop.before")
    with connections.transaction(target) as connection:
        connection.execute(_SET_LOCK_TIMEOUT, {"timeout": LOCK_TIMEOUT})
        is_dropped: bool = connection.execute(_STATEMENTS["drop_day"], params).scalar_one()
        failpoint("drop.during")
        if is_dropped:
            connection.execute(
                sa.insert(tables.deletion).values(
                    kind="retention", **params, images=day.images, faces=day.faces
                )
            )
    failpoint("drop.after")
    if is_dropped:
        facts = {"images": day.images, "faces": day.faces}
        log.info("dropped", day=day.capture_day.isoformat(), **facts)
    return is_dropped


def _describe_blockers(target: sa.Engine) -> str:
    """The sessions that use the tables or the findings, as far as this login may see them."""
    with connections.transaction(target) as connection:
        rows = connection.execute(_STATEMENTS["list_blockers"]).all()
    return f"in use by {', '.join(map(_describe, rows))}" if rows else "they were in use"


def _describe(session: Any) -> str:
    text = f"process {session.pid} (user {session.usename}, {session.application_name or 'unnamed'}"
    if session.xact_start is not None:
        text += f", {session.state}, in a transaction since {session.xact_start:%Y-%m-%d %H:%M} UTC"
    return f"{text})"
