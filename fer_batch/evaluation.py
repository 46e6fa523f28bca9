"""The figures of a CNN on FER2013, out of its probabilities alone.

Whatever maps crops to seven probabilities can be measured: the Keras model while it trains, the
ONNX artefact that ships. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch import fer2013
from fer_batch.calibration import calibration
from fer_batch.classifier import Cnn, is_certain, open_artefact, three_of
from fer_batch.errors import ConfigurationError
from fer_batch.faces import FaceFinder
from fer_batch.fer2013 import CLASSES, CROP_PX, HAPPY, NEUTRAL, SAD, Split
from fer_batch.log import logger
from fer_batch.robustness import robustness
from fer_batch.settings import Settings

log = logger(__name__)

BORDER_PX = 40
"""Round an enlarged crop, for the detector."""

Seven = NDArray[np.float32]
"""[N,7] probabilities in the order of `fer2013.CLASSES`, rows sum to 1."""
Classify = Callable[[NDArray[np.uint8]], Seven]

RIGHT_SHARE = 0.98
"""What `choose_uncertain_below` asks of the Happy and Sad faces that stay certain."""
NEUTRAL_SHARE = 0.2
"""So many of the neutral faces it lets pass for Happy or Sad at most: a shop shows many of them."""
CONSENSUS_VOTES = 6
"""Of ten FER+ voters, so many share the label of a consensus row."""
_NEEDS_OTHERS = ("seven", "three", "neutral", "others")
"""Figures that say nothing of rows that are all Happy or Sad."""


def rows_of(data: Path, votes: Path | None, split: str) -> Split:
    """One split of FER2013.

    Raises ConfigurationError for a file that is not FER2013 or a split that it lacks.
    """
    if split not in fer2013.USAGES:
        raise ConfigurationError(
            f"there is no split {split!r}", f"Choose one of {', '.join(fer2013.USAGES)}"
        )
    rows = fer2013.read(data, votes)[split]
    if len(rows) == 0:
        raise ConfigurationError(f"{data} has no rows of {split}", "Give the whole of FER2013")
    return rows


def faces_of(path: Path) -> Split:
    """Any other labelled faces: an npz file with `x` uint8 [N,48,48] and `y` [N], 0 Happy, 1 Sad.

    Raises ConfigurationError naming what is wrong with the file. Nothing is unpickled.
    """
    todo = "Give an npz file with x (N×48×48, uint8) and y (N; 0 is Happy, 1 is Sad)"
    try:
        saved = np.load(path, allow_pickle=False)
        if isinstance(saved, np.ndarray):  # an npy file holds one array
            raise ConfigurationError(f"{path} is no npz file", todo)
        with saved:
            crops, emotions = saved["x"], saved["y"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", todo) from error
    if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX) or len(crops) == 0:
        raise ConfigurationError(f"{path}: x is {crops.dtype} {crops.shape}", todo)
    if emotions.shape != (len(crops),) or not np.isin(emotions, (0, 1)).all():
        raise ConfigurationError(f"{path}: y is not one 0 or 1 for each face", todo)
    labels = np.where(emotions == 0, HAPPY, SAD).astype(np.int8)
    return Split(crops, labels, np.arange(len(crops), dtype=np.int32))


def evaluate(cnn: Cnn, rows: Split, threads: int = 2) -> dict[str, Any]:
    """Measure a CNN on labelled rows: as `measure`, plus `card`, `artefact_sha256` and `rows`.

    Rows of Happy and Sad alone get no figures that need the other expressions.
    """
    log.info("evaluating", card=cnn.card.name, rows=len(rows))
    classify = open_artefact(cnn.artefact, cnn.card.artefact, threads)
    found = measure(classify, rows, cnn.card.uncertain_below)
    if np.isin(rows.labels, (HAPPY, SAD)).all():
        found = {name: part for name, part in found.items() if name not in _NEEDS_OTHERS}
    return {
        "card": cnn.card.name,
        "artefact_sha256": cnn.card.artefact_sha256,
        "rows": len(rows),
        **found,
    }


def measure(classify: Classify, rows: Split, uncertain_below: float) -> dict[str, Any]:
    """Every figure of one split: `figures`, and the `robustness` of Happy against Sad."""
    found = figures(classify(rows.pixels), rows, uncertain_below)
    return found | {"robustness": robustness(classify, rows)}


def found_by_detector(rows: Split, settings: Settings) -> dict[str, Any]:
    """How many of the Happy and of the Sad crops the face detector finds a face in: its own bias.

    Each crop is enlarged five times and set on a grey border, as a camera would see the face.
    """
    finder = FaceFinder(settings)
    counts = {}
    for name, label in (("happy", HAPPY), ("sad", SAD)):
        crops = rows.pixels[rows.labels == label]
        found = 0
        for crop in crops:
            large = cv2.resize(crop, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
            framed = np.pad(large, BORDER_PX, constant_values=128)
            found += bool(finder.find(np.repeat(framed[:, :, None], 3, axis=2)))
        counts[name] = {"rows": len(crops), "found": found}
    return counts


def figures(probabilities: Seven, split: Split, uncertain_below: float) -> dict[str, Any]:
    """The figures that probabilities give, plain numbers in nested dicts; None where no row counts.

    `happy_sad`: rows labelled Happy or Sad, the larger of p_happy and p_sad. `certain`: those of
    them whose larger one reaches `uncertain_below`. `happy_sad_consensus`: those whose label at
    least 6 of 10 FER+ voters share (None without votes). `seven`: largest of all. `three`: Happy,
    Sad, neither, largest of three. `neutral`, `others`: what becomes of faces with another label,
    as shares. `calibration`: of p_happy / (p_happy + p_sad). `conditions`: accuracy on Happy and
    Sad in thirds of brightness, contrast and sharpness of the crop.
    """
    labels = split.labels
    polar = np.isin(labels, (HAPPY, SAD))
    says_happy = probabilities[:, HAPPY] >= probabilities[:, SAD]
    is_right = says_happy == (labels == HAPPY)
    three = three_of(probabilities)
    certain = is_certain(three, uncertain_below)
    said, three_labels = three.argmax(axis=1), _three_labels(labels)
    wrong = polar & ~is_right
    chances = probabilities[polar].astype(np.float64)
    happy_of_two = chances[:, HAPPY] / np.maximum(chances[:, [HAPPY, SAD]].sum(axis=1), 1e-12)
    return {
        "happy_sad": {
            "rows": int(polar.sum()),
            "wrong": int(wrong.sum()),
            "wrong_contradicting_votes": _contradicting(wrong, split),
            "accuracy": _share(is_right, polar),
            "recall_happy": _share(is_right, labels == HAPPY),
            "recall_sad": _share(is_right, labels == SAD),
        },
        "certain": {
            "uncertain_below": float(uncertain_below),
            "share": _share(certain, polar),
            "accuracy": _share(is_right, polar & certain),
        },
        "happy_sad_consensus": _consensus(is_right, split),
        "calibration": calibration(happy_of_two, labels[polar] == HAPPY),
        "seven": _seven(probabilities.argmax(axis=1), labels),
        "three": {
            "accuracy": _right(said, three_labels),
            # Rows are the labels, columns what was said: Happy, Sad, neither.
            "confusion": [
                [int(((three_labels == row) & (said == column)).sum()) for column in range(3)]
                for row in range(3)
            ],
        },
        "neutral": _called(certain, says_happy, labels == NEUTRAL),
        "others": {
            CLASSES[label]: _called(certain, says_happy, labels == label)
            for label in range(len(CLASSES))
            if label not in (HAPPY, SAD, NEUTRAL)
        },
        "conditions": _conditions(is_right[polar], split.pixels[polar]),
    }


def choose_uncertain_below(probabilities: Seven, labels: NDArray[np.int8]) -> float:
    """The card's threshold, out of PublicTest: the smallest one, in steps of 0.005, at which the
    Happy and Sad faces that remain certain are right in at least 98 of 100, and at least 80 of
    100 neutral faces are uncertain.

    Where no threshold up to 0.95 reaches that, 0.95.
    """
    three = three_of(probabilities)
    polar = np.isin(labels, (HAPPY, SAD))
    is_right = (three[:, 0] >= three[:, 1])[polar] == (labels[polar] == HAPPY)
    for step in range(190):
        threshold = step * 0.005
        certain = is_certain(three, threshold)
        remaining = is_right[certain[polar]]
        called = certain[labels == NEUTRAL]
        if len(remaining) == 0 or remaining.mean() < RIGHT_SHARE:
            continue
        if len(called) == 0 or called.mean() <= NEUTRAL_SHARE:
            return round(threshold, 3)
    return 0.95


def _called(
    certain: NDArray[np.bool_], says_happy: NDArray[np.bool_], among: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        "rows": int(among.sum()),
        "uncertain": _share(~certain, among),
        "called_happy": _share(certain & says_happy, among),
        "called_sad": _share(certain & ~says_happy, among),
    }


def _consensus(is_right: NDArray[np.bool_], split: Split) -> dict[str, Any]:
    if split.votes is None:
        return {"rows": 0, "accuracy": None}
    agreed = np.zeros(len(split), np.bool_)
    for label in (HAPPY, SAD):
        votes = split.votes[:, fer2013.VOTES_OF_CLASS[label]]
        agreed |= (split.labels == label) & (votes >= CONSENSUS_VOTES)
    return {"rows": int(agreed.sum()), "accuracy": _share(is_right, agreed)}


def _contradicting(wrong: NDArray[np.bool_], split: Split) -> int | None:
    """How many of the wrong rows have a label that the FER+ voters contradict: more of them voted
    for the other of happiness and sadness."""
    if split.votes is None:
        return None
    happy, sad = (split.votes[:, fer2013.VOTES_OF_CLASS[label]] for label in (HAPPY, SAD))
    contradicted = np.where(split.labels == HAPPY, sad > happy, happy > sad)
    return int((wrong & contradicted).sum())


def _seven(said: NDArray[np.intp], labels: NDArray[np.int8]) -> dict[str, Any]:
    known = range(len(CLASSES))
    return {
        "rows": len(labels),
        "accuracy": _right(said, labels),
        "recall": {CLASSES[label]: _share(said == label, labels == label) for label in known},
        # Rows are the labels, columns what was said, both in the order of `recall`.
        "confusion": [
            [int(((labels == row) & (said == column)).sum()) for column in known] for row in known
        ],
    }


def _conditions(is_right: NDArray[np.bool_], crops: NDArray[np.uint8]) -> dict[str, Any]:
    """For each condition three thirds, lowest first: from, to, rows, accuracy."""
    if len(crops) < 3:
        return {}
    grey = crops.astype(np.float32)
    # The Laplacian of the four neighbours; its variance falls as edges blur.
    edges = (
        grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    ) - 4 * grey[:, 1:-1, 1:-1]
    measures = {
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)),
        "sharpness": edges.var(axis=(1, 2)),
    }
    return {
        name: [
            {
                "from": round(float(measure[third].min()), 1),
                "to": round(float(measure[third].max()), 1),
                "rows": len(third),
                "accuracy": float(is_right[third].mean()),
            }
            for third in np.array_split(np.argsort(measure, kind="stable"), 3)
        ]
        for name, measure in measures.items()
    }


def _three_labels(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    return np.where(labels == HAPPY, 0, np.where(labels == SAD, 1, 2))


def _share(true: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(true[among].mean()) if among.any() else None


def _right(said: NDArray[Any], labels: NDArray[Any]) -> float | None:
    return float((said == labels).mean()) if len(labels) else None
