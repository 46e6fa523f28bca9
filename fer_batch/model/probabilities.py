"""From the CNN's seven class probabilities to p_happy, p_sad and p_neither, and the called class.

The CNN's probabilities of happy and sad follow the labels of FER2013. A `VoteCalibration`, part of
the card, turns all seven into the shares of ten people who would call the face happy, sad or
anything else. A CNN whose card has none (it was trained without the FER+ votes) keeps its own
probabilities, merged. Running the CNN is left to classifier.py, fitting to
training/vote_calibration.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from fer_batch.model.fer2013 import CLASSES, HAPPY, SAD, VOTES_OF_CLASS
from fer_batch.records import CalledClass, CallingRule

ClassProbabilities = npt.NDArray[np.float32]
"""[N,7] probabilities (0 to 1) in the order of `fer2013.CLASSES`, rows sum to 1."""
Probabilities = npt.NDArray[np.float32]
"""[N,3] p_happy, p_sad, p_neither, each 0 to 1. Rows sum to 1."""

CALLED_CLASSES = tuple(CalledClass)
"""Happy, sad, neither: the order of the columns of `Probabilities` and of confusion matrices."""
MAJORITY_RULE = CallingRule(happy_from=0.5, sad_from=0.5)
"""The calling rule of a card that has none."""
MIN_PROBABILITY = 1e-6
"""Smaller class probabilities count as this, so that their logarithms stay finite."""

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Weights = Annotated[
    tuple[_Number, ...], Field(min_length=len(CLASSES), max_length=len(CLASSES), strict=False)
]


class VoteCalibration(BaseModel):
    """A multinomial logistic model of the voters' shares, as the card has it.

    The features of a face are the logarithms of its class probabilities. p_happy, p_sad and
    p_neither are the softmax of three scores: two linear in the features, for happy and sad, and 0
    for neither.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    features: Literal["ln(max(p, 1e-6)) of each class"] = "ln(max(p, 1e-6)) of each class"
    """p are the class probabilities in the order of the card's `output.classes`."""
    weights: Annotated[tuple[_Weights, _Weights], Field(strict=False)]
    """[2][7]: of happy and of sad, one for each class."""
    intercepts: Annotated[tuple[_Number, _Number], Field(strict=False)]
    """Of happy and of sad."""

    def apply(self, class_probabilities: ClassProbabilities) -> Probabilities:
        """Class probabilities [N,7] to the expected shares of voters, float32 [N,3]."""
        scores = np.zeros((len(class_probabilities), 3))
        scores[:, :2] = compute_features(class_probabilities) @ np.transpose(self.weights)
        scores[:, :2] += self.intercepts
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        shares /= shares.sum(axis=1, keepdims=True)
        return shares.astype(np.float32)


def compute_features(class_probabilities: ClassProbabilities) -> npt.NDArray[np.float64]:
    """The features of `VoteCalibration`, [N,7]: natural logarithms of the class probabilities, each
    at least `MIN_PROBABILITY`."""
    features: npt.NDArray[np.float64] = np.log(
        np.maximum(class_probabilities.astype(np.float64), MIN_PROBABILITY)
    )
    return features


def estimate_probabilities(
    class_probabilities: ClassProbabilities, calibration: VoteCalibration | None
) -> Probabilities:
    """Class probabilities [N,7] to p_happy, p_sad and p_neither [N,3].

    Without a calibration they are the CNN's own: those of happy and sad, and the sum of the others.
    """
    if calibration is None:
        return merge_classes(class_probabilities)
    return calibration.apply(class_probabilities)


def merge_classes(class_probabilities: ClassProbabilities) -> Probabilities:
    """Class probabilities [N,7] to [N,3]: those of happy, of sad, and the sum of the other five,
    each clipped to 0 to 1."""
    happy, sad = class_probabilities[:, HAPPY], class_probabilities[:, SAD]
    neither = class_probabilities.sum(axis=1) - happy - sad
    merged: Probabilities = np.stack([happy, sad, neither], axis=1)
    return merged.clip(0, 1)


def compute_vote_shares(votes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Votes [N,10] to the shares of the voters who chose happy, sad and anything else, [N,3].

    "Anything else" includes contempt, "unknown" and "no face", and is the share of a row that has
    no votes.
    """
    counts = votes.astype(np.float64)
    polar = counts[:, [VOTES_OF_CLASS[HAPPY], VOTES_OF_CLASS[SAD]]]
    shares = polar / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.concatenate([shares, 1 - shares.sum(axis=1, keepdims=True)], axis=1)


def call_classes(probabilities: Probabilities, rule: CallingRule) -> npt.NDArray[np.intp]:
    """What the rule calls each face, as indices [N] into `CALLED_CLASSES`."""
    indices = {called_class: index for index, called_class in enumerate(CALLED_CLASSES)}
    called = [indices[rule.call(p_happy, p_sad)] for p_happy, p_sad, _ in probabilities.tolist()]
    return np.array(called, np.intp)
