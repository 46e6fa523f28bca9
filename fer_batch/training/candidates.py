"""Three architectures by one recipe, side by side: what more multiply-adds buy, and what they cost.

Trains them one after the other, measures each as the artefact that it became, and writes the
comparison as JSON and as a chart. Which one is used afterwards is decided by people, with
`fer-batch models promote`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_batch import fer2013
from fer_batch.classifier import load_artefact, open_artefact
from fer_batch.errors import ConfigurationError
from fer_batch.evaluation import Classify, figures
from fer_batch.fer2013 import HAPPY, SAD, Split
from fer_batch.log import logger
from fer_batch.training.recipe import Recipe
from fer_batch.training.run import train

log = logger(__name__)

_MEASURED_NAMES = {
    "loss": "loss",
    "happy_sad": "Happy/Sad right",
    "seven": "seven right",
}

MEASURED = 3
"""Times that the speed is measured; the best counts, as the others were disturbed."""


def candidates(base: Recipe) -> dict[str, Recipe]:
    """`small`, `medium` (the recipe as it is) and `large`: half and twice the channels.

    With the shipped recipe: about 7, 29 and 117 million multiply-adds.
    """
    return {"small": _with_channels(base, 0.5), "medium": base, "large": _with_channels(base, 2)}


def _with_channels(base: Recipe, times: float) -> Recipe:
    stages = tuple(
        stage.model_copy(update={"width": max(1, round(stage.width * times))})
        for stage in base.stages
    )
    return base.model_copy(
        update={"stem_width": max(1, round(base.stem_width * times)), "stages": stages}
    )


def with_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    """The recipe with so many epochs before its finish; None changes nothing.

    Raises ConfigurationError for less than one.
    """
    if epochs is None:
        return recipe
    if epochs < 1:
        raise ConfigurationError(f"{epochs} epochs are none", "Train for at least one")
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
    """Train each recipe into `<name>-<its name>.onnx` and `.json`; a row for each, as in `measure`.

    Writes `candidates.json` and `candidates.png` into `out_dir` when all are done. With `resume`,
    what a killed call had finished is kept. Raises as `train` does.
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
    """One artefact in numbers: `card` (its path), `parameters`, `multiply_adds`, `ms_per_step`
    (of the training), `faces_per_s` (in ONNX Runtime, `threads` threads) and, for PublicTest and
    PrivateTest, `loss` (see `pair_loss`), `happy_sad` and `seven` (shares that are right; None
    without such rows)."""
    cnn = load_artefact(card_path)
    classify = open_artefact(cnn.artefact, cnn.card.artefact, threads or 0)
    card = cnn.card.model_dump()
    row: dict[str, Any] = {
        "card": str(card_path),
        "parameters": card["parameters"],
        "multiply_adds": card["multiply_adds"],
        "ms_per_step": round(1000 * card["training"]["seconds"] / _steps(card), 2),
        "faces_per_s": round(_faces_per_s(classify, splits["PublicTest"].pixels)),
    }
    for usage in ("PublicTest", "PrivateTest"):
        split = splits[usage]
        probabilities = classify(split.pixels)
        found = figures(probabilities, split, cnn.card.uncertain_below)
        row[usage] = {
            "loss": pair_loss(probabilities, split.labels),
            "happy_sad": found["happy_sad"]["accuracy"],
            "seven": found["seven"]["accuracy"],
        }
    return row


def pair_loss(probabilities: NDArray[np.float32], labels: NDArray[np.int8]) -> float | None:
    """Mean cross-entropy of Happy against Sad over the rows [N,7] with one of those labels.

    The two probabilities are scaled to sum to 1. In nats; None without such a row.
    """
    chosen = np.isin(labels, (HAPPY, SAD))
    if not chosen.any():
        return None
    pair = probabilities[chosen][:, [HAPPY, SAD]].astype(np.float64)
    likely = np.where(labels[chosen] == HAPPY, pair[:, 0], pair[:, 1])
    return float(-np.log(np.maximum(likely / np.maximum(pair.sum(axis=1), 1e-12), 1e-12)).mean())


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy (Happy against Sad on PublicTest, which may decide) against faces/s, as a PNG."""
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
    axes.set_ylabel("right of Happy and Sad, PublicTest")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def shown(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The comparison as people read it: a row for each figure, a column for each candidate."""

    def row(name: str, text: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
        return {"figure": name} | {str(found["candidate"]): text(found) for found in rows}

    def share(usage: str, key: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda found: "–" if found[usage][key] is None else f"{found[usage][key]:.4f}"

    return [
        *(
            row(f"{name}, {usage}", share(usage, key))
            for key, name in _MEASURED_NAMES.items()
            for usage in ("PublicTest", "PrivateTest")
        ),
        row("ms/step", lambda found: f"{found['ms_per_step']:.1f}"),
        row("parameters", lambda found: f"{found['parameters']:,}"),
        row("multiply-adds", lambda found: f"{found['multiply_adds'] / 1e6:.1f} M"),
        row("faces/s", lambda found: f"{found['faces_per_s']:,}"),
    ]


def _steps(card: Mapping[str, Any]) -> int:
    """Steps of the whole training: the short batch at an epoch's end is left out."""
    rows: int = card["data"]["rows"]["Training"] - card["data"]["training_rows_left_out"]
    recipe = Recipe.model_validate(card["recipe"])
    epochs = recipe.epochs + (recipe.finish.epochs if recipe.finish else 0)
    return epochs * max(1, rows // recipe.batch)


def _faces_per_s(classify: Classify, pixels: NDArray[np.uint8]) -> float:
    """The best of some runs over all of the crops [N,48,48], after one to warm up."""
    classify(pixels[:64])
    took = []
    for _ in range(MEASURED):
        began = time.perf_counter()
        classify(pixels)
        took.append(time.perf_counter() - began)
    return len(pixels) / min(took)
