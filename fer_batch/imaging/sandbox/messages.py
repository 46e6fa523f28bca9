"""The binary form in which images go to a decoder and boxes and crops come back.

All numbers are little-endian. A request is a header, the size of each image and their bytes. An
answer is a header with the size of its body; the body has a record for each image, then the reasons
as text, then the detected faces of frames, then the 48×48 crops or, for `PIXELS`, the pixels.

`parse_answer` trusts nothing: an image may have taken over the decoder that answers. Whatever is
not a possible answer to the request raises InvalidAnswerError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum

import numpy as np

from fer_batch.imaging.decoding import ImageLimits
from fer_batch.imaging.faces import CROP_PX, DecodedImage, DetectedFace
from fer_batch.imaging.headers import REASON_LENGTH, UndecodableImageError
from fer_batch.records import Box, Outcome

MAX_FACES = 20_000
"""Faces of an image. Of the smallest ones, side by side, 40 megapixels hold more, no photograph."""


class Task(IntEnum):
    """What a decoder does with the images of a request."""

    CROPS = 1  # each image is one face
    FRAMES = 2  # detect the faces and crop them
    PIXELS = 3  # decode one image to its pixels


class Kind(IntEnum):
    """What a message of a decoder is about; the number in its header depends on it."""

    READY = 1  # the layers of the confinement
    NEEDS = 2  # bytes of memory to decode the next image; waits for GRANTED
    DONE = 3  # size of the body that follows


GRANTED = b"\1"
REQUEST = struct.Struct("<BI")  # task, number of images
SIZE_BYTES = 8
ANSWER = struct.Struct("<BQ")  # kind, number
_RECORD = struct.Struct("<BHIII")  # outcome, bytes of the reason, width, height, faces
_FACE = struct.Struct("<iiiid")  # x, y, width, height, score of the detector; for frames only
_CROP_BYTES = CROP_PX * CROP_PX
SMALL_BYTES = 1_000_000
"""Messages up to this size are copied into one part."""
_DECODED = 0
_OUTCOMES = {
    1: Outcome.EMPTY,
    2: Outcome.UNREADABLE,
    3: Outcome.UNSUPPORTED,
    4: Outcome.TOO_LARGE,
    5: Outcome.TOO_SMALL,
}
_NUMBERS = {outcome: number for number, outcome in _OUTCOMES.items()}


class InvalidAnswerError(Exception):
    """A decoder sent what is no answer to its request."""


Item = DecodedImage | UndecodableImageError
"""What became of one image. For the task `PIXELS` the decoded image has no faces, and its `crops`
are the pixels, uint8 H×W×3 blue-green-red."""


def format_request(task: Task, images: Sequence[bytes]) -> list[bytes]:
    """The request as parts to be written one after the other; small images are one part."""
    header = REQUEST.pack(task, len(images)) + _pack_sizes(images)
    size = sum(map(len, images))
    return [b"".join((header, *images))] if size < SMALL_BYTES else [header, *images]


def _pack_sizes(images: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(images)}Q", *map(len, images))


def unpack_sizes(data: bytes) -> tuple[int, ...]:
    """The sizes of the images of a request, of `SIZE_BYTES` each."""
    return struct.unpack(f"<{len(data) // SIZE_BYTES}Q", data)


def format_body(task: Task, items: Sequence[Item]) -> list[bytes | memoryview]:
    """The body of an answer: one part with all but the crops, then the crops of each image."""
    records, reasons, faces, crops = [], [], [], []
    for item in items:
        if isinstance(item, UndecodableImageError):
            reason = item.reason.encode()
            records.append(_RECORD.pack(_NUMBERS[item.outcome], len(reason), 0, 0, 0))
            reasons.append(reason)
            continue
        width, height, found, pixels = item
        records.append(_RECORD.pack(_DECODED, 0, width, height, len(found)))
        for face in found if task is Task.FRAMES else ():
            box = face.box
            faces.append(_FACE.pack(box.x, box.y, box.width, box.height, face.detector_score))
        crops.append(pixels.reshape(-1).data)
    return [b"".join((*records, *reasons, *faces)), *crops]


def compute_largest_body(task: Task, count: int, limits: ImageLimits) -> int:
    """The size in bytes that the body of an answer has at most."""
    texts = count * (_RECORD.size + 4 * REASON_LENGTH)
    if task is Task.PIXELS:
        return texts + count * 3 * limits.max_pixels
    faces = count if task is Task.CROPS else count * MAX_FACES
    return texts + faces * (_FACE.size + _CROP_BYTES)


def parse_answer(
    task: Task, count: int, body: bytes | bytearray, limits: ImageLimits, min_face_px: int
) -> list[Item]:
    """The items of an answer to a request of `count` images.

    Raises InvalidAnswerError unless types, sizes, counts and ranges are those that decoding within
    `limits` gives. The crops are views of `body`.
    """
    try:
        return _Parser(task, count, body, limits, min_face_px).parse()
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise InvalidAnswerError(str(error)) from error


class _Parser:
    def __init__(
        self,
        task: Task,
        count: int,
        body: bytes | bytearray,
        limits: ImageLimits,
        min_face_px: int,
    ) -> None:
        self._task = task
        self._body = body
        self._limits = limits
        self._min_face_px = min_face_px
        self._reason_at = count * _RECORD.size
        _check(len(body) >= self._reason_at, "a body without records")
        self._records = list(_RECORD.iter_unpack(memoryview(body)[: self._reason_at]))
        self._faces_at = self._reason_at + sum([record[1] for record in self._records])
        faces = sum([record[4] for record in self._records])
        self._crops_at = self._faces_at + (faces * _FACE.size if task is Task.FRAMES else 0)
        if task is Task.PIXELS:
            _check(faces == 0, "faces among pixels")
            self._shape: tuple[int, ...] = (-1, 3)
            rows = sum([record[2] * record[3] for record in self._records])
        else:
            self._shape = (-1, CROP_PX, CROP_PX)
            rows = faces
        size = rows * (3 if task is Task.PIXELS else _CROP_BYTES)
        _check(self._crops_at + size == len(body), "a body of another size than its records say")
        self._crops = np.frombuffer(body, np.uint8, size, self._crops_at).reshape(self._shape)
        self._row = 0

    def parse(self) -> list[Item]:
        items: list[Item] = []
        for outcome, reason_size, width, height, faces in self._records:
            if outcome == _DECODED:
                _check(reason_size == 0, "a reason for a decoded image")
                items.append(self._parse_decoded(width, height, faces))
            else:
                _check(width == height == faces == 0, "faces of an image that was not decoded")
                items.append(self._parse_reason(outcome, reason_size))
        return items

    def _parse_reason(self, number: int, size: int) -> UndecodableImageError:
        outcome = _OUTCOMES[number]
        text = bytes(self._body[self._reason_at : self._reason_at + size]).decode()
        self._reason_at += size
        _check(0 < len(text) <= REASON_LENGTH and text.isprintable(), "an unprintable reason")
        return UndecodableImageError(outcome, text)

    def _parse_decoded(self, width: int, height: int, count: int) -> Item:
        limits = self._limits
        if min(width, height) < limits.min_px or width * height > limits.max_pixels:
            raise InvalidAnswerError("an image outside the limits")
        first = self._row
        if self._task is Task.PIXELS:
            self._row += width * height
            pixels = self._crops[first : self._row].reshape(height, width, 3)
            return DecodedImage(width, height, (), pixels)
        self._row += count
        crops = self._crops[first : self._row]
        if self._task is Task.CROPS:
            _check(count == 1, "not one face")
            return DecodedImage(width, height, (DetectedFace(Box(0, 0, width, height)),), crops)
        _check(count <= MAX_FACES, "too many faces")
        return DecodedImage(width, height, tuple(self._parse_faces(width, height, count)), crops)

    def _parse_faces(self, width: int, height: int, count: int) -> Iterator[DetectedFace]:
        before = (0, 0)
        for _ in range(count):
            x, y, face_width, face_height, score = _FACE.unpack_from(self._body, self._faces_at)
            self._faces_at += _FACE.size
            _check(x >= 0 and y >= 0 and min(face_width, face_height) > 0, "a box without a pixel")
            _check(x + face_width <= width and y + face_height <= height, "a box beside the image")
            _check(max(face_width, face_height) >= self._min_face_px, "a face that is too small")
            _check((x, y) >= before and 0 <= score <= 1, "faces out of order or without a score")
            before = (x, y)
            yield DetectedFace(Box(x, y, face_width, face_height), score)


def _check(is_valid: bool, what: str) -> None:
    if not is_valid:
        raise InvalidAnswerError(what)
