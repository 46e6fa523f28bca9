"""Pages of a listing, parsed in two steps: the page by boto3, its entries later and by us.

Sending the requests is left to reader.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from xml.etree import ElementTree

from botocore.parsers import ResponseParserError

from fer_batch.records import Batch, Image
from fer_batch.storage.versions import make_version

ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects S3 does not return before they are restored. GLACIER_IR is none."""

_RAW_ENTRIES = "RawEntries"


class ListedObject(NamedTuple):
    """One object as it was listed; `etag` is its version (see versions.py).

    `is_archived` is whether S3 does not return it before it is restored. `last_modified_utc` is
    None if the server does not tell it.
    """

    key: str
    etag: str
    size_bytes: int
    last_modified_utc: datetime | None
    is_archived: bool = False

    @property
    def is_folder_marker(self) -> bool:
        """Whether it is the empty object that S3 consoles create for a folder."""
        return self.key.endswith("/") and self.size_bytes == 0

    def build_image(self, batch: Batch) -> Image:
        return Image(batch, self.key, self.etag, self.size_bytes, is_archived=self.is_archived)


class ListedLevel(NamedTuple):
    """What lies directly below a prefix; a folder is the beginning of keys that ends with a slash.

    `is_complete` is false if the server may have more.
    """

    folders: Sequence[str]
    objects: Sequence[ListedObject]
    is_complete: bool


def cut_out_entries(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Cut the entries, up to a thousand, out of a page before boto3 parses it.

    boto3 would search its model of S3 for each field of each entry, which takes most of the time of
    a listing. Without that, the next page can be requested before this page's entries are parsed by
    `parse_entries`.
    """
    body: bytes = response_dict["body"]
    begin, end = body.find(b"<Contents>"), body.rfind(b"</Contents>") + len(b"</Contents>")
    if response_dict["status_code"] == 200 and 0 <= begin < end:
        customized_response_dict[_RAW_ENTRIES] = body[begin:end]
        response_dict["body"] = body[:begin] + body[end:]


def names_archive_class(page: Mapping[str, Any]) -> bool:
    """Whether an object of the page is in an archive class."""
    raw_entries: bytes = page.get(_RAW_ENTRIES, b"")
    return any(f">{name}<".encode() in raw_entries for name in ARCHIVE_CLASSES) or any(
        entry.get("StorageClass") in ARCHIVE_CLASSES for entry in page.get("Contents", ())
    )


def parse_time(text: str) -> datetime | None:
    """A time in ISO 8601 or as in HTTP headers. Without a zone it is UTC; None for no text.

    Raises ValueError.
    """
    if not text.strip():
        return None
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        time = parsedate_to_datetime(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def drop_malformed_time(response_dict: dict[str, Any], **_: Any) -> None:
    """Remove a Last-Modified that is no time, before boto3 parses it and fails."""
    try:
        parse_time(response_dict["headers"].get("last-modified", ""))
    except ValueError:
        del response_dict["headers"]["last-modified"]


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "Key": str,
    "LastModified": parse_time,
    "ETag": str,
    "Size": int,
    "StorageClass": str,
    "RestoreExpiryDate": str,
}


def parse_entries(page: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of a page, each with those of the fields in use that it has.

    The fields are Key, LastModified, ETag, Size, StorageClass and RestoreStatus. Raises
    ResponseParserError if they are malformed.
    """
    raw_entries = page.get(_RAW_ENTRIES)
    if raw_entries is None:  # an empty page, or one from which none were cut out
        entries: Sequence[Mapping[str, Any]] = page.get("Contents", ())
        return entries
    try:
        nodes = ElementTree.fromstring(b"<Page>" + raw_entries + b"</Page>")  # noqa: S314  (as boto3)
        return [_parse_entry(node) for node in nodes]
    except (ElementTree.ParseError, ValueError) as error:
        raise ResponseParserError(f"entries of a listing: {error}") from None


def _parse_entry(node: ElementTree.Element) -> dict[str, Any]:
    """The fields of a listed object that are used; missing fields are left out."""
    if node.tag != "Contents":
        raise ValueError(f"{node.tag} among them")
    entry = _parse_fields(node)
    restore_status = node.find("RestoreStatus")
    if restore_status is not None:
        entry["RestoreStatus"] = _parse_fields(restore_status)
    return entry


def _parse_fields(node: ElementTree.Element) -> dict[str, Any]:
    return {
        child.tag: _PARSERS[child.tag](child.text or "") for child in node if child.tag in _PARSERS
    }


def make_listed_object(key: str, entry: Mapping[str, Any]) -> ListedObject:
    """The object of an entry; `key` is decoded. Raises KeyError for an entry without a size."""
    changed_at: datetime | None = entry.get("LastModified")
    if changed_at is not None and changed_at.tzinfo is None:
        changed_at = changed_at.replace(tzinfo=UTC)
    size_bytes: int = entry["Size"]
    # The class of a restored object stays that of the archive.
    is_restored = bool(entry.get("RestoreStatus", {}).get("RestoreExpiryDate"))
    return ListedObject(
        key,
        make_version(key, entry.get("ETag") or "", size_bytes, changed_at),
        size_bytes,
        changed_at,
        entry.get("StorageClass") in ARCHIVE_CLASSES and not is_restored,
    )
