"""Makes a place equal to the published views: writes the files that differ, deletes the others.

An export compares what the views have with what the last export wrote, whatever day it is about: so
new days, revisions, days that were re-estimated, withdrawn or erased, and facilities that got
another name all arrive with the next export, and a file that does not change is not written.
Retention deletes whole months without waiting for an export. The package's docstring describes the
files. Which places there are is left to places.py, writing a single file to the package `storage`.
"""

from __future__ import annotations

import calendar
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from fer_batch import __version__
from fer_batch.concurrency import map_bounded
from fer_batch.database import connections, schema
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError
from fer_batch.export import parquet
from fer_batch.export.columns import COLUMNS, SCHEMA_VERSION, to_record
from fer_batch.log import get_logger
from fer_batch.storage.folder import DELETED_FILES, THREADS, Folder, delete_many

log = get_logger(__name__)

FOLDER = f"satisfaction/schema={SCHEMA_VERSION}/"
MARKER = f"{FOLDER}_export.json"
"""Says whether all files belong to one export, and has the fingerprint of each file."""
CHUNK_FILES = 2000
"""After so many files the marker is written, from which an export that is repeated continues."""
_FILE_NAME = re.compile(
    re.escape(FOLDER)
    + r"span=([a-z-]+)/facility=([a-z0-9_-]+)/month=([0-9]{4}-[0-9]{2})/satisfaction\.parquet"
)

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class Selection:
    """What to export: facilities (empty: all), and the months of a range of days (None: open)."""

    facility_ids: Sequence[str] = ()
    first_day: date | None = None
    last_day: date | None = None

    @property
    def is_all(self) -> bool:
        return not (self.facility_ids or self.first_day or self.last_day)

    @property
    def first_month(self) -> date | None:
        return self.first_day and self.first_day.replace(day=1)

    @property
    def end(self) -> date | None:
        """The day after the last month; None if the range is open."""
        if self.last_day is None or (self.last_day.year, self.last_day.month) == (9999, 12):
            return None
        return (self.last_day.replace(day=28) + timedelta(days=4)).replace(day=1)

    def contains(self, name: str) -> bool:
        """Whether a name is that of an exported file of the selection."""
        match = _FILE_NAME.fullmatch(name)
        if match is None:
            return False
        month = f"{match[3]}-01"
        return (
            (not self.facility_ids or match[2] in self.facility_ids)
            and (self.first_month is None or month >= self.first_month.isoformat())
            and (self.end is None or month < self.end.isoformat())
        )


@dataclass(frozen=True, slots=True)
class Month:
    """A file: a facility's periods of one kind that end in a month."""

    facility_id: str
    period: str
    first_day: date

    @property
    def name(self) -> str:
        return (
            f"{FOLDER}span={self.period.replace(' ', '-')}/facility={self.facility_id}/"
            f"month={self.first_day:%Y-%m}/satisfaction.parquet"
        )

    @property
    def last_day(self) -> date:
        return _find_last_day(self.first_day.year, self.first_day.month)


@dataclass(frozen=True, slots=True)
class Exported:
    """How many files of a place were written, deleted, and left as they are."""

    place: str
    written: int
    deleted: int
    unchanged: int


@dataclass(slots=True)
class _Marker:
    """What the last export of a place left. `fingerprints` are those of the files, by name."""

    is_complete: bool = True
    fingerprints: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, place: Folder) -> _Marker:
        """The marker of a place; one that cannot be read counts as none."""
        try:
            content = json.loads(place.read(MARKER) or b"{}")
            return cls(bool(content.get("is_complete", True)), dict(content.get("files", {})))
        except (ValueError, TypeError, AttributeError):
            return cls(is_complete=False)

    def write(self, place: Folder) -> None:
        content = {
            "schema": SCHEMA_VERSION,
            "is_complete": self.is_complete,
            "written_at": datetime.now(UTC).isoformat(),
            "fer_batch": __version__,
            "files": dict(sorted(self.fingerprints.items())),
        }
        place.write(MARKER, json.dumps(content, indent=1).encode())


def export(
    engine: sa.Engine, places: Sequence[Folder], selection: Selection | None = None
) -> list[Exported]:
    """Make the places equal to the published views, or only the files of a selection.

    One export runs at a time. If it fails or is killed, every file is whole, the marker says
    that they do not belong together, and the next export completes the work. Raises
    ConfigurationError for an unknown facility and without pyarrow, DatabaseError, StorageError,
    and OSError.
    """
    parquet.check_installed()
    selection = selection or Selection()
    meanings = describe_columns(engine)
    with connections.transaction(engine) as connection:
        connections.lock(connection, "export")
        _check_facilities(connection, selection)
        months = _list_months(connection, selection)
        return [_export_to(place, connection, selection, months, meanings) for place in places]


def find_expired(place: Folder, before: date) -> list[str]:
    """The names of the files all of whose periods ended before a day. Raises as the place."""
    found = ((name, _FILE_NAME.fullmatch(name)) for name in place.list(FOLDER, with_folders=True))
    return [name for name, match in found if match and _has_ended(match[3], before)]


def delete_expired(
    place: Folder, before: date, locked: Callable[[], AbstractContextManager[object]]
) -> int:
    """Delete what `find_expired` finds, and say how many.

    `locked` opens a block during which no export runs. Each block deletes a part of the files, so
    that it takes neither an export's time nor longer than the database keeps a lock of an idle
    transaction. If it is killed, it may be run again, and the marker says until then that the files
    do not belong together. Raises as the place and as `locked`.
    """
    expired = find_expired(place, before)
    for start in range(0, len(expired), DELETED_FILES):
        with locked():
            _delete(place, expired[start : start + DELETED_FILES])
    return len(expired)


def _delete(place: Folder, names: Sequence[str]) -> None:
    marker = _Marker.read(place)
    is_complete = marker.is_complete
    for name in names:
        marker.fingerprints.pop(name, None)
    marker.is_complete = False
    marker.write(place)
    delete_many(place, names)
    marker.is_complete = is_complete
    marker.write(place)


def _has_ended(month: str, before: date) -> bool:
    """Whether a month, as 2026-11, ended before a day; False if there is no such month."""
    try:
        first_day = date.fromisoformat(f"{month}-01")
    except ValueError:
        return False
    return _find_last_day(first_day.year, first_day.month) < before


def _find_last_day(year: int, month: int) -> date:
    return date(year, month, calendar.monthrange(year, month)[1])


def describe_columns(engine: sa.Engine) -> dict[str, str]:
    """The meaning of each column: its own, else that of the view's comment."""
    comments = {
        row["column_name"]: row["column_meaning"]
        for row in schema.describe(engine)
        if row["relation"] == "satisfaction_daily"
    }
    return {column.name: column.meaning or comments[column.name] for column in COLUMNS}


def _check_facilities(connection: sa.Connection, selection: Selection) -> None:
    known = connection.execute(_STATEMENTS["list_facilities"]).scalars().all()
    if unknown := sorted(set(selection.facility_ids) - set(known)):
        raise ConfigurationError(
            f"unknown facility: {', '.join(unknown)}",
            f"Known: {', '.join(known) or 'none yet'}",
        )


def _list_months(connection: sa.Connection, selection: Selection) -> dict[Month, str]:
    """The files of the selection that the views have rows for, with their fingerprints."""
    params = {
        "facility_ids": list(selection.facility_ids) or None,
        "first_month": selection.first_month,
        "end_day": selection.end,
    }
    rows = connection.execute(_STATEMENTS["list_months"], params)
    return {Month(row.facility_id, row.period, row.month): row.fingerprint for row in rows}


def _export_to(
    place: Folder,
    connection: sa.Connection,
    selection: Selection,
    months: Mapping[Month, str],
    meanings: Mapping[str, str],
) -> Exported:
    marker = _Marker.read(place)
    existing = {name for name in place.list(FOLDER, with_folders=True) if selection.contains(name)}
    wanted = {month.name: month for month in months}
    # A range is rewritten even if its files seem to be right.
    changed = {
        name: month
        for name, month in wanted.items()
        if name not in existing
        or marker.fingerprints.get(name) != months[month]
        or not selection.is_all
    }
    stale = sorted(existing - set(wanted))
    is_complete = selection.is_all or marker.is_complete
    known = set(marker.fingerprints)
    forgotten = {name for name in known - set(wanted) if selection.contains(name)}
    if changed or stale or forgotten or marker.is_complete != is_complete:
        # Fingerprints of files that change are removed first: an export that is killed would
        # otherwise leave them with files that they are not about.
        for name in known & (set(changed) | forgotten):
            del marker.fingerprints[name]
        marker.is_complete = False
        marker.write(place)
        delete_many(place, stale)
        pending = list(changed.values())
        while pending:
            chunk, pending = pending[:CHUNK_FILES], pending[CHUNK_FILES:]
            _write_files(place, connection, chunk, meanings)
            marker.fingerprints |= {month.name: months[month] for month in chunk}
            if pending:
                marker.write(place)
        marker.is_complete = is_complete
        marker.write(place)
    result = Exported(place.name, len(changed), len(stale), len(wanted) - len(changed))
    log.info(
        "exported",
        place=result.place,
        written=result.written,
        deleted=result.deleted,
        unchanged=result.unchanged,
    )
    return result


def _write_files(
    place: Folder, connection: sa.Connection, months: Any, meanings: Mapping[str, str]
) -> None:
    by_facility: dict[str, list[Month]] = defaultdict(list)
    for month in months:
        by_facility[month.facility_id].append(month)

    def encode_files() -> Any:
        for facility_id, of_facility in by_facility.items():
            rows = _load_rows(connection, facility_id, of_facility)
            for month in of_facility:
                yield month.name, _encode(month, rows[month], meanings)

    def write(file: tuple[str, bytes]) -> None:
        place.write(*file)

    for _ in map_bounded(
        write,
        encode_files(),
        threads=THREADS,
        ahead_bytes=64_000_000,
        bytes_of=lambda file: len(file[1]),
    ):
        pass


def _load_rows(
    connection: sa.Connection, facility_id: str, months: Sequence[Month]
) -> Mapping[Month, list[dict[str, Any]]]:
    """The rows of each month of a facility."""
    params = {
        "facility_id": facility_id,
        "first_day": min(month.first_day for month in months),
        "last_day": max(month.last_day for month in months),
    }
    by_month: dict[Month, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.execute(_STATEMENTS["load_rows"], params).mappings():
        month = Month(facility_id, row["period"], row["last_day"].replace(day=1))
        by_month[month].append(to_record(dict(row)))
    return by_month


def _encode(month: Month, rows: Sequence[Mapping[str, Any]], meanings: Mapping[str, str]) -> bytes:
    metadata = {
        "fer_batch.schema": str(SCHEMA_VERSION),
        "fer_batch.version": __version__,
        "fer_batch.period": month.period,
        "fer_batch.facility_id": month.facility_id,
    }
    types = {column.name: column.file_type for column in COLUMNS}
    return parquet.encode(rows, types, metadata, meanings)
