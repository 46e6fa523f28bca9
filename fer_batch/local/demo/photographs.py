"""A folder of the user's photographs as the day of a demo: folder/facility/….

The expected result is unknown, unless the folder has a file `manifest.json` with the number of
faces in each photograph: a list of objects with `file` and `faces`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fer_batch.errors import ConfigurationError
from fer_batch.imaging.faces import ImageKind
from fer_batch.imaging.headers import UndecodableImageError, read_header
from fer_batch.local.demo.day import DemoFacility, DemoImage

LARGEST_CROP_PX = 100
"""A folder whose first pictures have no longer side than this contains crops."""
SAMPLED_IMAGES = 20
MANIFEST = "manifest.json"


def load_photographs_day(folder: Path) -> list[DemoFacility]:
    """Return a facility for each subfolder; pictures in the folder itself belong to `photographs`.

    Raises ConfigurationError if the folder is missing or empty, or if the names of two subfolders
    result in the same facility id.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is not a folder", "Give a folder with folder/facility/…"
        )
    facilities: dict[str, DemoFacility] = {}
    for source in [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]:
        files = _list_files(source, is_recursive=source != folder)
        if not files:
            continue
        facility_id = "photographs" if source == folder else _make_facility_id(source.name)
        if facility_id in facilities:
            raise ConfigurationError(
                f"two subfolders of {folder} result in the facility id {facility_id!r}",
                "Rename one of them",
            )
        images = [DemoImage(file.relative_to(source).as_posix(), file, None) for file in files]
        kind: ImageKind = "crops" if _has_crops_only(images) else "frames"
        facilities[facility_id] = DemoFacility(facility_id, facility_id, "UTC", kind, images)
    if not facilities:
        raise ConfigurationError(f"{folder} has no files", "Put photographs into it")
    return list(facilities.values())


def read_manifest(folder: Path) -> dict[str, int]:
    """Return the number of faces in each photograph, by file name; empty without a manifest."""
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    return {entry["file"]: int(entry["faces"]) for entry in json.loads(file.read_text())}


def compare_faces(
    expected: Mapping[str, int], rows: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each photograph of the manifest: its faces, and the detected faces."""
    detected = {str(row["image_key"]).rsplit("/", 1)[-1]: row["face_count"] for row in rows}
    for name, faces in expected.items():
        yield {
            "photograph": name,
            "faces": faces,
            "detected": detected.get(name),
            "is_same": detected.get(name) == faces,
        }


def _list_files(folder: Path, *, is_recursive: bool) -> list[Path]:
    pattern = "**/*" if is_recursive else "*"
    return sorted(
        file
        for file in folder.glob(pattern)
        if file.is_file() and not file.name.startswith(".") and file.name != MANIFEST
    )


def _make_facility_id(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9_-]+", "-", plain).strip("-_")[:63] or "facility"


def _has_crops_only(images: list[DemoImage]) -> bool:
    """Whether all of the first pictures are small; files that are not pictures are ignored."""
    sizes = []
    for image in images[:SAMPLED_IMAGES]:
        with suppress(UndecodableImageError):
            header = read_header(image.data)
            sizes.append(max(header.width_px, header.height_px))
    return bool(sizes) and max(sizes) <= LARGEST_CROP_PX
