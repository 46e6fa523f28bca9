"""The ledger: the facilities, the listed images, and which of them are unfinished.

The listing step writes `image` and `batch`, the scoring step writes results (results.py), and the
remaining work is computed from these tables. Progress is recorded nowhere else. Every function
runs in the caller's transaction and raises what `connections.translate_errors` translates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from fer_batch.database import connections, erased_keys, schema, tables
from fer_batch.database.erased_keys import NO_SECRET, ErasedKeys
from fer_batch.database.statements import load_statements
from fer_batch.errors import DatabaseError, RetryableError
from fer_batch.facilities.name_template import NO_CAPTURE_INFO, NameParser
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.records import Batch, Image, KeyRange, ListedImage
from fer_batch.testing.failpoints import failpoint

log = get_logger(__name__)

BatchStatus = Literal["listed", "not_ready", "no_permission", "failed"]

_STATEMENTS = load_statements(__file__)
_TRUNCATE_LISTING = sa.text("TRUNCATE pg_temp.listed_image")
_COUNT_LISTING = sa.text("SELECT count(DISTINCT image_key) FROM pg_temp.listed_image")
_LIST_KEYS = sa.text("SELECT image_key FROM pg_temp.listed_image")
_IS_DAY_DELETED = sa.text("SELECT fer.is_day_deleted(:facility_id, :capture_day)")

_NOTHING_ERASED = ErasedKeys(frozenset(), NO_SECRET)
_COPY_ROWS = 10_000
"""Listed objects per COPY, so that the statement timeout limits one COPY, not the whole listing."""

# What PostgreSQL's type text cannot hold: NUL, and surrogates, which UTF-8 cannot encode.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def sync_facilities(
    connection: sa.Connection, facilities: Mapping[str, Facility], invalid_ids: Iterable[str] = ()
) -> None:
    """Write the whole registry into the table `facility`.

    Facilities that were removed from the registry keep their row, with `is_in_registry` false.
    Those with `invalid_ids` are in the registry, but their entry is invalid: their row stays as it
    is. A row is written, and `updated_at` moves, only if something changed.
    """
    table = tables.facility
    # Sorted, so that concurrent runs lock the rows in the same order and cannot deadlock.
    for facility_id in sorted(facilities):
        row = _make_facility_row(facilities[facility_id])
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
        .where(table.c.is_in_registry, table.c.facility_id.not_in([*facilities, *invalid_ids]))
        .values(is_in_registry=False, updated_at=sa.func.now())
    )


def _make_facility_row(facility: Facility) -> dict[str, Any]:
    permission = facility.permission
    return {
        "facility_id": facility.facility_id,
        "name": facility.name,
        "group_name": facility.group,
        "time_zone": facility.time_zone,
        "audience": list(facility.audience),
        "jurisdiction": facility.jurisdiction,
        "image_kind": facility.image_kind,
        "key_template": list(facility.key_template),
        "day_clock": facility.day_clock,
        "include": list(facility.include),
        "exclude": list(facility.exclude),
        "empty_days": facility.empty_days,
        "name_template": facility.name_template,
        "name_clock": facility.name_clock,
        "bucket": facility.bucket,
        "target_rate": facility.target_rate,
        "publish_period": facility.publish_period,
        "key_order": facility.key_order,
        "design_effect": facility.design_effect,
        "expected_images_min": facility.expected_images_min,
        "closed_weekdays": list(facility.closed_weekdays),
        "permission_purpose": permission.purpose if permission else None,
        "permission_lawful_basis": permission.lawful_basis if permission else None,
        "permission_approved_by": permission.approved_by if permission else None,
        "permission_valid_until": permission.valid_until if permission else None,
        "permission_notice_day": permission.notice_day if permission else None,
        "permission_assessment_day": permission.assessment_day if permission else None,
        "is_in_registry": True,
    }


def load_facility(connection: sa.Connection, facility_id: str) -> Facility:
    """A facility as the last run read it; it may have been removed from the registry since.

    It has no permission, and the fields that only a listing needs are left out.
    """
    table = tables.facility
    columns = [column for column in table.c if column.name in Facility.model_fields]
    row = connection.execute(sa.select(*columns).where(table.c.facility_id == facility_id)).one()
    return Facility.model_validate(dict(row._mapping))


def begin_run(connection: sa.Connection, run_id: str, model_version: str | None = None) -> datetime:
    """Record that a run began; returns when, by the database's clock.

    The first call of a run fixes that time, and the first call with a model version fixes the
    version of the whole run. Raises RetryableError if another process has concurrently begun the
    run with another version.
    """
    run = connection.execute(
        _STATEMENTS["begin_run"], {"run_id": run_id, "model_version": model_version}
    ).one()
    if model_version not in (None, run.model_version):
        raise RetryableError(
            f"run {run_id} was concurrently begun with model version {run.model_version[:12]}, "
            f"not with {model_version[:12] if model_version else ''}",
            "Try again",
        )
    began_at: datetime = run.began_at
    return began_at


def find_version_of_run(connection: sa.Connection, run_id: str) -> str | None:
    """The model version that a run was begun with; None if it was not begun, or without one."""
    table = tables.run
    return connection.execute(
        sa.select(table.c.model_version).where(table.c.run_id == run_id)
    ).scalar_one_or_none()


def merge_listing(
    connection: sa.Connection,
    batch: Batch,
    objects: Iterable[ListedImage],
    parse_name: NameParser = lambda _: NO_CAPTURE_INFO,
    erased: ErasedKeys = _NOTHING_ERASED,
) -> tuple[int, int]:
    """Write a listing into `image` in bounded memory.

    `erased` are the erased images of the facility, loaded in an earlier transaction: while
    `objects` are read, this one holds no lock that an upgrade of the schema would wait for.

    `parse_name` gives camera and capture time of a key; where they differ from the stored ones,
    after a change of the name template, the row is updated but is no work. Returns how many images
    were listed, and how many of them became work: new ones, those with another ETag, and those
    that are listed again after the outcome `missing`, `archived` or `refused`. Images that are
    still archived are no work. Images that are not in the listing stay as they are, and erased
    ones are left out. An exception of `objects` is passed on; the caller's
    rollback then undoes everything. Raises DatabaseError for a key that PostgreSQL cannot hold,
    RetryableError for a day that was deleted concurrently, and ErasureSecretError if images of the
    facility were erased with another secret than that of `erased`.
    """
    found: list[str] = []
    connection.execute(_STATEMENTS["create_listing_table"])
    connection.execute(_TRUNCATE_LISTING)
    failpoint("list.copy.before")
    driver = connections.get_driver_connection(connection)
    copy_listing = _STATEMENTS["copy_listing"].text
    remaining = iter(objects)
    with connections.allow_idling(connection):  # rows arrive as fast as S3 delivers them
        while rows := list(islice(remaining, _COPY_ROWS)):
            with driver.cursor() as cursor, cursor.copy(copy_listing) as copy:
                for key, *fields in rows:
                    copy.write_row((_check_storable(key), *fields, *parse_name(key)))
                    if key in erased:
                        found.append(key)
                failpoint("list.copy.during")
    failpoint("list.copy.after")
    listed = connection.execute(_COUNT_LISTING).scalar_one()
    if listed == 0:
        return 0, 0
    schema.ensure_partitions(connection, [batch.capture_day])
    connections.lock(connection, f"listing:{batch.facility_id}:{batch.capture_day}")
    _check_not_deleted(connection, batch)
    _discard_erased(connection, batch, erased, found)
    connections.prefer_hash_joins(connection)
    connection.execute(_STATEMENTS["update_capture_info"], asdict(batch))
    merged = connection.execute(_STATEMENTS["merge_listing"], asdict(batch))
    failpoint("list.upsert.after")
    return int(listed), merged.rowcount


def _discard_erased(
    connection: sa.Connection, batch: Batch, erased: ErasedKeys, found: Sequence[str]
) -> None:
    """Remove erased images from the listing, whatever their ETag: they are never read again.

    `found` are the listed keys that are in `erased`, what was known before the listing began. The
    caller holds the lock of the listing: an erasure since then is known here, and a later one waits
    for this transaction and deletes the image.
    """
    known = erased_keys.load_erased_keys(connection, batch, erased.secret)
    if known.hmacs != erased.hmacs:
        keys = connection.execute(_LIST_KEYS.execution_options(yield_per=_COPY_ROWS)).scalars()
        found = [key for key in keys if key in known]
    if found:
        connection.execute(_STATEMENTS["discard_erased"], {"image_keys": found})


def discard_unlisted(
    connection: sa.Connection, batch: Batch, is_image: Callable[[str], bool]
) -> int:
    """Delete the images of earlier listings whose key is no image of the day; returns how many.

    So a change of the registry has an effect on days that were listed before. Their results are
    deleted too. Call it after `merge_listing`, in the same transaction.
    """
    # The key of an image need not be in the listing: its object may be gone.
    keys = connection.execute(_STATEMENTS["list_unlisted"], asdict(batch)).scalars()
    discarded = [key for key in keys if not is_image(key)]
    if discarded:
        # A chunk of the day either ends before this, or begins after it and writes none of them.
        for step in ("listing", "results"):
            connections.lock(connection, f"{step}:{batch.facility_id}:{batch.capture_day}")
        params = asdict(batch) | {"image_keys": discarded}
        connection.execute(_STATEMENTS["discard_faces"], params)
        connection.execute(_STATEMENTS["discard_results"], params)
        connection.execute(_STATEMENTS["discard_images"], params)
        log.warning(
            "images discarded that the registry leaves out or files under another day",
            facility=batch.facility_id,
            day=batch.capture_day.isoformat(),
            images=len(discarded),
        )
    return len(discarded)


def _check_not_deleted(connection: sa.Connection, batch: Batch) -> None:
    """Raise RetryableError if the day was deleted after the run chose its batches.

    A retry leaves the day out. Retention cannot delete a day until this transaction ends.
    """
    connections.lock_shared(connection, "retention")
    if connection.execute(_IS_DAY_DELETED, asdict(batch)).scalar_one():
        raise RetryableError(
            f"the rows of {batch.facility_id} on {batch.capture_day} were deleted during this run",
            "Try again: the retry leaves the day out",
        )


def _check_storable(key: str) -> str:
    if _UNSTORABLE.search(key):
        raise DatabaseError(
            f"the database cannot hold the image key {key!r}",
            "Rename the object: PostgreSQL stores text as UTF-8 without NUL characters",
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
    excluded: int = 0,
) -> None:
    """Record the status of a batch's listing; `attempted_at` is when the listing began.

    `images`, `size_bytes` (their sum) and `excluded` (how many objects were left out by the
    facility's patterns) belong to status `listed`. Another status never
    overwrites the counts and the time of the last successful listing.
    """
    row: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "attempted_at": attempted_at,
        "run_id": run_id,
    }
    if status == "listed":
        row |= {
            "images_listed": images,
            "bytes_listed": size_bytes,
            "listed_at": attempted_at,
            "objects_excluded": excluded,
            "images_late": 0,
        }
    connection.execute(
        insert(tables.batch)
        .values(asdict(batch) | row)
        .on_conflict_do_update(
            index_elements=[tables.batch.c.facility_id, tables.batch.c.capture_day], set_=row
        )
    )


def list_unfinished(
    connection: sa.Connection,
    key_range: KeyRange,
    model_version: str,
    *,
    limit: int,
    after_key: str | None = None,
    rescore_before: datetime | None = None,
) -> Sequence[Image]:
    """The next images of the range that have no final result for this model version.

    At most `limit`, in the byte order of their keys, all after `after_key`. With
    `rescore_before`, results that were written before it do not count.
    """
    rows = connection.execute(
        _STATEMENTS["list_unfinished"],
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
    return [_make_image(key_range.batch, row) for row in rows]


def sample_images(connection: sa.Connection, batch: Batch, sample_size: int) -> Sequence[Image]:
    """Some images of a batch, spread over its keys; first those that could be read before."""
    rows = connection.execute(
        _STATEMENTS["sample_images"], asdict(batch) | {"sample_size": sample_size}
    )
    return [_make_image(batch, row) for row in rows]


def _make_image(batch: Batch, row: sa.Row[Any]) -> Image:
    return Image(batch, row.image_key, row.etag, row.size_bytes, row.member, row.is_archived)
