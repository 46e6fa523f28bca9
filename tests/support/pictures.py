"""Pictures for the tests: good ones in every variety, and hostile ones.

All are drawn here; nobody's face is among them.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

Pixels = npt.NDArray[np.uint8]

ORIENTATION_TAG = 0x0112


def scene(width: int = 64, height: int = 48, seed: int = 0) -> Pixels:
    """A smooth colour picture (H×W×3, blue-green-red) that no flip or turn leaves the same."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    pixels[: height // 4, : width // 4] = (0, 0, 255)
    return np.asarray(pixels, np.uint8)


def read_photo(path: Path) -> Pixels:
    """A photograph as H×W×3 blue-green-red, by OpenCV alone."""
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    return np.asarray(pixels, np.uint8)


def encoded(pixels: Pixels, extension: str = ".jpg", *parameters: int) -> bytes:
    """By OpenCV: `.jpg`, `.png` or `.webp`."""
    return cv2.imencode(extension, pixels, list(parameters))[1].tobytes()


def saved(pixels: Pixels, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """By Pillow, in one of its modes."""
    picture = Pillow.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).convert(mode)
    return written(picture, kind, **options)


def written(picture: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(pixels: Pixels, kind: str, orientation: int) -> bytes:
    """A lossless or nearly lossless file that says how it is to be turned."""
    exif = Pillow.Exif()
    exif[ORIENTATION_TAG] = orientation
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    return saved(pixels, kind, exif=exif.tobytes(), **options.get(kind, {}))


def every_format() -> dict[str, bytes]:
    """One small good file of each variety that is read."""
    pixels = scene()
    return {
        "jpeg": encoded(pixels),
        "grey jpeg": saved(pixels, "JPEG", "L"),
        "progressive jpeg": saved(pixels, "JPEG", progressive=True),
        "cmyk jpeg": saved(pixels, "JPEG", "CMYK", quality=95),
        "restarts jpeg": encoded(pixels, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "oriented jpeg": with_orientation(pixels, "JPEG", 6),
        "png": encoded(pixels, ".png"),
        "palette png": saved(pixels, "PNG", "P"),
        "1 bit png": saved(pixels, "PNG", "1"),
        "alpha png": saved(pixels, "PNG", "RGBA"),
        "16 bit png": encoded((pixels.astype(np.uint16) * 257).astype(np.uint16), ".png"),
        "webp": encoded(pixels, ".webp"),
        "lossless webp": saved(pixels, "WEBP", lossless=True),
        "alpha webp": saved(half_transparent(pixels), "WEBP", "RGBA", lossless=True),
        "oriented webp": with_orientation(pixels, "WEBP", 6),
    }


def half_transparent(pixels: Pixels) -> Pixels:
    """The same with one pixel changed, so that encoders keep the alpha channel's mode."""
    changed = pixels.copy()
    changed[0, 0] = 1
    return changed


# ---------------------------------------------------------------- hostile


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, idat: bytes, *extra: bytes, colour_type: int = 2) -> bytes:
    """A PNG with right checksums around whatever compressed bytes are given."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(extra)
        + png_chunk(b"IDAT", idat)
        + png_chunk(b"IEND", b"")
    )


def bomb_png(side: int = 19_000) -> bytes:
    """A black RGB PNG of side × side pixels: about a gigabyte out of one megabyte."""
    return png(side, side, zlib_of_zeros(side * (1 + 3 * side)))


def zlib_of_zeros(count: int) -> bytes:
    """So many zero bytes as a zlib stream, made of one block over and over."""
    block = 1 << 20
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = squeeze.compress(bytes(block)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    rest = squeeze.compress(bytes(count % block)) + squeeze.flush()
    adler32 = count % 65521 << 16 | 1
    return b"\x78\xda" + once * (count // block) + rest + struct.pack(">I", adler32)


def cut_and_closed_jpeg(
    pixels: Pixels | None = None, share: float = 0.5, mode: str = "RGB", **options: Any
) -> bytes:
    """A JPEG that lost the end of its data and was closed properly all the same."""
    data = saved(scene(128, 128) if pixels is None else pixels, "JPEG", mode, **options)
    return data[: int(len(data) * share)] + b"\xff\xd9"


def not_images() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and the word that the reason must hold."""
    gif = written(Pillow.fromarray(scene()), "GIF")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.jpg", b"x" * 100)
    yield "page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML"
    yield "page2.jpg", b"\n  <html lang=en><head></head></html>", "HTML"
    yield "drawing.png", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"
    yield "listing.jpg", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"
    yield "error.jpg", b'{"error": "not found"}', "JSON"
    yield "moving.jpg", gif, "GIF"
    yield "packed.jpg", archive.getvalue(), "ZIP"
    yield "phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC"
    yield "film.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(64), "MP4"
    yield "sound.webp", b"RIFF\x24\0\0\0WAVEfmt " + bytes(32), "RIFF"
    yield "bitmap.jpg", encoded(scene(), ".bmp"), "BMP"
    yield "scan.jpg", written(Pillow.fromarray(scene()), "TIFF"), "TIFF"
    yield "paper.jpg", b"%PDF-1.7\n" + bytes(64), "PDF"
    yield "zeros.jpg", bytes(1000), "unknown"
    yield "text.jpg", b"hello, I am no image", "unknown"
