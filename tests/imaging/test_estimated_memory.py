"""Decoding an image takes no more memory than was estimated from its header, as Linux measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fer_batch.imaging import decoding, headers

HEIGHT, WIDTH = 1500, 2000
MEASURE = """
import sys
from pathlib import Path
import cv2
from fer_batch.imaging.decoding import ImageLimits, decode_image

def read_kb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

cv2.setNumThreads(1)
limits = ImageLimits(max_bytes=10**9, max_pixels=10**9, min_px=1)
small, image = (Path(name).read_bytes() for name in sys.argv[1:])
decode_image(small, limits)
Path("/proc/self/clear_refs").write_text("5")
before = read_kb("VmRSS:")
decode_image(image, limits)
print((read_kb("VmHWM:") - before) * 1024)
"""
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
WHOLE_CHROMA = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def draw(channels: int, dtype: type[Any]) -> Any:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (30, 40, channels), np.uint8)
    pixels = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return pixels.astype(dtype) * (257 if dtype is np.uint16 else 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read from /proc")
@pytest.mark.parametrize(
    ("extension", "channels", "dtype", "parameters"),
    [
        pytest.param(".jpg", 3, np.uint8, (), id="JPEG"),
        pytest.param(".jpg", 3, np.uint8, PROGRESSIVE + WHOLE_CHROMA, id="progressive JPEG"),
        pytest.param(".png", 1, np.uint8, (), id="gray PNG"),
        pytest.param(".png", 4, np.uint8, (), id="PNG with alpha"),
        pytest.param(".png", 4, np.uint16, (), id="PNG of 16 bits with alpha"),
        pytest.param(".webp", 4, np.uint8, (cv2.IMWRITE_WEBP_QUALITY, 80), id="WebP with alpha"),
    ],
)
def test_decoding_takes_no_more_than_was_estimated(
    tmp_path: Path, extension: str, channels: int, dtype: type[Any], parameters: tuple[int, ...]
) -> None:
    image, small = tmp_path / f"image{extension}", tmp_path / "small.jpg"
    cv2.imwrite(str(image), draw(channels, dtype), parameters)
    cv2.imwrite(str(small), np.zeros((64, 64, 3), np.uint8))
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(image)],
        capture_output=True,
        text=True,
        check=True,
    )
    estimate = decoding.estimate_memory(headers.read_header(image.read_bytes()))
    # The measurement counts the decoder's own tables too: a few hundred kilobytes.
    assert int(measured.stdout) <= estimate + 2_000_000
    assert int(measured.stdout) > estimate / 4
