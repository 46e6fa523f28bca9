"""Coverage-guided fuzzing of image decoding; `test_mutations.py` starts it.

    python -m tests.hostile.fuzz COUNTS SEED_FOLDER [option of libFuzzer ...]

Atheris (libFuzzer) keeps an input that reaches a new line of headers.py, other_formats.py or
decoding.py and mutates it further. It measures the coverage of Python only: libjpeg, libpng and
libwebp guide it no further than their outcomes do. Half of the mutations are libFuzzer's, which
learns the numbers that the code compares with; the other half are `Mutator`'s, which knows the
formats. The statistics are written to COUNTS as JSON at regular intervals, because libFuzzer ends
the process without returning to Python.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=[
        "fer_batch.imaging.headers",
        "fer_batch.imaging.other_formats",
        "fer_batch.imaging.decoding",
    ]
):
    import fer_batch.imaging.decoding  # noqa: F401

from tests.hostile.conftest import measure_resident_mb
from tests.hostile.test_mutations import decode_to_outcome
from tests.support.hostile_images import Mutator, encode_valid_images

INTERVAL_IMAGES = 2000


class Fuzz:
    """The two functions that libFuzzer calls, and the statistics so far."""

    def __init__(self, counts: Path) -> None:
        self._counts = counts
        self._outcomes = Counter[str]()
        self._valid = encode_valid_images()
        self._warm_mb = 0.0

    def decode(self, data: bytes) -> None:
        self._outcomes[decode_to_outcome(data, is_gray=self._outcomes.total() % 2 == 0).value] += 1
        total = self._outcomes.total()
        if total == INTERVAL_IMAGES:
            self._warm_mb = measure_resident_mb()
        if total % INTERVAL_IMAGES == 0:
            statistics = {
                "images": total,
                "outcomes": dict(self._outcomes),
                "grown_mb": measure_resident_mb() - self._warm_mb,
            }
            self._counts.with_suffix(".new").write_text(json.dumps(statistics))
            self._counts.with_suffix(".new").replace(self._counts)

    def mutate(self, data: bytes, max_bytes: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, max_bytes))
        return Mutator(seed, self._valid).mutate(data or self._valid[0])[:max_bytes]


def main() -> None:
    """Fuzz until libFuzzer reaches its time limit or finds an error."""
    counts, folder, *options = sys.argv[1:]
    for number, data in enumerate(encode_valid_images()):
        (Path(folder) / f"valid-{number}").write_bytes(data)
    fuzz = Fuzz(Path(counts))
    atheris.Setup([sys.argv[0], *options, folder], fuzz.decode, custom_mutator=fuzz.mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
