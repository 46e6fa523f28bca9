"""One Airflow for all tests, because it is slow to start."""

from __future__ import annotations

import json
import stat
import time
from datetime import UTC, datetime, timedelta
from textwrap import dedent
from typing import Any

import psutil
import pytest

from fer_batch.airflow_client import AirflowError, NotFoundError
from fer_batch.freshness import airflow_history
from fer_batch.freshness.airflow import MAINTENANCE_DAG_ID, check_airflow
from fer_batch.local.stack.airflow import AirflowStack
from fer_batch.local.stack.airflow_api import AirflowApi
from tests.support.processes import find_listening_addresses, find_processes, kill_all

DAG = """
    import os
    from airflow.sdk import DAG, BaseHook, task

    with DAG("toy", params={"numbers": [0]}):
        @task
        def numbers(params):
            return params["numbers"]

        @task(map_index_template="{{ task.op_kwargs['number'] }}", pool="fer_scoring")
        def double(number):
            return 2 * number

        @task
        def environment():
            s3, postgres = (BaseHook.get_connection(f"fer_{n}") for n in ("s3", "postgres"))
            return {
                "settings": {k: v for k, v in os.environ.items() if k.startswith("FER_")},
                "s3": [s3.login, s3.password, s3.extra_dejson["endpoint_url"]],
                "postgres": postgres.get_uri(),
            }

        double.expand(number=numbers())
        environment()
"""


@pytest.fixture
def airflow(folder, postgres_server, seaweed_server):
    dags = folder / "dags"
    dags.mkdir()
    (dags / "toy.py").write_text(dedent(DAG))
    stack = AirflowStack(folder / "airflow", postgres_server, seaweed_server, dags)
    yield stack
    stack.stop()


@pytest.mark.timeout(600)
def test_airflow_runs_a_dag_and_leaks_no_secrets(folder, airflow, postgres_server, s3, monkeypatch):
    settings = {**s3.settings_env, "FER_DATABASE_URL": postgres_server.build_url("fer")}
    said: list[str] = []
    airflow.start(settings, said.append)
    assert said[-1] == "healthy"
    assert all(airflow.get_status().values())
    assert find_listening_addresses(folder) == {"127.0.0.1"}

    api = airflow.create_client()
    api.unpause("toy")
    run = api.trigger_dag_run("toy", {"numbers": [3, 4]})
    seen: list[Any] = []
    end = api.wait_for_run("toy", run, seen.append, deadline_s=300)
    assert end.state == "success", [api.get_task_log("toy", run, task) for task in end.tasks]
    assert sorted(task.name for task in end.tasks) == ["3", "4", "environment", "numbers"]
    assert all(task.is_finished for task in end.tasks)
    assert not seen[0].is_finished

    found = api.call(
        "GET", f"dags/toy/dagRuns/{run}/taskInstances/environment/xcomEntries/return_value"
    )["value"]
    found = json.loads(found) if isinstance(found, str) else found
    assert found["settings"]["FER_S3_BUCKET"] == s3.bucket
    assert {"FER_PYTHON"} <= found["settings"].keys()
    assert s3.secret_access_key not in found["settings"].values()
    assert "FER_DATABASE_URL" not in found["settings"]
    assert found["s3"] == [s3.access_key_id, s3.secret_access_key, s3.endpoint]
    assert found["postgres"].removeprefix("postgres") in settings["FER_DATABASE_URL"]

    files = [p for p in airflow.folder.iterdir() if p.is_file()]
    assert {"airflow.cfg", "password", "jwt_secret"} <= {p.name for p in files}
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}

    before = {p.pid for p in find_processes(folder)}
    airflow.start(settings)  # a second start does nothing
    assert before <= {p.pid for p in find_processes(folder)}
    with pytest.raises(AirflowError, match="401"):
        AirflowApi(airflow.url, "admin", "wrong").call("GET", "pools")
    with pytest.raises(NotFoundError):
        api.call("GET", "dags/none")
    checks = {each.subject: each.state for each in check_airflow(api, ["Europe/Berlin"])}
    assert checks == {
        **dict.fromkeys(["metadatabase", "scheduler", "dag_processor", "DAG files"], "ok"),
        # This Airflow has only the toy.
        **dict.fromkeys(["satisfaction_nightly_europe_berlin", MAINTENANCE_DAG_ID], "problem"),
    }
    # As if it were the maintenance, and a year later.
    monkeypatch.setattr("fer_batch.freshness.airflow.MAINTENANCE_DAG_ID", "toy")
    assert {c.subject: c.state for c in check_airflow(api, [])}["toy"] == "ok"
    later = datetime.now(UTC).date() + timedelta(365)
    assert airflow_history.describe_overdue(api, 200, later) == ""
    monkeypatch.setattr(airflow_history, "DAG_PREFIX", "toy")
    assert "airflow db clean" in airflow_history.describe_overdue(api, 200, later)
    assert airflow_history.describe_overdue(api, 365, later) == ""

    [scheduler] = [p for p in find_processes(folder) if "scheduler" in p.cmdline()]
    workers = scheduler.children(recursive=True)
    scheduler.kill()
    assert workers
    assert not psutil.wait_procs(workers, timeout=10)[1]  # although they ignore SIGTERM

    kill_all(folder)
    assert not airflow.is_running()
    began = time.monotonic()
    airflow.stop()
    assert time.monotonic() - began < 5
    assert not [p for p in find_processes(folder) if p.status() != psutil.STATUS_ZOMBIE]
