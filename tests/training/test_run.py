"""Training runs from Kaggle's file to the artifact, with a network that takes seconds."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.model import classifier, evaluation, fer2013
from fer_batch.training import recipe as recipes
from fer_batch.training import run
from fer_batch.training.recipe import FineTuning, Recipe, Stage
from fer_batch.training.run import describe_scoring, train
from tests.support import kaggle

TINY = Recipe(
    stem_width=4,
    stages=(Stage(width=8, blocks=1),),  # most of the time is the tracing of layers
    epochs=3,
    batch=32,
    warmup_epochs=1,
    average_decay=0.9,
    sharpness_radius=0.1,
    sharpness_from=0.3,
    teacher_weight=0,
    finish=FineTuning(epochs=2),
    is_quantised=False,  # the last bits of weights depend on threads
)
FINE_TUNING_CHECKPOINT = "tiny.checkpoint.finish.npz"
ROWS = kaggle.draw_rows(training=210, test=70)
ROWS[4] = (ROWS[4][0], ROWS[211][1], "Training")  # a training row that is also in PublicTest


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("kaggle")
    return (
        kaggle.write_tar(folder / "fer2013.tar.gz", ROWS),
        kaggle.write_votes(folder / "fer2013new.csv", ROWS),
    )


@dataclass(frozen=True)
class Trained:
    """An uninterrupted run: its folder, the card that `train` returned, and copies of the folder,
    by the number of a checkpoint, as it was when that had been written and had not replaced the one
    before."""

    out: Path
    card: dict[str, Any]
    interrupted: dict[int, Path]


@pytest.fixture(scope="module")
def trained(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("out")
    out = folder / "new"
    out.mkdir()
    # A checkpoint of fine-tuning that an earlier run with this name has left is not used.
    (out / FINE_TUNING_CHECKPOINT).write_bytes(b"")
    interrupted = {number: folder / str(number) for number in (2, 5)}
    saved = 0

    def copy_before(source: Path, target: Path) -> None:
        nonlocal saved
        if ".checkpoint." in str(target):
            saved += 1
            if saved in interrupted:
                shutil.copytree(out, interrupted[saved])
        replace(source, target)

    replace = os.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", copy_before)
        card = train(*files, out, "tiny", TINY, resume=True)
    return Trained(out, card, interrupted)


def test_the_card_describes_the_artifact(trained: Trained) -> None:
    out, card = trained.out, trained.card
    assert json.loads((out / "tiny.json").read_text()) == card
    assert classifier.load_artifact(out / "tiny.json").card.name == "tiny"
    assert card["artefact_bytes"] == (out / "tiny.onnx").stat().st_size
    assert Recipe.model_validate(card["recipe"]) == TINY
    assert card["data"]["rows"] == {"Training": 210, "PublicTest": 70, "PrivateTest": 70}
    assert card["data"]["training_rows_left_out"] == 1
    assert card["training"]["largest_difference_keras_onnx"] <= 1e-4
    assert card["eight_bits"] is None
    parsed = classifier.load_artifact(out / "tiny.json").card
    assert parsed.vote_calibration is not None
    assert parsed.vote_calibration.model_dump(mode="json") == card["vote_calibration"]
    assert asdict(parsed.rule) == card["calling_rule"]
    assert parsed.confusion is not None
    assert parsed.confusion.sum(axis=1).tolist() == [10, 10, 50]
    for usage in ("PublicTest", "PrivateTest"):
        assert set(card["confusions"][usage]) == {"plurality", "kaggle"}
    assert card["multiply_adds"] > 0
    assert card["parameters"] > 0
    # Only an interrupted run leaves such files.
    assert list(out.glob(".*")) == []


def test_evaluation_reproduces_the_metrics_of_the_card(
    trained: Trained, files: tuple[Path, Path]
) -> None:
    out, card = trained.out, trained.card
    for usage in ("PublicTest", "PrivateTest"):
        cnn = classifier.load_artifact(out / "tiny.json")
        metrics = evaluation.evaluate(cnn, evaluation.load_split(*files, usage))
        assert metrics["artefact_sha256"] == card["artefact_sha256"]
        assert {key: metrics[key] for key in card["metrics"][usage]} == card["metrics"][usage]
        assert metrics["confusions"] == card["confusions"][usage]


def test_what_is_fitted_depends_only_on_public_test(
    trained: Trained, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same network with other PrivateTest labels: only the metrics of PrivateTest differ."""
    swapped = [(3 if u == "PrivateTest" else label, p, u) for label, p, u in ROWS]
    other = kaggle.write_csv(tmp_path / "fer2013.csv", swapped)
    for file in trained.out.glob("*.checkpoint*.npz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    hash_file = run._hash_file
    monkeypatch.setattr(run, "_hash_file", lambda p: hash_file(files[0] if p == other else p))
    first, second = trained.card, train(other, files[1], tmp_path, "tiny", TINY, resume=True)
    assert second["training"]["seconds"] == first["training"]["seconds"]  # not trained again
    assert first["metrics"]["PrivateTest"] != second["metrics"]["PrivateTest"]
    assert _list_choices(first) == pytest.approx(_list_choices(second), abs=1e-3)
    assert first["confusions"]["PublicTest"] == second["confusions"]["PublicTest"]


def _list_choices(card: dict[str, Any]) -> tuple[float, ...]:
    """The values chosen on PublicTest. Equal to 1e-3: the last bits of predictions depend on
    threads."""
    scaling = (card["training"]["sad_scale"], card["training"]["sad_offset"])
    return (
        *scaling,
        card["calling_rule"]["sad_from"],
        card["metrics"]["PublicTest"]["happy_sad"]["accuracy"],
    )


@pytest.mark.parametrize(
    ("checkpoint", "kept", "done_again"),
    [
        (2, ["1/3"], ["2/3", "3/3", "1/2", "2/2"]),
        (5, ["1/3", "2/3", "3/3", "1/2"], ["2/2"]),
    ],
    ids=["before fine-tuning", "during fine-tuning"],
)
def test_a_resumed_run_gives_the_same_network(
    trained: Trained,
    files: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    checkpoint: int,
    kept: list[str],
    done_again: list[str],
) -> None:
    shutil.copytree(trained.interrupted[checkpoint], tmp_path, dirs_exist_ok=True)
    assert list(tmp_path.glob(".fer-batch-*.tmp")) != []
    assert not (tmp_path / "tiny.json").exists()
    capfd.readouterr()

    card = train(*files, tmp_path, "tiny", TINY, resume=True)

    log = "".join(capfd.readouterr())
    assert "resumed" in log
    assert [epoch for epoch in kept if epoch in log] == []
    assert [epoch for epoch in done_again if epoch not in log] == []
    pixels = fer2013.read(files[0])["PublicTest"].pixels
    uninterrupted = classifier.open_artifact(
        (trained.out / "tiny.onnx").read_bytes(), "artifact", 2
    )(pixels)
    resumed = classifier.open_artifact((tmp_path / "tiny.onnx").read_bytes(), "artifact", 2)(pixels)
    assert np.abs(resumed - uninterrupted).max() < 1e-4
    assert card["recipe"] == trained.card["recipe"]


def test_a_finished_run_is_exported_again_without_training(
    trained: Trained, files: tuple[Path, Path]
) -> None:
    out, card = trained.out, trained.card
    again = train(*files, out, "tiny", TINY, resume=True)
    assert again["artefact_sha256"] == card["artefact_sha256"]
    assert again["training"]["seconds"] == card["training"]["seconds"]


@pytest.mark.parametrize(("max_degradation", "is_taken"), [(1.0, True), (-1.0, False)])
def test_a_finished_run_is_quantized_without_training(
    trained: Trained,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_degradation: float,
    is_taken: bool,
) -> None:
    monkeypatch.setattr("fer_batch.training.quantization.MAX_DEGRADATION", max_degradation)
    for file in trained.out.glob("*.checkpoint*.npz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    recipe = TINY.model_copy(update={"is_quantised": True})

    card = train(*files, tmp_path, "tiny", recipe, resume=True)

    assert card["training"]["seconds"] == trained.card["training"]["seconds"]
    assert card["eight_bits"]["is_taken"] == is_taken
    weights = onnx.load(tmp_path / "tiny.onnx").graph.initializer
    assert any(weight.data_type == onnx.TensorProto.INT8 for weight in weights) == is_taken
    assert (card["artefact_sha256"] == trained.card["artefact_sha256"]) != is_taken
    # Metrics and threshold are those of the quantized file.
    cnn = classifier.load_artifact(tmp_path / "tiny.json")
    metrics = evaluation.evaluate(cnn, evaluation.load_split(*files, "PublicTest"))
    public = card["metrics"]["PublicTest"]
    assert {key: metrics[key] for key in public} == public


def test_a_run_shorter_than_the_averaging_interval_exports_trained_weights(
    tmp_path: Path,
) -> None:
    """With 210 rows and a batch of 96 there are two steps in total."""
    from fer_batch.training import fit, network

    recipe = TINY.model_copy(update={"epochs": 1, "batch": 96, "finish": None})
    fresh = network.build(recipe).get_weights()
    splits = fer2013.read(kaggle.write_tar(tmp_path / "fer2013.tar.gz", ROWS), None)
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


def test_fine_tuning_is_averaged_with_its_weight(
    trained: Trained, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """One training with fine-tuning weights of 0 and 0.5 (`TINY`), and without fine-tuning."""
    for file in trained.out.glob("*.checkpoint*.npz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    hashes = {}
    for name, finish in {
        "none": None,
        "nothing": FineTuning(epochs=2, weight=0),
    }.items():
        recipe = TINY.model_copy(update={"finish": finish})
        hashes[name] = train(*files, tmp_path, "tiny", recipe, resume=True)["artefact_sha256"]
    assert hashes["nothing"] == hashes["none"] != trained.card["artefact_sha256"]


def test_a_checkpoint_of_another_recipe_or_data_is_rejected(
    trained: Trained, files: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint = trained.out / "tiny.checkpoint.npz"
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


def test_invalid_arguments_are_rejected(tmp_path: Path) -> None:
    data = kaggle.write_csv(tmp_path / "fer2013.csv", kaggle.draw_rows(7, 7))
    with pytest.raises(ConfigurationError, match="7 rows to train on"):
        train(data, None, tmp_path, "tiny", TINY)
    with pytest.raises(ConfigurationError, match="cannot name an artifact"):
        train(data, None, tmp_path, "../tiny", TINY)


def test_without_votes_nothing_is_calibrated_to_them(files: tuple[Path, Path]) -> None:
    def classify(crops: np.ndarray) -> np.ndarray:
        return np.full((len(crops), 7), 1 / 7, np.float32)

    without = describe_scoring(classify, fer2013.read(files[0]))
    assert set(without) == {"confusions", "metrics"}
    assert set(without["confusions"]["PublicTest"]) == {"kaggle"}
    assert without["metrics"]["PublicTest"]["votes"]["rows"] == 0
    with_votes = describe_scoring(classify, fer2013.read(*files))
    assert set(with_votes) - set(without) == {"vote_calibration", "calling_rule"}


def test_fine_tuning_uses_sam_if_the_recipe_does() -> None:
    for sharpness_from, sam_epochs in ((0.6, 3), (1.0, 0)):
        recipe = Recipe(epochs=10, sharpness_from=sharpness_from)
        finish = recipe.derive_fine_tuning(FineTuning(epochs=3))
        assert finish.epochs - finish.first_sam_epoch == sam_epochs


def test_soft_labels_without_a_weight_are_rejected(tmp_path: Path) -> None:
    data, labels = tmp_path / "fer2013.csv", tmp_path / "soft_labels.npz"
    with pytest.raises(ConfigurationError, match=r"soft_labels\.npz no weight"):
        train(data, None, tmp_path, "a", Recipe(teacher_weight=0), soft_labels=labels)


def test_the_work_of_sam_epochs_is_higher() -> None:
    recipe = Recipe(epochs=10, sharpness_from=0.6, sharpness_share=0.5)
    assert [recipe.compute_work(epochs) for epochs in (0, 6, 7, 10)] == [0, 6, 7.5, 12]
    assert recipe.model_copy(update={"sharpness_radius": 0}).compute_work(10) == 10


def test_a_recipe_file_overrides_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"epochs": 2, "augmentation": {"flip_share": 0}}')
    loaded = recipes.load_recipe(path)
    assert loaded.epochs == 2
    assert loaded.augmentation.flip_share == 0
    assert loaded.batch == Recipe().batch
    assert loaded.compute_fingerprint() != Recipe().compute_fingerprint()
    path.write_text('{"finish": {"augmentation": {"noise_share": 0.3}}}')
    finish = recipes.load_recipe(path).finish
    assert finish is not None
    shipped = recipes.FINE_TUNING_AUGMENTATION
    assert finish.augmentation == shipped.model_copy(update={"noise_share": 0.3})
    assert finish.epochs == FineTuning().epochs
    path.write_text('{"epoch": 2, "batch": 0}')
    with pytest.raises(ConfigurationError, match=r"batch: .*epoch: ") as raised:
        recipes.load_recipe(path)
    assert str(path) in str(raised.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        recipes.load_recipe(tmp_path / "none.json")
