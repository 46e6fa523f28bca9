"""Reads FER2013 in the forms in which Kaggle hands it out, with the FER+ votes if they are at hand.

Three forms are read: `fer2013.tar.gz`, the `fer2013.csv` inside it (`emotion,pixels,Usage`) and
`icml_face_data.csv` (`emotion, Usage, pixels`, blanks in the header). What is done with the
faces is left to training, evaluation and the demo; nothing here needs TensorFlow.
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
NEAR_COPY = 0.93
"""Correlation at 16×16 from which two crops are one photograph; looked at, 0.92 is not always."""
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
"""For each of `CLASSES`, its column of `votes`; contempt, unknown and NF belong to none."""

_GIVE = (
    "Give Kaggle's fer2013.tar.gz, a fer2013.csv (emotion,pixels,Usage) or an "
    "icml_face_data.csv (emotion, Usage, pixels)"
)


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of one usage, in the order of the file."""

    pixels: NDArray[np.uint8]
    """[N,48,48] grey values."""
    labels: NDArray[np.int8]
    """[N], indices into `CLASSES`."""
    rows: NDArray[np.int32]
    """[N], row numbers in the file; the first row after the header is 0."""
    votes: NDArray[np.float32] | None = None
    """[N,10], how many of the FER+ voters chose each of `VOTE_COLUMNS`; None without the file."""

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: NDArray[np.bool_]) -> Split:
        """The rows where `chosen` [N] is true."""
        votes = None if self.votes is None else self.votes[chosen]
        return Split(self.pixels[chosen], self.labels[chosen], self.rows[chosen], votes)


def read(data: Path, votes: Path | None = None) -> dict[str, Split]:
    """All of FER2013 by usage ('Training', 'PublicTest', 'PrivateTest').

    A usage that the file lacks has a Split of no rows. Raises ConfigurationError, with the line,
    where a file is missing or has another form, and where `votes` is not of the same rows.
    """
    pixels: dict[str, list[NDArray[np.uint8]]] = {usage: [] for usage in USAGES}
    labels: dict[str, list[int]] = {usage: [] for usage in USAGES}
    rows: dict[str, list[int]] = {usage: [] for usage in USAGES}
    usages = []
    with _table(data) as lines:
        for row, (label, text, usage) in enumerate(_records(lines, data)):
            # Line 1 is the header.
            place = f"{data}, line {row + 2}"
            if usage not in pixels:
                raise ConfigurationError(f"{place}: unknown Usage {usage!r}", _GIVE)
            pixels[usage].append(_pixels(text, place))
            labels[usage].append(_label(label, place))
            rows[usage].append(row)
            usages.append(usage)
    if not usages:
        raise ConfigurationError(f"{data} holds no rows", _GIVE)
    voted = None if votes is None else _read_votes(votes, usages)
    return {
        usage: Split(
            np.array(pixels[usage], np.uint8).reshape(-1, CROP_PX, CROP_PX),
            np.array(labels[usage], np.int8),
            np.array(rows[usage], np.int32),
            None if voted is None else voted[rows[usage]],
        )
        for usage in USAGES
    }


def training_copies(splits: dict[str, Split]) -> NDArray[np.bool_]:
    """[N of Training], true where the row also stands in a test split, or nearly.

    A near copy has a correlation of at least 0.93 with a test crop when both are shrunk to 16×16:
    the same photograph under another watermark, contrast or shift of a pixel, mirrored or not.
    """
    tested = _likeness(
        np.concatenate([splits[usage].pixels for usage in ("PublicTest", "PrivateTest")])
    )
    if len(tested) == 0:
        return np.zeros(len(splits["Training"]), np.bool_)
    copies = []
    # In parts, for the memory of 2,000 × 7,178 numbers.
    for start in range(0, len(splits["Training"]), 2_000):
        part = splits["Training"].pixels[start : start + 2_000]
        nearest = [(_likeness(crops) @ tested.T).max(axis=1) for crops in (part, part[:, :, ::-1])]
        copies.append(np.maximum(*nearest) >= NEAR_COPY)
    return np.concatenate(copies) if copies else np.zeros(0, np.bool_)


def _likeness(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N,256], rows of mean 0 and length 1 whose products are correlations at 16×16."""
    small = crops.reshape(-1, 16, 3, 16, 3).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 256)
    small -= small.mean(axis=1, keepdims=True)
    # A flat crop is like none.
    length = np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-3)
    likeness: NDArray[np.float32] = small / length
    return likeness


@contextmanager
def _table(data: Path) -> Iterator[IO[str]]:
    """The CSV as text lines, out of the archive if it is in one, without unpacking it."""
    try:
        with data.open("rb") as file:
            # gzip's and tar's own marks decide, not the name.
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
        raise ConfigurationError(f"{data} holds no fer2013.csv and no icml_face_data.csv", _GIVE)
    except FileNotFoundError:
        raise ConfigurationError(f"{data} does not exist", _GIVE) from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ConfigurationError(f"{data} cannot be read: {error}", _GIVE) from error


def _records(lines: IO[str], data: Path) -> Iterator[tuple[str, str, str]]:
    """(emotion, pixels, Usage) of each row, whatever the order of the columns."""
    try:
        table = csv.reader(lines)
        header = [name.strip() for name in next(table, [])]
        if sorted(header) != ["Usage", "emotion", "pixels"]:
            found = ", ".join(header)[:80] or "nothing"
            raise ConfigurationError(f"{data} is not FER2013: its header is {found}", _GIVE)
        label, text, usage = (header.index(name) for name in ("emotion", "pixels", "Usage"))
        for row, fields in enumerate(table):
            if len(fields) != 3:
                place = f"{data}, line {row + 2}"
                raise ConfigurationError(f"{place}: {len(fields)} fields instead of 3", _GIVE)
            yield fields[label], fields[text], fields[usage].strip()
    except csv.Error as error:
        raise ConfigurationError(f"{data} is no CSV file: {error}", _GIVE) from error


def _pixels(text: str, place: str) -> NDArray[np.uint8]:
    try:
        values = np.array(text.split(), np.int32)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{place}: pixels are not whole numbers", _GIVE) from None
    if len(values) != CROP_PX * CROP_PX:
        raise ConfigurationError(f"{place}: {len(values)} pixels instead of 48×48", _GIVE)
    if values.min() < 0 or values.max() > 255:
        raise ConfigurationError(f"{place}: a pixel is not between 0 and 255", _GIVE)
    return values.astype(np.uint8)


def _label(text: str, place: str) -> int:
    stripped = text.strip()
    if stripped not in ("0", "1", "2", "3", "4", "5", "6"):
        raise ConfigurationError(f"{place}: emotion {stripped[:20]!r} is not 0 to 6", _GIVE)
    return int(stripped)


def _read_votes(path: Path, usages: list[str]) -> NDArray[np.float32]:
    """[rows of the data, 10]. The file carries no pixels: only order and usage tie it to them."""
    todo = "Give FER+'s fer2013new.csv, made for the same rows in the same order"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.reader(file)
            header = next(table, [])
            if header != ["Usage", "Image name", *VOTE_COLUMNS]:
                raise ConfigurationError(f"{path} is no FER+ votes file", todo)
            records = list(table)
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist", todo) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", todo) from error
    if [record[0] for record in records] != usages:
        raise ConfigurationError(f"{path} is not of the same rows as the data", todo)
    try:
        return np.array([record[2:] for record in records], np.float32).reshape(-1, 10)
    except ValueError:
        raise ConfigurationError(f"{path}: votes are not numbers", todo) from None
