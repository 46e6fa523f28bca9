"""`fer-batch db roles` and `db upgrade`: they make roles, ownership and privileges as listed."""

# ruff: noqa: S608
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa

from fer_batch.database import connections, privileges, roles, schema
from fer_batch.errors import DatabaseError
from fer_batch.local.stack.postgres import WRITER, PostgresServer
from tests.fixtures.servers import fresh_database, switch_login
from tests.fixtures.tables import Tables
from tests.roles.conftest import DAY, connect

DAMAGES = (
    "ALTER TABLE fer.run OWNER TO fer",
    "ALTER VIEW fer.satisfaction_daily OWNER TO fer",
    "ALTER ROUTINE fer.is_final OWNER TO fer",
    "GRANT SELECT ON fer.image TO PUBLIC",
    "GRANT SELECT ON fer.image_2026_03_01 TO fer_reader",
    "GRANT SELECT (happy_rate) ON fer.satisfaction_summary TO fer_reader",
    "GRANT UPDATE ON fer.satisfaction_summary TO fer_writer",
    "GRANT SELECT ON fer.run TO fer_writer WITH GRANT OPTION",
    "GRANT CREATE ON SCHEMA fer TO fer_writer",
    "GRANT EXECUTE ON FUNCTION fer.ensure_partitions TO PUBLIC",
    "REVOKE INSERT ON fer.run FROM fer_writer",
    "REVOKE EXECUTE ON FUNCTION fer.ensure_partitions FROM fer_writer",
    "REVOKE SELECT ON fer.satisfaction_daily FROM fer_reader",
    "ALTER DEFAULT PRIVILEGES FOR ROLE fer_owner IN SCHEMA fer GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE fer_owner GRANT SELECT ON TABLES TO fer_reader",
    "ALTER TABLE fer.image DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE fer.face_result FORCE ROW LEVEL SECURITY",
    "DROP POLICY inspector ON fer.image",
    "ALTER POLICY inspector ON fer.image USING (true)",
    "ALTER POLICY inspector ON fer.image TO PUBLIC",
    "CREATE POLICY mine ON fer.image TO fer_inspector USING (true)",
    "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
    "GRANT CREATE ON DATABASE {database} TO fer_writer",
)


@pytest.fixture(scope="module")
def damaged(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Tables]:
    with fresh_database(postgres_server, migrated_template) as url:
        tables = Tables(url)
        tables.fill(happy=2, sad=1)
        roles.repair(tables.admin_url)
        yield tables
        tables.dispose()


def others(column: str) -> str:
    """The entries of a list of privileges without those of the owners."""
    return (
        f"array(SELECT x::text FROM unnest({column}) AS x"
        " WHERE x::text !~ '^fer(_owner)?=' ORDER BY 1)"
    )


CATALOG = (
    f"SELECT relname, pg_get_userbyid(relowner), {others('relacl')}, relrowsecurity,"
    " relforcerowsecurity FROM pg_class"
    " WHERE relnamespace = 'fer'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') ORDER BY 1",
    f"SELECT attrelid::regclass::text, attname, {others('attacl')} FROM pg_attribute"
    " WHERE cardinality(attacl) > 0 ORDER BY 1, 2",
    f"SELECT proname, pg_get_userbyid(proowner), {others('proacl')} FROM pg_proc"
    " WHERE pronamespace = 'fer'::regnamespace ORDER BY 1",
    "SELECT * FROM pg_policies ORDER BY tablename, policyname",
    f"SELECT {others('defaclacl')} FROM pg_default_acl",
    f"SELECT {others('nspacl')} FROM pg_namespace WHERE nspname = 'fer'",
    f"SELECT {others('datacl')} FROM pg_database WHERE datname = current_database()",
)


def read_catalog(tables: Tables) -> list[object]:
    """Owners, privileges of others, policies and default privileges."""
    return [tables.query(statement) for statement in CATALOG]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_repaired_and_told(damaged: Tables, damage: str) -> None:
    right = read_catalog(damaged)
    database = damaged.url.rpartition("/")[2]
    damaged.execute(damage.format(database=database))
    assert read_catalog(damaged) != right
    changes = roles.repair(damaged.admin_url)
    assert changes
    assert read_catalog(damaged) == right
    assert roles.repair(damaged.admin_url) == []


def test_attributes_and_memberships_of_the_roles_are_repaired(
    damaged: Tables, postgres_server: PostgresServer
) -> None:
    with postgres_server._connect_as_admin() as admin:
        admin.execute("ALTER ROLE fer_writer CREATEDB")
        admin.execute("GRANT fer_owner TO fer_reader")
    try:
        admin_of_server = postgres_server.build_url(damaged.url.rpartition("/")[2], "postgres")
        changes = roles.repair(admin_of_server)
    finally:
        with postgres_server._connect_as_admin() as admin:
            admin.execute("ALTER ROLE fer_writer NOCREATEDB")
            admin.execute("REVOKE fer_owner FROM fer_reader")
    assert changes == [
        "ALTER ROLE fer_writer NOCREATEDB",
        'REVOKE "fer_owner" FROM "fer_reader" GRANTED BY "postgres" CASCADE',
    ]


def test_everything_that_is_listed_exists(damaged: Tables) -> None:
    """Otherwise a privilege would silently not be granted."""
    with damaged.admin.connect() as connection:
        rows = privileges.load_list(connection, "privileges")
        for row in rows:
            if row["kind"] in ("TABLE", "FUNCTION"):
                function = "to_regclass" if row["kind"] == "TABLE" else "to_regproc"
                found = connection.execute(
                    sa.text(f"SELECT {function}('fer.' || :name)"), {"name": row["object_name"]}
                )
                assert found.scalar_one() is not None, row


def test_no_partition_is_granted(damaged: Tables) -> None:
    assert (
        damaged.query(
            "SELECT c.relname FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid"
            " CROSS JOIN LATERAL aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner"
        )
        == []
    )


def test_an_upgrade_grants_what_new_views_need(damaged: Tables) -> None:
    """A view that an upgrade creates again has no privileges of its own."""
    with connections.transaction(damaged.admin) as connection:
        schema.become_owner(connection)
        connection.execute(sa.text("DROP VIEW fer.not_scored_daily"))
    schema.upgrade(damaged.admin_url)
    with connect(damaged, "reader") as session:
        session.execute("SELECT FROM fer.not_scored_daily")
    assert roles.repair(damaged.admin_url) == []


def test_an_upgrade_makes_the_policies_of_new_tables(damaged: Tables) -> None:
    """Without a policy, the job would see no row of a new table."""
    policies = "SELECT count(*) FROM pg_policies WHERE tablename LIKE 'audit%'"
    assert damaged.query(policies) == [(9,)]
    for policy in ("job", "inspector"):
        damaged.execute(f"DROP POLICY {policy} ON fer.audit")
    schema.upgrade(damaged.admin_url)
    assert damaged.query(policies) == [(9,)]


def test_databases_of_a_server_make_the_roles_at_once(postgres_server: PostgresServer) -> None:
    with (
        fresh_database(postgres_server, "template1") as one,
        fresh_database(postgres_server, "template1") as two,
    ):
        urls = [switch_login(one), switch_login(two)]
        for url in urls:
            schema.upgrade(url)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(roles.repair, urls * 2))
        assert [roles.repair(url) for url in urls] == [[], []]


def test_roles_are_created_at_once_by_two_databases(servers_dir: object) -> None:
    """On a server that has none yet."""
    from pathlib import Path

    from fer_batch.local.stack.files import TRAVERSABLE, ensure_private_directory

    assert isinstance(servers_dir, Path)
    folder = ensure_private_directory(servers_dir / "roles", TRAVERSABLE)
    server = PostgresServer(folder, durable=False)
    server.start()
    try:
        for name in ("one", "two"):
            server.ensure_database(name)
            schema.upgrade(server.build_url(name))
        with ThreadPoolExecutor(2) as pool:
            changes = list(pool.map(roles.repair, map(server.build_url, ("one", "two"))))
        created = [s for change in changes for s in change if s.startswith("CREATE ROLE")]
        assert len(created) == 6
        # Without the rights of an administrator nothing is changed, and the error says what to do.
        server.ensure_role("guest")
        with pytest.raises(DatabaseError, match="fer-batch db roles"):
            roles.repair(server.build_url("one", "guest"))
        roles.grant(server.build_url("one"), WRITER, "writer")
        Tables(server.build_url("one", WRITER)).fill(happy=2, sad=1)
        assert roles.repair(server.build_url("one")) == []
    finally:
        server.stop()


def test_the_job_continues_while_one_login_owns_everything(postgres_url: str) -> None:
    """A database without the roles: neither policies nor privileges concern its owner."""
    schema.upgrade(postgres_url)
    tables = Tables(postgres_url)
    tables.fill(happy=30, sad=30)
    tables.summarize()
    schema.analyze(tables.engine, [DAY])
    assert len(tables.query("SELECT FROM fer.image")) == 60
    schema.check_writable(tables.engine)
    with tables.engine.connect() as connection:
        assert "owns the schema fer" in privileges.list_excess(connection)
    with pytest.raises(DatabaseError, match="no roles yet"):
        roles.grant(postgres_url, WRITER, "writer")
    tables.dispose()


def test_partitions_of_many_days_are_created(tables: Tables) -> None:
    days = [DAY + timedelta(n) for n in range(70)]
    with connections.transaction(tables.engine) as connection:
        assert schema.ensure_partitions(connection, days) == 210
    with (
        psycopg.connect(switch_login(tables.url, "ada")) as reader,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        reader.execute("SELECT FROM fer.image_2026_05_01")
