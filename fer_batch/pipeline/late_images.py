"""Images that were uploaded after the last run that lists their day.

A nightly run lists its capture day and the days of its lookback. Images of older days that arrive
later would never be noticed. So the run also looks at the keys of `LATE_DAYS` days before its
lookback, and stores in the table `batch` how many of them are new. They are not listed for scoring:
a data check reports them, and a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from fer_batch.database import connections, erased_keys
from fer_batch.database.erased_keys import ErasureSecret
from fer_batch.database.statements import load_statements
from fer_batch.errors import (
    ErasureSecretError,
    FerError,
    StorageError,
    StorageUnavailableError,
    explain_exception,
)
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.pipeline.day_listing import DayListing
from fer_batch.records import Batch
from fer_batch.settings import Settings
from fer_batch.storage.reader import BucketReader

log = get_logger(__name__)

LATE_DAYS = 7
"""Days before the lookback that are looked at. Each costs as many requests as a listing."""

CONCURRENT_FACILITIES = 4

_OF_FACILITY = (StorageError, StorageUnavailableError, ErasureSecretError)
"""Errors that concern one facility. Others of fer-batch are the database's."""

_STATEMENTS = load_statements(__file__)


def find_late_images(
    engine: sa.Engine,
    settings: Settings,
    facilities: Mapping[str, Facility],
    first_listed_day: date,
    now_utc: datetime,
) -> None:
    """Store in `batch` how many images of the days before `first_listed_day` are late.

    Only days that a run has processed are looked at; history before the first run is not late. A
    facility that cannot be listed is left out, with a warning in the log.
    """
    days = [first_listed_day - timedelta(days=n) for n in range(1, LATE_DAYS + 1)]
    params = {"facility_ids": list(facilities), "capture_days": days}
    with connections.transaction(engine) as connection:
        rows = connection.execute(_STATEMENTS["find_days"], params).all()
    listed_at: dict[str, dict[date, datetime | None]] = {}
    for row in rows:
        listed_at.setdefault(row.facility_id, {})[row.capture_day] = row.listed_at

    def look(facility_id: str) -> None:
        try:
            _look_at(engine, settings, facilities[facility_id], listed_at[facility_id], now_utc)
        except Exception as error:
            if isinstance(error, FerError) and not isinstance(error, _OF_FACILITY):
                raise
            reason = explain_exception(error)
            log.warning("not looked for late images", facility=facility_id, reason=reason)

    with ThreadPoolExecutor(CONCURRENT_FACILITIES, thread_name_prefix="late") as pool:
        for _ in pool.map(look, listed_at):
            pass  # raises the error of a facility, if any


def _look_at(
    engine: sa.Engine,
    settings: Settings,
    facility: Facility,
    listed_at: Mapping[date, datetime | None],
    now_utc: datetime,
) -> None:
    secret = ErasureSecret(settings.erasure_secret)
    with connections.transaction(engine) as connection:  # before anything is listed
        erased_keys.check_secret(connection, secret, [facility.facility_id])
    with BucketReader(settings, facility) as reader:
        for day, last_listing in sorted(listed_at.items()):
            if facility.get_denial_reason(day, now_utc, settings.strict_registry_from):
                continue
            # Whether they are known is decided by their keys: clocks may differ.
            recent = [
                listed
                for listed in DayListing(reader, facility, day).list()
                if last_listing is None
                or listed.last_modified_utc is None
                or listed.last_modified_utc > last_listing - timedelta(hours=1)
            ]
            with connections.transaction(engine) as connection:
                batch = Batch(facility.facility_id, day)
                erased = erased_keys.load_erased_keys(connection, batch, secret)
                remaining = [listed for listed in recent if listed.key not in erased]
                params = {
                    "facility_id": facility.facility_id,
                    "capture_day": day,
                    "image_keys": [listed.key for listed in remaining],
                    "etags": [listed.etag for listed in remaining],
                }
                late = connection.execute(_STATEMENTS["record_late"], params).scalar_one()
            if late:
                facts = {"facility": facility.facility_id, "day": day.isoformat(), "images": late}
                log.warning("images arrived after the lookback", **facts)
