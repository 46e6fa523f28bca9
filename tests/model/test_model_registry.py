"""The model registry: stored bytes, verified hashes, promotions and rollbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.errors import ConfigurationError, DatabaseError, ModelError
from fer_batch.model import classifier, model_registry
from fer_batch.model.classifier import CardRule, Cnn, load_artifact
from tests.support.models import build_tiny_onnx, write_tiny_cnn


def write_cnn(folder: Path, name: str, **changes: Any) -> Cnn:
    folder = folder / name
    folder.mkdir()
    content = build_tiny_onnx() + b"\x3a" + bytes([len(name)]) + name.encode()  # its domain
    return load_artifact(write_tiny_cnn(folder, content, name=name, **changes))


@pytest.fixture
def three_cnns(tmp_path: Path) -> list[Cnn]:
    return [write_cnn(tmp_path, name) for name in ("aa", "bb", "cc")]


def promote(
    tables: Any, cnn: Cnn, by: str = "Ada", why: str = "better"
) -> model_registry.Promotion:
    with connections.transaction(tables.engine) as connection:
        return model_registry.promote(connection, cnn, by, why)


def rollback(tables: Any, shipped: Cnn) -> model_registry.Promotion:
    with connections.transaction(tables.engine) as connection:
        return model_registry.rollback(connection, shipped, "Bo", "worse")


def load(tables: Any, cnn_sha256: str) -> Cnn | None:
    with connections.transaction(tables.engine) as connection:
        return model_registry.load(connection, cnn_sha256)


def test_a_cnn_is_registered_once_and_loaded_unchanged(tables: Any, three_cnns: list[Cnn]) -> None:
    with connections.transaction(tables.engine) as connection:
        for cnn in (three_cnns[0], three_cnns[0], three_cnns[1]):
            model_registry.register(connection, cnn)
        assert {r.cnn_sha256 for r in model_registry.list_registered(connection)} == {
            c.cnn_sha256 for c in three_cnns[:2]
        }
    assert load(tables, three_cnns[0].cnn_sha256) == three_cnns[0]
    assert load(tables, three_cnns[2].cnn_sha256) is None


def test_the_calling_rule_is_part_of_the_identity_of_a_cnn(tables: Any, tmp_path: Path) -> None:
    cnn = write_cnn(tmp_path, "one")
    rule = CardRule(happy_from=0.5, sad_from=0.4)
    other = Cnn(cnn.card.model_copy(update={"calling_rule": rule}), cnn.artifact)
    with connections.transaction(tables.engine) as connection:
        model_registry.register(connection, cnn)
        model_registry.register(connection, other)
        thresholds = {r.card.rule.sad_from for r in model_registry.list_registered(connection)}
    assert thresholds == {0.5, 0.4}


def test_bytes_with_another_hash_are_rejected_before_they_are_opened(
    tables: Any, three_cnns: list[Cnn], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(tables, three_cnns[0])
    change = "UPDATE fer.cnn SET artifact = artifact || '\\x00'::bytea"
    with (
        pytest.raises(DatabaseError, match="never changed"),
        connections.transaction(tables.admin) as connection,
    ):
        connection.exec_driver_sql(change)
    tables.execute("ALTER TABLE fer.cnn DISABLE TRIGGER cnn_is_kept")
    with (
        pytest.raises(DatabaseError, match="cnn_artifact_matches_hash"),
        connections.transaction(tables.admin) as connection,
    ):
        connection.exec_driver_sql(change)
    tables.execute("ALTER TABLE fer.cnn DROP CONSTRAINT cnn_artifact_matches_hash")
    with connections.transaction(tables.admin) as connection:
        connection.exec_driver_sql(change)
    for module, name in ((onnxruntime, "InferenceSession"), (classifier, "open_artifact")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match=r"registered CNN aa has SHA-256 .* it was not opened"):
        load(tables, three_cnns[0].cnn_sha256)


def test_the_newest_promotion_counts_and_the_history_has_person_and_reason(
    tables: Any, three_cnns: list[Cnn]
) -> None:
    with connections.transaction(tables.engine) as connection:
        assert model_registry.find_promoted(connection) is None
        assert model_registry.list_promotions(connection) == []
    promote(tables, three_cnns[0], "Ada", "the first")
    promote(tables, three_cnns[1], "Bo", "more Sad is found")
    with connections.transaction(tables.engine) as connection:
        newest, first = model_registry.list_promotions(connection)
        assert model_registry.find_promoted(connection) == newest
    assert (newest.name, newest.promoted_by, newest.why) == ("bb", "Bo", "more Sad is found")
    assert (first.name, first.promoted_by, first.why) == ("aa", "Ada", "the first")
    assert first.promoted_at < newest.promoted_at


def test_each_rollback_reverts_one_promotion_down_to_the_shipped_cnn(
    tables: Any, three_cnns: list[Cnn], tmp_path: Path
) -> None:
    shipped = write_cnn(tmp_path, "shipped")
    with pytest.raises(ConfigurationError, match="no promotion to roll back"):
        rollback(tables, shipped)
    for cnn in three_cnns:
        promote(tables, cnn)
    assert rollback(tables, shipped).name == "bb"
    assert rollback(tables, shipped).name == "aa"
    promote(tables, three_cnns[2])
    assert rollback(tables, shipped).name == "aa"
    assert rollback(tables, shipped).name == "shipped"
    with pytest.raises(ConfigurationError, match="no promotion to roll back"):
        rollback(tables, shipped)
    with connections.transaction(tables.engine) as connection:
        assert [p.is_rollback for p in model_registry.list_promotions(connection)] == [
            True, True, False, True, True, False, False, False,
        ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE fer.cnn_promotion SET why = 'another reason'",
        "DELETE FROM fer.cnn_promotion",
        "TRUNCATE fer.cnn_promotion",
        "TRUNCATE fer.cnn CASCADE",
    ],
)
def test_the_history_is_append_only(tables: Any, three_cnns: list[Cnn], change: str) -> None:
    promote(tables, three_cnns[0])
    with (
        pytest.raises(DatabaseError, match="never changed"),
        connections.transaction(tables.admin) as connection,
    ):
        connection.exec_driver_sql(change)
    assert tables.query("SELECT why FROM fer.cnn_promotion") == [("better",)]


def test_invalid_promotions_are_not_written(tables: Any, three_cnns: list[Cnn]) -> None:
    for by, why in (("", "better"), ("Ada", " ")):
        with pytest.raises(ConfigurationError, match="who decided it and the reason"):
            promote(tables, three_cnns[0], by, why)
    promote(tables, three_cnns[0])
    with pytest.raises(ConfigurationError, match="aa is already promoted, by Ada"):
        promote(tables, three_cnns[0], "Bo")
    assert tables.query("SELECT count(*) FROM fer.cnn_promotion") == [(1,)]


def test_a_promoted_cnn_cannot_be_deleted(tables: Any, three_cnns: list[Cnn]) -> None:
    promote(tables, three_cnns[0])
    with pytest.raises(sa.exc.IntegrityError):
        tables.execute("DELETE FROM fer.cnn")
