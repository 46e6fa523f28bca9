"""The figures of a CNN on FER2013, out of its probabilities alone.

Whatever maps crops to seven probabilities can be measured: the Keras model while it trains, the
ONNX artefact that ships. Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_batch import fer2013
from fer_batch.classifier import DEFAULT_CARD, load_artefact, open_artefact
from fer_batch.errors import ConfigurationError
from fer_batch.fer2013 import HAPPY, NEUTRAL, SAD, Split
from fer_batch.log import logger
from fer_batch.resources import artefacts_dir

log = logger(__name__)

Probabilities = NDArray[np.float32]
"""[N,7] in the order of `fer2013.CLASSES`, rows sum to 1."""
Classify = Callable[[NDArray[np.uint8]], Probabilities]

RIGHT_SHARE = 0.98
"""What `choose_uncertain_below` asks of the Happy and Sad faces that stay certain."""
CONSENSUS_VOTES = 6
"""Of ten FER+ voters, so many share the label of a consensus row."""


def evaluate(
    card_path: Path | None,
    data: Path,
    votes: Path | None = None,
    split: str = "PrivateTest",
    threads: int = 2,
) -> dict[str, Any]:
    """Measure an artefact on one split: `figures` plus `card`, `artefact_sha256`, `split`, `rows`.

    `card_path` None means the card that ships. Raises ModelError where the artefact does not fit
    its card, ConfigurationError for a file that is not FER2013 or a split that it lacks.
    """
    path = card_path or artefacts_dir() / DEFAULT_CARD
    card, artefact = load_artefact(path)
    if split not in fer2013.USAGES:
        raise ConfigurationError(
            f"there is no split {split!r}", f"Choose one of {', '.join(fer2013.USAGES)}"
        )
    rows = fer2013.read(data, votes)[split]
    if len(rows) == 0:
        raise ConfigurationError(f"{data} has no rows of {split}", "Give the whole of FER2013")
    log.info("evaluating", card=path.name, split=split, rows=len(rows))
    classify = open_artefact(artefact, card.artefact, threads)
    return {
        "card": card.name,
        "artefact_sha256": card.artefact_sha256,
        "split": split,
        "rows": len(rows),
        **figures(classify(rows.pixels), rows, card.uncertain_below),
    }


def figures(probabilities: Probabilities, split: Split, uncertain_below: float) -> dict[str, Any]:
    """Every figure of one split, plain numbers in nested dicts; None where no row counts.

    `happy_sad`: rows labelled Happy or Sad, the larger of p_happy and p_sad. `certain`: those of
    them whose larger one reaches `uncertain_below`. `happy_sad_consensus`: those whose label at
    least 6 of 10 FER+ voters share (None without votes). `seven`: largest of all. `three`: Happy,
    Sad, neither, largest of three. `neutral`: what becomes of the neutral faces, as shares.
    """
    labels = split.labels
    polar = np.isin(labels, (HAPPY, SAD))
    says_happy = probabilities[:, HAPPY] >= probabilities[:, SAD]
    is_right = says_happy == (labels == HAPPY)
    is_certain = probabilities[:, [HAPPY, SAD]].max(axis=1) >= np.float32(uncertain_below)
    three, three_labels = _three(probabilities), _three_labels(labels)
    neutral = labels == NEUTRAL
    return {
        "happy_sad": {
            "rows": int(polar.sum()),
            "accuracy": _share(is_right, polar),
            "recall_happy": _share(is_right, labels == HAPPY),
            "recall_sad": _share(is_right, labels == SAD),
        },
        "certain": {
            "uncertain_below": float(uncertain_below),
            "share": _share(is_certain, polar),
            "accuracy": _share(is_right, polar & is_certain),
        },
        "happy_sad_consensus": _consensus(is_right, split),
        "seven": {"rows": len(labels), "accuracy": _right(probabilities.argmax(axis=1), labels)},
        "three": {
            "accuracy": _right(three, three_labels),
            # Rows are the labels, columns what was said: Happy, Sad, neither.
            "confusion": [
                [int(((three_labels == row) & (three == column)).sum()) for column in range(3)]
                for row in range(3)
            ],
        },
        "neutral": {
            "rows": int(neutral.sum()),
            "uncertain": _share(~is_certain, neutral),
            "called_happy": _share(is_certain & says_happy, neutral),
            "called_sad": _share(is_certain & ~says_happy, neutral),
        },
    }


def choose_uncertain_below(probabilities: Probabilities, labels: NDArray[np.int8]) -> float:
    """The card's threshold, out of PublicTest: the smallest one, in steps of 0.005, at which the
    Happy and Sad faces that remain certain are right in at least 98 of 100.

    Where no threshold up to 0.95 reaches that, 0.95.
    """
    polar = np.isin(labels, (HAPPY, SAD))
    chances = probabilities[polar][:, [HAPPY, SAD]]
    is_right = (chances[:, 0] >= chances[:, 1]) == (labels[polar] == HAPPY)
    larger = chances.max(axis=1)
    for step in range(190):
        threshold = step * 0.005
        remaining = is_right[larger >= np.float32(threshold)]
        if len(remaining) and remaining.mean() >= RIGHT_SHARE:
            return round(threshold, 3)
    return 0.95


def _consensus(is_right: NDArray[np.bool_], split: Split) -> dict[str, Any] | None:
    if split.votes is None:
        return None
    agreed = np.zeros(len(split), np.bool_)
    for label in (HAPPY, SAD):
        votes = split.votes[:, fer2013.VOTES_OF_CLASS[label]]
        agreed |= (split.labels == label) & (votes >= CONSENSUS_VOTES)
    return {"rows": int(agreed.sum()), "accuracy": _share(is_right, agreed)}


def _three(probabilities: Probabilities) -> NDArray[np.intp]:
    happy, sad = probabilities[:, HAPPY], probabilities[:, SAD]
    three = np.stack([happy, sad, 1 - happy - sad], axis=1)
    said: NDArray[np.intp] = three.argmax(axis=1)
    return said


def _three_labels(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    return np.where(labels == HAPPY, 0, np.where(labels == SAD, 1, 2))


def _share(true: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(true[among].mean()) if among.any() else None


def _right(said: NDArray[Any], labels: NDArray[Any]) -> float | None:
    return float((said == labels).mean()) if len(labels) else None
