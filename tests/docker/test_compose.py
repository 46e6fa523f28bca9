"""docker/compose.yaml has the properties that docs/deploy.md describes."""

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
from tests.docker.compose_file import DOCKER, find_variables, read_example

FILES = ("compose.yaml", "compose.console.yaml", "compose.out.yaml")
BY_HAND = {"fer-batch", "fer-batch-admin"}
ONE_SHOT = {"init", "minio-init", *BY_HAND}
OWN_IMAGE = {"init", "api-server", "scheduler", "dag-processor", "triggerer", "worker", *BY_HAND}
SECRET = re.compile(r"PASSWORD|SECRET|KEY|CONN|BROKER|BACKEND|DATABASE_URL")
NOT_SECRET = re.compile(r"ACCESS_KEY_ID$|PASSWORDS_FILE$")


def get_environments(compose: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {name: service.get("environment", {}) for name, service in compose["services"].items()}


def test_the_files_conform_to_the_compose_specification() -> None:
    """The wheel of check-jsonschema contains the schema of the compose specification."""
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((vendored / "compose-spec.json").read_text())
    for name in FILES:
        jsonschema.validate(yaml.safe_load((DOCKER / name).read_text()), schema)


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_in_the_example(name: str) -> None:
    """Required ones are empty there, so that no default secret exists; others have defaults."""
    text = (DOCKER / name).read_text()
    variables = list(find_variables(text))
    assert len(variables) == len(re.findall(r"(?<!\$)\$\{", text))
    for variable in variables:
        assert read_example()[variable.name] == (variable.default or "")


def test_every_variable_of_the_example_is_used() -> None:
    used = {
        v.name for v in chain.from_iterable(find_variables((DOCKER / f).read_text()) for f in FILES)
    }
    assert set(read_example()) == used


def test_the_file_contains_no_secret(raw_stack: dict[str, Any]) -> None:
    for service, environment in get_environments(raw_stack).items():
        for name, value in environment.items():
            if SECRET.search(name) and not NOT_SECRET.search(name):
                required = [v for v in find_variables(value) if v.default is None]
                assert required, f"{name} of {service} contains no required variable"


def test_images_are_pinned(stack: dict[str, Any]) -> None:
    for service in stack["services"].values():
        name, _, tag = service["image"].rpartition(":")
        assert name
        assert re.search(r"\d+[.-]\d+", tag), f"{service['image']} is not a fixed version"


def test_the_image_tag_is_the_version_of_fer_batch(stack: dict[str, Any]) -> None:
    tags = {stack["services"][name]["image"] for name in OWN_IMAGE}
    assert tags == {f"fer-batch:{__version__}"}
    assert f"fer-batch:{__version__}" in (DOCKER / "Dockerfile").read_text()


def test_the_documentation_lists_every_service_and_only_the_command_line_needs_a_profile(
    stack: dict[str, Any],
) -> None:
    documentation = (DOCKER.parent / "docs" / "deploy.md").read_text()
    for name, service in stack["services"].items():
        assert f"`{name}`" in documentation
        assert service.get("profiles") == (["by-hand"] if name in BY_HAND else None)


def test_every_service_has_a_health_check_limits_and_a_restart_policy(
    stack: dict[str, Any],
) -> None:
    for name, service in stack["services"].items():
        assert service["logging"]["options"]["max-size"]
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
        assert "no-new-privileges:true" in service["security_opt"]
        if name in ONE_SHOT:
            assert service["restart"] == "no"
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        if name in OWN_IMAGE:
            assert service["cap_drop"] == ["ALL"]
            assert service["init"] is True


def test_the_dependencies_of_services_can_be_fulfilled(stack: dict[str, Any]) -> None:
    """One-shot services never become healthy, and long-running ones never complete."""
    for service in stack["services"].values():
        for name, wait in service.get("depends_on", {}).items():
            assert name in stack["services"]
            is_one_shot = wait["condition"] == "service_completed_successfully"
            assert is_one_shot == (name in ONE_SHOT)
            assert is_one_shot or wait["condition"] == "service_healthy"


def test_volumes_are_declared_and_used(stack: dict[str, Any]) -> None:
    used = set()
    for service in stack["services"].values():
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                assert volume["read_only"], "folders of the host are mounted read-only"
                continue
            source, _, options = volume.partition(":")
            if source.startswith("."):
                assert options.endswith(":ro"), "files of the host are mounted read-only"
                assert (DOCKER / source).exists()
            else:
                used.add(source)
    assert used == set(stack["volumes"])


def test_the_api_server_reads_the_reports_of_the_workers(stack: dict[str, Any]) -> None:
    """It shows them on the page Satisfaction and cannot change them."""
    assert "reports:/opt/airflow/reports" in stack["services"]["worker"]["volumes"]
    assert "reports:/opt/airflow/reports:ro" in stack["services"]["api-server"]["volumes"]
    assert "FER_REPORT_DIR=/opt/airflow/reports" in (DOCKER / "Dockerfile").read_text()


def test_the_erasure_log_outlives_the_container_and_the_database(stack: dict[str, Any]) -> None:
    folder = "/opt/airflow/erasures"
    assert f"FER_ERASURE_LOG={folder}/erasures.jsonl" in (DOCKER / "Dockerfile").read_text()
    for service in ("fer-batch-admin", "init"):  # which erase, and convert an earlier version's
        assert f"erasures:{folder}" in stack["services"][service]["volumes"]
    assert "erasures" in stack["volumes"]


def test_only_the_ui_is_published_and_only_on_this_host(stack: dict[str, Any]) -> None:
    published = {n: s["ports"] for n, s in stack["services"].items() if "ports" in s}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}
    console = yaml.safe_load((DOCKER / "compose.console.yaml").read_text())["services"]
    assert list(console) == ["minio"]
    assert [port.partition(":")[0] for port in console["minio"]["ports"]] == ["127.0.0.1"]


def test_only_the_ui_has_an_external_network(stack: dict[str, Any]) -> None:
    """Workers decode files of strangers. A second file lets them out, where a bucket lies there."""
    assert stack["networks"]["data"]["internal"] is True
    networks = {name: service["networks"] for name, service in stack["services"].items()}
    assert networks.pop("api-server") == ["data", "out"]
    assert all(names == ["data"] for names in networks.values()), networks
    out = yaml.safe_load((DOCKER / "compose.out.yaml").read_text())["services"]
    names = ("worker", "fer-batch", "fer-batch-admin", "dag-processor")
    assert out == {name: {"networks": ["data", "out"]} for name in names}


def test_containers_of_our_image_are_read_only_and_bounded(stack: dict[str, Any]) -> None:
    home = re.search(r"AIRFLOW_HOME=(\S+)", (DOCKER / "Dockerfile").read_text())
    assert home is not None
    for name in OWN_IMAGE | {"redis"}:
        service = stack["services"][name]
        assert service["read_only"] is True
        assert service["pids_limit"] <= 512
    for name in OWN_IMAGE:
        folders = [each.partition(":")[0] for each in stack["services"][name]["tmpfs"]]
        assert folders == ["/tmp", home[1]]


def test_the_user_of_redis_cannot_administer_it(stack: dict[str, Any]) -> None:
    words = stack["services"]["redis"]["command"]
    assert words[words.index("default") + 1] == "off"
    rules = words[words.index("airflow") + 1 :]
    assert rules.index("+@all") < rules.index("-@admin") < rules.index("-@dangerous")
    broker = urlsplit(get_environments(stack)["worker"]["AIRFLOW__CELERY__BROKER_URL"])
    assert (broker.username, broker.password) == ("airflow", "secret-REDIS_PASSWORD")
    assert ">secret-REDIS_PASSWORD" in rules


def test_workers_can_neither_sign_tokens_nor_read_airflows_database(stack: dict[str, Any]) -> None:
    """Workers decode untrusted files, so an attacker who controls one must not reach further."""
    worker = " ".join(get_environments(stack)["worker"].values())
    assert "secret-AIRFLOW_JWT_SECRET" not in worker
    assert "secret-AIRFLOW_API_SECRET_KEY" not in worker
    assert "secret-AIRFLOW_DB_PASSWORD" not in worker
    assert "secret-MINIO_ROOT_PASSWORD" not in worker


@pytest.mark.parametrize(
    ("password", "services"),
    [
        # Workers decode files that anybody may have written: they do not own the tables.
        ("FER_DB_PASSWORD", {"postgres", "init", "fer-batch-admin"}),
        ("FER_NIGHTLY_DB_PASSWORD", {"postgres", "worker", "fer-batch"}),
        ("FER_MAINTENANCE_DB_PASSWORD", {"postgres", "worker"}),
        # The server of the database never has the secret of erasures.
        ("FER_ERASURE_SECRET", {"init", "worker", "fer-batch", "fer-batch-admin"}),
    ],
)
def test_only_services_that_need_a_secret_know_it(
    stack: dict[str, Any], password: str, services: set[str]
) -> None:
    assert services == {
        name
        for name, environment in get_environments(stack).items()
        if f"secret-{password}" in " ".join(environment.values())
    }


def test_who_tells_people_has_the_mail_server_and_no_key_of_an_image(
    stack: dict[str, Any],
) -> None:
    """The callbacks of failed runs are called in the DAG processor."""
    files = {
        name: [each["path"] for each in service.get("env_file", ())]
        for name, service in stack["services"].items()
    }
    assert files["dag-processor"] == ["notify.env"]
    assert files["worker"] == files["fer-batch"] == ["fer.env", "notify.env"]
    ignored = (DOCKER / ".gitignore").read_text().splitlines()
    assert {"fer.env", "notify.env"} <= set(ignored)
    assert not {n for n in get_environments(stack)["dag-processor"] if n.startswith("FER_S3")}


def test_the_default_sizes_fit_together(stack: dict[str, Any]) -> None:
    sizes = {name: int(value) for name, value in read_example().items() if value.isdigit()}
    tasks = sizes["FER_WORKER_CONCURRENCY"]
    assert sizes["FER_WORKER_CPUS"] == tasks * sizes["FER_THREADS"]
    assert sizes["FER_POOL_SLOTS"] == sizes["FER_WORKERS"] * tasks
    memory = stack["services"]["worker"]["deploy"]["resources"]["limits"]["memory"]
    each = sizes["FER_SCORE_MEMORY_MB"] + sizes["FER_DECODE_MEMORY_MB"]
    assert int(memory.removesuffix("g")) * 1024 >= tasks * each + 1000


def test_settings_have_the_names_that_fer_batch_reads(stack: dict[str, Any]) -> None:
    text = (DOCKER / "Dockerfile").read_text()
    names = set(re.findall(r"\b(FER_[A-Z0-9_]+)=", text))
    for service in ("worker", "fer-batch"):
        names |= {n for n in get_environments(stack)[service] if n.startswith("FER_")}
    known = {f"FER_{name.upper()}" for name in Settings.model_fields}
    for file in (DOCKER.parent / "dags").glob("*.py"):
        known |= set(re.findall(r'environ\.get\("(FER_[A-Z_]+)"', file.read_text()))
    assert names <= known


def test_settings_of_airflow_exist(stack: dict[str, Any]) -> None:
    airflow = importlib.import_module("airflow").__path__[0]
    known = yaml.safe_load((Path(airflow) / "config_templates" / "config.yml").read_text())
    from airflow.providers.celery.get_provider_info import get_provider_info

    known |= get_provider_info()["config"]
    for environment in get_environments(stack).values():
        for name in environment:
            if name.startswith("AIRFLOW__"):
                _, section, key = name.lower().split("__")
                assert key in known[section]["options"], f"{name} is not a setting of Airflow"


def test_urls_and_connections_can_be_read(stack: dict[str, Any]) -> None:
    worker, init = get_environments(stack)["worker"], get_environments(stack)["init"]
    for url, login, secret in (
        (worker["AIRFLOW_CONN_FER_POSTGRES"], "fer_nightly", "secret-FER_NIGHTLY_DB_PASSWORD"),
        (
            worker["AIRFLOW_CONN_FER_POSTGRES_MAINTENANCE"],
            "fer_maintenance",
            "secret-FER_MAINTENANCE_DB_PASSWORD",
        ),
        (init["FER_DATABASE_URL"], "fer", "secret-FER_DB_PASSWORD"),
    ):
        parts = urlsplit(url)
        assert (parts.username, parts.password) == (login, secret)
        assert (parts.hostname, parts.path) == ("postgres", "/fer")
    erasure = json.loads(worker["AIRFLOW_CONN_FER_ERASURE"])
    assert erasure["password"] == "secret-FER_ERASURE_SECRET"
    s3 = json.loads(worker["AIRFLOW_CONN_FER_S3"])
    assert s3["password"] == "secret-FER_S3_SECRET_ACCESS_KEY"
    assert s3["extra"]["endpoint_url"] == "http://minio:9000"
