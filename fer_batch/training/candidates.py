"""Compares architectures of three sizes trained with the same recipe: accuracy against speed.

Trains them one after the other, measures the exported artifact of each, and writes the comparison
as JSON and as a chart. People choose the active model afterwards with `fer-batch models promote`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_batch.errors import ConfigurationError
from fer_batch.log import get_logger
from fer_batch.model import fer2013
from fer_batch.model.classifier import load_artifact, open_artifact
from fer_batch.model.evaluation import Classify, compute_metrics
from fer_batch.model.fer2013 import HAPPY, SAD, Split
from fer_batch.training.recipe import Recipe
from fer_batch.training.run import train

log = get_logger(__name__)

_METRIC_LABELS = {
    "loss": "loss",
    "happy_sad": "Happy/Sad accuracy",
    "seven": "seven-class accuracy",
}

TIMED_RUNS = 3
"""Runs of the speed measurement. The fastest counts: slower runs were disturbed by other load."""


def list_candidates(base: Recipe) -> dict[str, Recipe]:
    """`small` (half the channels), `medium` (the given recipe) and `large` (twice the channels).

    With the shipped recipe they have about 7, 29 and 117 million multiply-adds for a crop.
    """
    return {"small": _scale_channels(base, 0.5), "medium": base, "large": _scale_channels(base, 2)}


def _scale_channels(base: Recipe, factor: float) -> Recipe:
    stages = tuple(
        stage.model_copy(update={"width": max(1, round(stage.width * factor))})
        for stage in base.stages
    )
    return base.model_copy(
        update={"stem_width": max(1, round(base.stem_width * factor)), "stages": stages}
    )


def set_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    """The recipe with this number of epochs before fine-tuning; None returns it unchanged.

    Raises ConfigurationError for fewer than one.
    """
    if epochs is None:
        return recipe
    if epochs < 1:
        raise ConfigurationError(f"{epochs} epochs were requested", "Train for at least one epoch")
    return recipe.model_copy(update={"epochs": epochs})


def compare(
    data: Path,
    votes: Path | None,
    out_dir: Path,
    name: str,
    recipes: Mapping[str, Recipe],
    resume: bool = False,
    threads: int | None = None,
    soft_labels: Path | None = None,
) -> list[dict[str, Any]]:
    """Train each recipe into `<name>-<label>.onnx` and `.json`, and measure it.

    Returns one row per recipe: its label as `candidate`, and the keys of `measure`. Writes
    `candidates.json` and `candidates.png` into `out_dir` when all are trained. With `resume`, runs
    and epochs that an interrupted call finished are not repeated. Raises as `train` does.
    """
    cards: dict[str, Path] = {}
    for label, recipe in recipes.items():
        log.info("training candidate", candidate=label, of=len(recipes))
        full_name = f"{name}-{label}"
        train(data, votes, out_dir, full_name, recipe, resume, threads, soft_labels)
        cards[label] = out_dir / f"{full_name}.json"
    splits = fer2013.read(data, votes)
    rows = [{"candidate": label} | measure(card, splits, threads) for label, card in cards.items()]
    text = json.dumps({"threads": threads, "candidates": rows}, indent=2, ensure_ascii=False)
    (out_dir / "candidates.json").write_text(text + "\n", encoding="utf-8")
    draw(rows, out_dir / "candidates.png")
    return rows


def measure(card_path: Path, splits: Mapping[str, Split], threads: int | None) -> dict[str, Any]:
    """The metrics of one artifact.

    Keys: `card` (its path), `parameters`, `multiply_adds`, `ms_per_step` (of the training),
    `faces_per_s` (in ONNX Runtime with `threads` threads, None means one per core), and for each of
    PublicTest and PrivateTest: `loss` (see `compute_pair_loss`), `happy_sad` and `seven`
    (accuracies, 0 to 1; None without such rows). Raises ModelError as `load_artifact` does.
    """
    cnn = load_artifact(card_path)
    classify = open_artifact(cnn.artifact, cnn.card.artefact, threads or 0)
    card = cnn.card.model_dump()
    row: dict[str, Any] = {
        "card": str(card_path),
        "parameters": card["parameters"],
        "multiply_adds": card["multiply_adds"],
        "ms_per_step": round(1000 * card["training"]["seconds"] / _count_steps(card), 2),
        "faces_per_s": round(_measure_faces_per_s(classify, splits["PublicTest"].pixels)),
    }
    for usage in ("PublicTest", "PrivateTest"):
        split = splits[usage]
        probabilities = classify(split.pixels)
        metrics = compute_metrics(probabilities, split)
        row[usage] = {
            "loss": compute_pair_loss(probabilities, split.labels),
            "happy_sad": metrics["happy_sad"]["accuracy"],
            "seven": metrics["seven"]["accuracy"],
        }
    return row


def compute_pair_loss(probabilities: NDArray[np.float32], labels: NDArray[np.int8]) -> float | None:
    """Mean cross-entropy, in nats, of Happy against Sad over the rows with one of those labels.

    `probabilities` is [N,7], `labels` is [N]. The two probabilities are normalized to sum to 1.
    None without such a row.
    """
    is_polar = np.isin(labels, (HAPPY, SAD))
    if not is_polar.any():
        return None
    pair = probabilities[is_polar][:, [HAPPY, SAD]].astype(np.float64)
    p_label = np.where(labels[is_polar] == HAPPY, pair[:, 0], pair[:, 1])
    return float(-np.log(np.maximum(p_label / np.maximum(pair.sum(axis=1), 1e-12), 1e-12)).mean())


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG: accuracy of Happy against Sad against faces/s.

    The accuracy is that of PublicTest, because PrivateTest must not influence a choice.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        accuracy = row["PublicTest"]["happy_sad"]
        if accuracy is None:
            continue
        axes.scatter(row["faces_per_s"], accuracy, s=60, color="#1b7f4d")
        axes.annotate(
            f"{row['candidate']}\n{row['multiply_adds'] / 1e6:.1f} M multiply-adds",
            (row["faces_per_s"], accuracy),
            textcoords="offset points",
            xytext=(0, 10),
            horizontalalignment="center",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.3)
    axes.set_xlabel("faces/s in ONNX Runtime on this machine (log)")
    axes.set_ylabel("accuracy of Happy against Sad, PublicTest")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def format_rows(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The comparison as a table of texts: one row per figure, one column per candidate."""

    def format_row(name: str, format_cell: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
        return {"figure": name} | {str(row["candidate"]): format_cell(row) for row in rows}

    def format_metric(usage: str, key: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda row: "–" if row[usage][key] is None else f"{row[usage][key]:.4f}"

    return [
        *(
            format_row(f"{label}, {usage}", format_metric(usage, key))
            for key, label in _METRIC_LABELS.items()
            for usage in ("PublicTest", "PrivateTest")
        ),
        format_row("ms/step", lambda row: f"{row['ms_per_step']:.1f}"),
        format_row("parameters", lambda row: f"{row['parameters']:,}"),
        format_row("multiply-adds", lambda row: f"{row['multiply_adds'] / 1e6:.1f} M"),
        format_row("faces/s", lambda row: f"{row['faces_per_s']:,}"),
    ]


def _count_steps(card: Mapping[str, Any]) -> int:
    """Optimizer steps of the whole training; the incomplete last batch of an epoch is dropped."""
    rows: int = card["data"]["rows"]["Training"] - card["data"]["training_rows_left_out"]
    recipe = Recipe.model_validate(card["recipe"])
    epochs = recipe.epochs + (recipe.finish.epochs if recipe.finish else 0)
    return epochs * max(1, rows // recipe.batch)


def _measure_faces_per_s(classify: Classify, pixels: NDArray[np.uint8]) -> float:
    """The speed of the fastest of `TIMED_RUNS` runs over the crops [N,48,48], after a warm-up."""
    classify(pixels[:64])
    seconds = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        classify(pixels)
        seconds.append(time.perf_counter() - began)
    return len(pixels) / min(seconds)
