"""Pages of a listing, parsed in two steps: the page by boto3, its entries later and by us.

Sending the requests is left to reader.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from botocore.parsers import ResponseParserError

_RAW_ENTRIES = "RawEntries"


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


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "Key": str,
    "LastModified": datetime.fromisoformat,
    "ETag": str,
    "Size": int,
}


def parse_entries(page: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of a page, each with those of Key, LastModified, ETag and Size that it has.

    Raises ResponseParserError if they are malformed.
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
    return {
        child.tag: _PARSERS[child.tag](child.text or "") for child in node if child.tag in _PARSERS
    }
