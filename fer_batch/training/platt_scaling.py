"""Platt scaling of Happy against Sad after training, fitted on PublicTest.

The FER+ voters call a face sad far less often than Kaggle's labels do. A network trained on both is
therefore biased towards Happy and over- or underconfident. Platt scaling (Platt 1999) corrects both
with two parameters, the scale and the offset of the margin between the two logits. They are fitted
by maximum likelihood and become part of the last layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_batch.model.fer2013 import HAPPY, SAD
from fer_batch.model.probabilities import ClassProbabilities


class PlattScaling(NamedTuple):
    """The calibrated P(Sad | Happy or Sad) is 1 / (1 + exp(-(scale · margin + offset)))."""

    scale: float
    offset: float


def fit(probabilities: ClassProbabilities, labels: NDArray[np.int8]) -> PlattScaling:
    """The parameters that maximize the likelihood of the rows labeled Happy or Sad.

    `probabilities` is [N,7], `labels` is [N]; the margin is log(p_sad / p_happy). Returns the
    identity (1, 0) if one of the two labels is missing or if the fitted scale is not positive.
    """
    is_polar = np.isin(labels, (HAPPY, SAD))
    polar = probabilities[is_polar].astype(np.float64).clip(1e-12)
    margin = np.log(polar[:, SAD] / polar[:, HAPPY])
    is_sad = (labels[is_polar] == SAD).astype(np.float64)
    if len(is_sad) == 0 or is_sad.min() == is_sad.max():
        return PlattScaling(1.0, 0.0)
    inputs = np.stack([margin, np.ones_like(margin)], axis=1)
    parameters = np.array([1.0, 0.0])
    # Newton's method on a convex loss. A normal prior around (1, 0) with weight 1 keeps the scale
    # finite if the margin separates the rows perfectly.
    for _ in range(100):
        p_sad = 1 / (1 + np.exp(-(inputs @ parameters).clip(-500, 500)))
        gradient = inputs.T @ (p_sad - is_sad) + (parameters - (1.0, 0.0))
        hessian = (inputs * (p_sad * (1 - p_sad))[:, None]).T @ inputs + np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # Where the loss is almost linear, a full step could overshoot the minimum.
        parameters -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    # Rounded: the last bits of a prediction depend on threads and must not change the artifact.
    scale, offset = (round(float(parameter), 4) for parameter in parameters)
    return (
        PlattScaling(scale, offset)
        if scale > 0 and np.isfinite(parameters).all()
        else PlattScaling(1.0, 0.0)
    )


def apply(model: Any, scaling: PlattScaling) -> None:
    """Apply the scaling to the last layer of a Keras model.

    The mean of the logits of Happy and Sad and all other logits stay unchanged.
    """
    layer = model.get_layer("logits")
    kernel, bias = (np.asarray(weights).copy() for weights in (layer.kernel, layer.bias))
    for weights, offset in ((kernel, 0.0), (bias, scaling.offset)):
        happy, sad = weights[..., HAPPY].copy(), weights[..., SAD].copy()
        middle, half = (happy + sad) / 2, (scaling.scale * (sad - happy) + offset) / 2
        weights[..., HAPPY], weights[..., SAD] = middle - half, middle + half
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
