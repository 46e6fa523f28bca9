"""PostgreSQL dies, is full, is locked or cuts its connections: a clear end, and an equal rerun.

The server is these tests' own, with all that keeps data over a crash switched on.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from fer_batch import database
from fer_batch.stack import postgres
from fer_batch.stack.files import PASSABLE, own_folder
from fer_batch.stack.postgres import ADMIN, PostgresServer
from tests.conftest import TEMPLATE, settings_for
from tests.faults.conftest import DAY, Job, Process, Tables, job_on

# A commit waits for a standby that there is not, once `synchronous_commit` is switched on.
WITH_STANDBY = {
    "wal_level": "replica",
    "max_wal_senders": "1",
    "synchronous_standby_names": "nobody",
}


def admin(server: PostgresServer, *statements: str, database: str = "postgres") -> Any:
    """Statements of the superuser, each its own transaction; the rows of the last, if any."""
    with psycopg.connect(server.url(database, ADMIN), autocommit=True) as connection:
        for text in statements:
            found = connection.execute(sql.SQL(text))  # type: ignore[arg-type]
        return found.fetchall() if found.description else None


@pytest.fixture(scope="module")
def own_server(servers_dir: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(own_folder(servers_dir / f"own-{secrets.token_hex(4)}", PASSABLE))
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        admin(server, "alter system set synchronous_commit = local")
        server.stop()
        patch.setattr(postgres, "SETTINGS", postgres.SETTINGS | WITH_STANDBY)
        server.start()
        server.ensure_database(TEMPLATE)
        database.upgrade(settings_for(server.url(TEMPLATE)))
        yield server
        server.stop()


@pytest.fixture
def name(own_server: PostgresServer) -> Iterator[str]:
    """A migrated database of the test's own."""
    made = f"test_{secrets.token_hex(8)}"
    own_server.ensure_database(made, template=TEMPLATE)
    yield made
    own_server.start()
    own_server.drop_database(made)


@pytest.fixture
def job(
    own_server: PostgresServer, name: str, day_env: dict[str, str], tmp_path: Path
) -> Iterator[Job]:
    with job_on(own_server.url(name), day_env, tmp_path) as made:
        yield made


def until(is_so: Callable[[], bool]) -> None:
    """Ask again and again; the test's own time limit ends a wait for nothing."""
    while not is_so():
        pass


def check_it_ended_clearly(process: Process, code: int = 75) -> None:
    """With the exit code of an error of ours, one line about it, and no traceback."""
    assert process.end() == code, process.lines
    assert process.errors
    assert not any("Traceback" in line["event"] for line in process.lines), process.lines


@pytest.mark.parametrize(
    "point",
    ["list.copy.during:1", "copy.during:3", "commit.before:3", "summary.commit.before:1"],
)
def test_a_server_that_dies_at_once(
    job: Job, own_server: PostgresServer, undisturbed: Tables, point: str
) -> None:
    process = job.start(f"{point}:STOP")
    process.wait_until("failpoint")
    own_server.kill()
    process.send(signal.SIGCONT)
    check_it_ended_clearly(process)
    assert "the database" in process.errors
    own_server.start()
    job.finish()
    assert job.tables() == undisturbed


def test_a_server_that_restarts_under_a_run(
    job: Job, own_server: PostgresServer, undisturbed: Tables
) -> None:
    process = job.start("classify.after:1:STOP")
    process.wait_until("failpoint")
    own_server.stop()
    own_server.start()
    process.send(signal.SIGCONT)
    # Nothing was under way in the database: the run connects again and goes on.
    assert process.end() == 0, process.lines
    assert job.tables() == undisturbed
    assert job.incomplete_summaries() == 0


def test_a_commit_that_was_made_though_nobody_heard_of_it(
    job: Job, own_server: PostgresServer, undisturbed: Tables
) -> None:
    process = job.start("commit.before:3:STOP")
    process.wait_until("failpoint")
    admin(own_server, "alter system set synchronous_commit = on", "select pg_reload_conf()")
    until(lambda: admin(own_server, "show synchronous_commit") == [("on",)])
    process.send(signal.SIGCONT)
    waits = "select 1 from pg_stat_activity where wait_event = 'SyncRep'"
    until(lambda: admin(own_server, waits) == [(1,)])
    own_server.kill()
    check_it_ended_clearly(process)
    own_server.start()
    admin(own_server, "alter system set synchronous_commit = local", "select pg_reload_conf()")
    until(lambda: admin(own_server, "show synchronous_commit") == [("local",)])
    assert job.count("image_result") == 6  # the third chunk is there
    job.finish()
    assert job.tables() == undisturbed


@pytest.mark.parametrize("point", ["copy.during:3", "summary.during:2"])
def test_connections_that_are_cut(
    job: Job, own_server: PostgresServer, name: str, undisturbed: Tables, point: str
) -> None:
    process = job.start(f"{point}:STOP")
    process.wait_until("failpoint")
    cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = {}"
    with psycopg.connect(own_server.url("postgres", ADMIN)) as connection:
        connection.execute(sql.SQL(cut).format(sql.Literal(name)))
    process.send(signal.SIGCONT)
    check_it_ended_clearly(process)
    job.finish()
    assert job.tables() == undisturbed


def test_too_few_connections(
    job: Job, own_server: PostgresServer, name: str, undisturbed: Tables
) -> None:
    for connections in (0, 1):
        admin(own_server, f"alter database {name} connection limit {connections}")
        process = job.start()
        check_it_ended_clearly(process)
        assert "too many connections" in process.errors
    admin(own_server, f"alter database {name} connection limit -1")
    job.finish()
    assert job.tables() == undisturbed


@pytest.mark.parametrize("table", ["image", "face_result"])
def test_a_lock_that_somebody_else_holds(job: Job, undisturbed: Tables, table: str) -> None:
    with psycopg.connect(job.url) as somebody:
        somebody.execute(sql.SQL("lock table {}").format(sql.Identifier("fer", table)))
        process = job.start(FER_STATEMENT_TIMEOUT_S="3")
        check_it_ended_clearly(process)
        assert "FER_STATEMENT_TIMEOUT_S" in process.errors
    job.finish()
    assert job.tables() == undisturbed


def test_a_disk_that_is_full(
    job: Job, own_server: PostgresServer, name: str, undisturbed: Tables
) -> None:
    process = job.start("plan.after:1:STOP")
    process.wait_until("failpoint")
    # The file of the table that is written last, on a device on which there never is room.
    partition = f"fer.face_result_{DAY:%Y_%m_%d}"
    ((path,),) = admin(own_server, f"select pg_relation_filepath('{partition}')", database=name)
    file = own_server.folder / "cluster" / path
    kept = file.rename(file.with_name(f"{file.name}.kept"))
    assert kept.stat().st_size == 0
    file.symlink_to("/dev/full")
    process.send(signal.SIGCONT)
    check_it_ended_clearly(process, code=2)
    assert "Make room on the database's disk" in process.errors
    assert job.count("image_result") == 0
    kept.replace(file)
    job.finish()
    assert job.tables() == undisturbed
