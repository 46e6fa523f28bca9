"""Sharpness-aware steps (Foret, Kleiner, Mobahi, Neyshabur 2021).

A step's gradient is not taken where the weights are but a small way up the loss from there. What
is low there too lies in a wide valley, and answers change less with faces that were never seen.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class SharpnessAware(keras.Model):  # type: ignore[misc]
    """The same network, with the same weights, under another way to train it; on TensorFlow only.

    `radius` is the way up, as the Euclidean norm of all weights' change together. The first `asked`
    crops of each batch say which way that is: fewer than all save time, and the way is then steeper
    for them than for the others (Bahri, Mobahi, Tay 2022).
    """

    def __init__(self, network: Any, radius: float, asked: int) -> None:
        super().__init__(network.inputs, network.outputs)
        self._radius = radius
        self._asked = asked
        self._mean_loss = keras.metrics.Mean("loss")

    def train_step(self, data: tuple[Any, Any]) -> dict[str, Any]:
        """One batch, as Keras asks; its loss and metrics are those after the way up."""
        crops, wanted = data
        weights = self.trainable_variables
        _, _, gradients = self._gradients(crops[: self._asked], wanted[: self._asked])
        scale = self._radius / (tf.linalg.global_norm(gradients) + 1e-12)
        ways = [gradient * scale for gradient in gradients]
        for weight, way in zip(weights, ways, strict=True):
            weight.assign_add(way)
        loss, found, gradients = self._gradients(crops, wanted)
        for weight, way in zip(weights, ways, strict=True):
            weight.assign_sub(way)
        self.optimizer.apply(gradients, weights)
        self._mean_loss.update_state(loss)
        metrics: dict[str, Any] = self.compute_metrics(crops, wanted, found)
        return metrics | {"loss": self._mean_loss.result()}

    def _gradients(self, crops: Any, wanted: Any) -> tuple[Any, Any, list[Any]]:
        with tf.GradientTape() as tape:
            found = self(crops, training=True)
            loss = self.compute_loss(crops, wanted, found)
        return loss, found, tape.gradient(loss, self.trainable_variables)
