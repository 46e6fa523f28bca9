"""The training run: SGD under a cosine schedule, an average of the weights, a checkpoint per epoch.

A killed run goes on from its checkpoint with the same batches and the same schedule. What is
kept is the running average of the weights, and PublicTest is measured on it while training;
PrivateTest is never passed to this module.
"""

from __future__ import annotations

import math
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from fer_batch.errors import ConfigurationError
from fer_batch.evaluation import figures
from fer_batch.fer2013 import CLASSES, Split
from fer_batch.log import logger
from fer_batch.training import network
from fer_batch.training.data import POLAR, Batches
from fer_batch.training.recipe import Recipe
from fer_batch.training.sharpness import SharpnessAware

log = logger(__name__)

Weights = list[NDArray[np.float32]]
"""Of a Keras model, in its own order."""

MEASURED_EVERY = 5
"""Epochs from one look at PublicTest to the next."""


class WarmCosine(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Linear rise to the peak, then half a cosine down to nothing (Loshchilov, Hutter 2016)."""

    def __init__(self, peak: float, warmup_steps: float, steps: int) -> None:
        self._peak, self._warmup, self._steps = peak, warmup_steps, steps

    def __call__(self, step: Any) -> Any:
        done = ops.cast(step, "float32") + 1.0
        rise = done / max(self._warmup, 1.0)
        progress = (done - self._warmup) / max(self._steps - self._warmup, 1.0)
        fall = 0.5 * (1 + ops.cos(math.pi * ops.clip(progress, 0.0, 1.0)))
        return self._peak * ops.minimum(rise, fall)

    def get_config(self) -> dict[str, Any]:
        """Its arguments, as Keras asks."""
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
    """The trained Keras model (with the averaged weights), and the seconds that its steps took in
    all, the epochs before a kill among them.

    `soft_labels` [N of training,7] are a teacher's probabilities for the same rows. `start` are the
    weights to begin with; None begins with chance. The recipe's finish is left to `train`.

    Writes `checkpoint` after every epoch; with `resume` and such a file, goes on from there.
    Raises ConfigurationError where the checkpoint is of another recipe or other data.
    """
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.precision)
    model = network.build(recipe.model_copy(update={"is_mirrored": False}))
    if start is not None:
        model.set_weights(start)
    batches = Batches(training, recipe, soft_labels)
    steps = len(batches)
    optimizer = keras.optimizers.SGD(
        WarmCosine(recipe.learning_rate, recipe.warmup_epochs * steps, recipe.epochs * steps),
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    # Scales and offsets are not what overfits.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(model.trainable_variables)
    run = _Run(model, optimizer, recipe, public, checkpoint, f"{recipe.fingerprint()} {data_hash}")
    first_epoch = run.restore() if resume and checkpoint.exists() else 0
    for trained, last_epoch in _phases(model, recipe):
        if first_epoch < last_epoch:
            # XLA's convolutions are slower than oneDNN's on a CPU.
            trained.compile(
                optimizer, _loss(recipe.pair_weight), metrics=[accuracy], jit_compile=False
            )
            batches.start(first_epoch)
            trained.fit(
                batches,
                initial_epoch=first_epoch,
                epochs=last_epoch,
                verbose=0,
                shuffle=False,
                callbacks=[run],
            )
            first_epoch = last_epoch
    return run.averaged(), run.seconds


def mean_of(model: Any, weights: Weights, weight: float) -> None:
    """Move `model` to the mean of its own weights, which count `weight`, and of `weights`."""
    pairs = zip(model.get_weights(), weights, strict=True)
    model.set_weights([weight * own + (1 - weight) * other for own, other in pairs])


def _phases(model: Any, recipe: Recipe) -> list[tuple[Any, int]]:
    """The network under each way to train it, and the epoch up to which that is used."""
    first_sharp = recipe.first_sharp_epoch
    if first_sharp == recipe.epochs:
        return [(model, recipe.epochs)]
    asked = max(1, round(recipe.sharpness_share * recipe.batch))
    sharpness_aware = SharpnessAware(model, recipe.sharpness_radius, asked)
    return [(model, first_sharp), (sharpness_aware, recipe.epochs)]


def _loss(pair_weight: float) -> Any:
    """Cross-entropy of the seven classes, and of Happy against Sad where the row has a pair."""

    def loss(wanted: Any, found: Any) -> Any:
        likely = ops.log(ops.clip(found, 1e-7, 1.0))
        seven = -ops.sum(wanted[:, : len(CLASSES)] * likely, axis=1)
        pair = ops.take(found, POLAR, axis=1)
        pair = pair / ops.maximum(ops.sum(pair, axis=1, keepdims=True), 1e-7)
        both = -ops.sum(wanted[:, len(CLASSES) :] * ops.log(ops.clip(pair, 1e-7, 1.0)), axis=1)
        return ops.mean(seven + pair_weight * both)

    return loss


def accuracy(wanted: Any, found: Any) -> Any:
    """Share of rows whose likeliest class is that of the target."""
    same = ops.argmax(wanted[:, : len(CLASSES)], axis=1) == ops.argmax(found, axis=1)
    return ops.mean(ops.cast(same, "float32"))


class _Run(keras.callbacks.Callback):  # type: ignore[misc]
    """Averages the weights, logs progress and keeps the checkpoint."""

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
        self._measured = network.build(recipe)
        self._step = 0
        self._epoch_began = 0.0
        self.seconds = 0.0

    def averaged(self) -> Any:
        """The network with the averaged weights."""
        self._measured.set_weights(self._average)
        return self._measured

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._epoch_began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._step += 1
        every = self._recipe.average_every
        if self._step > every and self._step % every:
            return
        # Young averages follow closely, or the random start would weigh in for long.
        decay = min(self._recipe.average_decay, (1 + self._step) / (10 + self._step))
        decay **= every
        for kept, now in zip(self._average, self._trained.get_weights(), strict=True):
            kept += (now - kept) * np.float32(1 - decay)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds += time.monotonic() - self._epoch_began
        self._save(epoch + 1)
        done, epochs = epoch + 1, self._recipe.epochs
        work, all_work = self._recipe.work(done), self._recipe.work(epochs)
        measured = self._measure() if done == epochs or done % MEASURED_EVERY == 0 else {}
        log.info(
            "epoch trained",
            epoch=f"{done}/{epochs}",
            loss=round(float((logs or {}).get("loss", math.nan)), 4),
            accuracy=round(float((logs or {}).get("accuracy", math.nan)), 4),
            epoch_s=round(time.monotonic() - self._epoch_began, 1),
            remaining_s=round(self.seconds / work * (all_work - work)),
            **measured,
        )

    def _measure(self) -> dict[str, float | None]:
        if len(self._public) == 0:
            return {}
        probabilities = predict(self.averaged(), self._public.pixels)
        found = figures(probabilities, self._public, 0.0)
        return {
            "public_happy_sad": found["happy_sad"]["accuracy"],
            "public_seven": found["seven"]["accuracy"],
        }

    def _variables(self) -> list[Any]:
        """Weights, momenta and steps, and where dropout's chance stands."""
        weights = {id(weight) for weight in self._trained.weights}
        chance = [v for v in self._trained.variables if id(v) not in weights]
        return [*self._trained.weights, *self._optimizer.variables, *chance]

    def _save(self, epochs_done: int) -> None:
        arrays: dict[str, Any] = {f"v{i}": np.asarray(v) for i, v in enumerate(self._variables())}
        arrays |= {f"a{i}": a for i, a in enumerate(self._average)}
        partial = self._checkpoint.with_name(self._checkpoint.name + ".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                identity=np.array(self._identity),
                progress=np.array([epochs_done, self._step, self.seconds]),
                **arrays,
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._checkpoint)  # noqa: PTH105

    def restore(self) -> int:
        """Take up the checkpoint; how many epochs it has behind it."""
        todo = "Remove it to begin anew, or train under another name"
        try:
            with np.load(self._checkpoint, allow_pickle=False) as saved:
                if str(saved["identity"]) != self._identity:
                    raise ConfigurationError(
                        f"{self._checkpoint} is of another recipe or other data", todo
                    )
                for index, variable in enumerate(self._variables()):
                    variable.assign(saved[f"v{index}"])
                self._average = [saved[f"a{i}"] for i in range(len(self._average))]
                epochs_done, step, self.seconds = (float(x) for x in saved["progress"])
        except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigurationError(f"{self._checkpoint} cannot be read: {error}", todo) from error
        self._step = int(step)
        log.info("resumed", checkpoint=str(self._checkpoint), epochs_done=int(epochs_done))
        return int(epochs_done)


def predict(model: Any, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N,7] probabilities of a Keras model."""
    return np.asarray(model.predict(crops, batch_size=256, verbose=0), np.float32)
