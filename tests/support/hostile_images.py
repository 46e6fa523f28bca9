"""Malformed images, as a broken camera or an attacker may send them, with their expected outcomes.

`generate_hostile_images` yields files made by hand, each with its outcome. `Mutator` makes any
number of others from valid ones: bytes flipped, cut, inserted and moved, two files spliced, numbers
of a header set to extremes, and checksums corrected so that the damage reaches the decoder.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

import cv2
import numpy as np
from PIL import Image as Pillow

from fer_batch.imaging.headers import MAX_SCANS
from fer_batch.records import Outcome
from tests.support import pictures

Case = tuple[str, bytes, Outcome]

SCORED, EMPTY, UNREADABLE = Outcome.SCORED, Outcome.EMPTY, Outcome.UNREADABLE
UNSUPPORTED, TOO_LARGE, TOO_SMALL = Outcome.UNSUPPORTED, Outcome.TOO_LARGE, Outcome.TOO_SMALL


def generate_hostile_images() -> Iterator[Case]:
    """Yield name, bytes, and the expected outcome of each file as a crop."""
    yield from _short()
    yield from _bombs()
    yield from _varieties()
    yield from _damaged()
    yield from _polyglots()
    for name, data, _ in pictures.generate_non_images():
        yield name, data, UNSUPPORTED


def _short() -> Iterator[Case]:
    yield "no byte.jpg", b"", EMPTY
    for first in b"\xff\x89R":
        yield f"one byte {first:02x}.jpg", bytes([first]), UNREADABLE
    yield "one byte 00.jpg", b"\0", UNSUPPORTED
    for kind in ("JPEG", "PNG", "WEBP"):
        data = pictures.encode_by_pillow(pictures.draw_scene(), kind)
        for n in range(1, 16):
            yield f"{n} sixteenths.{kind}", data[: len(data) * n // 16], UNREADABLE


def _bombs() -> Iterator[Case]:
    pixels = pictures.draw_scene()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    jpeg, progressive = (
        pictures.encode_by_pillow(pixels, "JPEG", progressive=p) for p in (False, True)
    )
    yield "bomb.png", pictures.build_bomb_png(), TOO_LARGE
    yield "claims 65535.jpg", resize_jpeg(jpeg, 65_535, 65_535), TOO_LARGE
    yield "claims 65535.png", pictures.build_png(65_535, 65_535, zlib.compress(rows)), TOO_LARGE
    yield "claims 2147483647.png", pictures.build_png(2**31 - 1, 2**31 - 1, b""), TOO_LARGE
    yield (
        "claims 16383.webp",
        _resize_webp(pictures.encode_by_pillow(pixels, "WEBP"), 16_383),
        TOO_LARGE,
    )
    yield "claims 3000.jpg", resize_jpeg(jpeg, 3_000, 3_000), UNREADABLE
    yield "progressive and claims 3000.jpg", resize_jpeg(progressive, 3_000, 3_000), UNREADABLE
    yield (
        "claims 3000.png",
        pictures.build_png(3_000, 3_000, zlib.compress(rows)),
        UNREADABLE,
    )
    scan = progressive.rindex(b"\xff\xda")
    endless = progressive[:scan] + progressive[scan:-2] * MAX_SCANS + progressive[-2:]
    yield "endless scans.jpg", endless, UNSUPPORTED
    yield "50 MB after its rows.png", _build_png(rows + bytes(50_000_000)), SCORED
    profile = pictures.build_png_chunk(b"iCCP", b"x\0\0" + pictures.compress_zeros(1 << 30))
    yield "profile of a gigabyte.png", _build_png(rows, profile), SCORED
    text = pictures.build_png_chunk(b"zTXt", b"x\0\0" + pictures.compress_zeros(1 << 30))
    yield "text of a gigabyte.png", _build_png(rows, text), SCORED
    nothing = pictures.build_png_chunk(b"IDAT", b""), pictures.build_png_chunk(b"tEXt", b"")
    yield "100,000 chunks.png", _build_png(rows, *nothing * 50_000), SCORED
    yield "100,000 comments.jpg", jpeg[:2] + b"\xff\xfe\0\2" * 100_000 + jpeg[2:], SCORED
    yield "100,000 start markers.jpg", b"\xff\xd8" * 100_000, UNREADABLE


def _varieties() -> Iterator[Case]:
    for name, data in pictures.encode_every_format().items():
        yield f"valid {name}", data, SCORED
    pixels = pictures.draw_scene()
    for kind in ("JPEG", "PNG", "WEBP"):
        for orientation in range(1, 9):
            oriented = pictures.encode_oriented(pixels, kind, orientation)
            yield f"orientation {orientation}.{kind}", oriented, SCORED
    first = Pillow.fromarray(pixels)
    others = [Pillow.new("RGB", (64, 48), color) for color in ("white", "black")]
    for kind, outcome in (("PNG", SCORED), ("WEBP", SCORED), ("GIF", UNSUPPORTED)):
        animation = pictures.save_to_bytes(first, kind, save_all=True, append_images=others)
        yield f"animated.{kind}", animation, outcome
    yield (
        "two pages.TIFF",
        pictures.save_to_bytes(first, "TIFF", save_all=True, append_images=others),
        UNSUPPORTED,
    )
    gray16 = (np.arange(64 * 48, dtype=np.uint16) * 21).reshape(48, 64)
    yield "16 bit gray.png", cv2.imencode(".png", gray16)[1].tobytes(), SCORED
    jpeg = bytearray(pictures.encode(pixels))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 4] = 12
    yield "12 bits.jpg", bytes(jpeg), UNSUPPORTED
    yield (
        "12 sixteenths of a cmyk.jpg",
        _truncate(pictures.encode_by_pillow(pixels, "JPEG", "CMYK")),
        UNREADABLE,
    )
    yield "one pixel.png", pictures.encode(pixels[:1, :1], ".png"), TOO_SMALL
    yield "15 rows.png", pictures.encode(pixels[:15], ".png"), TOO_SMALL
    for size in ((65_000, 16), (16, 65_000)):
        strip = pictures.encode(np.zeros(size, np.uint8), ".jpg")
        yield f"strip {size[0]}.jpg", strip, SCORED


def _damaged() -> Iterator[Case]:
    pixels = pictures.draw_scene()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    jpeg = pictures.encode(pixels)
    yield "closed too early.jpg", pictures.truncate_jpeg(), UNREADABLE
    yield "without end marker.jpg", jpeg[:-2], SCORED
    yield "without its last bytes.jpg", jpeg[:-12], UNREADABLE
    yield "half its rows.png", _build_png(rows[: len(rows) // 2]), UNREADABLE
    yield "no rows.png", pictures.build_png(64, 48, b""), UNREADABLE
    yield "no width.png", pictures.build_png(0, 48, zlib.compress(rows)), UNREADABLE
    yield "no width.jpg", resize_jpeg(jpeg, 0, 48), UNREADABLE
    yield "only a frame.jpg", b"\xff\xd8\xff\xd9", UNREADABLE
    yield "a segment without end.jpg", b"\xff\xd8\xff\xe0\xff\xff" + jpeg[6:], UNREADABLE
    for marker in (0xC3, 0xCF):  # lossless and differential frames
        other = bytearray(jpeg)
        other[other.index(b"\xff\xc0") + 1] = marker
        yield f"frame {marker:x}.jpg", bytes(other), UNREADABLE
    # The last chunk ends one byte after the file, where a padding byte may be missing.
    webp = b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a\x40\0\x40"
    yield "header cut in a field.webp", b"RIFF" + struct.pack("<I", 12) + b"WEBP" + webp, UNREADABLE
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 65_535) + b"\1\x12\0\3" * 10
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif
    yield "exif without end.jpg", jpeg[:2] + segment + jpeg[2:], SCORED


def _polyglots() -> Iterator[Case]:
    pixels = pictures.draw_scene()
    jpeg, png = pictures.encode(pixels), pictures.encode(pixels, ".png")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("run.sh", "rm -rf /")
    packed, script = archive.getvalue(), b"<script>alert(1)</script>"
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(script)) + script
    yield "and a zip.jpg", jpeg + packed, SCORED
    yield "and a zip.png", png + packed, SCORED
    yield "and a png.jpg", jpeg + png, SCORED
    yield "and a page.jpg", jpeg[:2] + comment + jpeg[2:], SCORED
    yield "and a php.png", png + b"<?php system($_GET['c']); ?>", SCORED
    yield "zip first.jpg", packed + jpeg, UNSUPPORTED
    yield "pdf first.jpg", b"%PDF-1.7\n" + jpeg, UNSUPPORTED
    yield "gif and script.jpg", b"GIF89a/*" + jpeg + b"*/=1;alert(1)", UNSUPPORTED
    yield "svg with a jpeg.jpg", b"<svg><image>" + jpeg + b"</image></svg>", UNSUPPORTED
    entity = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg/>'
    yield "svg that reads a file.jpg", entity, UNSUPPORTED


def resize_jpeg(data: bytes, width: int, height: int) -> bytes:
    """Change the size in the frame header of a JPEG."""
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def _resize_webp(data: bytes, side: int) -> bytes:
    start = data.index(b"\x9d\x01\x2a") + 3
    return data[:start] + struct.pack("<HH", side, side) + data[start + 4 :]


def _build_png(rows: bytes, *extra: bytes) -> bytes:
    return pictures.build_png(64, 48, zlib.compress(rows, 1), *extra)


def _truncate(data: bytes) -> bytes:
    return data[: len(data) * 3 // 4]


# ---------------------------------------------------------------- random mutations

EXTREMES = (0, 1, 2, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0x3FFF, 0x7FFF, 0x8000, 0xFFFF,
            0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip


def encode_valid_images() -> list[bytes]:
    """Small valid files of every supported format, and of unsupported ones."""
    pixels = Pillow.fromarray(pictures.draw_scene(32, 24))
    others = [pictures.save_to_bytes(pixels, kind) for kind in ("GIF", "BMP", "TIFF", "JPEG2000")]
    small = [pictures.save_to_bytes(pixels, kind) for kind in ("JPEG", "PNG", "WEBP")]
    second = Pillow.new("RGB", (32, 24), "white")
    animations = [
        pictures.save_to_bytes(pixels, kind, save_all=True, append_images=[second])
        for kind in ("PNG", "WEBP")
    ]
    return [*pictures.encode_every_format().values(), *others, *small, *animations]


class Mutator:
    """Makes hostile files from valid ones, the same files for the same seed."""

    def __init__(self, seed: int, valid: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._valid = valid
        self._mutations: list[Callable[[bytearray], bytearray]] = [
            self._flip_bits,
            self._change_header_byte,
            self._set_number,
            self._resize,
            self._cut_off,
            self._insert_bytes,
            self._repeat,
            self._remove_bytes,
            self._splice,
            self._insert_marker,
        ]

    def make_file(self) -> bytes:
        """A valid file with one to four mutations."""
        return self.mutate(self._random.choice(self._valid))

    def mutate(self, data: bytes) -> bytes:
        """This file with one to four mutations."""
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            if not changed:
                break
            changed = self._random.choice(self._mutations)(changed)
        if changed.startswith(b"\x89PNG") and self._random.random() < 0.8:
            return correct_checksums(bytes(changed))
        return bytes(changed)

    def _pick_position(self, data: bytearray) -> int:
        return self._random.randrange(len(data))

    def _flip_bits(self, data: bytearray) -> bytearray:
        for _ in range(self._random.choice((1, 1, 2, 8, 64))):
            data[self._pick_position(data)] ^= 1 << self._random.randrange(8)
        return data

    def _change_header_byte(self, data: bytearray) -> bytearray:
        data[self._random.randrange(min(len(data), 64))] = self._random.randrange(256)
        return data

    def _set_number(self, data: bytearray) -> bytearray:
        """Set a number of one to four bytes, more often near the beginning, to an extreme."""
        orders: tuple[Literal["big", "little"], ...] = ("big", "little")
        size, order = self._random.choice((1, 2, 3, 4)), self._random.choice(orders)
        limit = len(data) if self._random.random() < 0.4 else min(len(data), 64)
        at = self._random.randrange(limit)
        value = self._random.choice(EXTREMES) % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, order)
        return data

    def _resize(self, data: bytearray) -> bytearray:
        """Set another width or height at its position in the format."""
        fields = [(b"IHDR", 4, "big", 4), (b"\xff\xc0", 5, "big", 2), (b"\xff\xc2", 5, "big", 2),
                  (b"\x9d\x01\x2a", 3, "little", 2), (b"VP8X", 12, "little", 3),
                  (b"VP8L", 9, "little", 2), (b"ANMF", 14, "little", 3)]  # fmt: skip
        for name, offset, order, size in fields:
            if (start := data.find(name)) >= 0:
                at = start + offset + self._random.choice((0, size))
                value = self._random.choice((*EXTREMES, self._random.randrange(1 << 11)))
                data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
                break
        return data

    def _cut_off(self, data: bytearray) -> bytearray:
        return data[: self._pick_position(data)]

    def _insert_bytes(self, data: bytearray) -> bytearray:
        at, length = self._pick_position(data), self._random.choice((1, 2, 4, 16, 200))
        some = self._random.choice(
            (bytes(length), b"\xff" * length, self._random.randbytes(length))
        )
        data[at:at] = some
        return data

    def _repeat(self, data: bytearray) -> bytearray:
        at = self._pick_position(data)
        piece = data[at : at + self._random.choice((1, 4, 12, 100, 1000))]
        data[at:at] = piece * self._random.choice((1, 1, 2, 20))
        return data[:200_000]

    def _remove_bytes(self, data: bytearray) -> bytearray:
        at = self._pick_position(data)
        del data[at : at + self._random.choice((1, 2, 4, 12, 100))]
        return data

    def _splice(self, data: bytearray) -> bytearray:
        other = self._random.choice(self._valid)
        return data[: self._pick_position(data)] + other[self._random.randrange(len(other)) :]

    def _insert_marker(self, data: bytearray) -> bytearray:
        """Insert a marker, a chunk or a signature at an invalid position."""
        marks = (b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0\0\x11\x08\xff\xff\xff\xff\3",
                 b"\xff\xc2", b"\xff\xdd\0\4\0\1", b"\xff\xd0",
                 pictures.build_png_chunk(b"IDAT", b""),
                 pictures.build_png_chunk(b"tRNS", b"\0\0\0\0\0\0"),
                 pictures.build_png_chunk(b"PLTE", b"abc"),
                 b"IEND", b"VP8X\n\0\0\0\x12\0\0\0\xff\xff\0\xff\xff\0", b"ALPH\1\0\0\0\0\0",
                 b"ANMF\x10\0\0\0", b"Exif\0\0MM\0*")  # fmt: skip
        at = self._pick_position(data)
        data[at:at] = self._random.choice(marks)
        return data


def correct_checksums(data: bytes) -> bytes:
    """Correct the checksum of every chunk of a PNG, up to the first chunk that is cut off."""
    corrected, position = bytearray(data), 8
    while position + 12 <= len(corrected):
        end = position + 8 + int.from_bytes(corrected[position : position + 4])
        if end + 4 > len(corrected):
            break
        corrected[end : end + 4] = struct.pack(">I", zlib.crc32(corrected[position + 4 : end]))
        position = end + 4
    return bytes(corrected)
