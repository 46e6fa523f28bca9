"""mini-Xception in Keras: the architecture of the network in the `fer` package.

It serves only to measure speed: its weights are random. Source: O. Arriaga, M. Valdenegro-Toro,
P. Plöger, "Real-time Convolutional Neural Networks for Emotion and Gender Classification", 2017.
"""

from __future__ import annotations

from typing import Any

from keras import Input, Model, layers

INPUT_PX = 64
CLASSES = 7
WIDTHS = (16, 32, 64, 128)
PARAMETERS = 58_423
"""Number of parameters in the file of the `fer` package."""


def build() -> Any:
    """A Keras model: float32 [N,64,64,1] in -1 to 1 → probabilities float32 [N,7]."""
    image = Input((INPUT_PX, INPUT_PX, 1))
    x = image
    for _ in range(2):
        x = layers.Conv2D(8, 3, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    for width in WIDTHS:
        shortcut = layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False)(x)
        shortcut = layers.BatchNormalization()(shortcut)
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.Add()([layers.MaxPooling2D(3, strides=2, padding="same")(x), shortcut])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(CLASSES, 3, padding="same")(x))
    model = Model(image, layers.Softmax()(x))
    parameters = model.count_params()
    if parameters != PARAMETERS:
        raise AssertionError(f"{parameters} parameters, the published network has {PARAMETERS}")
    return model
