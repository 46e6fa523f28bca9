"""Distillation: soft labels, the class probabilities that a teacher predicts for each training row.

The teacher is one network or the mean of several. A small network learns more from the soft labels
of a teacher than from hard labels alone (Hinton, Vinyals, Dean 2015). The file holds probabilities
and row numbers, no pixels; training with it does not need the teacher.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch.errors import ConfigurationError
from fer_batch.files import replacing
from fer_batch.log import get_logger
from fer_batch.model import fer2013
from fer_batch.model.classifier import load_artifact, open_artifact
from fer_batch.model.fer2013 import CLASSES, CROP_PX, Split

log = get_logger(__name__)

ZOOMS = (1.0, 1.08)
"""Test-time augmentation of the teacher: each crop at these scales, mirrored and not; the
probabilities are averaged."""


def write(cards: Sequence[Path], data: Path, out: Path, threads: int) -> int:
    """Write the mean soft labels of the CNNs in `cards` for all rows of Training to `out`.

    Returns the number of rows. Raises ModelError for an invalid artifact, ConfigurationError for
    data that is not FER2013 and if `cards` is empty.
    """
    if not cards:
        raise ConfigurationError("no teacher was given", "Give the card of at least one CNN")
    teachers = [load_artifact(path) for path in cards]
    networks = [open_artifact(cnn.artifact, cnn.card.artefact, threads) for cnn in teachers]
    training = fer2013.read(data)["Training"]
    out.parent.mkdir(parents=True, exist_ok=True)
    predictions = []
    for zoom in ZOOMS:
        zoomed = _zoom(training.pixels, zoom)
        mirrored = np.ascontiguousarray(zoomed[:, :, ::-1])
        for cnn, classify in zip(teachers, networks, strict=True):
            predictions += [classify(zoomed), classify(mirrored)]
            log.info("teacher evaluated", teacher=cnn.card.name, zoom=zoom, rows=len(training))
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            probabilities=np.mean(predictions, axis=0).astype(np.float16),
            rows=training.rows,
            labels=training.labels,
            teacher_sha256=np.array(" ".join(cnn.card.artefact_sha256 for cnn in teachers)),
        )
    return len(training)


def read(path: Path, training: Split) -> tuple[NDArray[np.float32], str]:
    """The soft labels float32 [N,7] of the N rows of `training`, and the SHA-256 of each teacher's
    artifact, separated by spaces.

    Rows sum to 1. Raises ConfigurationError if the file cannot be read or belongs to other rows.
    """
    hint = "Make soft labels for this data with `fer-batch soft-labels`"
    try:
        with np.load(path, allow_pickle=False) as saved:
            probabilities = saved["probabilities"].astype(np.float32)
            rows, labels = saved["rows"], saved["labels"]
            teacher = str(saved["teacher_sha256"])
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"the soft labels {path} cannot be read: {error}", hint) from error
    if probabilities.shape != (len(rows), len(CLASSES)) or labels.shape != rows.shape:
        raise ConfigurationError(f"the soft labels {path} have an invalid shape", hint)
    indices = np.searchsorted(rows, training.rows).clip(max=max(0, len(rows) - 1))
    if len(rows) == 0 or not (
        np.array_equal(rows[indices], training.rows)
        and np.array_equal(labels[indices], training.labels)
    ):
        raise ConfigurationError(f"the soft labels {path} belong to other rows", hint)
    selected = probabilities[indices]
    return selected / selected.sum(axis=1, keepdims=True), teacher


def _zoom(crops: NDArray[np.uint8], zoom: float) -> NDArray[np.uint8]:
    """Enlarge crops [N,48,48] about their center; edge pixels are replicated."""
    if zoom == 1.0:
        return crops
    center = (CROP_PX - 1) / 2
    matrix = np.array([[zoom, 0, center * (1 - zoom)], [0, zoom, center * (1 - zoom)]])
    return np.stack(
        [
            cv2.warpAffine(crop, matrix, (CROP_PX, CROP_PX), borderMode=cv2.BORDER_REPLICATE)
            for crop in crops
        ]
    )
