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
from fer_batch.model.calibration import measure_calibration, measure_share_error
from fer_batch.model.classifier import Cnn, open_artifact
from fer_batch.model.confusion import (
    count_confusion,
    find_labeled,
    find_plurality,
    measure_confusions,
)
from fer_batch.model.corruptions import measure_corruptions
from fer_batch.model.fer2013 import (
    CLASSES,
    CONSENSUS_VOTES,
    CROP_PX,
    HAPPY,
    NEUTRAL,
    SAD,
    VOTES_OF_CLASS,
    Split,
)
from fer_batch.model.probabilities import (
    CALLED_CLASSES,
    MAJORITY_RULE,
    ClassProbabilities,
    Probabilities,
    VoteCalibration,
    call_classes,
    compute_vote_shares,
    estimate_probabilities,
    merge_classes,
)
from fer_batch.records import CallingRule
from fer_batch.settings import Settings

log = get_logger(__name__)

BORDER_PX = 40
"""Width of the gray border around an enlarged crop, for the detector."""

Classify = Callable[[NDArray[np.uint8]], ClassProbabilities]
"""Crops uint8 [N,48,48] to class probabilities."""

_METRICS_OF_SEVEN_LABELS = ("seven", "neutral", "others")
"""Metrics that are meaningless if the labels do not tell the seven expressions apart."""
_FACES_HINT = "Give an npz file with x (N×48×48, uint8) and y (N; 0 Happy, 1 Sad, 2 neither)"


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
    is Happy, 1 is Sad and 2 is neither.

    Raises ConfigurationError that names the problem of an invalid file. Nothing is unpickled.
    """
    try:
        saved = np.load(path, allow_pickle=False)
        if isinstance(saved, np.ndarray):  # an npy file holds one array
            raise ConfigurationError(f"{path} is not an npz file", _FACES_HINT)
        with saved:
            crops, true = saved["x"], saved["y"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", _FACES_HINT) from error
    if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX) or len(crops) == 0:
        raise ConfigurationError(f"{path}: x is {crops.dtype} {crops.shape}", _FACES_HINT)
    if true.shape != (len(crops),) or not np.isin(true, (0, 1, 2)).all():
        raise ConfigurationError(f"{path}: y is not 0, 1 or 2 for each face", _FACES_HINT)
    true = true.astype(np.intp)
    labels = np.take((HAPPY, SAD, -1), true).astype(np.int8)
    rows = np.arange(len(crops), dtype=np.int32)
    return Split(crops, labels, rows, true_classes=true)


def evaluate(cnn: Cnn, rows: Split, threads: int = 2) -> dict[str, Any]:
    """Evaluate a CNN on labeled rows: as `measure`, plus `card`, `artefact_sha256`, `rows` and
    `confusions` (see `measure_confusions`).

    For faces of another data set, metrics that need the labels of seven expressions are left out,
    and `three` as well if all rows are Happy or Sad. Raises ModelError as `open_artifact` does.
    """
    log.info("evaluating", card=cnn.card.name, rows=len(rows))
    classify = open_artifact(cnn.artifact, cnn.card.artefact, threads)
    how = (cnn.card.vote_calibration, cnn.card.rule)
    figures = {
        "card": cnn.card.name,
        "artefact_sha256": cnn.card.artefact_sha256,
        "rows": len(rows),
        **measure(classify, rows, *how),
        "confusions": measure_confusions(classify, rows, *how),
    }
    is_polar = bool(np.isin(rows.labels, (HAPPY, SAD)).all())
    if is_polar or rows.true_classes is not None:
        for name in _METRICS_OF_SEVEN_LABELS:
            del figures[name]
    if is_polar:
        del figures["three"]
    return figures


def measure(
    classify: Classify, rows: Split, calibration: VoteCalibration | None, rule: CallingRule
) -> dict[str, Any]:
    """All metrics of one split: `compute_metrics`, and `measure_corruptions` under `robustness`."""
    metrics = compute_metrics(classify(rows.pixels), rows, calibration, rule)
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
    class_probabilities: ClassProbabilities,
    split: Split,
    calibration: VoteCalibration | None = None,
    rule: CallingRule = MAJORITY_RULE,
) -> dict[str, Any]:
    """The metrics of N rows as plain numbers in nested dicts; None where no row qualifies.

    `class_probabilities` is float32 [N,7]. Shares and accuracies are 0 to 1. By the CNN's own
    class probabilities: `happy_sad`: rows labeled Happy or Sad, decided by the larger of the two.
    `happy_sad_consensus`: those whose label at least 6 of 10 FER+ voters chose (None without
    votes). `seven`: all classes, decided by the largest. `three`: Happy, Sad, neither, decided by
    the largest of the merged probabilities. `calibration`: `measure_calibration` of
    happy / (happy + sad). `conditions`: accuracy on Happy and Sad by thirds of brightness,
    contrast and sharpness of the crop.

    By p_happy, p_sad, p_neither and the called class: `votes`: called classes against the voters,
    see `_measure_votes`. `probabilities`: the errors of the three against the voters' shares. For
    faces of another data set their true classes take the place of the voters. `neutral`, `others`:
    what faces with another label are called.
    """
    labels = split.labels
    is_polar = np.isin(labels, (HAPPY, SAD))
    predicts_happy = class_probabilities[:, HAPPY] >= class_probabilities[:, SAD]
    is_correct = predicts_happy == (labels == HAPPY)
    pair = class_probabilities[is_polar].astype(np.float64)[:, [HAPPY, SAD]]
    p_happy_of_pair = pair[:, 0] / np.maximum(pair.sum(axis=1), 1e-12)
    probabilities = estimate_probabilities(class_probabilities, calibration)
    called = call_classes(probabilities, rule)
    return {
        "happy_sad": _measure_happy_sad(is_correct, is_polar, split),
        "happy_sad_consensus": _measure_consensus(is_correct, split),
        "votes": _measure_votes(called, split),
        "probabilities": _measure_probabilities(probabilities, split),
        "calibration": measure_calibration(p_happy_of_pair, labels[is_polar] == HAPPY),
        "seven": _measure_seven(class_probabilities.argmax(axis=1), labels),
        "three": _measure_three(
            merge_classes(class_probabilities).argmax(axis=1), find_labeled(labels)
        ),
        "neutral": _count_called(called, labels == NEUTRAL),
        "others": {
            CLASSES[label]: _count_called(called, labels == label)
            for label in range(len(CLASSES))
            if label not in (HAPPY, SAD, NEUTRAL)
        },
        "conditions": _measure_conditions(is_correct[is_polar], split.pixels[is_polar]),
    }


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


def _measure_votes(called: NDArray[np.intp], split: Split) -> dict[str, Any]:
    """Called classes of the rows with a consensus: at least 6 of 10 votes for one column.

    Keys: `rows`, `accuracy` of the three classes, the shares `neutral_called_sad`,
    `sad_called_sad` and `happy_called_happy`, and `confusion` (rows of the matrix are the voters'
    class, columns the called class: happy, sad, neither). All faces of another data set count;
    which of them are neutral is unknown.
    """
    true, is_neutral = split.true_classes, np.zeros(len(split), np.bool_)
    if true is None:
        votes = np.zeros((len(split), 10), np.float32) if split.votes is None else split.votes
        true = find_plurality(votes)
        has_consensus = votes.max(axis=1) >= CONSENSUS_VOTES
        is_neutral = votes[:, VOTES_OF_CLASS[NEUTRAL]] >= CONSENSUS_VOTES
        called, true, is_neutral = (a[has_consensus] for a in (called, true, is_neutral))
    happy, sad = (CALLED_CLASSES.index(name) for name in ("happy", "sad"))
    return {
        "rows": len(true),
        "accuracy": _compute_accuracy(called, true),
        "neutral_called_sad": _compute_share(called == sad, is_neutral),
        "sad_called_sad": _compute_share(called == sad, true == sad),
        "happy_called_happy": _compute_share(called == happy, true == happy),
        "confusion": count_confusion(true, called),
    }


def _measure_probabilities(probabilities: Probabilities, split: Split) -> dict[str, float | None]:
    """`ece_happy`, `ece_sad` and `ece_neither`: `measure_share_error` against the votes."""
    names = [f"ece_{called_class}" for called_class in CALLED_CLASSES]
    if split.true_classes is not None:
        shares = np.eye(3)[split.true_classes]
    elif split.votes is not None:
        shares = compute_vote_shares(split.votes)
    else:
        return dict.fromkeys(names)
    return {
        name: measure_share_error(probabilities[:, column], shares[:, column])
        for column, name in enumerate(names)
    }


def _measure_three(predicted: NDArray[np.intp], true: NDArray[np.intp]) -> dict[str, Any]:
    return {
        "accuracy": _compute_accuracy(predicted, true),
        # Rows are the labels, columns the predictions: Happy, Sad, neither.
        "confusion": count_confusion(true, predicted),
    }


def _count_called(called: NDArray[np.intp], among: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "rows": int(among.sum()),
        **{
            f"called_{called_class}": _compute_share(called == index, among)
            for index, called_class in enumerate(CALLED_CLASSES)
        },
    }


def _measure_consensus(is_correct: NDArray[np.bool_], split: Split) -> dict[str, Any]:
    if split.votes is None:
        return {"rows": 0, "accuracy": None}
    has_consensus = np.zeros(len(split), np.bool_)
    for label in (HAPPY, SAD):
        votes = split.votes[:, VOTES_OF_CLASS[label]]
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
    happy, sad = (split.votes[:, VOTES_OF_CLASS[label]] for label in (HAPPY, SAD))
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


def _compute_share(is_true: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(is_true[among].mean()) if among.any() else None


def _compute_accuracy(predicted: NDArray[Any], labels: NDArray[Any]) -> float | None:
    return float((predicted == labels).mean()) if len(labels) else None
