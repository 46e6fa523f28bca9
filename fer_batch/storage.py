"""Reading images out of S3: listing a prefix, fetching many objects.

Listing goes through boto3. Fetching goes through obstore, in threads, and whatever obstore
does not bring is asked for again with boto3, whose errors say what is wrong: so a key that
obstore cannot carry, an object that is gone and a server that is down are told apart in one
place. What happened to a single image is an `Outcome` in its `Fetched`; an exception means that
the place as a whole is out of order. Which keys are listed is decided in listing.py, what is
inside an image in images.py.
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

from fer_batch.errors import FerError, StorageError
from fer_batch.failpoints import reach
from fer_batch.log import logger
from fer_batch.readahead import in_threads, read_ahead
from fer_batch.records import Image, Outcome
from fer_batch.registry import Facility
from fer_batch.s3 import (
    BOTO3_ERRORS,
    Clients,
    Place,
    asked_again,
    cause,
    in_words,
    is_of_the_place,
    status_of,
    translated_errors,
)
from fer_batch.s3_pages import entries_of
from fer_batch.settings import Settings

if TYPE_CHECKING:
    from types import TracebackType

    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

log = logger(__name__)

AHEAD_BYTES = 64_000_000
"""Bytes of images that are fetched ahead of the one who asks."""

PAGES_AHEAD = 16
"""Pages of a listing that are asked for ahead of the one who reads them; each has some 0.4 MB."""

PAGE_KEYS = 1000
"""Keys in a full page of a listing, where the page itself does not say."""

DENIALS_OF_A_PLACE = 3
"""Fewer, while nothing else was asked for, are taken for trouble of those objects."""

_WITHOUT_A_REQUEST = frozenset({Outcome.EMPTY, Outcome.TOO_LARGE})
OBSTORE_ERRORS = (BaseError, OSError, ValueError)

# obstore refuses control characters, empty, `.` and `..` segments, and takes off slashes at
# either end without a word.
NOT_FOR_OBSTORE = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)(?:\.{0,2})(?:/|$)")


# What stands for another character in a key that came encoded.
_ENCODED = re.compile("[%+]")


class ListedObject(NamedTuple):
    """One object as a listing saw it. The ETag stands without its quotes."""

    key: str
    etag: str
    size_bytes: int
    last_modified_utc: datetime

    @property
    def is_folder_marker(self) -> bool:
        """Whether it is the empty object that consoles leave for a folder."""
        return self.key.endswith("/") and self.size_bytes == 0


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image's bytes, or the outcome that stands in their place and why."""

    image: Image
    data: bytes | None = None
    outcome: Outcome | None = None
    reason: str = ""


class BucketReader:
    """Reads one facility's bucket, or a bucket of the settings that is named.

    Opening it sends no request. It may be used from several threads.
    """

    def __init__(
        self, settings: Settings, facility: Facility | None = None, *, bucket: str | None = None
    ) -> None:
        if facility is not None:
            self.place = Place.of(settings, facility)
        else:
            self.place = Place(bucket or settings.s3_bucket, settings.s3_endpoint)
        self._settings = settings
        self._clients = Clients(settings, self.place)
        self._warned = False

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
        """Ask for one key below `prefix`. Raises StorageError or StorageUnavailableError."""
        with translated_errors(self.place):
            self._clients.boto.list_objects_v2(Bucket=self.place.bucket, Prefix=prefix, MaxKeys=1)

    def exists(self, key: str) -> bool:
        """Whether there is such an object. Raises StorageError or StorageUnavailableError."""
        with translated_errors(self.place):
            try:
                # Not HEAD, whose 404 does not say whether the key or the bucket is missing.
                answer = self._clients.boto.get_object(Bucket=self.place.bucket, Key=key)
            except self._clients.boto.exceptions.NoSuchKey:
                return False
            answer["Body"].close()
            return True

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Every object whose key begins with `prefix`, page by page, in no order.

        Raises StorageError for a listing that ends early, goes in a circle or holds other keys,
        and StorageError or StorageUnavailableError as S3 answers.
        """
        where: dict[str, str] | None = {}
        been: set[str] = set()
        while where is not None:
            began_after = where.get("StartAfter")
            for page in read_ahead(self._pages(prefix, where), PAGES_AHEAD):
                reach("list.page")
                found = self._entries(prefix, page)
                if any(listed.key == began_after for listed in found):
                    return  # a server that does not know StartAfter has begun anew
                where = self._following(prefix, page, found)
                if where is not None:
                    marks = {*where.values(), *(listed.key for listed in found[:1])}
                    if marks & been:
                        raise self._ends_early(prefix, "the server goes in a circle")
                    been |= marks
                yield from found

    def _pages(self, prefix: str, where: dict[str, str]) -> Iterator[ListObjectsV2OutputTypeDef]:
        """A page, and what the server says comes after it."""
        page = self._page(prefix, where)
        yield page
        while token := page.get("NextContinuationToken", ""):
            page = self._page(prefix, {"ContinuationToken": token})
            yield page

    def _entries(self, prefix: str, page: ListObjectsV2OutputTypeDef) -> Sequence[ListedObject]:
        with translated_errors(self.place):
            entries = entries_of(page)
        is_encoded = page.get("EncodingType") == "url"
        try:
            found = [
                ListedObject(
                    self._decoded(entry["Key"]) if is_encoded else entry["Key"],
                    entry["ETag"].strip('"'),
                    entry["Size"],
                    entry["LastModified"],
                )
                for entry in entries
            ]
        except KeyError as missing:
            raise self._ends_early(prefix, f"an object has no {missing}") from None
        for listed in found:
            if not listed.key.startswith(prefix):
                raise StorageError(
                    f"{self.place} lists {listed.key!r} for the prefix {prefix!r}",
                    "The server changes keys; choose a key_template that it keeps",
                )
        return found

    def _following(
        self, prefix: str, page: ListObjectsV2OutputTypeDef, found: Sequence[ListedObject]
    ) -> dict[str, str] | None:
        """Where the listing goes on after a page; None at its end, which is not just believed."""
        if page.get("KeyCount", 0) > len(found):
            raise self._ends_early(prefix, f"{len(found)} of {page['KeyCount']} keys came")
        if "IsTruncated" not in page:
            raise self._ends_early(prefix, "the server does not say whether there is more")
        if token := page.get("NextContinuationToken", ""):
            return {"ContinuationToken": token}
        if page["IsTruncated"]:
            raise self._ends_early(prefix, "the server says that there is more and not where")
        # A last page that is full may as well be one whose sequel was forgotten.
        is_full = len(found) >= page.get("MaxKeys", PAGE_KEYS)
        return {"StartAfter": found[-1].key} if found and is_full else None

    def _ends_early(self, prefix: str, why: str) -> StorageError:
        what = f"the listing of {prefix!r} in {self.place} ends early: {why}"
        return StorageError(what, "Nothing of it is kept; list again, and see the server's own log")

    def fetch_many(self, images: Iterable[Image]) -> Iterator[Fetched]:
        """The bytes of each image, as they come: in no order, a bounded way ahead.

        `images` is read in the caller's thread. Each image is fetched under the ETag that was
        listed and comes out exactly once, with `data` or with an outcome: `empty` and
        `too_large` without a request, `vanished`, `changed`, `fetch_failed`. Raises
        StorageError or StorageUnavailableError where the place as a whole refuses or does not
        answer; images that have not come out by then have no outcome.
        """
        concurrency = self._settings.s3_concurrency
        answers = in_threads(
            self._fetch,
            images,
            threads=concurrency,
            ahead_bytes=AHEAD_BYTES,
            bytes_of=lambda image: min(image.size_bytes, self._settings.max_image_bytes),
        )
        troubles = _Troubles(limit=max(concurrency, 16))
        is_checked = False
        for answer in answers:
            if isinstance(answer, _Trouble):
                troubles.add(answer)
            else:
                if answer.outcome is Outcome.VANISHED and not is_checked:
                    # SeaweedFS calls a bucket that is missing a key that is missing.
                    self.check(answer.image.key)
                    is_checked = True
                if answer.outcome not in _WITHOUT_A_REQUEST:
                    yield from troubles.of_images()
                yield answer
        yield from troubles.at_end(self)

    def _page(self, prefix: str, where: dict[str, Any]) -> ListObjectsV2OutputTypeDef:
        with translated_errors(self.place):
            return self._clients.boto.list_objects_v2(
                Bucket=self.place.bucket, Prefix=prefix, EncodingType="url", **where
            )

    def _decoded(self, key: str) -> str:
        if not _ENCODED.search(key):
            return key
        try:
            return unquote_plus(key, errors="strict")
        except UnicodeDecodeError:
            raise StorageError(
                f"{self.place} holds a key that is not UTF-8: {key}", "Rename that object"
            ) from None

    def _fetch(self, image: Image) -> Fetched | _Trouble:
        reach("fetch.before")
        if image.size_bytes == 0:
            return Fetched(image, outcome=Outcome.EMPTY, reason="the object has no bytes")
        if image.size_bytes > self._settings.max_image_bytes:
            return Fetched(
                image, outcome=Outcome.TOO_LARGE, reason=f"the object has {image.size_bytes} bytes"
            )
        if NOT_FOR_OBSTORE.search(image.key):
            return self._fetch_with_boto3(image)
        try:
            return self._fetch_with_obstore(image)
        except PreconditionError:
            return _changed(image)
        except OBSTORE_ERRORS as error:
            fetched = self._fetch_with_boto3(image)
            self._warn(fetched, error)
            return fetched

    def _fetch_with_obstore(self, image: Image) -> Fetched:
        answer = obstore.get(
            self._clients.obstore, image.key, options={"if_match": f'"{image.etag}"'}
        )
        # Some servers ignore If-Match.
        found = ((answer.meta["e_tag"] or "").strip('"'), answer.meta["size"])
        if found != (image.etag, image.size_bytes):
            return _changed(image)
        return Fetched(image, data=answer.bytes().to_bytes())

    def _fetch_with_boto3(self, image: Image) -> Fetched | _Trouble:
        boto = self._clients.boto

        def ask() -> Fetched:
            answer = boto.get_object(
                Bucket=self.place.bucket, Key=image.key, IfMatch=f'"{image.etag}"'
            )
            found = (answer["ETag"].strip('"'), answer["ContentLength"])
            if found != (image.etag, image.size_bytes):
                return _changed(image)
            return Fetched(image, data=answer["Body"].read())

        try:
            return asked_again(ask)
        except boto.exceptions.NoSuchKey:
            return Fetched(image, outcome=Outcome.VANISHED, reason="the object is gone")
        except BOTO3_ERRORS as error:
            if status_of(error) == 412:
                return _changed(image)
            meaning = in_words(self.place, error)
            if is_of_the_place(error):
                raise meaning from error
            failed = Fetched(image, outcome=Outcome.FETCH_FAILED, reason=cause(error))
            return _Trouble(failed, meaning, is_denied=status_of(error) == 403)

    def _warn(self, fetched: Fetched | _Trouble, error: Exception) -> None:
        """Say once that the slow way works where the fast one does not."""
        if not self._warned and isinstance(fetched, Fetched) and fetched.data is not None:
            self._warned = True
            log.warning("fetched with boto3", place=str(self.place), reason=type(error).__name__)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """An image that did not come, and what that means if the whole place is to blame."""

    fetched: Fetched
    error: FerError
    is_denied: bool


class _Troubles:
    """Images that did not come, held back until it is known who is to blame.

    As soon as S3 answers for another image, it is the images. If it answers for none of
    `limit` images in a row, it is the place.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_a_row: list[_Trouble] = []
        self._has_answered = False

    def add(self, trouble: _Trouble) -> None:
        self._in_a_row.append(trouble)
        if len(self._in_a_row) >= self._limit:
            raise trouble.error

    def of_images(self) -> list[Fetched]:
        """S3 has answered: what did not come until now is those images' own trouble."""
        self._has_answered = True
        fetched = [t.fetched for t in self._in_a_row]
        self._in_a_row.clear()
        return fetched

    def at_end(self, reader: BucketReader) -> list[Fetched]:
        """The last ones. Raises if S3 has not answered for a single image and is to blame."""
        if self._in_a_row and not self._has_answered:
            denied = [trouble for trouble in self._in_a_row if trouble.is_denied]
            if len(denied) >= DENIALS_OF_A_PLACE:
                raise denied[0].error
            reader.check(self._in_a_row[0].fetched.image.key)
        return self.of_images()


def _changed(image: Image) -> Fetched:
    return Fetched(
        image, outcome=Outcome.CHANGED, reason="the object is no longer the one that was listed"
    )
