"""Backfill of cameras and capture times: stored images get what their keys say about them.

A listing stores both for the images that it lists (listing.py). Days that are not listed again get
them here, after a facility's name template was added or changed. Only the stored keys are used:
nothing is read from S3, and no image becomes work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date

import sqlalchemy as sa

from fer_batch.database import connections, tables
from fer_batch.database.statements import load_statements
from fer_batch.facilities.name_template import CaptureInfo, NameParser
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.records import Batch

log = get_logger(__name__)

_STATEMENTS = load_statements(__file__)

PAGE_SIZE = 10_000
"""Images per transaction, so that a listing of the same day waits for a moment only."""


@dataclass(frozen=True, slots=True)
class BackfilledFacility:
    """The stored images of a facility in the given days, all and those `updated`.

    `with_time` and `without_time` add up to `images`. `days` are the days that have images.
    """

    facility_id: str
    days: int
    images: int
    with_time: int
    without_time: int
    updated: int


@dataclass(frozen=True, slots=True)
class _Page:
    images: int
    with_time: int
    updated: int
    last_key: str


def backfill_times(
    engine: sa.Engine,
    facilities: Mapping[str, Facility],
    first_day: date | None = None,
    last_day: date | None = None,
) -> list[BackfilledFacility]:
    """Compute camera and capture time of the stored images by the facilities' name templates.

    Days before `first_day` and after `last_day` are left out. A page of images is one transaction,
    and only rows that differ are written: a call after an interrupted one continues. Facilities
    are returned in the order given.
    """
    return [
        _backfill_facility(engine, facility, first_day, last_day)
        for facility in facilities.values()
    ]


def _backfill_facility(
    engine: sa.Engine, facility: Facility, first_day: date | None, last_day: date | None
) -> BackfilledFacility:
    days = images = with_time = updated = 0
    for day in _find_listed_days(engine, facility.facility_id, first_day, last_day):
        batch = Batch(facility.facility_id, day)
        images_before = images
        for page in _backfill_day(engine, batch, facility.build_name_parser(day)):
            images += page.images
            with_time += page.with_time
            updated += page.updated
        days += images > images_before
    result = BackfilledFacility(
        facility.facility_id, days, images, with_time, images - with_time, updated
    )
    log.info("capture times computed", **asdict(result))
    return result


def _find_listed_days(
    engine: sa.Engine, facility_id: str, first_day: date | None, last_day: date | None
) -> list[date]:
    table = tables.batch
    statement = (
        sa.select(table.c.capture_day)
        .where(table.c.facility_id == facility_id, table.c.listed_at.is_not(None))
        .order_by(table.c.capture_day)
    )
    if first_day is not None:
        statement = statement.where(table.c.capture_day >= first_day)
    if last_day is not None:
        statement = statement.where(table.c.capture_day <= last_day)
    with connections.transaction(engine) as connection:
        return list(connection.execute(statement).scalars())


def _backfill_day(engine: sa.Engine, batch: Batch, parse_name: NameParser) -> Iterator[_Page]:
    after_key = ""
    while True:
        with connections.transaction(engine) as connection:
            page = _backfill_page(connection, batch, parse_name, after_key)
        yield page
        if page.images < PAGE_SIZE:
            return
        after_key = page.last_key


def _backfill_page(
    connection: sa.Connection, batch: Batch, parse_name: NameParser, after_key: str
) -> _Page:
    """Update the next page of images after a key."""
    # A listing or an erasure of the day writes the same rows, in another order.
    connections.lock(connection, f"listing:{batch.facility_id}:{batch.capture_day}")
    params = asdict(batch) | {"after_key": after_key, "page_size": PAGE_SIZE}
    rows = connection.execute(_STATEMENTS["list_page"], params).all()
    computed = [parse_name(row.image_key) for row in rows]
    changed = [
        (row.image_key, info)
        for row, info in zip(rows, computed, strict=True)
        if info != CaptureInfo(row.camera, row.captured_at_utc)
    ]
    if changed:
        columns = {
            "image_keys": [key for key, _ in changed],
            "cameras": [info.camera for _, info in changed],
            "captured_at_utc": [info.captured_at_utc for _, info in changed],
        }
        connection.execute(_STATEMENTS["update_page"], asdict(batch) | columns)
    return _Page(
        images=len(rows),
        with_time=sum(info.captured_at_utc is not None for info in computed),
        updated=len(changed),
        last_key=rows[-1].image_key if rows else after_key,
    )
