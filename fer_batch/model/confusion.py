"""Confusion matrices: how many faces of each true class are called happy, sad or neither.

Rows of a matrix are the true class, columns the called class, both in the order happy, sad,
neither. The card has them for two kinds of truth and for crops of three sizes. The matrix that
corrects published rates is the one that `read_confusion` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt

from fer_batch.model.corruptions import downsample
from fer_batch.model.fer2013 import CROP_PX, HAPPY, SAD, VOTES_OF_CLASS, Split
from fer_batch.model.probabilities import (
    CALLED_CLASSES,
    ClassProbabilities,
    VoteCalibration,
    call_classes,
    estimate_probabilities,
)
from fer_batch.records import CallingRule

SIZES_PX = (CROP_PX, 24, 20)
"""Crops are classified as they are, and reduced to these sizes and enlarged again."""

_Row = Annotated[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], Field(strict=False)]
Confusion = Annotated[tuple[_Row, _Row, _Row], Field(strict=False)]
"""[3][3] counts of faces."""


def measure_confusions(
    classify: Callable[[npt.NDArray[np.uint8]], ClassProbabilities],
    rows: Split,
    calibration: VoteCalibration | None,
    rule: CallingRule,
) -> dict[str, dict[str, list[list[int]]]]:
    """The confusion matrices of one split, by the kind of truth and the size in pixels.

    `plurality` (only with votes) is the voters' plurality, `kaggle` the label of FER2013, `given`
    (instead of both) the true class of a face of another data set. The sizes are the keys "48",
    "24" and "20". `classify` maps uint8 [N,48,48] to class probabilities [N,7].
    """
    truths = {}
    if rows.true_classes is not None:
        truths["given"] = rows.true_classes
    else:
        if rows.votes is not None:
            truths["plurality"] = find_plurality(rows.votes)
        truths["kaggle"] = find_labeled(rows.labels)
    confusions: dict[str, dict[str, list[list[int]]]] = {name: {} for name in truths}
    for size_px in SIZES_PX:
        crops = rows.pixels
        if size_px != CROP_PX:
            reduce = downsample(size_px)
            crops = np.array([reduce(crop) for crop in crops], np.uint8).reshape(crops.shape)
        called = call_classes(estimate_probabilities(classify(crops), calibration), rule)
        for name, true in truths.items():
            confusions[name][str(size_px)] = count_confusion(true, called)
    return confusions


def find_plurality(votes: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """The true class of each row by its votes [N,10], as indices into `CALLED_CLASSES`.

    Happy or sad has more votes than each other column; otherwise the row is neither. So a tie of
    happy or sad with another column is neither, and so are "unknown" and "no face".
    """
    true = np.full(len(votes), CALLED_CLASSES.index("neither"), np.intp)
    for called_class, label in (("happy", HAPPY), ("sad", SAD)):
        column = VOTES_OF_CLASS[label]
        others = np.delete(votes, column, axis=1)
        true[votes[:, column] > others.max(axis=1)] = CALLED_CLASSES.index(called_class)
    return true


def find_labeled(labels: npt.NDArray[np.int8]) -> npt.NDArray[np.intp]:
    """The true class of each row by its label [N], as indices into `CALLED_CLASSES`."""
    is_happy, is_sad = labels == HAPPY, labels == SAD
    return np.select([is_happy, is_sad], [0, 1], default=2).astype(np.intp)


def count_confusion(true: npt.NDArray[np.intp], called: npt.NDArray[np.intp]) -> list[list[int]]:
    """The confusion matrix [3][3] of true and called classes [N], as counts."""
    counts = np.zeros((3, 3), np.int64)
    np.add.at(counts, (true, called), 1)
    table: list[list[int]] = counts.tolist()
    return table


def read_confusion(card: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
    """The matrix with which rates are corrected, float64 [3,3], of a card as a JSON object.

    It counts PublicTest by the voters' plurality, for crops that are not reduced. None if the card
    has none: its CNN was trained without votes, or by a version that did not count them.
    """
    by_truth = (card.get("confusions") or {}).get("PublicTest") or {}
    counts = (by_truth.get("plurality") or {}).get(str(CROP_PX))
    return None if counts is None else np.array(counts, np.float64)
