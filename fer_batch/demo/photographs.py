"""A folder of one's own photographs as the day of a demo: folder/facility/….

Nobody knows what must come out, unless a file `manifest.json` in the folder says how many faces
each photograph shows: a list of objects with `file` and `faces`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fer_batch.demo.day import DemoFacility, DemoImage
from fer_batch.errors import ConfigurationError
from fer_batch.faces import ImageKind
from fer_batch.headers import UndecodableImageError, read_header

CROP_PX = 100
"""A folder whose first pictures are all this small holds crops."""
LOOKED_AT = 20
MANIFEST = "manifest.json"


def photographs_day(folder: Path) -> list[DemoFacility]:
    """A facility for each folder in the folder; pictures beside them belong to `photographs`.

    Raises ConfigurationError for a folder that is missing or empty, or two folders whose names
    become one facility id.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder", "Give a folder as folder/facility/…")
    found: dict[str, DemoFacility] = {}
    for place in [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]:
        files = _files(place, deep=place != folder)
        if not files:
            continue
        facility_id = "photographs" if place == folder else _facility_id(place.name)
        if facility_id in found:
            raise ConfigurationError(
                f"two folders of {folder} become the facility {facility_id!r}", "Rename one"
            )
        images = [DemoImage(_name(file, place), file, None) for file in files]
        kind: ImageKind = "crops" if _are_crops(images) else "frames"
        found[facility_id] = DemoFacility(facility_id, facility_id, "UTC", kind, images)
    if not found:
        raise ConfigurationError(f"there is no file in {folder}", "Put photographs into it")
    return list(found.values())


def faces_by_name(folder: Path) -> dict[str, int]:
    """The number of faces of each photograph, by file name; empty without a manifest."""
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    return {entry["file"]: int(entry["faces"]) for entry in json.loads(file.read_text())}


def compared(
    expected: Mapping[str, int], rows: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A line for each photograph of the manifest: faces in it, and faces found."""
    found = {str(row["image_key"]).rsplit("/", 1)[-1]: row["face_count"] for row in rows}
    for name, faces in expected.items():
        yield {
            "photograph": name,
            "faces": faces,
            "found": found.get(name),
            "same": "yes" if found.get(name) == faces else "no",
        }


def _files(place: Path, *, deep: bool) -> list[Path]:
    pattern = "**/*" if deep else "*"
    return sorted(
        file
        for file in place.glob(pattern)
        if file.is_file() and not file.name.startswith(".") and file.name != MANIFEST
    )


def _name(file: Path, place: Path) -> str:
    return file.relative_to(place).as_posix()


def _facility_id(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9_-]+", "-", plain).strip("-_")[:63] or "facility"


def _are_crops(images: list[DemoImage]) -> bool:
    """Whether all of the first pictures are small; what is no picture does not count."""
    sizes = []
    for image in images[:LOOKED_AT]:
        with suppress(UndecodableImageError):
            header = read_header(image.data)
            sizes.append(max(header.width_px, header.height_px))
    return bool(sizes) and max(sizes) <= CROP_PX
