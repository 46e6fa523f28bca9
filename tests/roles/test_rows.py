"""What readers and inspectors see: published figures, and rows of granted facilities only."""

# ruff: noqa: S608
from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from fer_batch.database import roles
from fer_batch.errors import ConfigurationError
from fer_batch.local.stack.postgres import WRITER, PostgresServer
from tests.fixtures.servers import INSPECTOR, switch_login
from tests.fixtures.tables import Tables
from tests.roles.conftest import DAY, connect

PER_IMAGE = ("image", "image_result", "face_result")
AUDITS = ("audit", "audit_face", "audit_result", "audit_label")
HIDDEN = (
    *("images_scored", "faces_scored", "faces", "sessions", "sessions_effective"),
    *("faces_effective", "design_effect", "faces_needed"),
)


def read(tables: Tables, role: str, statement: str) -> list[Any]:
    with connect(tables, role) as connection:
        return connection.execute(statement.encode()).fetchall()


def list_facilities(
    tables: Tables, role: str = "inspector", names: tuple[str, ...] = PER_IMAGE
) -> dict[str, set[Any]]:
    return {
        table: {f for (f,) in read(tables, role, f"SELECT DISTINCT facility_id FROM fer.{table}")}
        for table in names
    }


def test_a_reader_sees_no_counts_of_a_suppressed_day(filled: Tables) -> None:
    columns = ", ".join(HIDDEN)
    rows = read(
        filled,
        "reader",
        f"SELECT facility_id, verdict, images, images_pending, {columns}"
        " FROM fer.satisfaction_daily ORDER BY facility_id, capture_day",
    )
    *published, suppressed = rows
    assert suppressed == ("outlet", "suppressed", 7, 0, *(None for _ in HIDDEN))
    assert {row[0] for row in published} == {"north-mall"}
    assert all(None not in row[4:-1] for row in published)
    assert filled.query(
        "SELECT faces_scored FROM fer.satisfaction_summary WHERE facility_id = 'outlet'"
    ) == [(7,)]


def test_an_inspector_sees_the_facilities_that_were_granted(filled: Tables) -> None:
    granted = {table: {"north-mall"} for table in (*PER_IMAGE, *AUDITS)}
    assert list_facilities(filled, names=(*PER_IMAGE, *AUDITS)) == granted
    # Rows of partitions that the job created later are included.
    days = read(filled, "inspector", "SELECT count(DISTINCT capture_day) FROM fer.image")
    assert days == [(2,)]
    # A condition cannot read the rows that are hidden.
    attack = (
        "SELECT count(*) FROM fer.image"
        " WHERE facility_id <> 'north-mall' OR 1 / (facility_id = 'north-mall')::integer = 1"
    )
    assert read(filled, "inspector", attack) == [(120 * 2,)]


def test_a_session_of_an_inspector_cannot_take_another_name(filled: Tables) -> None:
    with connect(filled, "inspector") as connection:
        for statement in ("SET ROLE fer_inspector", "SET row_security = off", "RESET ROLE"):
            connection.execute(statement.encode())
            try:
                rows = connection.execute("SELECT DISTINCT facility_id FROM fer.image").fetchall()
            except psycopg.errors.InsufficientPrivilege:  # with row_security off
                connection.rollback()
            else:
                assert rows == [("north-mall",)]


def test_the_job_and_the_owner_see_all_rows(filled: Tables) -> None:
    everything = {table: {"north-mall", "outlet"} for table in (*PER_IMAGE, *AUDITS)}
    assert list_facilities(filled, "writer", (*PER_IMAGE, *AUDITS)) == everything
    for table in everything:
        rows = filled.query(f"SELECT DISTINCT facility_id FROM fer.{table}")
        assert {f for (f,) in rows} == everything[table]


def test_grants_are_given_and_taken(tables: Tables) -> None:
    outlet = tables.add("outlet")
    tables.fill(happy=2, sad=1)
    tables.fill(happy=2, sad=1, batch=outlet)
    none: dict[str, set[str]] = {table: set() for table in PER_IMAGE}
    assert list_facilities(tables) == none  # a member without a grant
    roles.grant(tables.admin_url, INSPECTOR, "inspector", ["outlet"])
    roles.grant(tables.admin_url, INSPECTOR, "inspector", ["north-mall", "outlet"])
    assert list_facilities(tables) == {table: {"north-mall", "outlet"} for table in PER_IMAGE}
    rows = roles.revoke(tables.admin_url, INSPECTOR, "inspector", ["outlet"])
    assert {"login": INSPECTOR, "role": "fer_inspector", "facilities": "north-mall"} in rows
    assert list_facilities(tables) == {table: {"north-mall"} for table in PER_IMAGE}


def test_a_wrong_grant_is_refused(tables: Tables) -> None:
    for login, role, facilities, said in (
        ("nobody-there", "reader", [], "no login"),
        ("fer_reader", "reader", [], "no login"),
        (INSPECTOR, "inspector", ["north-mall", "attic"], "no facility attic"),
        (WRITER, "inspector", ["north-mall"], "row-level security does not bind"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            roles.grant(tables.admin_url, login, role, facilities)
    assert tables.query("SELECT FROM fer.inspector_grant") == []
    with pytest.raises(ConfigurationError, match="no such grant"):
        roles.revoke(tables.admin_url, WRITER, "eraser")


@pytest.mark.parametrize("change", ["rename", "create anew"])
def test_a_login_that_gets_a_name_does_not_get_its_facilities(
    tables: Tables, postgres_server: PostgresServer, change: str
) -> None:
    tables.fill(happy=2, sad=1)
    first, second = f"first_{change[:3]}", f"second_{change[:3]}"
    for login in (first, second):
        postgres_server.ensure_role(login)
        roles.grant(tables.admin_url, login, "inspector", ["north-mall"])
    roles.revoke(tables.admin_url, second, "inspector")
    with postgres_server._connect_as_admin() as admin:
        if change == "rename":
            admin.execute(f"ALTER ROLE {first} RENAME TO {first}_gone".encode())
            admin.execute(f"ALTER ROLE {second} RENAME TO {first}".encode())
            # A password that is stored as a hash survives the new name.
            url = switch_login(tables.url, second).replace(f"//{second}:", f"//{first}:")
        else:
            admin.execute(f"DROP ROLE {first}".encode())
            postgres_server.ensure_role(first)
            url = switch_login(tables.url, first)
        admin.execute(f"GRANT fer_inspector TO {first}".encode())
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT FROM fer.image").fetchall() == []
    listed = roles.list_grants(tables.admin_url)
    assert {"login": first, "role": None, "facilities": "north-mall"} in listed
    with postgres_server._connect_as_admin() as admin:
        for login in (first, second, f"{first}_gone"):
            admin.execute(f"DROP ROLE IF EXISTS {login}".encode())


def test_without_policies_only_the_owner_sees_rows(tables: Tables) -> None:
    tables.fill(happy=2, sad=1)
    roles.grant(tables.admin_url, INSPECTOR, "inspector", ["north-mall"])
    for table in PER_IMAGE:
        tables.execute(f"DROP POLICY inspector ON fer.{table}")
    assert list_facilities(tables) == {table: set() for table in PER_IMAGE}
    assert len(tables.query("SELECT FROM fer.image")) == 3


def test_the_definer_functions_are_not_deceived(tables: Tables) -> None:
    """Objects of pg_temp, or a search_path, change neither what they do nor as whom."""
    tables.fill(happy=2, sad=1)
    day = DAY.replace(day=20)
    with connect(tables, "writer") as connection:
        connection.execute("CREATE TEMPORARY TABLE image (x integer)")
        connection.execute("CREATE TEMPORARY TABLE pg_inherits (inhparent oid, inhrelid oid)")
        connection.execute("CREATE TEMPORARY TABLE pg_class (oid oid, relname name)")
        connection.execute("CREATE TEMPORARY TABLE stolen (who text)")
        for name, arguments in (
            ("to_char", "date, text"),
            ("to_char", "timestamptz, text"),
            ("to_regclass", "text"),
            ("format", "text, text, text"),
            ("pg_stat_get_mod_since_analyze", "oid"),
        ):
            connection.execute(
                f"CREATE FUNCTION pg_temp.{name}({arguments}) RETURNS text LANGUAGE sql AS"
                " $$ INSERT INTO stolen VALUES (current_user) RETURNING who $$".encode()
            )
        connection.execute("SET search_path = pg_temp, public, pg_catalog")
        created = connection.execute("SELECT fer.ensure_partitions(%s)", [[day]]).fetchone()
        connection.execute("SELECT fer.analyze_partitions(%s)", [[day, DAY]])
        assert created == (3,)
        assert connection.execute("SELECT who FROM pg_temp.stolen").fetchall() == []
    owners = tables.query(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relnamespace = 'fer'::regnamespace AND relkind IN ('r', 'p', 'v')"
    )
    assert owners == [("fer_owner",)]


@pytest.mark.parametrize(
    "days",
    [
        "SELECT array_agg(DATE '2026-04-01' + n) FROM generate_series(1, 32) AS n",
        "SELECT ARRAY[NULL]::date[]",
        "SELECT ARRAY['infinity']::date[]",
        "SELECT ARRAY['-infinity']::date[]",
        "SELECT ARRAY['1999-12-31']::date[]",
        "SELECT ARRAY['2100-01-01']::date[]",
        "SELECT ARRAY['0001-01-01 BC']::date[]",
    ],
)
def test_a_call_creates_partitions_of_few_sane_days(tables: Tables, days: str) -> None:
    with (
        pytest.raises(sa.exc.DataError, match="capture day"),
        tables.engine.begin() as connection,
    ):
        connection.execute(sa.text(f"SELECT fer.ensure_partitions(({days}))"))
    assert tables.query("SELECT FROM pg_inherits") == []
