"""Where exported files are written: a folder, or a prefix in S3.

Which files are written is left to publishing.py.
"""

from __future__ import annotations

from pathlib import Path

from fer_batch.settings import Settings
from fer_batch.storage.folder import Folder, LocalFolder
from fer_batch.storage.object_folder import open_export_folder


def open_places(settings: Settings, output: str | None = None) -> list[Folder]:
    """The places to export to: `output`, a folder or an S3 URL, else those of the settings.

    Empty if none is set. Raises ConfigurationError for a malformed URL and missing credentials.
    """
    if output is not None:
        is_url = "://" in output
        return [open_export_folder(settings, output) if is_url else LocalFolder(Path(output))]
    places: list[Folder] = []
    if settings.export_dir is not None:
        places.append(LocalFolder(settings.export_dir))
    if settings.export_url is not None:
        places.append(open_export_folder(settings, settings.export_url))
    return places
