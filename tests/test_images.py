"""Images become upright pixels, or one outcome and a reason; nothing else, whatever the bytes."""

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

from fer_batch.headers import MAX_SCANS, read_header
from fer_batch.images import Limits, UndecodableImageError, quiet_decoders, read_image
from fer_batch.records import Outcome
from fer_batch.settings import Settings
from tests.support import pictures

LIMITS = Limits(max_bytes=20_000_000, max_pixels=40_000_000, min_px=16)
FORMATS = pictures.every_format()
KINDS = ("JPEG", "PNG", "WEBP")
VARIETIES = (
    {},
    {"mode": "L"},
    {"mode": "CMYK"},
    {"progressive": True},
    {"restart_marker_blocks": 1},
)


def refused(data: bytes, limits: Limits = LIMITS) -> UndecodableImageError:
    with pytest.raises(UndecodableImageError) as caught:
        read_image(data, limits)
    assert 0 < len(caught.value.reason) <= 200
    return caught.value


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", FORMATS)
def test_every_variety_is_read_in_colour_and_grey(name: str) -> None:
    colour = read_image(FORMATS[name], LIMITS)
    grey = read_image(FORMATS[name], LIMITS, is_grey=True)
    upright = (64, 48) if "oriented" in name else (48, 64)
    assert colour.pixels.shape == (*upright, 3)
    assert grey.pixels.shape == upright
    assert (colour.height_px, colour.width_px) == upright
    assert colour.pixels.dtype == grey.pixels.dtype == np.uint8
    difference = cv2.cvtColor(colour.pixels, cv2.COLOR_BGR2GRAY).astype(int) - grey.pixels
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("name", [name for name in FORMATS if "1 bit" not in name])
def test_pixels_are_those_that_pillow_reads(name: str) -> None:
    with Pillow.open(io.BytesIO(FORMATS[name])) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[:, :, ::-1]
    found = read_image(FORMATS[name], LIMITS).pixels
    assert np.abs(found.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_any_orientation_of_a_picture_gives_the_same_upright_pixels(
    kind: str, orientation: int
) -> None:
    upright = pictures.scene()
    # What Pillow undoes, it is made to have done: the inverse of each turn.
    turns = {
        1: None,
        2: Pillow.Transpose.FLIP_LEFT_RIGHT,
        3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM,
        5: Pillow.Transpose.TRANSPOSE,
        6: Pillow.Transpose.ROTATE_90,
        7: Pillow.Transpose.TRANSVERSE,
        8: Pillow.Transpose.ROTATE_270,
    }
    picture = Pillow.fromarray(upright)
    turn = turns[orientation]
    stored = np.asarray(picture if turn is None else picture.transpose(turn))
    data = pictures.with_orientation(stored, kind, orientation)
    decoded = read_image(data, LIMITS)
    assert (decoded.width_px, decoded.height_px) == (64, 48)
    assert np.abs(decoded.pixels.astype(int) - upright).max() <= (6 if kind == "JPEG" else 0)
    grey = read_image(data, LIMITS, is_grey=True).pixels
    assert np.abs(grey.astype(int) - cv2.cvtColor(upright, cv2.COLOR_BGR2GRAY)).max() <= 6


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(order: str, value: int) -> None:
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0
    )
    body = b"Exif\0\0" + tiff
    data = FORMATS["jpeg"]
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert read_image(data, LIMITS).pixels.shape == (48, 64, 3)


def test_transparent_parts_become_mid_grey() -> None:
    pixels = np.dstack([pictures.scene(), np.full((48, 64), 255, np.uint8)])
    pixels[:24, :, 3] = 0
    pixels[24:, :32, 3] = 51
    for extension in (".png", ".webp"):
        lossless = (cv2.IMWRITE_WEBP_QUALITY, 101) if extension == ".webp" else ()
        found = read_image(pictures.encoded(pixels, extension, *lossless), LIMITS).pixels
        assert (found[:24] == 128).all()
        assert np.array_equal(found[24:, 32:], pixels[24:, 32:, :3])
        mixed = pixels[24:, :32, :3] * 0.2 + 128 * 0.8
        assert np.abs(found[24:, :32] - mixed).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_read(kind: str) -> None:
    first = Pillow.fromarray(pictures.scene())
    others = [Pillow.new("RGB", (64, 48), "white"), Pillow.new("RGB", (64, 48), "black")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = pictures.written(first, kind, save_all=True, append_images=others, **options)
    expected = pictures.scene()[:, :, ::-1]
    assert np.array_equal(read_image(data, LIMITS).pixels, expected)


# ---------------------------------------------------------------- what is refused


def test_no_bytes_are_empty() -> None:
    assert refused(b"").outcome is Outcome.EMPTY


@pytest.mark.parametrize(("name", "data", "word"), list(pictures.not_images()))
def test_other_files_are_unsupported_and_named(name: str, data: bytes, word: str) -> None:
    error = refused(data)
    assert error.outcome is Outcome.UNSUPPORTED
    assert word in error.reason


@pytest.mark.parametrize("name", FORMATS)
def test_every_prefix_is_found_out(name: str) -> None:
    data = FORMATS[name]
    for length in range(1, len(data)):
        error = refused(data[:length])
        assert error.outcome is Outcome.UNREADABLE, (length, error.reason)
        assert "ends early" in error.reason, (length, error.reason)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("is_grey", [True, False])
@pytest.mark.parametrize("variety", VARIETIES)
def test_a_jpeg_that_was_cut_and_closed_is_found_out(
    share: float, is_grey: bool, variety: dict[str, Any]
) -> None:
    cut = pictures.cut_and_closed_jpeg(pictures.scene(512, 512), share, **variety)
    with pytest.raises(UndecodableImageError, match="ends early"):
        read_image(cut, LIMITS, is_grey=is_grey)


def test_a_good_jpeg_that_ends_in_mid_grey_is_read() -> None:
    pixels = pictures.scene(64, 64)
    pixels[32:] = 128
    decoded = read_image(pictures.encoded(pixels), LIMITS)
    assert (decoded.pixels[-1, -1] == 128).all()


def test_a_bomb_is_too_large_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures.bomb_png()
    assert len(data) < LIMITS.max_bytes

    def decode(*_: object) -> None:
        raise AssertionError("the bomb was decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    error = refused(data)
    assert error.outcome is Outcome.TOO_LARGE
    assert "19,000×19,000" in error.reason


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_limits_are_checked_to_the_pixel(extension: str) -> None:
    data = pictures.encoded(pictures.scene(64, 48), extension)
    exact = Limits(len(data), 64 * 48, 48)
    assert read_image(data, exact).width_px == 64
    assert refused(data, Limits(len(data) - 1, 64 * 48, 48)).outcome is Outcome.TOO_LARGE
    assert refused(data, Limits(len(data), 64 * 48 - 1, 48)).outcome is Outcome.TOO_LARGE
    assert refused(data, Limits(len(data), 64 * 48, 49)).outcome is Outcome.TOO_SMALL


def test_limits_come_from_the_settings() -> None:
    settings = Settings(_env_file=None, max_image_bytes=1, max_image_pixels=2, min_image_px=3)
    assert Limits.of(settings) == Limits(max_bytes=1, max_pixels=2, min_px=3)


def test_damaged_images_are_unreadable_with_a_reason() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in pictures.scene())
    whole = zlib.compress(rows)
    assert read_image(pictures.png(64, 48, whole), LIMITS).width_px == 64
    wrong_sum = bytearray(pictures.png(64, 48, whole))
    wrong_sum[100] ^= 1
    jpeg = FORMATS["jpeg"]
    frame = jpeg.index(b"\xff\xc0")
    frame_bytes = jpeg[frame : frame + 2 + int.from_bytes(jpeg[frame + 2 : frame + 4])]
    for data in (
        bytes(wrong_sum),
        pictures.png(64, 48, zlib.compress(rows[: len(rows) // 2])),
        pictures.png(64, 48, whole[:200]),
        pictures.png(0, 48, whole),
        jpeg[:frame] + frame_bytes + jpeg[frame:],
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\0\0" + jpeg[6:],
        b"RIFF\x04\0\0\0WEBP",
    ):
        error = refused(data)
        assert error.outcome is Outcome.UNREADABLE
        assert "damaged" in error.reason


def test_a_jpeg_with_endless_scans_is_not_decoded() -> None:
    data = pictures.saved(pictures.scene(), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    error = refused(data[:scan] + data[scan:-2] * MAX_SCANS + data[-2:])
    assert error.outcome is Outcome.UNSUPPORTED
    assert "scans" in error.reason


def test_jpegs_of_12_bits_are_unsupported() -> None:
    data = bytearray(FORMATS["jpeg"])
    data[data.index(b"\xff\xc0") + 4] = 12
    assert refused(bytes(data)).outcome is Outcome.UNSUPPORTED


# ---------------------------------------------------------------- whatever the bytes


@given(st.binary(max_size=300))
def test_random_bytes_never_crash(data: bytes) -> None:
    refused(data)


@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"]), st.binary(max_size=200))
def test_random_bytes_behind_a_signature_never_crash(signature: bytes, data: bytes) -> None:
    refused(signature + data)


@given(st.binary(max_size=64))
def test_random_exif_never_crashes(tiff: bytes) -> None:
    body = b"Exif\0\0" + tiff
    data = FORMATS["jpeg"]
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert 1 <= read_header(data).orientation <= 8


# ---------------------------------------------------------------- silence


def test_a_harmless_chunk_leaves_no_word_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in pictures.scene())
    profile = pictures.png_chunk(b"iCCP", b"x\0\0" + b"no profile at all")
    data = pictures.png(64, 48, zlib.compress(rows), profile)
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert "libpng warning" in capfd.readouterr().err
    read_image(data, LIMITS)
    assert capfd.readouterr().err == ""


def test_quiet_decoders_silence_libraries_and_not_python(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import sys

    with quiet_decoders():
        with pytest.raises(UndecodableImageError):
            read_image(pictures.cut_and_closed_jpeg(), LIMITS)
        sys.stderr.write("our own word\n")
    assert capfd.readouterr().err == "our own word\n"
    with pytest.raises(UndecodableImageError):
        read_image(pictures.cut_and_closed_jpeg(), LIMITS)
    assert "Corrupt JPEG" in capfd.readouterr().err
