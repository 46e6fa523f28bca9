"""Files that are replaced as a whole, and temporary files that are known by their names.

A reader of a replaced file sees the former content or the new one. What a killed process leaves has
a name that nothing else has: `.fer-batch-….tmp` beside the file that it was to replace, or a folder
`fer-batch-tmp-…` in the system's folder of temporary files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

_PREFIX, _SUFFIX = ".fer-batch-", ".tmp"
_FILE_NAME = re.compile(r"\.fer-batch-[0-9a-f]{16}\.tmp")
_FOLDER_PREFIX = "fer-batch-tmp-"
_FOLDER_NAME = re.compile(r"fer-batch-tmp-[a-z0-9_]{8}")


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """A temporary file in the same folder, which replaces `path` at the end of the block.

    After an exception `path` stays as it is. Files in the folder that killed processes have left
    are removed first: they are not locked any more. `mode` is reduced by the umask. Raises OSError
    with the name of `path`, which a full disk's own error lacks.
    """
    try:
        _remove_abandoned(path.parent)
        descriptor, temporary = _create_locked(path.parent, mode)
        try:
            yield temporary
            os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder in the system's folder of temporary files, deleted at the end of the block.

    Libraries that create temporary files do so in it during the block.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX) as name:
        tempfile.tempdir = name
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = before


def find_left_files(folder: Path, before: date, *, recursive: bool = False) -> list[Path]:
    """The temporary files in a folder that killed processes of this user left, sorted.

    They were last changed before a day (UTC), and no process writes them. Symbolic links are not
    followed. Raises OSError if the folder cannot be read; one that does not exist has no files.
    """
    found = []
    for path in walk(folder, recursive=recursive):
        if _FILE_NAME.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                if _is_left(path.lstat(), before) and not _is_locked(path):
                    found.append(path)
    return sorted(found)


def find_left_folders(before: date) -> list[Path]:
    """The temporary folders that killed processes of this user left, sorted.

    Nothing in them was changed since a day (UTC). Raises OSError.
    """
    found = []
    with os.scandir(tempfile.gettempdir()) as entries:
        named = [Path(entry.path) for entry in entries if _FOLDER_NAME.fullmatch(entry.name)]
    for folder in named:
        with contextlib.suppress(FileNotFoundError):
            status = folder.lstat()
            if (
                stat.S_ISDIR(status.st_mode)
                and _is_left(status, before)  # another user's cannot be read
                and all(_is_left(path.lstat(), before) for path in walk(folder, recursive=True))
            ):
                found.append(folder)
    return sorted(found)


def delete_left(path: Path) -> None:
    """Delete what `find_left_files` or `find_left_folders` found. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def walk(folder: Path, *, recursive: bool) -> Iterator[Path]:
    """The files in a folder, and if asked in those below it; symbolic links are left out.

    Raises OSError if a folder cannot be read; one that does not exist has no files.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        if not recursive:
            folders.clear()
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                yield path


def _is_left(status: os.stat_result, before: date) -> bool:
    day = datetime.fromtimestamp(status.st_mtime, UTC).date()
    return status.st_uid == os.geteuid() and day < before


def _is_locked(path: Path) -> bool:
    """Whether a process is writing the file. A file system without locks tells no."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


def _create_locked(folder: Path, mode: int) -> tuple[int, Path]:
    """Create a temporary file and lock it; returns its descriptor and its path."""
    while True:
        temporary = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with contextlib.suppress(OSError):  # without locks nothing is removed
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # another process has removed it before it was locked


def _remove_abandoned(folder: Path) -> None:
    for file in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        if not _FILE_NAME.fullmatch(file.name) or file.is_symlink():
            continue
        with contextlib.suppress(OSError), file.open("r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
