"""Where exported files are written: a folder, or a prefix in S3.

Which files are written is left to publishing.py.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from fer_batch import files
from fer_batch.settings import Settings
from fer_batch.storage.object_folder import EXPORT, ObjectFolder

CONTENT_TYPES = {".parquet": "application/vnd.apache.parquet", ".json": "application/json"}


class Place(Protocol):
    """Files by name; a name has folders separated by `/`. Each file is written as a whole."""

    name: str

    def list(self, beginning: str) -> list[str]: ...

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, content: bytes) -> None: ...

    def delete(self, name: str) -> None: ...


class Folder:
    """A directory. The methods raise OSError with the file name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path.absolute())

    def list(self, beginning: str) -> list[str]:
        """The names of all files in a folder and those below, sorted, without symbolic links."""
        found = files.walk(self.path / beginning, recursive=True)
        return sorted(each.relative_to(self.path).as_posix() for each in found)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_bytes(content)

    def delete(self, name: str) -> None:
        """Delete a file, and its folders if they are empty then."""
        path = self.path / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a folder that is not empty
            for folder in path.relative_to(self.path).parents[:-1]:
                (self.path / folder).rmdir()


class Bucket:
    """A prefix in S3. The methods raise StorageError and StorageUnavailableError."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.name = url.rstrip("/")
        self._objects = ObjectFolder(settings, url, EXPORT)

    def list(self, beginning: str) -> list[str]:
        """The names of all objects that begin so, sorted."""
        return self._objects.list(beginning, with_folders=True)

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if it does not exist."""
        return self._objects.read(name)

    def write(self, name: str, content: bytes) -> None:
        """Write an object by one request."""
        self._objects.write(name, content, CONTENT_TYPES[Path(name).suffix])

    def delete(self, name: str) -> None:
        """Delete an object; one that does not exist is no error."""
        self._objects.delete(name)


def open_places(settings: Settings, output: str | None = None) -> list[Place]:
    """The places to export to: `output`, a folder or an S3 URL, else those of the settings.

    Empty if none is set. Raises ConfigurationError for a malformed URL and missing credentials.
    """
    if output is not None:
        return [Bucket(settings, output) if "://" in output else Folder(Path(output))]
    places: list[Place] = []
    if settings.export_dir is not None:
        places.append(Folder(settings.export_dir))
    if settings.export_url is not None:
        places.append(Bucket(settings, settings.export_url))
    return places
