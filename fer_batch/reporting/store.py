"""Writes the files of a report into a folder and, where it is set, to S3; deletes old ones.

The package's docstring describes the layout. The caller holds the lock of reports, so that two runs
do not write at the same time. Each file is replaced as a whole. The parts of a day are written
before the file that links to them, and the index after it; they are deleted in the opposite order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path

from fer_batch.settings import Settings
from fer_batch.storage.folder import DELETED_FILES, Folder, LocalFolder, delete_many
from fer_batch.storage.object_folder import open_report_folder

INDEX_NAME = "index.html"
FILE_NAME = re.compile(r"index\.html|[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[a-z0-9-]+)?\.html")
"""The names of all files that are ever published."""
Index = Callable[[Sequence[date]], str]
"""Renders the index of the days that have a report, newest first."""


def make_day_name(day: date) -> str:
    """The name of the file of a capture day."""
    return f"{day.isoformat()}.html"


def make_part_name(day: date, part: str) -> str:
    """The name of the file of a part of a report."""
    return f"{day.isoformat()}.{part}.html"


def find_day(name: str) -> date | None:
    """The capture day of a file of a report; None if the name is no such file's."""
    if name == INDEX_NAME or not FILE_NAME.fullmatch(name):
        return None
    try:
        return date.fromisoformat(name[:10])
    except ValueError:
        return None


def publish(
    settings: Settings,
    day: date,
    files: Mapping[str, str],
    render_index: Index,
) -> Path:
    """Write the files of a capture day, by name, and the index; returns the path of the day's file.

    `files` has the file of the day and its parts. Parts of an earlier version that are no longer
    among them are deleted. `render_index` gets the days that have a report, newest first. The
    folder is written even if S3 then fails. Raises OSError, ConfigurationError and StorageError.
    """
    local = LocalFolder(settings.report_dir)
    _publish(local, day, files, render_index)
    if settings.report_url is not None:
        _publish(open_report_folder(settings, settings.report_url), day, files, render_index)
    return local.path / make_day_name(day)


def _publish(folder: Folder, day: date, files: Mapping[str, str], render_index: Index) -> None:
    main = make_day_name(day)
    for name in sorted(files, key=lambda name: name == main):
        folder.write(name, files[name])
    for name in folder.list(f"{day.isoformat()}."):
        if name not in files and FILE_NAME.fullmatch(name):
            folder.delete(name)
    _write_index(folder, folder.list(), render_index)


def find_expired(folder: Folder, before: date) -> list[str]:
    """The names of the files of reports about days before a day, sorted. Raises as the folder."""
    return [name for name in folder.list() if (day := find_day(name)) and day < before]


def delete_expired(
    folder: Folder,
    before: date,
    render_index: Index,
    locked: Callable[[], AbstractContextManager[object]],
) -> int:
    """Delete what `find_expired` finds, and say how many; the index stops linking to it first.

    `locked` opens a block during which no report is written. Each block deletes a part of the
    files, so that it takes neither a run's time nor longer than the database keeps a lock of an
    idle transaction. It may be interrupted at any time and run again. Raises as the folder and as
    `locked`.
    """
    expired = find_expired(folder, before)
    days = [name for name in expired if name.count(".") == 1]
    # The files of days before their parts, to which they link.
    for names in (days, sorted({*expired}.difference(days))):
        for start in range(0, len(names), DELETED_FILES):
            with locked():
                # Again for each block: a run may have written the index meanwhile.
                _write_index(folder, sorted({*folder.list()}.difference(expired)), render_index)
                delete_many(folder, names[start : start + DELETED_FILES])
    return len(expired)


def _write_index(folder: Folder, names: Sequence[str], render_index: Index) -> None:
    days = {day for name in names if (day := find_day(name)) and name == make_day_name(day)}
    folder.write(INDEX_NAME, render_index(sorted(days, reverse=True)))
