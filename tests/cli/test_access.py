"""`fer-batch db roles` and `fer-batch db grant`."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg

from fer_batch.local.stack.postgres import PostgresServer
from tests.fixtures.command import Command
from tests.fixtures.servers import INSPECTOR, READER, switch_login
from tests.fixtures.tables import Tables


def test_roles_are_made_once_and_granted(
    fer: Command, postgres_server: PostgresServer, postgres_url: str
) -> None:
    login = "olga"
    postgres_server.ensure_role(login)
    database = urlsplit(postgres_url).path.removeprefix("/")
    admin = {"FER_DATABASE_URL": postgres_url}
    before = fer("db", "roles", **admin)
    assert before.code == 2
    assert "fer-batch db upgrade" in before.err
    assert fer("db", "upgrade", **admin).code == 0
    too_early = fer("db", "grant", login, "--role", "reader", **admin)
    assert too_early.code == 2
    assert "fer-batch db roles" in too_early.err

    changed = fer("db", "roles", "--json", **admin)
    assert changed.code == 0
    assert {"statement": "ALTER SCHEMA fer OWNER TO fer_owner"} in changed.json
    assert fer("db", "roles", **admin).out == "Changed: none\n"

    granted = fer("db", "grant", login, "--role", "reader", "--json", **admin)
    assert {"login": login, "role": "fer_reader", "facilities": None} in granted.json
    url = postgres_server.build_url(database, login)
    with psycopg.connect(url) as connection:
        connection.execute("select from fer.satisfaction_daily")
    for command in (("db", "upgrade"), ("db", "roles"), ("db", "grant", login, "--role", "writer")):
        refused = fer(*command, FER_DATABASE_URL=url)
        assert refused.code == 2, command
        assert "permission denied" in refused.err

    revoked = fer("db", "grant", login, "--role", "reader", "--revoke", "--json", **admin)
    assert login not in {row["login"] for row in revoked.json}
    assert fer("db", "grant", login, "--role", "reader", "--revoke", **admin).code == 2


def test_facilities_are_granted_to_an_inspector(fer: Command, tables: Tables) -> None:
    tables.add("outlet")
    admin = {"FER_DATABASE_URL": tables.admin_url}
    both = ("--facility", "north-mall", "--facility", "outlet")
    granted = fer("db", "grant", INSPECTOR, *both, **admin)
    assert "north-mall, outlet" in granted.out
    with psycopg.connect(switch_login(tables.url, INSPECTOR)) as connection:
        seen = connection.execute("select unnest(fer.list_granted_facilities())").fetchall()
    assert sorted(seen) == [("north-mall",), ("outlet",)]
    assert "north-mall, outlet" in fer("db", "grant", **admin).out
    fewer = fer("db", "grant", INSPECTOR, "--facility", "outlet", "--revoke", "--json", **admin)
    assert {"login": INSPECTOR, "role": "fer_inspector", "facilities": "north-mall"} in fewer.json


def test_an_unclear_grant_is_refused(fer: Command, tables: Tables) -> None:
    admin = {"FER_DATABASE_URL": tables.admin_url}
    for arguments, said in (
        (("--role", "reader"), "no login is named"),
        ((READER,), "it is not said what"),
        ((READER, "--role", "reader", "--facility", "north-mall"), "cannot be combined"),
        ((INSPECTOR, "--facility", "attic"), "no facility attic"),
        (("nobody-there", "--role", "reader"), "no login"),
    ):
        refused = fer("db", "grant", *arguments, **admin)
        assert refused.code == 2, arguments
        assert said in refused.err
