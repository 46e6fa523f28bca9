"""How fer-batch reaches PostgreSQL: the engine, its errors as ours, and the schema's upgrade.

Everything else that speaks SQL gets a connection from here and its statements from files of
`sql/`, by name. What the statements mean is told by the modules that run them (ledger,
planning, results, satisfaction, checks).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from fer_batch import resources
from fer_batch.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    FerError,
)
from fer_batch.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config  # slow to import, and a scoring process needs none

UPGRADE_FIRST = "Run `fer-batch db upgrade`"
_CONNECT_TIMEOUT_S = 10
_OLDEST_SERVER = (15,)  # the first with MERGE
_KEEPALIVES = {
    # A server that vanishes without a word is noticed after a minute instead of two hours.
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # the same for what was sent and never confirmed
}


def engine(source: Settings | str) -> sa.Engine:
    """An engine for the database of the settings, or of a URL.

    Its sessions are READ COMMITTED and in UTC, and end a statement that takes longer than
    `statement_timeout_s`. The server ends a session that does nothing in a transaction for as
    long. Nothing is connected yet. Raises ConfigurationError for a missing or malformed URL.
    """
    url, timeout_s = _target(source)
    # Else a process that hangs, or whose machine is cut off, keeps its locks, and every retry
    # waits for them in vain. Some seconds at least: the process may only be slow.
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
            "options": " ".join([*_as_list(url.query.get("options")), options]),
            # Never prepared on the server: each statement is planned with its own capture day,
            # so the plan holds that day's partition and not all of them.
            "prepare_threshold": None,
            **_KEEPALIVES,
        },
    )


def _target(source: Settings | str) -> tuple[sa.URL, float]:
    defaults = Settings.model_fields
    if isinstance(source, Settings):
        if source.database_url is None:
            raise ConfigurationError(
                "no database is set",
                "Set FER_DATABASE_URL to postgresql://user:password@host:port/database, or start "
                "a local one with `fer-batch stack up`",
            )
        written, timeout_s = source.database_url.get_secret_value(), source.statement_timeout_s
    else:
        written, timeout_s = source, float(defaults["statement_timeout_s"].default)
    try:
        url = sa.make_url(written)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is not None and "@" in f"{url.host}{url.database}":
        url = None  # a part of the password, which must not be told as a host that is not found
    if url is None or url.drivername.partition("+")[0] not in ("postgresql", "postgres"):
        raise ConfigurationError(
            "the database URL is not a PostgreSQL one",
            "FER_DATABASE_URL looks like postgresql://user:password@host:port/database; "
            "characters such as @ : / in the password are percent-encoded",
        )
    return url.set(drivername="postgresql+psycopg"), timeout_s


def _as_list(value: str | tuple[str, ...] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


@contextmanager
def transaction(target: sa.Engine) -> Iterator[sa.Connection]:
    """A connection in one transaction: committed at the end, rolled back by any exception.

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
            "no connection of the pool became free", "Try again with fewer threads"
        ) from error
    except sa.exc.DBAPIError as error:
        raise _translated(error.orig or error) from error
    except psycopg.Error as error:  # from COPY, which SQLAlchemy does not see
        raise _translated(error) from error


# What passes on its own, by SQLSTATE or its class: connection failures, too little of a resource,
# serialization failures and deadlocks, shutdown and start, waits that took too long.
_PASSES = ("08", "53", "40", "57P", "55P03", "57014", "25P03", "25P04")
# A refused login has no SQLSTATE on the client's side, only the server's text.
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|(database|role) \".*\" does not exist|permission denied for database"
    r"|is not permitted to log in|authentication failed"
)


def _translated(error: BaseException) -> FerError:
    state = getattr(error, "sqlstate", None) or ""
    what = f"the database says: {_first_line(error)}"
    if state in ("3F000", "42P01", "42703", "42883"):  # schema, table, column, function missing
        return DatabaseError(what, f"{UPGRADE_FIRST}: its tables are not those of this version")
    if state == "53100":
        return DatabaseError(what, "Make room on the database's disk")
    if state == "42501":
        return DatabaseError(what, "Use the role that owns the schema fer, or grant it the right")
    if state == "57014":
        return DatabaseUnavailableError(
            what, "The database is busy, or FER_STATEMENT_TIMEOUT_S is too short for this day"
        )
    if state.startswith(_PASSES):
        return DatabaseUnavailableError(what, "Try again")
    if not state and _REFUSED.search(str(error)):
        return DatabaseError(
            f"the database refuses the login: {_first_line(error)}",
            "Check user, password and database of FER_DATABASE_URL",
        )
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailableError(
            f"the database cannot be reached: {_first_line(error)}",
            "Check that it runs and that FER_DATABASE_URL leads to it",
        )
    return DatabaseError(what, "This is a defect of fer-batch, or the tables were changed by hand")


def _first_line(error: BaseException) -> str:
    """The first line only: the next ones may quote a row."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@cache
def script(name: str) -> str:
    """The SQL of `sql/statements/<name>.sql` as it stands, for COPY."""
    file = resources.sql_dir() / "statements" / f"{name}.sql"
    return file.read_text(encoding="utf-8")


@cache
def statement(name: str) -> sa.TextClause:
    """The SQL of `sql/statements/<name>.sql`; `:name` in it is a parameter."""
    return sa.text(script(name))


def driver_connection(connection: sa.Connection) -> psycopg.Connection[tuple[object, ...]]:
    """The psycopg connection beneath, for COPY. It shares the transaction."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"not a psycopg connection: {type(driver).__name__}")
    return driver


def lock(connection: sa.Connection, name: str) -> None:
    """Wait until no other transaction holds the lock of this name; held until this one ends."""
    connection.execute(statement("lock"), {"name": f"fer.{name}"})


def share_lock(connection: sa.Connection, name: str) -> None:
    """Like `lock`, together with others who share it; who takes it with `lock` waits for all."""
    connection.execute(statement("lock_shared"), {"name": f"fer.{name}"})


def join_by_hash(connection: sa.Connection) -> None:
    """Have the planner join whole tables, not row by row, until this transaction ends."""
    connection.execute(statement("join_by_hash"))


def ensure_partitions(connection: sa.Connection, days: Iterable[date]) -> int:
    """Create the partitions that these capture days lack; returns how many were created."""
    created = connection.execute(statement("ensure_partitions"), {"days": sorted(set(days))})
    return int(created.scalar_one())


def analyse(target: sa.Engine, days: Iterable[date]) -> None:
    """Have the planner look at the partitions of these capture days, each on its own.

    Without it the rows of the night are unknown until autovacuum comes by, and counting a large
    facility's day takes minutes. A role that does not own the tables is passed over with a notice.
    """
    alone = target.execution_options(isolation_level="AUTOCOMMIT")
    with translate_errors(), alone.connect() as connection:
        found = connection.execute(statement("analyse_days"), {"days": sorted(set(days))})
        for composed in found.scalars().all():
            connection.execution_options(no_parameters=True).exec_driver_sql(composed)


def describe(target: sa.Engine) -> list[dict[str, str]]:
    """The columns of the views and tables of schema `fer`, in reading order, as their comments
    describe them: `relation`, `kind`, `meaning`, `column_name`, `column_type`, `column_meaning`.
    """
    with transaction(target) as connection:
        return [dict(row) for row in connection.execute(statement("describe")).mappings()]


def upgrade(source: Settings | str) -> str:
    """Bring the schema `fer` to this version's migrations and views; returns the revision.

    All of it is one transaction under a lock, so upgrades at the same moment wait for each
    other, and a failed one leaves nothing behind. Raises DatabaseError where the server is too
    old, or the schema newer than this version.
    """
    from alembic import command

    target = engine(source)
    try:
        with transaction(target) as connection:
            _check_server(connection)
            connection.execute(statement("no_statement_timeout"))
            lock(connection, "upgrade")
            _check_known(_revision(connection))
            connection.execute(statement("create_schema"))
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            for view in sorted((resources.sql_dir() / "views").glob("*.sql")):
                run_script(connection, view)
    finally:
        target.dispose()
    return _head()


def run_script(connection: sa.Connection, file: Path) -> None:
    """Run a file of statements without parameters, such as a view or a role."""
    script = file.read_text(encoding="utf-8")
    connection.execution_options(no_parameters=True).exec_driver_sql(script)


def check_migrated(target: sa.Engine) -> None:
    """Raise DatabaseError unless the schema is the one of this version."""
    with transaction(target) as connection:
        found = _revision(connection)
    _check_known(found)
    if found != _head():
        state = "has no fer-batch tables yet" if found is None else f"is at migration {found}"
        raise DatabaseError(f"the database {state}; this version needs {_head()}", UPGRADE_FIRST)


def _check_server(connection: sa.Connection) -> None:
    found = connection.dialect.server_version_info or ()
    if found < _OLDEST_SERVER:
        raise DatabaseError(
            f"the server is PostgreSQL {'.'.join(map(str, found))}",
            f"fer-batch needs PostgreSQL {_OLDEST_SERVER[0]} or newer",
        )


def _check_known(revision: str | None) -> None:
    if revision is not None and revision not in _revisions():
        raise DatabaseError(
            f"the database is at migration {revision}, which this fer-batch does not know",
            "A newer fer-batch has upgraded it: install that version",
        )


def _revision(connection: sa.Connection) -> str | None:
    """The migration that the schema is at; None if there is no schema."""
    if not connection.execute(statement("has_schema")).scalar_one():
        return None
    return connection.execute(statement("revision")).scalar_one_or_none()


def _alembic_config() -> Config:
    from alembic.config import Config

    folder = str(resources.sql_dir() / "migrations")
    config = Config()
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def _revisions() -> list[str]:
    """The migrations of this version, newest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_alembic_config())
    return [script.revision for script in scripts.walk_revisions()]


def _head() -> str:
    return _revisions()[0]
