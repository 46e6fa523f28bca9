"""No statement outlives its task or its client, and an upgrade does not hold up readers."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from fer_batch.database import connections, schema
from fer_batch.errors import DatabaseUnavailableError, LockTimeoutError
from fer_batch.settings import Settings

LIMITS = sa.text(
    "SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float8,"
    " extract(epoch FROM current_setting('idle_in_transaction_session_timeout')::interval)::float8"
)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll the condition; the time limit of the test ends the wait if it never holds."""
    while not condition():
        time.sleep(0.01)


class Clock:
    """`time.monotonic` of the settings and the connections, set by the test."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("settings", "database.connections"):
        monkeypatch.setattr(f"fer_batch.{module}.time.monotonic", clock)
    return clock


def test_limits_of_a_statement_end_with_the_task(database_url: str, clock: Clock) -> None:
    settings = Settings(
        _env_file=None, database_url=database_url, statement_timeout_s=100, time_left_s=150
    )
    engine = connections.create_engine(settings)

    def read_limits(connection: sa.Connection) -> tuple[float, ...]:
        return tuple(connection.execute(LIMITS).one())

    with connections.transaction(engine) as connection:
        assert read_limits(connection) == (100, 100)
        clock.now += 120  # within one transaction
        assert read_limits(connection) == (30, 30)
        clock.now += 28
        assert read_limits(connection) == (2, 2)
    with connections.transaction(engine) as connection:
        assert read_limits(connection) == (2, 2)
        clock.now += 3600
        assert read_limits(connection) == (1, 1)
    engine.dispose()


def test_a_statement_begun_at_the_end_of_a_task_is_canceled(tables: Any, clock: Clock) -> None:
    settings = Settings(_env_file=None, database_url=tables.url, time_left_s=600)
    engine = connections.create_engine(settings)

    def work() -> None:
        with connections.transaction(engine) as connection:
            connection.execute(sa.text("LOCK TABLE fer.image"))
            clock.now += 599
            connection.execute(sa.text("SELECT pg_sleep(60)"))

    with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
        work()
    with tables.transaction() as connection:  # the lock is free
        connection.execute(sa.text("LOCK TABLE fer.image NOWAIT"))
    engine.dispose()


def test_a_statement_ends_when_its_client_is_gone(tables: Any) -> None:
    """As after SIGKILL, which closes the sockets of the process."""
    engine = connections.create_engine(tables.url)
    with connections.translate_errors(), engine.connect() as connection:
        connection.execute(sa.text("LOCK TABLE fer.image"))
        driver = connections.get_driver_connection(connection)
        pid = driver.info.backend_pid

        def sleep() -> None:
            with pytest.raises(psycopg.Error):
                driver.execute("SELECT pg_sleep(300)")

        statement = threading.Thread(target=sleep)
        statement.start()
        activity = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"
        asleep = sa.text(f"{activity} AND wait_event = 'PgSleep'")

        def is_asleep() -> bool:
            with tables.engine.begin() as same_login:  # which may see what the session waits for
                return bool(same_login.execute(asleep, {"pid": pid}).scalar_one())

        wait_until(is_asleep)
        with socket.socket(fileno=os.dup(driver.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
        statement.join()
        wait_until(lambda: tables.query(activity, pid=pid) == [(0,)])
        connection.invalidate()
    engine.dispose()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(schema, "_LOCK_PAUSES_S", (0.1, 0.1))
    return monkeypatch


def test_an_upgrade_gives_up_and_names_who_uses_the_tables(
    tables: Any, impatient: pytest.MonkeyPatch
) -> None:
    before = tables.query("SELECT * FROM fer.schema_version")
    with psycopg.connect(tables.admin_url, application_name="report of ada") as analyst:
        analyst.execute("SELECT * FROM fer.satisfaction_daily")
        with pytest.raises(LockTimeoutError, match="cannot lock the tables") as refused:
            schema.upgrade(tables.admin_url)
        assert f"process {analyst.info.backend_pid} " in str(refused.value)
        assert "report of ada" in str(refused.value)
        assert "idle in transaction" in str(refused.value)
        assert "Pause the DAGs" in refused.value.hint
        # Readers who came later were not held up for longer than the lock timeout.
        assert tables.query("SELECT count(*) FROM fer.satisfaction_daily") == [(0,)]
    assert tables.query("SELECT * FROM fer.schema_version") == before


def test_an_upgrade_succeeds_once_the_tables_are_free(
    tables: Any, impatient: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(tables.admin_url) as analyst:
        analyst.execute("SELECT * FROM fer.satisfaction_daily")
        impatient.setattr("fer_batch.database.schema.time.sleep", lambda _: analyst.rollback())
        assert schema.upgrade(tables.admin_url) == schema._get_head()
