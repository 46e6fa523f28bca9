"""Folders into which files are published, on this machine or in S3, and deleting many files.

A name may have folders, separated by `/`. Each file is written as a whole: a reader sees the former
content or the new one. Folders in S3 are left to object_folder.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from fer_batch import files
from fer_batch.testing.failpoints import failpoint

THREADS = 16
"""Files that are written or deleted at once: with S3, the time is spent waiting."""
DELETED_FILES = 2000
"""Retention deletes so many files while it keeps runs waiting."""


class Folder(Protocol):
    """Files by name. The methods raise OSError, or StorageError and StorageUnavailableError."""

    name: str
    """The absolute path or the URL."""

    def write(self, name: str, content: str | bytes) -> None: ...

    def read(self, name: str) -> bytes | None: ...

    def delete(self, name: str) -> None: ...

    def list(self, beginning: str = "", *, with_folders: bool = False) -> list[str]: ...


class LocalFolder:
    """A directory. The methods raise OSError with the file name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path.absolute())

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file atomically."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            failpoint("file.during")

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """Delete a file, and its folders if they are empty then; no error if it does not exist."""
        path = self.path / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a folder that is not empty
            for folder in path.relative_to(self.path).parents[:-1]:
                (self.path / folder).rmdir()

    def list(self, beginning: str = "", *, with_folders: bool = False) -> list[str]:
        """The names of the files that begin so, sorted; those in folders below only if asked.

        Symbolic links are left out.
        """
        found = files.walk(self.path / beginning.rpartition("/")[0], recursive=with_folders)
        names = (each.relative_to(self.path).as_posix() for each in found)
        return sorted(name for name in names if name.startswith(beginning))


def delete_many(folder: Folder, names: Iterable[str]) -> None:
    """Delete files, several at once. Raises as the folder."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="delete") as pool:
        for _ in pool.map(folder.delete, names):
            pass
