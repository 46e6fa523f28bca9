"""The shipped CNN matches its card, and its metrics are reproduced on the real data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_batch.model import classifier, fer2013
from fer_batch.resources import find_artifacts_dir
from fer_batch.training import network, run
from fer_batch.training import recipe as recipes
from fer_batch.training.recipe import Augmentation, Recipe
from fer_batch.training.run import SHIPPED_SOFT_LABELS


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((find_artifacts_dir() / "fer48.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def artifact(card: dict[str, Any]) -> bytes:
    return (find_artifacts_dir() / card["artefact"]).read_bytes()


def test_the_artifact_matches_the_card_and_is_small(card: dict[str, Any], artifact: bytes) -> None:
    assert hashlib.sha256(artifact).hexdigest() == card["artefact_sha256"]
    assert len(artifact) == card["artefact_bytes"] <= 4_000_000
    assert card["multiply_adds"] <= 30_000_000


def test_the_default_recipe_is_that_of_the_card(card: dict[str, Any]) -> None:
    assert Recipe.model_validate(card["recipe"]) == Recipe()


def test_quantization_degrades_little(card: dict[str, Any]) -> None:
    assert card["eight_bits"]["is_taken"]
    for cost in ("accuracy_lost", "calibration_error_added"):
        assert card["eight_bits"][cost] <= 0.002


def test_the_shipped_soft_labels_match_the_card(card: dict[str, Any]) -> None:
    with np.load(SHIPPED_SOFT_LABELS, allow_pickle=False) as saved:
        assert str(saved["teacher_sha256"]) == card["data"]["teacher_sha256"]
        assert saved["probabilities"].shape == (card["data"]["rows"]["Training"], 7)
        assert all(saved[name].ndim <= 2 for name in saved.files)  # no images


def test_the_teachers_recipes_are_complete(card: dict[str, Any]) -> None:
    files = sorted((Path(recipes.__file__).parent / "teachers").glob("*.json"))
    assert len(files) == len(card["data"]["teacher_sha256"].split())
    for file in files:
        # Every field is given, so that changed defaults do not change them.
        written = json.loads(file.read_text())
        assert written.keys() == Recipe.model_fields.keys()
        assert written["augmentation"].keys() == Augmentation.model_fields.keys()
    teachers = [recipes.load_recipe(file) for file in files]
    # One of the teachers was itself distilled; the others were not.
    assert [teacher.teacher_weight > 0 for teacher in teachers] == [False, False, True]
    large = [teacher for teacher in teachers if teacher.teacher_weight == 0]
    for teacher in large:
        cost = network.count_multiply_adds(network.build(teacher))
        assert cost > 3 * card["multiply_adds"]


def test_the_metrics_of_the_card_meet_the_requirements(card: dict[str, Any]) -> None:
    for usage in ("PublicTest", "PrivateTest"):
        polar = card["metrics"][usage]["happy_sad"]
        assert polar["accuracy"] >= 0.955
        assert min(polar["recall_happy"], polar["recall_sad"]) >= 0.94
        assert card["metrics"][usage]["calibration"]["ece"] <= 0.03
    assert_meets_targets(card["metrics"]["PrivateTest"])


def assert_meets_targets(metrics: dict[str, Any]) -> None:
    """The requirements for PrivateTest, against the voters and for the forced choice."""
    assert metrics["happy_sad"]["accuracy"] >= 0.955
    assert max(metrics["probabilities"].values()) <= 0.03
    votes = metrics["votes"]
    assert votes["accuracy"] >= 0.90
    assert votes["neutral_called_sad"] <= 0.06
    assert votes["sad_called_sad"] >= 0.65
    assert votes["happy_called_happy"] >= 0.90


def test_the_metrics_of_the_card_are_reproduced_on_the_real_data(
    card: dict[str, Any], artifact: bytes, shared_dir: Path
) -> None:
    real = shared_dir / "data" / "fer2013"
    classify = classifier.open_artifact(artifact, "artifact", 2)
    splits = fer2013.read(real / "fer2013.tar.gz", real / "fer2013new.csv")
    assert {usage: len(split) for usage, split in splits.items()} == card["data"]["rows"]
    fitted = run.describe_scoring(classify, splits)
    assert fitted["vote_calibration"] == {
        "features": card["vote_calibration"]["features"],
        **{
            # The last digits of a probability depend on the processor.
            key: [pytest.approx(row, abs=0.002) for row in card["vote_calibration"][key]]
            for key in ("weights", "intercepts")
        },
    }
    assert fitted["calling_rule"] == pytest.approx(card["calling_rule"], abs=0.011)
    assert_meets_targets(fitted["metrics"]["PrivateTest"])
    for usage in ("PublicTest", "PrivateTest"):
        metrics, written = fitted["metrics"][usage], card["metrics"][usage]
        for figure, key in (
            ("happy_sad", "accuracy"),
            ("happy_sad", "recall_happy"),
            ("happy_sad", "recall_sad"),
            ("happy_sad_consensus", "accuracy"),
            ("seven", "accuracy"),
            ("three", "accuracy"),
            ("votes", "accuracy"),
            ("votes", "neutral_called_sad"),
            ("votes", "sad_called_sad"),
            ("votes", "happy_called_happy"),
            ("probabilities", "ece_happy"),
            ("probabilities", "ece_sad"),
            ("probabilities", "ece_neither"),
        ):
            assert metrics[figure][key] == pytest.approx(written[figure][key], abs=0.002), figure
        for result, before in zip(metrics["robustness"], written["robustness"], strict=True):
            assert result["change"] == before["change"]
            assert result["accuracy"] == pytest.approx(before["accuracy"], abs=0.005), result
        for truth, by_size in card["confusions"][usage].items():
            for size, table in by_size.items():
                again = fitted["confusions"][usage][truth][size]
                assert np.abs(np.subtract(again, table)).max() <= 5, (truth, size)
    copies = int(fer2013.find_training_copies(splits).sum())
    assert copies == card["data"]["training_rows_left_out"]
