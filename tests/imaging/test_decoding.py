"""Any bytes become upright pixels, or an error with an outcome and a reason, and nothing else."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageOps

from fer_batch.imaging.decoding import (
    ImageLimits,
    decode_image,
    silence_decoders,
)
from fer_batch.imaging.headers import MAX_SCANS, UndecodableImageError, read_header
from fer_batch.records import Outcome
from fer_batch.settings import Settings
from tests.support import pictures

LIMITS = ImageLimits(max_bytes=20_000_000, max_pixels=40_000_000, min_px=16)
FORMATS = pictures.encode_every_format()
KINDS = ("JPEG", "PNG", "WEBP")
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"mode": "L"},
    {"mode": "CMYK"},
    {"progressive": True},
    {"restart_marker_blocks": 1},
)


def refused(data: bytes, limits: ImageLimits = LIMITS) -> UndecodableImageError:
    with pytest.raises(UndecodableImageError) as caught:
        decode_image(data, limits)
    assert 0 < len(caught.value.reason) <= 200
    return caught.value


# ---------------------------------------------------------------- decoded images


@pytest.mark.parametrize("name", FORMATS)
def test_every_variant_is_decoded_in_color_and_gray(name: str) -> None:
    color = decode_image(FORMATS[name], LIMITS)
    gray = decode_image(FORMATS[name], LIMITS, is_gray=True)
    upright = (64, 48) if "oriented" in name else (48, 64)
    assert color.shape == (*upright, 3)
    assert gray.shape == upright
    assert color.dtype == gray.dtype == np.uint8
    difference = cv2.cvtColor(color, cv2.COLOR_BGR2GRAY).astype(int) - gray
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("name", [name for name in FORMATS if "1 bit" not in name])
def test_pixels_equal_those_of_pillow(name: str) -> None:
    with Pillow.open(io.BytesIO(FORMATS[name])) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[:, :, ::-1]
    pixels = decode_image(FORMATS[name], LIMITS)
    assert np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_the_same_upright_pixels(kind: str, orientation: int) -> None:
    upright = pictures.draw_scene()
    # The image is stored with the inverse of the rotation that the orientation asks for.
    transposes = {
        1: None,
        2: Pillow.Transpose.FLIP_LEFT_RIGHT,
        3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM,
        5: Pillow.Transpose.TRANSPOSE,
        6: Pillow.Transpose.ROTATE_90,
        7: Pillow.Transpose.TRANSVERSE,
        8: Pillow.Transpose.ROTATE_270,
    }
    opened = Pillow.fromarray(upright)
    transpose = transposes[orientation]
    stored = np.asarray(opened if transpose is None else opened.transpose(transpose))
    data = pictures.encode_oriented(stored, kind, orientation)
    decoded = decode_image(data, LIMITS)
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded.astype(int) - upright).max() <= (6 if kind == "JPEG" else 0)
    gray = decode_image(data, LIMITS, is_gray=True)
    assert np.abs(gray.astype(int) - cv2.cvtColor(upright, cv2.COLOR_BGR2GRAY)).max() <= 6


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(order: str, value: int) -> None:
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0
    )
    body = b"Exif\0\0" + tiff
    data = FORMATS["jpeg"]
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert decode_image(data, LIMITS).shape == (48, 64, 3)


def test_transparent_parts_become_mid_gray() -> None:
    pixels = np.dstack([pictures.draw_scene(), np.full((48, 64), 255, np.uint8)])
    pixels[:24, :, 3] = 0
    pixels[24:, :32, 3] = 51
    for extension in (".png", ".webp"):
        lossless = (cv2.IMWRITE_WEBP_QUALITY, 101) if extension == ".webp" else ()
        decoded = decode_image(pictures.encode(pixels, extension, *lossless), LIMITS)
        assert (decoded[:24] == 128).all()
        assert np.array_equal(decoded[24:, 32:], pixels[24:, 32:, :3])
        mixed = pixels[24:, :32, :3] * 0.2 + 128 * 0.8
        assert np.abs(decoded[24:, :32] - mixed).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_decoded(kind: str) -> None:
    first = Pillow.fromarray(pictures.draw_scene())
    others = [Pillow.new("RGB", (64, 48), "white"), Pillow.new("RGB", (64, 48), "black")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = pictures.save_to_bytes(first, kind, save_all=True, append_images=others, **options)
    expected = pictures.draw_scene()[:, :, ::-1]
    assert np.array_equal(decode_image(data, LIMITS), expected)


# ---------------------------------------------------------------- rejected images


def test_no_bytes_are_empty() -> None:
    assert refused(b"").outcome is Outcome.EMPTY


@pytest.mark.parametrize(("name", "data", "word"), list(pictures.generate_non_images()))
def test_other_files_are_unsupported_and_named(name: str, data: bytes, word: str) -> None:
    error = refused(data)
    assert error.outcome is Outcome.UNSUPPORTED
    assert word in error.reason


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_detected(name: str) -> None:
    data = FORMATS[name]
    # A JPEG without its end marker has all its pixels.
    is_jpeg = data.startswith(b"\xff\xd8")
    needed = len(data) - 2 if is_jpeg else len(data)
    for length in (*range(1, needed, 5 if is_jpeg else 1), needed - 2, needed - 1):
        error = refused(data[:length])
        assert error.outcome is Outcome.UNREADABLE, (length, error.reason)
        assert "ends early" in error.reason, (length, error.reason)


@pytest.mark.parametrize(
    "end", [b"", b"\xff", bytes(512), b"\xff" * 512, b"\xff" + bytes(512), b"\r\n--frame\r\n"]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_jpeg_without_its_end_marker_has_the_same_pixels(
    end: bytes, variant: dict[str, Any]
) -> None:
    data = pictures.encode_by_pillow(
        pictures.draw_scene(), "JPEG", variant.get("mode", "RGB"), **_drop_mode(variant)
    )
    for is_gray in (True, False):
        complete = decode_image(data, LIMITS, is_gray=is_gray)
        without = decode_image(data[:-2] + end, LIMITS, is_gray=is_gray)
        assert np.array_equal(without, complete)


def _drop_mode(variant: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in variant.items() if name != "mode"}


@pytest.mark.parametrize("end", [b"", bytes(512)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_jpeg_without_its_end_marker_and_its_last_bytes_is_truncated(
    end: bytes, variant: dict[str, Any]
) -> None:
    data = pictures.encode_by_pillow(
        pictures.draw_scene(), "JPEG", variant.get("mode", "RGB"), **_drop_mode(variant)
    )
    for lost in range(3, 80):
        assert "ends early" in refused(data[:-lost] + end).reason, lost


def test_a_progressive_jpeg_without_its_last_scans_is_truncated() -> None:
    data = FORMATS["progressive jpeg"]
    starts = [n for n in range(len(data)) if data[n : n + 2] == b"\xff\xda"]
    assert len(starts) > 3
    for start in starts:
        tables = data.rfind(b"\xff\xc4", 0, start)  # the tables of the scan come before it
        assert "ends early" in refused(data[:start]).reason
        assert "ends early" in refused(data[:tables]).reason


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("is_gray", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_jpeg_that_was_cut_and_closed_is_detected(
    share: float, is_gray: bool, variant: dict[str, Any]
) -> None:
    cut = pictures.truncate_jpeg(pictures.draw_scene(512, 512), share, **variant)
    with pytest.raises(UndecodableImageError, match="ends early"):
        decode_image(cut, LIMITS, is_gray=is_gray)


def test_a_complete_jpeg_that_ends_in_mid_gray_is_decoded() -> None:
    pixels = pictures.draw_scene(64, 64)
    pixels[32:] = 128
    decoded = decode_image(pictures.encode(pixels), LIMITS)
    assert (decoded[-1, -1] == 128).all()


def test_a_decompression_bomb_is_rejected_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = pictures.build_bomb_png()
    assert len(data) < LIMITS.max_bytes

    def decode(*_: object) -> None:
        raise AssertionError("the bomb was decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    error = refused(data)
    assert error.outcome is Outcome.TOO_LARGE
    assert "19,000×19,000" in error.reason


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_limits_are_checked_to_the_pixel(extension: str) -> None:
    data = pictures.encode(pictures.draw_scene(64, 48), extension)
    exact = ImageLimits(len(data), 64 * 48, 48)
    assert decode_image(data, exact).shape == (48, 64, 3)
    assert refused(data, ImageLimits(len(data) - 1, 64 * 48, 48)).outcome is Outcome.TOO_LARGE
    assert refused(data, ImageLimits(len(data), 64 * 48 - 1, 48)).outcome is Outcome.TOO_LARGE
    assert refused(data, ImageLimits(len(data), 64 * 48, 49)).outcome is Outcome.TOO_SMALL


def test_limits_come_from_the_settings() -> None:
    settings = Settings(_env_file=None, max_image_bytes=1, max_image_pixels=2, min_image_px=3)
    assert ImageLimits.from_settings(settings) == ImageLimits(max_bytes=1, max_pixels=2, min_px=3)


def test_damaged_images_are_unreadable_with_a_reason() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in pictures.draw_scene())
    whole = zlib.compress(rows)
    assert decode_image(pictures.build_png(64, 48, whole), LIMITS).shape == (48, 64, 3)
    wrong_sum = bytearray(pictures.build_png(64, 48, whole))
    wrong_sum[100] ^= 1
    jpeg = FORMATS["jpeg"]
    frame = jpeg.index(b"\xff\xc0")
    frame_bytes = jpeg[frame : frame + 2 + int.from_bytes(jpeg[frame + 2 : frame + 4])]
    for data in (
        bytes(wrong_sum),
        pictures.build_png(64, 48, zlib.compress(rows[: len(rows) // 2])),
        pictures.build_png(64, 48, whole[:200]),
        pictures.build_png(0, 48, whole),
        jpeg[:frame] + frame_bytes + jpeg[frame:],
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\0\0" + jpeg[6:],
        b"RIFF\x04\0\0\0WEBP",
    ):
        error = refused(data)
        assert error.outcome is Outcome.UNREADABLE
        assert "damaged" in error.reason


def test_a_jpeg_with_endless_scans_is_not_decoded() -> None:
    data = pictures.encode_by_pillow(pictures.draw_scene(), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    error = refused(data[:scan] + data[scan:-2] * MAX_SCANS + data[-2:])
    assert error.outcome is Outcome.UNSUPPORTED
    assert "scans" in error.reason


def test_jpegs_of_12_bits_are_unsupported() -> None:
    data = bytearray(FORMATS["jpeg"])
    data[data.index(b"\xff\xc0") + 4] = 12
    assert refused(bytes(data)).outcome is Outcome.UNSUPPORTED


# ---------------------------------------------------------------- arbitrary bytes


@given(st.binary(max_size=300))
def test_random_bytes_never_crash(data: bytes) -> None:
    refused(data)


@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"]), st.binary(max_size=200))
def test_random_bytes_after_a_signature_never_crash(signature: bytes, data: bytes) -> None:
    refused(signature + data)


@given(st.binary(max_size=64))
def test_random_exif_never_crashes(tiff: bytes) -> None:
    body = b"Exif\0\0" + tiff
    data = FORMATS["jpeg"]
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert 1 <= read_header(data).orientation <= 8


# ---------------------------------------------------------------- output of the decoders


def test_a_harmless_chunk_prints_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in pictures.draw_scene())
    profile = pictures.build_png_chunk(b"iCCP", b"x\0\0" + b"no profile at all")
    data = pictures.build_png(64, 48, zlib.compress(rows), profile)
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert "libpng warning" in capfd.readouterr().err
    decode_image(data, LIMITS)
    assert capfd.readouterr().err == ""


def test_silenced_decoders_print_nothing_and_python_still_does(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import sys

    with silence_decoders():
        with pytest.raises(UndecodableImageError):
            decode_image(pictures.truncate_jpeg(), LIMITS)
        sys.stderr.write("from Python\n")
    assert capfd.readouterr().err == "from Python\n"
    with pytest.raises(UndecodableImageError):
        decode_image(pictures.truncate_jpeg(), LIMITS)
    assert "Corrupt JPEG" in capfd.readouterr().err
