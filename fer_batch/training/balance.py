"""Balances Happy against Sad after training, on PublicTest.

The FER+ voters call a face sad far less often than Kaggle's label does, so a network that learned
from both leans towards Happy. One number added to the Sad logit and taken from the Happy one puts
that right; it is found by maximum likelihood and becomes part of the last layer's bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_batch.evaluation import Probabilities
from fer_batch.fer2013 import HAPPY, SAD


def sad_offset(probabilities: Probabilities, labels: NDArray[np.int8]) -> float:
    """The b that maximises the likelihood of P(Sad) = 1 / (1 + exp(-(log p_sad/p_happy + b))).

    Over the rows labelled Happy or Sad; 0.0 where one of the two is missing. The likelihood has
    one maximum, where the expected number of Sad faces equals the true one: bisection finds it.
    """
    polar = np.isin(labels, (HAPPY, SAD))
    chances = probabilities[polar].astype(np.float64).clip(1e-12)
    margin = np.log(chances[:, SAD] / chances[:, HAPPY])
    is_sad = labels[polar] == SAD
    if is_sad.all() or not is_sad.any():
        return 0.0
    low, high = -30.0, 30.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-(margin + middle)))).sum() < is_sad.sum():
            low = middle
        else:
            high = middle
    return (low + high) / 2


def apply(model: Any, offset: float) -> None:
    """Add the offset to the model itself: half to Sad, half from Happy, the others untouched."""
    bias = model.get_layer("logits").bias
    shift = np.zeros(bias.shape, np.float32)
    shift[SAD], shift[HAPPY] = offset / 2, -offset / 2
    bias.assign(np.asarray(bias) + shift)
