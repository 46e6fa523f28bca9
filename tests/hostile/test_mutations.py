"""Randomly mutated images, decoded in the process of the test, give pixels or an outcome only.

`FER_FUZZ_IMAGES` is the total number of images, by default 1,000. `FER_FUZZ_SECONDS` is the time of
coverage-guided fuzzing, by default 5. An image that crashes or hangs the process is left in the
folder of the test as `image`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fer_batch.imaging.decoding import (
    ImageLimits,
    decode_image,
    silence_decoders,
)
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.imaging.sandbox.handles import IMAGE_DEADLINE_S
from fer_batch.records import Outcome
from tests.hostile.conftest import GROWTH_MB, measure_resident_mb
from tests.support.hostile_images import Mutator, encode_valid_images

IMAGES = int(os.environ.get("FER_FUZZ_IMAGES", "1000"))
SEEDS = 4
FUZZ_SECONDS = int(os.environ.get("FER_FUZZ_SECONDS", "5"))
LIMITS = ImageLimits(max_bytes=100_000, max_pixels=1_000_000, min_px=16)


def decode_to_outcome(data: bytes, *, is_gray: bool) -> Outcome:
    """Decode an image to its outcome. Errors other than `UndecodableImageError` are raised."""
    try:
        pixels = decode_image(data, LIMITS, is_gray=is_gray)
    except UndecodableImageError as error:
        return error.outcome
    height, width = pixels.shape[:2]
    assert width * height <= LIMITS.max_pixels
    assert min(width, height) >= LIMITS.min_px
    assert pixels.shape[2:] == (() if is_gray else (3,))
    return Outcome.SCORED


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutated_images_give_pixels_or_an_outcome(seed: int, tmp_path: Path) -> None:
    mutator, outcomes = Mutator(seed, encode_valid_images()), Counter[str]()
    suspect = tmp_path / "image"
    before_mb = 0.0
    with silence_decoders():
        for number in range(IMAGES // SEEDS):
            data = mutator.make_file()
            suspect.write_bytes(data)
            # A watchdog thread in C: a decoder that hangs does not release the interpreter.
            faulthandler.dump_traceback_later(IMAGE_DEADLINE_S, exit=True)
            try:
                outcomes[decode_to_outcome(data, is_gray=number % 2 == 0).value] += 1
            finally:
                faulthandler.cancel_dump_traceback_later()
            if number == 100:  # by now all libraries are loaded
                before_mb = measure_resident_mb()
    grown_mb = measure_resident_mb() - before_mb
    print(f"seed {seed}: {dict(outcomes.most_common())}, grown by {grown_mb:.1f} MB")  # noqa: T201
    assert outcomes.total() == IMAGES // SEEDS
    # The test is worthless if no mutated image reaches the decoders.
    assert {"scored", "unreadable", "unsupported", "too_large", "too_small"} <= set(outcomes)
    assert grown_mb < GROWTH_MB


@pytest.mark.timeout(FUZZ_SECONDS + 300)
def test_coverage_guided_fuzzing_finds_no_error(tmp_path: Path, repo_root: Path) -> None:
    folder, counts = tmp_path / "corpus", tmp_path / "counts.json"
    folder.mkdir()
    options = [
        f"-max_total_time={FUZZ_SECONDS}",
        f"-timeout={IMAGE_DEADLINE_S:.0f}",
        "-max_len=16384",
        "-rss_limit_mb=1000",
        "-close_fd_mask=2",  # discard the messages of libjpeg and libpng, not those of libFuzzer
        f"-artifact_prefix={tmp_path}/",
    ]
    # Started through a shell: on Linux a child inherits the peak memory of the process that starts
    # it, and this one may have trained a network before.
    shell = ["/bin/sh", "-c", '"$@"; exit $?', "fuzz"]
    fuzz = [sys.executable, "-m", "tests.hostile.fuzz", str(counts), str(folder), *options]
    process = subprocess.run([*shell, *fuzz], cwd=repo_root, capture_output=True, check=False)
    left = [path.name for path in tmp_path.iterdir() if path.name not in ("corpus", "counts.json")]
    assert (process.returncode, left) == (0, []), process.stderr[-4000:].decode(errors="replace")
    statistics = json.loads(counts.read_text())
    print(f"fuzzed {statistics}, {len(list(folder.iterdir()))} kept")  # noqa: T201
    assert statistics["grown_mb"] < GROWTH_MB
