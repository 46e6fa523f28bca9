"""A connection that fails: what is transient, what is permanent, and what the message says."""

from __future__ import annotations

import socket
import threading

import pytest

from fer_batch.database import connections, schema
from fer_batch.errors import DatabaseError, DatabaseUnavailableError, FerError
from tests.support.faulty_postgres import refusing


def fail(url: str) -> FerError:
    """The error of a connection to this URL, without a password."""
    with pytest.raises(FerError) as failed:
        schema.check_migrated(connections.create_engine(url))
    assert "canary" not in str(failed.value)
    assert "bug of fer-batch" not in str(failed.value)
    return failed.value


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        ("28P01", "Passwort-Authentifizierung für Benutzer »fer« fehlgeschlagen", "password"),
        ("28000", "aucune entrée dans pg_hba.conf pour l'hôte", "pg_hba.conf"),
        ("3D000", "no existe la base de datos «fer»", "create the database"),
        ("42501", 'データベース"fer"への権限がありません', "grant CONNECT"),
        ("22023", "неверное значение для параметра", "`options`"),
        ("55000", "la base de données n'accepte pas les connexions", "accepts connections"),
        ("99999", "quelque chose d'autre", "Check user, password and database"),
        ("08P01", "no such database: fer", "connection pooler"),
        ("08P01", "password authentication failed", "connection pooler"),
    ],
)
@pytest.mark.parametrize("asks_password", [False, True])
def test_a_refused_login_is_permanent_in_any_language(
    state: str, message: str, hint: str, asks_password: bool
) -> None:
    with refusing(state, message, "SCHWERWIEGEND", asks_password=asks_password) as server:
        error = fail(server.url)
    assert isinstance(error, DatabaseError)
    assert "rejects the login" in str(error)
    assert message in str(error)
    assert hint in error.hint
    assert "FER_DATABASE_URL" in error.hint or "ALLOW_CONNECTIONS" in error.hint


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("57P03", "das Datenbanksystem startet"),
        ("57P03", "le système de bases de données est en cours de restauration"),
        ("57P01", "el servidor se está apagando"),
        ("57P02", "завершение соединения из-за сбоя"),
        ("53300", "zu viele Verbindungen"),
        ("53200", "memoria agotada"),
        ("08P01", "pgbouncer cannot connect to server"),
        ("08P01", "no more connections allowed (max_client_conn)"),
        ("08P01", "query_wait_timeout"),
    ],
)
def test_a_server_that_is_not_ready_is_transient_in_any_language(state: str, message: str) -> None:
    with refusing(state, message, "SCHWERWIEGEND") as server:
        error = fail(server.url)
    assert isinstance(error, DatabaseUnavailableError)
    assert message in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "unsupported startup parameter: options",
        "unsupported startup parameter in options: statement_timeout",
    ],
)
def test_a_pooler_that_refuses_startup_options_is_named(message: str) -> None:
    with refusing("08P01", message) as server:
        error = fail(server.url)
    assert isinstance(error, DatabaseError)
    assert "PgBouncer" in str(error)
    assert "ignore_startup_parameters" in error.hint


def test_no_startup_options_are_sent_that_a_pooler_would_refuse() -> None:
    with refusing("57P03", "starting up") as server:
        fail(server.url)
    known_to_pgbouncer = {"user", "database", "application_name", "client_encoding"}
    assert set(server.startups[0]) - {""} == known_to_pgbouncer


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_tls_required_of_a_server_without_tls_is_permanent(mode: str) -> None:
    with refusing("57P03", "starting up") as server:
        error = fail(f"{server.url}?sslmode={mode}")
    assert isinstance(error, DatabaseError)
    assert "sslmode" in error.hint


@pytest.mark.parametrize("query", ["sslmode=sometimes", "channel_binding=maybe", "port=many"])
def test_an_invalid_option_is_permanent(query: str) -> None:
    error = fail(f"postgresql://fer:canary@127.0.0.1:1/fer?{query}")
    assert isinstance(error, DatabaseError)
    assert "FER_DATABASE_URL" in error.hint


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (socket.EAI_NONAME, DatabaseError),
        (socket.EAI_NODATA, DatabaseError),
        (socket.EAI_AGAIN, DatabaseUnavailableError),
        (socket.EAI_FAIL, DatabaseUnavailableError),
    ],
)
def test_an_unknown_host_is_permanent_and_a_name_server_that_fails_is_not(
    monkeypatch: pytest.MonkeyPatch, number: int, expected: type[FerError]
) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "in some language")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    error = fail("postgresql://fer:canary@db.example/fer")
    assert isinstance(error, expected)
    assert "db.example" in str(error)


def test_another_kind_of_server_is_permanent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                client, _ = listener.accept()
                with client:
                    client.recv(100)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        error = fail(f"postgresql://fer:canary@127.0.0.1:{port}/fer?sslmode=disable")
        thread.join()
    assert isinstance(error, DatabaseError)
    assert "not PostgreSQL" in str(error)


def test_of_several_hosts_a_refused_login_counts_and_not_the_host_that_is_down() -> None:
    with (
        refusing("28P01", "contraseña incorrecta") as refused,
        refusing("57P03", "arrancando") as starting,
        socket.socket() as down,
    ):
        down.bind(("127.0.0.1", 0))  # not listening
        hosts = [f"127.0.0.1:{down.getsockname()[1]}", f"127.0.0.1:{starting.port}"]
        error = fail(f"postgresql://fer:canary@{','.join(hosts)}/fer")
        assert isinstance(error, DatabaseUnavailableError)
        assert "arrancando" in str(error)
        hosts.append(f"127.0.0.1:{refused.port}")
        error = fail(f"postgresql://fer:canary@{','.join(hosts)}/fer")
    assert isinstance(error, DatabaseError)
    assert "contraseña incorrecta" in str(error)
