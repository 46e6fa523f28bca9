"""The images of a facility's capture day, as they lie in its bucket.

A day may have several prefixes, and the folders of cameras are found by listing them. Objects that
are not images are left out and counted. Storing what was listed is left to listing.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from fer_batch.facilities.key_template import KeyPrefix
from fer_batch.facilities.registry import Facility
from fer_batch.storage.listing_pages import ListedObject
from fer_batch.storage.reader import BucketReader


class DayListing:
    """The listing of one facility and capture day.

    `excluded` and `folder_markers` count what `list` has left out so far: objects by the facility's
    patterns, and the empty objects that S3 consoles create for folders.
    """

    def __init__(self, reader: BucketReader, facility: Facility, day: date) -> None:
        self.excluded = 0
        self.folder_markers = 0
        self._reader = reader
        self._marker = facility.ready_marker
        self._keys = facility.build_day_keys(day)

    def find_prefixes(self) -> list[str]:
        """The prefixes to list, with the cameras that have a folder.

        Raises StorageError or StorageUnavailableError.
        """
        cameras: dict[str, list[str]] = {}
        prefixes: dict[str, None] = {}
        for prefix in self._keys.prefixes:
            if prefix.tail is None:
                prefixes[prefix.build()] = None
                continue
            if prefix.head not in cameras:
                cameras[prefix.head] = list(self._reader.list_level(prefix.head).folders)
            for camera in _list_cameras(prefix, cameras[prefix.head]):
                prefixes[prefix.build(camera)] = None
        return list(prefixes)

    def find_missing_marker(self) -> str | None:
        """The key of a ready marker that does not exist yet; None if the upload is finished.

        If there are several prefixes, each one below which something lies needs its marker, and at
        least one marker must exist. Raises StorageError or StorageUnavailableError.
        """
        if self._marker is None:
            return None
        prefixes = self.find_prefixes() or [prefix.example for prefix in self._keys.prefixes]
        missing = [p + self._marker for p in prefixes if not self._reader.exists(p + self._marker)]
        if len(missing) < len(prefixes):
            missing = [
                key for key in missing if self._reader.has_objects(key.removesuffix(self._marker))
            ]
        return missing[0] if missing else None

    def list(self) -> Iterator[ListedObject]:
        """Every object that is an image of the day, in no particular order.

        Raises what `BucketReader.list` raises.
        """
        for prefix in self.find_prefixes():
            for listed in self._reader.list(prefix):
                if self._marker is not None and listed.key == prefix + self._marker:
                    continue
                if listed.is_folder_marker:
                    self.folder_markers += 1
                elif self.select(listed):
                    yield listed

    def select(self, listed: ListedObject) -> bool:
        """Whether an object below the prefixes is an image of the day; counts it if excluded."""
        if not self._keys.is_of_day(listed.key):
            return False
        is_selected = self._keys.is_selected(listed.key)
        self.excluded += not is_selected
        return is_selected


def _list_cameras(prefix: KeyPrefix, folders: list[str]) -> Iterator[str]:
    """The names of the cameras whose folder, up to its slash, fits the prefix."""
    end = (prefix.tail or "").partition("/")[0] + "/"
    for folder in folders:
        camera = folder[len(prefix.head) :].removesuffix(end)
        if folder.endswith(end) and camera:
            yield camera
