"""SAM, sharpness-aware minimization (Foret, Kleiner, Mobahi, Neyshabur 2021).

A SAM step takes the gradient not at the weights but at a point a small distance up the loss from
them. This prefers flat minima, which generalize better to unseen faces.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class SharpnessAwareModel(keras.Model):  # type: ignore[misc]
    """A Keras model that shares the network's weights and trains them with SAM; TensorFlow only.

    `radius` is the Euclidean norm of the ascent step over all weights together. The ascent gradient
    is computed from the first `ascent_crops` crops of each batch: fewer than all save time, and the
    ascent is then steeper for them than for the others (Bahri, Mobahi, Tay 2022).
    """

    def __init__(self, network: Any, radius: float, ascent_crops: int) -> None:
        super().__init__(network.inputs, network.outputs)
        self._radius = radius
        self._ascent_crops = ascent_crops
        self._mean_loss = keras.metrics.Mean("loss")

    def train_step(self, data: tuple[Any, Any]) -> dict[str, Any]:
        """Train on one batch; called by Keras. Loss and metrics are those at the ascended weights.

        `data` is crops uint8 [N,48,48] and targets [N,9].
        """
        crops, targets = data
        weights = self.trainable_variables
        _, _, gradients = self._compute_gradients(
            crops[: self._ascent_crops], targets[: self._ascent_crops]
        )
        scale = self._radius / (tf.linalg.global_norm(gradients) + 1e-12)
        ascent = [gradient * scale for gradient in gradients]
        for weight, change in zip(weights, ascent, strict=True):
            weight.assign_add(change)
        loss, predictions, gradients = self._compute_gradients(crops, targets)
        for weight, change in zip(weights, ascent, strict=True):
            weight.assign_sub(change)
        self.optimizer.apply(gradients, weights)
        self._mean_loss.update_state(loss)
        metrics: dict[str, Any] = self.compute_metrics(crops, targets, predictions)
        return metrics | {"loss": self._mean_loss.result()}

    def _compute_gradients(self, crops: Any, targets: Any) -> tuple[Any, Any, list[Any]]:
        """Loss, predictions and the gradient of each weight."""
        with tf.GradientTape() as tape:
            predictions = self(crops, training=True)
            loss = self.compute_loss(crops, targets, predictions)
        return loss, predictions, tape.gradient(loss, self.trainable_variables)
