"""The architecture: a small residual network in Keras, from raw crops to class probabilities.

The blocks are those of He, Zhang, Ren, Sun (2016). Normalization is part of the graph, so callers
pass raw pixels. Training is left to fit.py, exporting to export.py.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from fer_batch.model.fer2013 import CLASSES, CROP_PX
from fer_batch.training.recipe import Recipe

VARIANCE_FLOOR = 25.0
"""Added to the variance of a crop (in squared gray values), so that the noise of a flat crop is
not amplified."""


class Standardize(layers.Layer):  # type: ignore[misc]
    """uint8 [N,48,48] → float32 [N,48,48,1], each crop with mean 0 and about unit variance.

    Because each crop is standardized, brightness and contrast of the camera have little influence.
    """

    def call(self, crops: Any) -> Any:
        gray = ops.expand_dims(ops.cast(crops, "float32"), -1)
        centered = gray - ops.mean(gray, axis=(1, 2, 3), keepdims=True)
        variance = ops.mean(ops.square(centered), axis=(1, 2, 3), keepdims=True)
        return centered / ops.sqrt(variance + VARIANCE_FLOOR)


class AppendMirrored(layers.Layer):  # type: ignore[misc]
    """[N,48,48] → [2N,48,48]: the crops, followed by their mirror images."""

    def call(self, crops: Any) -> Any:
        return ops.concatenate([crops, crops[:, :, ::-1]], axis=0)


class AverageMirrored(layers.Layer):  # type: ignore[misc]
    """[2N,7] → [N,7]: the mean of the logits of a crop and of its mirror image."""

    def call(self, logits: Any) -> Any:
        return ops.mean(ops.reshape(logits, (2, -1, len(CLASSES))), axis=0)


def build(recipe: Recipe) -> Any:
    """A Keras model: `crops` uint8 [N,48,48] → `probabilities` float32 [N,7], rows sum to 1.

    With `is_mirrored`, a crop and its mirror image get the same probabilities, computed from the
    mean of their logits. The number and shapes of the weights do not depend on `is_mirrored`.
    """
    crops = keras.Input((CROP_PX, CROP_PX), dtype="uint8", name="crops")
    views = AppendMirrored(name="append_mirrored")(crops) if recipe.is_mirrored else crops
    x = _add_convolution(Standardize(name="standardize")(views), recipe.stem_width, stride=2)
    for number, stage in enumerate(recipe.stages):
        for index in range(stage.blocks):
            x = _add_residual_block(x, stage.width, stride=2 if number > 0 and index == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(recipe.dropout, seed=recipe.seed)(x)
    logits = layers.Dense(len(CLASSES), dtype="float32", name="logits")(x)
    if recipe.is_mirrored:
        logits = AverageMirrored(dtype="float32", name="average_mirrored")(logits)
    return keras.Model(crops, layers.Softmax(dtype="float32", name="probabilities")(logits))


def _add_convolution(
    x: Any, width: int, stride: int, *, size: int = 3, has_relu: bool = True
) -> Any:
    """Convolution and batch normalization, by default with ReLU."""
    x = layers.Conv2D(
        width, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    x = layers.BatchNormalization(momentum=0.98, epsilon=1e-3)(x)
    return layers.ReLU()(x) if has_relu else x


def _add_residual_block(x: Any, width: int, stride: int) -> Any:
    inner = _add_convolution(x, width, stride)
    inner = _add_convolution(inner, width, 1, has_relu=False)
    if stride != 1 or x.shape[-1] != width:
        shortcut = layers.AveragePooling2D(stride)(x) if stride != 1 else x
        x = _add_convolution(shortcut, width, 1, size=1, has_relu=False)
    return layers.ReLU()(layers.Add()([inner, x]))


def count_multiply_adds(model: Any) -> int:
    """The multiply-adds of the convolutions and dense layers for one crop."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            # The kernel is applied once per output pixel.
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    views = 2 if any(isinstance(layer, AppendMirrored) for layer in model.layers) else 1
    return views * total
