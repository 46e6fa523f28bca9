"""The calibration to the voters' shares and the calling rule, both fitted on PublicTest.

The CNN calls a face sad as often as Kaggle's labels do; the ten FER+ voters do so far less often
and call most of the others neutral. The calibration maps the seven class probabilities to the
voters' shares, without training the CNN again. Applying it is left to model/probabilities.py.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_batch.model.fer2013 import CONSENSUS_VOTES, SAD, VOTES_OF_CLASS
from fer_batch.model.probabilities import (
    MAJORITY_RULE,
    ClassProbabilities,
    Probabilities,
    VoteCalibration,
    compute_features,
    compute_vote_shares,
)
from fer_batch.records import CallingRule

L2_WEIGHT: Final = 1.0
"""Penalty of half the sum of the squared weights, against a loss summed over the rows."""
MIN_SAD_RECALL: Final = Fraction(2, 3)
"""`choose_rule`: the smallest share of the faces that voters call sad which must be called sad."""
_INTERCEPT_L2_WEIGHT = 1e-3
"""Keeps an intercept finite if no voter chose a class; otherwise too small to matter."""
_DECIMALS = 4
"""Rounded: the last bits of a prediction depend on threads and must not change the card."""


def fit(class_probabilities: ClassProbabilities, votes: NDArray[np.float32]) -> VoteCalibration:
    """The calibration that maximizes the penalized likelihood of the votes.

    A multinomial logistic regression by Newton's method: `class_probabilities` [N,7] give the
    features, the shares of `votes` [N,10] for happy, sad and anything else are the target.
    """
    features = compute_features(class_probabilities)
    inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    target = compute_vote_shares(votes)[:, :2]
    penalty = np.array([L2_WEIGHT] * features.shape[1] + [_INTERCEPT_L2_WEIGHT])
    # Rows are happy and sad; the score of neither is 0.
    parameters = np.zeros((2, len(penalty)))
    for _ in range(200):
        shares = _compute_shares(inputs, parameters)
        gradient = (shares - target).T @ inputs + penalty * parameters
        step = np.linalg.solve(_compute_hessian(inputs, shares, penalty), gradient.ravel()).reshape(
            parameters.shape
        )
        # Where the loss is almost linear, a full step could overshoot the minimum.
        parameters -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    happy, sad = ([round(float(parameter), _DECIMALS) for parameter in row] for row in parameters)
    return VoteCalibration(
        weights=(tuple(happy[:-1]), tuple(sad[:-1])), intercepts=(happy[-1], sad[-1])
    )


def choose_rule(probabilities: Probabilities, votes: NDArray[np.float32]) -> CallingRule:
    """The calling rule: happy from one half on; sad by a threshold between sad and neutral.

    The sad threshold is the largest hundredth up to one half at which at least `MIN_SAD_RECALL` of
    the faces that at least `CONSENSUS_VOTES` of ten voters call sad are called sad: a lower one
    would call more neutral faces sad. It is 0.5 if voters call no face sad. `probabilities` is
    [N,3], `votes` is [N,10].
    """
    is_sad = votes[:, VOTES_OF_CLASS[SAD]] >= CONSENSUS_VOTES
    of_sad = probabilities[is_sad].astype(np.float64)
    p_sad = of_sad[of_sad[:, 0] < MAJORITY_RULE.happy_from, 1]
    for hundredths in range(50, 0, -1):
        threshold = hundredths / 100
        if int((p_sad >= threshold).sum()) >= MIN_SAD_RECALL * len(of_sad):
            return CallingRule(MAJORITY_RULE.happy_from, threshold)
    return MAJORITY_RULE


def _compute_shares(
    inputs: NDArray[np.float64], parameters: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The modeled shares of happy and sad, [N,2]."""
    scores = np.concatenate([inputs @ parameters.T, np.zeros((len(inputs), 1))], axis=1)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    polar: NDArray[np.float64] = shares[:, :2] / shares.sum(axis=1, keepdims=True)
    return polar


def _compute_hessian(
    inputs: NDArray[np.float64], shares: NDArray[np.float64], penalty: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The second derivatives of the loss, [16,16]: the parameters of happy before those of sad."""
    blocks = [
        [
            (inputs * (shares[:, one] * ((one == other) - shares[:, other]))[:, None]).T @ inputs
            for other in range(2)
        ]
        for one in range(2)
    ]
    return np.block(blocks) + np.diag(np.tile(penalty, 2))
