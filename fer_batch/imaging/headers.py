"""Read size, orientation and completeness of a JPEG, PNG or WebP without decoding it.

The format is detected by content, never by the file name. Reading a header walks the segments of
the container and decodes no pixel. So an image too large for the memory is rejected before it is
decoded, a truncated image is never taken for a complete one, and 48×48 crops are checked faster
than the CNN scores them. Only a JPEG without its end marker cannot be judged here, because all its
pixels may be there: decoding.py decides. Decoding the pixels is left to it too.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fer_batch.imaging.other_formats import identify_other
from fer_batch.records import Outcome

REASON_LENGTH = 200
"""Maximum number of characters of a reason, as in records.py."""

MAX_SCANS = 100
"""Maximum number of scans of a progressive JPEG. Cameras write about ten; thousands keep a decoder
busy for hours."""


class UndecodableImageError(Exception):
    """An image cannot be decoded: its outcome, and the reason in a few words."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason[:REASON_LENGTH])
        self.outcome = outcome

    @property
    def reason(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Header:
    """The size in pixels as stored (before the orientation is applied), and what decoding needs.

    `orientation` is the EXIF tag 0x0112, 1 to 8, and 1 (upright) where there is none. `data` are
    the bytes to decode: those of the image, without the chunks of a PNG that affect no pixel.
    `entropy_end` is the offset after the last compressed byte of a JPEG, 0 for other formats.
    `is_unterminated` is whether a JPEG had no end marker; `data` has one.
    `loss_is_gray` is whether pixels whose data is lost decode to mid gray. That holds for a JPEG
    of one scan, but not for several scans (a progressive JPEG becomes blurred instead) or CMYK.
    `pixel_bytes` is how many bytes a pixel takes as stored (channels × bytes per channel), and
    `extra_pixel_bytes` what its decoder needs besides: coefficients of a progressive JPEG, or the
    pixels of a WebP before their conversion.
    """

    format: str
    width_px: int
    height_px: int
    orientation: int
    has_alpha: bool
    data: bytes
    entropy_end: int = 0
    loss_is_gray: bool = True
    is_unterminated: bool = False
    pixel_bytes: int = 3
    extra_pixel_bytes: int = 0


def read_header(data: bytes) -> Header:
    """Detect the format by content and read the header of its container.

    Raises UndecodableImageError: `empty` for no bytes, `unsupported` for another kind of file or
    a variant that is not supported, `unreadable` for a damaged or truncated image.
    """
    if not data:
        raise UndecodableImageError(Outcome.EMPTY, "the object has no bytes")
    reader = _READERS.get(data[:3])
    if reader is None or not _has_signature(data):
        raise _make_other_error(data)
    try:
        return reader(data)
    except struct.error:  # a field lies beyond the last byte
        raise UndecodableImageError(
            Outcome.UNREADABLE, "the file is damaged: a header ends early"
        ) from None


# ---------------------------------------------------------------- JPEG (ITU-T T.81, annex B)

# A marker: 0xFF and a byte that is not stuffing (00), a restart (D0 to D7) or fill (FF).
_find_marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search
_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_NOT_FRAMES = frozenset(
    {0xC4, 0xC8, 0xCC}
)  # tables and an extension with codes between the SOF markers
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_read_frame_header = struct.Struct(">BHHB").unpack_from
_PADDING_BYTES = 16
"""So many zeros at the end of a JPEG are no part of the picture."""


def _read_jpeg(data: bytes) -> Header:
    size = len(data)
    position = 2
    width = height = components = orientation = 0
    scans: list[bytes] = []
    is_unterminated = is_progressive = False
    while True:
        # The next marker follows immediately, or after the compressed bytes of a scan.
        match = _find_marker(data, position)
        if match is None:
            if not _hold_all_coefficients(scans, components):
                raise _make_truncated_error("JPEG")
            is_unterminated = True
            data = _strip_padding(data)
            start = len(data)
            data += b"\xff\xd9"
            break
        start = match.start()
        marker = data[start + 1]
        if marker == _EOI:
            break
        if marker in (_SOI, _TEM):
            position = start + 2
            continue
        body = start + 4
        if body > size:
            raise _make_truncated_error("JPEG")
        length = data[start + 2] << 8 | data[start + 3]
        position = start + 2 + length
        if position > size:
            raise _make_truncated_error("JPEG")
        if length < 2:
            raise _make_damaged_error("JPEG", "a segment without a length")
        if marker == _SOS:
            scans.append(data[body:position])
            if len(scans) > MAX_SCANS:
                raise _make_unsupported_error(f"JPEG with more than {MAX_SCANS} scans")
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            if width:
                raise _make_damaged_error("JPEG", "two frame headers")
            width, height, components = _read_frame(data, body, length)
            is_progressive = marker in _PROGRESSIVE
        elif marker == _APP1 and not orientation and data[body : body + 6] == b"Exif\0\0":
            orientation = _read_exif_orientation(data[body + 6 : position])
    if not width or not scans:
        raise _make_damaged_error("JPEG", "no picture in it")
    # The coefficients of all scans are kept until the last one, in two bytes each.
    keeps_coefficients = is_progressive or len(scans) > 1
    return Header(
        "JPEG",
        width,
        height,
        orientation or 1,
        has_alpha=False,
        data=data,
        entropy_end=start,
        loss_is_gray=len(scans) == 1 and components <= 3,
        is_unterminated=is_unterminated,
        pixel_bytes=components,
        extra_pixel_bytes=2 * components if keeps_coefficients else 0,
    )


def _hold_all_coefficients(scans: Sequence[bytes], components: int) -> bool:
    """Whether the scans, given by the contents of their headers, hold all of the picture.

    A progressive JPEG has 64 coefficients of each component, first roughly, then bit by bit.
    """
    missing_bits: dict[tuple[int, int], int] = {}
    for scan in scans:
        count = scan[0] if scan else 0
        if len(scan) < 4 + 2 * count:
            return False
        first, last, precision = scan[1 + 2 * count : 4 + 2 * count]
        for component in scan[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                missing_bits[component, coefficient] = precision & 0xF
    return 0 < 64 * components == len(missing_bits) and not any(missing_bits.values())


def _strip_padding(data: bytes) -> bytes:
    """Cut off half an end marker, and the zeros with which a file system fills a block.

    A few zeros may belong to the picture.
    """
    stripped = data.rstrip(b"\0")
    if len(data) - len(stripped) < _PADDING_BYTES:
        stripped = data
    return stripped.rstrip(b"\xff")


def _read_frame(data: bytes, body: int, length: int) -> tuple[int, int, int]:
    if length < 8:
        raise _make_damaged_error("JPEG", "a short frame header")
    bits, height, width, components = _read_frame_header(data, body)
    if bits != 8:
        raise _make_unsupported_error(f"JPEG with {bits} bits per sample")
    if not width or not height:
        raise _make_damaged_error("JPEG", "no width or no height")
    return width, height, components


# ---------------------------------------------------------------- PNG (W3C, third edition)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_read_chunk_header = struct.Struct(">I4s").unpack_from
_read_png_header = struct.Struct(">IIBB").unpack_from
_read_crc = struct.Struct(">I").unpack_from
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_COLOR_TYPES_WITH_ALPHA = (4, 6)
_PNG_CHANNELS = {0: 1, 2: 3}
"""Channels of gray and of color without alpha; a palette may have alpha, which makes four."""


def _read_png(data: bytes) -> Header:
    size = len(data)
    if size >= 16 and data[12:16] != b"IHDR":
        raise _make_damaged_error("PNG", "no header")
    view = memoryview(data)
    kept: bytearray | None = None  # starts at the first chunk that is left out
    orientation, has_alpha, has_pixels = 1, False, False
    position, kind = 8, b""
    while kind != b"IEND":
        if position + 12 > size:
            raise _make_truncated_error("PNG")
        length, kind = _read_chunk_header(data, position)
        start, position = position, position + 12 + length
        if position > size:
            raise _make_truncated_error("PNG")
        if kind in _PIXEL_CHUNKS:
            if zlib.crc32(view[start + 4 : position - 4]) != _read_crc(data, position - 4)[0]:
                raise _make_damaged_error("PNG", "a checksum does not match")
            if kept is not None:
                kept += view[start:position]
            has_pixels |= kind == b"IDAT"
            has_alpha |= kind == b"tRNS"
            continue
        if kept is None:
            kept = bytearray(view[:start])
        if kind == b"eXIf":
            orientation = _read_exif_orientation(data[start + 8 : position - 4])
    if not has_pixels:
        raise _make_damaged_error("PNG", "no picture in it")
    width, height, bits, color_type = _read_png_header(data, 16)
    if not width or not height:
        raise _make_damaged_error("PNG", "no width or no height")
    has_alpha |= color_type in _COLOR_TYPES_WITH_ALPHA
    # Other chunks are not passed on: libpng warns on stderr about many harmless ones (mostly color
    # profiles), and later frames of an animation are not needed.
    pixels = data[:position] if kept is None else bytes(kept)
    channels = 4 if has_alpha else _PNG_CHANNELS.get(color_type, 4)  # OpenCV adds them
    pixel_bytes = channels * max(bits // 8, 1)
    return Header("PNG", width, height, orientation, has_alpha, pixels, pixel_bytes=pixel_bytes)


# ---------------------------------------------------------------- WebP (RFC 9649)

_read_riff_chunk = struct.Struct("<4sI").unpack_from
_ALPHA_FLAG, _EXTENDED_PIXELS = 0x10, (b"VP8 ", b"VP8L", b"ANMF")


def _read_webp(data: bytes) -> Header:
    size = len(data)
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > size:
        raise _make_truncated_error("WebP")
    width = height = 0
    orientation, has_alpha, has_pixels = 1, False, False
    position = 12
    while position + 8 <= min(end, size):
        kind, length = _read_riff_chunk(data, position)
        body, position = position + 8, position + 8 + length + length % 2
        if position > size + 1:  # some writers omit the last padding byte
            raise _make_truncated_error("WebP")
        has_pixels |= kind in _EXTENDED_PIXELS
        if kind == b"EXIF":
            orientation = _read_exif_orientation(
                data[body : body + length].removeprefix(b"Exif\0\0")
            )
        elif kind in _WEBP_SIZES and not width:
            if length < 10 and kind != b"VP8L":
                raise _make_damaged_error("WebP", "a short header")
            width, height, has_alpha = _WEBP_SIZES[kind](data[body : body + 10])
    if not width or not has_pixels:
        raise _make_damaged_error("WebP", "no picture in it")
    return Header(
        "WebP", width, height, orientation, has_alpha, data, pixel_bytes=4, extra_pixel_bytes=4
    )


def _read_webp_extended(body: bytes) -> tuple[int, int, bool]:
    width = 1 + int.from_bytes(body[4:7], "little")
    height = 1 + int.from_bytes(body[7:10], "little")
    return width, height, bool(body[0] & _ALPHA_FLAG)


def _read_webp_lossy(body: bytes) -> tuple[int, int, bool]:
    if body[3:6] != b"\x9d\x01\x2a":
        raise _make_damaged_error("WebP", "no start code")
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF, False


def _read_webp_lossless(body: bytes) -> tuple[int, int, bool]:
    if len(body) < 5 or body[0] != 0x2F:
        raise _make_damaged_error("WebP", "no start code")
    bits = int.from_bytes(body[1:5], "little")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)


_WEBP_SIZES: dict[bytes, Callable[[bytes], tuple[int, int, bool]]] = {
    b"VP8X": _read_webp_extended,
    b"VP8 ": _read_webp_lossy,
    b"VP8L": _read_webp_lossless,
}


# ---------------------------------------------------------------- EXIF (CIPA DC-008, 4.6.2)

_ORIENTATION_TAG = 0x0112


def _read_exif_orientation(tiff: bytes) -> int:
    """The orientation in a TIFF block; 1 where it has none or cannot be read."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                # SHORT by the standard, but some writers use LONG.
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


# ---------------------------------------------------------------- anything else

_READERS: dict[bytes, Callable[[bytes], Header]] = {
    b"\xff\xd8\xff": _read_jpeg,
    _PNG_SIGNATURE[:3]: _read_png,
    b"RIF": _read_webp,
}


def _has_signature(data: bytes) -> bool:
    if data[:1] == b"R":
        return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data[:1] == b"\xff" or data[:8] == _PNG_SIGNATURE


def _make_other_error(data: bytes) -> UndecodableImageError:
    """The error for bytes that do not begin as a JPEG, PNG or WebP."""
    for name, signature in (("JPEG", b"\xff\xd8\xff"), ("PNG", _PNG_SIGNATURE)):
        if signature.startswith(data):
            return _make_truncated_error(name)
    if b"RIFF".startswith(data[:4]) and b"WEBP".startswith(data[8:12]) and len(data) < 12:
        return _make_truncated_error("WebP")
    return UndecodableImageError(
        Outcome.UNSUPPORTED, f"{identify_other(data)}, not JPEG, PNG or WebP"
    )


def _make_truncated_error(format_name: str) -> UndecodableImageError:
    return UndecodableImageError(Outcome.UNREADABLE, f"{format_name} ends early")


def _make_damaged_error(format_name: str, what: str) -> UndecodableImageError:
    return UndecodableImageError(Outcome.UNREADABLE, f"{format_name} is damaged: {what}")


def _make_unsupported_error(what: str) -> UndecodableImageError:
    return UndecodableImageError(Outcome.UNSUPPORTED, f"{what} is not read")
