"""Airflow's Connections, as people and Airflow write them, become settings of fer-batch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.sdk import Connection
from botocore.credentials import ReadOnlyCredentials
from psycopg.conninfo import conninfo_to_dict

from fer_batch.database import connections


def list_secrets(fer_settings: ModuleType) -> list[str]:
    """All that a command may need, but for the maintenance, which has another login."""
    return [each for each in fer_settings.Secrets if each != "maintenance"]


@pytest.fixture
def read(fer_settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads the settings of a Connection, given as Airflow's URI or as its fields."""

    def read(conn_id: str, uri: str = "", **fields: Any) -> dict[str, str]:
        if isinstance(fields.get("extra"), dict):
            fields["extra"] = json.dumps(fields["extra"])
        connection = (
            Connection.from_uri(uri, conn_id=conn_id)
            if uri
            else Connection(conn_id=conn_id, **fields)
        )
        monkeypatch.setattr("fer_settings._get_connection", {conn_id: connection}.get)
        settings: dict[str, str] = fer_settings.read_connections(list_secrets(fer_settings))
        assert all(type(value) is str for value in settings.values())
        return settings

    return read


LOGIN = {"user": "fer", "password": "p@ss/w:rd", "host": "db", "port": "5433", "dbname": "fer"}


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ({"keepalives": True, "sslcompression": False}, {"keepalives": "1", "sslcompression": "0"}),
        ({"connect_timeout": 7, "keepalives_idle": 30.0}, {"connect_timeout": "7"}),
        ({"sslmode": "verify-full", "cursor": "dictcursor"}, {"sslmode": "verify-full"}),
        ({"sqlalchemy_scheme": "postgresql+psycopg", "sqlalchemy_query": {"a": "b"}}, {}),
        ({"iam": False, "aws_conn_id": "aws", "redshift": False}, {}),
        ({"nested": {"a": 1}, "list": [1], "none": None, "sslrootcert": ""}, {}),
        ({"options": "-c geqo=off -c jit=off"}, {"options": "-c geqo=off -c jit=off"}),
        ({"dbname": "other", "user": "ada"}, {"dbname": "other", "user": "ada"}),
    ],
)
@pytest.mark.parametrize("form", ["fields", "uri"])
def test_the_extra_of_a_postgres_connection(
    read: Any, extra: dict[str, Any], options: dict[str, str], form: str
) -> None:
    fields = {
        "conn_type": "postgres", "host": "db", "login": "fer", "password": "p@ss/w:rd",
        "schema": "fer", "port": 5433, "extra": json.dumps(extra),
    }  # fmt: skip
    if form == "uri":  # Airflow writes __extra__ for values that are no texts
        settings = read("fer_postgres", Connection(conn_id="x", **fields).get_uri())
    else:
        settings = read("fer_postgres", **fields)
    parameters = conninfo_to_dict(settings["FER_DATABASE_URL"])
    parameters.pop("keepalives_idle", None)
    assert parameters == LOGIN | options
    connections.create_engine(settings["FER_DATABASE_URL"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "a,b", "port": 5433}, {"host": "a,b", "port": "5433,5433"}),
        ({"host": "a:1, b:2"}, {"host": "a,b", "port": "1,2"}),
        ({"host": "a:1,b", "port": 5433}, {"host": "a,b", "port": "1,5433"}),
        ({"host": "::1", "port": 5433}, {"host": "::1", "port": "5433"}),
        ({"host": "/run/pg", "port": 5433}, {"host": "/run/pg", "port": "5433"}),
        ({"host": "a"}, {"host": "a"}),
    ],
)
def test_hosts_of_a_postgres_connection(
    read: Any, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    login = {"conn_type": "postgres", "login": "fer", "password": "x", "schema": "fer"}
    settings = read("fer_postgres", **login, **fields, extra={"sslmode": "disable"})
    parameters = conninfo_to_dict(settings["FER_DATABASE_URL"])
    login_parts = {"user": "fer", "password": "x", "dbname": "fer", "sslmode": "disable"}
    assert parameters == login_parts | expected


def test_a_connection_that_airflow_drops_is_named(
    fer_command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FER_POSTGRES", "postgresql://u:canary@a:1,b:2/fer")
    with pytest.raises(fer_command.PermanentFailureError, match="as JSON") as refused:
        fer_command.run_command("summarize")
    assert "AIRFLOW_CONN_FER_POSTGRES" in str(refused.value)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("conn_id", "extra", "said"),
    [
        ("fer_postgres", {"iam": True}, "fer_postgres gets its password from a cloud service"),
        ("fer_postgres", "[1, 2]", "fer_postgres is not a JSON object"),
        ("fer_s3", "no json", "fer_s3 is not a JSON object"),
    ],
)
def test_a_connection_that_cannot_be_used_is_a_permanent_error(
    fer_settings: ModuleType, read: Any, conn_id: str, extra: Any, said: str
) -> None:
    with pytest.raises(fer_settings.fer_connections.InvalidConnectionError, match=said):
        read(conn_id, conn_type="postgres", host="db", extra=extra)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (
            {"aws_access_key_id": "k", "aws_secret_access_key": "s", "aws_session_token": "t"},
            {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "SESSION_TOKEN": "t"},
        ),
        (
            {"session_kwargs": {"aws_access_key_id": "k", "aws_secret_access_key": "s"}},
            {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"},
        ),
        (
            {"endpoint_url": "http://all", "service_config": {"s3": {"endpoint_url": "http://s3"}}},
            {"ENDPOINT": "http://s3"},
        ),
        (
            {"service_config": {"s3": {"bucket_name": "b"}, "sts": {"endpoint_url": "http://x"}}},
            {"BUCKET": "b"},
        ),
        ({"verify": True}, {}),
        ({"verify": False}, {}),
        ({"verify": "false"}, {}),
        ({"verify": "/etc/ca.pem"}, {"CA_BUNDLE": "/etc/ca.pem"}),
        ({"config_kwargs": {"s3": {"addressing_style": "virtual"}}}, {"PATH_STYLE": "false"}),
        ({"session_kwargs": {"region_name": "eu-west-1"}}, {"REGION": "eu-west-1"}),
        ({"region_name": None, "service_config": None, "endpoint_url": ""}, {}),
    ],
)
def test_the_extra_of_an_s3_connection(
    read: Any, extra: dict[str, Any], expected: dict[str, str]
) -> None:
    settings = read("fer_s3", conn_type="aws", extra=extra)
    assert settings == {f"FER_S3_{name}": value for name, value in expected.items()}


def test_the_login_of_an_s3_connection_comes_before_keys_in_its_extra(read: Any) -> None:
    extra = {"aws_access_key_id": "other", "aws_secret_access_key": "other"}
    settings = read("fer_s3", conn_type="aws", login="key", password="secret", extra=extra)
    assert settings == {"FER_S3_ACCESS_KEY_ID": "key", "FER_S3_SECRET_ACCESS_KEY": "secret"}


def test_connections_become_settings(
    fer_settings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "facilities.toml"
    registry.write_text('[facility.a]\ntime_zone = "UTC"\ncredentials = "north"\n')
    monkeypatch.setenv("FER_FACILITIES_FILE", str(registry))
    connections = {
        "fer_postgres": Connection(
            conn_id="fer_postgres",
            conn_type="postgres",
            host="db",
            login="fer",
            password="p@ss/word",
            schema="fer",
            port=5433,
        ),
        "fer_s3": Connection(
            conn_id="fer_s3",
            conn_type="aws",
            login="key",
            password="secret",
            extra='{"endpoint_url": "http://s3:9000", "region_name": "eu-central-1"}',
        ),
        "fer_s3_north": Connection(
            conn_id="fer_s3_north", conn_type="aws", login="k2", password="s2"
        ),
        "fer_s3_export": Connection(
            conn_id="fer_s3_export", conn_type="aws", login="k3", password="s3"
        ),
        "fer_erasure": Connection(conn_id="fer_erasure", conn_type="generic", password="s4"),
    }
    monkeypatch.setattr("fer_settings._get_connection", connections.get)
    assert fer_settings.read_connections(list_secrets(fer_settings), ["north", "export"]) == {
        "FER_DATABASE_URL": "postgresql://fer:p%40ss%2Fword@db:5433/fer",
        "FER_S3_ACCESS_KEY_ID": "key",
        "FER_S3_SECRET_ACCESS_KEY": "secret",
        "FER_S3_ENDPOINT": "http://s3:9000",
        "FER_S3_REGION": "eu-central-1",
        "FER_S3_CREDENTIALS__NORTH__ACCESS_KEY_ID": "k2",
        "FER_S3_CREDENTIALS__NORTH__SECRET_ACCESS_KEY": "s2",
        "FER_S3_CREDENTIALS__EXPORT__ACCESS_KEY_ID": "k3",
        "FER_S3_CREDENTIALS__EXPORT__SECRET_ACCESS_KEY": "s3",
        "FER_ERASURE_SECRET": "s4",
    }


def test_without_connections_there_are_no_settings(
    fer_settings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    assert fer_settings.read_connections(list_secrets(fer_settings), ["north", "export"]) == {}


def test_further_fields_of_an_aws_connection_become_settings(
    fer_settings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"verify": "/etc/ca.pem", "aws_session_token": "token"}
    connection = Connection(
        conn_id="fer_s3", conn_type="aws", login="key", password="secret", extra=json.dumps(extra)
    )
    monkeypatch.setattr("fer_settings._get_connection", {"fer_s3": connection}.get)
    assert fer_settings.read_connections(list_secrets(fer_settings), ["north", "export"]) == {
        "FER_S3_ACCESS_KEY_ID": "key",
        "FER_S3_SECRET_ACCESS_KEY": "secret",
        "FER_S3_SESSION_TOKEN": "token",
        "FER_S3_CA_BUNDLE": "/etc/ca.pem",
    }


def test_each_task_gets_new_keys_of_a_role(
    fer_settings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    role = {"role_arn": "arn:aws:iam::1:role/fer"}
    connection = Connection(conn_id="fer_s3", conn_type="aws", extra=json.dumps(role))
    monkeypatch.setattr("fer_settings._get_connection", {"fer_s3": connection}.get)
    numbers = itertools.count()

    def get_credentials(hook: AwsBaseHook, **_: object) -> ReadOnlyCredentials:
        assert hook.aws_conn_id == "fer_s3"
        number = next(numbers)
        return ReadOnlyCredentials(f"key-{number}", f"secret-{number}", f"token-{number}", None)

    monkeypatch.setattr(AwsBaseHook, "get_credentials", get_credentials)
    for number in range(2):
        assert fer_settings.read_connections(list_secrets(fer_settings), ["north", "export"]) == {
            "FER_S3_ACCESS_KEY_ID": f"key-{number}",
            "FER_S3_SECRET_ACCESS_KEY": f"secret-{number}",
            "FER_S3_SESSION_TOKEN": f"token-{number}",
        }
