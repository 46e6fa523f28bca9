"""Balances and calibrates Happy against Sad after training, on PublicTest.

The FER+ voters call a face sad far less often than Kaggle's label does, so a network that learned
from both leans towards Happy, and is surer or less sure than it is right. Two numbers put that
right (Platt 1999): the margin between the two logits is scaled and moved. They are found by
maximum likelihood and become part of the last layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_batch.evaluation import Seven
from fer_batch.fer2013 import HAPPY, SAD


class Balance(NamedTuple):
    """P(Sad), of Happy and Sad, becomes 1 / (1 + exp(-(scale · margin + offset)))."""

    scale: float
    offset: float


def fit(probabilities: Seven, labels: NDArray[np.int8]) -> Balance:
    """The balance that maximises the likelihood of the rows labelled Happy or Sad.

    The margin is log(p_sad / p_happy). (1, 0), which changes nothing, where one of the two labels
    is missing or the rows tell no scale above 0.
    """
    polar = np.isin(labels, (HAPPY, SAD))
    chances = probabilities[polar].astype(np.float64).clip(1e-12)
    margin = np.log(chances[:, SAD] / chances[:, HAPPY])
    is_sad = (labels[polar] == SAD).astype(np.float64)
    if len(is_sad) == 0 or is_sad.min() == is_sad.max():
        return Balance(1.0, 0.0)
    inputs = np.stack([margin, np.ones_like(margin)], axis=1)
    found = np.array([1.0, 0.0])
    # Newton's steps on a convex loss. The prior of weight 1 round (1, 0) keeps rows that a margin
    # separates without an error from driving the scale up for ever.
    for _ in range(100):
        sad = 1 / (1 + np.exp(-(inputs @ found).clip(-500, 500)))
        slope = inputs.T @ (sad - is_sad) + (found - (1.0, 0.0))
        curve = (inputs * (sad * (1 - sad))[:, None]).T @ inputs + np.eye(2)
        step = np.linalg.solve(curve, slope)
        # A long step may fly past the minimum where the loss is nearly straight.
        found -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    # Rounded, so that the last bits of a prediction, which threads decide, do not change the file.
    scale, offset = (round(float(number), 4) for number in found)
    return Balance(scale, offset) if scale > 0 and np.isfinite(found).all() else Balance(1.0, 0.0)


def apply(model: Any, balance: Balance) -> None:
    """Change the model's last layer so; the mean of the two logits and the others stay."""
    layer = model.get_layer("logits")
    kernel, bias = (np.asarray(numbers).copy() for numbers in (layer.kernel, layer.bias))
    for numbers, moved in ((kernel, 0.0), (bias, balance.offset)):
        happy, sad = numbers[..., HAPPY].copy(), numbers[..., SAD].copy()
        middle, half = (happy + sad) / 2, (balance.scale * (sad - happy) + moved) / 2
        numbers[..., HAPPY], numbers[..., SAD] = middle - half, middle + half
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
