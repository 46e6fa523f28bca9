"""Good images changed at random, read by the process of the test: pixels or a reason, no more.

`FER_FUZZ_IMAGES` says how many in all, 1,000 if it is not set, and `FER_FUZZ_SECONDS` for how long
changes are guided by the lines that they reach, 5 if it is not set. An image that takes the process
down or hangs it is left in the test's folder as `image`.
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

from fer_batch.images import Limits, UndecodableImageError, quiet_decoders, read_image
from fer_batch.nightly import IMAGE_DEADLINE_S
from fer_batch.records import Outcome
from tests.hostile.conftest import GROWTH_MB, resident_mb
from tests.support.hostile_images import Mutator, good_ones

IMAGES = int(os.environ.get("FER_FUZZ_IMAGES", "1000"))
SEEDS = 4
FUZZ_SECONDS = int(os.environ.get("FER_FUZZ_SECONDS", "5"))
LIMITS = Limits(max_bytes=100_000, max_pixels=1_000_000, min_px=16)


def read(data: bytes, *, is_grey: bool) -> Outcome:
    """The outcome of an image; any error but the one for images is passed on."""
    try:
        image = read_image(data, LIMITS, is_grey=is_grey)
    except UndecodableImageError as error:
        return error.outcome
    assert image.width_px * image.height_px <= LIMITS.max_pixels
    assert min(image.width_px, image.height_px) >= LIMITS.min_px
    assert image.pixels.shape[2:] == (() if is_grey else (3,))
    return Outcome.SCORED


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_changed_images_become_pixels_or_a_reason(seed: int, tmp_path: Path) -> None:
    mutator, found = Mutator(seed, good_ones()), Counter[str]()
    suspect = tmp_path / "image"
    before_mb = 0.0
    with quiet_decoders():
        for number in range(IMAGES // SEEDS):
            data = mutator.one()
            suspect.write_bytes(data)
            # From outside of the interpreter, which a decoder does not give back while it hangs.
            faulthandler.dump_traceback_later(IMAGE_DEADLINE_S, exit=True)
            try:
                found[read(data, is_grey=number % 2 == 0).value] += 1
            finally:
                faulthandler.cancel_dump_traceback_later()
            if number == 100:  # by now everything is loaded
                before_mb = resident_mb()
    grown_mb = resident_mb() - before_mb
    print(f"seed {seed}: {dict(found.most_common())}, grown by {grown_mb:.1f} MB")  # noqa: T201
    assert found.total() == IMAGES // SEEDS
    # All of it is worth nothing if no change reaches the decoders.
    assert {"scored", "unreadable", "unsupported", "too_large", "too_small"} <= set(found)
    assert grown_mb < GROWTH_MB


@pytest.mark.timeout(FUZZ_SECONDS + 300)
def test_changes_that_reach_new_lines_are_changed_further(tmp_path: Path, repo_root: Path) -> None:
    folder, counts = tmp_path / "corpus", tmp_path / "counts.json"
    folder.mkdir()
    options = [
        f"-max_total_time={FUZZ_SECONDS}",
        f"-timeout={IMAGE_DEADLINE_S:.0f}",
        "-max_len=16384",
        "-rss_limit_mb=1000",
        "-close_fd_mask=2",  # what libjpeg and libpng say of each image; not libFuzzer's own
        f"-artifact_prefix={tmp_path}/",
    ]
    # By way of a shell: Linux puts the peak of the process that starts another one down to that
    # one as well, and this one may have trained a network before.
    shell = ["/bin/sh", "-c", '"$@"; exit $?', "fuzz"]
    fuzz = [sys.executable, "-m", "tests.hostile.fuzz", str(counts), str(folder), *options]
    ended = subprocess.run([*shell, *fuzz], cwd=repo_root, capture_output=True, check=False)
    left = [path.name for path in tmp_path.iterdir() if path.name not in ("corpus", "counts.json")]
    assert (ended.returncode, left) == (0, []), ended.stderr[-4000:].decode(errors="replace")
    told = json.loads(counts.read_text())
    print(f"fuzzed {told}, {len(list(folder.iterdir()))} kept")  # noqa: T201
    assert told["grown_mb"] < GROWTH_MB
