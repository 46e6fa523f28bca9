"""Pictures with their faces marked, for eyes: what `fer-batch predict --annotate` writes.

Each face gets a box and a plate with its number, its emotion and a bar of its three
probabilities. One picture becomes a file, several become files of a folder. What is seen in a
picture is decided in predict.py; nothing here changes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from fer_batch.errors import ConfigurationError
from fer_batch.images import Limits, Pixels, read_image
from fer_batch.predict import Picture, Prediction, is_of_several, printable
from fer_batch.records import Box, Emotion, FaceScore
from fer_batch.settings import Settings

LONG_SIDE_PX = 800
"""Smaller pictures are enlarged to about this, by a whole number, so that words can be read."""
MAX_ZOOM = 10

# Blue, green, red.
_COLOURS: dict[Emotion | None, tuple[int, int, int]] = {
    Emotion.HAPPY: (90, 210, 90),
    Emotion.SAD: (245, 170, 90),
    None: (205, 205, 205),
}
_INK = (0, 0, 0)
_BAR = 8
"""Height of the bar of probabilities, in strokes."""
_JPEG = frozenset({".jpg", ".jpeg"})


class AnnotatedPictures:
    """Where the annotated pictures of a source go: a file for one, a folder for several.

    An existing folder takes one picture as well. Raises ConfigurationError for a target that
    does not fit the source, and where pictures of the source might be written over.
    """

    def __init__(self, target: Path, source: str, settings: Settings) -> None:
        self._target = target
        self._source = source
        self._settings = settings
        self._is_folder = target.is_dir() or is_of_several(source)
        self._taken: set[Path] = set()
        if not self._is_folder and target.suffix.lower() not in {".png", *_JPEG}:
            raise ConfigurationError(
                f"{printable(str(target))} is neither a folder nor named as a picture",
                "Give --annotate a name that ends in .png or .jpg, or make the folder first",
            )
        if not self._is_folder and not target.parent.is_dir():
            raise ConfigurationError(
                f"there is no folder {printable(str(target.parent))}", "Make it first"
            )
        if is_of_several(source):
            if target.suffix.lower() in {".png", *_JPEG} or target.is_file():
                raise ConfigurationError(
                    f"{printable(str(target))} is one file, and {printable(source)} "
                    "may hold several pictures",
                    "Give --annotate a folder",
                )
            if "://" not in source and target.resolve().is_relative_to(Path(source).resolve()):
                raise ConfigurationError(
                    f"{printable(str(target))} lies in the folder that is read",
                    "Give --annotate another folder, so that no picture is written over",
                )

    def write(self, picture: Picture, prediction: Prediction) -> Path | None:
        """Write the picture if it has a face, and say where. Raises ConfigurationError if that
        is the picture itself, OSError if it cannot be written."""
        if not prediction.faces:
            return None
        path = self._path(picture.source)
        if "://" not in picture.source and path.resolve() == Path(picture.source).resolve():
            raise ConfigurationError(
                f"{printable(str(path))} is the picture itself", "Give --annotate another name"
            )
        if self._is_folder and path.exists():
            raise ConfigurationError(
                f"{printable(str(path))} is there already", "Give --annotate another folder"
            )
        if self._is_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        extension = ".jpg" if path.suffix.lower() in _JPEG else ".png"
        path.write_bytes(annotate(picture.data, prediction, self._settings, extension))
        return path

    def _path(self, source: str) -> Path:
        """The file for a picture: below a folder it keeps its place in the source, as PNG."""
        if not self._is_folder:
            return self._target
        # Keys of S3 may hold what leads out of a folder.
        name = PurePosixPath(self._name(source).replace("\0", "_"))
        parts = [part for part in name.parts if part not in ("/", "//", "..")]
        plain = self._target.joinpath(*(parts or ["picture"]))
        path = plain.with_suffix(".png")
        if path in self._taken:  # a.jpg and a.webp
            path = plain.with_name(plain.name + ".png")
        while path in self._taken:
            path = path.with_name(path.name + ".png")
        self._taken.add(path)
        return path

    def _name(self, source: str) -> str:
        if "://" in source:
            if is_of_several(self._source):
                return source.removeprefix(self._source)
            return unquote(urlsplit(source).path).rpartition("/")[2]
        if is_of_several(self._source):
            return str(Path(source).relative_to(self._source))
        return Path(source).name


def annotate(
    data: bytes, prediction: Prediction, settings: Settings, extension: str = ".png"
) -> bytes:
    """The picture with its faces marked, in the format of the extension; small ones enlarged.

    Green is Happy, blue is Sad, grey is uncertain; the bar under the words shows p_happy, p_sad
    and p_neither in the same colours. Raises UndecodableImageError as `read_image` does.
    """
    pixels = read_image(data, Limits.of(settings)).pixels
    zoom = min(max(1, round(LONG_SIDE_PX / max(pixels.shape[:2]))), MAX_ZOOM)
    drawn = np.asarray(
        cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), np.uint8
    )
    thick = max(1, round(max(drawn.shape[:2]) / 700))
    boxes = [_zoomed(face.box, zoom) for face in prediction.faces]
    for box, face in zip(boxes, prediction.faces, strict=True):
        _outline(drawn, box, _colour(face), thick)
    plates: list[Box] = []
    for number, (box, face) in enumerate(zip(boxes, prediction.faces, strict=True), start=1):
        doubt = "?" if face.is_uncertain else ""
        text = f"{number} {face.emotion}{doubt} {max(face.p_happy, face.p_sad):.2f}"
        plates.append(_place(box, _plate_size(text, thick), drawn, [*plates, *boxes]))
        _draw_plate(drawn, plates[-1], text, face, thick)
    return cv2.imencode(extension, drawn)[1].tobytes()


def _colour(face: FaceScore) -> tuple[int, int, int]:
    return _COLOURS[None if face.is_uncertain else face.emotion]


def _zoomed(box: Box, zoom: int) -> Box:
    return Box(box.x * zoom, box.y * zoom, box.width * zoom, box.height * zoom)


def _outline(drawn: Pixels, box: Box, colour: tuple[int, int, int], thick: int) -> None:
    """A coloured line with a dark one around it, which is seen on any ground."""
    corners = ((box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1))
    for ink, width in ((_INK, 4 * thick), (colour, 2 * thick)):
        cv2.rectangle(drawn, *corners, ink, width)


def _plate_size(text: str, thick: int) -> tuple[int, int]:
    """Width and height in pixels of the words with a margin, and of the bar below them."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thick, thick)
    return width + 8 * thick, height + below + 4 * thick + _BAR * thick


def _place(box: Box, size: tuple[int, int], drawn: Pixels, others: Sequence[Box]) -> Box:
    """Where a face's plate hides nothing: above it, below it, or else at the best of both."""
    limits = (drawn.shape[1], drawn.shape[0])
    places = list(_places(box, size, limits))
    inside = [p for p in places if p.y >= 0 and p.y + p.height <= limits[1]]
    # A face that fills the picture has its plate on itself.
    return min(inside or [_within(Box(box.x, 0, *size), limits)], key=lambda p: _hidden(p, others))


def _places(box: Box, size: tuple[int, int], limits: tuple[int, int]) -> Iterator[Box]:
    for y in (box.y - size[1] - 1, box.y + box.height + 1):
        for x in (box.x, box.x + box.width - size[0], box.x + (box.width - size[0]) // 2):
            yield _within(Box(x, y, *size), (limits[0], 10**9))


def _within(place: Box, limits: tuple[int, int]) -> Box:
    """The same moved sideways, and up, until it lies in the picture."""
    x = max(min(place.x, limits[0] - place.width), 0)
    return Box(x, min(place.y, max(limits[1] - place.height, 0)), place.width, place.height)


def _hidden(place: Box, others: Sequence[Box]) -> int:
    """Square pixels of other plates and faces that lie under a place."""
    total = 0
    for other in others:
        width = min(place.x + place.width, other.x + other.width) - max(place.x, other.x)
        height = min(place.y + place.height, other.y + other.height) - max(place.y, other.y)
        total += max(width, 0) * max(height, 0)
    return total


def _draw_plate(drawn: Pixels, plate: Box, text: str, face: FaceScore, thick: int) -> None:
    right, bottom = plate.x + plate.width - 1, plate.y + plate.height - 1
    cv2.rectangle(drawn, (plate.x, plate.y), (right, bottom), _colour(face), cv2.FILLED)
    bar = bottom - _BAR * thick
    (_, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thick, thick)
    at = (plate.x + 4 * thick, plate.y + height + 3 * thick)
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thick, _INK, thick, cv2.LINE_AA)
    ends = np.cumsum([face.p_happy, face.p_sad, face.p_neither]) * plate.width
    start = plate.x
    for end, emotion in zip(ends, (Emotion.HAPPY, Emotion.SAD, None), strict=True):
        stop = min(plate.x + round(float(end)), right + 1)
        cv2.rectangle(drawn, (start, bar), (stop - 1, bottom), _COLOURS[emotion], cv2.FILLED)
        start = max(start, stop)
    cv2.rectangle(drawn, (plate.x, bar), (right, bottom), _INK, thick)
    cv2.rectangle(drawn, (plate.x, plate.y), (right, bottom), _INK, thick)
