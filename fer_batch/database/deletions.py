"""Which days were deleted for good, as those who read images must know it.

Erased images are left to erased_keys.py, deleting to the package `deletion`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import sqlalchemy as sa

from fer_batch.database import tables
from fer_batch.records import Batch


def load_erased_days(connection: sa.Connection, batches: Collection[Batch]) -> set[Batch]:
    """The batches that were erased as whole days."""
    table = tables.deletion
    days = sa.select(table.c.facility_id, table.c.capture_day).where(
        table.c.kind == "day",
        table.c.facility_id.in_(sorted({batch.facility_id for batch in batches})),
        table.c.capture_day.in_(sorted({batch.capture_day for batch in batches})),
    )
    return {Batch(facility_id, day) for facility_id, day in connection.execute(days)}


def load_horizon(connection: sa.Connection) -> date | None:
    """The first capture day whose rows retention has not dropped; None if it has never run."""
    newest = sa.select(sa.func.max(tables.retention.c.before_day)).where(
        tables.retention.c.kind == "rows"
    )
    horizon: date | None = connection.execute(newest).scalar_one()
    return horizon
