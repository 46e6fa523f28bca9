"""A sharpness-aware step, against the same step worked out by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from fer_batch.training.sharpness import SharpnessAware


def step(
    weight: float, radius: float, rate: float, crops: Any, wanted: Any, asked: int = 3
) -> float:
    """The weight of a network of one weight after one step on the mean squared error."""
    given = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False)
    network = keras.Model(given, layer(given))
    layer.kernel.assign([[weight]])
    trained = SharpnessAware(network, radius, asked)
    trained.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    trained.fit(crops, wanted, batch_size=len(crops), epochs=1, shuffle=False, verbose=0)
    return float(layer.kernel.numpy()[0, 0])


@pytest.mark.parametrize("radius", [1e-6, 0.5])
def test_the_gradient_is_that_of_the_weights_a_way_up_the_loss(radius: float) -> None:
    crops = np.array([[1.0], [2.0], [-3.0]], np.float32)
    wanted = 2 * crops
    curvature = 2 * float(np.mean(crops**2))  # the gradient is curvature × (weight - 2)
    way = -radius  # up, from 1.5: away from 2
    expected = 1.5 - 0.01 * curvature * (1.5 + way - 2)
    assert step(1.5, radius, 0.01, crops, wanted) == pytest.approx(expected, rel=1e-5)


def test_the_first_crops_alone_say_which_way_is_up() -> None:
    crops = np.array([[1.0], [2.0], [-3.0]], np.float32)
    wanted = 2 * crops
    wanted[0] = 1  # for this crop the loss rises with the weight, for all together it falls
    curvature = 2 * float(np.mean(crops**2))
    best = float(np.sum(crops * wanted) / np.sum(crops**2))
    expected = 1.5 - 0.01 * curvature * (1.5 + 0.25 - best)
    assert step(1.5, 0.25, 0.01, crops, wanted, asked=1) == pytest.approx(expected, rel=1e-5)
    assert step(1.5, 0.25, 0.01, crops, wanted) > step(1.5, 0.25, 0.01, crops, wanted, asked=1)
