"""mini-Xception in Keras: the architecture of the network that the `fer` package runs.

For speed alone: its weights are random. Source: O. Arriaga, M. Valdenegro-Toro, P. Plöger,
"Real-time Convolutional Neural Networks for Emotion and Gender Classification", 2017.
"""

from __future__ import annotations

from typing import Any

from keras import Input, Model, layers

INPUT_PX = 64
CLASSES = 7
WIDTHS = (16, 32, 64, 128)
PARAMETERS = 58_423
"""As the `fer` package's file has."""


def build() -> Any:
    """A Keras model: float32 [N,64,64,1] in -1 to 1 → probabilities float32 [N,7]."""
    picture = Input((INPUT_PX, INPUT_PX, 1))
    x = picture
    for _ in range(2):
        x = layers.Conv2D(8, 3, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    for width in WIDTHS:
        short = layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False)(x)
        short = layers.BatchNormalization()(short)
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.Add()([layers.MaxPooling2D(3, strides=2, padding="same")(x), short])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(CLASSES, 3, padding="same")(x))
    model = Model(picture, layers.Softmax()(x))
    found = model.count_params()
    if found != PARAMETERS:
        raise AssertionError(f"{found} parameters, the published network has {PARAMETERS}")
    return model
