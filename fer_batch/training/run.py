"""One training run from Kaggle's archive to the artefact with its card: `train`.

Reads the data, leaves copies of test rows out, trains, balances Happy against Sad on PublicTest,
exports, quantises where that costs little on PublicTest, chooses the threshold there, and only
then looks at PrivateTest, to write its figures down.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_batch import fer2013
from fer_batch.errors import ConfigurationError
from fer_batch.evaluation import (
    Classify,
    choose_uncertain_below,
    found_by_detector,
    measure,
)
from fer_batch.fer2013 import Split
from fer_batch.log import logger
from fer_batch.model_card import as_markdown
from fer_batch.resources import artefacts_dir
from fer_batch.settings import Settings
from fer_batch.training import teacher
from fer_batch.training.recipe import Recipe

log = logger(__name__)

SHIPPED_SOFT_LABELS = artefacts_dir() / "fer48.soft_labels.npz"


def train(
    data: Path,
    votes: Path | None,
    out_dir: Path,
    name: str,
    recipe: Recipe | None = None,
    resume: bool = False,
    threads: int | None = None,
    soft_labels: Path | None = None,
) -> dict[str, Any]:
    """Train on FER2013 and write `<name>.onnx`, `.json` and `.md` into `out_dir`; the card.

    `<name>.checkpoint.npz` beside them, and `<name>.checkpoint.finish.npz`, let `resume` go on
    after a kill. `threads` None means every core. `soft_labels` None means those that ship, where
    the recipe has a weight for them.
    Raises ConfigurationError for data, votes, a name or a checkpoint that do not fit
    and where the extra [train] is not installed, ModelError where the export fails its check.
    """
    recipe = recipe or Recipe()
    _check(name)
    if soft_labels is not None and recipe.teacher_weight == 0:
        raise ConfigurationError(
            f"the recipe gives the soft labels of {soft_labels} no weight",
            "Leave them out, or give the recipe a teacher_weight",
        )
    splits = fer2013.read(data, votes)
    copies = fer2013.training_copies(splits)
    training, public = splits["Training"].only(~copies), splits["PublicTest"]
    if len(training) < recipe.batch or len(public) == 0:
        raise ConfigurationError(
            f"{data} has {len(training)} rows to train on and {len(public)} of PublicTest",
            f"Give the whole of FER2013; a batch takes {recipe.batch}",
        )
    taught, teacher_sha256 = None, None
    if recipe.teacher_weight > 0:
        taught, teacher_sha256 = teacher.read(soft_labels or SHIPPED_SOFT_LABELS, training)
    log.info("data read", training=len(training), copies_left_out=int(copies.sum()))

    # TensorFlow takes long to import and takes its threads only once: wrong data is told before.
    _use_threads(threads)
    from fer_batch.training import balance, export, network, quantisation
    from fer_batch.training.fit import predict

    out_dir.mkdir(parents=True, exist_ok=True)
    facts = _data_facts(data, votes, splits, int(copies.sum()))
    facts["teacher_sha256"] = teacher_sha256
    data_hash = f"{facts['sha256']} {facts['votes_sha256']} {teacher_sha256}"
    checkpoints = out_dir / name
    model, seconds = _trained(training, public, recipe, checkpoints, data_hash, resume, taught)
    balanced = balance.fit(predict(model, public.pixels), public.labels)
    balance.apply(model, balanced)
    artefact, classify, difference = export.to_onnx(model, public.pixels)
    eight_bits = None
    if recipe.is_quantised:
        artefact, classify, eight_bits = quantisation.where_it_costs_little(
            artefact, classify, training.pixels, public
        )
    uncertain_below = choose_uncertain_below(classify(public.pixels), public.labels)
    card = export.write(
        artefact,
        out_dir,
        name,
        uncertain_below,
        {
            "multiply_adds": network.multiply_adds(model),
            "parameters": int(model.count_params()),
            "eight_bits": eight_bits,
            "recipe": recipe.model_dump(mode="json"),
            "data": facts,
            "training": _training_facts(seconds, threads, difference, balanced),
            "metrics": _metrics(classify, splits, uncertain_below),
            "detector": found_by_detector(splits["PrivateTest"], Settings()),
        },
    )
    (out_dir / f"{name}.md").write_text(as_markdown(card), encoding="utf-8")
    log.info("artefact written", card=str(out_dir / f"{name}.json"), bytes=len(artefact))
    return card


def _trained(
    training: Split,
    public: Split,
    recipe: Recipe,
    checkpoints: Path,
    data_hash: str,
    resume: bool,
    taught: NDArray[np.float32] | None,
) -> tuple[Any, float]:
    """The network after all epochs and, where the recipe has one, its finish; and the seconds.

    Checkpoints are `checkpoints` with `.checkpoint.npz` and `.checkpoint.finish.npz` at its end.
    """
    from fer_batch.training.fit import fit, mean_of

    first = recipe.before_finish()
    path = checkpoints.with_name(f"{checkpoints.name}.checkpoint.npz")
    path_of_finish = checkpoints.with_name(f"{checkpoints.name}.checkpoint.finish.npz")
    resume = resume and path.exists()
    if not resume:
        # A finish that began from another network must not be averaged with this one.
        path_of_finish.unlink(missing_ok=True)
    model, seconds = fit(
        training, public, first, path, data_hash, resume=resume, soft_labels=taught
    )
    if recipe.finish is None:
        return model, seconds
    log.info("finishing", epochs=recipe.finish.epochs)
    before = model.get_weights()
    model, more_seconds = fit(
        training,
        public,
        recipe.of_finish(recipe.finish),
        path_of_finish,
        f"{data_hash} after {first.fingerprint()}",
        resume=resume,
        soft_labels=taught,
        start=before,
    )
    mean_of(model, before, recipe.finish.weight)
    return model, seconds + more_seconds


def _check(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(
            f"{name!r} cannot name an artefact", "Use letters, digits, dots, dashes, underscores"
        )
    missing = [p for p in ("tensorflow", "keras", "tf2onnx", "onnx") if find_spec(p) is None]
    if missing:
        raise ConfigurationError(
            f"training needs {', '.join(missing)}",
            "Install the extra: pip install 'fer-batch[train]'",
        )


def _use_threads(threads: int | None) -> None:
    import tensorflow as tf

    if threads is None:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        # TensorFlow takes this only before its first operation in the process.
        log.warning("threads kept", todo="Call train first in a process to set its threads")


def _data_facts(
    data: Path, votes: Path | None, splits: dict[str, Split], copies: int
) -> dict[str, Any]:
    return {
        "name": "FER2013 (Goodfellow et al. 2013)",
        "licence": "Kaggle's competition terms; the pixels may not be passed on",
        "file": data.name,
        "sha256": _sha256(data),
        "votes": None if votes is None else "FER+ (Barsoum et al. 2016, MIT licence)",
        "votes_sha256": None if votes is None else _sha256(votes),
        "rows": {usage: len(split) for usage, split in splits.items()},
        "training_rows_left_out": copies,
    }


def _training_facts(
    seconds: float, threads: int | None, difference: float, balanced: tuple[float, float]
) -> dict[str, Any]:
    packages = ("keras", "tensorflow-cpu", "tf2onnx", "onnxruntime", "numpy")
    return {
        "seconds": round(seconds),
        "threads": threads or os.cpu_count(),
        "machine": platform.machine(),
        "packages": {package: version(package) for package in packages},
        "sad_scale": round(balanced[0], 4),
        "sad_offset": round(balanced[1], 4),
        "largest_difference_keras_onnx": difference,
    }


def _metrics(
    classify: Classify, splits: dict[str, Split], uncertain_below: float
) -> dict[str, Any]:
    return {
        usage: measure(classify, splits[usage], uncertain_below)
        for usage in ("PublicTest", "PrivateTest")
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
