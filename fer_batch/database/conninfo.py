"""The database URL, as parameters of libpq.

libpq itself parses the URL, so that everything it accepts works: several hosts, `sslmode`, a
`service`, a socket directory. Connecting with the parameters is left to connections.py.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from fer_batch.errors import ConfigurationError
from fer_batch.settings import Settings

_SCHEME = re.compile(r"^postgres(ql)?(\+\w+)?://")


def parse_url(source: Settings | str) -> dict[str, str]:
    """The libpq parameters of the settings' URL, or of a URL.

    Raises ConfigurationError for a missing or malformed URL, and for an unknown option in it.
    """
    if isinstance(source, Settings):
        if source.database_url is None:
            raise ConfigurationError(
                "no database is set",
                "Set FER_DATABASE_URL to postgresql://user:password@host:port/database, or start "
                "a local one with `fer-batch stack up`",
            )
        source = source.database_url.get_secret_value()
    # SQLAlchemy's URLs name a driver too, as in postgresql+psycopg://…
    url, is_postgres = _SCHEME.subn("postgresql://", source.strip())
    if is_postgres:
        _check_options(url)
        try:
            parameters = conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # its message may quote the password
            parameters = {}
        # An @ is part of the password, which must not appear in an error as an unknown host.
        if parameters and "@" not in f"{parameters.get('host')}{parameters.get('dbname')}":
            return {name: str(value) for name, value in parameters.items() if value is not None}
    raise ConfigurationError(
        "the database URL is not a PostgreSQL URL",
        "FER_DATABASE_URL looks like postgresql://user:password@host:port/database; "
        "percent-encode characters such as @ : / in the password",
    )


def describe(parameters: dict[str, str]) -> str:
    """Hosts, ports and database, without the login."""
    hosts = parameters.get("host", parameters.get("hostaddr", "localhost")).split(",")
    ports = parameters.get("port", "5432").split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    places = ",".join(f"{host}:{port or 5432}" for host, port in zip(hosts, ports, strict=False))
    return f"{places}/{parameters.get('dbname', '')}"


def _check_options(url: str) -> None:
    """Raise ConfigurationError that names the options which libpq does not know."""
    try:
        query = urlsplit(url).query
    except ValueError:  # brackets in a password
        return
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | {"ssl"}
    if unknown := sorted(names - known):
        raise ConfigurationError(
            f"the database URL has unknown options: {', '.join(unknown)}",
            "Remove them from FER_DATABASE_URL, or correct their names: PostgreSQL's "
            "documentation lists them as connection parameters",
        )
