"""What was deleted for good, as those who read images must know it: keys, days, the horizon.

Of an erased key only the SHA-256 is stored. Deleting is left to the package `deletion`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import date

import sqlalchemy as sa

from fer_batch.database import tables
from fer_batch.records import Batch


def hash_key(key: str) -> bytes:
    """The SHA-256 of a key, under which its erasure is stored."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def load_erased_keys(connection: sa.Connection, facility_id: str) -> frozenset[bytes]:
    """The SHA-256 of the key of each image of the facility that was erased individually."""
    table = tables.deletion
    hashes = sa.select(table.c.key_sha256).where(
        table.c.kind == "image", table.c.facility_id == facility_id
    )
    return frozenset(map(bytes, connection.execute(hashes).scalars()))


def find_erased_keys(connection: sa.Connection, keys: Collection[str]) -> set[str]:
    """Those of the keys that were erased individually, in whatever facility."""
    table = tables.deletion
    by_hash = {hash_key(key): key for key in keys}
    found = sa.select(table.c.key_sha256).where(
        table.c.kind == "image", table.c.key_sha256.in_(by_hash)
    )
    return {by_hash[bytes(key_sha256)] for key_sha256 in connection.execute(found).scalars()}


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
    """The first capture day that retention has not dropped; None if it has never run."""
    newest = sa.select(sa.func.max(tables.retention.c.before_day))
    horizon: date | None = connection.execute(newest).scalar_one()
    return horizon
