"""The CNN: a small residual network in Keras that takes raw crops and gives probabilities.

Normalisation is part of the graph, so whoever scores passes the pixels as they are. Training
and exporting are left to the modules beside this one.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from fer_batch.fer2013 import CLASSES, CROP_PX
from fer_batch.training.recipe import Recipe

FLAT_VARIANCE = 25.0
"""Added to a crop's variance (grey values squared), so that noise of a flat crop stays small."""


class Standardise(layers.Layer):  # type: ignore[misc]
    """uint8 [N,48,48] → float32 [N,48,48,1], each crop with mean 0 and about unit variance.

    Done per crop, light and contrast of the camera hardly matter to what follows.
    """

    def call(self, crops: Any) -> Any:
        grey = ops.expand_dims(ops.cast(crops, "float32"), -1)
        centred = grey - ops.mean(grey, axis=(1, 2, 3), keepdims=True)
        variance = ops.mean(ops.square(centred), axis=(1, 2, 3), keepdims=True)
        return centred / ops.sqrt(variance + FLAT_VARIANCE)


class BothWays(layers.Layer):  # type: ignore[misc]
    """[N,48,48] → [2N,48,48]: the crops, and after them each as a mirror shows it."""

    def call(self, crops: Any) -> Any:
        return ops.concatenate([crops, crops[:, :, ::-1]], axis=0)


class MeanOfBoth(layers.Layer):  # type: ignore[misc]
    """[2N,7] → [N,7]: the mean of what was said of a crop and of its mirror image."""

    def call(self, logits: Any) -> Any:
        return ops.mean(ops.reshape(logits, (2, -1, len(CLASSES))), axis=0)


def build(recipe: Recipe) -> Any:
    """A Keras model: `crops` uint8 [N,48,48] → `probabilities` float32 [N,7], rows sum to 1.

    With `is_mirrored` a crop and its mirror image get the same probabilities, out of the mean of
    their logits; the weights are those of the same network without it.
    """
    crops = keras.Input((CROP_PX, CROP_PX), dtype="uint8", name="crops")
    seen = BothWays(name="both_ways")(crops) if recipe.is_mirrored else crops
    x = _convolution(Standardise(name="standardise")(seen), recipe.stem_width, stride=2)
    for number, stage in enumerate(recipe.stages):
        for index in range(stage.blocks):
            x = _block(x, stage.width, stride=2 if number > 0 and index == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(recipe.dropout, seed=recipe.seed)(x)
    logits = layers.Dense(len(CLASSES), dtype="float32", name="logits")(x)
    if recipe.is_mirrored:
        logits = MeanOfBoth(dtype="float32", name="mean_of_both")(logits)
    return keras.Model(crops, layers.Softmax(dtype="float32", name="probabilities")(logits))


def _convolution(x: Any, width: int, stride: int, *, size: int = 3, active: bool = True) -> Any:
    x = layers.Conv2D(
        width, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    x = layers.BatchNormalization(momentum=0.98, epsilon=1e-3)(x)
    return layers.ReLU()(x) if active else x


def _block(x: Any, width: int, stride: int) -> Any:
    inner = _convolution(x, width, stride)
    inner = _convolution(inner, width, 1, active=False)
    if stride != 1 or x.shape[-1] != width:
        short = layers.AveragePooling2D(stride)(x) if stride != 1 else x
        x = _convolution(short, width, 1, size=1, active=False)
    return layers.ReLU()(layers.Add()([inner, x]))


def multiply_adds(model: Any) -> int:
    """Multiplications of one crop's way through convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            # The kernel is used once per pixel of the output.
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    views = 2 if any(isinstance(layer, BothWays) for layer in model.layers) else 1
    return views * total
