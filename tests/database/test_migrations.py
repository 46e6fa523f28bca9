"""Migrations of a database that is filled already."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database import connections, ledger, schema, tables
from fer_batch.pipeline import checks
from fer_batch.records import Batch, KeyRange
from fer_batch.satisfaction import revisions
from fer_batch.satisfaction.figures import PRECISION, RATES
from fer_batch.settings import Settings
from tests.database.revision_0003 import DAYS, FILL
from tests.fixtures.servers import migrate_to, switch_login
from tests.fixtures.tables import CARD, VERSION, Tables
from tests.support.audits import insert_audit

UNFINISHED = ["5_changed.jpg", "6_fetch_failed.jpg", "7_vanished_and_back.jpg", "8_new.jpg"]

LIST_UNFINISHED = """
    SELECT capture_day, image_key
    FROM unnest(CAST(:days AS date[])) AS day
    CROSS JOIN fer.unfinished_image('north-mall', day, :version)
    ORDER BY 1, 2"""
COMMENTS = """
    SELECT objoid::regclass::text || '.' || objsubid AS of, description AS comment
    FROM pg_description WHERE classoid = 'pg_class'::regclass
        AND objoid IN (SELECT oid FROM pg_class WHERE relnamespace = 'fer'::regnamespace)
    UNION ALL
    SELECT objoid::regproc::text, description
    FROM pg_description WHERE classoid = 'pg_proc'::regclass
        AND objoid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'fer'::regnamespace)"""


def read(engine: sa.Engine, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(sql), parameters)]


@pytest.fixture
def filled(postgres_url: str) -> Iterator[sa.Engine]:
    """A database at revision 0003 with three days, their summaries, and a promoted CNN."""
    engine = connections.create_engine(postgres_url)
    with connections.transaction(engine) as connection:
        migrate_to(connection, "0003")
        schema.ensure_partitions(connection, DAYS)
        connection.execution_options(no_parameters=True).exec_driver_sql(FILL)
        schema.run_script(connection, resources.find_sql_dir() / "views" / "2_not_scored_daily.sql")
    yield engine
    engine.dispose()


@pytest.fixture
def upgrade(filled: sa.Engine, postgres_url: str) -> Callable[[], str]:
    """Upgrades the filled database."""
    return lambda: schema.upgrade(postgres_url)


def test_stored_outcomes_get_their_new_names(upgrade: Callable[[], str], filled: sa.Engine) -> None:
    upgrade()
    outcomes = "SELECT image_key, outcome FROM fer.image_result"
    outcomes += " WHERE capture_day = :day AND facility_id = 'north-mall' ORDER BY 1"
    for day in DAYS:
        assert read(filled, outcomes, day=day) == [
            ("1_scored.jpg", "scored"),
            ("2_no_face.jpg", "no_face"),
            ("3_vanished.jpg", "missing"),
            ("4_killed_worker.jpg", "decoder_crashed"),
            ("5_changed.jpg", "changed"),
            ("6_fetch_failed.jpg", "fetch_failed"),
            ("7_vanished_and_back.jpg", "missing"),
        ]
    not_scored = "SELECT DISTINCT outcome, images, all_images FROM fer.not_scored_daily ORDER BY 1"
    assert read(filled, not_scored) == [
        ("decoder_crashed", 1, 8),
        ("missing", 1, 8),
        ("no_face", 1, 8),
    ]
    newest = "SELECT DISTINCT revision, images, images_scored, verdict FROM fer.satisfaction_daily"
    newest += " WHERE facility_id = 'north-mall'"
    assert read(filled, newest) == [(1, 8, 1, "suppressed")]


def test_work_and_checks_stay_the_same_and_a_summary_is_written_once(
    upgrade: Callable[[], str], filled: sa.Engine
) -> None:
    params = {"days": DAYS, "version": VERSION}
    before = read(filled, LIST_UNFINISHED, **params)
    assert before == [(day, key) for day in DAYS for key in UNFINISHED]
    upgrade()
    assert read(filled, LIST_UNFINISHED, **params) == before
    batches = [Batch("north-mall", day) for day in DAYS]
    facilities = {"north-mall": Tables.build_facility("north-mall")}
    with connections.transaction(filled) as connection:
        page = ledger.list_unfinished(
            connection, KeyRange(batches[0], "0", "9", 0), VERSION, limit=100
        )
        assert [image.key for image in page] == UNFINISHED
        for is_new in (True, False):
            summaries = revisions.write_summaries(connection, batches, VERSION, facilities, "run-2")
            assert [(s["revision"], s["is_new_revision"]) for s in summaries] == [(2, is_new)] * 2
            assert {(s["method"], s["verdict"]) for s in summaries} == {("suppressed",) * 2}
    findings = checks.check_data(filled, batches, VERSION, "run-1", Settings(_env_file=None))
    assert {f["check"] for f in findings if f["severity"] == "error"} == {"images_without_outcome"}


def test_new_and_existing_partitions_refuse_the_old_outcomes(
    upgrade: Callable[[], str], filled: sa.Engine
) -> None:
    upgrade()
    with connections.transaction(filled) as connection:
        schema.ensure_partitions(connection, [DAYS[-1] + timedelta(1)])
    constraints = """
        SELECT relname, pg_get_constraintdef(con.oid)
        FROM pg_constraint AS con JOIN pg_class AS c ON c.oid = con.conrelid
        WHERE conname = 'image_result_outcome_check' ORDER BY 1"""
    definitions = dict(read(filled, constraints))
    assert list(definitions) == [
        "image_result",
        *(f"image_result_2026_03_0{n}" for n in (1, 2, 3)),
    ]
    assert len(set(definitions.values())) == 1
    for outcome in ("vanished", "killed_worker"):
        assert outcome not in definitions["image_result"]
        change = "UPDATE fer.image_result SET outcome = :outcome WHERE image_key = '2_no_face.jpg'"
        with (
            pytest.raises(sa.exc.IntegrityError, match="image_result_outcome_check"),
            filled.begin() as connection,
        ):
            connection.execute(sa.text(change), {"outcome": outcome})


def test_stored_faces_and_images_get_a_called_class(
    upgrade: Callable[[], str], filled: sa.Engine
) -> None:
    before = {
        table: read(
            filled,
            "SELECT facility_id, capture_day, image_key, emotion, p_happy, p_sad, p_neither"  # noqa: S608
            f" FROM fer.{table} ORDER BY 1, 2, 3",
        )
        for table in ("face_result", "image_result")
    }
    upgrade()
    for table, rows in before.items():
        after = read(
            filled,
            "SELECT facility_id, capture_day, image_key, emotion, p_happy, p_sad, p_neither"  # noqa: S608
            f" FROM fer.{table} ORDER BY 1, 2, 3",
        )
        assert after == rows
        called = read(
            filled,
            f"SELECT image_key, emotion, called_class FROM fer.{table}"  # noqa: S608
            " WHERE facility_id = 'outlet' ORDER BY 1",
        )
        kinds = [("Happy", "happy"), ("Sad", "sad"), ("Happy", "neither")]
        assert called == [(f"{n:02}", *kinds[n % 3]) for n in range(60)]
    unscored = "SELECT DISTINCT called_class FROM fer.image_result WHERE outcome <> 'scored'"
    assert read(filled, unscored) == [(None,)]
    # They are ordinary columns: the stored probabilities do not determine them.
    with filled.begin() as connection:
        for table in before:
            connection.exec_driver_sql(
                f"UPDATE fer.{table} SET emotion = 'Sad', called_class = 'happy'"  # noqa: S608
                " WHERE image_key = '00'"
            )
    for change in (
        "UPDATE fer.face_result SET called_class = 'bored'",
        "UPDATE fer.image_result SET called_class = 'happy' WHERE outcome = 'no_face'",
        "UPDATE fer.image_result SET called_class = NULL WHERE outcome = 'scored'",
    ):
        with pytest.raises(sa.exc.IntegrityError), filled.begin() as connection:
            connection.exec_driver_sql(change)


FORMER = {
    "target_share": 0.8,
    "happy": 20,
    "sad": 20,
    "uncertain": 20,
    "neither": 3,
    "happy_share": 0.5,
    "happy_share_low": 0.352,
    "happy_share_high": 0.648,
    "uncertain_share": 0.333333,
    "neither_share": 0.05,
}


def test_published_figures_are_kept_beside_the_summary(
    upgrade: Callable[[], str], filled: sa.Engine
) -> None:
    """No rate of the method wilson appears among the new ones."""
    upgrade()
    former = "SELECT facility_id, period, first_day, capture_day, method, faces_scored, totals,"
    former += " called_happy, former_figures FROM fer.satisfaction_summary ORDER BY 1, 4"
    hidden = {name: None for name in FORMER if "share" in name and name != "target_share"}
    few = {**FORMER, "happy": 1, "sad": 0, "uncertain": 0, "neither": 0, **hidden}
    assert read(filled, former) == [
        *(("north-mall", "day", day, day, "wilson", 1, None, None, few) for day in DAYS),
        ("outlet", "day", DAYS[0], DAYS[0], "wilson", 60, None, None, FORMER),
    ]
    daily = "SELECT * FROM fer.satisfaction_daily WHERE facility_id = 'outlet'"
    with filled.connect() as connection:
        (row,) = connection.execute(sa.text(daily)).mappings()
    assert (row["method"], row["verdict"], row["faces"]) == ("wilson", "not satisfied", 60)
    assert {row[name] for name in (*RATES, *PRECISION, "target_rate")} == {None}
    assert (
        checks.check_data(
            filled, [Batch("outlet", DAYS[0])], VERSION, "run-1", Settings(_env_file=None)
        )
        == []
    )
    assert read(filled, "SELECT target_rate, publish_period FROM fer.facility") == [
        (None, "day"),
        (None, "day"),
    ]


@pytest.mark.parametrize(("card", "method"), [(CARD, "benchmark"), ({"name": "test"}, "raw")])
def test_next_summary_of_a_published_day_is_a_revision_of_a_new_method(
    upgrade: Callable[[], str], filled: sa.Engine, card: dict[str, Any], method: str
) -> None:
    upgrade()
    with filled.begin() as connection:
        connection.execute(sa.update(tables.model_version).values(card=card))
    batch, facilities = Batch("outlet", DAYS[0]), {"outlet": Tables.build_facility("outlet")}
    with connections.transaction(filled) as connection:
        (new,) = revisions.write_summaries(connection, [batch], VERSION, facilities, "run-2")
        (again,) = revisions.write_summaries(connection, [batch], VERSION, facilities, "run-3")
    assert (new["revision"], new["method"], new["former_figures"]) == (2, method, None)
    assert new["called_happy_rate"] == new["called_sad_rate"] == pytest.approx(1 / 3, abs=1e-6)
    assert new["happy_rate_low"] < new["happy_rate"] < new["happy_rate_high"]
    assert again == new | {"is_new_revision": False}
    assert checks.check_data(filled, [batch], VERSION, "run-1", Settings(_env_file=None)) == []
    stays = "SELECT former_figures FROM fer.satisfaction_summary WHERE facility_id = 'outlet'"
    assert (FORMER,) in read(filled, stays)


def test_an_audit_corrects_summaries_of_an_upgraded_database(
    upgrade: Callable[[], str], filled: sa.Engine
) -> None:
    upgrade()
    stored = "SELECT DISTINCT audit_id, audit_labels, reason FROM fer.satisfaction_summary"
    assert read(filled, stored) == [(None, None, "")]
    batch, facilities = Batch("outlet", DAYS[0]), {"outlet": Tables.build_facility("outlet")}
    with connections.transaction(filled) as connection:
        connection.execute(sa.update(tables.model_version).values(card=CARD))
        number = insert_audit(
            connection, [[60, 0, 9], [0, 20, 9], [5, 5, 99]], *DAYS[:2], facility_id="outlet"
        )
        (new,) = revisions.write_summaries(connection, [batch], VERSION, facilities, "run-2")
    assert (new["revision"], new["method"], new["audit_id"]) == (2, "local", number)
    shown = "SELECT audit_id, audit_labels FROM fer.satisfaction_daily WHERE facility_id = 'outlet'"
    assert read(filled, shown) == [(number, 207)]


def test_figures_of_both_methods_do_not_mix(upgrade: Callable[[], str], filled: sa.Engine) -> None:
    """A summary has either the former figures or the totals of the new ones."""
    upgrade()
    for change in (
        "SET method = 'benchmark'",
        "SET method = 'suppressed'",
        "SET happy_rate = 0.5",
        "SET former_figures = NULL",
        "SET called_happy = 60, called_sad = 0, called_neither = 0, totals = '{}'",
        "SET first_day = capture_day - 1",
        "SET period = 'week'",
    ):
        with pytest.raises(sa.exc.IntegrityError), filled.begin() as connection:
            connection.exec_driver_sql(f"UPDATE fer.satisfaction_summary {change}")


def test_cnn_keeps_its_bytes_and_its_protection(
    upgrade: Callable[[], str], filled: sa.Engine
) -> None:
    upgrade()
    assert read(filled, "SELECT artifact, artifact_sha256 = cnn_sha256 FROM fer.cnn") == [
        (b"x", True)
    ]
    assert read(filled, "SELECT promoted_by, why FROM fer.cnn_promotion") == [("Ada", "the first")]
    for change in (
        "UPDATE fer.cnn SET artifact = 'y'",
        "DELETE FROM fer.cnn_promotion",
        "TRUNCATE fer.cnn_promotion",
        "DELETE FROM fer.retention",
    ):
        with (
            pytest.raises(sa.exc.IntegrityError, match="never changed"),
            filled.begin() as connection,
        ):
            connection.execute(sa.text(change))
    insert = "INSERT INTO fer.cnn (cnn_sha256, artifact_sha256, card, artifact) VALUES {}"
    for values, constraint in (
        (
            "(repeat('b', 64), 'b', '{\"artefact_sha256\": \"b\"}', 'y')",
            "cnn_artifact_matches_hash",
        ),
        ("(repeat('b', 64), encode(sha256('y'), 'hex'), '{}', 'y')", "cnn_card_names_artifact"),
    ):
        with (
            pytest.raises(sa.exc.IntegrityError, match=constraint),
            filled.begin() as connection,
        ):
            connection.exec_driver_sql(insert.format(values))


def test_migrated_database_equals_a_new_one(
    upgrade: Callable[[], str], filled: sa.Engine, database_url: str
) -> None:
    upgrade()
    new = connections.create_engine(switch_login(database_url))
    with connections.transaction(new) as connection:
        schema.ensure_partitions(connection, DAYS)
    columns = """
        SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns
        WHERE table_schema = 'fer' AND table_name !~ '_2026_' ORDER BY 1, 2"""
    assert read(filled, columns) == read(new, columns)
    comments = f"SELECT * FROM ({COMMENTS}) AS c WHERE c.of !~ '_2026_' ORDER BY 1"  # noqa: S608
    assert read(filled, comments) == read(new, comments)
    constraints = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'fer'::regnamespace ORDER BY 1, 2"""
    assert read(filled, constraints) == read(new, constraints)
    new.dispose()
    old_names = "vanished|killed_worker|artefact|uncertain|target_share"
    assert [row for row in read(filled, comments) if re.search(old_names, row[1])] == []
