"""Evaluation: the metrics of a CNN on FER2013, computed from its class probabilities.

Any function from crops to class probabilities can be evaluated: the Keras model during training
or the shipped ONNX artifact. Nothing here imports TensorFlow.
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

from fer_batch.errors import ConfigurationError
from fer_batch.imaging.faces import FaceDetector
from fer_batch.log import get_logger
from fer_batch.model import fer2013
from fer_batch.model.calibration import measure_calibration
from fer_batch.model.classifier import Cnn, is_certain, merge_classes, open_artifact
from fer_batch.model.corruptions import measure_corruptions
from fer_batch.model.fer2013 import CLASSES, CROP_PX, HAPPY, NEUTRAL, SAD, Split
from fer_batch.settings import Settings

log = get_logger(__name__)

BORDER_PX = 40
"""Width of the gray border around an enlarged crop, for the detector."""

ClassProbabilities = NDArray[np.float32]
"""[N,7] probabilities (0 to 1) in the order of `fer2013.CLASSES`, rows sum to 1."""
Classify = Callable[[NDArray[np.uint8]], ClassProbabilities]
"""Crops uint8 [N,48,48] to class probabilities."""

MIN_CERTAIN_ACCURACY = 0.98
"""`choose_uncertain_below`: minimum accuracy on the certain Happy and Sad faces."""
MAX_CERTAIN_NEUTRAL_SHARE = 0.2
"""`choose_uncertain_below`: maximum share of certain faces among the neutral ones, which are
frequent in a shop."""
CONSENSUS_VOTES = 6
"""A consensus row is one whose label at least this many of ten FER+ voters chose."""
_METRICS_OF_ALL_CLASSES = ("seven", "three", "neutral", "others")
"""Metrics that are meaningless if all rows are Happy or Sad."""


def load_split(data: Path, votes: Path | None, split: str) -> Split:
    """One split of FER2013: 'Training', 'PublicTest' or 'PrivateTest'.

    Raises ConfigurationError for a file that is not FER2013 and for an unknown or empty split.
    """
    if split not in fer2013.USAGES:
        raise ConfigurationError(
            f"there is no split {split!r}", f"Choose one of {', '.join(fer2013.USAGES)}"
        )
    rows = fer2013.read(data, votes)[split]
    if len(rows) == 0:
        raise ConfigurationError(f"{data} has no rows of {split}", "Give the complete FER2013")
    return rows


def load_faces(path: Path) -> Split:
    """Labeled faces of another data set: an npz file with `x` uint8 [N,48,48] and `y` [N], where 0
    is Happy and 1 is Sad.

    Raises ConfigurationError that names the problem of an invalid file. Nothing is unpickled.
    """
    hint = "Give an npz file with x (N×48×48, uint8) and y (N; 0 is Happy, 1 is Sad)"
    try:
        saved = np.load(path, allow_pickle=False)
        if isinstance(saved, np.ndarray):  # an npy file holds one array
            raise ConfigurationError(f"{path} is not an npz file", hint)
        with saved:
            crops, emotions = saved["x"], saved["y"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint) from error
    if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX) or len(crops) == 0:
        raise ConfigurationError(f"{path}: x is {crops.dtype} {crops.shape}", hint)
    if emotions.shape != (len(crops),) or not np.isin(emotions, (0, 1)).all():
        raise ConfigurationError(f"{path}: y is not 0 or 1 for each face", hint)
    labels = np.where(emotions == 0, HAPPY, SAD).astype(np.int8)
    return Split(crops, labels, np.arange(len(crops), dtype=np.int32))


def evaluate(cnn: Cnn, rows: Split, threads: int = 2) -> dict[str, Any]:
    """Evaluate a CNN on labeled rows: as `measure`, plus `card`, `artefact_sha256` and `rows`.

    If all rows are Happy or Sad, metrics that need the other expressions are left out. Raises
    ModelError as `open_artifact` does.
    """
    log.info("evaluating", card=cnn.card.name, rows=len(rows))
    classify = open_artifact(cnn.artifact, cnn.card.artefact, threads)
    metrics = measure(classify, rows, cnn.card.uncertain_below)
    if np.isin(rows.labels, (HAPPY, SAD)).all():
        for name in _METRICS_OF_ALL_CLASSES:
            del metrics[name]
    return {
        "card": cnn.card.name,
        "artefact_sha256": cnn.card.artefact_sha256,
        "rows": len(rows),
        **metrics,
    }


def measure(classify: Classify, rows: Split, uncertain_below: float) -> dict[str, Any]:
    """All metrics of one split: `compute_metrics`, and `measure_corruptions` under `robustness`."""
    metrics = compute_metrics(classify(rows.pixels), rows, uncertain_below)
    return metrics | {"robustness": measure_corruptions(classify, rows)}


def count_detected_faces(rows: Split, settings: Settings) -> dict[str, Any]:
    """The recall of the face detector on the Happy and on the Sad crops, which shows its bias.

    Each crop is enlarged five times and gets a gray border, as a camera would see the face. Keys:
    `happy` and `sad`, each with `rows` and `found` (crops in which a face was detected).
    """
    detector = FaceDetector(settings)
    counts = {}
    for name, label in (("happy", HAPPY), ("sad", SAD)):
        crops = rows.pixels[rows.labels == label]
        detected = 0
        for crop in crops:
            large = cv2.resize(crop, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
            framed = np.pad(large, BORDER_PX, constant_values=128)
            detected += bool(detector.detect(np.repeat(framed[:, :, None], 3, axis=2)))
        counts[name] = {"rows": len(crops), "found": detected}
    return counts


def compute_metrics(
    probabilities: ClassProbabilities, split: Split, uncertain_below: float
) -> dict[str, Any]:
    """The metrics of N rows as plain numbers in nested dicts; None where no row qualifies.

    `probabilities` is float32 [N,7]. Shares and accuracies are 0 to 1. `happy_sad`: rows labeled
    Happy or Sad, decided by the larger of p_happy and p_sad. `certain`: those of them whose larger
    probability is at least `uncertain_below`. `happy_sad_consensus`: those whose label at least 6
    of 10 FER+ voters chose (None without votes). `seven`: all classes, decided by the largest.
    `three`: Happy, Sad, neither, decided by the largest of the merged probabilities. `neutral`,
    `others`: how faces with another label are called. `calibration`: `measure_calibration` of
    p_happy / (p_happy + p_sad). `conditions`: accuracy on Happy and Sad by thirds of brightness,
    contrast and sharpness of the crop.
    """
    labels = split.labels
    is_polar = np.isin(labels, (HAPPY, SAD))
    predicts_happy = probabilities[:, HAPPY] >= probabilities[:, SAD]
    is_correct = predicts_happy == (labels == HAPPY)
    merged = merge_classes(probabilities)
    certain = is_certain(merged, uncertain_below)
    pair = probabilities[is_polar].astype(np.float64)[:, [HAPPY, SAD]]
    p_happy_of_pair = pair[:, 0] / np.maximum(pair.sum(axis=1), 1e-12)
    return {
        "happy_sad": _measure_happy_sad(is_correct, is_polar, split),
        "certain": {
            "uncertain_below": float(uncertain_below),
            "share": _compute_share(certain, is_polar),
            "accuracy": _compute_share(is_correct, is_polar & certain),
        },
        "happy_sad_consensus": _measure_consensus(is_correct, split),
        "calibration": measure_calibration(p_happy_of_pair, labels[is_polar] == HAPPY),
        "seven": _measure_seven(probabilities.argmax(axis=1), labels),
        "three": _measure_three(merged.argmax(axis=1), _merge_labels(labels)),
        "neutral": _count_called(certain, predicts_happy, labels == NEUTRAL),
        "others": {
            CLASSES[label]: _count_called(certain, predicts_happy, labels == label)
            for label in range(len(CLASSES))
            if label not in (HAPPY, SAD, NEUTRAL)
        },
        "conditions": _measure_conditions(is_correct[is_polar], split.pixels[is_polar]),
    }


def choose_uncertain_below(probabilities: ClassProbabilities, labels: NDArray[np.int8]) -> float:
    """The threshold of the card, chosen on PublicTest.

    It is the smallest one, in steps of 0.005, at which the certain Happy and Sad faces have an
    accuracy of at least `MIN_CERTAIN_ACCURACY` and at most `MAX_CERTAIN_NEUTRAL_SHARE` of the
    neutral faces are certain; 0.95 if no smaller one meets both. `probabilities` is [N,7],
    `labels` is [N].
    """
    merged = merge_classes(probabilities)
    is_polar = np.isin(labels, (HAPPY, SAD))
    is_correct = (merged[:, 0] >= merged[:, 1])[is_polar] == (labels[is_polar] == HAPPY)
    for step in range(190):
        threshold = step * 0.005
        certain = is_certain(merged, threshold)
        certain_correct = is_correct[certain[is_polar]]
        certain_neutral = certain[labels == NEUTRAL]
        if len(certain_correct) == 0 or certain_correct.mean() < MIN_CERTAIN_ACCURACY:
            continue
        if len(certain_neutral) == 0 or certain_neutral.mean() <= MAX_CERTAIN_NEUTRAL_SHARE:
            return round(threshold, 3)
    return 0.95


def _measure_happy_sad(
    is_correct: NDArray[np.bool_], is_polar: NDArray[np.bool_], split: Split
) -> dict[str, Any]:
    is_wrong = is_polar & ~is_correct
    return {
        "rows": int(is_polar.sum()),
        "wrong": int(is_wrong.sum()),
        "wrong_contradicting_votes": _count_contradicting(is_wrong, split),
        "accuracy": _compute_share(is_correct, is_polar),
        "recall_happy": _compute_share(is_correct, split.labels == HAPPY),
        "recall_sad": _compute_share(is_correct, split.labels == SAD),
    }


def _measure_three(predicted: NDArray[np.intp], merged_labels: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "accuracy": _compute_accuracy(predicted, merged_labels),
        # Rows are the labels, columns the predictions: Happy, Sad, neither.
        "confusion": [
            [int(((merged_labels == row) & (predicted == column)).sum()) for column in range(3)]
            for row in range(3)
        ],
    }


def _count_called(
    certain: NDArray[np.bool_], predicts_happy: NDArray[np.bool_], among: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        "rows": int(among.sum()),
        "uncertain": _compute_share(~certain, among),
        "called_happy": _compute_share(certain & predicts_happy, among),
        "called_sad": _compute_share(certain & ~predicts_happy, among),
    }


def _measure_consensus(is_correct: NDArray[np.bool_], split: Split) -> dict[str, Any]:
    if split.votes is None:
        return {"rows": 0, "accuracy": None}
    has_consensus = np.zeros(len(split), np.bool_)
    for label in (HAPPY, SAD):
        votes = split.votes[:, fer2013.VOTES_OF_CLASS[label]]
        has_consensus |= (split.labels == label) & (votes >= CONSENSUS_VOTES)
    return {
        "rows": int(has_consensus.sum()),
        "accuracy": _compute_share(is_correct, has_consensus),
    }


def _count_contradicting(is_wrong: NDArray[np.bool_], split: Split) -> int | None:
    """The wrong rows whose label the FER+ votes contradict: more voters chose the opposite of
    happiness and sadness. None without votes."""
    if split.votes is None:
        return None
    happy, sad = (split.votes[:, fer2013.VOTES_OF_CLASS[label]] for label in (HAPPY, SAD))
    is_contradicted = np.where(split.labels == HAPPY, sad > happy, happy > sad)
    return int((is_wrong & is_contradicted).sum())


def _measure_seven(predicted: NDArray[np.intp], labels: NDArray[np.int8]) -> dict[str, Any]:
    classes = range(len(CLASSES))
    return {
        "rows": len(labels),
        "accuracy": _compute_accuracy(predicted, labels),
        "recall": {
            CLASSES[label]: _compute_share(predicted == label, labels == label) for label in classes
        },
        # Rows are the labels, columns the predictions, both in the order of `recall`.
        "confusion": [
            [int(((labels == row) & (predicted == column)).sum()) for column in classes]
            for row in classes
        ],
    }


def _measure_conditions(is_correct: NDArray[np.bool_], crops: NDArray[np.uint8]) -> dict[str, Any]:
    """For each condition its three thirds, lowest first: from, to, rows, accuracy."""
    if len(crops) < 3:
        return {}
    gray = crops.astype(np.float32)
    # Discrete Laplacian of the four neighbors; its variance falls as edges blur.
    edges = (
        gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    ) - 4 * gray[:, 1:-1, 1:-1]
    measures = {
        "brightness": gray.mean(axis=(1, 2)),
        "contrast": gray.std(axis=(1, 2)),
        "sharpness": edges.var(axis=(1, 2)),
    }
    return {
        name: [
            {
                "from": round(float(measure[third].min()), 1),
                "to": round(float(measure[third].max()), 1),
                "rows": len(third),
                "accuracy": float(is_correct[third].mean()),
            }
            for third in np.array_split(np.argsort(measure, kind="stable"), 3)
        ]
        for name, measure in measures.items()
    }


def _merge_labels(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Labels of seven classes to 0 Happy, 1 Sad, 2 neither."""
    return np.where(labels == HAPPY, 0, np.where(labels == SAD, 1, 2))


def _compute_share(is_true: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(is_true[among].mean()) if among.any() else None


def _compute_accuracy(predicted: NDArray[Any], labels: NDArray[Any]) -> float | None:
    return float((predicted == labels).mean()) if len(labels) else None
