"""The DAG files as the DAG processor parses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fer_batch.settings import Settings

DAGS = Path(__file__).parents[2] / "dags"

PROBE = """
import json, sys
import airflow.sdk
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "sqlite3.connect")
def forbid(event, _):
    if event in FORBIDDEN:
        raise AssertionError(f"{event} while parsing")
sys.addaudithook(forbid)
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import satisfaction_nightly
dags = {}
for dag in satisfaction_nightly.DAGS:
    dags[dag.dag_id] = {
        "schedule": str(getattr(dag.timetable, "expression", "")),
        "zone": str(getattr(dag.timetable, "timezone", "")),
        "doc": dag.doc_md,
        "timeout_s": dag.dagrun_timeout.total_seconds(),
        "deadlines": [[
            d.reference.reference_name, d.interval.total_seconds(), d.callback.path
        ] for d in dag.deadline],
        "params": {k: v.value if hasattr(v, "value") else v for k, v in dag.params.items()},
        "tasks": {t.task_id: {
            "retries": t.retries,
            "timeout_s": t.execution_timeout and t.execution_timeout.total_seconds(),
            "policy": type(t.retry_policy).__name__,
            "doc": t.doc_md,
            "pool": t.pool,
            "mapped": type(t).__name__ == "DecoratedMappedOperator",
            "rule": t.trigger_rule.value,
            "leaf": not t.downstream_task_ids,
        } for t in dag.tasks},
    }
facts = {"dags": dags, "modules": sorted(set(sys.modules) - before)}
open(sys.argv[2], "w").write(json.dumps(facts))
"""

REGISTRY = """
[facility.a]
time_zone = "Europe/Berlin"
[facility.b]
time_zone = "Asia/Tokyo"
[facility.c]
time_zone = "Europe/Berlin"
credentials = "other"
"""


def parse_dag_files(
    folder: Path, registry: Path | str, *, dags: Path = DAGS, **environment: str
) -> dict[str, Any]:
    """Import the DAG files in a separate process, as the DAG processor does."""
    settings = {"AIRFLOW_HOME": str(folder), "FER_FACILITIES_FILE": str(registry)}
    output = folder / "parsed.json"
    process = subprocess.run(
        [sys.executable, "-c", PROBE, str(dags), str(output)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **settings, **environment},
    )
    assert process.returncode == 0, process.stderr
    facts: dict[str, Any] = json.loads(output.read_text())
    return facts


@pytest.fixture(scope="session")
def parse_dags() -> Callable[..., dict[str, Any]]:
    """Import the DAG files with Airflow, for a registry and environment variables."""
    return parse_dag_files


@pytest.fixture(scope="module")
def parsed(
    parse_dags: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("airflow")
    registry = folder / "facilities.toml"
    registry.write_text(REGISTRY)
    return parse_dags(folder, registry)


def test_there_is_one_dag_for_each_time_zone_and_one_for_any_day(parsed: dict[str, Any]) -> None:
    assert {name: (d["schedule"], d["zone"]) for name, d in parsed["dags"].items()} == {
        "satisfaction_nightly": ("", ""),
        "satisfaction_nightly_europe_berlin": ("0 3 * * *", "Europe/Berlin"),
        "satisfaction_nightly_asia_tokyo": ("0 3 * * *", "Asia/Tokyo"),
    }


def test_time_zones_that_differ_only_in_a_sign_have_different_dags(
    parse_dags: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    registry = tmp_path / "facilities.toml"
    zones = ["Etc/GMT+5", "Etc/GMT-5", "America/Port-au-Prince"]
    registry.write_text(
        "\n".join(f'[facility.f{n}]\ntime_zone = "{zone}"' for n, zone in enumerate(zones))
    )
    dags = parse_dags(tmp_path, registry)["dags"]
    assert {name: d["zone"] for name, d in dags.items() if d["zone"]} == {
        "satisfaction_nightly_etc_gmt_plus_5": "Etc/GMT+5",
        "satisfaction_nightly_etc_gmt_minus_5": "Etc/GMT-5",
        "satisfaction_nightly_america_port_au_prince": "America/Port-au-Prince",
    }


def test_all_dags_have_the_same_tasks_and_parameters(parsed: dict[str, Any]) -> None:
    tasks = {json.dumps(d["tasks"], sort_keys=True) for d in parsed["dags"].values()}
    params = {json.dumps(d["params"], sort_keys=True) for d in parsed["dags"].values()}
    assert len(tasks) == len(params) == 1


def test_parsing_imports_nothing_heavy(parsed: dict[str, Any]) -> None:
    heavy = {"tensorflow", "keras", "cv2", "pandas", "onnxruntime", "numpy", "matplotlib"}
    databases = {"sqlalchemy", "psycopg", "psycopg2", "boto3", "botocore", "obstore"}
    assert not (heavy | databases | {"fer_batch"}) & {m.split(".")[0] for m in parsed["modules"]}


def test_the_docs_of_every_dag_describe_every_parameter(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        for parameter in dag["params"]:
            assert f"`{parameter}`" in dag["doc"]


def test_every_task_has_docs_retries_and_a_time_limit(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        for task_id, task in dag["tasks"].items():
            assert task["doc"], task_id
            hours = 2 if task_id in ("list_images", "score") else 1 / 3
            assert task["timeout_s"] == hours * 3600, task_id
            assert task["retries"] == (0 if task_id == "watcher" else 5)
            assert task["policy"] == "RetryPolicy", task_id


def test_a_scoring_process_reaches_its_own_deadline_before_the_task_does(
    parsed: dict[str, Any],
) -> None:
    task = parsed["dags"]["satisfaction_nightly"]["tasks"]["score"]
    assert Settings.model_fields["score_deadline_s"].default < task["timeout_s"]


def test_the_deadline_of_every_run_is_before_its_timeout(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        callback = "fer_deadline.log_missed_deadline"
        assert dag["deadlines"] == [["AverageRuntimeDeadline", 6 * 3600, callback]]
        assert dag["timeout_s"] == 8 * 3600


def test_callback_and_hours_of_the_deadline_are_settings(
    parse_dags: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "our_alerts.py").write_text("def page_somebody(context):\n    pass\n")
    environment = {
        "FER_DEADLINE_CALLBACK": "our_alerts.page_somebody",
        "FER_DEADLINE_HOURS": "2.5",
    }
    parsed = parse_dags(tmp_path, tmp_path / "none.toml", PYTHONPATH=str(tmp_path), **environment)
    assert parsed["dags"]["satisfaction_nightly"]["deadlines"] == [
        ["AverageRuntimeDeadline", 9000, "our_alerts.page_somebody"]
    ]


def test_scoring_is_mapped_and_limited_by_the_pool(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["satisfaction_nightly"]["tasks"]
    assert [t for t in tasks if tasks[t]["mapped"]] == ["score"]
    assert [t for t in tasks if tasks[t]["pool"] == "fer_scoring"] == ["score"]


def test_the_watcher_is_the_only_leaf(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["satisfaction_nightly"]["tasks"]
    assert [t for t in tasks if tasks[t]["leaf"]] == ["watcher"]
    assert tasks["watcher"]["rule"] == "one_failed"


def test_tasks_after_scoring_run_even_if_a_shard_failed(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["satisfaction_nightly"]["tasks"]
    rules = {name: task["rule"] for name, task in tasks.items() if name != "watcher"}
    late = ("summarize", "check_data", "report")
    assert rules == dict.fromkeys(rules, "all_success") | dict.fromkeys(late, "all_done")


def test_without_a_registry_only_the_unscheduled_dag_exists(
    parse_dags: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    assert list(parse_dags(tmp_path, tmp_path / "none.toml")["dags"]) == ["satisfaction_nightly"]
