"""What a promotion changes, and when: the next run, never one under way, never what was written."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch import choice, models
from fer_batch.classifier import Cnn, load_artefact, shipped_card
from fer_batch.errors import ModelError, PermanentError
from tests.end_to_end.conftest import DAY, Night, facility
from tests.support.models import tiny_onnx, write_tiny_cnn


def promote(night: Night, cnn: Cnn, why: str = "test") -> None:
    with choice.connected(night.settings) as connection:
        models.promote(connection, cnn, "Ada", why)


@pytest.fixture
def tiny(night: Night) -> Cnn:
    """Bright is Happy."""
    assert night.settings.model_card is not None
    return load_artefact(night.settings.model_card)


@pytest.fixture
def inverted(tmp_path: Path) -> Cnn:
    """Dark is Happy."""
    folder = tmp_path / "inverted"
    folder.mkdir()
    return load_artefact(write_tiny_cnn(folder, tiny_onnx(is_inverted=True), name="inverted"))


@pytest.fixture
def unset(night: Night, tiny: Cnn) -> Night:
    """No card is set; the tiny CNN is promoted. Nobody else has its files any more."""
    assert night.settings.model_card is not None
    night.settings.model_card.unlink()
    night.settings.model_card.with_suffix(".onnx").unlink()
    night = night.with_settings(model_card=None)
    night.registry(facility("a"))
    promote(night, tiny, "bright is Happy")
    return night


def counts(summary: dict[str, Any]) -> tuple[int, int]:
    return summary["happy"], summary["sad"]


def test_the_next_run_uses_what_was_promoted_and_old_summaries_keep_their_version(
    unset: Night, tiny: Cnn, inverted: Cnn
) -> None:
    next_day = DAY + timedelta(1)
    unset.fill("a", happy=30, sad=10)
    unset.fill("a", happy=30, sad=10, day=next_day)
    unset.run("first")
    before = unset.rows("select * from fer.satisfaction_summary")
    promote(unset, inverted)
    unset.run("second", capture_day=next_day)
    old, new = unset.rows("select * from fer.satisfaction_summary order by capture_day")
    assert [old] == before
    assert counts(old) == (30, 10)
    assert counts(new) == (10, 30)
    assert old["model_version"] == choice.version(unset.settings, tiny.card)
    assert new["model_version"] == choice.version(unset.settings, inverted.card)


def test_a_promotion_in_the_middle_of_a_run_changes_nothing_of_it(
    unset: Night, tiny: Cnn, inverted: Cnn
) -> None:
    unset = unset.with_settings(shard_images=20, chunk_images=7)
    unset.fill("a", happy=30, sad=10)
    run = unset.open("night")
    run.sync_facilities()
    run.list_images()
    one, two = run.plan_shards()
    unset.open("night").score(one)
    promote(unset, inverted)
    # Each step as its own process takes it: with nothing but the name of the run.
    unset.open("night").score(two)
    assert unset.open("night").plan_shards() == []
    (summary,) = unset.open("night").summarize()
    assert counts(summary) == (30, 10)
    assert summary["model_version"] == choice.version(unset.settings, tiny.card)
    assert unset.open("night").check() == []
    # Nor of what is cleared later.
    assert unset.open("night").model_version == summary["model_version"]
    assert unset.open("next").model_version == choice.version(unset.settings, inverted.card)


def test_a_rollback_is_used_by_the_next_run(unset: Night, tiny: Cnn, inverted: Cnn) -> None:
    unset.fill("a", happy=30, sad=10)
    promote(unset, inverted)
    with choice.connected(unset.settings) as connection:
        models.rollback(connection, load_artefact(shipped_card()), "Bo", "the wrong way round")
    unset.run("first")
    assert counts(unset.summary("a")) == (30, 10)
    chosen = choice.in_use(unset.settings)
    assert chosen.cnn == tiny
    assert "rolled back to" in chosen.why
    assert "the wrong way round" in chosen.why


def test_a_card_that_is_set_wins(unset: Night, tiny: Cnn, inverted: Cnn, tmp_path: Path) -> None:
    chosen = unset.with_settings(model_card=tmp_path / "inverted" / "tiny.json")
    unset.fill("a", happy=30, sad=10)
    chosen.run("first")
    assert counts(unset.summary("a")) == (10, 30)
    assert choice.in_use(chosen.settings).cnn == inverted
    assert "FER_MODEL_CARD" in choice.in_use(chosen.settings).why


def test_without_card_and_promotion_it_is_the_one_that_ships(night: Night) -> None:
    shipped = load_artefact(shipped_card())
    alone = night.with_settings(model_card=None)
    for settings in (alone.settings, alone.with_settings(database_url=None).settings):
        assert choice.in_use(settings).cnn == shipped
        assert "it ships" in choice.in_use(settings).why


def test_other_settings_than_those_of_the_planning_are_refused(unset: Night) -> None:
    unset.fill("a", happy=3, sad=1)
    run = unset.open("night")
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    other = unset.with_settings(min_image_px=17)
    with pytest.raises(ModelError, match=r"was planned with model version .* the same FER_"):
        other.open("night").score(shard)
    # And by the process that scores, if it alone has others.
    run.settings = other.settings
    with pytest.raises(PermanentError, match="was planned with model version"):
        run.score(shard)
    assert unset.rows("select 1 from fer.image_result") == []


def test_bytes_that_were_changed_in_the_table_score_nothing(unset: Night) -> None:
    unset.fill("a", happy=3, sad=1)
    run = unset.open("night")
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    for statement in (
        "alter table fer.cnn disable trigger cnn_is_kept",
        "alter table fer.cnn drop constraint cnn_artefact_is_its_hash",
        "update fer.cnn set artefact = artefact || '\\x00'::bytea",
    ):
        with choice.connected(unset.settings) as connection:
            connection.exec_driver_sql(statement)
    with pytest.raises(ModelError, match="SHA-256"):
        unset.open("night").score(shard)
    with pytest.raises(PermanentError, match="SHA-256"):
        run.score(shard)  # whose own process had loaded it before
    assert unset.rows("select 1 from fer.image_result") == []
