"""A promotion affects the next run, but neither a started run nor existing results."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fer_batch.errors import ModelError, PermanentError
from fer_batch.model import active_model, model_registry
from fer_batch.model.classifier import Cnn, find_shipped_card, load_artifact
from tests.fixtures.night import DAY, Night, format_facility
from tests.fixtures.servers import switch_login
from tests.support.models import build_tiny_onnx, write_tiny_cnn


def promote(night: Night, cnn: Cnn, reason: str = "test") -> None:
    with active_model.connect(night.settings) as connection:
        model_registry.promote(connection, cnn, "Ada", reason)


@pytest.fixture
def tiny(night: Night) -> Cnn:
    """Bright is Happy."""
    assert night.settings.model_card is not None
    return load_artifact(night.settings.model_card)


@pytest.fixture
def inverted(tmp_path: Path) -> Cnn:
    """Dark is Happy."""
    folder = tmp_path / "inverted"
    folder.mkdir()
    return load_artifact(write_tiny_cnn(folder, build_tiny_onnx(is_inverted=True), name="inverted"))


@pytest.fixture
def promoted(night: Night, tiny: Cnn) -> Night:
    """FER_MODEL_CARD is not set, the tiny CNN is promoted, and its files are deleted."""
    assert night.settings.model_card is not None
    night.settings.model_card.unlink()
    night.settings.model_card.with_suffix(".onnx").unlink()
    night = night.with_settings(model_card=None)
    night.write_registry(format_facility("a"))
    promote(night, tiny, "bright is Happy")
    return night


def get_counts(summary: dict[str, Any]) -> tuple[int, int]:
    faces = summary["faces"]
    happy, sad = (round(summary[f"called_{name}_rate"] * faces) for name in ("happy", "sad"))
    return happy, sad


def test_the_next_run_uses_the_promoted_cnn_and_old_summaries_keep_their_version(
    promoted: Night, tiny: Cnn, inverted: Cnn
) -> None:
    next_day = DAY + timedelta(1)
    promoted.fill("a", happy=30, sad=10)
    promoted.fill("a", happy=30, sad=10, day=next_day)
    promoted.run("first")
    before = promoted.query("select * from fer.satisfaction_summary")
    promote(promoted, inverted)
    promoted.run("second", capture_day=next_day)
    old, new = promoted.query("select * from fer.satisfaction_summary order by capture_day")
    assert [old] == before
    assert get_counts(old) == (30, 10)
    assert get_counts(new) == (10, 30)
    assert old["model_version"] == active_model.compute_version(promoted.settings, tiny.card)
    assert new["model_version"] == active_model.compute_version(promoted.settings, inverted.card)


def test_a_promotion_during_a_run_does_not_affect_that_run(
    promoted: Night, tiny: Cnn, inverted: Cnn
) -> None:
    promoted = promoted.with_settings(shard_images=20, chunk_images=7)
    promoted.fill("a", happy=30, sad=10)
    run = promoted.open("night")
    run.sync_facilities()
    run.list_images()
    one, two = run.plan_shards()
    promoted.open("night").score_shard(one)
    promote(promoted, inverted)
    # As in separate processes: each step knows only the run id.
    promoted.open("night").score_shard(two)
    assert promoted.open("night").plan_shards() == []
    (summary,) = promoted.open("night").summarize()
    assert get_counts(summary) == (30, 10)
    assert summary["model_version"] == active_model.compute_version(promoted.settings, tiny.card)
    assert promoted.open("night").check_data() == []
    # Nor if its tasks are cleared later.
    assert promoted.open("night").model_version == summary["model_version"]
    assert promoted.open("next").model_version == active_model.compute_version(
        promoted.settings, inverted.card
    )


def test_a_rollback_is_used_by_the_next_run(promoted: Night, tiny: Cnn, inverted: Cnn) -> None:
    promoted.fill("a", happy=30, sad=10)
    promote(promoted, inverted)
    with active_model.connect(promoted.settings) as connection:
        model_registry.rollback(
            connection, load_artifact(find_shipped_card()), "Bo", "the wrong way round"
        )
    promoted.run("first")
    assert get_counts(promoted.read_summary("a")) == (30, 10)
    chosen = active_model.load_active(promoted.settings)
    assert chosen.cnn == tiny
    assert "rolled back to" in chosen.why
    assert "the wrong way round" in chosen.why


def test_fer_model_card_takes_precedence_over_a_promotion(
    promoted: Night, tiny: Cnn, inverted: Cnn, tmp_path: Path
) -> None:
    chosen = promoted.with_settings(model_card=tmp_path / "inverted" / "tiny.json")
    promoted.fill("a", happy=30, sad=10)
    chosen.run("first")
    assert get_counts(promoted.read_summary("a")) == (10, 30)
    assert active_model.load_active(chosen.settings).cnn == inverted
    assert "FER_MODEL_CARD" in active_model.load_active(chosen.settings).why


def test_without_a_card_or_promotion_the_shipped_cnn_is_used(night: Night) -> None:
    shipped = load_artifact(find_shipped_card())
    alone = night.with_settings(model_card=None)
    for settings in (alone.settings, alone.with_settings(database_url=None).settings):
        assert active_model.load_active(settings).cnn == shipped
        assert "shipped" in active_model.load_active(settings).why


def test_different_settings_than_at_planning_are_rejected(promoted: Night) -> None:
    promoted.fill("a", happy=3, sad=1)
    run = promoted.open("night")
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    other = promoted.with_settings(min_image_px=17)
    with pytest.raises(ModelError, match=r"was planned with model version .* the same FER_"):
        other.open("night").score_shard(shard)
    # The scoring process also rejects them if only its settings differ.
    run.settings = other.settings
    with pytest.raises(PermanentError, match="was planned with model version"):
        run.score_shard(shard)
    assert promoted.query("select 1 from fer.image_result") == []


def test_a_modified_artifact_in_the_table_scores_nothing(promoted: Night) -> None:
    promoted.fill("a", happy=3, sad=1)
    run = promoted.open("night")
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    assert promoted.settings.database_url is not None
    owner_url = switch_login(promoted.settings.database_url.get_secret_value())
    as_owner = promoted.settings.model_copy(update={"database_url": SecretStr(owner_url)})
    for statement in (
        "alter table fer.cnn disable trigger cnn_is_kept",
        "alter table fer.cnn drop constraint cnn_artifact_matches_hash",
        "update fer.cnn set artifact = artifact || '\\x00'::bytea",
    ):
        with active_model.connect(as_owner) as connection:
            connection.exec_driver_sql(statement)
    with pytest.raises(ModelError, match="SHA-256"):
        promoted.open("night").score_shard(shard)
    with pytest.raises(PermanentError, match="SHA-256"):
        run.score_shard(shard)  # the parent process loaded the artifact before the change
    assert promoted.query("select 1 from fer.image_result") == []
