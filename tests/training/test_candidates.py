"""Comparison of networks trained with one recipe, so small that they take seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.model import evaluation
from fer_batch.model.classifier import load_artifact
from fer_batch.training import network
from fer_batch.training.candidates import (
    compare,
    compute_pair_loss,
    format_rows,
    list_candidates,
    set_epochs,
)
from fer_batch.training.recipe import FineTuning, Recipe, Stage
from tests.support import kaggle

TINY = Recipe(
    stem_width=4,
    stages=(Stage(width=8, blocks=1),),  # most of the time is the tracing of layers
    epochs=1,
    batch=32,
    warmup_epochs=1,
    average_decay=0.9,
    teacher_weight=0,
    finish=FineTuning(epochs=1),
)
RECIPES = {
    "small": TINY,
    "large": TINY.model_copy(update={"stem_width": 8, "finish": None}),
}
ROWS = kaggle.draw_rows(training=210, test=70)

Files = tuple[Path, Path]
Compared = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("kaggle")
    return (
        kaggle.write_tar(folder / "fer2013.tar.gz", ROWS),
        kaggle.write_votes(folder / "fer2013new.csv", ROWS),
    )


@pytest.fixture(scope="module")
def compared(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    out = tmp_path_factory.mktemp("out")
    return out, compare(*files, out, "fer", RECIPES, threads=1)


def test_each_candidate_has_a_card_and_a_row_of_metrics(compared: Compared, files: Files) -> None:
    out, rows = compared
    assert [row["candidate"] for row in rows] == ["small", "large"]
    assert json.loads((out / "candidates.json").read_text())["candidates"] == rows
    for row in rows:
        card = load_artifact(out / f"fer-{row['candidate']}.json").card.model_dump()
        assert row["card"] == str(out / f"fer-{row['candidate']}.json")
        assert (row["parameters"], row["multiply_adds"]) == (
            card["parameters"],
            card["multiply_adds"],
        )
        assert card["training"]["threads"] == 1
        # 210 rows, none of them a copy, are six steps of 32, in an epoch and in its finish.
        steps = 12 if card["recipe"]["finish"] else 6
        milliseconds = card["training"]["seconds"] * 1000
        assert row["ms_per_step"] == pytest.approx(milliseconds / steps, abs=0.01)
        assert row["faces_per_s"] > 0
        for usage in ("PublicTest", "PrivateTest"):
            cnn = load_artifact(Path(row["card"]))
            metrics = evaluation.evaluate(cnn, evaluation.load_split(*files, usage))
            assert row[usage]["happy_sad"] == metrics["happy_sad"]["accuracy"]
            assert row[usage]["seven"] == metrics["seven"]["accuracy"]
            assert row[usage]["loss"] > 0
    assert [r["multiply_adds"] for r in rows] == sorted(r["multiply_adds"] for r in rows)


def test_the_comparison_has_a_table_and_a_chart(compared: Compared) -> None:
    out, rows = compared
    table = {row["figure"]: row for row in format_rows(rows)}
    assert list(table["ms/step"]) == ["figure", "small", "large"]
    for usage in ("PublicTest", "PrivateTest"):
        cells = table[f"loss, {usage}"]["large"], table[f"Happy/Sad accuracy, {usage}"]["large"]
        measured = rows[1][usage]["loss"], rows[1][usage]["happy_sad"]
        assert cells == tuple(f"{figure:.4f}" for figure in measured)
        assert f"seven-class accuracy, {usage}" in table
    assert table["parameters"]["small"] == f"{rows[0]['parameters']:,}"
    assert {"multiply-adds", "faces/s"} < set(table)
    chart = cv2.imread(str(out / "candidates.png"))
    assert chart is not None
    assert chart.shape[0] > 300
    assert chart.min() == 0  # the letters


def test_candidates_that_finished_before_an_interruption_are_not_trained_again(
    compared: Compared, files: Files, capfd: pytest.CaptureFixture[str]
) -> None:
    out, rows = compared
    (out / "fer-large.json").unlink()
    (out / "fer-large.checkpoint.npz").unlink()
    capfd.readouterr()
    resumed = compare(*files, out, "fer", RECIPES, resume=True, threads=1)
    assert "".join(capfd.readouterr()).count("epoch trained") == 1
    for new, old in zip(resumed[:1], rows[:1], strict=True):
        assert new["ms_per_step"] == old["ms_per_step"]
        assert new["PrivateTest"]["loss"] == pytest.approx(old["PrivateTest"]["loss"], abs=1e-4)
    assert (out / "fer-large.json").exists()


def test_the_loss_is_the_cross_entropy_of_happy_against_sad() -> None:
    probabilities = np.zeros((4, 7), np.float32)
    probabilities[:, 3] = (0.6, 0.2, 0.0, 0.5)
    probabilities[:, 4] = (0.2, 0.2, 0.5, 0.5)
    labels = np.array([3, 4, 4, 6], np.int8)  # the neutral face does not count
    expected = -(math.log(0.75) + math.log(0.5) + math.log(1.0)) / 3
    assert compute_pair_loss(probabilities, labels) == pytest.approx(expected)
    assert compute_pair_loss(probabilities[3:], labels[3:]) is None
    sure_and_wrong = compute_pair_loss(probabilities[2:3], np.array([3], np.int8))
    assert sure_and_wrong is not None
    assert 20 < sure_and_wrong < 30


def test_the_candidates_differ_only_in_their_widths() -> None:
    base = Recipe()
    candidates = list_candidates(base)
    assert candidates["medium"] == base
    for recipe in candidates.values():
        same = {"stem_width": base.stem_width, "stages": base.stages}
        assert recipe.model_copy(update=same) == base
    millions = [network.count_multiply_adds(network.build(r)) / 1e6 for r in candidates.values()]
    assert millions == pytest.approx([7.4, 29.4, 117.1], abs=0.1)


def test_epochs_can_be_set() -> None:
    assert set_epochs(TINY, 7).epochs == 7
    assert set_epochs(TINY, None) == TINY
    with pytest.raises(ConfigurationError, match="0 epochs"):
        set_epochs(TINY, 0)
