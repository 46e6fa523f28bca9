"""Reads the facility registry while Airflow parses the DAGs: the time zones that need a DAG.

The DAG files import nothing of fer-batch, whose environment may be another one, so this repeats
what `fer_batch/facilities/registry_file.py` does. Only time zones are validated here; the
`fer-batch` command validates every field and reports a fault in the run of the facility.
"""

from __future__ import annotations

import difflib
import os
import time
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

ATTEMPTS = 5
RETRY_S = 0.2
"""Together the time that a write of the registry may take."""
RECENT_S = 3.0
"""A file that changed within this time may still be changing."""


class RegistryError(Exception):
    """The registry, or a facility in it, is invalid; the text says what to do."""


def find_registry_file() -> Path:
    """Return the path in `FER_FACILITIES_FILE`, by default ../config/facilities.toml from here."""
    default = Path(__file__).parent.parent / "config" / "facilities.toml"
    return Path(os.environ.get("FER_FACILITIES_FILE") or default)


def read_registry() -> dict[str, Any]:
    """Return the document of the registry.

    Raises RegistryError that names file, line and remedy. A file that was replaced just now may be
    incomplete, so it is read again.
    """
    file = find_registry_file()
    for _ in range(ATTEMPTS - 1):
        try:
            return _read_once(file)
        except RegistryError:
            if not _is_changing(file):
                raise
            time.sleep(RETRY_S)
    return _read_once(file)


def list_time_zones(document: dict[str, Any]) -> list[str]:
    """Return the valid time zones that have a facility, sorted."""
    zones = [facility.get("time_zone") for facility in _list_facilities(document)]
    return sorted({str(zone) for zone in zones if _is_time_zone(zone)})


def list_credentials(
    document: dict[str, Any], facility_ids: Collection[str] | None = None
) -> list[str]:
    """Return the names of credentials that these facilities use, or all if None, sorted."""
    names = [
        table.get("credentials")
        for facility_id, table in document.get("facility", {}).items()
        if isinstance(table, dict) and (facility_ids is None or facility_id in facility_ids)
    ]
    return sorted({name for name in names if isinstance(name, str) and name})


def list_chats() -> list[str]:
    """Return the names of chats in the file of subscriptions, sorted.

    Without a usable file there are none: the command reports what is wrong with it.
    """
    beside = find_registry_file().with_name("subscriptions.toml")
    file = Path(os.environ.get("FER_SUBSCRIPTIONS_FILE") or beside)
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig")).get("subscription", {})
        names = [table.get("chat") for table in tables.values()]
    except (OSError, ValueError, AttributeError):
        return []
    return sorted({name for name in names if isinstance(name, str) and name})


def find_problems(document: dict[str, Any]) -> list[str]:
    """Return a text for each facility that belongs to no scheduled DAG."""
    problems = [
        f"unknown table or key {name!r} at the top; each facility is a table [facility.its-id]"
        for name in document
        if name != "facility"
    ]
    for facility_id, table in document.get("facility", {}).items():
        if not isinstance(table, dict):
            problems.append(f"facility {facility_id}: must be a table [facility.its-id]")
        elif "time_zone" not in table:
            problems.append(f"facility {facility_id}: time_zone is missing")
        elif not _is_time_zone(zone := table["time_zone"]):
            areas = [name for name in available_timezones() if "/" in name and name[:4] != "Etc/"]
            near = difflib.get_close_matches(str(zone), areas, n=3)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            problems.append(
                f"facility {facility_id}: time_zone must be an IANA time zone such as "
                f"Europe/Berlin or Asia/Kolkata, written Area/City{hint}"
            )
    return problems


def _list_facilities(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [table for table in document.get("facility", {}).values() if isinstance(table, dict)]


def _is_time_zone(name: object) -> bool:
    if not isinstance(name, str) or name == "localtime":  # which differs from machine to machine
        return False
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True


def _read_once(file: Path) -> dict[str, Any]:
    text = _read_text(file)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        last_line = len(text.splitlines())
        what = str(error).replace("(at end of document)", f"(at line {last_line}, the last one)")
        raise RegistryError(
            f"{file} is not valid TOML: {what}. Correct the syntax at that position"
        ) from None
    tables = document.get("facility", document)  # one with another name is a problem of its own
    if not isinstance(tables, dict) or not tables:
        raise RegistryError(
            f"{file} contains no facility. Each facility is a table [facility.its-id]; "
            "`fer-batch facilities init` writes an example"
        )
    return document


def _read_text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RegistryError(
            f"the facility registry {file} cannot be read: {error.strerror}. Set "
            "FER_FACILITIES_FILE for the DAG processor and the workers, or write a registry with "
            "`fer-batch facilities init`"
        ) from None
    except UnicodeDecodeError as error:
        if error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _make_utf16_error(file) from None
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RegistryError(
            f"{file} is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}. Save it "
            "with the encoding UTF-8"
        ) from None
    if "\0" in text:
        raise _make_utf16_error(file)
    return text


def _make_utf16_error(file: Path) -> RegistryError:
    return RegistryError(
        f"{file} is not UTF-8: it looks like UTF-16, which some editors call Unicode. Save it with "
        "the encoding UTF-8"
    )


def _is_changing(file: Path) -> bool:
    """Whether the file, or its folder if the file is missing, changed just now."""
    for place in (file, file.parent):
        try:
            return abs(time.time() - place.stat().st_mtime) < RECENT_S
        except OSError:
            continue
    return False
