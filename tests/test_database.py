"""The database's address and its errors, as a person meets them. The rest is in tests/sql."""

from __future__ import annotations

import re
import socket

import psycopg
import pytest
import sqlalchemy as sa

from fer_batch import database
from fer_batch.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError
from fer_batch.settings import Settings


def test_missing_database_says_which_setting() -> None:
    with pytest.raises(ConfigurationError, match="FER_DATABASE_URL"):
        database.engine(Settings(_env_file=None))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://user:secret@host/db",
        "sqlite://",
        "http://x",
        "postgresql://user:the@secret@host/db",
        "postgresql://user:the@se/cret@host/db",
    ],
)
def test_url_of_something_else_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="FER_DATABASE_URL looks like") as refused:
        database.engine(Settings(_env_file=None, database_url=url))
    assert not re.search("secret|se/cret|se@", str(refused.value))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_way_to_write_a_postgresql_url_is_understood(scheme: str) -> None:
    url = database.engine(f"{scheme}://ada:p%40ss@db.example:5433/fer").url
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password, url.host, url.port) == ("ada", "p@ss", "db.example", 5433)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", DatabaseUnavailableError),  # connection failure
        ("57P01", DatabaseUnavailableError),  # terminated by the administrator
        ("57P03", DatabaseUnavailableError),  # starting up
        ("53300", DatabaseUnavailableError),  # too many connections
        ("40001", DatabaseUnavailableError),  # serialization failure
        ("40P01", DatabaseUnavailableError),  # deadlock
        ("55P03", DatabaseUnavailableError),  # lock timeout
        ("57014", DatabaseUnavailableError),  # statement timeout
        ("53100", DatabaseError),  # disk full
        ("42P01", DatabaseError),  # no such table
        ("42501", DatabaseError),  # permission denied
        ("23514", DatabaseError),  # check violated
    ],
)
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_what_passes_is_told_from_what_does_not(
    state: str, expected: type[Exception], is_wrapped: bool
) -> None:
    error: Exception = psycopg.errors.lookup(state)("no luck\nDETAIL: Key (image_key)=(ada.jpg)")
    if is_wrapped:
        error = sa.exc.DBAPIError("SELECT 1", {}, error)
    with pytest.raises(expected, match="no luck") as translated, database.translate_errors():
        raise error
    assert "ada.jpg" not in str(translated.value)


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), database.translate_errors():
        raise ZeroDivisionError


def test_server_that_is_not_there_may_come_back() -> None:
    with socket.socket() as placeholder:  # bound, but nobody listens
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
        engine = database.engine(f"postgresql://fer:secret@127.0.0.1:{port}/fer")
        with pytest.raises(DatabaseUnavailableError, match="FER_DATABASE_URL") as unreachable:
            database.check_migrated(engine)
    assert "secret" not in str(unreachable.value)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_CONNECT_TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = database.engine(f"postgresql://fer:secret@127.0.0.1:{silent.getsockname()[1]}/fer")
        with pytest.raises(DatabaseUnavailableError, match="timeout") as given_up:
            database.check_migrated(engine)
    assert "secret" not in str(given_up.value)
