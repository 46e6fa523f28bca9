"""CNNs in the tables: kept with their bytes, checked by hash, pointed at by a history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import sqlalchemy as sa

from fer_batch import classifier, database, models
from fer_batch.classifier import Cnn, load_artefact
from fer_batch.errors import ConfigurationError, DatabaseError, ModelError
from tests.support.models import tiny_onnx, write_tiny_cnn


def cnn(folder: Path, name: str, **changes: Any) -> Cnn:
    folder = folder / name
    folder.mkdir()
    content = tiny_onnx() + b"\x3a" + bytes([len(name)]) + name.encode()  # its domain
    return load_artefact(write_tiny_cnn(folder, content, name=name, **changes))


@pytest.fixture
def abc(tmp_path: Path) -> list[Cnn]:
    return [cnn(tmp_path, name) for name in ("aa", "bb", "cc")]


def promote(tables: Any, chosen: Cnn, by: str = "Ada", why: str = "better") -> models.Promotion:
    with database.transaction(tables.engine) as connection:
        return models.promote(connection, chosen, by, why)


def rollback(tables: Any, shipped: Cnn) -> models.Promotion:
    with database.transaction(tables.engine) as connection:
        return models.rollback(connection, shipped, "Bo", "worse")


def load(tables: Any, cnn_sha256: str) -> Cnn | None:
    with database.transaction(tables.engine) as connection:
        return models.load(connection, cnn_sha256)


def test_a_cnn_comes_out_as_it_went_in_and_only_once(tables: Any, abc: list[Cnn]) -> None:
    with database.transaction(tables.engine) as connection:
        for chosen in (abc[0], abc[0], abc[1]):
            models.register(connection, chosen)
        assert {r.cnn_sha256 for r in models.registered(connection)} == {
            c.cnn_sha256 for c in abc[:2]
        }
    assert load(tables, abc[0].cnn_sha256) == abc[0]
    assert load(tables, abc[2].cnn_sha256) is None


def test_another_threshold_is_another_cnn(tables: Any, tmp_path: Path) -> None:
    one = cnn(tmp_path, "one")
    other = Cnn(one.card.model_copy(update={"uncertain_below": 0.9}), one.artefact)
    with database.transaction(tables.engine) as connection:
        models.register(connection, one)
        models.register(connection, other)
        found = {r.card.uncertain_below for r in models.registered(connection)}
    assert found == {0.7, 0.9}


def test_bytes_of_another_hash_are_refused_before_they_are_opened(
    tables: Any, abc: list[Cnn], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(tables, abc[0])
    change = "UPDATE fer.cnn SET artefact = artefact || '\\x00'::bytea"
    with pytest.raises(DatabaseError, match="never changed"), tables.transaction() as connection:
        connection.exec_driver_sql(change)
    tables.execute("ALTER TABLE fer.cnn DISABLE TRIGGER cnn_is_kept")
    with (
        pytest.raises(DatabaseError, match="cnn_artefact_is_its_hash"),
        tables.transaction() as connection,
    ):
        connection.exec_driver_sql(change)
    tables.execute("ALTER TABLE fer.cnn DROP CONSTRAINT cnn_artefact_is_its_hash")
    with tables.transaction() as connection:
        connection.exec_driver_sql(change)
    for opens in ((onnxruntime, "InferenceSession"), (classifier, "open_artefact")):
        monkeypatch.setattr(*opens, lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match=r"registered CNN aa has SHA-256 .* it was not opened"):
        load(tables, abc[0].cnn_sha256)


def test_the_newest_promotion_is_the_one_and_the_history_says_who_and_why(
    tables: Any, abc: list[Cnn]
) -> None:
    with database.transaction(tables.engine) as connection:
        assert models.promoted(connection) is None
        assert models.history(connection) == []
    promote(tables, abc[0], "Ada", "the first")
    promote(tables, abc[1], "Bo", "more Sad is found")
    with database.transaction(tables.engine) as connection:
        newest, first = models.history(connection)
        assert models.promoted(connection) == newest
    assert (newest.name, newest.promoted_by, newest.why) == ("bb", "Bo", "more Sad is found")
    assert (first.name, first.promoted_by, first.why) == ("aa", "Ada", "the first")
    assert first.promoted_at < newest.promoted_at


def test_each_rollback_goes_one_promotion_further_down_to_what_ships(
    tables: Any, abc: list[Cnn], tmp_path: Path
) -> None:
    shipped = cnn(tmp_path, "shipped")
    with pytest.raises(ConfigurationError, match="no promotion to take back"):
        rollback(tables, shipped)
    for chosen in abc:
        promote(tables, chosen)
    assert rollback(tables, shipped).name == "bb"
    assert rollback(tables, shipped).name == "aa"
    promote(tables, abc[2])
    assert rollback(tables, shipped).name == "aa"
    assert rollback(tables, shipped).name == "shipped"
    with pytest.raises(ConfigurationError, match="no promotion to take back"):
        rollback(tables, shipped)
    with database.transaction(tables.engine) as connection:
        assert [p.is_rollback for p in models.history(connection)] == [
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
def test_the_history_is_only_added_to(tables: Any, abc: list[Cnn], change: str) -> None:
    promote(tables, abc[0])
    with pytest.raises(DatabaseError, match="never changed"), tables.transaction() as connection:
        connection.exec_driver_sql(change)
    assert tables.rows("SELECT why FROM fer.cnn_promotion") == [("better",)]


def test_what_says_nothing_is_not_written(tables: Any, abc: list[Cnn]) -> None:
    for by, why in (("", "better"), ("Ada", " ")):
        with pytest.raises(ConfigurationError, match="who did it and why"):
            promote(tables, abc[0], by, why)
    promote(tables, abc[0])
    with pytest.raises(ConfigurationError, match="aa is promoted already, by Ada"):
        promote(tables, abc[0], "Bo")
    assert tables.rows("SELECT count(*) FROM fer.cnn_promotion") == [(1,)]


def test_a_promoted_cnn_cannot_be_deleted(tables: Any, abc: list[Cnn]) -> None:
    promote(tables, abc[0])
    with pytest.raises(sa.exc.IntegrityError):
        tables.execute("DELETE FROM fer.cnn")
