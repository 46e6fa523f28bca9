"""Migrations of a database that is filled already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from fer_batch import resources
from fer_batch.database import connections, ledger, schema
from fer_batch.pipeline import checks
from fer_batch.records import Batch, KeyRange
from fer_batch.satisfaction import revisions
from tests.fixtures.tables import VERSION, Tables

DAYS = [date(2026, 3, 1), date(2026, 3, 2)]
UNFINISHED = ["5_changed.jpg", "6_fetch_failed.jpg", "7_vanished_and_back.jpg", "8_new.jpg"]

# Two days of one facility at revision 0003, with every way in which an outcome ends or continues
# the work on an image.
FILL = """
INSERT INTO fer.model_version (model_version, manifest, card)
VALUES (repeat('a', 64), '{"format": 1}', '{"name": "test"}');

INSERT INTO fer.batch (facility_id, capture_day, status, images_listed, bytes_listed, listed_at,
    attempted_at, run_id)
SELECT 'north-mall', day, 'listed', 8, 8, day + 1, day + 1, 'run-1'
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day;

INSERT INTO fer.image (facility_id, capture_day, image_key, etag, size_bytes, first_seen_at,
    listed_at)
SELECT 'north-mall', day, key || '.jpg', '1', 1, day + 1, day + listed_after
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day
CROSS JOIN (VALUES ('1_scored', 1), ('2_no_face', 1), ('3_vanished', 1), ('4_killed_worker', 1),
    ('5_changed', 1), ('6_fetch_failed', 1), ('7_vanished_and_back', 3), ('8_new', 1)
) AS image (key, listed_after);

INSERT INTO fer.image_result (facility_id, capture_day, image_key, model_version, etag, outcome,
    p_happy, p_sad, p_neither, is_uncertain, face_count, size_bytes, run_id, scored_at)
SELECT 'north-mall', i.capture_day, i.image_key, repeat('a', 64), '1', o.outcome,
    o.p_happy, o.p_happy / 2, 1 - 1.5 * o.p_happy, o.p_happy < 0.1, o.faces, 1, 'run-1',
    i.capture_day + 2
FROM (VALUES ('1_scored', 'scored', 0.5, 1), ('2_no_face', 'no_face', NULL, 0),
    ('3_vanished', 'vanished', NULL, 0), ('4_killed_worker', 'killed_worker', NULL, 0),
    ('5_changed', 'changed', NULL, 0), ('6_fetch_failed', 'fetch_failed', NULL, 0),
    ('7_vanished_and_back', 'vanished', NULL, 0)
) AS o (key, outcome, p_happy, faces)
JOIN fer.image AS i ON i.image_key = o.key || '.jpg';

INSERT INTO fer.face_result (facility_id, capture_day, image_key, model_version, face_index,
    box_x, box_y, box_width, box_height, p_happy, p_sad, p_neither, is_uncertain)
SELECT facility_id, capture_day, image_key, model_version, 0, 0, 0, 48, 48, p_happy, p_sad,
    p_neither, is_uncertain
FROM fer.image_result WHERE outcome = 'scored';

INSERT INTO fer.satisfaction_summary (facility_id, capture_day, revision, model_version,
    target_share, time_zone, images, images_scored, images_pending, not_scored, faces, happy, sad,
    uncertain, neither, interval_method, confidence, verdict, is_complete, is_below_expected,
    run_id, created_at)
SELECT 'north-mall', day, 1, repeat('a', 64), 0.8, 'Europe/Berlin', 8, 1, 4,
    '{"no_face": 1, "vanished": 1, "killed_worker": 1}', 1, 1, 0, 0, 0, 'wilson', 0.95,
    'suppressed', false, false, 'run-1', day + 2
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day;

INSERT INTO fer.cnn (cnn_sha256, artefact_sha256, card, artefact)
SELECT hash, hash, jsonb_build_object('name', 'tiny', 'artefact_sha256', hash), 'x'
FROM encode(sha256('x'), 'hex') AS hash;
INSERT INTO fer.cnn_promotion (cnn_sha256, is_rollback, promoted_by, why)
SELECT cnn_sha256, false, 'Ada', 'the first' FROM fer.cnn;
INSERT INTO fer.retention (before_day) VALUES ('2026-01-01');
"""
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
    """A database at revision 0003 with two days, their summaries, and a promoted CNN."""
    engine = connections.create_engine(postgres_url)
    with connections.transaction(engine) as connection:
        connection.execute(sa.text("CREATE SCHEMA fer"))
        config = schema._build_alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for view in sorted((resources.find_sql_dir() / "views").glob("*.sql")):
            schema.run_script(connection, view)
        ledger.sync_facilities(connection, {"north-mall": Tables.build_facility("north-mall")})
        schema.ensure_partitions(connection, DAYS)
        connection.execution_options(no_parameters=True).exec_driver_sql(FILL)
    yield engine
    engine.dispose()


def upgrade(engine: sa.Engine) -> None:
    schema.upgrade(engine.url.render_as_string(hide_password=False))


def test_stored_outcomes_get_their_new_names(filled: sa.Engine) -> None:
    upgrade(filled)
    outcomes = "SELECT image_key, outcome FROM fer.image_result WHERE capture_day = :day ORDER BY 1"
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
    assert read(filled, newest) == [(1, 8, 1, "suppressed")]


def test_work_summaries_and_checks_stay_the_same(filled: sa.Engine) -> None:
    params = {"days": DAYS, "version": VERSION}
    before = read(filled, LIST_UNFINISHED, **params)
    assert before == [(day, key) for day in DAYS for key in UNFINISHED]
    upgrade(filled)
    assert read(filled, LIST_UNFINISHED, **params) == before
    batches = [Batch("north-mall", day) for day in DAYS]
    facilities = {"north-mall": Tables.build_facility("north-mall")}
    with connections.transaction(filled) as connection:
        page = ledger.list_unfinished(
            connection, KeyRange(batches[0], "0", "9", 0), VERSION, limit=100
        )
        assert [image.key for image in page] == UNFINISHED
        summaries = revisions.write_summaries(connection, batches, VERSION, facilities, "run-2")
        assert [(s["revision"], s["is_new_revision"]) for s in summaries] == [(1, False)] * 2
    findings = checks.check_data(filled, batches, VERSION, "run-1")
    assert {f["check"] for f in findings if f["severity"] == "error"} == {"images_without_outcome"}


def test_new_and_existing_partitions_refuse_the_old_outcomes(filled: sa.Engine) -> None:
    upgrade(filled)
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


def test_cnn_keeps_its_bytes_and_its_protection(filled: sa.Engine) -> None:
    upgrade(filled)
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


def test_migrated_database_equals_a_new_one(filled: sa.Engine, tables: Any) -> None:
    upgrade(filled)
    columns = """
        SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns
        WHERE table_schema = 'fer' AND table_name !~ '_2026_' ORDER BY 1, 2"""
    assert read(filled, columns) == read(tables.engine, columns)
    comments = f"SELECT * FROM ({COMMENTS}) AS c WHERE c.of !~ '_2026_' ORDER BY 1"  # noqa: S608
    assert read(filled, comments) == read(tables.engine, comments)
    old_names = "vanished|killed_worker|artefact"
    assert [row for row in read(filled, comments) if re.search(old_names, row[1])] == []
