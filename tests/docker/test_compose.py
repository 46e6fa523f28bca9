"""docker/compose.yaml keeps what docs/deploy.md says of it."""

from __future__ import annotations

import importlib.resources
import json
import re
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from fer_batch import __version__
from fer_batch.settings import Settings
from tests.docker.compose_file import DOCKER, example, variables

FILES = ("compose.yaml", "compose.console.yaml")
ENDS = {"init", "minio-init", "fer-batch"}
OURS = {"init", "api-server", "scheduler", "dag-processor", "triggerer", "worker", "fer-batch"}
SECRET = re.compile(r"PASSWORD|SECRET|KEY|CONN|BROKER|BACKEND|DATABASE_URL")
NOT_SECRET = re.compile(r"ACCESS_KEY_ID$|PASSWORDS_FILE$")


def environments(compose: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {name: service.get("environment", {}) for name, service in compose["services"].items()}


def test_is_a_compose_file_by_the_specification() -> None:
    """The schema of the compose specification travels in check-jsonschema's wheel."""
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((vendored / "compose-spec.json").read_text())
    for name in FILES:
        jsonschema.validate(yaml.safe_load((DOCKER / name).read_text()), schema)


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_in_the_example(name: str) -> None:
    """A required one is empty there, so that no default secret exists; others show the default."""
    text = (DOCKER / name).read_text()
    found = list(variables(text))
    assert len(found) == len(re.findall(r"(?<!\$)\$\{", text))
    for variable in found:
        assert example()[variable.name] == (variable.default or "")


def test_the_example_names_nothing_that_is_not_used() -> None:
    used = {v.name for v in chain.from_iterable(variables((DOCKER / f).read_text()) for f in FILES)}
    assert set(example()) == used


def test_no_secret_stands_in_the_file(written: dict[str, Any]) -> None:
    for service, environment in environments(written).items():
        for name, value in environment.items():
            if SECRET.search(name) and not NOT_SECRET.search(name):
                required = [v for v in variables(value) if v.default is None]
                assert required, f"{name} of {service} holds no required variable"


def test_images_are_pinned(stack: dict[str, Any]) -> None:
    for service in stack["services"].values():
        name, _, tag = service["image"].rpartition(":")
        assert name
        assert re.search(r"\d+[.-]\d+", tag), f"{service['image']} is no fixed version"


def test_the_image_has_the_version_that_is_in_it(stack: dict[str, Any]) -> None:
    ours = {stack["services"][name]["image"] for name in OURS}
    assert ours == {f"fer-batch:{__version__}"}
    assert f"fer-batch:{__version__}" in (DOCKER / "Dockerfile").read_text()


def test_the_manual_knows_every_service_and_nothing_starts_unasked(stack: dict[str, Any]) -> None:
    manual = (DOCKER.parent / "docs" / "deploy.md").read_text()
    for name, service in stack["services"].items():
        assert f"`{name}`" in manual
        assert service.get("profiles") == (["by-hand"] if name == "fer-batch" else None)


def test_every_service_is_watched_bounded_and_restarted(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        assert service["logging"]["options"]["max-size"]
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
        assert "no-new-privileges:true" in service["security_opt"]
        if name in ENDS:
            assert service["restart"] == "no"
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        if name in OURS:
            assert service["cap_drop"] == ["ALL"]
            assert service["init"] is True


def test_what_a_service_waits_for_can_happen(stack: dict[str, Any]) -> None:
    """Waiting for a service that ends to be healthy, or for one that runs to end, is for ever."""
    for service in stack["services"].values():
        for name, wait in service.get("depends_on", {}).items():
            assert name in stack["services"]
            ends = wait["condition"] == "service_completed_successfully"
            assert ends == (name in ENDS)
            assert ends or wait["condition"] == "service_healthy"


def test_volumes_are_declared_and_used(stack: dict[str, Any]) -> None:
    used = set()
    for service in stack["services"].values():
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                assert volume["read_only"], "a folder of the host is only read"
                continue
            source, _, options = volume.partition(":")
            if source.startswith("."):
                assert options.endswith(":ro"), "a file of the host is only read"
                assert (DOCKER / source).exists()
            else:
                used.add(source)
    assert used == set(stack["volumes"])


def test_only_the_ui_is_published_and_only_on_this_host(stack: dict[str, Any]) -> None:
    published = {n: s["ports"] for n, s in stack["services"].items() if "ports" in s}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}
    console = yaml.safe_load((DOCKER / "compose.console.yaml").read_text())["services"]
    assert list(console) == ["minio"]
    assert [port.partition(":")[0] for port in console["minio"]["ports"]] == ["127.0.0.1"]


def test_what_holds_data_has_no_way_out(stack: dict[str, Any]) -> None:
    assert stack["networks"]["data"]["internal"] is True
    for name, service in stack["services"].items():
        assert name in OURS or service["networks"] == ["data"]


def test_workers_can_neither_sign_tokens_nor_read_airflows_database(stack: dict[str, Any]) -> None:
    """They decode files from outside: what is broken there must not reach further."""
    worker = " ".join(environments(stack)["worker"].values())
    assert "secret-AIRFLOW_JWT_SECRET" not in worker
    assert "secret-AIRFLOW_API_SECRET_KEY" not in worker
    assert "secret-AIRFLOW_DB_PASSWORD" not in worker
    assert "secret-MINIO_ROOT_PASSWORD" not in worker


def test_only_what_runs_fer_batch_reaches_the_results(stack: dict[str, Any]) -> None:
    knows = {
        name
        for name, environment in environments(stack).items()
        if "secret-FER_DB_PASSWORD" in " ".join(environment.values())
    }
    assert knows == {"postgres", "init", "worker", "fer-batch"}


def test_the_default_sizes_fit_together(stack: dict[str, Any]) -> None:
    sizes = {name: int(value) for name, value in example().items() if value.isdigit()}
    tasks = sizes["FER_WORKER_CONCURRENCY"]
    assert sizes["FER_WORKER_CPUS"] == tasks * sizes["FER_THREADS"]
    assert sizes["FER_POOL_SLOTS"] == sizes["FER_WORKERS"] * tasks
    memory = stack["services"]["worker"]["deploy"]["resources"]["limits"]["memory"]
    assert int(memory.removesuffix("g")) * 1024 >= tasks * sizes["FER_SCORE_MEMORY_MB"] + 1000


def test_settings_have_the_names_that_fer_batch_reads(stack: dict[str, Any]) -> None:
    text = (DOCKER / "Dockerfile").read_text()
    names = set(re.findall(r"\b(FER_[A-Z0-9_]+)=", text))
    for service in ("worker", "fer-batch"):
        names |= {n for n in environments(stack)[service] if n.startswith("FER_")}
    known = {f"FER_{name.upper()}" for name in Settings.model_fields}
    for file in (DOCKER.parent / "dags").glob("*.py"):
        known |= set(re.findall(r'environ\.get\("(FER_[A-Z_]+)"', file.read_text()))
    assert names <= known


def test_settings_of_airflow_exist(stack: dict[str, Any]) -> None:
    [airflow] = importlib.util.find_spec("airflow").submodule_search_locations
    known = yaml.safe_load((Path(airflow) / "config_templates" / "config.yml").read_text())
    from airflow.providers.celery.get_provider_info import get_provider_info

    known |= get_provider_info()["config"]
    for environment in environments(stack).values():
        for name in environment:
            if name.startswith("AIRFLOW__"):
                _, section, key = name.lower().split("__")
                assert key in known[section]["options"], f"Airflow knows no {name}"


def test_urls_and_connections_can_be_read(stack: dict[str, Any]) -> None:
    worker, init = environments(stack)["worker"], environments(stack)["init"]
    for url in (worker["AIRFLOW_CONN_FER_POSTGRES"], init["FER_DATABASE_URL"]):
        parts = urlsplit(url)
        assert (parts.username, parts.password) == ("fer", "secret-FER_DB_PASSWORD")
        assert (parts.hostname, parts.path) == ("postgres", "/fer")
    s3 = json.loads(worker["AIRFLOW_CONN_FER_S3"])
    assert s3["password"] == "secret-FER_S3_SECRET_ACCESS_KEY"
    assert s3["extra"]["endpoint_url"] == "http://minio:9000"
