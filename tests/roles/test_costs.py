"""Roles and row-level security make no query dearer: its cost, compared with the owner's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database import ledger, results, roles, schema
from fer_batch.local.stack.postgres import PostgresServer
from fer_batch.pipeline import checks, planning
from fer_batch.satisfaction import revisions
from fer_batch.settings import Settings
from tests.fixtures.servers import INSPECTOR, LOGINS, fresh_database
from tests.fixtures.tables import VERSION, Tables
from tests.roles.conftest import DAY

QUERIES = sorted((resources.find_sql_dir() / "queries").glob("*.sql"))
DAYS = [DAY + timedelta(n) for n in range(5)]
IMAGES = 5_000

FILL = """
INSERT INTO fer.image (facility_id, capture_day, image_key, etag, size_bytes, first_seen_at,
    listed_at)
SELECT f, d, to_char(n, 'FM000000'), n, 1300, d + 1, d + 1
FROM unnest(ARRAY['north-mall', 'outlet', 'kiosk']) AS f, unnest(CAST(:days AS date[])) AS d,
    generate_series(1, :images) AS n;
INSERT INTO fer.image_result (facility_id, capture_day, image_key, model_version, etag, outcome,
    emotion, called_class, p_happy, p_sad, p_neither, face_count, size_bytes, run_id, scored_at)
SELECT facility_id, capture_day, image_key, :version, etag, 'scored', 'Happy', 'happy', 0.7, 0.2,
    0.1, 1, 1300, 'run-1', capture_day + 2
FROM fer.image WHERE right(image_key, 1) <> '7';
INSERT INTO fer.face_result (facility_id, capture_day, image_key, model_version, face_index, box_x,
    box_y, box_width, box_height, p_happy, p_sad, p_neither, emotion, called_class)
SELECT facility_id, capture_day, image_key, model_version, 0, 0, 0, 48, 48, p_happy, p_sad,
    p_neither, emotion, called_class
FROM fer.image_result;
INSERT INTO fer.batch (facility_id, capture_day, status, images_listed, bytes_listed, listed_at,
    attempted_at, run_id)
SELECT f, d, 'listed', :images, 1300 * :images, d + 1, d + 1, 'run-1'
FROM unnest(ARRAY['north-mall', 'outlet', 'kiosk']) AS f, unnest(CAST(:days AS date[])) AS d;
"""
PARAMS: dict[str, Any] = {
    **{
        name: field.default
        for name, field in Settings.model_fields.items()
        if name.startswith("alert_")
    },
    "max_q_value": 0.05,
    "facility_id": "outlet",
    "capture_day": DAY,
    "model_version": VERSION,
    "rescore_before": None,
    "from_key": "003000",
    "to_key": "004000",
    "after_key": "003000",
    "page_size": 500,
    "time_zone": "Europe/Berlin",
    "slice_starts": [1000, 2000],
    "facility_ids": ["outlet", "kiosk"],
    "capture_days": [DAY],
    "figure_days": [DAY],
    "first_keys": ["000001"],
    "last_keys": ["002000"],
    "run_id": "run-1",
    "sample_size": 100,
    "image_keys": ["000001", "000002"],
    "first_key": "001000",
    "last_key": "001500",
    "unread_outcomes": ["missing"],
    "undecodable_outcomes": ["unreadable"],
    "decoded_outcomes": ["scored"],
}
STAGING = ("create_listing_table", "create_image_staging", "create_face_staging")
STATEMENTS = {
    **{n: ledger._STATEMENTS[n] for n in ("list_unfinished", "sample_images", "merge_listing")},
    **{n: ledger._STATEMENTS[n] for n in ("update_capture_info", "list_unlisted")},
    **{n: ledger._STATEMENTS[n] for n in ("discard_faces", "discard_images")},
    **{n: planning._STATEMENTS[n] for n in ("measure_work", "cut_work")},
    **{n: results._STATEMENTS[n] for n in ("list_finished", "count_outcomes", "discard_staged")},
    **{n: results._STATEMENTS[n] for n in ("merge_images", "delete_faces", "merge_faces")},
    "count_batch": revisions._STATEMENTS["count_batch"],
}


@pytest.fixture(scope="module")
def many_rows(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Tables]:
    """Five days of three facilities, analyzed by the job as after a run."""
    with fresh_database(postgres_server, migrated_template) as url:
        tables = Tables(url)
        for name in ("outlet", "kiosk"):
            tables.add(name)
        with tables.transaction() as connection:
            schema.ensure_partitions(connection, DAYS)
        values = {"days": DAYS, "images": IMAGES, "version": VERSION}
        for statement in FILL.split(";\n"):
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            if statement.strip():
                tables.execute(statement, **used)
        schema.analyze(tables.engine, DAYS)
        batches = [type(tables.batch)(name, day) for name in tables.facilities for day in DAYS]
        tables.summarize(*batches)
        with tables.admin.begin() as connection:
            schema.become_owner(connection)
            connection.execute(sa.text("ANALYZE fer.satisfaction_summary, fer.facility, fer.batch"))
        roles.grant(tables.admin_url, INSPECTOR, "inspector", ["north-mall", "outlet", "kiosk"])
        yield tables
        tables.dispose()


def explain(engine: sa.Engine, sql: str, params: dict[str, Any] | None = None) -> float:
    """The planner's cost of a statement, which is not executed."""
    with engine.connect() as connection:
        for name in STAGING:
            if params is not None:
                known = ledger._STATEMENTS.get(name)
                connection.execute(results._STATEMENTS[name] if known is None else known)
        statement: Any = sa.text(f"EXPLAIN (FORMAT JSON) {sql}")
        if params is None:
            plain = connection.execution_options(no_parameters=True)
            (plan,) = plain.exec_driver_sql(str(statement.text)).scalar_one()
        else:
            used = {name: params[name] for name in statement._bindparams}
            (plan,) = connection.execute(statement, used).scalar_one()
        connection.rollback()
    return float(plan["Plan"]["Total Cost"])


@pytest.mark.parametrize("file", QUERIES, ids=lambda file: file.stem)
def test_a_query_of_analysts_costs_as_much_as_the_owners(many_rows: Tables, file: Any) -> None:
    sql = file.read_text()
    role = re.search(r"^-- Role: fer_(\w+)$", sql, re.MULTILINE)
    assert role is not None
    cost = explain(many_rows.connect(LOGINS[role[1]]), sql)
    assert cost <= 1.2 * explain(many_rows.admin, sql)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_of_a_run_costs_as_much_as_the_owners(many_rows: Tables, name: str) -> None:
    sql = STATEMENTS[name].text
    assert explain(many_rows.engine, sql, PARAMS) <= 1.2 * explain(many_rows.admin, sql, PARAMS)


@pytest.mark.parametrize("check", checks.load_checks(), ids=lambda check: check.name)
def test_a_check_costs_as_much_as_the_owners(many_rows: Tables, check: Any) -> None:
    sql = (resources.find_sql_dir() / "checks" / f"{check.name}.sql").read_text()
    assert explain(many_rows.engine, sql, PARAMS) <= 1.2 * explain(many_rows.admin, sql, PARAMS)
