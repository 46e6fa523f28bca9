"""Coverage-guided fuzzing of the reading of images; `test_mutations.py` starts it.

    python -m tests.hostile.fuzz COUNTS SEED_FOLDER [option of libFuzzer ...]

Atheris (libFuzzer) keeps a change that reaches a new line of headers.py or images.py and goes on
from there. It sees Python only: what happens inside of libjpeg, libpng and libwebp guides it no
further than the outcome does. Half of the changes are libFuzzer's, which learns the numbers that
the code compares with; the other half knows the formats. What has come of it is written to
COUNTS, as JSON, every so often: libFuzzer ends the process without a word to Python.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fer_batch.headers", "fer_batch.images"]):
    import fer_batch.images  # noqa: F401

from tests.hostile.conftest import resident_mb
from tests.hostile.test_mutations import read
from tests.support.hostile_images import Mutator, good_ones

EVERY = 2000


class Fuzz:
    """The two functions that libFuzzer calls, and what has come of it so far."""

    def __init__(self, counts: Path) -> None:
        self._counts = counts
        self._found = Counter[str]()
        self._good = good_ones()
        self._warm_mb = 0.0

    def read(self, data: bytes) -> None:
        self._found[read(data, is_grey=self._found.total() % 2 == 0).value] += 1
        total = self._found.total()
        if total == EVERY:
            self._warm_mb = resident_mb()
        if total % EVERY == 0:
            told = {
                "images": total,
                "outcomes": dict(self._found),
                "grown_mb": resident_mb() - self._warm_mb,
            }
            self._counts.with_suffix(".new").write_text(json.dumps(told))
            self._counts.with_suffix(".new").replace(self._counts)

    def change(self, data: bytes, max_bytes: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, max_bytes))
        return Mutator(seed, self._good).changed(data or self._good[0])[:max_bytes]


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    counts, folder, *options = sys.argv[1:]
    for number, data in enumerate(good_ones()):
        (Path(folder) / f"good-{number}").write_bytes(data)
    fuzz = Fuzz(Path(counts))
    atheris.Setup([sys.argv[0], *options, folder], fuzz.read, custom_mutator=fuzz.change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
