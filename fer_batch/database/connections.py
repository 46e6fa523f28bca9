"""The connection to PostgreSQL: engine, transactions, error translation, and locks.

Every module that runs SQL gets its connection here. The statements are in the modules that run
them (see statements.py); the schema and its upgrade are left to schema.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from fer_batch.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError, FerError
from fer_batch.settings import Settings

UPGRADE_HINT = "Run `fer-batch db upgrade`"
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
_PREFER_HASH_JOINS = sa.text(
    "SELECT set_config('enable_nestloop', 'off', true), set_config('enable_mergejoin', 'off', true)"
)


def create_engine(source: Settings | str) -> sa.Engine:
    """Create an engine for the database of the settings, or of a URL; nothing connects yet.

    Its sessions are READ COMMITTED and in UTC, and cancel a statement that takes longer than
    `statement_timeout_s`. The server ends a session that is idle in a transaction for that long,
    but for 5 seconds at least. Raises ConfigurationError for a missing or malformed URL.
    """
    url, timeout_s = _parse_target(source)
    # Otherwise a process that hangs, or whose machine is disconnected, keeps its locks, and every
    # retry waits for them in vain. Some seconds at least, because the process may only be slow.
    idle_s = max(timeout_s, 5.0)
    options = (
        f"-c statement_timeout={round(timeout_s * 1000)} -c timezone=UTC"
        f" -c idle_in_transaction_session_timeout={round(idle_s * 1000)}"
    )
    return sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={
            "application_name": "fer-batch",
            "client_encoding": "utf8",
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "options": " ".join([*_to_list(url.query.get("options")), options]),
            # No prepared statements on the server: each statement is planned with its own capture
            # day, so that the plan includes that day's partition only, and not all of them.
            "prepare_threshold": None,
            **_KEEPALIVES,
        },
    )


def _parse_target(source: Settings | str) -> tuple[sa.URL, float]:
    defaults = Settings.model_fields
    if isinstance(source, Settings):
        if source.database_url is None:
            raise ConfigurationError(
                "no database is set",
                "Set FER_DATABASE_URL to postgresql://user:password@host:port/database, or start "
                "a local one with `fer-batch stack up`",
            )
        text, timeout_s = source.database_url.get_secret_value(), source.statement_timeout_s
    else:
        text, timeout_s = source, float(defaults["statement_timeout_s"].default)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is not None and "@" in f"{url.host}{url.database}":
        url = None  # part of the password, which must not appear in an error as an unknown host
    if url is None or url.drivername.partition("+")[0] not in ("postgresql", "postgres"):
        raise ConfigurationError(
            "the database URL is not a PostgreSQL URL",
            "FER_DATABASE_URL looks like postgresql://user:password@host:port/database; "
            "percent-encode characters such as @ : / in the password",
        )
    return url.set(drivername="postgresql+psycopg"), timeout_s


def _to_list(value: str | tuple[str, ...] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


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
        raise _translate(error.orig or error) from error
    except psycopg.Error as error:  # from COPY, which SQLAlchemy does not see
        raise _translate(error) from error


# Transient errors, by SQLSTATE or its class: connection failures, insufficient resources,
# serialization failures and deadlocks, shutdown and startup, timeouts of locks, statements and
# idle sessions.
_TRANSIENT = ("08", "53", "40", "57P", "55P03", "57014", "25P03", "25P04")
# A rejected login has no SQLSTATE on the client's side, only the server's text.
_LOGIN_REJECTED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|(database|role) \".*\" does not exist|permission denied for database"
    r"|is not permitted to log in|authentication failed"
)


def _translate(error: BaseException) -> FerError:
    state = getattr(error, "sqlstate", None) or ""
    what = f"the database reports: {_get_first_line(error)}"
    if state in ("3F000", "42P01", "42703", "42883"):  # schema, table, column, function missing
        return DatabaseError(what, f"{UPGRADE_HINT}: its tables do not match this version")
    if state == "53100":
        return DatabaseError(what, "Free disk space on the database server")
    if state == "42501":
        return DatabaseError(what, "Use the role that owns the schema fer, or grant the privilege")
    if state == "57014":
        return DatabaseUnavailableError(
            what, "The database is busy, or FER_STATEMENT_TIMEOUT_S is too short for this day"
        )
    if state.startswith(_TRANSIENT):
        return DatabaseUnavailableError(what, "Try again")
    if not state and _LOGIN_REJECTED.search(str(error)):
        return DatabaseError(
            f"the database rejects the login: {_get_first_line(error)}",
            "Check user, password and database of FER_DATABASE_URL",
        )
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailableError(
            f"the database cannot be reached: {_get_first_line(error)}",
            "Check that it runs and that FER_DATABASE_URL has its address",
        )
    return DatabaseError(what, "This is a bug of fer-batch, or the tables were changed manually")


def _get_first_line(error: BaseException) -> str:
    """The first line of the message; the following ones may quote a row."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def get_driver_connection(connection: sa.Connection) -> psycopg.Connection[tuple[object, ...]]:
    """The underlying psycopg connection, for COPY. It shares the transaction."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"not a psycopg connection: {type(driver).__name__}")
    return driver


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
