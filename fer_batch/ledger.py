"""The ledger: which facilities there are, what was listed, and what is left to do.

The listing writes `image` and `batch`, the scoring writes results (results.py), and work is what
the tables say is unfinished. There is no other memory of progress. Every function works in the
caller's transaction and raises what `database.translate_errors` translates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from fer_batch import database, tables
from fer_batch.database import statement
from fer_batch.errors import DatabaseError, RetryableError
from fer_batch.failpoints import reach
from fer_batch.records import Batch, Image, KeyRange
from fer_batch.registry import Facility

BatchStatus = Literal["listed", "not_ready", "no_permission", "failed"]

_COPY_ROWS = 10_000
"""Listed objects per COPY. The statement timeout then limits a COPY, not S3's whole listing."""

# What PostgreSQL's text does not hold: NUL, and surrogates, which are no UTF-8.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def sync_facilities(connection: sa.Connection, facilities: Mapping[str, Facility]) -> None:
    """Make the table `facility` say what the whole registry says.

    Facilities that are not in it any more keep their row, with `is_in_registry` false. A row is
    only written, and `updated_at` only moves, where something changed.
    """
    table = tables.facility
    # In the order of the ids, so that two runs at once wait for each other in the same order.
    for facility_id in sorted(facilities):
        row = _facility_row(facilities[facility_id])
        changed = sa.or_(*(table.c[name].is_distinct_from(row[name]) for name in row))
        connection.execute(
            insert(table)
            .values(row | {"updated_at": sa.func.now()})
            .on_conflict_do_update(
                index_elements=[table.c.facility_id],
                set_=row | {"updated_at": sa.func.now()},
                where=changed,
            )
        )
    connection.execute(
        sa.update(table)
        .where(table.c.is_in_registry, table.c.facility_id.not_in(list(facilities)))
        .values(is_in_registry=False, updated_at=sa.func.now())
    )


def _facility_row(facility: Facility) -> dict[str, Any]:
    permission = facility.permission
    return {
        "facility_id": facility.facility_id,
        "name": facility.name,
        "time_zone": facility.time_zone,
        "image_kind": facility.image_kind,
        "key_template": facility.key_template,
        "bucket": facility.bucket,
        "target_share": facility.target_share,
        "expected_images_min": facility.expected_images_min,
        "closed_weekdays": list(facility.closed_weekdays),
        "permission_purpose": permission.purpose if permission else None,
        "permission_lawful_basis": permission.lawful_basis if permission else None,
        "permission_approved_by": permission.approved_by if permission else None,
        "permission_valid_until": permission.valid_until if permission else None,
        "is_in_registry": True,
    }


def facility(connection: sa.Connection, facility_id: str) -> Facility:
    """A facility as the last run read it, which the registry may not hold any more.

    It has no permission, and what only a listing needs is left out.
    """
    table = tables.facility
    columns = [column for column in table.c if column.name in Facility.model_fields]
    row = connection.execute(sa.select(*columns).where(table.c.facility_id == facility_id)).one()
    return Facility.model_validate(dict(row._mapping))


def begin_run(connection: sa.Connection, run_id: str, model_version: str | None = None) -> datetime:
    """When this run began, by the database's clock; the first call of a run decides it, and the
    first one with a model version decides that for all of the run.

    Raises RetryableError where another process began it with another version meanwhile.
    """
    began = connection.execute(
        statement("begin_run"), {"run_id": run_id, "model_version": model_version}
    ).one()
    if model_version not in (None, began.model_version):
        raise RetryableError(
            f"run {run_id} was begun with model version {began.model_version[:12]} at the same "
            f"moment, not with {model_version[:12] if model_version else ''}",
            "Try again",
        )
    began_at: datetime = began.began_at
    return began_at


def version_of_run(connection: sa.Connection, run_id: str) -> str | None:
    """The model version that a run was begun with; None if it was not."""
    found: str | None = connection.execute(
        statement("version_of_run"), {"run_id": run_id}
    ).scalar_one_or_none()
    return found


def merge_listing(
    connection: sa.Connection, batch: Batch, objects: Iterable[tuple[str, str, int]]
) -> tuple[int, int]:
    """Write a listing, as (key, ETag, size in bytes), into `image` in bounded memory.

    Returns how many images were listed, and how many of them are work again: new, of another
    ETag, or back after they had vanished. Images that were not listed stay as they are, and
    erased ones stay away.
    An exception of `objects` is passed on; the caller's rollback then undoes everything.
    Raises DatabaseError for a key that PostgreSQL cannot hold, RetryableError for a day that was
    deleted meanwhile.
    """
    connection.execute(statement("stage_listing"))
    connection.execute(statement("empty_listing"))
    connection.execute(statement("no_idle_timeout"))
    reach("list.copy.before")
    driver = database.driver_connection(connection)
    remaining = iter(objects)
    while rows := list(islice(remaining, _COPY_ROWS)):
        with driver.cursor() as cursor, cursor.copy(database.script("copy_listing")) as copy:
            for key, etag, size_bytes in rows:
                copy.write_row((_storable(key), etag, size_bytes))
            reach("list.copy.during")
    connection.execute(statement("idle_timeout"))
    reach("list.copy.after")
    listed = connection.execute(statement("count_listing")).scalar_one()
    if listed == 0:
        return 0, 0
    database.ensure_partitions(connection, [batch.capture_day])
    database.lock(connection, f"listing:{batch.facility_id}:{batch.capture_day}")
    _refuse_deleted(connection, batch)
    connection.execute(statement("discard_erased"), asdict(batch))
    database.join_by_hash(connection)
    merged = connection.execute(statement("merge_listing"), asdict(batch))
    reach("list.upsert.after")
    return int(listed), merged.rowcount


def _refuse_deleted(connection: sa.Connection, batch: Batch) -> None:
    """Raise RetryableError for a day that was deleted after the run had looked; a run that looks
    again leaves it out. Until this transaction ends no day becomes one by retention."""
    database.share_lock(connection, "retention")
    if connection.execute(statement("is_day_deleted"), asdict(batch)).scalar_one():
        raise RetryableError(
            f"the rows of {batch.facility_id} on {batch.capture_day} were deleted meanwhile",
            "Try again: the day is left out then",
        )


def _storable(key: str) -> str:
    if _UNSTORABLE.search(key):
        raise DatabaseError(
            f"the database cannot hold the image key {key!r}",
            "Rename the object: PostgreSQL's text is UTF-8 without NUL characters",
        )
    return key


def record_batch(
    connection: sa.Connection,
    batch: Batch,
    status: BatchStatus,
    *,
    run_id: str,
    attempted_at: datetime,
    reason: str = "",
    images: int | None = None,
    size_bytes: int | None = None,
) -> None:
    """Write how the listing of a batch went; `attempted_at` is when it began.

    `images` and `size_bytes` belong to status `listed`. What the last successful listing left
    (its counts and time) is never overwritten by another status.
    """
    row: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "attempted_at": attempted_at,
        "run_id": run_id,
    }
    if status == "listed":
        row |= {"images_listed": images, "bytes_listed": size_bytes, "listed_at": attempted_at}
    connection.execute(
        insert(tables.batch)
        .values(asdict(batch) | row)
        .on_conflict_do_update(
            index_elements=[tables.batch.c.facility_id, tables.batch.c.capture_day], set_=row
        )
    )


def work(
    connection: sa.Connection,
    key_range: KeyRange,
    model_version: str,
    *,
    limit: int,
    after_key: str | None = None,
    rescore_before: datetime | None = None,
) -> Sequence[Image]:
    """The next images of the range that have no final result of this model version.

    At most `limit`, in the byte order of their keys, all after `after_key`. With
    `rescore_before`, results that were written before it do not count.
    """
    rows = connection.execute(
        statement("work"),
        asdict(key_range.batch)
        | {
            "model_version": model_version,
            "rescore_before": rescore_before,
            "from_key": after_key or key_range.first_key,
            "to_key": key_range.last_key,
            "after_key": after_key or "",
            "page_size": limit,
        },
    )
    return [
        Image(key_range.batch, row.image_key, row.etag, row.size_bytes, row.member) for row in rows
    ]
