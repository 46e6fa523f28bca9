"""Which days were deleted for good, as those who read images must know it.

Erased images are left to erased_keys.py, deleting to the package `deletion`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import sqlalchemy as sa

from fer_batch.database import former_ids, tables
from fer_batch.records import Batch


def load_erased_days(connection: sa.Connection, batches: Collection[Batch]) -> set[Batch]:
    """The batches that were erased as whole days, also under a former id of their facility."""
    table = tables.deletion
    days = sa.select(table.c.facility_id, table.c.capture_day).where(
        table.c.kind == "day",
        table.c.capture_day.in_(sorted({batch.capture_day for batch in batches})),
    )
    erased = {Batch(facility_id, day) for facility_id, day in connection.execute(days)}
    names: dict[str, set[str]] = {batch.facility_id: {batch.facility_id} for batch in batches}
    others = {batch.facility_id for batch in erased}.difference(names)
    for former_id, facility_id in former_ids.find_former_ids(connection, others, names):
        names[facility_id].add(former_id)
    return {
        batch
        for batch in batches
        if any(Batch(name, batch.capture_day) in erased for name in names[batch.facility_id])
    }


def load_horizon(connection: sa.Connection) -> date | None:
    """The first capture day whose rows retention has not dropped; None if it has never run."""
    newest = sa.select(sa.func.max(tables.retention.c.before_day)).where(
        tables.retention.c.kind == "rows"
    )
    horizon: date | None = connection.execute(newest).scalar_one()
    return horizon
