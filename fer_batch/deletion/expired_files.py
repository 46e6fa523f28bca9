"""Files that have expired: reports, exports, and temporary files that killed processes left.

Images in S3 are left to the bucket's lifecycle rules, rows to the other modules of this package. A
file is deleted only if its name is one that fer-batch gives; symbolic links are not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from fer_batch import files
from fer_batch.database import connections
from fer_batch.deletion.expired import Expired
from fer_batch.errors import ConfigurationError
from fer_batch.export import publishing
from fer_batch.reporting import rendering, store
from fer_batch.settings import Settings
from fer_batch.storage.folder import Folder, LocalFolder
from fer_batch.storage.object_folder import open_export_folder, open_report_folder


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of files in one place. The functions return how many there are, or were deleted."""

    name: str
    setting: str
    days: int
    count_files: Callable[[date], int]
    delete_files: Callable[[date], int]

    def find(self, today: date) -> Expired:
        """What `delete` would delete on a day (UTC). Raises what `delete` raises."""
        return self._apply(self.count_files, today)

    def delete(self, today: date) -> Expired:
        """Delete what has expired on a day (UTC). It may be interrupted and run again.

        Raises ConfigurationError for a folder that may not be read or written, StorageError and
        StorageUnavailableError, and DatabaseError and DatabaseUnavailableError.
        """
        return self._apply(self.delete_files, today)

    def _apply(self, function: Callable[[date], int], today: date) -> Expired:
        before = today - timedelta(days=self.days)
        try:
            count = function(before)
        except OSError as error:
            raise ConfigurationError(
                f"expired {self.name} cannot be deleted: {error.filename}: {error.strerror}",
                "Let the user of this process read and write the folder, and those in it",
            ) from error
        return Expired(self.name, self.setting, before, count, "files")


def list_kinds(settings: Settings) -> list[FileKind]:
    """All kinds in the places that are set, in the order in which they are to be deleted.

    Summaries that have expired are to be deleted before the exports, or the next export writes
    their files again.
    """
    # Temporary files first: the folder of an exported file is deleted with its last file.
    kinds = [
        _make_temporary_kind(settings),
        _make_report_kind(settings, "reports", lambda: LocalFolder(settings.report_dir)),
    ]
    if (report_url := settings.report_url) is not None:
        kinds.append(
            _make_report_kind(
                settings, "reports in S3", lambda: open_report_folder(settings, report_url)
            )
        )
    if (export_dir := settings.export_dir) is not None:
        kinds.append(_make_export_kind(settings, "exports", lambda: LocalFolder(export_dir)))
    if (export_url := settings.export_url) is not None:
        kinds.append(
            _make_export_kind(
                settings, "exports in S3", lambda: open_export_folder(settings, export_url)
            )
        )
    return kinds


def _make_report_kind(settings: Settings, name: str, open_folder: Callable[[], Folder]) -> FileKind:
    def delete_files(before: date) -> int:
        with _locking(settings, "report") as locked:  # a run writes the index too
            return store.delete_expired(open_folder(), before, rendering.render_index, locked)

    return FileKind(
        name,
        "FER_REPORT_RETENTION_DAYS",
        settings.report_retention_days,
        lambda before: len(store.find_expired(open_folder(), before)),
        delete_files,
    )


def _make_export_kind(settings: Settings, name: str, open_place: Callable[[], Folder]) -> FileKind:
    def delete_files(before: date) -> int:
        with _locking(settings, "export") as locked:
            return publishing.delete_expired(open_place(), before, locked)

    return FileKind(
        name,
        "FER_SUMMARY_RETENTION_DAYS",
        settings.summary_retention_days,
        lambda before: len(publishing.find_expired(open_place(), before)),
        delete_files,
    )


def _make_temporary_kind(settings: Settings) -> FileKind:
    def find_files(before: date) -> list[Path]:
        found = files.find_left_files(settings.report_dir, before)
        if settings.export_dir is not None:
            folder = settings.export_dir / publishing.FOLDER
            found += files.find_left_files(folder, before, recursive=True)
        return found + files.find_left_folders(before)

    def delete_files(before: date) -> int:
        found = find_files(before)
        for path in found:
            files.delete_left(path)
        return len(found)

    return FileKind(
        "temporary files",
        "FER_TEMPORARY_FILE_DAYS",
        settings.temporary_file_days,
        lambda before: len(find_files(before)),
        delete_files,
    )


@contextmanager
def _locking(settings: Settings, name: str) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """A function that holds a lock during a block, with the login of the settings."""
    engine = connections.create_engine(settings)

    @contextmanager
    def locked() -> Iterator[None]:
        with connections.transaction(engine) as connection:
            connections.lock(connection, name)
            yield

    try:
        yield locked
    finally:
        engine.dispose()
