"""From Kaggle's file to the artefact, with a network so tiny that it takes seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fer_batch import classifier, evaluation, fer2013
from fer_batch.errors import ConfigurationError
from fer_batch.training import recipe as recipes
from fer_batch.training.recipe import Finish, Recipe, Stage
from fer_batch.training.run import train
from tests.support import kaggle

TINY = Recipe(
    stem_width=4,
    stages=(Stage(width=4, blocks=1), Stage(width=8, blocks=1)),
    epochs=3,
    batch=32,
    warmup_epochs=1,
    average_decay=0.9,
    sharpness_radius=0.1,
    sharpness_from=0.3,
    teacher_weight=0,
    finish=Finish(epochs=2),
    is_quantised=False,  # else the last bit of a weight, which threads decide, would count
)
FINISH_CHECKPOINT = "tiny.checkpoint.finish.npz"
MADE = kaggle.rows(training=210, tested=70)
MADE[4] = (MADE[4][0], MADE[211][1], "Training")  # a training row that stands in PublicTest


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("kaggle")
    return (
        kaggle.write_tar(folder / "fer2013.tar.gz", MADE),
        kaggle.write_votes(folder / "fer2013new.csv", MADE),
    )


@pytest.fixture(scope="module")
def trained(
    files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of a run that nothing disturbed, and the card that `train` returned."""
    out = tmp_path_factory.mktemp("out") / "new"
    return out, train(*files, out, "tiny", TINY)


def test_the_card_says_what_was_made(trained: tuple[Path, dict[str, Any]]) -> None:
    out, card = trained
    assert json.loads((out / "tiny.json").read_text()) == card
    assert classifier.load_artefact(out / "tiny.json").card.name == "tiny"
    assert card["artefact_bytes"] == (out / "tiny.onnx").stat().st_size
    assert Recipe.model_validate(card["recipe"]) == TINY
    assert card["data"]["rows"] == {"Training": 210, "PublicTest": 70, "PrivateTest": 70}
    assert card["data"]["training_rows_left_out"] == 1
    assert card["training"]["largest_difference_keras_onnx"] <= 1e-4
    assert card["eight_bits"] is None
    assert card["multiply_adds"] > 0
    assert card["parameters"] > 0
    # A killed run leaves such files behind, a finished one none.
    assert list(out.glob("*.partial")) == []


def test_evaluating_prints_the_figures_of_the_card_again(
    trained: tuple[Path, dict[str, Any]], files: tuple[Path, Path]
) -> None:
    out, card = trained
    for usage in ("PublicTest", "PrivateTest"):
        cnn = classifier.load_artefact(out / "tiny.json")
        found = evaluation.evaluate(cnn, evaluation.rows_of(*files, usage))
        assert found["artefact_sha256"] == card["artefact_sha256"]
        assert {key: found[key] for key in card["metrics"][usage]} == card["metrics"][usage]


def test_the_threshold_and_the_balance_come_from_public_test_alone(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run with other PrivateTest labels: only what is written down of it differs."""
    monkeypatch.setattr("fer_batch.training.run._sha256", lambda _: "same")
    recipe = TINY.model_copy(update={"epochs": 1, "finish": None})
    first = train(*files, tmp_path, "tiny", recipe)
    swapped = [(3 if u == "PrivateTest" else label, p, u) for label, p, u in MADE]
    other = kaggle.write_csv(tmp_path / "fer2013.csv", swapped)
    second = train(other, files[1], tmp_path, "tiny", recipe, resume=True)
    assert first["metrics"]["PrivateTest"] != second["metrics"]["PrivateTest"]
    assert _chosen(first) == pytest.approx(_chosen(second), abs=1e-3)


def _chosen(card: dict[str, Any]) -> tuple[float, ...]:
    """What the run chose on PublicTest. Only to 1e-3: threads decide a prediction's last bits."""
    balance = (card["training"]["sad_scale"], card["training"]["sad_offset"])
    return (
        *balance,
        card["uncertain_below"],
        card["metrics"]["PublicTest"]["happy_sad"]["accuracy"],
    )


KILLED_WHILE_SAVING = """
import os, pathlib, signal, sys
from fer_batch.training import run
from fer_batch.training.recipe import Recipe

saved = 0
replace = os.replace

def killed_at_last(source, target):
    global saved
    saved += ".checkpoint." in str(target)
    if saved == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = killed_at_last
data, votes, out, recipe = sys.argv[1:5]
run.train(pathlib.Path(data), pathlib.Path(votes), pathlib.Path(out), "tiny",
          Recipe.model_validate_json(recipe))
"""


@pytest.mark.parametrize(
    ("killed_at", "kept", "done_again"),
    [(2, ["1/3"], ["2/3", "3/3", "1/2", "2/2"]), (5, ["1/3", "2/3", "3/3", "1/2"], ["2/2"])],
    ids=["before the finish", "in the finish"],
)
def test_a_killed_run_goes_on_and_ends_where_an_undisturbed_one_does(
    trained: tuple[Path, dict[str, Any]],
    files: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    killed_at: int,
    kept: list[str],
    done_again: list[str],
) -> None:
    # What an earlier run under the same name left must not become part of this one.
    left_over = (trained[0] / FINISH_CHECKPOINT).read_bytes()
    (tmp_path / FINISH_CHECKPOINT).write_bytes(left_over)
    arguments = [*map(str, files), str(tmp_path), TINY.model_dump_json(), str(killed_at)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, *arguments], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "tiny.json").exists()
    capfd.readouterr()

    card = train(*files, tmp_path, "tiny", TINY, resume=True)

    log = "".join(capfd.readouterr())
    assert "resumed" in log
    assert [epoch for epoch in kept if epoch in log] == []
    assert [epoch for epoch in done_again if epoch not in log] == []
    pixels = fer2013.read(files[0])["PublicTest"].pixels
    undisturbed = classifier.open_artefact((trained[0] / "tiny.onnx").read_bytes(), "artefact", 2)(
        pixels
    )
    resumed = classifier.open_artefact((tmp_path / "tiny.onnx").read_bytes(), "artefact", 2)(pixels)
    assert np.abs(resumed - undisturbed).max() < 1e-4
    assert card["recipe"] == trained[1]["recipe"]


def test_a_finished_run_is_exported_again_without_training(
    trained: tuple[Path, dict[str, Any]], files: tuple[Path, Path]
) -> None:
    out, card = trained
    again = train(*files, out, "tiny", TINY, resume=True)
    assert again["artefact_sha256"] == card["artefact_sha256"]
    assert again["training"]["seconds"] == card["training"]["seconds"]


@pytest.mark.parametrize(("cost_allowed", "is_taken"), [(1.0, True), (-1.0, False)])
def test_a_finished_run_is_quantised_without_training(
    trained: tuple[Path, dict[str, Any]],
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cost_allowed: float,
    is_taken: bool,
) -> None:
    monkeypatch.setattr("fer_batch.training.quantisation.MAX_COST", cost_allowed)
    for file in trained[0].glob("*.checkpoint*.npz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    recipe = TINY.model_copy(update={"is_quantised": True})

    card = train(*files, tmp_path, "tiny", recipe, resume=True)

    assert card["training"]["seconds"] == trained[1]["training"]["seconds"]
    assert card["eight_bits"]["is_taken"] == is_taken
    weights = onnx.load(tmp_path / "tiny.onnx").graph.initializer
    assert any(weight.data_type == onnx.TensorProto.INT8 for weight in weights) == is_taken
    assert (card["artefact_sha256"] == trained[1]["artefact_sha256"]) != is_taken
    # Figures and threshold are those of the file, not of the network before it.
    cnn = classifier.load_artefact(tmp_path / "tiny.json")
    found = evaluation.evaluate(cnn, evaluation.rows_of(*files, "PublicTest"))
    public = card["metrics"]["PublicTest"]
    assert {key: found[key] for key in public} == public


def test_a_run_of_fewer_steps_than_lie_between_two_averages_exports_what_it_learned(
    tmp_path: Path,
) -> None:
    """Of batches of 96 rows 210 fill two, so there are two steps in all."""
    from fer_batch.training import fit, network

    recipe = TINY.model_copy(update={"epochs": 1, "batch": 96, "finish": None})
    fresh = network.build(recipe).get_weights()
    splits = fer2013.read(kaggle.write_tar(tmp_path / "fer2013.tar.gz", MADE), None)
    model, _ = fit.fit(
        splits["Training"],
        splits["PublicTest"],
        recipe,
        tmp_path / "checkpoint.npz",
        "data",
        resume=False,
        start=fresh,
    )
    moved = [np.abs(a - b).max() for a, b in zip(model.get_weights(), fresh, strict=True)]
    assert max(moved) > 0.001


def test_the_finish_counts_as_much_as_its_weight_says(
    trained: tuple[Path, dict[str, Any]], files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of one training, with the finish weighing nothing, half, all, and without a finish."""
    for file in trained[0].glob("*.checkpoint*.npz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made = {}
    for name, finish in {
        "none": None,
        "nothing": Finish(epochs=2, weight=0),
        "half": Finish(epochs=2),
        "all": Finish(epochs=2, weight=1),
    }.items():
        recipe = TINY.model_copy(update={"finish": finish})
        made[name] = train(*files, tmp_path, "tiny", recipe, resume=True)["artefact_sha256"]
    assert made["nothing"] == made["none"]
    assert made["half"] == trained[1]["artefact_sha256"]
    assert len({made["nothing"], made["half"], made["all"]}) == 3


def test_a_finish_of_another_training_is_not_taken_up(
    trained: tuple[Path, dict[str, Any]],
    files: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Only the finish's checkpoint is left of an earlier run."""
    name = FINISH_CHECKPOINT
    (tmp_path / name).write_bytes((trained[0] / name).read_bytes())
    capfd.readouterr()
    train(*files, tmp_path, "tiny", TINY, resume=True)
    log = "".join(capfd.readouterr())
    assert "resumed" not in log
    assert log.count("epoch trained") == 5


def test_a_checkpoint_of_something_else_is_refused(
    trained: tuple[Path, dict[str, Any]], files: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint = trained[0] / "tiny.checkpoint.npz"
    copy = tmp_path / checkpoint.name
    copy.write_bytes(checkpoint.read_bytes())
    other = TINY.model_copy(update={"seed": 7})
    with pytest.raises(ConfigurationError, match="another recipe or other data"):
        train(*files, tmp_path, "tiny", other, resume=True)
    with pytest.raises(ConfigurationError, match="another recipe or other data"):
        train(files[0], None, tmp_path, "tiny", TINY, resume=True)
    for cut in (5000, 0):
        copy.write_bytes(checkpoint.read_bytes()[:cut])
        with pytest.raises(ConfigurationError, match="cannot be read"):
            train(*files, tmp_path, "tiny", TINY, resume=True)


def test_what_cannot_be_trained_is_told_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", kaggle.rows(7, 7))
    with pytest.raises(ConfigurationError, match="7 rows to train on"):
        train(data, None, tmp_path, "tiny", TINY)
    with pytest.raises(ConfigurationError, match="cannot name an artefact"):
        train(data, None, tmp_path, "../tiny", TINY)


def test_a_finish_is_sharpness_aware_where_some_epochs_before_it_are() -> None:
    for sharpness_from, sharp in ((0.6, 3), (1.0, 0)):
        recipe = Recipe(epochs=10, sharpness_from=sharpness_from)
        finish = recipe.of_finish(Finish(epochs=3))
        assert finish.epochs - finish.first_sharp_epoch == sharp


def test_soft_labels_without_a_weight_are_refused(tmp_path: Path) -> None:
    data, labels = tmp_path / "fer2013.csv", tmp_path / "soft_labels.npz"
    with pytest.raises(ConfigurationError, match=r"soft_labels\.npz no weight"):
        train(data, None, tmp_path, "a", Recipe(teacher_weight=0), soft_labels=labels)


def test_sharpness_aware_epochs_count_as_the_work_that_they_are() -> None:
    recipe = Recipe(epochs=10, sharpness_from=0.6, sharpness_share=0.5)
    assert [recipe.work(epochs) for epochs in (0, 6, 7, 10)] == [0, 6, 7.5, 12]
    assert recipe.model_copy(update={"sharpness_radius": 0}).work(10) == 10


def test_a_recipe_file_holds_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"epochs": 2, "augmentation": {"flip_share": 0}}')
    found = recipes.load(path)
    assert found.epochs == 2
    assert found.augmentation.flip_share == 0
    assert found.batch == Recipe().batch
    assert found.fingerprint() != Recipe().fingerprint()
    path.write_text('{"finish": {"augmentation": {"noise_share": 0.3}}}')
    finish = recipes.load(path).finish
    assert finish is not None
    shipped = recipes.WORSE_PICTURES
    assert finish.augmentation == shipped.model_copy(update={"noise_share": 0.3})
    assert finish.epochs == Finish().epochs
    path.write_text('{"epoch": 2, "batch": 0}')
    with pytest.raises(ConfigurationError, match=r"batch: .*epoch: ") as raised:
        recipes.load(path)
    assert str(path) in str(raised.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        recipes.load(tmp_path / "none.json")
