"""Each command gets the secrets of its task, and none of the others that a worker has."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fer_batch.pipeline import process_environment

WORKER = {
    "PATH": "/usr/bin",
    "AIRFLOW__CORE__FERNET_KEY": "canary",
    "AIRFLOW__CELERY__BROKER_URL": "redis://:canary@redis/0",
    "AIRFLOW_CONN_WAREHOUSE": "postgresql://canary@warehouse/",
    "GITHUB_TOKEN": "canary",
    "PGPASSWORD": "canary",
    "FER_DB_PASSWORD": "canary",
    "FER_AIRFLOW_PASSWORD": "canary",
    "FER_MAINTENANCE_DATABASE_URL": "postgresql://fer:to-delete@db/fer",
    "FER_THREADS": "2",
    "FER_DATABASE_URL": "postgresql://fer:login@db/fer",
    "AWS_ROLE_ARN": "images",
    "FER_S3_SECRET_ACCESS_KEY": "images",
    "FER_S3_CREDENTIALS__NORTH__SECRET_ACCESS_KEY": "north",
    "FER_S3_CREDENTIALS__SOUTH__SECRET_ACCESS_KEY": "south",
    "FER_S3_CREDENTIALS__REPORT__SECRET_ACCESS_KEY": "report",
    "FER_S3_CREDENTIALS__EXPORT__SECRET_ACCESS_KEY": "export",
    "FER_SMTP_PASSWORD": "digests",
    "FER_CHAT_URLS__SHOPS": "digests",
    "FER_ERASURE_SECRET": "erasures",
}
SECRETS = {
    "canary",
    "to-delete",
    *("images", "north", "south", "report", "export", "digests", "erasures"),
}
REGISTRY = """
[facility.a]
credentials = "north"
[facility.b]
credentials = "south"
[facility.c]
"""


@pytest.fixture
def build(fer_settings: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Builds the environment of a command on a worker with all these secrets."""
    registry = tmp_path / "facilities.toml"
    registry.write_text(REGISTRY)
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    monkeypatch.setattr("fer_settings.compute_time_limit", dict)

    def build(*secrets: str, facilities: set[str] | None = None, **changes: str) -> dict[str, str]:
        worker = {**WORKER, "FER_FACILITIES_FILE": str(registry), **changes}
        monkeypatch.setattr("os.environ", worker)
        needed = [fer_settings.Secrets(name) for name in secrets]
        environment: dict[str, str] = fer_settings.build_environment(needed, facilities)
        return environment

    return build


@pytest.mark.parametrize(
    ("secrets", "facilities", "expected"),
    [
        ([], None, set()),
        (["images"], None, {"images", "north", "south"}),
        (["images"], {"a"}, {"images", "north"}),
        (["images"], {"c"}, {"images"}),
        (["report"], None, {"report"}),
        (["export"], None, {"export"}),
        (["digests"], None, {"digests"}),
        (["erasures"], None, {"erasures"}),
    ],
)
def test_a_command_gets_the_secrets_of_its_task(
    build: Any, secrets: list[str], facilities: set[str] | None, expected: set[str]
) -> None:
    environment = build(*secrets, facilities=facilities)
    assert {s for s in SECRETS if any(s in value for value in environment.values())} == expected
    assert environment["FER_DATABASE_URL"] == "postgresql://fer:login@db/fer"
    assert (environment["PATH"], environment["FER_THREADS"]) == ("/usr/bin", "2")


def test_maintenance_has_a_login_of_its_own(
    build: Any, fer_settings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never that of the nightly job, which may not delete."""
    assert build("maintenance")["FER_DATABASE_URL"] == "postgresql://fer:to-delete@db/fer"
    error = fer_settings.fer_connections.InvalidConnectionError
    with pytest.raises(error, match="fer_postgres_maintenance"):
        build("maintenance", FER_MAINTENANCE_DATABASE_URL="")
    connection = SimpleNamespace(
        conn_id="c", host="db", port=None, login="m", password="p", schema="fer",
        extra="", extra_dejson={},
    )  # fmt: skip
    connections = {"fer_postgres_maintenance": connection}
    monkeypatch.setattr("fer_settings._get_connection", connections.get)
    assert build("maintenance")["FER_DATABASE_URL"] == "postgresql://m:p@db/fer"
    assert build()["FER_DATABASE_URL"] == "postgresql://fer:login@db/fer"


def test_tasks_that_list_or_plan_images_get_the_secret_of_erasures(
    fer_command: ModuleType, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repo_root / "dags"))
    (registry := tmp_path / "facilities.toml").write_text('[facility.a]\ntime_zone = "UTC"\n')
    monkeypatch.setenv("FER_FACILITIES_FILE", str(registry))
    module = importlib.import_module("satisfaction_nightly")
    monkeypatch.setattr(module, "build_arguments", lambda _: ())
    monkeypatch.setattr(fer_command, "run_command", lambda *_, secrets: secrets)
    tasks = {name: module.DAGS[0].get_task(name) for name in ("list_images", "plan_shards")}
    assert {name: task.python_callable() for name, task in tasks.items()} == {
        "list_images": ["images", "erasures"],
        "plan_shards": ["erasures"],
    }


def test_credentials_as_one_json_are_split(build: Any) -> None:
    keys = {name: {"access_key_id": name, "secret_access_key": name} for name in ("north", "x")}
    environment = build("images", FER_S3_CREDENTIALS=json.dumps(keys))
    assert environment["FER_S3_CREDENTIALS__NORTH__ACCESS_KEY_ID"] == "north"
    assert "FER_S3_CREDENTIALS" not in environment
    assert not [name for name in environment if "__X__" in name]


def test_an_invalid_json_of_credentials_is_left_to_the_command(build: Any) -> None:
    assert build("images", FER_S3_CREDENTIALS='{"secret"')["FER_S3_CREDENTIALS"] == "invalid"


def test_both_allow_lists_are_equal(fer_command: ModuleType) -> None:
    """Commands and scoring processes; the DAGs cannot import fer-batch."""
    fer_environment = importlib.import_module("fer_environment")
    for_tests = {"FER_STACK_SERVER", "FER_FAILPOINT", "FER_TEST_SERVERS"}
    assert process_environment.INHERITED - for_tests == fer_environment.INHERITED
    assert process_environment.AWS_CHAIN == fer_environment.AWS_CHAIN
    assert process_environment.INHERITED_PREFIXES == fer_environment.INHERITED_PREFIXES
