"""Synthetic pictures: valid ones in every supported format, and malformed ones."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from fer_batch.local.demo.drawing import Group, Room
from fer_batch.local.demo.heads import Expression, Mouth
from fer_batch.records import Box

Pixels = npt.NDArray[np.uint8]

ORIENTATION_TAG = 0x0112


def draw_scene(width: int = 64, height: int = 48, seed: int = 0) -> Pixels:
    """A smooth color picture (uint8 H×W×3, BGR) that differs from all its flips and rotations."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    pixels[: height // 4, : width // 4] = (0, 0, 255)
    return np.asarray(pixels, np.uint8)


def draw_frame(rng: np.random.Generator, mouths: Sequence[Mouth]) -> tuple[Pixels, list[Box]]:
    """Draw a camera frame with one face for each mouth (at most five).

    Returns the frame, uint8 BGR 480 x 640 x 3, and the box of each face from hairline to chin, in
    the order of the mouths. Raises ValueError for more mouths.
    """
    group = Group(rng, Room.draw_random(rng), len(mouths))
    return group.photograph(rng, [Expression(mouth) for mouth in mouths]), group.boxes


def read_photo(path: Path) -> Pixels:
    """Read a photograph as uint8 H×W×3 BGR, with OpenCV only."""
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    return np.asarray(pixels, np.uint8)


def encode(pixels: Pixels, extension: str = ".jpg", *parameters: int) -> bytes:
    """Encode with OpenCV as `.jpg`, `.png` or `.webp`."""
    return cv2.imencode(extension, pixels, list(parameters))[1].tobytes()


def encode_by_pillow(pixels: Pixels, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """Encode with Pillow, in one of its modes."""
    picture = Pillow.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).convert(mode)
    return save_to_bytes(picture, kind, **options)


def save_to_bytes(picture: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_oriented(pixels: Pixels, kind: str, orientation: int) -> bytes:
    """A lossless or nearly lossless file with an EXIF orientation."""
    exif = Pillow.Exif()
    exif[ORIENTATION_TAG] = orientation
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    return encode_by_pillow(pixels, kind, exif=exif.tobytes(), **options.get(kind, {}))


def encode_every_format() -> dict[str, bytes]:
    """One small valid file of each supported format."""
    pixels = draw_scene()
    return {
        "jpeg": encode(pixels),
        "gray jpeg": encode_by_pillow(pixels, "JPEG", "L"),
        "progressive jpeg": encode_by_pillow(pixels, "JPEG", progressive=True),
        "cmyk jpeg": encode_by_pillow(pixels, "JPEG", "CMYK", quality=95),
        "restarts jpeg": encode(pixels, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "oriented jpeg": encode_oriented(pixels, "JPEG", 6),
        "png": encode(pixels, ".png"),
        "palette png": encode_by_pillow(pixels, "PNG", "P"),
        "1 bit png": encode_by_pillow(pixels, "PNG", "1"),
        "alpha png": encode_by_pillow(pixels, "PNG", "RGBA"),
        "16 bit png": encode((pixels.astype(np.uint16) * 257).astype(np.uint16), ".png"),
        "webp": encode(pixels, ".webp"),
        "lossless webp": encode_by_pillow(pixels, "WEBP", lossless=True),
        "alpha webp": encode_by_pillow(change_one_pixel(pixels), "WEBP", "RGBA", lossless=True),
        "oriented webp": encode_oriented(pixels, "WEBP", 6),
    }


def change_one_pixel(pixels: Pixels) -> Pixels:
    """Change one pixel, so that encoders keep the mode of the alpha channel."""
    changed = pixels.copy()
    changed[0, 0] = 1
    return changed


# ---------------------------------------------------------------- hostile


def build_png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def build_png(width: int, height: int, idat: bytes, *extra: bytes, color_type: int = 2) -> bytes:
    """A PNG with valid checksums that contains the given compressed bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + build_png_chunk(b"IHDR", header)
        + b"".join(extra)
        + build_png_chunk(b"IDAT", idat)
        + build_png_chunk(b"IEND", b"")
    )


def build_bomb_png(side: int = 19_000) -> bytes:
    """A black RGB PNG of side × side pixels: one megabyte that expands to about a gigabyte."""
    return build_png(side, side, compress_zeros(side * (1 + 3 * side)))


def compress_zeros(count: int) -> bytes:
    """A zlib stream of `count` zero bytes, assembled from copies of one compressed block."""
    block = 1 << 20
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    compressed_block = compressor.compress(bytes(block)) + compressor.flush(zlib.Z_FULL_FLUSH)
    rest = compressor.compress(bytes(count % block)) + compressor.flush()
    adler32 = count % 65521 << 16 | 1
    return b"\x78\xda" + compressed_block * (count // block) + rest + struct.pack(">I", adler32)


def truncate_jpeg(
    pixels: Pixels | None = None, share: float = 0.5, mode: str = "RGB", **options: Any
) -> bytes:
    """A JPEG that lost the last part of its data but has an end marker."""
    data = encode_by_pillow(
        draw_scene(128, 128) if pixels is None else pixels, "JPEG", mode, **options
    )
    return data[: int(len(data) * share)] + b"\xff\xd9"


def generate_non_images() -> Iterator[tuple[str, bytes, str]]:
    """Yield name, bytes, and a word that the reason must contain."""
    gif = save_to_bytes(Pillow.fromarray(draw_scene()), "GIF")
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
    yield "bitmap.jpg", encode(draw_scene(), ".bmp"), "BMP"
    yield "scan.jpg", save_to_bytes(Pillow.fromarray(draw_scene()), "TIFF"), "TIFF"
    yield "paper.jpg", b"%PDF-1.7\n" + bytes(64), "PDF"
    yield "zeros.jpg", bytes(1000), "unknown"
    yield "text.jpg", b"hello, I am no image", "unknown"
