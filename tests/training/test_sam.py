"""A SAM step compared with the same step computed by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from fer_batch.training.sam import SharpnessAwareModel


def train_one_step(
    weight: float,
    radius: float,
    learning_rate: float,
    crops: Any,
    targets: Any,
    ascent_crops: int = 3,
) -> float:
    """The weight of a network of one weight after one step on the mean squared error."""
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False)
    network = keras.Model(inputs, layer(inputs))
    layer.kernel.assign([[weight]])
    trained = SharpnessAwareModel(network, radius, ascent_crops)
    trained.compile(keras.optimizers.SGD(learning_rate), "mse", jit_compile=False)
    trained.fit(crops, targets, batch_size=len(crops), epochs=1, shuffle=False, verbose=0)
    return float(layer.kernel.numpy()[0, 0])


@pytest.mark.parametrize("radius", [1e-6, 0.5])
def test_the_gradient_is_taken_at_the_ascended_weights(radius: float) -> None:
    crops = np.array([[1.0], [2.0], [-3.0]], np.float32)
    targets = 2 * crops
    curvature = 2 * float(np.mean(crops**2))  # the gradient is curvature × (weight - 2)
    ascent = -radius  # ascent from 1.5: away from 2
    expected = 1.5 - 0.01 * curvature * (1.5 + ascent - 2)
    assert train_one_step(1.5, radius, 0.01, crops, targets) == pytest.approx(expected, rel=1e-5)


def test_only_the_first_crops_determine_the_ascent() -> None:
    crops = np.array([[1.0], [2.0], [-3.0]], np.float32)
    targets = 2 * crops
    targets[0] = 1  # for this crop the loss rises with the weight, for all crops it falls
    curvature = 2 * float(np.mean(crops**2))
    best = float(np.sum(crops * targets) / np.sum(crops**2))
    expected = 1.5 - 0.01 * curvature * (1.5 + 0.25 - best)
    assert train_one_step(1.5, 0.25, 0.01, crops, targets, ascent_crops=1) == pytest.approx(
        expected, rel=1e-5
    )
    assert train_one_step(1.5, 0.25, 0.01, crops, targets) > train_one_step(
        1.5, 0.25, 0.01, crops, targets, ascent_crops=1
    )
