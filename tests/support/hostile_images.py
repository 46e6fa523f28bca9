"""Images that a broken camera or somebody with bad intentions may send, and what becomes of each.

`corpus` are files made by hand, each with its outcome. `Mutator` makes any number of others out
of good ones: bytes flipped, cut, put in and moved, two files spliced, numbers of a header set to
extremes, checksums put right again so that the damage reaches the decoder.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image as Pillow

from fer_batch.headers import MAX_SCANS
from fer_batch.records import Outcome
from tests.support import pictures

Case = tuple[str, bytes, Outcome]

SCORED, EMPTY, UNREADABLE = Outcome.SCORED, Outcome.EMPTY, Outcome.UNREADABLE
UNSUPPORTED, TOO_LARGE, TOO_SMALL = Outcome.UNSUPPORTED, Outcome.TOO_LARGE, Outcome.TOO_SMALL


def corpus() -> Iterator[Case]:
    """Name, bytes, and the outcome of the file as a crop."""
    yield from _short()
    yield from _bombs()
    yield from _varieties()
    yield from _damaged()
    yield from _polyglots()
    for name, data, _ in pictures.not_images():
        yield name, data, UNSUPPORTED


def _short() -> Iterator[Case]:
    yield "no byte.jpg", b"", EMPTY
    for first in b"\xff\x89R":
        yield f"one byte {first:02x}.jpg", bytes([first]), UNREADABLE
    yield "one byte 00.jpg", b"\0", UNSUPPORTED
    for kind in ("JPEG", "PNG", "WEBP"):
        data = pictures.saved(pictures.scene(), kind)
        for n in range(1, 16):
            yield f"{n} sixteenths.{kind}", data[: len(data) * n // 16], UNREADABLE


def _bombs() -> Iterator[Case]:
    pixels = pictures.scene()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    jpeg, progressive = (pictures.saved(pixels, "JPEG", progressive=p) for p in (False, True))
    yield "bomb.png", pictures.bomb_png(), TOO_LARGE
    yield "claims 65535.jpg", resized_jpeg(jpeg, 65_535, 65_535), TOO_LARGE
    yield "claims 65535.png", pictures.png(65_535, 65_535, zlib.compress(rows)), TOO_LARGE
    yield "claims 2147483647.png", pictures.png(2**31 - 1, 2**31 - 1, b""), TOO_LARGE
    yield "claims 16383.webp", _resized_webp(pictures.saved(pixels, "WEBP"), 16_383), TOO_LARGE
    yield "claims what is allowed.jpg", resized_jpeg(jpeg, 3_000, 3_000), UNREADABLE
    yield "claims it and is progressive.jpg", resized_jpeg(progressive, 3_000, 3_000), UNREADABLE
    yield "claims what is allowed.png", pictures.png(3_000, 3_000, zlib.compress(rows)), UNREADABLE
    scan = progressive.rindex(b"\xff\xda")
    endless = progressive[:scan] + progressive[scan:-2] * MAX_SCANS + progressive[-2:]
    yield "endless scans.jpg", endless, UNSUPPORTED
    yield "much behind its rows.png", _png(rows + bytes(50_000_000)), SCORED
    profile = pictures.png_chunk(b"iCCP", b"x\0\0" + pictures.zlib_of_zeros(1 << 30))
    yield "profile of a gigabyte.png", _png(rows, profile), SCORED
    text = pictures.png_chunk(b"zTXt", b"x\0\0" + pictures.zlib_of_zeros(1 << 30))
    yield "text of a gigabyte.png", _png(rows, text), SCORED
    nothing = pictures.png_chunk(b"IDAT", b""), pictures.png_chunk(b"tEXt", b"")
    yield "100,000 chunks.png", _png(rows, *nothing * 50_000), SCORED
    yield "100,000 comments.jpg", jpeg[:2] + b"\xff\xfe\0\2" * 100_000 + jpeg[2:], SCORED
    yield "100,000 beginnings.jpg", b"\xff\xd8" * 100_000, UNREADABLE


def _varieties() -> Iterator[Case]:
    for name, data in pictures.every_format().items():
        yield f"good {name}", data, SCORED
    pixels = pictures.scene()
    for kind in ("JPEG", "PNG", "WEBP"):
        for orientation in range(1, 9):
            turned = pictures.with_orientation(pixels, kind, orientation)
            yield f"turned {orientation}.{kind}", turned, SCORED
    first = Pillow.fromarray(pixels)
    others = [Pillow.new("RGB", (64, 48), colour) for colour in ("white", "black")]
    for kind, outcome in (("PNG", SCORED), ("WEBP", SCORED), ("GIF", UNSUPPORTED)):
        moving = pictures.written(first, kind, save_all=True, append_images=others)
        yield f"moving.{kind}", moving, outcome
    yield (
        "two pages.TIFF",
        pictures.written(first, "TIFF", save_all=True, append_images=others),
        UNSUPPORTED,
    )
    grey16 = (np.arange(64 * 48, dtype=np.uint16) * 21).reshape(48, 64)
    yield "16 bit grey.png", cv2.imencode(".png", grey16)[1].tobytes(), SCORED
    jpeg = bytearray(pictures.encoded(pixels))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 4] = 12
    yield "12 bits.jpg", bytes(jpeg), UNSUPPORTED
    yield "12 sixteenths of a cmyk.jpg", _cut(pictures.saved(pixels, "JPEG", "CMYK")), UNREADABLE
    yield "one pixel.png", pictures.encoded(pixels[:1, :1], ".png"), TOO_SMALL
    yield "15 rows.png", pictures.encoded(pixels[:15], ".png"), TOO_SMALL
    for size in ((65_000, 16), (16, 65_000)):
        strip = pictures.encoded(np.zeros(size, np.uint8), ".jpg")
        yield f"strip {size[0]}.jpg", strip, SCORED


def _damaged() -> Iterator[Case]:
    pixels = pictures.scene()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    jpeg = pictures.encoded(pixels)
    yield "closed too early.jpg", pictures.cut_and_closed_jpeg(), UNREADABLE
    yield "half its rows.png", _png(rows[: len(rows) // 2]), UNREADABLE
    yield "no rows.png", pictures.png(64, 48, b""), UNREADABLE
    yield "no width.png", pictures.png(0, 48, zlib.compress(rows)), UNREADABLE
    yield "no width.jpg", resized_jpeg(jpeg, 0, 48), UNREADABLE
    yield "only a frame.jpg", b"\xff\xd8\xff\xd9", UNREADABLE
    yield "a segment without end.jpg", b"\xff\xd8\xff\xe0\xff\xff" + jpeg[6:], UNREADABLE
    for marker in (0xC3, 0xCF):  # frames coded without loss, and by differences
        other = bytearray(jpeg)
        other[other.index(b"\xff\xc0") + 1] = marker
        yield f"frame {marker:x}.jpg", bytes(other), UNREADABLE
    # The last chunk reaches one byte behind the end, where a pad byte may be missing.
    webp = b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a\x40\0\x40"
    yield "header cut in a field.webp", b"RIFF" + struct.pack("<I", 12) + b"WEBP" + webp, UNREADABLE
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 65_535) + b"\1\x12\0\3" * 10
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif
    yield "exif without end.jpg", jpeg[:2] + segment + jpeg[2:], SCORED


def _polyglots() -> Iterator[Case]:
    pixels = pictures.scene()
    jpeg, png = pictures.encoded(pixels), pictures.encoded(pixels, ".png")
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


def resized_jpeg(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG whose frame header claims another size."""
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def _resized_webp(data: bytes, side: int) -> bytes:
    start = data.index(b"\x9d\x01\x2a") + 3
    return data[:start] + struct.pack("<HH", side, side) + data[start + 4 :]


def _png(rows: bytes, *extra: bytes) -> bytes:
    return pictures.png(64, 48, zlib.compress(rows, 1), *extra)


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 3 // 4]


# ---------------------------------------------------------------- at random

EXTREMES = (0, 1, 2, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0x3FFF, 0x7FFF, 0x8000, 0xFFFF,
            0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip


def good_ones() -> list[bytes]:
    """Small files of every variety that is read, and of others that are not."""
    pixels = Pillow.fromarray(pictures.scene(32, 24))
    others = [pictures.written(pixels, kind) for kind in ("GIF", "BMP", "TIFF", "JPEG2000")]
    small = [pictures.written(pixels, kind) for kind in ("JPEG", "PNG", "WEBP")]
    second = Pillow.new("RGB", (32, 24), "white")
    moving = [
        pictures.written(pixels, kind, save_all=True, append_images=[second])
        for kind in ("PNG", "WEBP")
    ]
    return [*pictures.every_format().values(), *others, *small, *moving]


class Mutator:
    """Makes hostile files out of good ones; the same seed makes the same ones."""

    def __init__(self, seed: int, good: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._good = good
        self._ways: list[Callable[[bytearray], bytearray]] = [
            self._flipped,
            self._flipped_in_the_header,
            self._number_set,
            self._resized,
            self._cut,
            self._filled,
            self._repeated,
            self._left_out,
            self._spliced,
            self._marked,
        ]

    def one(self) -> bytes:
        """A good file, changed one to four times."""
        return self.changed(self._random.choice(self._good))

    def changed(self, data: bytes) -> bytes:
        """This file, changed one to four times."""
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            if not changed:
                break
            changed = self._random.choice(self._ways)(changed)
        if changed.startswith(b"\x89PNG") and self._random.random() < 0.8:
            return with_right_checksums(bytes(changed))
        return bytes(changed)

    def _at(self, data: bytearray) -> int:
        return self._random.randrange(len(data))

    def _flipped(self, data: bytearray) -> bytearray:
        for _ in range(self._random.choice((1, 1, 2, 8, 64))):
            data[self._at(data)] ^= 1 << self._random.randrange(8)
        return data

    def _flipped_in_the_header(self, data: bytearray) -> bytearray:
        data[self._random.randrange(min(len(data), 64))] = self._random.randrange(256)
        return data

    def _number_set(self, data: bytearray) -> bytearray:
        """A number of one to four bytes, more often near the beginning, set to an extreme."""
        size, order = self._random.choice((1, 2, 3, 4)), self._random.choice(("big", "little"))
        limit = len(data) if self._random.random() < 0.4 else min(len(data), 64)
        at = self._random.randrange(limit)
        value = self._random.choice(EXTREMES) % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, order)
        return data

    def _resized(self, data: bytearray) -> bytearray:
        """Another width or height where the format has it."""
        places = [(b"IHDR", 4, "big", 4), (b"\xff\xc0", 5, "big", 2), (b"\xff\xc2", 5, "big", 2),
                  (b"\x9d\x01\x2a", 3, "little", 2), (b"VP8X", 12, "little", 3),
                  (b"VP8L", 9, "little", 2), (b"ANMF", 14, "little", 3)]  # fmt: skip
        for name, offset, order, size in places:
            if (start := data.find(name)) >= 0:
                at = start + offset + self._random.choice((0, size))
                value = self._random.choice((*EXTREMES, self._random.randrange(1 << 11)))
                data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
                break
        return data

    def _cut(self, data: bytearray) -> bytearray:
        return data[: self._at(data)]

    def _filled(self, data: bytearray) -> bytearray:
        at, length = self._at(data), self._random.choice((1, 2, 4, 16, 200))
        some = self._random.choice(
            (bytes(length), b"\xff" * length, self._random.randbytes(length))
        )
        data[at:at] = some
        return data

    def _repeated(self, data: bytearray) -> bytearray:
        at = self._at(data)
        piece = data[at : at + self._random.choice((1, 4, 12, 100, 1000))]
        data[at:at] = piece * self._random.choice((1, 1, 2, 20))
        return data[:200_000]

    def _left_out(self, data: bytearray) -> bytearray:
        at = self._at(data)
        del data[at : at + self._random.choice((1, 2, 4, 12, 100))]
        return data

    def _spliced(self, data: bytearray) -> bytearray:
        other = self._random.choice(self._good)
        return data[: self._at(data)] + other[self._random.randrange(len(other)) :]

    def _marked(self, data: bytearray) -> bytearray:
        """A marker, a chunk or a signature where none belongs."""
        marks = (b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0\0\x11\x08\xff\xff\xff\xff\3",
                 b"\xff\xc2", b"\xff\xdd\0\4\0\1", b"\xff\xd0", pictures.png_chunk(b"IDAT", b""),
                 pictures.png_chunk(b"tRNS", b"\0\0\0\0\0\0"), pictures.png_chunk(b"PLTE", b"abc"),
                 b"IEND", b"VP8X\n\0\0\0\x12\0\0\0\xff\xff\0\xff\xff\0", b"ALPH\1\0\0\0\0\0",
                 b"ANMF\x10\0\0\0", b"Exif\0\0MM\0*")  # fmt: skip
        at = self._at(data)
        data[at:at] = self._random.choice(marks)
        return data


def with_right_checksums(data: bytes) -> bytes:
    """The PNG with every chunk's checksum put right, as far as its chunks can be followed."""
    mended, position = bytearray(data), 8
    while position + 12 <= len(mended):
        end = position + 8 + int.from_bytes(mended[position : position + 4])
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(mended[position + 4 : end]))
        position = end + 4
    return bytes(mended)
