"""PostgreSQL crashes, has a full disk, holds locks or closes connections.

The run fails with a clear error, and a rerun leaves the tables of an undisturbed day.

These tests have their own server, with all settings that make it durable over a crash.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from fer_batch.cli import doctor
from fer_batch.database import connections, schema
from fer_batch.errors import DatabaseUnavailableError
from fer_batch.local.stack import postgres
from fer_batch.local.stack.files import TRAVERSABLE, ensure_private_directory
from fer_batch.local.stack.postgres import ADMIN, WRITER, PostgresServer
from tests.faults.conftest import DAY, Job, Process, Tables, job_on_database
from tests.fixtures.servers import TEMPLATE, build_settings, drop_database, migrate
from tests.support.fork_server import ForkServer

# A commit waits for a standby that does not exist, once `synchronous_commit` is switched on.
WITH_STANDBY = {
    "wal_level": "replica",
    "max_wal_senders": "1",
    "synchronous_standby_names": "nobody",
}


def execute_as_admin(server: PostgresServer, *statements: str, database: str = "postgres") -> Any:
    """Execute each statement as the superuser in its own transaction; the rows of the last one."""
    with psycopg.connect(server.build_url(database, ADMIN), autocommit=True) as connection:
        for text in statements:
            cursor = connection.execute(sql.SQL(text))
        return cursor.fetchall() if cursor.description else None


@pytest.fixture(scope="module")
def own_server(servers_dir: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(
        ensure_private_directory(servers_dir / f"own-{secrets.token_hex(4)}", TRAVERSABLE)
    )
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        execute_as_admin(server, "alter system set synchronous_commit = local")
        server.stop()
        patch.setattr(postgres, "SETTINGS", postgres.SETTINGS | WITH_STANDBY)
        server.start()
        server.ensure_database(TEMPLATE)
        migrate(server, TEMPLATE)
        yield server
        server.stop()


@pytest.fixture
def name(own_server: PostgresServer) -> Iterator[str]:
    """The name of a new migrated database."""
    database = f"test_{secrets.token_hex(8)}"
    own_server.ensure_database(database, template=TEMPLATE)
    yield database
    own_server.start()
    drop_database(own_server, database)


@pytest.fixture
def job(
    fork_server: ForkServer,
    own_server: PostgresServer,
    name: str,
    day_env: dict[str, str],
    tmp_path: Path,
) -> Iterator[Job]:
    with job_on_database(fork_server, own_server.build_url(name, WRITER), day_env, tmp_path) as job:
        yield job


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll the condition; the time limit of the test ends the wait if it never holds."""
    while not condition():
        time.sleep(0.01)


def check_clear_error(process: Process, code: int = 75) -> None:
    """The run ended with the exit code of a fer-batch error, logged it, and shows no traceback."""
    assert process.wait() == code, process.lines
    assert process.errors
    assert not any("Traceback" in line["event"] for line in process.lines), process.lines


@pytest.mark.parametrize(
    "point",
    ["list.copy.during:1", "copy.during:3", "commit.before:3", "summary.commit.before:1"],
)
def test_the_server_crashes(
    job: Job, own_server: PostgresServer, undisturbed: Tables, point: str
) -> None:
    process = job.start(f"{point}:STOP")
    process.wait_until("failpoint")
    own_server.kill()
    process.send(signal.SIGCONT)
    check_clear_error(process)
    assert "the database" in process.errors
    own_server.start()
    job.finish()
    assert job.read_tables() == undisturbed


def test_the_server_restarts_during_a_run(
    job: Job, own_server: PostgresServer, undisturbed: Tables
) -> None:
    process = job.start("classify.after:1:STOP")
    process.wait_until("failpoint")
    own_server.stop()
    own_server.start()
    process.send(signal.SIGCONT)
    # No transaction was open: the run reconnects and continues.
    assert process.wait() == 0, process.lines
    assert job.read_tables() == undisturbed
    assert job.count_incomplete_summaries() == 0


def test_a_commit_succeeds_but_its_confirmation_is_lost(
    job: Job, own_server: PostgresServer, undisturbed: Tables
) -> None:
    process = job.start("commit.before:3:STOP")
    process.wait_until("failpoint")
    execute_as_admin(
        own_server, "alter system set synchronous_commit = on", "select pg_reload_conf()"
    )
    wait_until(lambda: execute_as_admin(own_server, "show synchronous_commit") == [("on",)])
    process.send(signal.SIGCONT)
    waits = "select 1 from pg_stat_activity where wait_event = 'SyncRep'"
    wait_until(lambda: execute_as_admin(own_server, waits) == [(1,)])
    own_server.kill()
    check_clear_error(process)
    own_server.start()
    execute_as_admin(
        own_server, "alter system set synchronous_commit = local", "select pg_reload_conf()"
    )
    wait_until(lambda: execute_as_admin(own_server, "show synchronous_commit") == [("local",)])
    assert job.count_rows("image_result") == 6  # the third chunk was committed
    job.finish()
    assert job.read_tables() == undisturbed


@pytest.mark.parametrize("point", ["copy.during:3", "summary.during:2"])
def test_the_server_closes_connections(
    job: Job, own_server: PostgresServer, name: str, undisturbed: Tables, point: str
) -> None:
    process = job.start(f"{point}:STOP")
    process.wait_until("failpoint")
    cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = {}"
    with psycopg.connect(own_server.build_url("postgres", ADMIN)) as connection:
        connection.execute(sql.SQL(cut).format(sql.Literal(name)))
    process.send(signal.SIGCONT)
    check_clear_error(process)
    job.finish()
    assert job.read_tables() == undisturbed


def test_the_connection_limit_is_reached(
    job: Job, own_server: PostgresServer, name: str, undisturbed: Tables
) -> None:
    for limit in (0, 1):
        execute_as_admin(own_server, f"alter database {name} connection limit {limit}")
        process = job.start()
        check_clear_error(process)
        assert "too many connections" in process.errors
    execute_as_admin(own_server, f"alter database {name} connection limit -1")
    job.finish()
    assert job.read_tables() == undisturbed


def test_a_failover_leaves_a_standby_for_a_while(
    job: Job, own_server: PostgresServer, name: str, undisturbed: Tables
) -> None:
    process = job.start("copy.during:3:STOP")
    process.wait_until("failpoint")
    own_server.stop()
    (own_server.folder / "cluster" / "standby.signal").touch()
    own_server.start()
    process.send(signal.SIGCONT)
    check_clear_error(process)  # its connection was closed
    process = job.start()
    check_clear_error(process)
    assert "the database accepts no writes" in process.errors
    assert "failover" in process.errors
    database = next(doctor.run_checks(build_settings(job.url)))
    assert not database.is_ok
    assert "the database accepts no writes" in database.detail
    execute_as_admin(own_server, "select pg_promote()")
    job.finish()
    assert job.read_tables() == undisturbed
    assert next(doctor.run_checks(build_settings(job.url))).is_ok


def test_of_several_hosts_the_one_that_accepts_writes_is_used(
    own_server: PostgresServer, name: str, postgres_url: str
) -> None:
    """The first host is a standby, and the second one the primary, of different databases."""
    primary = sa.make_url(postgres_url)
    schema.upgrade(postgres_url)
    own_server.stop()
    (own_server.folder / "cluster" / "standby.signal").touch()
    own_server.start()
    standby = sa.make_url(own_server.build_url(name))
    try:
        hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
        both = f"postgresql://{primary.username}:{primary.password}@{hosts}/{primary.database}"
        schema.check_writable(connections.create_engine(both))
        alone = f"{own_server.build_url(name)}?target_session_attrs=read-write"
        with pytest.raises(DatabaseUnavailableError, match="accepts no writes"):
            schema.check_migrated(connections.create_engine(alone))
    finally:
        execute_as_admin(own_server, "select pg_promote()")


@pytest.mark.parametrize("table", ["image", "face_result"])
def test_another_session_holds_a_lock(job: Job, undisturbed: Tables, table: str) -> None:
    with psycopg.connect(job.url) as other_session:
        other_session.execute(sql.SQL("lock table {}").format(sql.Identifier("fer", table)))
        process = job.start(FER_STATEMENT_TIMEOUT_S="3")
        check_clear_error(process)
        assert "FER_STATEMENT_TIMEOUT_S" in process.errors
    job.finish()
    assert job.read_tables() == undisturbed


def test_the_disk_is_full(
    job: Job, own_server: PostgresServer, name: str, undisturbed: Tables
) -> None:
    process = job.start("plan.after:1:STOP")
    process.wait_until("failpoint")
    # Put the file of the table that is written last on a device that is always full.
    partition = f"fer.face_result_{DAY:%Y_%m_%d}"
    ((path,),) = execute_as_admin(
        own_server, f"select pg_relation_filepath('{partition}')", database=name
    )
    file = own_server.folder / "cluster" / path
    kept = file.rename(file.with_name(f"{file.name}.kept"))
    assert kept.stat().st_size == 0
    file.symlink_to("/dev/full")
    process.send(signal.SIGCONT)
    check_clear_error(process, code=2)
    assert "Free disk space on the database server" in process.errors
    assert job.count_rows("image_result") == 0
    kept.replace(file)
    job.finish()
    assert job.read_tables() == undisturbed
