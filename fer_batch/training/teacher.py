"""Soft labels: what a teacher, one network or the mean of several, says of each training row.

A small network learns more from a teacher's doubts than from a label alone (Hinton, Vinyals, Dean
2015). The file holds probabilities and row numbers, no pixels; training with it needs no teacher.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch import fer2013
from fer_batch.classifier import load_artefact, open_artefact
from fer_batch.errors import ConfigurationError
from fer_batch.fer2013 import CLASSES, CROP_PX, Split
from fer_batch.log import logger

log = logger(__name__)

ZOOMS = (1.0, 1.08)
"""The teacher sees each crop at these sizes, as it is and mirrored; its answers are averaged."""


def write(cards: Sequence[Path], data: Path, out: Path, threads: int) -> int:
    """Write the mean soft labels of the CNNs under `cards` for all of Training; how many rows.

    Raises ModelError for an artefact that does not fit its card, ConfigurationError for data that
    is not FER2013 and where no card is given.
    """
    if not cards:
        raise ConfigurationError("no teacher is given", "Give the card of at least one CNN")
    teachers = [load_artefact(path) for path in cards]
    networks = [open_artefact(cnn.artefact, cnn.card.artefact, threads) for cnn in teachers]
    training = fer2013.read(data)["Training"]
    out.parent.mkdir(parents=True, exist_ok=True)
    views = []
    for zoom in ZOOMS:
        seen = _zoomed(training.pixels, zoom)
        mirrored = np.ascontiguousarray(seen[:, :, ::-1])
        for cnn, classify in zip(teachers, networks, strict=True):
            views += [classify(seen), classify(mirrored)]
            log.info("teacher asked", teacher=cnn.card.name, zoom=zoom, rows=len(training))
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            probabilities=np.mean(views, axis=0).astype(np.float16),
            rows=training.rows,
            labels=training.labels,
            teacher_sha256=np.array(" ".join(cnn.card.artefact_sha256 for cnn in teachers)),
        )
    partial.replace(out)
    return len(training)


def read(path: Path, training: Split) -> tuple[NDArray[np.float32], str]:
    """[N of training,7] float32, rows sum to 1, and the SHA-256 of each teacher's artefact, with a
    blank between two.

    Raises ConfigurationError where the file cannot be read, and where it is of other rows.
    """
    todo = "Make soft labels for this data with `fer-batch soft-labels`"
    try:
        with np.load(path, allow_pickle=False) as saved:
            probabilities = saved["probabilities"].astype(np.float32)
            rows, labels = saved["rows"], saved["labels"]
            teacher = str(saved["teacher_sha256"])
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"the soft labels {path} cannot be read: {error}", todo) from error
    if probabilities.shape != (len(rows), len(CLASSES)) or labels.shape != rows.shape:
        raise ConfigurationError(f"the soft labels {path} have another form", todo)
    place = np.searchsorted(rows, training.rows).clip(max=max(0, len(rows) - 1))
    if len(rows) == 0 or not (
        np.array_equal(rows[place], training.rows)
        and np.array_equal(labels[place], training.labels)
    ):
        raise ConfigurationError(f"the soft labels {path} are of other rows", todo)
    chosen = probabilities[place]
    return chosen / chosen.sum(axis=1, keepdims=True), teacher


def _zoomed(crops: NDArray[np.uint8], zoom: float) -> NDArray[np.uint8]:
    if zoom == 1.0:
        return crops
    centre = (CROP_PX - 1) / 2
    matrix = np.array([[zoom, 0, centre * (1 - zoom)], [0, zoom, centre * (1 - zoom)]])
    return np.stack(
        [
            cv2.warpAffine(crop, matrix, (CROP_PX, CROP_PX), borderMode=cv2.BORDER_REPLICATE)
            for crop in crops
        ]
    )
