"""The log of erasures outside the database, by which they are repeated after a restore.

The log has a line of JSON for each erased image or day: facility, capture day, and of an image the
SHA-256 of its key, never the key. A line is on the disk before its erasure is committed. So a line
may be of an erasure that was not committed; repeating it does what was asked for. Repeating is left
to replay.py.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fer_batch.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LoggedErasure:
    """An erasure: of an image, or of a facility's whole capture day.

    `key_sha256` is in hexadecimal digits; None for a day. `images` and `faces` are the numbers of
    deleted rows of the tables `image` and `face_result`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["image", "day"]
    facility_id: str
    capture_day: date
    key_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    images: Annotated[int, Field(ge=0)]
    faces: Annotated[int, Field(ge=0)]
    erased_at: datetime

    @property
    def identity(self) -> tuple[str, str, date, str | None]:
        """What was erased; two lines with the same identity are about the same."""
        return self.kind, self.facility_id, self.capture_day, self.key_sha256

    @property
    def key_bytes(self) -> bytes | None:
        """The 32 bytes of `key_sha256`."""
        return None if self.key_sha256 is None else bytes.fromhex(self.key_sha256)


_LINE = TypeAdapter(LoggedErasure)


def append(path: Path, erasure: LoggedErasure) -> None:
    """Append an erasure and write it to the disk. Raises ConfigurationError if that fails."""
    data = _LINE.dump_json(erasure) + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # a process was killed while it wrote the last line
            if os.write(descriptor, data) != len(data):
                raise OSError(0, "it was written incompletely, its disk may be full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(
            f"the erasure log {path} cannot be written: {error.strerror}",
            "Set FER_ERASURE_LOG to a file that can be written; days that were not erased yet stay "
            "as they are",
        ) from None


def _sync_folder(folder: Path) -> None:
    """Write the name of a new file to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> tuple[list[LoggedErasure], list[int]]:
    """The erasures of a log, each once, and the numbers of the lines that cannot be read.

    Raises ConfigurationError if the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"the erasure log {path} cannot be read: {error.strerror}",
            "Name the file of FER_ERASURE_LOG, or a copy of it",
        ) from None
    found: list[LoggedErasure] = []
    unreadable: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_LINE.validate_json(line))
        except ValidationError:
            if line.strip():
                unreadable.append(number)
    return list(_merge(found)), unreadable


def _merge(erasures: Iterable[LoggedErasure]) -> Iterable[LoggedErasure]:
    """Each erasure once: of several lines about the same, the one with the most rows."""
    merged: dict[tuple[str, str, date, str | None], LoggedErasure] = {}
    for each in erasures:
        known = merged.get(each.identity)
        if known is None or each.images > known.images:
            merged[each.identity] = each
    return merged.values()
