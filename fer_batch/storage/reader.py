"""Reading images from S3: listing a prefix, fetching many objects.

Listing goes through boto3, because obstore mishandles some keys. The problem of a single image is
the outcome of its `ImageScore`; an exception means that the location as a whole fails. Fetching one
image is left to fetching.py. Which keys are listed is decided in pipeline/listing.py; decoding is
left to imaging.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError

from fer_batch.concurrency import map_bounded, prefetch
from fer_batch.errors import StorageError
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.records import FetchedImage, Image, ImageScore, Outcome
from fer_batch.settings import Settings
from fer_batch.storage.bucket_rules import BucketRules, read_rules
from fer_batch.storage.client import Clients
from fer_batch.storage.fetching import FetchFailure, FetchFailures, ImageFetcher
from fer_batch.storage.listing_pages import (
    ListedLevel,
    ListedObject,
    make_listed_object,
    names_archive_class,
    parse_entries,
)
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.s3_errors import get_code, translate_errors
from fer_batch.testing.failpoints import failpoint

if TYPE_CHECKING:
    from types import TracebackType

    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

log = get_logger(__name__)

PREFETCH_BYTES = 64_000_000
"""Bytes of images that are fetched ahead of the consumer."""

PREFETCH_PAGES = 16
"""Pages of a listing that are requested ahead of the consumer; each has about 0.4 MB."""

PAGE_KEYS = 1000
"""Keys in a full page of a listing, if the page has no MaxKeys."""

MAX_EMPTY_PAGES = 1000
"""Pages without a key in a row. Many deleted versions make some; more are an endless listing."""

_ANSWERED = frozenset({None, Outcome.CHANGED, Outcome.ARCHIVED})
"""Results that S3 gives only for objects that may be read; None is an image with its bytes."""

_ENCODED = re.compile("[%+]")
"""Percent escapes and plus signs, which encode other characters in a URL-encoded key."""


class BucketReader:
    """Reads one facility's bucket, or the bucket named by `bucket` or the settings.

    Creating it sends no request. It is thread-safe.
    """

    def __init__(
        self, settings: Settings, facility: Facility | None = None, *, bucket: str | None = None
    ) -> None:
        if facility is not None:
            self.location = BucketLocation.from_facility(settings, facility)
        else:
            self.location = BucketLocation(bucket or settings.s3_bucket, settings.s3_endpoint)
        self._settings = settings
        self._clients = Clients(settings, self.location)
        self._fetcher = ImageFetcher(
            self._clients, self.location, settings.max_image_bytes, self.find
        )
        self._asks_restore_status = False

    def __enter__(self) -> BucketReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._clients.boto.close()

    def check(self, prefix: str = "") -> None:
        """Request one key below `prefix`. Raises StorageError or StorageUnavailableError."""
        with translate_errors(self.location):
            self._clients.boto.list_objects_v2(
                Bucket=self.location.bucket, Prefix=prefix, MaxKeys=1
            )

    def read_rules(self) -> BucketRules:
        """The lifecycle rules of the bucket, and whether it has versioning, as far as S3 tells."""
        return read_rules(self._clients.boto, self.location.bucket)

    def exists(self, key: str) -> bool:
        """Whether the object exists. Raises StorageError or StorageUnavailableError."""
        with translate_errors(self.location):
            try:
                # Not HEAD, whose 404 does not show whether the key or the bucket is missing.
                response = self._clients.boto.get_object(Bucket=self.location.bucket, Key=key)
            except ClientError as error:
                if get_code(error) == "InvalidObjectState":  # archived
                    return True
                if get_code(error) == "NoSuchKey":
                    return False
                raise
            response["Body"].close()
            return True

    # ------------------------------------------------------------ listing

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Every object whose key begins with `prefix`, page by page, in no particular order.

        Raises StorageError for a listing that ends early, repeats itself or contains other keys,
        and StorageError or StorageUnavailableError for what S3 answers.
        """
        start: dict[str, str] | None = {}
        progress = _ListingProgress()
        while start is not None:
            start_after = start.get("StartAfter")
            for page in prefetch(self._request_pages(prefix, start), PREFETCH_PAGES):
                failpoint("list.page")
                objects = self._parse_page(prefix, page)
                if start_after is not None and progress.has_started_over(objects, start_after):
                    return  # the server does not support StartAfter
                start_after = None
                start = self._find_next_start(prefix, page, objects)
                if start is not None and not progress.advance(objects, start):
                    raise self._make_truncated_error(prefix, "the server repeats its pages")
                yield from objects

    def list_level(
        self, prefix: str, *, delimiter: str = "/", max_pages: int | None = None
    ) -> ListedLevel:
        """The objects below `prefix`, with those that have a delimiter after it grouped to folders.

        Without a delimiter there are no folders. Reads at most `max_pages` pages, of up to 1,000
        keys and folders. Raises what `list` raises.
        """
        folders: dict[str, None] = {}
        objects: list[ListedObject] = []
        asked: dict[str, Any] = {"Delimiter": delimiter} if delimiter else {}
        start: dict[str, Any] = {}
        for pages in count(1):
            page = self._request_page(prefix, {**asked, **start})
            for listed in self._parse_page(prefix, page):
                name = listed.key[len(prefix) :]
                if delimiter and delimiter in name:  # the server does not support delimiters
                    folders[f"{prefix}{name.partition(delimiter)[0]}{delimiter}"] = None
                else:
                    objects.append(listed)
            for folder in page.get("CommonPrefixes", ()):
                is_encoded = page.get("EncodingType") == "url"
                text = folder["Prefix"]
                folders[self._decode_key(text) if is_encoded else text] = None
            token = page.get("NextContinuationToken")
            if not token or pages == max_pages:
                break
            if token == start.get("ContinuationToken"):
                raise self._make_truncated_error(prefix, "the server repeats its pages")
            start = {"ContinuationToken": token}
        return ListedLevel(list(folders), objects, is_complete=not token)

    def _request_pages(
        self, prefix: str, start: dict[str, str]
    ) -> Iterator[ListObjectsV2OutputTypeDef]:
        """A page, and the pages that its continuation tokens lead to."""
        page = self._request_page(prefix, start)
        yield page
        while token := page.get("NextContinuationToken", ""):
            page = self._request_page(prefix, {"ContinuationToken": token})
            yield page

    def _request_page(self, prefix: str, start: dict[str, Any]) -> ListObjectsV2OutputTypeDef:
        params: dict[str, Any] = {
            "Bucket": self.location.bucket,
            "Prefix": prefix,
            "EncodingType": "url",
            **start,
        }
        asking: dict[str, Any] = {**params, "OptionalObjectAttributes": ["RestoreStatus"]}
        with translate_errors(self.location):
            if self._asks_restore_status:
                return self._clients.boto.list_objects_v2(**asking)
            page = self._clients.boto.list_objects_v2(**params)
            if names_archive_class(page):
                # Whether an archived object is restored is told only on request, which not every
                # server accepts.
                with suppress(ClientError):
                    page = self._clients.boto.list_objects_v2(**asking)
                    self._asks_restore_status = True
            return page

    def find(self, key: str) -> ListedObject | None:
        """The object with this key, as it is listed; None if it is not.

        Raises StorageError or StorageUnavailableError.
        """
        page = self._request_page(key, {"MaxKeys": 10})
        return next((found for found in self._parse_page(key, page) if found.key == key), None)

    def _parse_page(self, prefix: str, page: ListObjectsV2OutputTypeDef) -> Sequence[ListedObject]:
        with translate_errors(self.location):
            entries = parse_entries(page)
        is_encoded = page.get("EncodingType") == "url"
        try:
            objects = [
                make_listed_object(
                    self._decode_key(entry["Key"]) if is_encoded else entry["Key"], entry
                )
                for entry in entries
            ]
        except KeyError as missing:
            raise self._make_truncated_error(prefix, f"an object has no {missing}") from None
        for listed in objects:
            if not listed.key.startswith(prefix):
                # The reason of a failed listing reaches managers, so only the log has the key.
                log.error("key without the prefix", key=listed.key, prefix=prefix)
                raise StorageError(
                    f"{self.location} lists another key for the prefix {prefix!r}",
                    "The server changes keys; choose a key_template that it keeps unchanged. The "
                    "log names the key",
                )
        return objects

    def _find_next_start(
        self, prefix: str, page: ListObjectsV2OutputTypeDef, objects: Sequence[ListedObject]
    ) -> dict[str, str] | None:
        """Where the listing continues after a page; None at its end, which is verified."""
        if page.get("KeyCount", 0) > len(objects):
            raise self._make_truncated_error(
                prefix, f"{len(objects)} of {page['KeyCount']} keys arrived"
            )
        if "IsTruncated" not in page:
            raise self._make_truncated_error(
                prefix, "the server does not say whether there are more keys"
            )
        if token := page.get("NextContinuationToken", ""):
            return {"ContinuationToken": token}
        if page["IsTruncated"]:
            raise self._make_truncated_error(
                prefix, "the server reports more keys without a continuation token"
            )
        # A full last page may be one whose continuation the server omitted.
        is_full = len(objects) >= page.get("MaxKeys", PAGE_KEYS)
        return {"StartAfter": objects[-1].key} if objects and is_full else None

    def _make_truncated_error(self, prefix: str, reason: str) -> StorageError:
        return StorageError(
            f"the listing of {prefix!r} in {self.location} ends early: {reason}",
            "Nothing of it is kept; list again, and check the server's own log",
        )

    def _decode_key(self, key: str) -> str:
        if not _ENCODED.search(key):
            return key
        try:
            return unquote_plus(key, errors="strict")
        except UnicodeDecodeError:
            log.error("key that is not UTF-8", key=key)
            raise StorageError(
                f"{self.location} holds a key that is not UTF-8",
                "Rename that object; the log names its key",
            ) from None

    # ------------------------------------------------------------ fetching

    def fetch_many(
        self, images: Iterable[Image], list_others: Callable[[], Sequence[Image]] = tuple
    ) -> Iterator[FetchedImage | ImageScore]:
        """Fetch the bytes of each image, in the order of arrival, a bounded number of bytes ahead.

        `images` is iterated in the caller's thread. Each image is fetched under the version that
        was listed and yielded exactly once: with its bytes, or as a score with one of the outcomes
        `empty` and `too_large` (without a request), `missing`, `archived`, `refused`, `changed`,
        `fetch_failed`. Raises StorageError or StorageUnavailableError where the location as a whole
        refuses or does not answer; images that were not yielded by then have no outcome.
        `list_others` returns other objects of the location; if one of them can be read, the images
        are the cause of their failures.
        """
        concurrency = self._settings.s3_concurrency
        results = map_bounded(
            self._fetcher.fetch,
            images,
            threads=concurrency,
            ahead_bytes=PREFETCH_BYTES,
            bytes_of=lambda image: min(image.size_bytes, self._settings.max_image_bytes),
        )
        failures = FetchFailures(max(concurrency, 16), self._fetcher.can_read, list_others)
        is_checked = False
        for result in results:
            if isinstance(result, FetchFailure):
                yield from failures.add(result)
                continue
            outcome = None if isinstance(result, FetchedImage) else result.outcome
            if outcome is Outcome.MISSING and not is_checked:
                # SeaweedFS reports a missing bucket as a missing key.
                self.check(result.image.key)
                is_checked = True
            if outcome in _ANSWERED and not result.image.is_archived:
                yield from failures.release()
            yield result
        yield from failures.end(self.check)


class _ListingProgress:
    """Whether the pages of a listing get anywhere. A token is opaque: it may be any text."""

    def __init__(self) -> None:
        self._first_keys: set[str] = set()
        self._starts_of_empty_pages: list[dict[str, str]] = []

    def has_started_over(self, objects: Sequence[ListedObject], start_after: str) -> bool:
        """Whether the first page after a key has nothing new."""
        if objects and objects[0].key == start_after:  # the key itself, and those after it
            return len(objects) == 1
        return any(listed.key == start_after for listed in objects) or bool(
            objects and objects[0].key in self._first_keys
        )

    def advance(self, objects: Sequence[ListedObject], next_start: dict[str, str]) -> bool:
        """Add a page that is not the last one; False if the server goes in a circle."""
        if objects:
            is_new = objects[0].key not in self._first_keys
            self._first_keys.add(objects[0].key)
            self._starts_of_empty_pages.clear()
            return is_new
        is_new = next_start not in self._starts_of_empty_pages
        self._starts_of_empty_pages.append(next_start)
        return is_new and len(self._starts_of_empty_pages) <= MAX_EMPTY_PAGES
