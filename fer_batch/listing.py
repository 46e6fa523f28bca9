"""Listing: what is there for each facility and capture day.

The permission is asked for first: without one nothing of the facility is listed or read. Then
the day's upload must be finished, if the registry says how to tell. Then every object below the
day's prefix is listed into the ledger, in one transaction. A facility that gives trouble gets a
batch with status `failed` and its reason; the others are listed all the same. What may pass is
tried again after a while, and a server that does not answer is not asked for each of its
facilities. What is done with the listing (planning, scoring) is left to others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from fer_batch import database, ledger
from fer_batch.errors import (
    ConfigurationError,
    RetryableError,
    StorageError,
    StorageSilentError,
    StorageUnavailableError,
)
from fer_batch.failpoints import reach
from fer_batch.ledger import BatchStatus
from fer_batch.log import logger
from fer_batch.records import Batch
from fer_batch.registry import Facility
from fer_batch.s3 import Place
from fer_batch.settings import Settings
from fer_batch.storage import BucketReader

log = logger(__name__)

FACILITIES_AT_ONCE = 4
"""One that does not answer takes minutes of time limits; the others need not wait for it."""

WAITS_S = (10.0, 30.0)
"""Before a failure that may pass is looked at again: a server that starts anew is back by then."""

ListedImage = tuple[str, str, int]
"""Key, ETag and size in bytes, as `ledger.merge_listing` takes them."""


@dataclass(frozen=True, slots=True)
class BatchListing:
    """How the listing of a batch went.

    Status `listed` goes with the counts: `images`, their `bytes`, the `new_images` that are work
    again (None in a preview), and the folder markers that were passed over. Any other status
    goes with its `reason`; `is_retryable` says whether a failure may pass.
    """

    batch: Batch
    status: BatchStatus
    reason: str = ""
    images: int = 0
    bytes: int = 0
    new_images: int | None = None
    folder_markers: int = 0
    is_retryable: bool = False


@dataclass(slots=True)
class _Seen:
    """What went by while a prefix was listed."""

    bytes: int = 0
    folder_markers: int = 0
    newest: datetime | None = None


class _NotReadyError(Exception):
    """The day's upload is not finished."""


@dataclass(frozen=True)
class _Look:
    """A look at batches. `take` gets the images of one as they are listed and says how many
    there are and how many of them are new; `note` gets how each batch went."""

    settings: Settings
    now_utc: datetime
    take: Callable[[Batch, Iterator[ListedImage], _Seen], tuple[int, int | None]]
    note: Callable[[BatchListing], None]
    silent: set[str | None] = field(default_factory=set)
    """Endpoints that did not answer in this look: it asks them for no other facility."""
    unasked: set[str] = field(default_factory=set)
    """Facilities that were left out for that."""

    def at_all(
        self, facilities: Mapping[str, Facility], batches: Sequence[Batch]
    ) -> list[BatchListing]:
        """Every batch, in the order given; some facilities at once, the days of each in turn."""
        days: dict[str, list[Batch]] = {}
        for batch in batches:
            days.setdefault(batch.facility_id, []).append(batch)
        with ThreadPoolExecutor(FACILITIES_AT_ONCE, thread_name_prefix="list") as pool:
            looks = pool.map(self._at_facility, [facilities[name] for name in days], days.values())
            found = {listing.batch: listing for look in looks for listing in look}
        return [found[batch] for batch in batches]

    def _at_facility(self, facility: Facility, batches: Sequence[Batch]) -> list[BatchListing]:
        listings: list[BatchListing] = []
        silence = ""
        for batch in batches:
            listing = self._at_batch(facility, batch, silence)
            if listing.is_retryable:
                # Its other days would only wait for the same silence again.
                silence = listing.reason
            self.note(listing)
            listings.append(listing)
        return listings

    def _at_batch(self, facility: Facility, batch: Batch, silence: str) -> BatchListing:
        if refusal := facility.refusal(batch.capture_day, self.now_utc):
            return BatchListing(batch, "no_permission", refusal)
        if silence:
            return BatchListing(batch, "failed", silence, is_retryable=True)
        place = Place.of(self.settings, facility)
        if place.endpoint in self.silent:
            self.unasked.add(facility.facility_id)
            why = f"{place} was not asked: its server had not answered for another facility"
            return BatchListing(batch, "failed", why, is_retryable=True)
        seen = _Seen()
        reach("list.before")
        try:
            with BucketReader(self.settings, facility) as reader:
                images = self._images(reader, facility, batch, seen)
                count, new_images = self.take(batch, images, seen)
        except _NotReadyError as reason:
            return BatchListing(batch, "not_ready", str(reason))
        except (StorageError, StorageUnavailableError, ConfigurationError) as error:
            if isinstance(error, StorageSilentError):
                self.silent.add(place.endpoint)
            is_retryable = isinstance(error, RetryableError)
            return BatchListing(batch, "failed", str(error), is_retryable=is_retryable)
        return BatchListing(batch, "listed", "", count, seen.bytes, new_images, seen.folder_markers)

    def _images(
        self, reader: BucketReader, facility: Facility, batch: Batch, seen: _Seen
    ) -> Iterator[ListedImage]:
        """The images of a batch. Raises _NotReadyError, at its end if only the end can tell."""
        prefix = facility.prefix(batch.capture_day)
        marker = prefix + facility.ready_marker if facility.ready_marker else None
        if marker is not None and not reader.exists(marker):
            raise _NotReadyError(f"there is no {marker} yet")
        for found in reader.list(prefix):
            if found.key == marker:
                continue
            if found.is_folder_marker:
                seen.folder_markers += 1
                continue
            if "\0" in found.key:
                raise StorageError(
                    f"{reader.place} holds the key {found.key!r}, which PostgreSQL cannot store",
                    "Rename that object",
                )
            seen.bytes += found.size_bytes
            seen.newest = max(seen.newest or found.last_modified_utc, found.last_modified_utc)
            yield found.key, found.etag, found.size_bytes
        if facility.settle_minutes is not None:
            # Of a day without an image only its end says when the first could have come.
            newest = seen.newest or facility.day_end_utc(batch.capture_day)
            ready_at = newest + timedelta(minutes=facility.settle_minutes)
            if self.now_utc < ready_at:
                raise _NotReadyError(f"not settled before {ready_at:%Y-%m-%d %H:%M} UTC")


def list_batches(
    engine: sa.Engine,
    settings: Settings,
    facilities: Mapping[str, Facility],
    batches: Sequence[Batch],
    run_id: str,
    now_utc: datetime,
) -> list[BatchListing]:
    """List the batches into the ledger and say how each went, in the order given.

    A batch is merged and recorded in one transaction. Where only some failed and that may pass,
    they are looked at again, after `WAITS_S`, those first that were not asked at all. Raises
    StorageUnavailableError, after recording it, if every facility that may be read failed and all
    of it may pass; raises the database's errors.
    """

    def merge(batch: Batch, images: Iterator[ListedImage], seen: _Seen) -> tuple[int, int]:
        with database.transaction(engine) as connection:
            listed, new_images = ledger.merge_listing(connection, batch, images)
            ledger.record_batch(
                connection,
                batch,
                "listed",
                run_id=run_id,
                attempted_at=now_utc,
                images=listed,
                size_bytes=seen.bytes,
            )
            reach("list.commit.before")
        reach("list.commit.after")
        return listed, new_images

    def record(listing: BatchListing) -> None:
        _tell(listing)
        if listing.status == "listed":
            return
        with database.transaction(engine) as connection:
            ledger.record_batch(
                connection,
                listing.batch,
                listing.status,
                run_id=run_id,
                attempted_at=now_utc,
                reason=listing.reason,
            )

    found: dict[Batch, BatchListing] = {}
    left = list(batches)
    for wait_s in (0.0, *WAITS_S):
        if wait_s:
            log.warning("some are looked at again", batches=len(left), in_s=wait_s)
            time.sleep(wait_s)
        look = _Look(settings, now_utc, merge, record)
        found |= {listing.batch: listing for listing in look.at_all(facilities, left)}
        left = [batch for batch in batches if found[batch].is_retryable]
        tried = [listing for listing in found.values() if listing.status != "no_permission"]
        if not left or (len(left) == len(tried) and not look.unasked):
            break
        left.sort(key=lambda batch: batch.facility_id not in look.unasked)
    if left and len(left) == len(tried):
        raise StorageUnavailableError(
            f"no facility could be listed: {tried[0].reason}", "Nothing is lost; list again later"
        )
    return [found[batch] for batch in batches]


def preview(
    settings: Settings,
    facilities: Mapping[str, Facility],
    batches: Sequence[Batch],
    now_utc: datetime,
) -> list[BatchListing]:
    """Look at the batches as a run would, without writing anything, in the order given."""

    def count(_: Batch, images: Iterator[ListedImage], __: _Seen) -> tuple[int, None]:
        return sum(1 for _ in images), None

    return _Look(settings, now_utc, count, lambda _: None).at_all(facilities, batches)


def _tell(listing: BatchListing) -> None:
    facts = {"facility": listing.batch.facility_id, "day": listing.batch.capture_day.isoformat()}
    if listing.status == "listed":
        log.info(
            "listed",
            **facts,
            images=listing.images,
            new_images=listing.new_images,
            bytes=listing.bytes,
            folder_markers=listing.folder_markers,
        )
    else:
        say = log.error if listing.status == "failed" else log.warning
        say("not listed", **facts, status=listing.status, reason=listing.reason)
