"""Small files in Kaggle's form of FER2013, of nobody's faces: blotches with a bar whose place is
the label, so that a network can learn it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from fer_batch.fer2013 import CLASSES, VOTE_COLUMNS, VOTES_OF_CLASS

Rows = list[tuple[int, np.ndarray, str]]


def rows(training: int = 210, tested: int = 70, seed: int = 0) -> Rows:
    """(label, pixels uint8 [48,48], Usage), every label as often as every other."""
    rng = np.random.default_rng(seed)
    made = []
    for usage, count in (("Training", training), ("PublicTest", tested), ("PrivateTest", tested)):
        for number in range(count):
            label = number % len(CLASSES)
            # Blotches of six pixels: no two crops are alike.
            pixels = np.kron(rng.integers(0, 100, (8, 8), np.uint8), np.ones((6, 6), np.uint8))
            pixels[6 * label + 2 : 6 * label + 6] += 150
            made.append((label, pixels, usage))
    return made


def csv_text(made: Rows, *, is_icml: bool = False) -> str:
    """The text of fer2013.csv, or of icml_face_data.csv with its blanks in the header."""
    lines = ["emotion, Usage, pixels" if is_icml else "emotion,pixels,Usage"]
    for label, pixels, usage in made:
        text = " ".join(map(str, pixels.ravel()))
        lines.append(f"{label},{usage},{text}" if is_icml else f"{label},{text},{usage}")
    return "\n".join(lines) + "\n"


def write_csv(path: Path, made: Rows, *, is_icml: bool = False) -> Path:
    path.write_text(csv_text(made, is_icml=is_icml))
    return path


def write_tar(path: Path, made: Rows) -> Path:
    """Kaggle's archive: other files stand before the table."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (
            ("fer2013/README", b"The data of the challenge"),
            ("fer2013/fer2013.csv", csv_text(made).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_votes(path: Path, made: Rows, for_label: int = 7) -> Path:
    """FER+ votes: so many of ten for the label, the rest unknown."""
    lines = [",".join(("Usage", "Image name", *VOTE_COLUMNS))]
    for number, (label, _, usage) in enumerate(made):
        votes = [0] * len(VOTE_COLUMNS)
        votes[VOTES_OF_CLASS[label]] = for_label
        votes[VOTE_COLUMNS.index("unknown")] = 10 - for_label
        lines.append(",".join((usage, f"fer{number:07}.png", *map(str, votes))))
    path.write_text("\n".join(lines) + "\n")
    return path
