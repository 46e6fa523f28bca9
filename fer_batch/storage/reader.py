"""Reading images from S3: listing a prefix, fetching many objects.

Listing goes through boto3. Fetching goes through obstore, in threads; what obstore cannot fetch is
fetched again with boto3, whose errors are specific. So a key that obstore does not support, a
missing object and an unreachable server are distinguished in one place. The problem of a single
image is the outcome of its `ImageScore`; an exception means that the location as a whole fails.
Which keys are listed is decided in pipeline/listing.py; decoding is left to imaging.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_plus

import obstore
from obstore.exceptions import BaseError, PreconditionError

from fer_batch.concurrency import map_bounded, prefetch
from fer_batch.errors import FerError, StorageError
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.records import FetchedImage, Image, ImageScore, Outcome
from fer_batch.settings import Settings
from fer_batch.storage.client import Clients, retry_truncated
from fer_batch.storage.listing_pages import parse_entries
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.s3_errors import (
    BOTO3_ERRORS,
    describe_cause,
    get_status,
    is_location_error,
    to_error,
    translate_errors,
)
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

DENIALS_OF_A_LOCATION = 3
"""If no other object was requested, this many denials mean that the location denies access; fewer
are treated as problems of those objects."""

_WITHOUT_REQUEST = frozenset({Outcome.EMPTY, Outcome.TOO_LARGE})
OBSTORE_ERRORS = (BaseError, OSError, ValueError)

OBSTORE_UNSUPPORTED_KEY = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)(?:\.{0,2})(?:/|$)")
"""obstore rejects control characters and empty, `.` and `..` segments, and silently strips slashes
at both ends."""

_ENCODED = re.compile("[%+]")
"""Percent escapes and plus signs, which encode other characters in a URL-encoded key."""


class ListedObject(NamedTuple):
    """One object as it was listed. The ETag is without its quotes."""

    key: str
    etag: str
    size_bytes: int
    last_modified_utc: datetime

    @property
    def is_folder_marker(self) -> bool:
        """Whether it is the empty object that S3 consoles create for a folder."""
        return self.key.endswith("/") and self.size_bytes == 0


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
        self._has_logged_fallback = False

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

    def exists(self, key: str) -> bool:
        """Whether the object exists. Raises StorageError or StorageUnavailableError."""
        with translate_errors(self.location):
            try:
                # Not HEAD, whose 404 does not show whether the key or the bucket is missing.
                response = self._clients.boto.get_object(Bucket=self.location.bucket, Key=key)
            except self._clients.boto.exceptions.NoSuchKey:
                return False
            response["Body"].close()
            return True

    # ------------------------------------------------------------ listing

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Every object whose key begins with `prefix`, page by page, in no particular order.

        Raises StorageError for a listing that ends early, repeats itself or contains other keys,
        and StorageError or StorageUnavailableError for what S3 answers.
        """
        start: dict[str, str] | None = {}
        seen: set[str] = set()
        while start is not None:
            start_after = start.get("StartAfter")
            for page in prefetch(self._request_pages(prefix, start), PREFETCH_PAGES):
                failpoint("list.page")
                objects = self._parse_page(prefix, page)
                if any(listed.key == start_after for listed in objects):
                    return  # a server that does not support StartAfter has started over
                start = self._find_next_start(prefix, page, objects)
                if start is not None:
                    marks = {*start.values(), *(listed.key for listed in objects[:1])}
                    if marks & seen:
                        raise self._make_truncated_error(prefix, "the server repeats its pages")
                    seen |= marks
                yield from objects

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
        with translate_errors(self.location):
            return self._clients.boto.list_objects_v2(
                Bucket=self.location.bucket, Prefix=prefix, EncodingType="url", **start
            )

    def _parse_page(self, prefix: str, page: ListObjectsV2OutputTypeDef) -> Sequence[ListedObject]:
        with translate_errors(self.location):
            entries = parse_entries(page)
        is_encoded = page.get("EncodingType") == "url"
        try:
            objects = [
                ListedObject(
                    self._decode_key(entry["Key"]) if is_encoded else entry["Key"],
                    entry["ETag"].strip('"'),
                    entry["Size"],
                    entry["LastModified"],
                )
                for entry in entries
            ]
        except KeyError as missing:
            raise self._make_truncated_error(prefix, f"an object has no {missing}") from None
        for listed in objects:
            if not listed.key.startswith(prefix):
                raise StorageError(
                    f"{self.location} lists {listed.key!r} for the prefix {prefix!r}",
                    "The server changes keys; choose a key_template that it keeps unchanged",
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
            raise StorageError(
                f"{self.location} holds a key that is not UTF-8: {key}", "Rename that object"
            ) from None

    # ------------------------------------------------------------ fetching

    def fetch_many(self, images: Iterable[Image]) -> Iterator[FetchedImage | ImageScore]:
        """Fetch the bytes of each image, in the order of arrival, a bounded number of bytes ahead.

        `images` is iterated in the caller's thread. Each image is fetched under the ETag that was
        listed and yielded exactly once: with its bytes, or as a score with one of the outcomes
        `empty` and `too_large` (without a request), `missing`, `changed`, `fetch_failed`. Raises
        StorageError or StorageUnavailableError where the location as a whole refuses or does not
        answer; images that were not yielded by then have no outcome.
        """
        concurrency = self._settings.s3_concurrency
        results = map_bounded(
            self._fetch,
            images,
            threads=concurrency,
            ahead_bytes=PREFETCH_BYTES,
            bytes_of=lambda image: min(image.size_bytes, self._settings.max_image_bytes),
        )
        failures = _FetchFailures(limit=max(concurrency, 16))
        is_checked = False
        for result in results:
            if isinstance(result, _FetchFailure):
                failures.add(result)
                continue
            outcome = None if isinstance(result, FetchedImage) else result.outcome
            if outcome is Outcome.MISSING and not is_checked:
                # SeaweedFS reports a missing bucket as a missing key.
                self.check(result.image.key)
                is_checked = True
            if outcome not in _WITHOUT_REQUEST:
                yield from failures.release()
            yield result
        yield from failures.end(self)

    def _fetch(self, image: Image) -> FetchedImage | ImageScore | _FetchFailure:
        failpoint("fetch.before")
        if image.size_bytes == 0:
            return ImageScore(image, Outcome.EMPTY, "the object has no bytes")
        if image.size_bytes > self._settings.max_image_bytes:
            return ImageScore(image, Outcome.TOO_LARGE, f"the object has {image.size_bytes} bytes")
        if OBSTORE_UNSUPPORTED_KEY.search(image.key):
            return self._fetch_with_boto3(image)
        try:
            return self._fetch_with_obstore(image)
        except PreconditionError:
            return _make_changed(image)
        except OBSTORE_ERRORS as error:
            result = self._fetch_with_boto3(image)
            if isinstance(result, FetchedImage):
                self._log_fallback(error)
            return result

    def _fetch_with_obstore(self, image: Image) -> FetchedImage | ImageScore:
        response = obstore.get(
            self._clients.obstore, image.key, options={"if_match": f'"{image.etag}"'}
        )
        # Some servers ignore If-Match.
        version = ((response.meta["e_tag"] or "").strip('"'), response.meta["size"])
        if version != (image.etag, image.size_bytes):
            return _make_changed(image)
        return FetchedImage(image, response.bytes().to_bytes())

    def _fetch_with_boto3(self, image: Image) -> FetchedImage | ImageScore | _FetchFailure:
        boto = self._clients.boto

        def request() -> FetchedImage | ImageScore:
            response = boto.get_object(
                Bucket=self.location.bucket, Key=image.key, IfMatch=f'"{image.etag}"'
            )
            version = (response["ETag"].strip('"'), response["ContentLength"])
            if version != (image.etag, image.size_bytes):
                return _make_changed(image)
            return FetchedImage(image, response["Body"].read())

        try:
            return retry_truncated(request)
        except boto.exceptions.NoSuchKey:
            return ImageScore(image, Outcome.MISSING, "the object is gone")
        except BOTO3_ERRORS as error:
            if get_status(error) == 412:
                return _make_changed(image)
            meaning = to_error(self.location, error)
            if is_location_error(error):
                raise meaning from error
            failed = ImageScore(image, Outcome.FETCH_FAILED, describe_cause(error))
            return _FetchFailure(failed, meaning, is_denied=get_status(error) == 403)

    def _log_fallback(self, error: Exception) -> None:
        """Log once that boto3, which is slower, fetches what obstore cannot."""
        if not self._has_logged_fallback:
            self._has_logged_fallback = True
            log.warning(
                "fetched with boto3", location=str(self.location), reason=type(error).__name__
            )


@dataclass(frozen=True, slots=True)
class _FetchFailure:
    """An image that could not be fetched, and the error to raise if the location is the cause."""

    score: ImageScore
    error: FerError
    is_denied: bool


class _FetchFailures:
    """Failures that are held back until it is known whether the images or the location cause them.

    As soon as S3 answers for another image, the images are the cause. If it answers for none of
    `limit` images in a row, the location is.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_a_row: list[_FetchFailure] = []
        self._has_answered = False

    def add(self, failure: _FetchFailure) -> None:
        self._in_a_row.append(failure)
        if len(self._in_a_row) >= self._limit:
            raise failure.error

    def release(self) -> list[ImageScore]:
        """S3 has answered: the failures so far are problems of those images."""
        self._has_answered = True
        scores = [failure.score for failure in self._in_a_row]
        self._in_a_row.clear()
        return scores

    def end(self, reader: BucketReader) -> list[ImageScore]:
        """The last failures. Raises if S3 answered for no image and the location is the cause."""
        if self._in_a_row and not self._has_answered:
            denied = [failure for failure in self._in_a_row if failure.is_denied]
            if len(denied) >= DENIALS_OF_A_LOCATION:
                raise denied[0].error
            reader.check(self._in_a_row[0].score.image.key)
        return self.release()


def _make_changed(image: Image) -> ImageScore:
    return ImageScore(image, Outcome.CHANGED, "the object is no longer the one that was listed")
