"""The log of erasures outside the database, by which they are repeated after a restore.

The log has a line of JSON for each erased image or day: facility, capture day, and of an image the
HMAC of its key as in the database (database/erased_keys.py), never the key. A line is on the disk
before its erasure is committed. So a line may be of an erasure that was not committed; repeating it
does what was asked for. Lines of earlier versions have the SHA-256 of the key: they are read like
the others, and `convert` rewrites them. Repeating is left to replay.py.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from fer_batch.database.erased_keys import CHECK_BYTES, ErasureSecret
from fer_batch.errors import ConfigurationError, ErasureSecretError
from fer_batch.files import replacing

_HASH_BYTES = 32
_CONFIG = ConfigDict(extra="forbid", ser_json_bytes="hex", val_json_bytes="hex")
_Hash = Annotated[bytes, Field(min_length=_HASH_BYTES, max_length=_HASH_BYTES)]
_Check = Annotated[bytes, Field(min_length=CHECK_BYTES, max_length=CHECK_BYTES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Erasure:
    __pydantic_config__ = _CONFIG

    kind: Literal["image", "day"]
    facility_id: str
    capture_day: date
    images: Annotated[int, Field(ge=0)]
    faces: Annotated[int, Field(ge=0)]
    erased_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedErasure(_Erasure):
    """An erasure: of an image, or of a facility's whole capture day.

    `key_hmac` (32 bytes) and `secret_check` (8 bytes) are those of the table `deletion`; None for a
    day. The log has them in hexadecimal digits. `images` and `faces` are the numbers of deleted
    rows of the tables `image` and `face_result`.
    """

    __pydantic_config__ = _CONFIG

    key_hmac: _Hash | None
    secret_check: _Check | None

    @property
    def identity(self) -> tuple[str, str, date, bytes | None]:
        """What was erased; two lines with the same identity are about the same."""
        return self.kind, self.facility_id, self.capture_day, self.key_hmac


@dataclass(frozen=True, slots=True, kw_only=True)
class _FormerErasure(_Erasure):
    """A line of a version that logged the SHA-256 of a key."""

    __pydantic_config__ = _CONFIG

    key_sha256: _Hash | None


@dataclass(frozen=True, slots=True)
class Log:
    """The content of a log: its erasures, each once.

    `unreadable` are the numbers of the lines that are no erasure; `incomparable`, of those about an
    image whose key was not hashed with the given secret.
    """

    erasures: list[LoggedErasure]
    unreadable: list[int]
    incomparable: list[int]


_LINE: TypeAdapter[LoggedErasure | _FormerErasure] = TypeAdapter(LoggedErasure | _FormerErasure)


def append(path: Path, erasure: LoggedErasure) -> None:
    """Append an erasure and write it to the disk. Raises ConfigurationError if that fails."""
    data = _LINE.dump_json(erasure) + b"\n"
    try:
        with _open_locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # a process was killed while it wrote the last line
            if os.write(descriptor, data) != len(data):
                raise OSError(0, "it was written incompletely, its disk may be full")
            os.fsync(descriptor)
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(
            f"the erasure log {path} cannot be written: {error.strerror}",
            "Set FER_ERASURE_LOG to a file that can be written; days that were not erased yet stay "
            "as they are",
        ) from None


def read(path: Path, secret: ErasureSecret) -> Log:
    """The erasures of a log. Raises ConfigurationError if the file cannot be read."""
    found: list[LoggedErasure] = []
    unreadable: list[int] = []
    incomparable: list[int] = []
    for number, line in enumerate(_read_lines(path), start=1):
        try:
            erasure = _convert(_parse(line), secret)
        except ErasureSecretError:
            incomparable.append(number)
        except ValueError:
            if line.strip():
                unreadable.append(number)
        else:
            if erasure.kind == "image" and erasure.secret_check != secret.check:
                incomparable.append(number)
            else:
                found.append(erasure)
    return Log(list(_merge(found)), unreadable, incomparable)


def count_former(path: Path) -> int:
    """How many lines `convert` would change. Raises ConfigurationError if the log is unreadable."""
    return sum(_is_former(line) for line in _read_lines(path)) if path.exists() else 0


def check_convertible(path: Path, secret: ErasureSecret) -> None:
    """Raise ErasureSecretError if a line needs a secret, or another one than this."""
    if incomparable := read(path, secret).incomparable:
        lines = ", ".join(map(str, incomparable))
        problem = "is not set" if secret.check is None else "is another one"
        raise ErasureSecretError(
            f"line {lines} of the erasure log {path} cannot be converted: FER_ERASURE_SECRET "
            f"{problem}",
            "Nothing was changed. Set it to the secret with which images were erased; if there is "
            "none yet, create one with `openssl rand -hex 32`",
        )


def convert(path: Path, secret: ErasureSecret) -> int:
    """Rewrite the lines with a SHA-256 of a key as they are written today; returns how many.

    All other lines stay as they are, and the file is replaced as a whole. Raises what
    `check_convertible` raises, and ConfigurationError if the file cannot be replaced.
    """
    path = path.resolve()  # a symbolic link stays one
    changed = 0
    try:
        with _open_locked(path, os.O_RDWR) as descriptor:
            check_convertible(path, secret)
            lines = path.read_bytes().splitlines(keepends=True)
            for index, line in enumerate(lines):
                if _is_former(line):
                    changed += 1
                    lines[index] = _LINE.dump_json(_convert(_parse(line), secret)) + b"\n"
            if changed:
                status = os.fstat(descriptor)
                with replacing(path) as temporary:
                    temporary.write_bytes(b"".join(lines))
                    os.chown(temporary, status.st_uid, status.st_gid)
                    temporary.chmod(status.st_mode)
                _sync_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(
            f"the erasure log {path} cannot be replaced: {error.strerror}",
            "Its lines still have the SHA-256 of keys. Run `fer-batch db upgrade` as the user who "
            "owns it",
        ) from None
    return changed


def _parse(line: bytes) -> LoggedErasure | _FormerErasure:
    """A line as it was written. Raises ValueError if it is no erasure."""
    parsed = _LINE.validate_json(line)
    key_hash = parsed.key_sha256 if isinstance(parsed, _FormerErasure) else parsed.key_hmac
    if (parsed.kind == "image") != (key_hash is not None):
        raise ValueError("an image without its key, or a day with one")
    return parsed


def _convert(parsed: LoggedErasure | _FormerErasure, secret: ErasureSecret) -> LoggedErasure:
    """A line as it is written today. Raises ErasureSecretError if that needs a secret."""
    if isinstance(parsed, LoggedErasure):
        return parsed
    fields = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(_Erasure)}
    if parsed.key_sha256 is None:
        return LoggedErasure(**fields, key_hmac=None, secret_check=None)
    key_hmac = secret.hash_digest(parsed.key_sha256)
    return LoggedErasure(**fields, key_hmac=key_hmac, secret_check=secret.check)


def _is_former(line: bytes) -> bool:
    try:
        return isinstance(_parse(line), _FormerErasure)
    except ValueError:
        return False


def _read_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"the erasure log {path} cannot be read: {error.strerror}",
            "Name the file of FER_ERASURE_LOG, or a copy of it",
        ) from None


@contextmanager
def _open_locked(path: Path, flags: int) -> Iterator[int]:
    """The descriptor of a file that no other process appends to or replaces during the block."""
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                yield descriptor
                return
            # Another process has replaced it before it was locked. A backup may be a link to it.
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Write the name of a new file to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _merge(erasures: Iterable[LoggedErasure]) -> Iterable[LoggedErasure]:
    """Each erasure once: of several lines about the same, the one with the most rows."""
    merged: dict[tuple[str, str, date, bytes | None], LoggedErasure] = {}
    for each in erasures:
        known = merged.get(each.identity)
        if known is None or each.images > known.images:
            merged[each.identity] = each
    return merged.values()
