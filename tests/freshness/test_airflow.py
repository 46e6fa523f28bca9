"""What Airflow's API answers, and what `fer-batch freshness` makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer_batch.cli.doctor import diagnose
from fer_batch.errors import ConfigurationError
from fer_batch.freshness import airflow_history, metrics
from fer_batch.freshness.airflow import MAINTENANCE_DAG_ID, Check, check_airflow, create_client
from fer_batch.freshness.checking import NOT_CHECKED, Report
from fer_batch.freshness.expectations import Freshness
from fer_batch.settings import Settings

HEALTHY = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-11-29T05:00:00+00:00"},
    "triggerer": {"status": None, "latest_triggerer_heartbeat": None},
    "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": "2026-11-29T05:00"},
}
BERLIN = "satisfaction_nightly_europe_berlin"
RUNNING = {"is_paused": False, "is_stale": False}
LAST_MAINTENANCE = (
    f"dags/{MAINTENANCE_DAG_ID}/dagRuns?state=success&state=failed&order_by=-run_after&limit=1"
)
TRACE = 'Traceback …\n  File "x"\nRegistryError: facilities.toml is not valid TOML'


def list_errors(*files: str) -> dict[str, Any]:
    errors = [{"filename": file, "stack_trace": TRACE} for file in files]
    return {"import_errors": errors, "total_entries": len(errors)}


GOOD: dict[str, Any] = {
    "/api/v2/monitor/health": HEALTHY,
    "/api/v2/importErrors?limit=100&offset=0": list_errors(),
    f"/api/v2/dags/{BERLIN}": RUNNING,
    f"/api/v2/dags/{MAINTENANCE_DAG_ID}": RUNNING,
    f"/api/v2/{LAST_MAINTENANCE}": {"dag_runs": [{"state": "success", "dag_run_id": "r1"}]},
}


@contextmanager
def airflow_answering(answers: dict[str, Any]) -> Iterator[Settings]:
    """A server that answers as Airflow does; the settings have its address and login."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            login = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_right = login == {"username": "monitor", "password": LOGIN}
            self.answer(201, {"access_token": "t"}) if is_right else self.answer(401, {})

        def do_GET(self) -> None:
            if "health" not in self.path and self.headers["Authorization"] != "Bearer t":
                self.answer(401, {})
            else:
                self.answer(200 if self.path in answers else 404, answers.get(self.path))

        def answer(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield build_settings(url)
        finally:
            server.shutdown()
            thread.join()


LOGIN = "s3cret"


def build_settings(url: str, password: str = LOGIN) -> Settings:
    values: dict[str, Any] = {
        "airflow_url": url, "airflow_user": "monitor", "airflow_password": password,
    }  # fmt: skip
    return Settings(_env_file=None, **values)


def list_problems(answers: dict[str, Any], password: str = LOGIN) -> dict[str, str]:
    """The problems, each with its detail."""
    with airflow_answering(answers) as settings:
        client = create_client(build_settings(str(settings.airflow_url), password))
        assert client is not None
        checks = check_airflow(client, ["Europe/Berlin"])
    return {each.subject: each.detail for each in checks if each.state == "problem"}


SILENT = {"status": "unhealthy", "latest_scheduler_heartbeat": "2026-11-29T01:00:00+00:00"}


@pytest.mark.parametrize(
    ("path", "answer", "subject", "detail"),
    [
        ("monitor/health", HEALTHY | {"scheduler": SILENT}, "scheduler", "2026-11-29T01:00"),
        (
            "monitor/health",
            HEALTHY | {"dag_processor": {"status": None}},
            "dag_processor",
            "does not run, last heartbeat: never",
        ),
        ("monitor/health", HEALTHY | {"metadatabase": {"status": "unhealthy"}}, "metadatabase",
         "unhealthy"),
        (
            "importErrors?limit=100&offset=0",
            list_errors("other/dags.py", "fer/satisfaction_nightly.py"),
            "fer/satisfaction_nightly.py",
            "RegistryError: facilities.toml is not valid TOML",
        ),
        (f"dags/{BERLIN}", RUNNING | {"is_paused": True}, BERLIN, "paused"),
        (f"dags/{BERLIN}", RUNNING | {"is_stale": True}, BERLIN, "does not define it any more"),
        (f"dags/{BERLIN}", None, BERLIN, "no such DAG"),
        (f"dags/{MAINTENANCE_DAG_ID}", RUNNING | {"is_paused": True}, MAINTENANCE_DAG_ID, "paused"),
        (LAST_MAINTENANCE, {"dag_runs": [{"state": "failed", "dag_run_id": "r2"}]},
         MAINTENANCE_DAG_ID, "its last run has failed: r2"),
    ],
)  # fmt: skip
def test_what_keeps_a_night_from_running_is_a_problem(
    path: str, answer: Any, subject: str, detail: str
) -> None:
    answers = {**GOOD, f"/api/v2/{path}": answer}
    if answer is None:
        del answers[f"/api/v2/{path}"]
    problems = list_problems(answers)
    assert list(problems) == [subject]
    assert detail in problems[subject]


def test_an_airflow_in_order_has_no_problem_and_the_errors_of_others_do_not_count() -> None:
    errors = {"/api/v2/importErrors?limit=100&offset=0": list_errors("team/other.py")}
    assert list_problems(GOOD) == list_problems(GOOD | errors) == {}
    assert list_problems(GOOD | {f"/api/v2/{LAST_MAINTENANCE}": {"dag_runs": []}}) == {}


def test_an_airflow_that_cannot_be_asked_is_a_problem() -> None:
    [(_, refused)] = list_problems(GOOD, password="wrong").items()
    assert "401" in refused
    assert "wrong" not in refused
    [(_, other)] = list_problems({"/api/v2/monitor/health": ["no Airflow"]}).items()
    assert "FER_AIRFLOW_URL" in other
    client = create_client(build_settings("http://127.0.0.1:9"))
    assert client is not None
    [check] = check_airflow(client, [])
    assert (check.kind, check.state) == ("airflow", "problem")


def test_without_settings_airflow_is_not_checked_and_incomplete_ones_are_an_error() -> None:
    assert create_client(Settings(_env_file=None)) is None
    with pytest.raises(ConfigurationError, match="FER_AIRFLOW_USER and FER_AIRFLOW_PASSWORD"):
        create_client(Settings(_env_file=None, airflow_url="https://x"))
    with pytest.raises(ConfigurationError, match="not a web address"):
        create_client(build_settings("airflow.example.com"))


def build_run(dag: str, day: str, run_type: str = "scheduled") -> dict[str, Any]:
    return {
        "dag_id": dag, "dag_run_id": f"{run_type} {day}", "run_type": run_type,
        "start_date": f"{day}T03:00:00Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("runs", "oldest"),
    [
        ([], None),
        # The newest run that nobody triggered is kept for a DAG that does not run any more.
        ([build_run(BERLIN, "2026-01-01"), build_run(MAINTENANCE_DAG_ID, "2026-02-01")], None),
        ([build_run(BERLIN, "2026-01-01"), build_run(BERLIN, "2026-01-02")], "2026-01-01"),
        ([build_run(BERLIN, "2026-01-01", "manual")], "2026-01-01"),
        ([build_run("of_another_team", f"2026-01-0{n}") for n in (1, 2, 3)], None),
    ],
)
def test_runs_that_db_clean_should_have_deleted_are_told_with_the_command(
    runs: list[dict[str, Any]], oldest: str | None
) -> None:
    path = (
        "/api/v2/dags/~/dagRuns?dag_id_prefix_pattern=satisfaction_"
        "&start_date_lt=2026-04-14T00%3A00%3A00Z&order_by=start_date&limit=100"
    )
    with airflow_answering({path: {"dag_runs": runs}}) as settings:
        client = create_client(settings)
        assert client is not None
        text = airflow_history.describe_overdue(client, 200, date(2026, 11, 30))
    assert (oldest or "") in text
    assert bool(text) is (oldest is not None)
    if text:
        assert "airflow db clean --skip-archive --yes" in text
        assert "--clean-before-timestamp 2026-05-14 (it cleans all DAGs" in text


def test_check_warns_of_an_overdue_db_clean_and_fails_without_an_answer() -> None:
    before = datetime.now(UTC).date() - timedelta(230)
    path = (
        "/api/v2/dags/~/dagRuns?dag_id_prefix_pattern=satisfaction_"
        f"&start_date_lt={before}T00%3A00%3A00Z&order_by=start_date&limit=100"
    )

    def check(answers: dict[str, Any]) -> tuple[bool, str]:
        with airflow_answering(answers) as settings:
            gone = {"model_card": Path("gone.json"), "detector_file": Path("gone.onnx")}
            found = {each.part: each for each in diagnose(settings.model_copy(update=gone))}
        return found["Airflow"].is_ok, found["Airflow"].detail

    is_ok, detail = check({path: {"dag_runs": [build_run(BERLIN, "2026-01-01", "manual")]}})
    assert (is_ok, "Warning: Airflow's history goes back to 2026-01-01" in detail) == (True, True)
    is_ok, detail = check({path: {"dag_runs": []}})
    assert (is_ok, "Warning" in detail) == (True, False)
    is_ok, detail = check({path: ["no Airflow"]})
    assert (is_ok, "Correct FER_AIRFLOW_URL" in detail) == (False, True)
    assert check({})[0] is False


NOW = datetime(2026, 11, 29, 6, tzinfo=UTC)
DAY = date(2026, 11, 28)
FRESH = Freshness("a", "Europe/Berlin", DAY, DAY, True, "fresh", "")
MISSING = Freshness('b"\\', "Europe/Berlin", DAY, None, None, "missing", "no summary")
CHECKS = [
    Check("component", "scheduler", "problem"),
    Check("import error", "satisfaction_nightly.py", "problem", "SyntaxError"),
    Check("dag", BERLIN, "ok"),
]


def read_metrics(text: str) -> dict[str, float]:
    """The samples of a file, each by its name and labels."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_the_metrics_say_what_the_report_says() -> None:
    found = read_metrics(metrics.format_report(Report(NOW, [FRESH, MISSING], CHECKS)))
    prefix = metrics.PREFIX
    labels = r'{facility_id="b\"\\",time_zone="Europe/Berlin"}'
    assert found[f"{prefix}checked_timestamp_seconds"] == NOW.timestamp()
    assert found[f"{prefix}day_missing{labels}"] == found[f"{prefix}problem"] == 1
    assert found[f'{prefix}component_healthy{{component="scheduler"}}'] == 0
    assert found[f'{prefix}dag_ready{{dag_id="{BERLIN}"}}'] == 1
    assert found[f"{prefix}import_errors"] == found[f"{prefix}airflow_up"] == 1
    unchecked = read_metrics(metrics.format_report(Report(NOW, [FRESH], [NOT_CHECKED])))
    assert unchecked[f"{prefix}airflow_checked"] == unchecked[f"{prefix}problem"] == 0
    assert f"{prefix}import_errors" not in unchecked
    assert read_metrics(metrics.format_failure(NOW))[f"{prefix}database_up"] == 0
    assert Report(NOW, [], [NOT_CHECKED]).is_fresh is False


@pytest.fixture(scope="module")
def rules(repo_root: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load((repo_root / "docker" / "prometheus-rules.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_every_metric_of_the_alert_rules_exists_and_every_rule_says_what_to_do(
    rules: list[dict[str, Any]],
) -> None:
    used = {name for rule in rules for name in re.findall(r"\bfer_batch_\w+", rule["expr"])}
    known = {metrics.PREFIX + name for name in metrics.HELP}
    assert used <= known
    # What the report can say, an alert says too.
    for name in ("day_missing", "dag_ready", "import_errors", "component_healthy", "facilities",
                 "airflow_up", "database_up", "checked_timestamp_seconds"):  # fmt: skip
        assert metrics.PREFIX + name in used
    for rule in rules:
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_promtool_accepts_the_rules_and_the_metrics(repo_root: Path) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool, which Prometheus has, is not installed")
    text = metrics.format_report(Report(NOW, [FRESH, MISSING], CHECKS))
    for arguments in (
        ["check", "rules", "prometheus-rules.yaml"],
        ["test", "rules", "prometheus-rules.test.yaml"],
        ["check", "metrics"],
    ):
        subprocess.run(
            [promtool, *arguments], cwd=repo_root / "docker", input=text.encode(), check=True
        )
