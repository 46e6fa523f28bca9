"""`fer-batch models`: listing CNNs, promoting one and rolling back."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from fer_batch.model.classifier import find_shipped_card, load_artifact
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility
from tests.support.models import build_tiny_onnx, write_tiny_cnn

UNSET: dict[str, Any] = {"FER_MODEL_CARD": None}
SHIPPED = load_artifact(find_shipped_card()).card.name


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The card of another CNN, which classifies dark crops as Happy."""
    folder = tmp_path / "other"
    folder.mkdir()
    return write_tiny_cnn(folder, build_tiny_onnx(is_inverted=True), name="other", parameters=15)


def test_without_a_database_the_configured_and_the_shipped_cnn_are_listed(fer: Command) -> None:
    used, shipped = fer("models", "--json").json
    assert (used["name"], used["registered_at"], used["multiply_adds"]) == ("tiny", None, 7)
    assert used["in_use"].startswith("FER_MODEL_CARD names ")
    assert (shipped["name"], shipped["in_use"]) == (SHIPPED, None)
    assert shipped["happy_sad_accuracy"] > 0.9
    (alone,) = fer("models", "list", "--json", **UNSET).json
    assert alone["in_use"] == "shipped; no database is set"
    told = fer("models")
    assert used["model_version"][:12] in told.out
    assert "Active: tiny, FER_MODEL_CARD names" in told.out


def test_versions_of_earlier_settings_are_listed_with_their_images(
    nightly: Command, night: Night
) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=25, sad=10)
    assert nightly("run", "--capture-day", DAY.isoformat()).code == 0
    (used, _) = nightly("models", "--json").json
    assert (used["name"], used["images_scored"]) == ("tiny", 35)
    assert used["registered_at"]
    rows = {r["model_version"]: r for r in nightly("models", "--json", FER_MIN_FACE_PX="99").json}
    assert len(rows) == 3
    assert rows[used["model_version"]]["in_use"] is None
    assert rows[used["model_version"]]["images_scored"] == 35


def test_registered_promoted_rolled_back(nightly: Command, other: Path) -> None:
    """The usual sequence of commands, with the history at the end."""
    said = nightly("models", "register", str(other), **UNSET)
    assert (said.code, "other is registered" in said.out) == (0, True)
    rows = {row["name"]: row for row in nightly("models", "--json", **UNSET).json}
    assert rows[SHIPPED]["in_use"] == "shipped; none was promoted"
    assert (rows["other"]["in_use"], rows["other"]["parameters"]) == (None, 15)

    by_version = rows["other"]["model_version"][:8]
    assert (
        nightly("models", "promote", by_version, "--why", "trial", "--by", "Ada", **UNSET).code == 0
    )
    other.with_suffix(".onnx").unlink()  # every worker loads it from the database
    other.unlink()
    used, *_ = nightly("models", "--json", **UNSET).json
    assert used["name"] == "other"
    assert used["in_use"].startswith("promoted on ")
    assert used["in_use"].endswith(" UTC by Ada: trial")
    (cnn,) = [r for r in nightly("check", "--json", **UNSET).json if r["part"] == "CNN"]
    assert cnn["detail"].startswith("other, model version ")
    assert cnn["detail"].endswith("by Ada: trial")

    again = nightly("models", "promote", "other", "--why", "again", **UNSET)
    assert (again.code, "is already promoted" in again.err) == (2, True)
    back = nightly("models", "rollback", "--why", "was a trial", **UNSET)
    assert back.out == f"{SHIPPED} is active again, by {getpass.getuser()}: was a trial\n"
    assert nightly("models", "--json", **UNSET).json[0]["name"] == SHIPPED
    history = nightly("models", "history", "--json", **UNSET).json
    assert [(r["name"], r["promoted_by"], r["why"], r["is_rollback"]) for r in history] == [
        (SHIPPED, getpass.getuser(), "was a trial", True),
        ("other", "Ada", "trial", False),
    ]
    # The version identifies a row in the list, whatever the names of the CNNs are.
    assert [r["model_version"] for r in history] == [
        rows[name]["model_version"] for name in (SHIPPED, "other")
    ]
    shown = nightly("models", "history", **UNSET).out
    assert "was a trial" in shown
    assert rows["other"]["model_version"][:12] in shown


def test_a_promotion_warns_if_a_card_is_set(nightly: Command, other: Path) -> None:
    ended = nightly("models", "promote", str(other), "--why", "trial")
    assert ended.code == 0
    assert "FER_MODEL_CARD is set here and takes precedence" in ended.err
    assert nightly("models", "--json").json[0]["name"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", "nobody", "--why", "x"), "no CNN is called nobody"),
        (("promote", "00ff00", "--why", "x"), "no CNN is called 00ff00"),
        (("register", "gone.json"), "gone.json cannot be read"),
        (("rollback", "--why", "x"), "no promotion to roll back"),
        (("promote", "tiny"), "--why"),
    ],
)
def test_impossible_changes_are_refused_with_a_reason(
    nightly: Command, arguments: tuple[str, ...], said: str
) -> None:
    ended = nightly("models", *arguments)
    assert ended.code != 0
    assert said in ended.err + ended.out


def test_an_artifact_that_cannot_score_is_not_registered(nightly: Command, tmp_path: Path) -> None:
    ended = nightly("models", "register", str(write_tiny_cnn(tmp_path, build_tiny_onnx(classes=8))))
    assert (ended.code, "no probabilities" in ended.err) == (2, True)
    assert {row["registered_at"] for row in nightly("models", "--json").json} == {None}


def test_cnns_of_one_name_are_identified_by_version(
    nightly: Command, other: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    write_tiny_cnn(twin, name="other")
    for card in (other, twin / "tiny.json"):
        assert nightly("models", "register", str(card), **UNSET).code == 0
    ended = nightly("models", "promote", "other", "--why", "x", **UNSET)
    assert (ended.code, "several CNNs are called other" in ended.err) == (2, True)


def test_a_cnn_of_an_earlier_release_is_found_by_its_name(
    nightly: Command, night: Night, other: Path
) -> None:
    """The same card was registered under another SHA-256, with a threshold that is ignored."""
    assert nightly("models", "register", str(other), **UNSET).code == 0
    night.query(
        "INSERT INTO fer.cnn (cnn_sha256, artifact_sha256, card, artifact, registered_at) "
        "SELECT repeat('0', 64), artifact_sha256, card || '{\"uncertain_below\": 0.46}', artifact, "
        "registered_at FROM fer.cnn RETURNING 1"
    )
    assert [row["name"] for row in nightly("models", "--json", **UNSET).json].count("other") == 1
    assert nightly("models", "promote", "other", "--why", "x", **UNSET).code == 0
    assert nightly("models", "--json", **UNSET).json[0]["name"] == "other"


def test_a_registered_network_keeps_its_name(nightly: Command, other: Path, tmp_path: Path) -> None:
    assert nightly("models", "register", str(other), **UNSET).code == 0
    card = json.loads(other.read_text()) | {"name": "renamed"}
    (tmp_path / "renamed.json").write_text(json.dumps(card))
    (tmp_path / card["artefact"]).write_bytes((other.parent / card["artefact"]).read_bytes())
    told = nightly("models", "register", str(tmp_path / "renamed.json"), **UNSET)
    assert "renamed is registered as other" in told.out


def test_the_card_is_shown(nightly: Command, other: Path) -> None:
    assert nightly("models", "show", "--json").json == json.loads(
        Path(nightly.env["FER_MODEL_CARD"]).read_text()
    )
    shown = nightly("models", "show", str(other), "--json").json
    assert (shown["name"], shown["parameters"]) == ("other", 15)


def test_two_are_compared_on_a_day(nightly: Command, night: Night, other: Path) -> None:
    night.write_registry(format_facility("a"), format_facility("closed", permission=""))
    night.fill("a", happy=30, sad=10)
    where = ("--facility", "a", "--day", DAY.isoformat())
    found = nightly("models", "compare", "tiny", str(other), *where, "--json").json
    assert [(r["name"], r["called_happy"], r["called_sad"]) for r in found["cnns"]] == [
        ("tiny", 30, 10), ("other", 10, 30),
    ]  # fmt: skip
    assert found["agreement"] == 0
    told = nightly("models", "compare", "tiny", str(other), *where)
    assert "p_happy differs by 0.9" in told.out
    refused = nightly("models", "compare", "tiny", str(other), "--facility", "closed",
                      "--day", DAY.isoformat())  # fmt: skip
    assert (refused.code, "no permission is recorded" in refused.err) == (2, True)
