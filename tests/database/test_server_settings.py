"""Settings of the server, the database and the role: they do not matter, or are refused."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from fer_batch.database import connections, schema
from fer_batch.errors import DatabaseError, DatabaseUnavailableError
from fer_batch.local.stack.postgres import ADMIN, OWNER, PostgresServer
from fer_batch.pipeline import checks
from fer_batch.settings import Settings
from tests.fixtures.servers import drop_database
from tests.fixtures.tables import Tables

ODD_SETTINGS = {
    "timezone": "Asia/Tokyo",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "extra_float_digits": "-10",
    "search_path": "decoy",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "20s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "20s",
    "transaction_timeout": "20s",
    "client_encoding": "LATIN1",
    "xmloption": "document",
    "enable_seqscan": "off",
}
DECOYS = """
CREATE SCHEMA decoy;
CREATE TABLE decoy.image (nothing int);
CREATE TABLE decoy.listed_image (nothing int);
CREATE TABLE decoy.staged_image (nothing int);
CREATE FUNCTION decoy.now() RETURNS text LANGUAGE sql AS 'SELECT ''never''';
"""


def alter(url: str, kind: str, settings: dict[str, str]) -> None:
    """Set settings of the database or of the role of this URL, for later sessions."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname if kind == "DATABASE" else connection.info.user
        for setting, value in settings.items():
            connection.execute(
                sql.SQL("ALTER {} {} SET {} = {}").format(
                    sql.SQL(kind), sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)
                )
            )


def read_results(url: str) -> list[Any]:
    """What a day leaves behind in the tables and views, without times of the test."""
    tables = Tables(url)
    tables.add("north-mall", name_template="{captured_at:%H%M%S}_{camera}.jpg")
    tables.list([f"{9 + n // 60:02d}{n % 60:02d}00_door-ü.jpg" for n in range(60)])
    images = tables.list_work()
    faces = [tables.build_face(1 / 3, 1 / 7) for _ in images]
    tables.write(*(tables.build_score(i, f) for i, f in zip(images, faces, strict=True)))
    schema.analyze(tables.engine, [tables.batch.capture_day])
    rows: list[Any] = [
        {name: value for name, value in row.items() if name not in ("created_at", "run_id")}
        for row in tables.summarize()
    ]
    rows += tables.query("SELECT image_key, camera, captured_at_utc FROM fer.image ORDER BY 1")
    rows += tables.query("SELECT p_happy, p_sad FROM fer.face_result")
    rows += checks.check_data(
        tables.engine, [tables.batch], tables.version, "run-1", Settings(_env_file=None)
    )
    tables.dispose()
    return rows


def test_no_setting_of_the_database_changes_a_result(postgres_url: str, database_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(DECOYS)
    alter(postgres_url, "DATABASE", ODD_SETTINGS)
    schema.upgrade(postgres_url)
    assert read_results(postgres_url) == read_results(database_url)


@pytest.fixture
def encoded(postgres_server: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Creates a database with an encoding; returns its URL."""
    names = []

    def create(encoding: str) -> str:
        names.append(f"test_{secrets.token_hex(8)}")
        with psycopg.connect(
            postgres_server.build_url("postgres", ADMIN), autocommit=True
        ) as connection:
            connection.execute(
                sql.SQL(
                    "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} "
                    "LOCALE 'C' LOCALE_PROVIDER libc"
                ).format(sql.Identifier(names[0]), sql.Identifier(OWNER), sql.Literal(encoding))
            )
        return postgres_server.build_url(names[0])

    yield create
    for name in names:
        drop_database(postgres_server, name)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_another_encoding_is_refused_with_the_reason(
    encoded: Callable[[str], str], encoding: str
) -> None:
    url = encoded(encoding)
    for call in (schema.upgrade, lambda url: schema.check_migrated(connections.create_engine(url))):
        with pytest.raises(DatabaseError, match=f"encoding {encoding}.*--encoding=UTF8"):
            call(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regnamespace('fer')").fetchone() == (None,)


def test_a_read_only_database_is_transient_with_the_reason(tables: Any) -> None:
    alter(tables.admin_url, "DATABASE", {"default_transaction_read_only": "on"})
    tables.dispose()
    schema.check_migrated(tables.engine)
    for call in (schema.check_writable, lambda _: schema.upgrade(tables.admin_url)):
        with pytest.raises(DatabaseUnavailableError, match="accepts no writes") as refused:
            call(tables.engine)
        assert "standby" in refused.value.hint
        assert "default_transaction_read_only" in refused.value.hint


def test_the_test_write_leaves_nothing(tables: Any) -> None:
    schema.check_writable(tables.engine)
    assert tables.query("SELECT * FROM fer.run") == []


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("REVOKE DELETE ON fer.image FROM fer_writer", "no privilege DELETE on table fer.image"),
        (
            "REVOKE EXECUTE ON FUNCTION fer.ensure_partitions FROM fer_writer",
            "no privilege EXECUTE on function fer.ensure_partitions",
        ),
        ("REVOKE UPDATE (model_version) ON fer.run FROM fer_writer", "UPDATE on table fer.run"),
        ("REVOKE USAGE ON SCHEMA fer FROM fer_writer", "permission denied for schema fer"),
        ("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, fer_writer", "TEMPORARY"),
    ],
)
def test_a_missing_privilege_is_found_before_the_night(
    tables: Any, postgres_server: PostgresServer, statement: str, missing: str
) -> None:
    database = sa.make_url(tables.url).database
    with psycopg.connect(postgres_server.build_url(str(database), ADMIN)) as connection:
        connection.execute(sql.SQL(statement).format(database=sql.Identifier(str(database))))
    with pytest.raises(DatabaseError, match=missing) as refused:
        schema.check_writable(tables.engine)
    assert "fer-batch db roles" in refused.value.hint
