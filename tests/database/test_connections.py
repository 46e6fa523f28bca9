"""The database URL and the translation of database errors."""

from __future__ import annotations

import re
import socket

import psycopg
import pytest
import sqlalchemy as sa

from fer_batch.database import connections, conninfo, schema
from fer_batch.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError, FerError
from fer_batch.settings import Settings


def test_missing_database_url_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="FER_DATABASE_URL"):
        connections.create_engine(Settings(_env_file=None))


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
def test_invalid_url_is_rejected_without_revealing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="FER_DATABASE_URL looks like") as rejected:
        connections.create_engine(Settings(_env_file=None, database_url=url))
    assert not re.search("secret|se/cret|se@", str(rejected.value))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_all_spellings_of_a_postgresql_url_are_accepted(scheme: str) -> None:
    assert conninfo.parse_url(f"{scheme}://ada:p%40ss@db.example:5433/fer") == {
        "user": "ada",
        "password": "p@ss",
        "host": "db.example",
        "port": "5433",
        "dbname": "fer",
    }


@pytest.mark.parametrize("query", ["cursor=dictcursor", "__extra__=%7B%7D", "sslmod=require&a=b"])
def test_an_unknown_option_of_the_url_is_named(query: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown options") as rejected:
        connections.create_engine(f"postgresql://ada:canary@db.example/fer?{query}")
    names = {option.partition("=")[0] for option in query.split("&")}
    assert all(name in str(rejected.value) for name in names)
    assert "canary" not in str(rejected.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://a:1,b:2/fer", "a:1,b:2/fer"),
        ("postgresql://u:canary@a,b:2/fer", "a:5432,b:2/fer"),
        ("postgresql://u:canary@[::1]/fer?sslmode=require", "::1:5432/fer"),
        ("postgresql:///fer?host=/run/pg", "/run/pg:5432/fer"),
    ],
)
def test_a_place_is_described_without_the_login(url: str, expected: str) -> None:
    assert conninfo.describe(conninfo.parse_url(url)) == expected


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
        ("25006", DatabaseUnavailableError),  # a standby
        ("57P02", DatabaseUnavailableError),  # recovery after a crash
        ("25P03", DatabaseUnavailableError),  # idle in a transaction
        ("57P04", DatabaseError),  # database dropped
        ("53400", DatabaseError),  # temp_file_limit and the like
        ("53100", DatabaseError),  # disk full
        ("42P01", DatabaseError),  # no such table
        ("42501", DatabaseError),  # permission denied
        ("23514", DatabaseError),  # check violated
    ],
)
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_transient_errors_are_told_apart_from_permanent_ones(
    state: str, expected: type[Exception], is_wrapped: bool
) -> None:
    error: Exception = psycopg.errors.lookup(state)("no luck\nDETAIL: Key (image_key)=(ada.jpg)")
    if is_wrapped:
        error = sa.exc.DBAPIError("SELECT 1", {}, error)
    with pytest.raises(expected, match="no luck") as translated, connections.translate_errors():
        raise error
    assert "ada.jpg" not in str(translated.value)


@pytest.mark.parametrize(
    "state",
    [
        "0A000",
        "22021",
        "22P05",
        "25006",
        "2BP01",
        "42501",
        "42704",
        "42710",
        "42P07",
        "53100",
        "53400",
        "54000",
        "55000",
        "57014",
        "57P04",
        "58030",
        "F0000",
        "XX000",
        "XX001",
    ],
)
def test_a_fault_of_the_setup_is_not_called_a_bug(state: str) -> None:
    with pytest.raises(FerError) as translated, connections.translate_errors():
        raise psycopg.errors.lookup(state)("no luck")
    assert "bug of fer-batch" not in str(translated.value)
    assert translated.value.hint


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), connections.translate_errors():
        raise ZeroDivisionError


def test_unreachable_server_is_a_transient_error() -> None:
    with socket.socket() as placeholder:  # bound, but not listening
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
        engine = connections.create_engine(f"postgresql://fer:secret@127.0.0.1:{port}/fer")
        with pytest.raises(DatabaseUnavailableError, match="FER_DATABASE_URL") as unreachable:
            schema.check_migrated(engine)
    assert "secret" not in str(unreachable.value)


def test_silent_server_ends_in_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_CONNECT_TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = connections.create_engine(
            f"postgresql://fer:secret@127.0.0.1:{silent.getsockname()[1]}/fer"
        )
        with pytest.raises(DatabaseUnavailableError, match="timeout") as timed_out:
            schema.check_migrated(engine)
    assert "secret" not in str(timed_out.value)
