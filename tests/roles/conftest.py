"""Two databases with roles, data and a login for each role: a new one and an upgraded one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import psycopg
import pytest

from fer_batch.database import connections, roles, schema
from fer_batch.local.stack.postgres import PostgresServer
from tests.fixtures.servers import (
    INSPECTOR,
    LOGINS,
    fresh_database,
    migrate,
    migrate_to,
    switch_login,
)
from tests.fixtures.tables import Tables

OLD_DAY = date(2026, 2, 1)
DAY = Tables.batch.capture_day
LATER = DAY + timedelta(1)

# What `sql/roles/analyst.sql` of earlier versions did.
FORMER_ANALYST = """
DO $body$
BEGIN
    CREATE ROLE fer_analyst NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$body$;
GRANT USAGE ON SCHEMA fer TO fer_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA fer TO fer_analyst;
ALTER DEFAULT PRIVILEGES FOR ROLE CURRENT_USER IN SCHEMA fer
    GRANT SELECT ON TABLES TO fer_analyst;
GRANT SELECT ON fer.image, fer.image_2026_02_01 TO PUBLIC;
"""
FILL = """
INSERT INTO fer.facility (facility_id, name, time_zone, image_kind, key_template)
VALUES ('outlet', 'Outlet', 'Europe/Berlin', 'crops', '{"{facility_id}/"}');
INSERT INTO fer.image (facility_id, capture_day, image_key, etag, size_bytes, first_seen_at,
    listed_at)
VALUES ('outlet', '2026-02-01', 'old.jpg', 'e', 1, now(), now());
"""

AUDIT = """
WITH a AS (
    INSERT INTO fer.audit (facility_id, model_version, first_day, last_day, seed, faces_in_window,
        faces_drawn)
    VALUES (:facility_id, :version, '2026-03-01', '2026-03-02', 1, 10, 1)
    RETURNING audit_id, facility_id),
f AS (
    INSERT INTO fer.audit_face (audit_id, face_number, facility_id) SELECT audit_id, 1, facility_id
    FROM a),
r AS (
    INSERT INTO fer.audit_result (audit_id, face_number, facility_id, model_version, called_class)
    SELECT audit_id, 1, facility_id, :version, 'happy' FROM a)
INSERT INTO fer.audit_label (audit_id, face_number, facility_id, rater, label)
SELECT audit_id, 1, facility_id, 'Ada', 'happy' FROM a
"""


def migrate_from_0009(server: PostgresServer, url: str) -> None:
    """A database of an earlier version, with rows and a role of analysts, upgraded."""
    owner_url = switch_login(url)
    engine = connections.create_engine(owner_url)
    with connections.transaction(engine) as connection:
        migrate_to(connection, "0009")
        schema.ensure_partitions(connection, [OLD_DAY])
        plain = connection.execution_options(no_parameters=True)
        plain.exec_driver_sql(FILL)
        plain.exec_driver_sql(FORMER_ANALYST)
    engine.dispose()
    migrate(server, owner_url.rpartition("/")[2])


def fill(tables: Tables) -> None:
    """Rows that each role may or may not see, on days whose partitions the job creates."""
    outlet = tables.add("outlet", target_rate=0.5)
    for batch in (tables.batch, replace(tables.batch, capture_day=LATER)):
        tables.fill(happy=60, sad=60, batch=batch)
        tables.summarize(batch)
    tables.fill(happy=5, sad=2, batch=outlet)  # too few faces to publish
    tables.summarize(outlet)
    tables.execute(
        "WITH c AS (INSERT INTO fer.cnn (cnn_sha256, artifact_sha256, card, artifact)"
        " SELECT h, h, jsonb_build_object('name', 'tiny', 'artefact_sha256', h), b"
        " FROM (SELECT encode(sha256(b), 'hex') AS h, b FROM (SELECT 'x'::bytea AS b) AS x) AS y"
        " RETURNING cnn_sha256)"
        " INSERT INTO fer.cnn_promotion (cnn_sha256, is_rollback, promoted_by, why)"
        " SELECT cnn_sha256, false, 'Ada', 'better on Sad' FROM c"
    )
    tables.execute("INSERT INTO fer.retention (before_day) VALUES ('2025-01-01')")
    tables.execute(
        "INSERT INTO fer.deletion (kind, capture_day, images, faces)"
        " VALUES ('retention', '2024-12-31', 1, 1)"
    )
    roles.grant(tables.admin_url, INSPECTOR, "inspector", ["north-mall"])
    for facility_id in tables.facilities:
        tables.execute(AUDIT, facility_id=facility_id, version=tables.version)


@pytest.fixture(scope="module", params=["new", "upgraded"])
def filled(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, migrated_template: str
) -> Iterator[Tables]:
    """A filled database, shared by tests that change nothing."""
    template = migrated_template if request.param == "new" else "template1"
    with fresh_database(postgres_server, template) as url:
        if request.param == "upgraded":
            migrate_from_0009(postgres_server, url)
        else:
            roles.repair(switch_login(url))  # privileges on a database are not copied with it
        tables = Tables(url)
        fill(tables)
        yield tables
        tables.dispose()


def connect(tables: Tables, role: str) -> psycopg.Connection[tuple[object, ...]]:
    """A session of the login that has this role."""
    return psycopg.connect(switch_login(tables.url, LOGINS[role]))
