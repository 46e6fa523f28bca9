"""One training run from Kaggle's archive to the artifact with its card: `train`.

Reads the data, removes copies of test rows, trains, applies Platt scaling, exports, quantizes if
that costs little, and, if there are votes, fits the calibration to them and chooses the calling
rule; the last five use PublicTest. PrivateTest is held out from every modeling decision: it is only
evaluated at the end, for the card.
"""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_batch.concurrency import count_cpus
from fer_batch.errors import ConfigurationError
from fer_batch.log import get_logger
from fer_batch.model import fer2013
from fer_batch.model.confusion import measure_confusions
from fer_batch.model.evaluation import Classify, count_detected_faces, measure
from fer_batch.model.fer2013 import Split
from fer_batch.model.model_card import render_markdown
from fer_batch.model.probabilities import MAJORITY_RULE
from fer_batch.resources import find_artifacts_dir
from fer_batch.settings import Settings
from fer_batch.training import distillation, vote_calibration
from fer_batch.training.recipe import Recipe

if TYPE_CHECKING:
    from fer_batch.training.platt_scaling import PlattScaling

log = get_logger(__name__)

SHIPPED_SOFT_LABELS = find_artifacts_dir() / "fer48.soft_labels.npz"


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
    """Train on FER2013, write `<name>.onnx`, `.json` and `.md` into `out_dir`, return the card.

    `<name>.checkpoint.npz` and `<name>.checkpoint.finish.npz` (of fine-tuning) beside them let
    `resume` continue after an interruption. `threads` None means one per core. `soft_labels` None
    means the shipped ones, if the recipe gives soft labels a weight. Raises ConfigurationError for
    invalid data, votes, soft labels, name or checkpoint and if the extra [train] is not installed,
    ModelError if the exported file differs from the trained network.
    """
    recipe = recipe or Recipe()
    _check_arguments(name, recipe, soft_labels)
    splits = fer2013.read(data, votes)
    is_copy = fer2013.find_training_copies(splits)
    training, public = splits["Training"].select(~is_copy), splits["PublicTest"]
    if len(training) < recipe.batch or len(public) == 0:
        raise ConfigurationError(
            f"{data} has {len(training)} rows to train on and {len(public)} of PublicTest",
            f"Give the complete FER2013; a batch has {recipe.batch} rows",
        )
    teacher_targets, teacher_sha256 = None, None
    if recipe.teacher_weight > 0:
        path = soft_labels or SHIPPED_SOFT_LABELS
        teacher_targets, teacher_sha256 = distillation.read(path, training)
    log.info("data read", training=len(training), copies_left_out=int(is_copy.sum()))

    # TensorFlow is imported from here on: the import is slow, so invalid arguments are reported
    # before it, and the number of threads must be set before its first operation.
    _set_threads(threads)
    out_dir.mkdir(parents=True, exist_ok=True)
    data_facts = _describe_data(data, votes, splits, int(is_copy.sum()))
    data_facts["teacher_sha256"] = teacher_sha256
    data_hash = f"{data_facts['sha256']} {data_facts['votes_sha256']} {teacher_sha256}"
    model, seconds = _train_network(
        training, public, recipe, out_dir / name, data_hash, resume, teacher_targets
    )
    exported = _calibrate_and_export(model, training, public, recipe)
    facts = {
        **exported.facts,
        "recipe": recipe.model_dump(mode="json"),
        "data": data_facts,
        "training": _describe_training(seconds, threads, exported),
    }
    return _write_files(out_dir, name, exported, facts, splits)


class _Exported(NamedTuple):
    """The artifact, its classify function, and facts about it for the card."""

    artifact: bytes
    classify: Classify
    scaling: PlattScaling
    difference: float
    facts: dict[str, Any]


def _calibrate_and_export(model: Any, training: Split, public: Split, recipe: Recipe) -> _Exported:
    """Apply Platt scaling to the network, export it to ONNX, and quantize it if the recipe does."""
    from fer_batch.training import export, network, platt_scaling, quantization
    from fer_batch.training.fit import predict

    scaling = platt_scaling.fit(predict(model, public.pixels), public.labels)
    platt_scaling.apply(model, scaling)
    artifact, classify, difference = export.export_onnx(model, public.pixels)
    eight_bits = None
    if recipe.is_quantised:
        artifact, classify, eight_bits = quantization.quantize_if_accurate(
            artifact, classify, training.pixels, public
        )
    facts = {
        "multiply_adds": network.count_multiply_adds(model),
        "parameters": int(model.count_params()),
        "eight_bits": eight_bits,
    }
    return _Exported(artifact, classify, scaling, difference, facts)


def _write_files(
    out_dir: Path, name: str, exported: _Exported, facts: dict[str, Any], splits: dict[str, Split]
) -> dict[str, Any]:
    """Calibrate to the votes, evaluate, and write the artifact and its card; returns the card."""
    from fer_batch.training import export

    measured = describe_scoring(exported.classify, splits) | facts
    measured["detector"] = count_detected_faces(splits["PrivateTest"], Settings())
    card = export.write(exported.artifact, out_dir, name, measured)
    (out_dir / f"{name}.md").write_text(render_markdown(card), encoding="utf-8")
    log.info("artifact written", card=str(out_dir / f"{name}.json"), bytes=len(exported.artifact))
    return card


def describe_scoring(classify: Classify, splits: dict[str, Split]) -> dict[str, Any]:
    """The keys of the card that depend on the artifact and its calibration to the votes.

    Keys: `vote_calibration` and `calling_rule`, fitted on PublicTest if that has votes and left out
    otherwise, `confusions`, and `metrics`. `classify` maps uint8 [N,48,48] to class probabilities.
    """
    public = splits["PublicTest"]
    calibration, rule, card = None, MAJORITY_RULE, dict[str, Any]()
    if public.votes is not None:
        class_probabilities = classify(public.pixels)
        calibration = vote_calibration.fit(class_probabilities, public.votes)
        rule = vote_calibration.choose_rule(calibration.apply(class_probabilities), public.votes)
        card["vote_calibration"] = calibration.model_dump(mode="json")
        card["calling_rule"] = asdict(rule)
    usages = ("PublicTest", "PrivateTest")
    card["confusions"] = {
        usage: measure_confusions(classify, splits[usage], calibration, rule) for usage in usages
    }
    card["metrics"] = {
        usage: measure(classify, splits[usage], calibration, rule) for usage in usages
    }
    return card


def _train_network(
    training: Split,
    public: Split,
    recipe: Recipe,
    checkpoints: Path,
    data_hash: str,
    resume: bool,
    teacher_targets: NDArray[np.float32] | None,
) -> tuple[Any, float]:
    """The network after all epochs and, if the recipe has it, fine-tuning; and the seconds.

    The checkpoints are the path `checkpoints` with `.checkpoint.npz` and `.checkpoint.finish.npz`
    appended.
    """
    from fer_batch.training.fit import average_weights, fit

    first = recipe.omit_fine_tuning()
    path = checkpoints.with_name(f"{checkpoints.name}.checkpoint.npz")
    fine_tuning_path = checkpoints.with_name(f"{checkpoints.name}.checkpoint.finish.npz")
    resume = resume and path.exists()
    if not resume:
        # Fine-tuning that started from another network must not be averaged with this one.
        fine_tuning_path.unlink(missing_ok=True)
    model, seconds = fit(
        training, public, first, path, data_hash, resume=resume, soft_labels=teacher_targets
    )
    if recipe.finish is None:
        return model, seconds
    log.info("fine-tuning", epochs=recipe.finish.epochs)
    weights_before = model.get_weights()
    model, more_seconds = fit(
        training,
        public,
        recipe.derive_fine_tuning(recipe.finish),
        fine_tuning_path,
        f"{data_hash} after {first.compute_fingerprint()}",
        resume=resume,
        soft_labels=teacher_targets,
        start=weights_before,
    )
    average_weights(model, weights_before, recipe.finish.weight)
    return model, seconds + more_seconds


def _check_arguments(name: str, recipe: Recipe, soft_labels: Path | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(
            f"{name!r} cannot name an artifact", "Use letters, digits, dots, dashes, underscores"
        )
    missing = [p for p in ("tensorflow", "keras", "tf2onnx", "onnx") if find_spec(p) is None]
    if missing:
        raise ConfigurationError(
            f"training needs {', '.join(missing)}",
            "Install fer-batch with the extra `train`; see docs/deploy.md",
        )
    if soft_labels is not None and recipe.teacher_weight == 0:
        raise ConfigurationError(
            f"the recipe gives the soft labels of {soft_labels} no weight",
            "Leave them out, or give the recipe a teacher_weight",
        )


def _set_threads(threads: int | None) -> None:
    import tensorflow as tf

    if threads is None:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        # TensorFlow accepts this only before its first operation in the process.
        log.warning(
            "number of threads unchanged", hint="Call train before any other use of TensorFlow"
        )


def _describe_data(
    data: Path, votes: Path | None, splits: dict[str, Split], copies: int
) -> dict[str, Any]:
    return {
        "name": "FER2013 (Goodfellow et al. 2013)",
        "licence": "Kaggle's competition terms; the pixels may not be passed on",
        "file": data.name,
        "sha256": _hash_file(data),
        "votes": None if votes is None else "FER+ (Barsoum et al. 2016, MIT license)",
        "votes_sha256": None if votes is None else _hash_file(votes),
        "rows": {usage: len(split) for usage, split in splits.items()},
        "training_rows_left_out": copies,
    }


def _describe_training(seconds: float, threads: int | None, exported: _Exported) -> dict[str, Any]:
    packages = ("keras", "tensorflow-cpu", "tf2onnx", "onnxruntime", "numpy")
    return {
        "seconds": round(seconds),
        "threads": threads or count_cpus(),
        "machine": platform.machine(),
        "packages": {package: version(package) for package in packages},
        "sad_scale": round(exported.scaling.scale, 4),
        "sad_offset": round(exported.scaling.offset, 4),
        "largest_difference_keras_onnx": exported.difference,
    }


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
