"""Listing: which images each facility has for each capture day.

The permission is checked first: without one, nothing of the facility is listed or read. Then the
day's upload must be complete, if the registry says how to recognize that. Then every object below
the day's prefix is listed into the ledger, with what its name says about camera and capture time,
in one transaction. A batch that fails gets the status
`failed` and its reason; the others are listed all the same. Transient failures are retried, and an
endpoint that is unreachable is not tried again for each of its facilities. Planning and scoring
what was listed are left to their modules.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from fer_batch.database import connections, erased_keys, ledger
from fer_batch.database.erased_keys import ErasureSecret
from fer_batch.database.ledger import BatchStatus
from fer_batch.errors import (
    EndpointUnreachableError,
    FerError,
    RetryableError,
    StorageError,
    StorageUnavailableError,
    explain_exception,
)
from fer_batch.facilities.ownership import Owner
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.pipeline.day_listing import DayListing
from fer_batch.records import Batch, ListedImage
from fer_batch.settings import Settings
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.reader import BucketReader
from fer_batch.testing.failpoints import failpoint

log = get_logger(__name__)

CONCURRENT_FACILITIES = 4
"""Facilities listed at once. One whose server does not answer waits for minutes of timeouts; the
others need not wait for it."""

RETRY_DELAYS_S = (10.0, 30.0)
"""Delays before transient failures are retried: enough for a server to restart."""


@dataclass(frozen=True, slots=True)
class BatchListing:
    """The result of listing a batch.

    If `status` is `listed`, the counts are set: `images`, their total `bytes`, `new_images` (those
    that must be scored), and objects that are ignored: `folder_markers`, and
    those `excluded` by the facility's patterns. Otherwise
    `reason` is set, and `is_retryable` is whether a retry may succeed.
    """

    batch: Batch
    status: BatchStatus
    reason: str = ""
    images: int = 0
    bytes: int = 0
    new_images: int = 0
    folder_markers: int = 0
    excluded: int = 0
    is_retryable: bool = False


_MAX_SHIFT_DAYS = 2
"""The correction of a clock moves an image by so many days at most: zones differ by 26 hours."""


@dataclass(slots=True)
class _DayTotals:
    """Totals of a day, computed while it is listed."""

    bytes: int = 0
    folder_markers: int = 0
    excluded: int = 0
    newest: datetime | None = None


class _NotReadyError(Exception):
    """The day's upload is not complete."""


@dataclass(frozen=True)
class _ListingAttempt:
    """One attempt to list batches.

    `merge` consumes the images of a batch as they are listed and returns how many there are and
    how many of them are new; `record` gets the result of each batch.
    """

    settings: Settings
    now_utc: datetime
    merge: Callable[[Batch, Iterator[ListedImage], _DayTotals], tuple[int, int]]
    record: Callable[[BatchListing], None]
    unreachable: set[str | None] = field(default_factory=set)
    """Endpoints that did not answer in this attempt: no further facility there is tried."""
    skipped: set[str] = field(default_factory=set)
    """Facilities that were not tried because their endpoint is unreachable."""

    def list_all(
        self, facilities: Mapping[str, Facility], batches: Sequence[Batch]
    ) -> list[BatchListing]:
        """List every batch; returns them in the order given.

        Several facilities are listed at once, the days of each one after another.
        """
        days: dict[str, list[Batch]] = {}
        for batch in batches:
            days.setdefault(batch.facility_id, []).append(batch)
        with ThreadPoolExecutor(CONCURRENT_FACILITIES, thread_name_prefix="list") as pool:
            results = pool.map(
                self._list_facility, [facilities[name] for name in days], days.values()
            )
            listings = {listing.batch: listing for result in results for listing in result}
        return [listings[batch] for batch in batches]

    def _list_facility(self, facility: Facility, batches: Sequence[Batch]) -> list[BatchListing]:
        listings: list[BatchListing] = []
        transient_failure = ""
        for batch in batches:
            listing = self._list_batch(facility, batch, transient_failure)
            if listing.is_retryable:
                # Its other days would only wait for the same timeout again.
                transient_failure = listing.reason
            self.record(listing)
            listings.append(listing)
        return listings

    def _list_batch(self, facility: Facility, batch: Batch, transient_failure: str) -> BatchListing:
        """List one batch; `transient_failure` is that of an earlier day of the facility, if any."""
        denial_reason = facility.get_denial_reason(
            batch.capture_day, self.now_utc, self.settings.strict_registry_from
        )
        if denial_reason:
            return BatchListing(batch, "no_permission", denial_reason)
        if transient_failure:
            return BatchListing(batch, "failed", transient_failure, is_retryable=True)
        location = BucketLocation.from_facility(self.settings, facility)
        if location.endpoint in self.unreachable:
            self.skipped.add(facility.facility_id)
            reason = f"{location} was not tried: its endpoint did not answer for another facility"
            return BatchListing(batch, "failed", reason, is_retryable=True)
        totals = _DayTotals()
        failpoint("list.before")
        try:
            with BucketReader(self.settings, facility) as reader:
                images = self._list_day(reader, facility, batch, totals)
                count, new_images = self.merge(batch, images, totals)
        except _NotReadyError as error:
            return BatchListing(batch, "not_ready", str(error))
        except Exception as error:
            is_retryable = isinstance(error, RetryableError)
            if is_retryable and not isinstance(error, StorageUnavailableError):
                raise  # the database's: the whole step is repeated
            if isinstance(error, EndpointUnreachableError):
                self.unreachable.add(location.endpoint)
            if not isinstance(error, FerError):
                day = batch.capture_day.isoformat()
                log.exception("listing failed", facility=facility.facility_id, day=day)
            reason = explain_exception(error)
            return BatchListing(batch, "failed", reason, is_retryable=is_retryable)
        return BatchListing(
            batch,
            "listed",
            images=count,
            bytes=totals.bytes,
            new_images=new_images,
            folder_markers=totals.folder_markers,
            excluded=totals.excluded,
        )

    def _list_day(
        self, reader: BucketReader, facility: Facility, batch: Batch, totals: _DayTotals
    ) -> Iterator[ListedImage]:
        """The images of a batch.

        Raises _NotReadyError: at once if the ready marker is missing, or after the last image if
        the newest object has not settled.
        """
        day = DayListing(reader, facility, batch.capture_day)
        if marker := day.find_missing_marker():
            raise _NotReadyError(f"there is no {marker} yet")
        for listed in day.list():
            if "\0" in listed.key:
                # The reason of a failed listing reaches managers, so only the log has the key.
                log.error("key with a null character", key=listed.key)
                raise StorageError(
                    f"{reader.location} holds a key with a null character, which PostgreSQL cannot "
                    "store",
                    "Rename that object; the log names its key",
                )
            totals.bytes += listed.size_bytes
            if changed_at := listed.last_modified_utc:
                totals.newest = max(totals.newest or changed_at, changed_at)
            yield ListedImage(listed.key, listed.etag, listed.size_bytes, listed.is_archived)
        totals.folder_markers, totals.excluded = day.folder_markers, day.excluded
        if facility.settle_minutes is not None:
            # Without an image, the wait starts at the end of the day.
            newest = totals.newest or facility.compute_day_end_utc(batch.capture_day)
            ready_at = newest + timedelta(minutes=facility.settle_minutes)
            if self.now_utc < ready_at:
                raise _NotReadyError(f"not settled before {ready_at:%Y-%m-%d %H:%M} UTC")


@dataclass(frozen=True, slots=True)
class _LedgerWriter:
    """Writes listings of one run into the ledger, each batch in one transaction."""

    engine: sa.Engine
    facilities: Mapping[str, Facility]
    run_id: str
    now_utc: datetime
    secret: ErasureSecret

    def merge(
        self, batch: Batch, images: Iterator[ListedImage], totals: _DayTotals
    ) -> tuple[int, int]:
        """Write the images and the status `listed`.

        Raises ErasureSecretError, before anything is listed, if erased images could not be
        recognized.
        """
        facility = self.facilities[batch.facility_id]
        keys = facility.build_day_keys(batch.capture_day)
        owner = Owner(batch.facility_id, facility)

        def is_of_day(key: str) -> bool:
            if keys.contains(key) and keys.is_of_day(key):
                return True
            # A key of no day, or of a distant one, is read with another template than it was
            # listed with, which may be wrong: its image stays.
            day = owner.find_day(key)
            return day is None or not 0 < abs((day - batch.capture_day).days) <= _MAX_SHIFT_DAYS

        with connections.transaction(self.engine) as connection:
            erased = erased_keys.load_erased_keys(connection, batch, self.secret)
        with connections.transaction(self.engine) as connection:
            listed, new_images = ledger.merge_listing(connection, batch, images, keys.parse, erased)
            # Without an object below the prefix, the prefix may be wrong: no pattern is judged.
            is_selected = keys.is_selected if listed or totals.excluded else lambda _: True
            ledger.discard_unlisted(
                connection, batch, lambda key: is_selected(key) and is_of_day(key)
            )
            ledger.record_batch(
                connection,
                batch,
                "listed",
                run_id=self.run_id,
                attempted_at=self.now_utc,
                images=listed,
                size_bytes=totals.bytes,
                excluded=totals.excluded,
            )
            failpoint("list.commit.before")
        failpoint("list.commit.after")
        return listed, new_images

    def record(self, listing: BatchListing) -> None:
        """Log the result, and write any status but `listed`, which `merge` has written."""
        _log_listing(listing)
        if listing.status == "listed":
            return
        with connections.transaction(self.engine) as connection:
            ledger.record_batch(
                connection,
                listing.batch,
                listing.status,
                run_id=self.run_id,
                attempted_at=self.now_utc,
                reason=listing.reason,
            )


def list_images(
    engine: sa.Engine,
    settings: Settings,
    facilities: Mapping[str, Facility],
    batches: Sequence[Batch],
    run_id: str,
    now_utc: datetime,
) -> list[BatchListing]:
    """List the batches into the ledger; returns the result of each, in the order given.

    A batch is merged and recorded in one transaction. If only some batches failed, those with
    transient failures are retried after `RETRY_DELAYS_S`, first the facilities that were not tried
    at all. Raises StorageUnavailableError, after recording it, if every facility that may be read
    failed with a transient failure; raises the database's errors.
    """
    secret = ErasureSecret(settings.erasure_secret)
    writer = _LedgerWriter(engine, facilities, run_id, now_utc, secret)
    listings: dict[Batch, BatchListing] = {}
    remaining = list(batches)
    for delay_s in (0.0, *RETRY_DELAYS_S):
        if delay_s:
            log.warning("listing retried", batches=len(remaining), in_s=delay_s)
            time.sleep(delay_s)
        attempt = _ListingAttempt(settings, now_utc, writer.merge, writer.record)
        listings |= {listing.batch: listing for listing in attempt.list_all(facilities, remaining)}
        remaining = [batch for batch in batches if listings[batch].is_retryable]
        tried = [listing for listing in listings.values() if listing.status != "no_permission"]
        if not remaining or (len(remaining) == len(tried) and not attempt.skipped):
            break
        remaining.sort(key=lambda batch: batch.facility_id not in attempt.skipped)
    if remaining and len(remaining) == len(tried):
        raise StorageUnavailableError(
            f"no facility could be listed: {tried[0].reason}", "Nothing is lost; list again later"
        )
    return [listings[batch] for batch in batches]


def preview_images(
    settings: Settings,
    facilities: Mapping[str, Facility],
    batches: Sequence[Batch],
    now_utc: datetime,
    load_finished: Callable[[Batch], Callable[[ListedImage], bool]] = lambda _: lambda _: False,
) -> list[BatchListing]:
    """List the batches as a run would, without writing anything; in the order given.

    `load_finished` returns a function that tells which images of a batch need not be scored.
    """

    def count(batch: Batch, images: Iterator[ListedImage], _: _DayTotals) -> tuple[int, int]:
        is_finished = load_finished(batch)
        are_new = [not is_finished(listed) for listed in images]
        return len(are_new), sum(are_new)

    attempt = _ListingAttempt(settings, now_utc, count, lambda _: None)
    return attempt.list_all(facilities, batches)


def _log_listing(listing: BatchListing) -> None:
    facts = {"facility": listing.batch.facility_id, "day": listing.batch.capture_day.isoformat()}
    if listing.status == "listed":
        log.info(
            "listed",
            **facts,
            images=listing.images,
            new_images=listing.new_images,
            bytes=listing.bytes,
            folder_markers=listing.folder_markers,
            excluded=listing.excluded,
        )
    else:
        write = log.error if listing.status == "failed" else log.warning
        write("not listed", **facts, status=listing.status, reason=listing.reason)
