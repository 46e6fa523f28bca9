"""Detect the faces of an image and crop each to the 48×48 gray input of the CNN.

A facility delivers crops (one face that fills the image) or camera frames (any number of faces,
detected by YuNet in OpenCV). `extract_faces` does everything from an object's bytes to crops. Of
a face, only its box is kept: YuNet's landmarks are dropped as soon as they are computed.
Classifying the expression is left to classifier.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from fer_batch.errors import ModelError
from fer_batch.imaging.decoding import (
    ImageLimits,
    Pixels,
    decode_image,
)
from fer_batch.imaging.headers import Header
from fer_batch.records import Box, Image

CROP_PX = 48
CROPPING = {
    "version": 1,
    "crop_px": CROP_PX,
    "square": "max(width, height) around the center, edge replicated",
    "scaling": "area down, cubic up",
    "transparency": "mid grey",
}
"""How a face is cropped, for the manifest. Increase the version with any change of a pixel."""

# In the test photographs, scaled so that faces have 14 to 500 px in YuNet's input, YuNet scores
# faces above 0.75 and nothing else. A higher threshold loses sad faces first: of the faces in
# FER2013's PrivateTest at 96 px, 0.6 detects 87 % of the happy and 72 % of the sad ones, 0.8
# detects 81 % and 59 %, and 0.9 detects 40 % and 15 %.
# Frames of up to 640 px are not scaled down. Of 436 faces of at least 40 px, made from the test
# photographs, scaling to three quarters loses 12 and to one half 19, tilted heads first, while
# shifting the frame by 3 px loses 4 (`python -m benchmarks.detection`).
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
"""How faces are detected, for the manifest. Sizes are in pixels of YuNet's input."""

YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
"""YuNet 2023mar of OpenCV Zoo (MIT, 232,589 bytes)."""

_SMALLEST_PX = int(DETECTION["smallest_px"])
_FULL_SIZE_PX = int(DETECTION["full_size_up_to_px"])
_OVERVIEW_PX = int(DETECTION["overview_px"])
_TILE_PX = int(DETECTION["tile_px"])

# With a side of 32 pixels or less, OpenCV 4.14 runs YuNet on uninitialized memory: it reports faces
# of score 1 in a gray strip, and different ones in the next process.
_NARROWEST_PX = int(DETECTION["narrowest_px"])

ImageKind = Literal["crops", "frames"]


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face of an image. `detector_score` is YuNet's, 0 to 1; None where nothing was detected."""

    box: Box
    detector_score: float | None = None


class DecodedImage(NamedTuple):
    """A decoded image: its upright size, K faces and their `crops`, uint8 K×48×48.

    A frame without a detected face has K = 0.
    """

    width_px: int
    height_px: int
    faces: tuple[DetectedFace, ...]
    crops: Pixels


@dataclass(frozen=True, slots=True)
class ExtractedFaces:
    """An image whose faces are ready for the CNN, as `DecodedImage`."""

    image: Image
    width_px: int
    height_px: int
    faces: tuple[DetectedFace, ...]
    crops: Pixels


def extract_faces(
    data: bytes,
    kind: ImageKind,
    limits: ImageLimits,
    detector: FaceDetector | None,
    reserve: Callable[[Header], None] = lambda _: None,
) -> DecodedImage:
    """Decode the bytes of an image and crop its faces; `reserve` is that of `decode_image`.

    Crops need no detector. Raises UndecodableImageError, and ValueError for frames without a
    detector.
    """
    if kind == "frames" and detector is None:
        raise ValueError("frames need a face detector")
    pixels = decode_image(data, limits, is_gray=kind == "crops", reserve=reserve)
    height, width = pixels.shape[:2]
    if detector is None or kind == "crops":
        box, crop = crop_whole_image(pixels)
        return DecodedImage(width, height, (DetectedFace(box),), crop[np.newaxis])
    faces = detector.detect(pixels)
    crops = np.empty((len(faces), CROP_PX, CROP_PX), np.uint8)
    for crop, face in zip(crops, faces, strict=True):
        crop[:] = crop_face(pixels, face.box)
    return DecodedImage(width, height, tuple(faces), crops)


# ---------------------------------------------------------------- cropping


def crop_whole_image(pixels: Pixels) -> tuple[Box, Pixels]:
    """Crop the whole image as one face: its box and its uint8 48×48 crop.

    An image that is not square is padded to a square by replicating its edge, so that nothing of
    the face is cut off or stretched.
    """
    height, width = pixels.shape[:2]
    box = Box(0, 0, width, height)
    return box, crop_face(pixels, box)


def crop_face(pixels: Pixels, box: Box) -> Pixels:
    """Crop the square around a box to the input of the CNN: uint8 48×48 gray. See `crop_square`."""
    return crop_square(pixels, box, CROP_PX, is_gray=True)


def crop_square(pixels: Pixels, box: Box, side_px: int, *, is_gray: bool = False) -> Pixels:
    """Crop a square of side max(width, height) around the box's center, scaled to `side_px`.

    `pixels` are H×W gray or H×W×3 blue-green-red, and so is the uint8 crop, unless `is_gray`.
    Outside the image, its edge is replicated. Any box yields a crop, even one that lies outside
    the image.
    """
    side = max(box.width, box.height, 1)
    left, width, before_x, crop_width = _compute_span(
        box.x + (box.width - side) // 2, side, pixels.shape[1], side_px
    )
    top, height, before_y, crop_height = _compute_span(
        box.y + (box.height - side) // 2, side, pixels.shape[0], side_px
    )
    crop = pixels[top : top + height, left : left + width]
    if is_gray and crop.ndim == 3:
        crop = np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), np.uint8)
    if crop.shape[:2] != (crop_height, crop_width):
        is_shrinking = height >= crop_height and width >= crop_width
        scaling = cv2.INTER_AREA if is_shrinking else cv2.INTER_CUBIC
        crop = np.asarray(cv2.resize(crop, (crop_width, crop_height), interpolation=scaling))
    if crop.shape[:2] != (side_px, side_px):
        crop = np.asarray(
            cv2.copyMakeBorder(
                crop,
                before_y,
                side_px - crop_height - before_y,
                before_x,
                side_px - crop_width - before_x,
                cv2.BORDER_REPLICATE,
            )
        )
    return np.asarray(crop, np.uint8)


def _compute_span(start: int, side: int, limit: int, side_px: int) -> tuple[int, int, int, int]:
    """Compute one axis of a crop: start and length of the part inside the image, then how many of
    the `side_px` pixels are padding before it and how many show it.

    The image is scaled before it is padded, so that a box far larger than the image costs nothing.
    """
    first = min(max(start, 0), limit - 1)
    length = max(min(start + side, limit) - first, 1)
    visible = min(max(round(side_px * length / side), 1), side_px)
    before = min(max(round(side_px * (first - start) / side), 0), side_px - visible)
    return first, length, before, visible


# ---------------------------------------------------------------- detection


def find_shipped_detector() -> Path:
    """The path of the shipped YuNet file; its license is beside it."""
    return Path(__file__).with_name("yunet") / "face_detection_yunet_2023mar.onnx"


def read_detector(detector_file: Path | None) -> tuple[bytes, str]:
    """Read the detector's bytes and compute their SHA-256.

    None means the shipped detector, which must be the one that fer-batch was measured with.
    Raises ModelError if it is missing or different.
    """
    path = detector_file or find_shipped_detector()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the face detector {path} cannot be read: {error.strerror}",
            "Reinstall fer-batch, or set FER_DETECTOR_FILE to a YuNet ONNX file",
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if detector_file is None and sha256 != YUNET_SHA256:
        raise ModelError(
            f"the face detector {path} has SHA-256 {sha256}, expected {YUNET_SHA256}",
            "Reinstall fer-batch; or, to use this file deliberately, set FER_DETECTOR_FILE to it",
        )
    return content, sha256


class DetectorSettings(Protocol):
    """The settings of a face detector. `detector_file` is None for the shipped one."""

    @property
    def detector_file(self) -> Path | None: ...

    @property
    def min_face_px(self) -> int: ...


class FaceDetector:
    """Detects faces of at least `min_face_px` (longer side of the box) in a frame.

    Not thread-safe: create one for each thread. Each takes at most about 120 MB, whatever the
    size of the frame. Raises ModelError if the file is missing, altered or not a YuNet model.
    """

    def __init__(self, settings: DetectorSettings) -> None:
        content, _ = read_detector(settings.detector_file)
        self._min_face_px = settings.min_face_px
        # Created from the bytes that were hashed: the file is not opened a second time.
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
                f"{settings.detector_file or find_shipped_detector()} is not a YuNet "
                f"model that OpenCV {cv2.__version__} can run",
                "Set FER_DETECTOR_FILE to YuNet 2023mar, or unset it",
            ) from error

    def detect(self, pixels: Pixels) -> list[DetectedFace]:
        """Detect the faces of H×W×3 blue-green-red pixels: from left to right, boxes clipped.

        YuNet detects faces of about 14 to 500 px. A large frame is therefore processed at two
        scales: in overlapping tiles, scaled down as far as the smallest counted face allows
        (tiles bound the memory), and once as an overview, where a face that fills it is detected.
        """
        height, width = pixels.shape[:2]
        rows = np.concatenate(
            [self._detect_at_scale(pixels, scale) for scale in self._choose_scales(pixels)]
        )
        faces = []
        for x, y, w, h, score in _suppress_duplicates(rows).tolist():
            left, top = max(math.floor(x), 0), max(math.floor(y), 0)
            right, bottom = min(math.ceil(x + w), width), min(math.ceil(y + h), height)
            box = Box(left, top, right - left, bottom - top)
            if min(box.width, box.height) > 0 and max(box.width, box.height) >= self._min_face_px:
                faces.append(DetectedFace(box, min(score, 1.0)))
        return sorted(faces, key=lambda face: (face.box.x, face.box.y))

    def _choose_scales(self, pixels: Pixels) -> list[float]:
        longest = max(pixels.shape[:2])
        if longest <= _FULL_SIZE_PX:
            return [1.0]
        scale = min(max(_FULL_SIZE_PX / longest, _SMALLEST_PX / self._min_face_px), 1.0)
        if scale * longest <= _FULL_SIZE_PX:
            return [scale]
        return [scale, _OVERVIEW_PX / longest]

    def _detect_at_scale(self, pixels: Pixels, scale: float) -> npt.NDArray[np.float64]:
        """Rows of x, y, width, height, score in the coordinates of `pixels`."""
        height, width = pixels.shape[:2]
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        view = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        # A face larger than the overlap, which tiles may cut, is detected in the overview.
        overlap = min(1.3 * _SMALLEST_PX * max(size) / _OVERVIEW_PX, min(size), _TILE_PX / 2)
        parts = [np.empty((0, 5))]
        for top, bottom in split_into_tiles(size[1], math.ceil(overlap)):
            for left, right in split_into_tiles(size[0], math.ceil(overlap)):
                rows = self._run_yunet(np.ascontiguousarray(view[top:bottom, left:right]))
                rows[:, :2] += (left, top)
                is_cut = (
                    ((rows[:, 0] < left + 1) & (left > 0))
                    | ((rows[:, 1] < top + 1) & (top > 0))
                    | ((rows[:, 0] + rows[:, 2] > right - 1) & (right < size[0]))
                    | ((rows[:, 1] + rows[:, 3] > bottom - 1) & (bottom < size[1]))
                )
                parts.append(rows[~is_cut])
        all_rows = np.concatenate(parts)
        all_rows[:, [0, 2]] *= width / size[0]
        all_rows[:, [1, 3]] *= height / size[1]
        return all_rows

    def _run_yunet(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        height, width = pixels.shape[:2]
        if min(height, width) < _NARROWEST_PX:
            below, beside = max(_NARROWEST_PX - height, 0), max(_NARROWEST_PX - width, 0)
            pixels = np.asarray(
                cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_CONSTANT), np.uint8
            )
        self._yunet.setInputSize((pixels.shape[1], pixels.shape[0]))
        detections: Any = self._yunet.detect(pixels)[1]
        if detections is None:  # no face; the type stubs omit this
            return np.empty((0, 5))
        # Box and score; the ten columns between them are landmarks, which are not kept.
        rows = np.asarray(detections, np.float64)[:, [0, 1, 2, 3, -1]]
        return rows[np.isfinite(rows).all(axis=1)]


def split_into_tiles(length: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Equal, overlapping intervals of at most a tile's side that cover `length` pixels."""
    count = 1 if length <= _TILE_PX else math.ceil((length - overlap) / (_TILE_PX - overlap))
    side = math.ceil((length + (count - 1) * overlap) / count)
    for number in range(count):
        start = min(number * (side - overlap), length - side)
        yield start, start + side


def _suppress_duplicates(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keep the best of each set of boxes that cover the same face, in descending order of score."""
    kept: list[npt.NDArray[np.float64]] = []
    for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
        if all(_compute_overlap(row, other) <= DETECTION["same_face_overlap"] for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 5)


def _compute_overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Intersection of two boxes as a share of the smaller one: 1 where one contains the other."""
    shared = np.minimum(a[:2] + a[2:4], b[:2] + b[2:4]) - np.maximum(a[:2], b[:2])
    smaller = min(a[2] * a[3], b[2] * b[3])
    return float(np.prod(np.maximum(shared, 0)) / smaller) if smaller > 0 else 1.0
