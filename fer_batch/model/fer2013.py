"""Reader for FER2013 in the formats that Kaggle distributes, optionally with the FER+ votes.

Three formats are read: `fer2013.tar.gz`, the `fer2013.csv` inside it (`emotion,pixels,Usage`) and
`icml_face_data.csv` (`emotion, Usage, pixels`, spaces in the header). Using the faces is left to
training, evaluation and the demo; nothing here imports TensorFlow.
"""

from __future__ import annotations

import csv
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fer_batch.errors import ConfigurationError

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven expressions; a label is an index into them."""
HAPPY, SAD, NEUTRAL = 3, 4, 6
CROP_PX = 48
NEAR_COPY_CORRELATION = 0.93
"""Correlation at 16×16 from which two crops show the same photograph. On inspection, pairs at 0.92
are not always the same."""
USAGES = ("Training", "PublicTest", "PrivateTest")
VOTE_COLUMNS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
"""The ten columns of `votes`, as the FER+ file orders them. NF means "no face"."""
VOTES_OF_CLASS = (4, 5, 6, 1, 3, 2, 0)
"""For each of `CLASSES` its column of `votes`; contempt, unknown and NF have no class."""
CONSENSUS_VOTES = 6
"""A consensus is at least this many of ten FER+ votes for one column."""

_FORMAT_HINT = (
    "Give Kaggle's fer2013.tar.gz, a fer2013.csv (emotion,pixels,Usage) or an "
    "icml_face_data.csv (emotion, Usage, pixels)"
)


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of one usage (split), in the order of the file."""

    pixels: NDArray[np.uint8]
    """[N,48,48] gray values."""
    labels: NDArray[np.int8]
    """[N], indices into `CLASSES`; -1 where only the true class "neither" is known."""
    rows: NDArray[np.int32]
    """[N], row numbers in the file; the first row after the header is 0."""
    votes: NDArray[np.float32] | None = None
    """[N,10], the number of FER+ voters for each of `VOTE_COLUMNS`; None without the file."""
    true_classes: NDArray[np.intp] | None = None
    """[N], 0 happy, 1 sad, 2 neither: for faces of another data set, which has only these."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, mask: NDArray[np.bool_]) -> Split:
        """The rows where `mask` [N] is true."""
        votes = None if self.votes is None else self.votes[mask]
        true = None if self.true_classes is None else self.true_classes[mask]
        return Split(self.pixels[mask], self.labels[mask], self.rows[mask], votes, true)


def read(data: Path, votes: Path | None = None) -> dict[str, Split]:
    """The splits of FER2013 by usage ('Training', 'PublicTest', 'PrivateTest').

    A usage that is absent from the file has an empty Split. Raises ConfigurationError, with the
    line number where there is one, for a missing file, an invalid format, and votes that do not
    belong to the same rows.
    """
    pixels: dict[str, list[NDArray[np.uint8]]] = {usage: [] for usage in USAGES}
    labels: dict[str, list[int]] = {usage: [] for usage in USAGES}
    rows: dict[str, list[int]] = {usage: [] for usage in USAGES}
    usages = []
    with _open_table(data) as lines:
        for row, (label, text, usage) in enumerate(_read_records(lines, data)):
            # Line 1 is the header.
            location = f"{data}, line {row + 2}"
            if usage not in pixels:
                raise ConfigurationError(f"{location}: unknown Usage {usage!r}", _FORMAT_HINT)
            pixels[usage].append(_parse_pixels(text, location))
            labels[usage].append(_parse_label(label, location))
            rows[usage].append(row)
            usages.append(usage)
    if not usages:
        raise ConfigurationError(f"{data} has no rows", _FORMAT_HINT)
    vote_table = None if votes is None else _read_votes(votes, usages)
    return {
        usage: Split(
            np.array(pixels[usage], np.uint8).reshape(-1, CROP_PX, CROP_PX),
            np.array(labels[usage], np.int8),
            np.array(rows[usage], np.int32),
            None if vote_table is None else vote_table[rows[usage]],
        )
        for usage in USAGES
    }


def find_training_copies(splits: dict[str, Split]) -> NDArray[np.bool_]:
    """bool [N], true for the rows of Training that copy or nearly copy a row of a test split.

    A near copy has a correlation of at least `NEAR_COPY_CORRELATION` with a test crop when both
    are shrunk to 16×16: the same photograph with another watermark, another contrast or a shift of
    a pixel, mirrored or not.
    """
    test_thumbnails = _normalize_thumbnails(
        np.concatenate([splits[usage].pixels for usage in ("PublicTest", "PrivateTest")])
    )
    if len(test_thumbnails) == 0:
        return np.zeros(len(splits["Training"]), np.bool_)
    is_copy = []
    # In blocks, to limit memory: one block against all of the test data is 2,000 × 7,178 numbers.
    for start in range(0, len(splits["Training"]), 2_000):
        block = splits["Training"].pixels[start : start + 2_000]
        correlations = [
            (_normalize_thumbnails(crops) @ test_thumbnails.T).max(axis=1)
            for crops in (block, block[:, :, ::-1])
        ]
        is_copy.append(np.maximum(*correlations) >= NEAR_COPY_CORRELATION)
    return np.concatenate(is_copy) if is_copy else np.zeros(0, np.bool_)


def _normalize_thumbnails(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N,256]: crops at 16×16 with mean 0 and norm 1, so that dot products are correlations."""
    small = crops.reshape(-1, 16, 3, 16, 3).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 256)
    small -= small.mean(axis=1, keepdims=True)
    # The floor keeps a flat crop near zero, so that it correlates with no other crop.
    norm = np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-3)
    normalized: NDArray[np.float32] = small / norm
    return normalized


@contextmanager
def _open_table(data: Path) -> Iterator[IO[str]]:
    """The CSV as text lines; inside an archive it is read without unpacking."""
    try:
        with data.open("rb") as file:
            # The magic numbers of gzip and tar decide, not the file name.
            head = file.read(265)
            file.seek(0)
            if not (head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar"):
                yield io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
                return
            with tarfile.open(fileobj=file, mode="r:*") as archive:
                for member in archive:
                    name = member.name.rsplit("/", 1)[-1]
                    if member.isfile() and name in ("fer2013.csv", "icml_face_data.csv"):
                        inside = archive.extractfile(member)
                        if inside is not None:
                            yield io.TextIOWrapper(
                                inside, encoding="utf-8", errors="replace", newline=""
                            )
                            return
        raise ConfigurationError(
            f"{data} contains neither fer2013.csv nor icml_face_data.csv", _FORMAT_HINT
        )
    except FileNotFoundError:
        raise ConfigurationError(f"{data} does not exist", _FORMAT_HINT) from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ConfigurationError(f"{data} cannot be read: {error}", _FORMAT_HINT) from error


def _read_records(lines: IO[str], data: Path) -> Iterator[tuple[str, str, str]]:
    """(emotion, pixels, Usage) of each row, for any order of the columns."""
    try:
        table = csv.reader(lines)
        header = [name.strip() for name in next(table, [])]
        if sorted(header) != ["Usage", "emotion", "pixels"]:
            columns = ", ".join(header)[:80] or "empty"
            raise ConfigurationError(
                f"{data} is not FER2013: its header is {columns}", _FORMAT_HINT
            )
        label, text, usage = (header.index(name) for name in ("emotion", "pixels", "Usage"))
        for row, fields in enumerate(table):
            if len(fields) != 3:
                raise ConfigurationError(
                    f"{data}, line {row + 2}: {len(fields)} fields instead of 3", _FORMAT_HINT
                )
            yield fields[label], fields[text], fields[usage].strip()
    except csv.Error as error:
        raise ConfigurationError(f"{data} is not a CSV file: {error}", _FORMAT_HINT) from error


def _parse_pixels(text: str, location: str) -> NDArray[np.uint8]:
    try:
        values = np.fromstring(text, np.int64, sep=" ")  # much faster than splitting the text
    except ValueError:
        raise ConfigurationError(f"{location}: pixels are not integers", _FORMAT_HINT) from None
    if len(values) != CROP_PX * CROP_PX:
        raise ConfigurationError(f"{location}: {len(values)} pixels instead of 48×48", _FORMAT_HINT)
    if values.min() < 0 or values.max() > 255:
        raise ConfigurationError(f"{location}: a pixel is not between 0 and 255", _FORMAT_HINT)
    return values.astype(np.uint8)


def _parse_label(text: str, location: str) -> int:
    stripped = text.strip()
    if stripped not in ("0", "1", "2", "3", "4", "5", "6"):
        raise ConfigurationError(
            f"{location}: emotion {stripped[:20]!r} is not 0 to 6", _FORMAT_HINT
        )
    return int(stripped)


def _read_votes(path: Path, usages: list[str]) -> NDArray[np.float32]:
    """float32 [rows of the data, 10]. The file has no pixels: only the order and the usage of its
    rows relate it to the data."""
    hint = "Give the fer2013new.csv of FER+ for the same rows in the same order"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.reader(file)
            header = next(table, [])
            if header != ["Usage", "Image name", *VOTE_COLUMNS]:
                raise ConfigurationError(f"{path} is not an FER+ votes file", hint)
            records = list(table)
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist", hint) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint) from error
    if [record[0] for record in records] != usages:
        raise ConfigurationError(f"{path} does not have the same rows as the data", hint)
    try:
        return np.array([record[2:] for record in records], np.float32).reshape(-1, 10)
    except ValueError:
        raise ConfigurationError(f"{path}: votes are not numbers", hint) from None
