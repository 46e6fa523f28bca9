"""Reads the TOML file of the facility registry, or of the subscriptions, into tables.

The file is UTF-8, with or without a byte-order mark, with any line ends. An editor or a deployment
that replaces it may leave it missing, empty or incomplete for a moment, so a file that changed
just now is read again before it is called faulty. What the tables mean is left to registry.py. The
DAG files, which import nothing of fer-batch, read it with `dags/fer_registry.py` in the same way.
"""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from fer_batch.errors import ConfigurationError

ATTEMPTS = 5
RETRY_S = 0.2
"""Together the time that a write may take."""
RECENT_S = 3.0
"""A file that changed within this time may still be changing."""


class FileKind(NamedTuple):
    """What a file holds, for the messages: its name, its tables, its setting and its example."""

    name: str
    table: str
    setting: str
    command: str


REGISTRY = FileKind(
    "facility registry", "facility", "FER_FACILITIES_FILE", "fer-batch facilities init"
)


def read_document(path: Path, kind: FileKind = REGISTRY) -> dict[str, Any]:
    """The whole TOML document. Raises ConfigurationError that names file, line and remedy."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _read_once(path, kind)
        except ConfigurationError:
            if not _is_changing(path):
                raise
            time.sleep(RETRY_S)
    return _read_once(path, kind)


def _read_once(path: Path, kind: FileKind) -> dict[str, Any]:
    text = _read_text(path, kind)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        last_line = len(text.splitlines())
        what = str(error).replace("(at end of document)", f"(at line {last_line}, the last one)")
        hint = "Correct the syntax at that position"
        if "Cannot declare" in what:
            hint = f"Two tables have the same name: each {kind.table} needs an id of its own"
        elif "Invalid date" in what:
            hint = "That day does not exist; write a day of the calendar, such as 2027-12-31"
        elif "Cannot overwrite" in what:
            hint = "A field is given twice: remove one of the two"
        raise ConfigurationError(f"{path} is not valid TOML: {what}", hint) from None
    if not document:
        raise ConfigurationError(
            f"{path} is empty: it contains no {kind.table}",
            f"Each {kind.table} is a table [{kind.table}.its-id]; `{kind.command}` writes an "
            "example",
        )
    return document


def _read_text(path: Path, kind: FileKind) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(
            f"the {kind.name} {path} cannot be read: {error.strerror}",
            f"Set {kind.setting}, or write an example with `{kind.command}`",
        ) from None
    except UnicodeDecodeError as error:
        if error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _make_utf16_error(path) from None
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}",
            "Save it with the encoding UTF-8",
        ) from None
    if "\0" in text:
        raise _make_utf16_error(path)
    return text


def _make_utf16_error(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is not UTF-8: it looks like UTF-16, which some editors call Unicode",
        "Save it with the encoding UTF-8",
    )


def _is_changing(path: Path) -> bool:
    """Whether the file, or its folder if the file is missing, changed just now."""
    for place in (path, path.parent):
        try:
            return abs(time.time() - place.stat().st_mtime) < RECENT_S
        except OSError:
            continue
    return False
