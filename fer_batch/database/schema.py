"""The schema `fer`: its upgrade, its revision, and the partitions of its capture days.

Connections are left to connections.py; the contents of the tables, to ledger.py and results.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database import connections, privileges
from fer_batch.database.erased_keys import NO_SECRET, ErasureSecret
from fer_batch.database.postgres_errors import ENCODING_HINT, PRIVILEGE_HINT, UPGRADE_HINT
from fer_batch.database.statements import load_statements
from fer_batch.errors import DatabaseError, LockTimeoutError
from fer_batch.log import get_logger
from fer_batch.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config  # slow to import, and a scoring process does not need it

log = get_logger(__name__)

T = TypeVar("T")

_STATEMENTS = load_statements(__file__)
_ENSURE_PARTITIONS = sa.text("SELECT fer.ensure_partitions(:days)")
_ANALYZE_PARTITIONS = sa.text("SELECT fer.analyze_partitions(:days)")
_HAS_NAMESPACE = sa.text("SELECT to_regnamespace('fer') IS NOT NULL")
_HAS_SCHEMA = sa.text("SELECT to_regclass('fer.schema_version') IS NOT NULL")
_READ_REVISION = sa.text("SELECT version_num FROM fer.schema_version")
_READ_PUBLIC_REVISION = sa.text("SELECT version_num FROM fer.schema_revision")
_MAY_READ_REVISION = sa.text("SELECT has_table_privilege('fer.schema_version', 'SELECT')")
_READ_ENCODING = sa.text("SHOW server_encoding")
_CREATE_SCHEMA = sa.text("CREATE SCHEMA fer")
# For this transaction: a migration may take any time, and may wait for another upgrade.
_DISABLE_STATEMENT_TIMEOUT = sa.text("SET LOCAL statement_timeout = 0")
_SET_LOCK_TIMEOUT = sa.text("SELECT set_config('lock_timeout', :timeout, true)")

_DAYS_AT_ONCE = 31
"""The most days that one call of fer.ensure_partitions accepts."""
_OLDEST_SERVER = (15,)  # the first with MERGE
_LOCK_TIMEOUT = "3s"
_LOCK_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0)
"""While an upgrade waits for a table that others use, everybody who comes later waits behind it. So
it waits only for the lock timeout, starts over after a pause, and gives up after the last one."""


def ensure_partitions(connection: sa.Connection, days: Iterable[date]) -> int:
    """Create the missing partitions of these capture days; returns how many were created."""
    left, created = sorted(set(days)), 0
    while left:
        chunk, left = left[:_DAYS_AT_ONCE], left[_DAYS_AT_ONCE:]
        created += connection.execute(_ENSURE_PARTITIONS, {"days": chunk}).scalar_one()
    return created


def analyze(target: sa.Engine, days: Iterable[date]) -> None:
    """Run ANALYZE on the changed partitions of these capture days, each day in its own transaction.

    Without it the planner has no statistics on the night's rows until autovacuum runs, and
    counting a large facility's day takes minutes.
    """
    for day in sorted(set(days)):
        with connections.transaction(target) as connection:
            connection.execute(_ANALYZE_PARTITIONS, {"days": [day]})


def describe(target: sa.Engine) -> list[dict[str, str]]:
    """The columns of the views and tables of schema `fer` with their comments, in reading order.

    Keys: `relation`, `kind`, `meaning`, `column_name`, `column_type`, `column_meaning`.
    """
    with connections.transaction(target) as connection:
        return [dict(row) for row in connection.execute(_STATEMENTS["describe"]).mappings()]


def upgrade(source: Settings | str) -> str:
    """Upgrade the schema `fer` to this version's migrations and views; returns the revision.

    It is one transaction under a lock, so that concurrent upgrades wait for each other and a
    failed one leaves nothing behind. Raises DatabaseError if the server is too old, the database
    has another encoding than UTF8, or the schema is newer than this version, ErasureSecretError if
    records of erased images must be converted and the settings have no secret (a URL has none), and
    LockTimeoutError if others use the tables for about a minute.
    """
    target = connections.create_engine(source)
    secret = ErasureSecret(source.erasure_secret) if isinstance(source, Settings) else NO_SECRET
    try:
        return retry_lock_timeouts(target, lambda: _upgrade(target, secret))
    finally:
        target.dispose()


def retry_lock_timeouts(target: sa.Engine, change: Callable[[], T]) -> T:
    """Call a change of the schema, again after a pause if it cannot lock a table.

    Raises LockTimeoutError after the last try.
    """
    try:
        for pause_s in _LOCK_PAUSES_S:
            try:
                return change()
            except LockTimeoutError:
                log.warning(
                    "the tables are in use; the upgrade starts over after a pause",
                    pause_s=pause_s,
                    used_by=_describe_lock_holders(target),
                )
                time.sleep(pause_s)
        return change()
    except LockTimeoutError as error:
        raise LockTimeoutError(
            f"the upgrade cannot lock the tables: {_describe_lock_holders(target)}",
            "Nothing was changed. Pause the DAGs, wait for these sessions or end them, and run "
            "the command again",
        ) from error


def begin_upgrade(connection: sa.Connection) -> None:
    """Configure a transaction that changes the schema, and wait for others that do.

    It may take any time, but waits for a table for the lock timeout only.
    """
    connection.execute(_DISABLE_STATEMENT_TIMEOUT)
    connections.lock(connection, "upgrade")
    connection.execute(_SET_LOCK_TIMEOUT, {"timeout": _LOCK_TIMEOUT})


def become_owner(connection: sa.Connection) -> None:
    """Act as the owner of the schema, if the login may: new objects belong to the owner.

    Until the transaction ends. The login stays the session_user.
    """
    connection.execute(_STATEMENTS["become_owner"])


def _upgrade(target: sa.Engine, secret: ErasureSecret) -> str:
    from alembic import command

    with connections.transaction(target) as connection:
        _check_server(connection)
        begin_upgrade(connection)
        _check_known(_read_revision(connection))
        if not connection.execute(_HAS_NAMESPACE).scalar_one():
            connection.execute(_CREATE_SCHEMA)
        become_owner(connection)
        config = _build_alembic_config()
        config.attributes["connection"] = connection
        config.attributes["erasure_secret"] = secret
        command.upgrade(config, "head")
        for view in sorted((resources.find_sql_dir() / "views").glob("*.sql")):
            run_script(connection, view)
        privileges.apply_if_owned(connection)
    return _get_head()


def _describe_lock_holders(target: sa.Engine) -> str:
    """The sessions that use the tables, as far as this role may see them."""
    with connections.transaction(target) as connection:
        rows = connection.execute(_STATEMENTS["list_lock_holders"]).all()
    described = (
        f"process {row.pid} (user {row.usename}, {row.application_name or 'no application name'}, "
        f"{row.state or 'state not visible'})"
        for row in rows
    )
    return ", ".join(described) or "the sessions that used them have ended"


def run_script(connection: sa.Connection, file: Path) -> None:
    """Run a file of statements that have no parameters, such as a view or a role."""
    sql = file.read_text(encoding="utf-8")
    connection.execution_options(no_parameters=True).exec_driver_sql(sql)


@contextmanager
def open_engine(source: Settings | str) -> Iterator[sa.Engine]:
    """An engine for the block, for the database of the settings or of a URL.

    Raises ConfigurationError if no database is set, and what `check_migrated` raises.
    """
    engine = connections.create_engine(source)
    try:
        check_migrated(engine)
        yield engine
    finally:
        engine.dispose()


def check_migrated(target: sa.Engine) -> None:
    """Raise DatabaseError unless the schema is at the revision of this version.

    Also if the server or the encoding of the database is not one that fer-batch can use.
    """
    with connections.transaction(target) as connection:
        _check_server(connection)
        revision = _read_revision(connection)
    _check_known(revision)
    if revision != _get_head():
        state = "has no fer-batch tables yet" if revision is None else f"is at migration {revision}"
        raise DatabaseError(f"the database {state}; this version needs {_get_head()}", UPGRADE_HINT)


def check_writable(target: sa.Engine) -> None:
    """Write to the database as a run does, and roll it back.

    Raises DatabaseUnavailableError if it is a standby, DatabaseError for a missing privilege.
    """
    with connections.translate_errors(), target.connect() as connection:
        if missing := privileges.list_missing(connection):
            raise DatabaseError(
                f"the login of FER_DATABASE_URL {'; '.join(missing)}", PRIVILEGE_HINT
            )
        connection.execute(_STATEMENTS["write_nothing"])
        connection.rollback()


def _check_server(connection: sa.Connection) -> None:
    version = connection.dialect.server_version_info or ()
    if version < _OLDEST_SERVER:
        raise DatabaseError(
            f"the server is PostgreSQL {'.'.join(map(str, version))}",
            f"fer-batch needs PostgreSQL {_OLDEST_SERVER[0]} or newer",
        )
    encoding = connection.execute(_READ_ENCODING).scalar_one()
    if encoding != "UTF8":
        raise DatabaseError(
            f"the database has the encoding {encoding}, which cannot hold every image key",
            ENCODING_HINT,
        )


def _check_known(revision: str | None) -> None:
    if revision is not None and revision not in _list_revisions():
        raise DatabaseError(
            f"the database is at migration {revision}, which this fer-batch does not know",
            "A newer fer-batch has upgraded the schema: install that version",
        )


def _read_revision(connection: sa.Connection) -> str | None:
    """The newest migration that was applied; None if there is no schema."""
    if not connection.execute(_HAS_SCHEMA).scalar_one():
        return None
    if connection.execute(_MAY_READ_REVISION).scalar_one():
        return connection.execute(_READ_REVISION).scalar_one_or_none()
    return connection.execute(_READ_PUBLIC_REVISION).scalar_one_or_none()


def _build_alembic_config() -> Config:
    from alembic.config import Config

    folder = str(resources.find_sql_dir() / "migrations")
    config = Config()
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def _list_revisions() -> list[str]:
    """The migrations of this version, newest first.

    They are read from the names of the files, as every command asks and Alembic takes half a second
    to import.
    """
    versions = resources.find_sql_dir() / "migrations" / "versions"
    return sorted((path.name.partition("_")[0] for path in versions.glob("*.py")), reverse=True)


def _get_head() -> str:
    return _list_revisions()[0]
