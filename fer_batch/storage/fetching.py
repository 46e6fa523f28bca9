"""Fetching one image under the version that was listed, and whose fault a failure is.

obstore fetches; what it cannot fetch is fetched again with boto3, whose errors are specific. So a
key that obstore does not support, a missing object and an unreachable server are distinguished in
one place. Which images are fetched at once is left to reader.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import obstore
from botocore.exceptions import IncompleteReadError
from obstore.exceptions import PreconditionError

from fer_batch.errors import FerError, PermanentError, StorageError
from fer_batch.log import get_logger
from fer_batch.records import FetchedImage, Image, ImageScore, Outcome
from fer_batch.storage.client import OBSTORE_UNSUPPORTED_KEY, Clients, retry_truncated
from fer_batch.storage.listing_pages import ListedObject
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.s3_errors import (
    BOTO3_ERRORS,
    describe_cause,
    get_code,
    get_status,
    is_location_error,
    to_error,
)
from fer_batch.storage.versions import is_etag, make_version
from fer_batch.testing.failpoints import failpoint

if TYPE_CHECKING:
    from botocore.response import StreamingBody

log = get_logger(__name__)

REFUSALS_OF_A_LOCATION = 3
"""If nothing else can be asked, this many refusals mean that the location refuses; fewer are
treated as problems of those objects."""

ASKED_AFTER_REFUSALS, ASKED_AFTER_OUTAGES = 256, 5
"""How many other objects are asked for before the location is blamed, the first that can be read
being enough. A server that is down lets each of them wait for its timeouts."""

_ARCHIVED = "archived: restore the object, or exclude it"


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """An image that could not be fetched, and the error to raise if the location is the cause."""

    score: ImageScore
    error: FerError

    @property
    def is_refusal(self) -> bool:
        return isinstance(self.error, PermanentError)


class ImageFetcher:
    """Fetches images of one location; thread-safe. `find` lists the object with a key again."""

    def __init__(
        self,
        clients: Clients,
        location: BucketLocation,
        max_bytes: int,
        find: Callable[[str], ListedObject | None],
    ) -> None:
        self._clients = clients
        self._location = location
        self._max_bytes = max_bytes
        self._find = find
        self._sends_if_match = True
        self._logged: set[str] = set()

    def fetch(self, image: Image) -> FetchedImage | ImageScore | FetchFailure:
        """The bytes of an image, or why there are none.

        Raises StorageError or StorageUnavailableError for what can only be a problem of the
        location.
        """
        failpoint("fetch.before")
        if image.size_bytes == 0:
            return ImageScore(image, Outcome.EMPTY, "the object has no bytes")
        if image.size_bytes > self._max_bytes:
            return ImageScore(image, Outcome.TOO_LARGE, f"the object has {image.size_bytes} bytes")
        if image.is_archived:
            return ImageScore(image, Outcome.ARCHIVED, _ARCHIVED)
        if OBSTORE_UNSUPPORTED_KEY.search(image.key):
            return self._fetch_with_boto3(image)
        try:
            response = obstore.get(
                self._clients.obstore, image.key, options=self._build_obstore_options(image)
            )
            meta = response.meta
            if meta["size"] == image.size_bytes and _has_version(
                image, meta["e_tag"], meta["last_modified"]
            ):
                return FetchedImage(image, response.bytes().to_bytes())
        except PreconditionError:
            return self._fetch_with_boto3(image)
        except Exception as error:
            result = self._fetch_with_boto3(image)
            if isinstance(result, FetchedImage):
                # boto3 is slower.
                self._log_once("fetched with boto3", reason=type(error).__name__)
            return result
        return self._fetch_with_boto3(image)

    def can_read(self, image: Image) -> bool:
        """Whether S3 returns the object. Raises only for a problem of the location as a whole."""
        try:
            response = self._clients.boto.get_object(Bucket=self._location.bucket, Key=image.key)
            response["Body"].close()
        except Exception as error:
            if is_location_error(error):
                raise to_error(self._location, error) from error
            return False
        return True

    def _build_obstore_options(self, image: Image) -> Any:
        return {"if_match": f'"{image.etag}"'} if self._can_match(image) else {}

    def _can_match(self, image: Image) -> bool:
        return self._sends_if_match and is_etag(image.etag)

    def _fetch_with_boto3(self, image: Image) -> FetchedImage | ImageScore | FetchFailure:
        try:
            return retry_truncated(lambda: self._request(image))
        except FerError as error:  # the object could not be listed again
            failed = ImageScore(image, Outcome.FETCH_FAILED, str(error)[:200])
            return FetchFailure(failed, error)
        except BOTO3_ERRORS as error:
            return self._explain(image, error)
        except Exception as error:
            kind = type(error).__name__
            self._log_once("S3 answers in an unexpected way", key=image.key, exc_info=True)
            failed = ImageScore(image, Outcome.FETCH_FAILED, f"unexpected answer: {kind}")
            what = f"{self._location} answers in an unexpected way: {kind}: {error}"
            return FetchFailure(failed, StorageError(what[:300], "The log has the traceback"))

    def _request(self, image: Image) -> FetchedImage | ImageScore:
        """Fetch the image with boto3. Where the response has another version, list it again."""
        boto, bucket = self._clients.boto, self._location.bucket
        if self._can_match(image):
            try:
                response = boto.get_object(Bucket=bucket, Key=image.key, IfMatch=f'"{image.etag}"')
            except boto.exceptions.ClientError as error:
                if get_status(error) != 412:
                    raise
                if difference := self._find_difference(image):
                    return difference
                # The server compares with another ETag than the one that it lists.
                self._sends_if_match = False
                response = boto.get_object(Bucket=bucket, Key=image.key)
        else:
            response = boto.get_object(Bucket=bucket, Key=image.key)
        data = _read_at_most(response["Body"], image.size_bytes + 1)
        if len(data) == image.size_bytes and _has_version(
            image, response.get("ETag"), response.get("LastModified")
        ):
            return FetchedImage(image, data)
        if difference := self._find_difference(image):
            return difference
        if len(data) != image.size_bytes:
            raise IncompleteReadError(actual_bytes=len(data), expected_bytes=image.size_bytes)
        self._sends_if_match = False
        self._log_once("the ETags of responses are not those of the listing")
        return FetchedImage(image, data)

    def _find_difference(self, image: Image) -> ImageScore | None:
        """List the object again: None if it is still the one that was listed."""
        listed = self._find(image.key)
        if listed and (listed.etag, listed.size_bytes) == (image.etag, image.size_bytes):
            return None
        return ImageScore(image, Outcome.CHANGED, "the object is no longer the one that was listed")

    def _explain(self, image: Image, error: Exception) -> ImageScore | FetchFailure:
        """What boto3's error means for the image; raises if it must be the location's."""
        code, status = get_code(error), get_status(error)
        if code == "NoSuchKey":
            return ImageScore(image, Outcome.MISSING, "the object is gone")
        if code == "InvalidObjectState":
            return ImageScore(image, Outcome.ARCHIVED, _ARCHIVED)
        meaning = to_error(self._location, error)
        if is_location_error(error):
            raise meaning from error
        if status in {404, 410}:
            outcome = Outcome.MISSING
        elif isinstance(meaning, PermanentError) and status:
            outcome = Outcome.REFUSED
        else:
            outcome = Outcome.FETCH_FAILED
        return FetchFailure(ImageScore(image, outcome, describe_cause(error)), meaning)

    def _log_once(self, event: str, **fields: Any) -> None:
        if event not in self._logged:
            self._logged.add(event)
            log.warning(event, location=str(self._location), **fields)


def _has_version(image: Image, etag: str | None, changed_at: datetime | None) -> bool:
    """Whether a response has the listed version, by its ETag, or by size and time without one."""
    if changed_at is not None and changed_at.tzinfo is None:
        changed_at = changed_at.replace(tzinfo=UTC)
    told = etag if is_etag(image.etag) else ""
    return make_version(image.key, told or "", image.size_bytes, changed_at) == image.etag


def _read_at_most(body: StreamingBody, limit: int) -> bytes:
    """The body up to a number of bytes, whether or not the response tells its length.

    Raises one of the errors in TRUNCATED_BODY if it ends early.
    """
    parts: list[bytes] = []
    with body:
        while limit > 0 and (part := body.read(limit)):
            parts.append(part)
            limit -= len(part)
    return b"".join(parts)


class FetchFailures:
    """Failures that are held back until it is known whether the images or the location cause them.

    As soon as S3 returns another image, the images are the cause. If it returns none of `limit`
    images in a row, or none at all, some others are asked for; if none of them can be read either,
    the location is the cause.
    """

    def __init__(
        self,
        limit: int,
        can_read: Callable[[Image], bool],
        list_others: Callable[[], Sequence[Image]],
    ) -> None:
        self._limit = limit
        self._can_read = can_read
        self._list_others = list_others
        self._in_a_row: list[FetchFailure] = []
        self._has_answered = False
        self._others: list[Image] | None = None

    def add(self, failure: FetchFailure) -> Iterator[ImageScore]:
        """Hold the failure back; yields those that are known to be problems of their images."""
        self._in_a_row.append(failure)
        if len(self._in_a_row) >= self._limit:
            if not self._is_another_readable():
                raise failure.error
            yield from self.release()

    def release(self) -> Iterator[ImageScore]:
        """S3 has returned an image: the failures so far are problems of those images."""
        self._has_answered = True
        failures, self._in_a_row = self._in_a_row, []
        for failure in failures:
            yield failure.score

    def end(self, check: Callable[[str], None]) -> Iterator[ImageScore]:
        """The last failures. Raises if S3 returned no image and the location is the cause.

        `check` lists a prefix, and raises if that fails.
        """
        if self._in_a_row and not self._has_answered and not self._is_another_readable():
            refused = [failure for failure in self._in_a_row if failure.is_refusal]
            if self._others or len(refused) >= REFUSALS_OF_A_LOCATION:
                raise (refused or self._in_a_row)[0].error
            check(self._in_a_row[0].score.image.key)
        yield from self.release()

    def _is_another_readable(self) -> bool:
        """Ask for other objects, first for the one that could be read last."""
        if self._others is None:
            self._others = list(self._list_others())
        failed = {failure.score.image.key for failure in self._in_a_row}
        others = [image for image in self._others if image.key not in failed]
        is_refused = any(failure.is_refusal for failure in self._in_a_row)
        for image in others[: ASKED_AFTER_REFUSALS if is_refused else ASKED_AFTER_OUTAGES]:
            if self._can_read(image):
                self._others.remove(image)
                self._others.insert(0, image)
                return True
        return False
