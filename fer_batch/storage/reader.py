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
"""Pages without a new key in a row: deleted versions make some; more are an endless listing."""

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
                keys = [listed.key for listed in objects]
                if start_after is not None and progress.has_started_over(keys, start_after):
                    return  # the server does not support StartAfter
                start_after = None
                start = self._find_next_start(prefix, page, keys)
                if start is not None and not progress.advance(keys, start):
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
        asked = {"Delimiter": delimiter} if delimiter else {}
        start: dict[str, str] | None = {}
        progress = _ListingProgress(may_repeat_names=True)
        pages = 0
        while start is not None and pages != max_pages:
            page = self._request_page(prefix, asked | start)
            pages += 1
            of_page = self._parse_page(prefix, page)
            folders_of_page = self._parse_folders(prefix, page)
            names = sorted([*folders_of_page, *(listed.key for listed in of_page)])
            start_after = start.get("StartAfter")
            if start_after is not None and progress.has_started_over(names, start_after):
                return ListedLevel(list(folders), objects, is_complete=True)
            folders |= dict.fromkeys(folders_of_page)
            for listed in of_page:
                name = listed.key[len(prefix) :]
                if delimiter and delimiter in name:  # the server does not support delimiters
                    folders[f"{prefix}{name.partition(delimiter)[0]}{delimiter}"] = None
                else:
                    objects.append(listed)
            start = self._find_next_start(prefix, page, names)
            if start is not None and not progress.advance(names, start):
                raise self._make_truncated_error(prefix, "the server repeats its pages")
        return ListedLevel(list(folders), objects, is_complete=start is None)

    def has_objects(self, prefix: str) -> bool:
        """Whether an object lies below `prefix`. Raises what `list` raises."""
        return bool(self.list_level(prefix, delimiter="", max_pages=1).objects)

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
        self._check_prefix(prefix, (listed.key for listed in objects))
        return objects

    def _parse_folders(self, prefix: str, page: ListObjectsV2OutputTypeDef) -> Sequence[str]:
        texts = [folder["Prefix"] for folder in page.get("CommonPrefixes", ())]
        if page.get("EncodingType") == "url":
            texts = [self._decode_key(text) for text in texts]
        self._check_prefix(prefix, texts)
        return texts

    def _check_prefix(self, prefix: str, names: Iterable[str]) -> None:
        for name in names:
            if not name.startswith(prefix):
                # The reason of a failed listing reaches managers, so only the log has the key.
                log.error("key without the prefix", key=name, prefix=prefix)
                raise StorageError(
                    f"{self.location} lists another key for the prefix {prefix!r}",
                    "The server changes keys; choose a key_template that it keeps unchanged. The "
                    "log names the key",
                )

    def _find_next_start(
        self, prefix: str, page: ListObjectsV2OutputTypeDef, names: Sequence[str]
    ) -> dict[str, str] | None:
        """Where the listing continues after a page; None at its end, which is verified.

        `names` are the keys and folders of the page.
        """
        if page.get("KeyCount", 0) > len(names):
            raise self._make_truncated_error(
                prefix, f"{len(names)} of {page['KeyCount']} keys arrived"
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
        is_full = len(names) >= page.get("MaxKeys", PAGE_KEYS)
        return {"StartAfter": names[-1]} if names and is_full else None

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
    """Whether the pages of a listing get anywhere. A token is opaque: it may be any text.

    `may_repeat_names`: a page may begin with a name that an earlier one has begun with. Some
    servers list a folder with many objects on several pages.
    """

    def __init__(self, *, may_repeat_names: bool = False) -> None:
        self._may_repeat_names = may_repeat_names
        self._first_names: set[str] = set()
        self._starts_without_news: list[dict[str, str]] = []

    def has_started_over(self, names: Sequence[str], start_after: str) -> bool:
        """Whether the first page after a name has nothing new."""
        if names and names[0] == start_after:  # the name itself, and those after it
            return len(names) == 1
        return start_after in names or bool(names and names[0] in self._first_names)

    def advance(self, names: Sequence[str], next_start: dict[str, str]) -> bool:
        """Add a page that is not the last one; False if the server goes in a circle."""
        if names and names[0] not in self._first_names:
            self._first_names.add(names[0])
            self._starts_without_news.clear()
            return True
        if names and not self._may_repeat_names:
            return False
        is_new = next_start not in self._starts_without_news
        self._starts_without_news.append(next_start)
        return is_new and len(self._starts_without_news) <= MAX_EMPTY_PAGES
