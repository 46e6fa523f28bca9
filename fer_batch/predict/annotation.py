"""Images with their faces marked, as `fer-batch predict --annotate` writes them.

Each face gets a box and a label with its number, its called class with the probability of it, and a
bar of its three probabilities.
One image becomes a file, several become files in a folder. The predictions come from
prediction.py; nothing here changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from fer_batch.errors import ConfigurationError
from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.predict.names import escape_text, is_multiple
from fer_batch.records import Box, CalledClass, FaceScore, FetchedImage, ImageScore

LONG_SIDE_PX = 800
"""Smaller images are enlarged to about this, by an integer factor, so that labels are legible."""
MAX_ZOOM = 10

# Blue, green, red.
_COLORS: dict[CalledClass, tuple[int, int, int]] = {
    CalledClass.HAPPY: (90, 210, 90),
    CalledClass.SAD: (245, 170, 90),
    CalledClass.NEITHER: (205, 205, 205),
}
_INK = (0, 0, 0)
_BAR = 8
"""Height of the bar of probabilities, in line widths."""
_JPEG = frozenset({".jpg", ".jpeg"})


class AnnotationWriter:
    """Writes the annotated images of a source: to a file for one, to a folder for several.

    An existing folder also takes a single image. Raises ConfigurationError for a target that does
    not match the source, and where images of the source could be overwritten.
    """

    def __init__(self, target: Path, source: str, decoders: Decoders) -> None:
        self._target = target
        self._source = source
        self._decoders = decoders
        self._is_folder = target.is_dir() or is_multiple(source)
        self._written: set[Path] = set()
        if not self._is_folder and target.suffix.lower() not in {".png", *_JPEG}:
            raise ConfigurationError(
                f"{escape_text(str(target))} is neither a folder nor the name of an image",
                "Give --annotate a name that ends in .png or .jpg, or create the folder first",
            )
        if not self._is_folder and not target.parent.is_dir():
            raise ConfigurationError(
                f"there is no folder {escape_text(str(target.parent))}", "Create it first"
            )
        if is_multiple(source):
            if target.suffix.lower() in {".png", *_JPEG} or target.is_file():
                raise ConfigurationError(
                    f"{escape_text(str(target))} is one file, and {escape_text(source)} "
                    "may hold several images",
                    "Give --annotate a folder",
                )
            if "://" not in source and target.resolve().is_relative_to(Path(source).resolve()):
                raise ConfigurationError(
                    f"{escape_text(str(target))} is in the folder that is read",
                    "Give --annotate another folder, so that no image is overwritten",
                )

    def write(self, fetched: FetchedImage | ImageScore, faces: Sequence[FaceScore]) -> Path | None:
        """Mark the faces in a copy of the image, write it and return its path; None without faces.

        Raises ConfigurationError if that would overwrite the image itself or another file of the
        folder, OSError if it cannot be written.
        """
        if isinstance(fetched, ImageScore) or not faces:
            return None
        source = fetched.image.key
        path = self._choose_path(source)
        if "://" not in source and path.resolve() == Path(source).resolve():
            raise ConfigurationError(
                f"{escape_text(str(path))} is the image itself", "Give --annotate another name"
            )
        if self._is_folder and path.exists():
            raise ConfigurationError(
                f"{escape_text(str(path))} already exists", "Give --annotate another folder"
            )
        if self._is_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        extension = ".jpg" if path.suffix.lower() in _JPEG else ".png"
        path.write_bytes(annotate(self._decoders.decode_pixels(fetched), faces, extension))
        return path

    def _choose_path(self, source: str) -> Path:
        """The file for an image: in a folder, the same relative path as in the source, as PNG."""
        if not self._is_folder:
            return self._target
        # Keys in S3 may contain segments that lead out of the folder.
        name = PurePosixPath(self._get_relative_name(source).replace("\0", "_"))
        parts = [part for part in name.parts if part not in ("/", "//", "..")]
        plain = self._target.joinpath(*(parts or ["image"]))
        path = plain.with_suffix(".png")
        if path in self._written:  # a.jpg and a.webp
            path = plain.with_name(plain.name + ".png")
        while path in self._written:
            path = path.with_name(path.name + ".png")
        self._written.add(path)
        return path

    def _get_relative_name(self, source: str) -> str:
        if "://" in source:
            if is_multiple(self._source):
                return source.removeprefix(self._source)
            return unquote(urlsplit(source).path).rpartition("/")[2]
        if is_multiple(self._source):
            return str(Path(source).relative_to(self._source))
        return Path(source).name


def annotate(pixels: Pixels, faces: Sequence[FaceScore], extension: str = ".png") -> bytes:
    """Mark the faces in a copy of H×W×3 blue-green-red pixels and encode it in the format of the
    extension; small images are enlarged.

    Green is happy, blue is sad, gray is neither; the bar under the label shows p_happy, p_sad
    and p_neither in the same colors.
    """
    zoom = min(max(1, round(LONG_SIDE_PX / max(pixels.shape[:2]))), MAX_ZOOM)
    drawn = np.asarray(
        cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), np.uint8
    )
    thick = max(1, round(max(drawn.shape[:2]) / 700))
    boxes = [_scale_box(face.box, zoom) for face in faces]
    for box, face in zip(boxes, faces, strict=True):
        _draw_outline(drawn, box, _COLORS[face.called_class], thick)
    labels: list[Box] = []
    for number, (box, face) in enumerate(zip(boxes, faces, strict=True), start=1):
        text = _format_label(number, face)
        labels.append(_place_label(box, _measure_label(text, thick), drawn, [*labels, *boxes]))
        _draw_label(drawn, labels[-1], text, face, thick)
    return cv2.imencode(extension, drawn)[1].tobytes()


def _format_label(number: int, face: FaceScore) -> str:
    probability = {
        CalledClass.HAPPY: face.p_happy,
        CalledClass.SAD: face.p_sad,
        CalledClass.NEITHER: face.p_neither,
    }[face.called_class]
    return f"{number} {face.called_class} {probability:.2f}"


def _scale_box(box: Box, zoom: int) -> Box:
    return Box(box.x * zoom, box.y * zoom, box.width * zoom, box.height * zoom)


def _draw_outline(drawn: Pixels, box: Box, color: tuple[int, int, int], thick: int) -> None:
    """A colored line with a dark border, visible on any background."""
    corners = ((box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1))
    for ink, width in ((_INK, 4 * thick), (color, 2 * thick)):
        cv2.rectangle(drawn, *corners, ink, width)


def _measure_label(text: str, thick: int) -> tuple[int, int]:
    """Width and height in pixels of the text with a margin and of the bar below it."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thick, thick)
    return width + 8 * thick, height + below + 4 * thick + _BAR * thick


def _place_label(box: Box, size: tuple[int, int], drawn: Pixels, others: Sequence[Box]) -> Box:
    """The position of a face's label, above or below it, that hides the least."""
    limits = (drawn.shape[1], drawn.shape[0])
    positions = list(_propose_positions(box, size, limits))
    inside = [p for p in positions if p.y >= 0 and p.y + p.height <= limits[1]]
    # The label of a face that fills the image lies on the face.
    return min(
        inside or [_move_inside(Box(box.x, 0, *size), limits)],
        key=lambda p: sum(map(p.count_shared_px, others)),
    )


def _propose_positions(box: Box, size: tuple[int, int], limits: tuple[int, int]) -> Iterator[Box]:
    for y in (box.y - size[1] - 1, box.y + box.height + 1):
        for x in (box.x, box.x + box.width - size[0], box.x + (box.width - size[0]) // 2):
            yield _move_inside(Box(x, y, *size), (limits[0], 10**9))


def _move_inside(box: Box, limits: tuple[int, int]) -> Box:
    """Move a box sideways, and up, until it lies in the image."""
    x = max(min(box.x, limits[0] - box.width), 0)
    return Box(x, min(box.y, max(limits[1] - box.height, 0)), box.width, box.height)


def _draw_label(drawn: Pixels, label: Box, text: str, face: FaceScore, thick: int) -> None:
    right, bottom = label.x + label.width - 1, label.y + label.height - 1
    cv2.rectangle(
        drawn, (label.x, label.y), (right, bottom), _COLORS[face.called_class], cv2.FILLED
    )
    bar = bottom - _BAR * thick
    (_, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thick, thick)
    at = (label.x + 4 * thick, label.y + height + 3 * thick)
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thick, _INK, thick, cv2.LINE_AA)
    ends = np.cumsum([face.p_happy, face.p_sad, face.p_neither]) * label.width
    start = label.x
    for end, color in zip(ends, _COLORS.values(), strict=True):
        stop = min(label.x + round(float(end)), right + 1)
        cv2.rectangle(drawn, (start, bar), (stop - 1, bottom), color, cv2.FILLED)
        start = max(start, stop)
    cv2.rectangle(drawn, (label.x, bar), (right, bottom), _INK, thick)
    cv2.rectangle(drawn, (label.x, label.y), (right, bottom), _INK, thick)
