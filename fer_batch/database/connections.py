"""The connection to PostgreSQL: engine, transactions, time limits, and locks.

Every module that runs SQL gets its connection here. The statements are in the modules that run
them (see statements.py). The URL is left to conninfo.py, the meaning of errors to
postgres_errors.py, the schema and its upgrade to schema.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa

from fer_batch.database import conninfo, postgres_errors
from fer_batch.database.statements import load_statements
from fer_batch.errors import DatabaseUnavailableError
from fer_batch.settings import Settings

_STATEMENTS = load_statements(__file__)
_CONNECT_TIMEOUT_S = 10
_KEEPALIVES = {
    # A server that disappears without closing the connection is noticed after a minute instead
    # of two hours.
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # the same for data that was sent and never acknowledged
}

_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_LOCK_SHARED = sa.text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:name, 0))")
_GET_IDLE_TIMEOUT = sa.text("SHOW idle_in_transaction_session_timeout")
_SET_IDLE_TIMEOUT = sa.text(
    "SELECT set_config('idle_in_transaction_session_timeout', :timeout, true)"
)
_PREFER_HASH_JOINS = sa.text(
    "SELECT set_config('enable_nestloop', 'off', true), set_config('enable_mergejoin', 'off', true)"
)


def create_engine(source: Settings | str) -> sa.Engine:
    """Create an engine for the database of the settings, or of a URL; nothing connects yet.

    Its transactions are READ COMMITTED and in UTC, and none of their results depends on settings
    of the server, the database or the role (`configure_transaction` in connections.sql). A
    statement that takes longer than `statement_timeout_s` is canceled, at the latest when the time
    of the calling task is up. The server ends a session that is idle in a transaction for that
    long, but for 5 seconds at least. Raises ConfigurationError for a missing or malformed URL.
    """
    parameters = conninfo.parse_url(source)
    limits = _Limits(source)
    engine = sa.create_engine(
        "postgresql+psycopg://",
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args=_add_defaults(parameters)
        # No prepared statements on the server: each statement is planned with its own capture
        # day, so that the plan includes that day's partition only, and not all of them.
        | {"prepare_threshold": None},
    )
    sa.event.listen(engine, "do_connect", _connect)
    sa.event.listen(engine, "begin", limits.begin)
    sa.event.listen(engine, "before_cursor_execute", limits.shorten)
    return engine


def _add_defaults(parameters: dict[str, str]) -> dict[str, Any]:
    """The parameters of a connection; those of the URL take precedence, except its encoding."""
    several_hosts = "," in parameters.get("host", parameters.get("hostaddr", ""))
    return {
        "application_name": "fer-batch",
        "connect_timeout": _CONNECT_TIMEOUT_S,
        **_KEEPALIVES,
        # Of several hosts only one accepts writes, and after a failover it is another one.
        **({"target_session_attrs": "read-write"} if several_hosts else {}),
        **parameters,
        "client_encoding": "utf8",
    }


def _connect(*event: Any) -> psycopg.Connection[Any]:
    """Connect; raises what `postgres_errors.translate_login` returns."""
    *_, parameters = event  # as SQLAlchemy's event do_connect passes them
    try:
        return psycopg.connect(**parameters)
    except psycopg.Error as error:
        raise postgres_errors.translate_login(error, parameters) from error


class _Limits:
    """The time limits of an engine's statements.

    They are set for each transaction. In the last minutes of a task they are set again before each
    statement: one that begins then must not outlive the task and keep its locks.
    """

    def __init__(self, source: Settings | str) -> None:
        if isinstance(source, Settings):
            self._timeout_s, self._deadline = source.statement_timeout_s, source.deadline
        else:
            self._timeout_s = float(Settings.model_fields["statement_timeout_s"].default)
            self._deadline = None

    def begin(self, connection: sa.Connection) -> None:
        """Configure the transaction that begins."""
        parameters = self._compute(connection)
        connection.execute(_STATEMENTS["configure_transaction"], parameters)

    def shorten(self, connection: sa.Connection, cursor: psycopg.Cursor[Any], *_: object) -> None:
        """Shorten the limits of the next statement, if the task ends before they do."""
        if self._compute_left_s() >= self._timeout_s or not connection.in_transaction():
            return
        statement = _STATEMENTS["limit_statements"].compile(dialect=connection.dialect)
        cursor.execute(str(statement), self._compute(connection))

    def _compute_left_s(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _compute(self, connection: sa.Connection) -> dict[str, Any]:
        left_s = max(self._compute_left_s(), 1.0)
        # Some seconds at least for an idle session, because the process may only be slow.
        idle_s = min(max(self._timeout_s, 5.0), left_s)
        return {
            "statement_timeout": f"{round(min(self._timeout_s, left_s) * 1000)}ms",
            "idle_timeout": f"{round(idle_s * 1000)}ms",
            "is_local": not get_driver_connection(connection).autocommit,
        }


@contextmanager
def transaction(target: sa.Engine) -> Iterator[sa.Connection]:
    """A connection in one transaction, committed at the end and rolled back by any exception.

    Raises what `translate_errors` raises.
    """
    with translate_errors(), target.begin() as connection:
        yield connection


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the database's errors as DatabaseUnavailableError or DatabaseError; pass all others."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise DatabaseUnavailableError(
            "connection pool exhausted", "Try again with fewer threads"
        ) from error
    except sa.exc.DBAPIError as error:
        raise postgres_errors.translate(error.orig or error) from error
    except psycopg.Error as error:  # from COPY, which SQLAlchemy does not see
        raise postgres_errors.translate(error) from error


def get_driver_connection(connection: sa.Connection) -> psycopg.Connection[tuple[object, ...]]:
    """The underlying psycopg connection, for COPY. It shares the transaction."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"not a psycopg connection: {type(driver).__name__}")
    return driver


@contextmanager
def allow_idling(connection: sa.Connection) -> Iterator[None]:
    """Let the transaction be idle for any time within the block; it must hold no lock then."""
    timeout = connection.execute(_GET_IDLE_TIMEOUT).scalar_one()
    connection.execute(_SET_IDLE_TIMEOUT, {"timeout": "0"})
    yield
    connection.execute(_SET_IDLE_TIMEOUT, {"timeout": timeout})


def lock(connection: sa.Connection, name: str) -> None:
    """Take the exclusive lock of this name, waiting for it; held until the transaction ends."""
    connection.execute(_LOCK, {"name": f"fer.{name}"})


def lock_shared(connection: sa.Connection, name: str) -> None:
    """Take the lock of this name in shared mode: only `lock` excludes it, and waits for it."""
    connection.execute(_LOCK_SHARED, {"name": f"fer.{name}"})


def prefer_hash_joins(connection: sa.Connection) -> None:
    """Disable nested-loop and merge joins until this transaction ends.

    For statements that join whole days of facilities: the planner takes columns that are
    correlated for independent, expects few rows, and would look up each one in an index.
    """
    connection.execute(_PREFER_HASH_JOINS)
