"""Decode the bytes of an image to upright pixels, or raise an error with an outcome.

JPEG, PNG and WebP, detected by content: gray, color, palette, CMYK, 8 or 16 bits. Size and
completeness are read from the container before any pixel is decoded (headers.py). The EXIF
orientation is applied in all three formats. Transparent parts are blended with mid gray, which
adds neither a bright nor a dark edge. Of an animation, the first frame is read. Detecting faces
is left to faces.py.

Known limits: a JPEG whose compressed bytes were altered in the middle still decodes, and no
decoder can detect that. Truncated images are detected, except a progressive JPEG that was cut
between two scans and then closed: it is a complete but less sharp image. A JPEG that lacks only its
end marker is complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from fer_batch.imaging.headers import Header, UndecodableImageError, read_header
from fer_batch.records import Outcome

if TYPE_CHECKING:  # a decoder process imports no settings
    from fer_batch.settings import Settings

Pixels = npt.NDArray[np.uint8]

MID_GRAY = 128
"""The background of transparent parts; also the gray that JPEG decoders fill in for lost data."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits of an image: bytes of the object, pixels in total, pixels of the shorter side."""

    max_bytes: int
    max_pixels: int
    min_px: int

    @classmethod
    def from_settings(cls, settings: Settings) -> ImageLimits:
        return cls(settings.max_image_bytes, settings.max_image_pixels, settings.min_image_px)


def decode_image(
    data: bytes,
    limits: ImageLimits,
    *,
    is_gray: bool = False,
    reserve: Callable[[Header], None] = lambda _: None,
) -> Pixels:
    """Decode the bytes of one image to upright uint8 pixels.

    H×W×3 blue-green-red, or with `is_gray` H×W gray, which costs less. `reserve` is called with
    the header before any pixel is decoded: it may wait for memory, or raise. Raises
    UndecodableImageError with a reason and one of the outcomes `empty`, `unsupported`,
    `unreadable`, `too_large`, `too_small`.
    """
    check_bytes(len(data), limits)
    header = read_header(data)
    _check_size(header, limits)
    reserve(header)
    pixels = _decode(header.data, header, is_gray=is_gray)
    if header.format == "JPEG" and (
        header.is_unterminated or not header.loss_is_gray or _ends_in_fill_value(pixels)
    ):
        _check_not_truncated(header, None if is_gray else pixels)
    if header.has_alpha:
        pixels = _blend_alpha(pixels, is_gray=is_gray)
    if header.orientation != 1:
        pixels = _ORIENTATIONS[header.orientation](pixels)
    return pixels


def check_bytes(size_bytes: int, limits: ImageLimits) -> None:
    """Check the size of an object before it is fetched or read.

    Raises UndecodableImageError with `too_large` or `empty`.
    """
    if size_bytes > limits.max_bytes:
        raise UndecodableImageError(
            Outcome.TOO_LARGE, f"{size_bytes:,} bytes; the limit is {limits.max_bytes:,}"
        )
    if size_bytes == 0:
        raise UndecodableImageError(Outcome.EMPTY, "the object has no bytes")


def estimate_memory(header: Header) -> int:
    """How many bytes decoding an image and detecting its faces take at most, without its file.

    Besides the pixels as stored there are two copies in color: of the upright or blended image, and
    of the one that is scaled for the detector or decoded again to find what was cut off.
    """
    per_pixel = header.pixel_bytes + header.extra_pixel_bytes + 2 * 3
    if header.has_alpha and header.pixel_bytes > 4:
        per_pixel += 4  # 16-bit channels are first reduced to 8 bits
    return header.width_px * header.height_px * per_pixel


def _check_size(header: Header, limits: ImageLimits) -> None:
    size = f"{header.format} of {header.width_px:,}×{header.height_px:,} pixels"
    if header.width_px * header.height_px > limits.max_pixels:
        raise UndecodableImageError(
            Outcome.TOO_LARGE, f"{size}; the limit is {limits.max_pixels:,} pixels"
        )
    if min(header.width_px, header.height_px) < limits.min_px:
        raise UndecodableImageError(
            Outcome.TOO_SMALL, f"{size}; the shorter side must have {limits.min_px}"
        )


def _decode(data: bytes, header: Header, *, is_gray: bool) -> Pixels:
    if header.has_alpha:
        flags = cv2.IMREAD_UNCHANGED
    else:
        flags = cv2.IMREAD_GRAYSCALE if is_gray else cv2.IMREAD_COLOR
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory to decode a {header.format}") from error
        pixels = None
    if pixels is None:
        raise UndecodableImageError(
            Outcome.UNREADABLE, f"{header.format} is damaged: its pixels cannot be decoded"
        )
    if pixels.shape[:2] != (header.height_px, header.width_px):
        raise UndecodableImageError(
            Outcome.UNREADABLE, f"{header.format} is damaged: its headers contradict each other"
        )
    return pixels  # type: ignore[return-value]  # 16 bits only where there is alpha, see below


# libjpeg fills blocks without data with mid gray and reports no error: a camera that is interrupted
# and then closes its file properly writes such images. An image that ends in such a block, or of a
# kind whose lost data does not decode to gray, is decoded a second time with extra data inserted
# before its end. If nothing was missing, the decoder stops before that data and the pixels are the
# same. So is a JPEG without its end marker.
_RESTART_MARKERS = tuple(bytes((0xFF, number)) for number in range(0xD0, 0xD8))
_EXTRA_DATA = bytes((0xB5, 0x6D, 0x9B)) * 28  # begins unlike the zeros that libjpeg fills in
_BLOCK_PX = 8


def _ends_in_fill_value(pixels: Pixels) -> bool:
    if pixels.item(-1) != MID_GRAY:  # true for nearly all images, and cheap
        return False
    top, left = ((side - 1) // _BLOCK_PX * _BLOCK_PX for side in pixels.shape[:2])
    return bool((pixels[top:, left:] == MID_GRAY).all())


def _make_extra_data(data: bytes) -> bytes:
    """Data for the blocks after `data`, each followed by the restart marker that comes next."""
    last = max(range(8), key=lambda number: data.rfind(_RESTART_MARKERS[number]))
    has_restarts = _RESTART_MARKERS[last] in data
    first = last + 1 if has_restarts else 0
    return b"".join(_EXTRA_DATA + _RESTART_MARKERS[(first + n) % 8] for n in range(8))


def _check_not_truncated(header: Header, color: Pixels | None) -> None:
    end = header.entropy_end
    longer = header.data[:end] + _make_extra_data(header.data[:end]) + header.data[end:]
    # Compared in color: what was cut off may be a scan of color only.
    if color is None:
        color = _decode(header.data, header, is_gray=False)
    if not np.array_equal(_decode(longer, header, is_gray=False), color):
        raise UndecodableImageError(Outcome.UNREADABLE, "JPEG ends early: its lower part is lost")


def _blend_alpha(pixels: npt.NDArray[np.uint8 | np.uint16], *, is_gray: bool) -> Pixels:
    """Blend pixels that were decoded with their alpha channel with mid gray."""
    eight_bits = _to_array(pixels) if pixels.dtype == np.uint8 else _take_high_bytes(pixels)
    if eight_bits.ndim == 2:  # a gray image with one gray level declared transparent: left as it is
        return eight_bits if is_gray else _to_array(cv2.cvtColor(eight_bits, cv2.COLOR_GRAY2BGR))
    color = eight_bits[:, :, :3]
    if eight_bits.shape[2] == 4 and eight_bits[:, :, 3].min() < 255:
        for row in range(len(color)):  # row by row: the 16-bit sums take twice the memory
            alpha = eight_bits[row, :, 3:].astype(np.uint16)
            mixed = color[row] * alpha + MID_GRAY * (255 - alpha)
            color[row] = (mixed + 127) // 255
    return _to_array(
        cv2.cvtColor(color, cv2.COLOR_BGR2GRAY) if is_gray else np.ascontiguousarray(color)
    )


def _take_high_bytes(pixels: npt.NDArray[np.uint8 | np.uint16]) -> Pixels:
    """The upper eight of 16 bits, without a copy in 16 bits."""
    result = np.empty(pixels.shape, np.uint8)
    for row, row_of_result in zip(pixels, result, strict=True):
        row_of_result[:] = row >> 8
    return result


def _to_array(pixels: object) -> Pixels:
    return np.asarray(pixels, np.uint8)


# EXIF 2.3 (CIPA DC-008, 4.6.2): where the first row and column of the stored image belong.
_ORIENTATIONS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda p: _to_array(cv2.flip(p, 1)),
    3: lambda p: _to_array(cv2.rotate(p, cv2.ROTATE_180)),
    4: lambda p: _to_array(cv2.flip(p, 0)),
    5: lambda p: _to_array(cv2.transpose(p)),
    6: lambda p: _to_array(cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE)),
    7: lambda p: _to_array(cv2.flip(cv2.transpose(p), -1)),
    8: lambda p: _to_array(cv2.rotate(p, cv2.ROTATE_90_COUNTERCLOCKWISE)),
}


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Discard what C libraries print to stderr; Python's own `sys.stderr` still works.

    libjpeg and libpng print a line about each damaged image, without its name, and OpenCV cannot
    turn that off. File descriptor 2 is redirected for the whole process, so use this at the outer
    edge: around a whole scoring process, before logging is configured, or around a command's
    decoding.
    """
    python_stderr = sys.stderr
    saved_stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        with os.fdopen(os.dup(saved_stderr), "w", buffering=1, errors="backslashreplace") as stderr:
            sys.stderr = stderr
            os.dup2(devnull, 2)
            yield
    finally:
        os.dup2(saved_stderr, 2)
        sys.stderr = python_stderr
        os.close(saved_stderr)
        os.close(devnull)
