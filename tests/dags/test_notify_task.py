"""The task `notify`: its Connections, which no other command gets, and when it is skipped."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.context import set_current_context

SUBSCRIPTIONS = """
[subscription.a]
chat = "north"
[subscription.b]
chat = "south"
[subscription.c]
to = ["anna@example.com"]
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (path := tmp_path / "facilities.toml").write_text('[facility.a]\ntime_zone = "UTC"\n')
    monkeypatch.setenv("FER_FACILITIES_FILE", str(path))
    return path


@pytest.fixture
def read(fer_settings: ModuleType, registry: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads the settings of notifiers from Connections."""
    registry.with_name("subscriptions.toml").write_text(SUBSCRIPTIONS)

    def read(**connections: Any) -> dict[str, str]:
        made = {}
        for conn_id, fields in connections.items():
            extra = json.dumps(fields.pop("extra", {}))
            made[conn_id] = Connection(conn_id=conn_id, conn_type="smtp", extra=extra, **fields)
        monkeypatch.setattr("fer_settings._get_connection", made.get)
        settings: dict[str, str] = fer_settings.read_connections([fer_settings.Secrets.DIGESTS])
        return settings

    return read


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"SECURITY": "tls"}),  # the provider's default is port 465
        ({"port": 465}, {"PORT": "465", "SECURITY": "tls"}),
        ({"port": 587}, {"PORT": "587", "SECURITY": "starttls"}),
        ({"port": 587, "extra": {"disable_ssl": True}}, {"PORT": "587", "SECURITY": "starttls"}),
        (
            {"port": 25, "extra": {"disable_ssl": "true", "disable_tls": "true"}},
            {"PORT": "25", "SECURITY": "none"},
        ),
        ({"port": 2465, "extra": {"disable_ssl": False}}, {"PORT": "2465", "SECURITY": "tls"}),
        (
            {"login": "fer", "password": "p", "extra": {"from_email": "fer@example.com"}},
            {"SECURITY": "tls", "USER": "fer", "PASSWORD": "p", "FROM": "fer@example.com"},
        ),
    ],
)
def test_an_smtp_connection_is_read_as_airflows_provider_does(
    read: Any, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    settings = read(fer_smtp={"host": "mail.example.com", **fields})
    expected["HOST"] = "mail.example.com"
    assert settings == {f"FER_SMTP_{name}": value for name, value in expected.items()}


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"password": "https://hooks.slack.com/services/T/B/x"}, None),
        ({"host": "hooks.slack.com/services", "password": "/T/B/x"}, None),
        ({"host": "https://hooks.slack.com/services/T/B/x"}, None),
        ({"host": "chat", "port": 8080, "schema": "http", "password": "k"}, "http://chat:8080/k"),
    ],
)
def test_the_webhook_of_a_chat_may_be_written_in_several_ways(
    read: Any, fields: dict[str, Any], url: str | None
) -> None:
    settings = read(fer_chat_north=fields)
    expected = url or "https://hooks.slack.com/services/T/B/x"
    assert settings == {"FER_CHAT_URLS__NORTH": expected}


def test_a_chat_without_a_webhook_is_named(fer_settings: ModuleType, read: Any) -> None:
    error = fer_settings.fer_connections.InvalidConnectionError
    with pytest.raises(error, match="fer_chat_south has no webhook"):
        read(fer_chat_south={})


def test_a_faulty_file_of_subscriptions_is_left_to_the_command(read: Any, registry: Path) -> None:
    for text in ("[", "subscription = 3", "[subscription]\na = 3"):
        registry.with_name("subscriptions.toml").write_text(text)
        assert read(fer_chat_north={"password": "https://x"}) == {}


@pytest.mark.parametrize("run_type", ["scheduled", "manual", "backfill"])
def test_digests_are_sent_after_the_report_but_not_in_a_backfill(
    fer_command: ModuleType,
    registry: Path,
    repo_root: Path,
    run_type: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(repo_root / "dags"))
    dag = importlib.import_module("satisfaction_nightly").DAGS[0]
    called: list[tuple[tuple[str, ...], Any]] = []
    monkeypatch.setattr(fer_command, "run_command", lambda *a, secrets: called.append((a, secrets)))
    night = datetime(2026, 11, 21, tzinfo=UTC)
    context: Any = {
        "dag": dag,
        "dag_run": SimpleNamespace(conf={}, run_type=run_type, run_after=night),
        "logical_date": night,
        "params": {name: param.value for name, param in dag.params.items()},
        "run_id": "night",
    }
    task = dag.get_task("notify")
    assert task.upstream_task_ids == {"report"}
    with set_current_context(context):
        if run_type == "backfill":
            with pytest.raises(AirflowSkipException):
                task.python_callable()
            return
        task.python_callable()
    [(arguments, secrets)] = called
    assert arguments[:2] == ("notify", "--capture-day=2026-11-20")
    assert arguments[-1] == "--json"
    assert secrets == ["digests"]
