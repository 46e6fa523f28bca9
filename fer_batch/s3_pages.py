"""Pages of a listing, read in two steps: the page as boto3 sees it, and its entries when wanted.

What is asked of S3 and what its refusals mean is s3.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from botocore.parsers import ResponseParserError

_LIFTED = "EntriesUnread"


def lift_entries(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Take the entries, of which a page has a thousand, out of it before boto3 reads it.

    boto3 would look up each field of each in its model of S3: most of the time of a listing. So
    the next page can be asked for before this one's entries are read, by `entries_of`.
    """
    body: bytes = response_dict["body"]
    begin, end = body.find(b"<Contents>"), body.rfind(b"</Contents>") + len(b"</Contents>")
    if response_dict["status_code"] == 200 and 0 <= begin < end:
        customized_response_dict[_LIFTED] = body[begin:end]
        response_dict["body"] = body[:begin] + body[end:]


_READ: Mapping[str, Callable[[str], Any]] = {
    "Key": str,
    "LastModified": datetime.fromisoformat,
    "ETag": str,
    "Size": int,
}


def entries_of(page: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of a page of a listing, each with what it has of Key, LastModified, ETag, Size.

    Raises ResponseParserError if they are out of order.
    """
    lifted = page.get(_LIFTED)
    if lifted is None:  # none, or none that we know how to find
        entries: Sequence[Mapping[str, Any]] = page.get("Contents", ())
        return entries
    try:
        nodes = ElementTree.fromstring(b"<Page>" + lifted + b"</Page>")  # noqa: S314  (as boto3)
        return [_entry(node) for node in nodes]
    except (ElementTree.ParseError, ValueError) as error:
        raise ResponseParserError(f"entries of a listing: {error}") from None


def _entry(node: ElementTree.Element) -> dict[str, Any]:
    """The fields of a listed object that we read; one that is missing stays so."""
    if node.tag != "Contents":
        raise ValueError(f"{node.tag} among them")
    return {child.tag: _READ[child.tag](child.text or "") for child in node if child.tag in _READ}
