"""Small files in Kaggle's format of FER2013 with synthetic crops: random blotches and a bar whose
position depends on the label, so that a network can learn it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from fer_batch.model.fer2013 import CLASSES, VOTE_COLUMNS, VOTES_OF_CLASS

Rows = list[tuple[int, np.ndarray, str]]


def draw_rows(training: int = 210, test: int = 70, seed: int = 0) -> Rows:
    """(label, pixels uint8 [48,48], Usage) of each row; all labels are equally frequent."""
    rng = np.random.default_rng(seed)
    table = []
    for usage, count in (("Training", training), ("PublicTest", test), ("PrivateTest", test)):
        for number in range(count):
            label = number % len(CLASSES)
            # Random blotches of six pixels, so that no two crops are equal.
            pixels = np.kron(rng.integers(0, 100, (8, 8), np.uint8), np.ones((6, 6), np.uint8))
            pixels[6 * label + 2 : 6 * label + 6] += 150
            table.append((label, pixels, usage))
    return table


def format_csv(table: Rows, *, is_icml: bool = False) -> str:
    """The text of fer2013.csv, or of icml_face_data.csv, whose header contains spaces."""
    lines = ["emotion, Usage, pixels" if is_icml else "emotion,pixels,Usage"]
    for label, pixels, usage in table:
        text = " ".join(map(str, pixels.ravel()))
        lines.append(f"{label},{usage},{text}" if is_icml else f"{label},{text},{usage}")
    return "\n".join(lines) + "\n"


def write_csv(path: Path, table: Rows, *, is_icml: bool = False) -> Path:
    path.write_text(format_csv(table, is_icml=is_icml))
    return path


def write_tar(path: Path, table: Rows) -> Path:
    """Write Kaggle's archive, in which another file precedes the table."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (
            ("fer2013/README", b"The data of the challenge"),
            ("fer2013/fer2013.csv", format_csv(table).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_votes(path: Path, table: Rows, for_label: int = 7) -> Path:
    """FER+ votes: `for_label` of ten for the label, the rest for unknown."""
    lines = [",".join(("Usage", "Image name", *VOTE_COLUMNS))]
    for number, (label, _, usage) in enumerate(table):
        votes = [0] * len(VOTE_COLUMNS)
        votes[VOTES_OF_CLASS[label]] = for_label
        votes[VOTE_COLUMNS.index("unknown")] = 10 - for_label
        lines.append(",".join((usage, f"fer{number:07}.png", *map(str, votes))))
    path.write_text("\n".join(lines) + "\n")
    return path
