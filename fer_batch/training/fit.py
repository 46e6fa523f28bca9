"""Optimization: SGD with a cosine schedule, averaged weights and a checkpoint after every epoch.

An interrupted run resumes from its checkpoint with the same batches and the same schedule. The
result is the exponential moving average of the weights, which is evaluated on PublicTest during
training; PrivateTest is never passed to this module.
"""

from __future__ import annotations

import math
import time
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from fer_batch.errors import ConfigurationError
from fer_batch.files import replacing
from fer_batch.log import get_logger
from fer_batch.model.evaluation import compute_metrics
from fer_batch.model.fer2013 import CLASSES, Split
from fer_batch.training import network
from fer_batch.training.data import HAPPY_SAD_COLUMNS, AugmentedBatches
from fer_batch.training.recipe import Recipe
from fer_batch.training.sam import SharpnessAwareModel

log = get_logger(__name__)

Weights = list[NDArray[np.float32]]
"""The weights of a Keras model, in the order of `get_weights`."""

EVALUATION_INTERVAL_EPOCHS = 5
"""Epochs between two evaluations on PublicTest."""


class WarmupCosineDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Linear warmup to the peak rate, then cosine decay to 0 (Loshchilov, Hutter 2016)."""

    def __init__(self, peak: float, warmup_steps: float, steps: int) -> None:
        self._peak, self._warmup, self._steps = peak, warmup_steps, steps

    def __call__(self, step: Any) -> Any:
        done = ops.cast(step, "float32") + 1.0
        rise = done / max(self._warmup, 1.0)
        progress = (done - self._warmup) / max(self._steps - self._warmup, 1.0)
        fall = 0.5 * (1 + ops.cos(math.pi * ops.clip(progress, 0.0, 1.0)))
        return self._peak * ops.minimum(rise, fall)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; required by Keras."""
        return {"peak": self._peak, "warmup_steps": self._warmup, "steps": self._steps}


def fit(
    training: Split,
    public: Split,
    recipe: Recipe,
    checkpoint: Path,
    data_hash: str,
    *,
    resume: bool,
    soft_labels: NDArray[np.float32] | None = None,
    start: Weights | None = None,
) -> tuple[Any, float]:
    """Train a network; returns the Keras model with averaged weights, and the seconds of all steps,
    including those before an interruption.

    `soft_labels` float32 [N,7] are a teacher's probabilities for the N rows of `training`. `start`
    are the initial weights; None initializes them randomly. Fine-tuning is left to `run.train`.
    Writes `checkpoint` after every epoch and, with `resume`, continues from it if it exists. Raises
    ConfigurationError if the checkpoint cannot be read or belongs to another recipe or other data.
    """
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.precision)
    model = network.build(recipe.model_copy(update={"is_mirrored": False}))
    if start is not None:
        model.set_weights(start)
    batches = AugmentedBatches(training, recipe, soft_labels)
    optimizer = _build_optimizer(recipe, len(batches))
    optimizer.build(model.trainable_variables)
    identity = f"{recipe.compute_fingerprint()} {data_hash}"
    run = _TrainingCallback(model, optimizer, recipe, public, checkpoint, identity)
    first_epoch = run.restore() if resume and checkpoint.exists() else 0
    for trained, last_epoch in _split_phases(model, recipe):
        if first_epoch < last_epoch:
            # On a CPU, XLA's convolutions are slower than oneDNN's.
            trained.compile(
                optimizer, _build_loss(recipe.pair_weight), metrics=[accuracy], jit_compile=False
            )
            batches.start_epoch(first_epoch)
            trained.fit(
                batches,
                initial_epoch=first_epoch,
                epochs=last_epoch,
                verbose=0,
                shuffle=False,
                callbacks=[run],
            )
            first_epoch = last_epoch
    return run.build_averaged_model(), run.seconds


def average_weights(model: Any, weights: Weights, model_weight: float) -> None:
    """Set `model` to the weighted mean of its weights (with `model_weight`, 0 to 1) and of
    `weights`."""
    pairs = zip(model.get_weights(), weights, strict=True)
    model.set_weights([model_weight * old + (1 - model_weight) * new for old, new in pairs])


def _build_optimizer(recipe: Recipe, steps_per_epoch: int) -> Any:
    optimizer = keras.optimizers.SGD(
        WarmupCosineDecay(
            recipe.learning_rate,
            recipe.warmup_epochs * steps_per_epoch,
            recipe.epochs * steps_per_epoch,
        ),
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    # Scales and offsets do not overfit.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _split_phases(model: Any, recipe: Recipe) -> list[tuple[Any, int]]:
    """The Keras model of each phase (plain steps, then SAM), and the epoch at which it ends."""
    first_sam_epoch = recipe.first_sam_epoch
    if first_sam_epoch == recipe.epochs:
        return [(model, recipe.epochs)]
    ascent_crops = max(1, round(recipe.sharpness_share * recipe.batch))
    sam_model = SharpnessAwareModel(model, recipe.sharpness_radius, ascent_crops)
    return [(model, first_sam_epoch), (sam_model, recipe.epochs)]


def _build_loss(pair_weight: float) -> Any:
    """Cross-entropy of the seven classes, plus that of Happy against Sad in rows with a pair."""

    def loss(targets: Any, predictions: Any) -> Any:
        log_predictions = ops.log(ops.clip(predictions, 1e-7, 1.0))
        class_loss = -ops.sum(targets[:, : len(CLASSES)] * log_predictions, axis=1)
        pair = ops.take(predictions, HAPPY_SAD_COLUMNS, axis=1)
        pair = pair / ops.maximum(ops.sum(pair, axis=1, keepdims=True), 1e-7)
        log_pair = ops.log(ops.clip(pair, 1e-7, 1.0))
        pair_loss = -ops.sum(targets[:, len(CLASSES) :] * log_pair, axis=1)
        return ops.mean(class_loss + pair_weight * pair_loss)

    return loss


def accuracy(targets: Any, predictions: Any) -> Any:
    """Share of rows whose most probable class is that of the target (0 to 1).

    Keras names the metric after this function, hence a noun.
    """
    is_same = ops.argmax(targets[:, : len(CLASSES)], axis=1) == ops.argmax(predictions, axis=1)
    return ops.mean(ops.cast(is_same, "float32"))


class _TrainingCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Averages the weights, logs progress and writes checkpoints."""

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        recipe: Recipe,
        public: Split,
        checkpoint: Path,
        identity: str,
    ) -> None:
        super().__init__()
        self._trained = model
        self._optimizer = optimizer
        self._recipe = recipe
        self._public = public
        self._checkpoint = checkpoint
        self._identity = identity
        self._average: Weights = [np.array(w) for w in model.get_weights()]
        keras.config.set_dtype_policy("float32")
        self._averaged_model = network.build(recipe)
        self._step = 0
        self._epoch_began = 0.0
        self.seconds = 0.0

    def build_averaged_model(self) -> Any:
        """The network with the averaged weights; one model that every call updates."""
        self._averaged_model.set_weights(self._average)
        return self._averaged_model

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._epoch_began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._step += 1
        every = self._recipe.average_every
        if self._step > every and self._step % every:
            return
        # A smaller decay at first: otherwise the random initial weights would dominate for long.
        decay = min(self._recipe.average_decay, (1 + self._step) / (10 + self._step))
        decay **= every
        for average, current in zip(self._average, self._trained.get_weights(), strict=True):
            average += (current - average) * np.float32(1 - decay)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds += time.monotonic() - self._epoch_began
        self._save(epoch + 1)
        done, epochs = epoch + 1, self._recipe.epochs
        work, total_work = self._recipe.compute_work(done), self._recipe.compute_work(epochs)
        is_evaluated = done == epochs or done % EVALUATION_INTERVAL_EPOCHS == 0
        metrics = self._evaluate() if is_evaluated else {}
        log.info(
            "epoch trained",
            epoch=f"{done}/{epochs}",
            loss=round(float((logs or {}).get("loss", math.nan)), 4),
            accuracy=round(float((logs or {}).get("accuracy", math.nan)), 4),
            epoch_s=round(time.monotonic() - self._epoch_began, 1),
            remaining_s=round(self.seconds / work * (total_work - work)),
            **metrics,
        )

    def _evaluate(self) -> dict[str, float | None]:
        if len(self._public) == 0:
            return {}
        probabilities = predict(self.build_averaged_model(), self._public.pixels)
        metrics = compute_metrics(probabilities, self._public)
        return {
            "public_happy_sad": metrics["happy_sad"]["accuracy"],
            "public_seven": metrics["seven"]["accuracy"],
        }

    def _list_variables(self) -> list[Any]:
        """The weights, the optimizer's state, and the state of dropout's random generator."""
        weights = {id(weight) for weight in self._trained.weights}
        random_state = [v for v in self._trained.variables if id(v) not in weights]
        return [*self._trained.weights, *self._optimizer.variables, *random_state]

    def _save(self, epochs_done: int) -> None:
        variables = self._list_variables()
        arrays: dict[str, Any] = {f"v{i}": np.asarray(v) for i, v in enumerate(variables)}
        arrays |= {f"a{i}": a for i, a in enumerate(self._average)}
        with replacing(self._checkpoint) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                identity=np.array(self._identity),
                progress=np.array([epochs_done, self._step, self.seconds]),
                **arrays,
            )

    def restore(self) -> int:
        """Load the checkpoint; returns the number of epochs that it has finished."""
        hint = "Remove it to start again, or train under another name"
        try:
            with np.load(self._checkpoint, allow_pickle=False) as saved:
                if str(saved["identity"]) != self._identity:
                    raise ConfigurationError(
                        f"{self._checkpoint} belongs to another recipe or other data", hint
                    )
                for index, variable in enumerate(self._list_variables()):
                    variable.assign(saved[f"v{index}"])
                self._average = [saved[f"a{i}"] for i in range(len(self._average))]
                epochs_done, step, self.seconds = (float(x) for x in saved["progress"])
        except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigurationError(f"{self._checkpoint} cannot be read: {error}", hint) from error
        self._step = int(step)
        log.info("resumed", checkpoint=str(self._checkpoint), epochs_done=int(epochs_done))
        return int(epochs_done)


def predict(model: Any, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The class probabilities float32 [N,7] of a Keras model for crops uint8 [N,48,48]."""
    return np.asarray(model.predict(crops, batch_size=256, verbose=0), np.float32)
