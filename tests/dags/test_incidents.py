"""The callbacks of the DAGs: who is told of a run, by the real command and real servers."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zoneinfo import available_timezones

import pytest
from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun
from airflow.sdk.execution_time.context import set_current_context

from fer_batch.freshness.airflow import make_dag_id
from tests.support.receivers import chat_server_running, smtp_server_running

NIGHT = datetime(2026, 11, 29, 2, tzinfo=UTC)
NEW = {
    "check": "rate_fell",
    "facility_id": "north-mall",
    "subject": "",
    "severity": "warning",
    "meaning": "the happy rate fell clearly",
    "first_day": "2026-11-28",
    "last_day": "2026-11-28",
}
OPENED = {**NEW, "opened_at": "2026-11-29 02:31:00.5+00:00"}
"""The same as `report` lists it."""
CHECKED = {
    "check": "listing_failed",
    "severity": "error",
    "facility_id": "north-mall",
    "capture_day": "2026-11-28",
    "meaning": "the bucket could not be listed",
    "finding": "17 faces, see north/2026/a-secret-face.jpg",
    "subject": "",
    "closing_rule": "same day",
}
FUNCTION = """
told = []
def page(incident):
    told.append(incident)
def fail(incident):
    raise RuntimeError("pager is down")
"""


class RunTask:
    """A task instance of a callback: what Airflow's API answers about its run."""

    def __init__(self, states: dict[str, str], xcoms: dict[tuple[str, int, str], Any]) -> None:
        self._states, self._xcoms = states, xcoms

    def get_task_states(self, *, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str]]:
        assert dag_id == "satisfaction_nightly_europe_berlin"
        return {run_ids[0]: self._states}

    def xcom_pull(self, task_ids: str, *, key: str, map_indexes: int) -> Any:
        return self._xcoms.get((task_ids, map_indexes, key))


@pytest.fixture
def no_command(fer_command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """fer-batch is not installed: the user's function is called all the same."""
    monkeypatch.setenv("FER_PYTHON", "/no/python")


@pytest.fixture
def dag(
    fer_command: ModuleType, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The DAG of Berlin. No Connection exists; the functions of `our_pager` can be imported."""
    monkeypatch.syspath_prepend(str(repo_root / "dags"))
    (tmp_path / "our_pager.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = tmp_path / "facilities.toml"
    registry.write_text('[facility.north-mall]\ntime_zone = "Europe/Berlin"\n')
    monkeypatch.setenv("FER_FACILITIES_FILE", str(registry))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/")
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    monkeypatch.delenv("FER_ENV_FILE", raising=False)
    module = importlib.import_module("satisfaction_nightly")
    yield module.build_dag("satisfaction_nightly_europe_berlin", "Europe/Berlin", "Europe/Berlin")
    sys.modules.pop("our_pager", None)


def build_context(dag: Any, ti: RunTask | None, run_type: str = "scheduled") -> dict[str, Any]:
    minimal = {"dag": dag, "run_id": "scheduled__1", "reason": "task_failure"}
    if ti is None:  # what Airflow passes if no task caused the failure
        return minimal
    return minimal | {
        "ti": ti,
        "params": {"capture_day": None},
        "logical_date": NIGHT,
        "dag_run": SimpleNamespace(run_after=NIGHT, run_type=run_type),
    }


FAILED = RunTask(
    {"list_images": "success", "score_2": "failed", "score_3": "failed", "check_data": "failed",
     "notify": "upstream_failed", "watcher": "failed"},
    {
        ("score", 2, "error"): "bucket b: a/a-secret-face.jpg is gone. Correct FER_S3_BUCKET",
        ("check_data", -1, "return_value"): [CHECKED],
        ("report", -1, "return_value"): {"report": "r", "new_findings": [OPENED]},
    },
)  # fmt: skip


@pytest.mark.usefixtures("dag")
def test_a_failed_maintenance_is_about_no_capture_day() -> None:
    maintenance = importlib.import_module("satisfaction_maintenance").dag
    context = build_context(maintenance, FAILED) | {"params": {"dry_run": False}}
    incidents = importlib.import_module("fer_incidents")
    assert maintenance.on_failure_callback is incidents.tell_failed_run
    incident = incidents.describe_run("failed run", context, None)
    assert (incident["dag_id"], incident["capture_day"]) == ("satisfaction_maintenance", None)


def test_a_failed_run_is_told_once_by_mail_in_a_chat_and_by_the_users_function(
    dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with smtp_server_running() as smtp, chat_server_running() as chat:
        for name, value in {
            "FER_SMTP_HOST": "127.0.0.1",
            "FER_SMTP_PORT": str(smtp.port),
            "FER_SMTP_SECURITY": "none",
            "FER_SMTP_FROM": "fer@example.com",
            "FER_CHAT_URLS__OPS": f"{chat.url}/hook",
            "FER_INCIDENT_TO": "anna@example.com",
            "FER_INCIDENT_CHATS": "ops",
            "FER_INCIDENT_CALLBACK": "our_pager.page",
        }.items():
            monkeypatch.setenv(name, value)
        dag.on_failure_callback(build_context(dag, FAILED))
    [mail], [(_, post)] = smtp.read("anna@example.com"), chat.posts
    assert mail["Subject"] == post["title"]
    assert "2026-11-28" in mail["Subject"]
    text = mail.get_content()
    assert "- score [2]: bucket b: an image is gone. Correct FER_S3_BUCKET" in text
    assert "- score [3]: it ended without a message" in text
    assert "- north-mall, Sat 28 Nov: rate_fell, warning: the happy rate fell clearly" in text
    link = "https://airflow.example.com/dags/satisfaction_nightly_europe_berlin/runs/scheduled__1"
    assert link in text
    assert "watcher" not in text
    [incident] = importlib.import_module("our_pager").told
    assert (incident["kind"], incident["link"]) == ("failed run", link)
    assert (incident["subject"], incident["text"]) == (mail["Subject"], post["message"] + "\n")
    assert incident["tasks"][1]["error"] == "bucket b: an image is gone. Correct FER_S3_BUCKET"
    for shown in (text, post["message"], json.dumps(incident)):
        assert "secret-face" not in shown
        assert "17 faces" not in shown


def test_what_cannot_be_told_is_logged_and_hides_nothing(
    dag: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FER_INCIDENT_TO", "anna@example.com")  # without a mail server
    for function in ("our_pager.fail", "no_module.at_all", "nonsense"):
        monkeypatch.setenv("FER_INCIDENT_CALLBACK", function)
        dag.on_failure_callback(build_context(dag, None))
        assert f"FER_INCIDENT_CALLBACK={function} failed" in caplog.text
        monkeypatch.setenv("FER_PYTHON", "/no/python")
    assert "FER_SMTP_HOST is not set" in caplog.text  # by the first one
    assert caplog.text.count("failed run: satisfaction_nightly_europe_berlin, scheduled__1") == 3


@pytest.mark.parametrize(
    ("run_type", "findings", "is_told"),
    [("scheduled", [OPENED], True), ("scheduled", [], False), ("backfill", [OPENED], False)],
)
def test_a_successful_run_tells_only_what_it_found(
    dag: Any,
    no_command: None,
    run_type: str,
    findings: list[Any],
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FER_INCIDENT_CALLBACK", "our_pager.page")
    ti = RunTask({}, {("report", -1, "return_value"): {"new_findings": findings}})
    dag.on_success_callback(build_context(dag, ti, run_type) | {"reason": "success"})
    told = importlib.import_module("our_pager").told
    assert [each["kind"] for each in told] == ["new findings"] * is_told
    assert [each["findings"] for each in told] == [[NEW]] * is_told


@pytest.mark.parametrize("start", [NIGHT, datetime(2026, 11, 29, 9, tzinfo=UTC)])
def test_a_run_that_is_cleared_tells_nothing_again(
    dag: Any, no_command: None, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether `report` was cleared too, or its result is still that of the first time."""
    assert {"start_date", "clear_number"} <= DagRun.model_fields.keys()
    monkeypatch.setenv("FER_INCIDENT_CALLBACK", "our_pager.page")
    later = {**OPENED, "check": "thumbnails", "opened_at": "2026-11-29 09:04:00+00:00"}
    ti = RunTask({}, {("report", -1, "return_value"): {"new_findings": [OPENED, later]}})
    context = build_context(dag, ti)
    context["dag_run"].clear_number, context["dag_run"].start_date = 1, start
    dag.on_success_callback(context)
    [incident] = importlib.import_module("our_pager").told
    told = [each["check"] for each in incident["findings"]]
    assert told == ["rate_fell", "thumbnails"][start > NIGHT :]
    assert "opened_at" not in str(incident)


def test_without_a_report_the_errors_of_the_checks_are_told_without_details(
    dag: Any, no_command: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_INCIDENT_CALLBACK", "our_pager.page")
    ti = RunTask({"check_data": "failed"}, {("check_data", -1, "return_value"): [CHECKED]})
    dag.on_failure_callback(build_context(dag, ti))
    [incident] = importlib.import_module("our_pager").told
    assert [each["check"] for each in incident["findings"]] == ["listing_failed"]
    assert "17 faces" not in json.dumps(incident)
    assert incident["capture_day"] == date(2026, 11, 28).isoformat()


@pytest.mark.parametrize(
    ("conf", "capture_day"), [({}, "2026-11-28"), ({"capture_day": "2026-11-02"}, "2026-11-02")]
)
def test_a_late_run_is_told_with_the_same_keys(
    dag: Any,
    no_command: None,
    conf: dict[str, str],
    capture_day: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FER_INCIDENT_CALLBACK", "our_pager.page")
    run = {"dag_id": dag.dag_id, "dag_run_id": "scheduled__1", "conf": conf, "logical_date": None}
    [deadline] = dag.deadline
    importlib.import_module("fer_deadline").tell_missed_deadline(
        {
            # 23:30 UTC is already the next day in Berlin.
            "dag_run": {**run, "run_after": "2026-11-28T23:30:00Z"},
            "deadline": {"deadline_time": "2026-11-29T08:00"},
        },
        **deadline.callback.kwargs,
    )
    [late] = importlib.import_module("our_pager").told
    assert (late["kind"], late["run_id"]) == ("late run", "scheduled__1")
    assert late["capture_day"] == capture_day
    dag.on_failure_callback(build_context(dag, FAILED))
    assert late.keys() == importlib.import_module("our_pager").told[-1].keys()


def test_a_task_keeps_its_last_error_without_the_facts_that_may_name_images(
    fer_command: ModuleType, dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, interpreter = tmp_path / "command", tmp_path / "python"
    line = {"event": "scoring failed", "level": "error", "reason": "disk full", "key": "a/b.jpg"}
    script.write_text(
        f"import json, sys\nprint(json.dumps({line!r}), file=sys.stderr)\nsys.exit(2)"
    )
    interpreter.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("FER_PYTHON", str(interpreter))
    monkeypatch.setattr("fer_settings.compute_time_limit", dict)
    pushed: dict[str, str] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    context: Any = {"ti": ti}
    with (
        set_current_context(context),
        pytest.raises(fer_command.PermanentFailureError, match=r"b\.jpg"),
    ):
        fer_command.run_command("score")
    assert pushed == {"error": "scoring failed: disk full"}


def test_a_task_keeps_the_error_by_which_its_command_was_not_started(
    fer_command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above all that of a maintenance without a login, the likeliest one of a new installation."""
    monkeypatch.setattr("fer_settings.compute_time_limit", dict)
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    monkeypatch.delenv("FER_MAINTENANCE_DATABASE_URL", raising=False)
    monkeypatch.setenv("FER_PYTHON", "/nowhere/python")
    pushed: list[str] = []
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.append(f"{key}: {value}"))
    wrong: Any = {
        "ti": ti,
        "dag": SimpleNamespace(params={"dry_run": False}),
        "dag_run": SimpleNamespace(conf={"dryrun": True}),
    }
    maintenance = {"secrets": [fer_command.Secrets.MAINTENANCE]}
    with set_current_context(wrong):
        for call in (
            lambda: fer_command.run_command("maintain", **maintenance),
            lambda: fer_command.run_command("list-images"),
            lambda: fer_command.check_conf(wrong),
            lambda: fer_command.run_command("incident", **maintenance, limit_s=9),  # is no task
        ):
            with pytest.raises(fer_command.PermanentFailureError):
                call()
    told = ("error: maintenance has no login", "error: /nowhere/python", "error: the configuration")
    assert [text.startswith(start) for text, start in zip(pushed, told, strict=True)] == [True] * 3


def test_the_monitor_knows_the_id_of_every_dag(dag: Any) -> None:
    nightly = importlib.import_module("satisfaction_nightly")
    zones = available_timezones()
    assert {zone: make_dag_id(zone) for zone in zones} == {
        zone: nightly.make_dag_id(zone) for zone in zones
    }


def test_where_airflow_denies_connections_the_settings_count(
    fer_settings: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the callback of a deadline, which runs in a process of the executor."""

    def deny(name: str) -> None:
        raise PermissionError(f"Access denied for connection {name!r}")

    monkeypatch.setattr("airflow.sdk.BaseHook.get_connection", deny)
    secrets = [fer_settings.Secrets.DIGESTS]
    assert fer_settings.read_connections(secrets) == {}
    assert "Airflow denies the Connection fer_smtp here" in caplog.text
