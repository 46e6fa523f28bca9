"""Turn the bytes of an image into upright pixels, or say why that cannot be done.

JPEG, PNG and WebP, told by content: grey, colour, palette, CMYK, 8 or 16 bits. Size and
completeness are read from the container before a pixel is decoded (headers.py). The EXIF
orientation is applied in all three formats. Transparent parts are laid on mid grey, which adds
neither a bright nor a dark edge to a picture. Of an animation the first frame is read. Where
the faces are is left to faces.py.

Limits worth knowing: a JPEG whose compressed bytes were altered in the middle decodes to
something, and no decoder can tell. What ends early is found, but for a progressive JPEG that was
cut off between two scans and closed: it is a whole picture, less sharp.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fer_batch.headers import Header, UndecodableImageError, read_header
from fer_batch.records import Outcome
from fer_batch.settings import Settings

__all__ = ["DecodedImage", "Limits", "Pixels", "UndecodableImageError", "read_image"]

Pixels = npt.NDArray[np.uint8]

MID_GREY = 128
"""What lies behind transparent parts; also the grey that a JPEG decoder puts for lost data."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds on an image: bytes of the object, pixels of the picture, its shorter side."""

    max_bytes: int
    max_pixels: int
    min_px: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.max_image_bytes, settings.max_image_pixels, settings.min_image_px)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Upright pixels, uint8: H×W×3 blue-green-red, or H×W grey where grey was asked for."""

    pixels: Pixels

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.pixels.shape[0])


def read_image(data: bytes, limits: Limits, *, is_grey: bool = False) -> DecodedImage:
    """Decode the bytes of one image; `is_grey` asks for H×W instead of H×W×3, at less cost.

    Raises UndecodableImageError with one of the outcomes `empty`, `unsupported`, `unreadable`,
    `too_large`, `too_small` and a reason.
    """
    check_bytes(len(data), limits)
    header = read_header(data)
    _check_size(header, limits)
    pixels = _decode(header.data, header, is_grey=is_grey)
    if header.format == "JPEG" and (not header.loss_is_grey or _ends_in_filler(pixels)):
        _check_all_is_there(header, None if is_grey else pixels)
    if header.has_alpha:
        pixels = _without_alpha(pixels, is_grey=is_grey)
    if header.orientation != 1:
        pixels = _TURNS[header.orientation](pixels)
    return DecodedImage(pixels)


def check_bytes(size_bytes: int, limits: Limits) -> None:
    """Refuse an object by its size alone, before it is fetched or read.

    Raises UndecodableImageError with `too_large` or `empty`.
    """
    if size_bytes > limits.max_bytes:
        raise UndecodableImageError(
            Outcome.TOO_LARGE, f"{size_bytes:,} bytes; the limit is {limits.max_bytes:,}"
        )
    if size_bytes == 0:
        raise UndecodableImageError(Outcome.EMPTY, "the object has no bytes")


def _check_size(header: Header, limits: Limits) -> None:
    size = f"{header.format} of {header.width_px:,}×{header.height_px:,} pixels"
    if header.width_px * header.height_px > limits.max_pixels:
        raise UndecodableImageError(
            Outcome.TOO_LARGE, f"{size}; the limit is {limits.max_pixels:,} pixels"
        )
    if min(header.width_px, header.height_px) < limits.min_px:
        raise UndecodableImageError(
            Outcome.TOO_SMALL, f"{size}; the shorter side must have {limits.min_px}"
        )


def _decode(data: bytes, header: Header, *, is_grey: bool) -> Pixels:
    if header.has_alpha:
        flags = cv2.IMREAD_UNCHANGED
    else:
        flags = cv2.IMREAD_GRAYSCALE if is_grey else cv2.IMREAD_COLOR
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


# libjpeg fills the blocks that it has no data for with mid grey and calls the image good: a
# camera that is cut off and closes its file properly makes such images. An image that ends in
# such a block, or whose losses do not look like that, is decoded again with more data before its
# end. If nothing was missing the decoder stops before it gets there, and the pixels are the same.
_RESTARTS = tuple(bytes((0xFF, number)) for number in range(0xD0, 0xD8))
_MORE_DATA = b"".join(bytes(range(1, 250, 3)) + restart for restart in _RESTARTS)
_BLOCK_PX = 8


def _ends_in_filler(pixels: Pixels) -> bool:
    if pixels.item(-1) != MID_GREY:  # nearly always; the rest is for the few others
        return False
    top, left = ((side - 1) // _BLOCK_PX * _BLOCK_PX for side in pixels.shape[:2])
    return bool((pixels[top:, left:] == MID_GREY).all())


def _check_all_is_there(header: Header, colour: Pixels | None) -> None:
    end = header.entropy_end
    longer = header.data[:end] + _MORE_DATA + header.data[end:]
    # In colour, for a scan of colour may be what was cut off, and one of grey was to follow.
    if colour is None:
        colour = _decode(header.data, header, is_grey=False)
    if not np.array_equal(_decode(longer, header, is_grey=False), colour):
        raise UndecodableImageError(Outcome.UNREADABLE, "JPEG ends early: its lower part is lost")


def _without_alpha(pixels: npt.NDArray[np.uint8 | np.uint16], *, is_grey: bool) -> Pixels:
    """Lay what was decoded with its alpha on mid grey."""
    eight_bits = (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8, copy=False)
    if eight_bits.ndim == 2:  # a grey picture with one grey declared transparent: kept as it is
        return eight_bits if is_grey else _array(cv2.cvtColor(eight_bits, cv2.COLOR_GRAY2BGR))
    colour = eight_bits[:, :, :3]
    if eight_bits.shape[2] == 4 and eight_bits[:, :, 3].min() < 255:
        for row in range(len(colour)):  # row by row: the sums need twice the memory
            alpha = eight_bits[row, :, 3:].astype(np.uint16)
            mixed = colour[row] * alpha + MID_GREY * (255 - alpha)
            colour[row] = (mixed + 127) // 255
    return _array(
        cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY) if is_grey else np.ascontiguousarray(colour)
    )


def _array(pixels: object) -> Pixels:
    return np.asarray(pixels, np.uint8)


# EXIF 2.3 (CIPA DC-008, 4.6.2): where the stored picture's first row and column belong.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda p: _array(cv2.flip(p, 1)),
    3: lambda p: _array(cv2.rotate(p, cv2.ROTATE_180)),
    4: lambda p: _array(cv2.flip(p, 0)),
    5: lambda p: _array(cv2.transpose(p)),
    6: lambda p: _array(cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE)),
    7: lambda p: _array(cv2.flip(cv2.transpose(p), -1)),
    8: lambda p: _array(cv2.rotate(p, cv2.ROTATE_90_COUNTERCLOCKWISE)),
}


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Send what C libraries print to nowhere; Python's own standard error stays where it was.
    From then on a crash of this process leaves no pixels in a core file.

    libjpeg and libpng print a line about each damaged image, without its name, and OpenCV gives
    no way to turn that off. The whole process is concerned, so this stands at its edge: around
    all of a scoring process, before the logs are set up, or around a command's decoding.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    python_stderr = sys.stderr
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace") as stderr:
            sys.stderr = stderr
            os.dup2(nowhere, 2)
            yield
    finally:
        os.dup2(kept, 2)
        sys.stderr = python_stderr
        os.close(kept)
        os.close(nowhere)
