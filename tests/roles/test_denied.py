"""What each role must not do, tried with a login that is a member of this role only.

`ACTIONS` is the whole list. `ALLOWED` names the roles that may do an action all the same. Every
transaction is rolled back.
"""

# ruff: noqa: S608
from __future__ import annotations

import psycopg
import pytest

from tests.fixtures.tables import VERSION, Tables
from tests.roles.conftest import connect

ROLES = ("reader", "inspector", "writer", "eraser", "retainer")
DENIED = "42501"  # insufficient privilege

PER_IMAGE = ("image", "image_result", "face_result")
AUDITS = ("audit", "audit_face", "audit_result", "audit_label")
ROWS = (*PER_IMAGE, *AUDITS)
ALL_TABLES = (
    *(*PER_IMAGE, *AUDITS, "facility", "batch", "run", "model_version", "cnn", "cnn_promotion"),
    *("satisfaction_summary", "satisfaction_change", "deletion", "retention"),
    *("finding", "finding_day", "checked_day", "finished_night", "digest_delivery"),
    *("inspector_grant", "schema_version"),
)
SUMMARY = "SET verdict = 'satisfied', happy_rate = 1"

ACTIONS: dict[str, str] = {
    # The schema.
    **{f"drop {t}": f"DROP TABLE fer.{t} CASCADE" for t in ALL_TABLES},
    **{f"truncate {t}": f"TRUNCATE fer.{t} CASCADE" for t in ALL_TABLES},
    **{f"alter {t}": f"ALTER TABLE fer.{t} ADD COLUMN x integer" for t in ALL_TABLES},
    **{f"own {t}": f"ALTER TABLE fer.{t} OWNER TO CURRENT_USER" for t in ALL_TABLES},
    **{f"trigger {t}": f"ALTER TABLE fer.{t} DISABLE TRIGGER ALL" for t in ALL_TABLES},
    **{f"no policies on {t}": f"ALTER TABLE fer.{t} DISABLE ROW LEVEL SECURITY" for t in ROWS},
    **{f"policy on {t}": f"CREATE POLICY all_rows ON fer.{t} USING (true)" for t in ROWS},
    "drop policy": "DROP POLICY inspector ON fer.image",
    "drop schema": "DROP SCHEMA fer CASCADE",
    "rename schema": "ALTER SCHEMA fer RENAME TO other",
    "create table in fer": "CREATE TABLE fer.mine (x integer)",
    "create view in fer": "CREATE VIEW fer.mine AS SELECT 1 AS one",
    "create function in fer": "CREATE FUNCTION fer.mine() RETURNS integer RETURN 1",
    "create table in public": "CREATE TABLE public.mine (x integer)",
    "create schema": "CREATE SCHEMA mine",
    "replace view": "CREATE OR REPLACE VIEW fer.satisfaction_daily AS SELECT 1 AS facility_id",
    "drop view": "DROP VIEW fer.satisfaction_daily CASCADE",
    "replace function": "CREATE OR REPLACE FUNCTION fer.list_granted_facilities() RETURNS text[]"
    " LANGUAGE sql AS $$ SELECT '{outlet}'::text[] $$",
    "alter function": "ALTER FUNCTION fer.ensure_partitions SECURITY INVOKER",
    "create trigger": "CREATE TRIGGER mine BEFORE INSERT ON fer.run FOR EACH ROW"
    " EXECUTE FUNCTION fer.refuse_change()",
    "create index": "CREATE INDEX mine ON fer.run (began_at)",
    "comment": "COMMENT ON TABLE fer.image IS 'mine'",
    "drop a partition": "DROP TABLE fer.image_2026_03_01",
    "detach a partition": "ALTER TABLE fer.image DETACH PARTITION fer.image_2026_03_01",
    # Roles and privileges.
    **{f"become {r}": f"SET ROLE fer_{r}" for r in ("owner", *ROLES)},
    "become the owner's login": "SET ROLE fer",
    "become a superuser": "SET SESSION AUTHORIZATION postgres",
    "create role": "CREATE ROLE mallory",
    "alter role": "ALTER ROLE fer_writer LOGIN",
    "join role": "GRANT fer_owner TO CURRENT_USER",
    "join server files": "GRANT pg_read_server_files TO CURRENT_USER",
    "create extension": "CREATE EXTENSION file_fdw",
    # Partitions are never granted.
    **{f"read partition of {t}": f"SELECT count(*) FROM fer.{t}_2026_03_01" for t in PER_IMAGE},
    **{f"read newest partition of {t}": f"SELECT FROM fer.{t}_2026_03_02" for t in PER_IMAGE},
    **{f"empty partition of {t}": f"DELETE FROM fer.{t}_2026_03_01" for t in PER_IMAGE},
    # Published figures and history.
    "update summaries": f"UPDATE fer.satisfaction_summary {SUMMARY}",
    "merge summaries": "INSERT INTO fer.satisfaction_summary SELECT * FROM fer.satisfaction_summary"
    " ON CONFLICT (facility_id, period, capture_day, revision) DO UPDATE SET verdict = 'satisfied'",
    "delete summaries": "DELETE FROM fer.satisfaction_summary",
    "insert summaries": "INSERT INTO fer.satisfaction_summary DEFAULT VALUES",
    "update view": "UPDATE fer.facility_public SET target_rate = 0",
    "update changes": "UPDATE fer.satisfaction_change SET happy_change = 1",
    "update promotions": "UPDATE fer.cnn_promotion SET why = 'mine'",
    "delete promotions": "DELETE FROM fer.cnn_promotion",
    "backdate a promotion": "INSERT INTO fer.cnn_promotion (promoted_at) VALUES ('2020-01-01')",
    "update CNNs": "UPDATE fer.cnn SET card = '{}'",
    "delete CNNs": "DELETE FROM fer.cnn",
    "update model versions": "UPDATE fer.model_version SET card = '{}'",
    "delete model versions": "DELETE FROM fer.model_version",
    "update deletions": "UPDATE fer.deletion SET images = 0",
    "delete deletions": "DELETE FROM fer.deletion",
    "record a deletion": "INSERT INTO fer.deletion (kind, capture_day, images, faces)"
    " VALUES ('retention', '2024-01-01', 0, 0)",
    "record a deletion of others": "INSERT INTO fer.deletion (kind, capture_day, images, faces,"
    " deleted_by) VALUES ('retention', '2024-01-01', 0, 0, 'ada')",
    "move the horizon": "INSERT INTO fer.retention (before_day) VALUES ('2026-01-01')",
    "move the horizon as others": "INSERT INTO fer.retention (before_day, set_by)"
    " VALUES ('2026-01-01', 'ada')",
    "move the horizon back": "DELETE FROM fer.retention",
    "change the horizon": "UPDATE fer.retention SET before_day = '2020-01-01'",
    "change the time of runs": "UPDATE fer.run SET began_at = now()",
    "delete runs": "DELETE FROM fer.run",
    "delete batches": "DELETE FROM fer.batch",
    "delete facilities": "DELETE FROM fer.facility",
    "delete findings": "DELETE FROM fer.finding",
    "date a finding back": "UPDATE fer.finding SET opened_at = now()",
    "delete checked days": "DELETE FROM fer.checked_day",
    "delete finished nights": "DELETE FROM fer.finished_night",
    "delete deliveries": "DELETE FROM fer.digest_delivery",
    "change the migration": "UPDATE fer.schema_version SET version_num = '0001'",
    "grant facilities": "INSERT INTO fer.inspector_grant (login, login_oid, facility_id)"
    " VALUES (session_user, session_user::regrole, 'outlet')",
    "read grants": "SELECT FROM fer.inspector_grant",
    "drop an expired day": "SELECT fer.drop_day('2024-01-01')",
    "drop a day before it expires": "SELECT fer.drop_day('2026-03-01')",
    "update faces": "UPDATE fer.face_result SET p_happy = 1",
    # Audits.
    "draw an audit": "INSERT INTO fer.audit (facility_id, model_version, first_day, last_day, seed,"
    f" faces_in_window, faces_drawn) VALUES ('north-mall', '{VERSION}', '2026-03-01', '2026-03-02',"
    " 1, 10, 1)",
    "draw an audit of another facility": "INSERT INTO fer.audit (facility_id, model_version,"
    " first_day, last_day, seed, faces_in_window, faces_drawn)"
    f" VALUES ('outlet', '{VERSION}', '2026-03-01', '2026-03-02', 1, 10, 1)",
    "draw as others": "INSERT INTO fer.audit (facility_id, created_by) VALUES ('outlet', 'ada')",
    "change a draw": "UPDATE fer.audit SET seed = 1",
    "change who drew": "UPDATE fer.audit SET created_by = 'ada'",
    "finish audits": "UPDATE fer.audit SET finished_at = now(), finished_by = session_user,"
    " start_day = '2026-03-02', expiry_day = '2026-09-01'",
    "delete audits": "DELETE FROM fer.audit",
    "change audited faces": "UPDATE fer.audit_face SET etag = 'x'",
    "delete audited faces": "DELETE FROM fer.audit_face",
    "change what is called": "UPDATE fer.audit_result SET called_class = 'sad'",
    "delete what is called": "DELETE FROM fer.audit_result",
    "label": "INSERT INTO fer.audit_label (audit_id, face_number, facility_id, rater, label)"
    " SELECT audit_id, 1, facility_id, 'Bo', 'sad' FROM fer.audit",
    "label a face of another facility": "INSERT INTO fer.audit_label (audit_id, face_number,"
    " facility_id, rater, label) VALUES (2, 1, 'outlet', 'Bo', 'sad')",
    "label as others": "INSERT INTO fer.audit_label (audit_id, face_number, facility_id, rater,"
    " label, labeled_by) VALUES (1, 1, 'north-mall', 'Bo', 'sad', 'ada')",
    "change labels": "UPDATE fer.audit_label SET label = 'sad'",
    "delete labels": "DELETE FROM fer.audit_label",
    # Rows.
    **{f"read {t}": f"SELECT * FROM fer.{t} LIMIT 0" for t in ALL_TABLES},
    "read CNN files": "SELECT artifact FROM fer.cnn",
    **{f"delete from {t}": f"DELETE FROM fer.{t}" for t in PER_IMAGE},
    "insert images": "INSERT INTO fer.image SELECT * FROM fer.image WHERE false",
    "update images": "UPDATE fer.image SET etag = 'x'",
    "lock images": "LOCK TABLE fer.image IN ACCESS EXCLUSIVE MODE",
    "lock summaries": "LOCK TABLE fer.satisfaction_summary IN ACCESS EXCLUSIVE MODE",
    "call ensure_partitions": "SELECT fer.ensure_partitions('{2026-03-01}')",
    "call analyze_partitions": "SELECT fer.analyze_partitions('{2026-03-01}')",
    "call unfinished_image": "SELECT FROM fer.unfinished_image('outlet', '2026-03-01', 'a')",
    "call original_image": "SELECT FROM fer.original_image('outlet', '{2026-03-01}', 'a')",
    "call list_granted_facilities": "SELECT fer.list_granted_facilities()",
    "create temporary table": "CREATE TEMPORARY TABLE image (x integer)",
    # The server.
    "run a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "read from a program": "COPY fer.run FROM PROGRAM 'true'",
    "write a file": "COPY (SELECT 1) TO '/tmp/fer-batch-test'",
    "read a file": "SELECT pg_read_file('postgresql.conf')",
    "list files": "SELECT pg_ls_dir('.')",
    "export a large object": "SELECT lo_export(1, '/tmp/fer-batch-test')",
    "import a large object": "SELECT lo_import('/etc/hostname')",
    "read passwords": "SELECT rolpassword FROM pg_authid",
    "read statistics": "SELECT FROM pg_statistic",
    "change the server": "SELECT set_config('log_statement', 'none', false)",
    "end sessions": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'fer'",
    "write as a superuser": "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE c AS 'libc', 'exit'",
    "replicate": "SELECT pg_create_physical_replication_slot('mine')",
}

_JOB = ("writer", "eraser")
_JOB_TABLES = {t for t in ALL_TABLES if t != "inspector_grant"}
ALLOWED: dict[str, tuple[str, ...]] = {
    # A login may always become a role that it is a member of.
    **{f"become {role}": (role,) for role in ROLES},
    **{f"read {t}": _JOB for t in _JOB_TABLES},
    **{f"read {t}": (*_JOB, "inspector") for t in ROWS},
    **{f"read {t}": (*_JOB, "inspector") for t in ("model_version", "cnn", "cnn_promotion")},
    "draw an audit": ("inspector",),
    "finish audits": ("inspector",),
    "label": ("inspector",),
    "delete labels": ("inspector",),
    "delete what is called": ("inspector",),
    "delete audited faces": ("eraser",),
    "read schema_version": (*_JOB, "retainer"),
    "read retention": (*_JOB, "retainer"),
    "read CNN files": (*_JOB, "inspector"),
    **{f"delete from {t}": _JOB for t in PER_IMAGE},
    "insert images": _JOB,
    "update images": _JOB,
    "lock images": _JOB,
    "call ensure_partitions": _JOB,
    "call analyze_partitions": _JOB,
    "call unfinished_image": _JOB,
    "call original_image": (*_JOB, "inspector"),
    "call list_granted_facilities": ("inspector",),
    "create temporary table": _JOB,
    "delete summaries": ("eraser", "retainer"),
    "delete batches": ("eraser", "retainer"),
    **{
        f"delete {what}": ("retainer",)
        for what in ("runs", "findings", "finished nights", "deliveries", "audits")
    },
    "delete checked days": ("eraser", "retainer"),
    "lock summaries": ("eraser", "retainer"),
    "drop an expired day": ("retainer",),
    "record a deletion": ("eraser", "retainer"),
    "move the horizon": ("retainer",),
}
_BY_OTHER_MEANS = {
    # Refused for another reason than a privilege: the row is incomplete.
    "insert summaries": _JOB,
    "backdate a promotion": (),
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_does_nothing_beyond_its_list(filled: Tables, role: str) -> None:
    wrong = []
    with connect(filled, role) as connection:
        for name, statement in ACTIONS.items():
            is_allowed = role in ALLOWED.get(name, ())
            state = attempt(connection, statement)
            if role in _BY_OTHER_MEANS.get(name, ()):
                is_right = state == "23502"
            else:
                is_right = state is None if is_allowed else state == DENIED
            if not is_right:
                wrong.append(f"{name}: {state}")
    assert wrong == [], "; ".join(wrong)


def attempt(connection: psycopg.Connection[tuple[object, ...]], statement: str) -> str | None:
    """The SQLSTATE of a statement; None if it succeeded. It is rolled back."""
    try:
        connection.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate
    finally:
        connection.rollback()
    return None


@pytest.mark.parametrize("role", ROLES)
def test_a_role_can_grant_nothing(filled: Tables, role: str) -> None:
    """GRANT without a grant option only warns, so what counts is that nothing has changed."""
    with connect(filled, role) as connection:
        for target in ("ALL TABLES IN SCHEMA fer", "ALL ROUTINES IN SCHEMA fer", "SCHEMA fer"):
            attempt_and_keep(connection, f"GRANT ALL ON {target} TO PUBLIC")
        attempt_and_keep(connection, "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
        attempt_and_keep(connection, "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC")
    granted = filled.query(
        "SELECT relname FROM pg_class, aclexplode(relacl) AS a"
        " WHERE relnamespace = 'fer'::regnamespace AND (a.grantee = 0 OR a.is_grantable"
        " AND a.grantee <> relowner)"
    )
    assert granted == []


def attempt_and_keep(connection: psycopg.Connection[tuple[object, ...]], statement: str) -> None:
    try:
        connection.execute(statement.encode())
        connection.commit()
    except psycopg.Error:
        connection.rollback()
