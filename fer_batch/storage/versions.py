"""The version of an object: an identity of its content, from a listing and from a response.

It is the ETag without quotes and without the mark of a weak one. Where the server tells no ETag,
size and time of the last change take its place.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

_USUAL = re.compile('"([0-9a-zA-Z-]+)"')
_QUOTES = re.compile(r"^(?:[wW]/)?(?:\"|'|&quot;)*|(?:\"|'|&quot;)*$")


def make_version(key: str, etag: str, size_bytes: int, changed_at: datetime | None) -> str:
    """The version of an object, from what the server tells of it.

    Without an ETag it contains a hash of the key, so that two objects never have the same version.
    """
    if usual := _USUAL.fullmatch(etag):
        return usual[1]
    if version := _QUOTES.sub("", etag.strip()).strip():
        return version
    second = f"{changed_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if changed_at else "no time"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"no ETag: {size_bytes} bytes, {second}, key {digest}"


def is_etag(version: str) -> bool:
    """Whether the server tells this version as an ETag."""
    return not version.startswith("no ETag: ")
