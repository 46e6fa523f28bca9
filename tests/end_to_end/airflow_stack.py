"""A real Airflow for the tests of the DAGs, used as a data engineer does: by API, logs and SQL.

All tests share one, because starting it takes longer than most tests. Each run has a different
capture day, so that no run sees the rows of another.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from email.message import EmailMessage
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

import psycopg
import pytest
from psycopg.rows import dict_row

from fer_batch.airflow_client import AirflowUnavailableError
from fer_batch.local.stack import Stack
from fer_batch.local.stack.airflow import DATABASE, AirflowStack
from fer_batch.local.stack.airflow_api import (
    AirflowApi,
    RunState,
    TaskState,
)
from fer_batch.local.stack.stack import BUCKET
from fer_batch.resources import find_dags_dir
from fer_batch.storage.writer import upload_many
from tests.fixtures.night import encode_crop, format_facility, spread
from tests.support.fork_server import ForkServer
from tests.support.forked_python import forked_python
from tests.support.models import write_tiny_cnn
from tests.support.receivers import SmtpServer, smtp_server_running
from tests.support.repository import REPO_ROOT

DAG_ID = "satisfaction_nightly"
BERLIN_DAG_ID = "satisfaction_nightly_europe_berlin"
TOKYO_DAG_ID = "satisfaction_nightly_asia_tokyo"
NORTH, TOKYO, LOST, FAR = "north-mall", "tokyo-mall", "lost-mall", "far-mall"
FINE, BROKEN, GONE, STRANGER = "fine-mall", "broken-mall", "gone-mall", "stranger-mall"
DENIED = "denied-mall"
NOWHERE, TYPO = "nowhere-mall", "typo-mall"
LOST_BUCKET = "not-made-yet"
DEADLINE_S = 900
EXAMPLE_DAG_ID = "after_satisfaction"
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
BUNDLES = [
    {"name": "dags-folder", "classpath": LOCAL_BUNDLE, "kwargs": {}},
    {
        "name": "examples",
        "classpath": LOCAL_BUNDLE,
        "kwargs": {"path": str(REPO_ROOT / "docs" / "examples")},
    },
]
"""The DAGs of fer-batch, and the example in the docs."""


def format_facility_in(name: str, time_zone: str, more: str = "") -> str:
    return format_facility(name, more=more).replace("Europe/Berlin", time_zone)


REGISTRY = "\n".join(
    [
        format_facility(NORTH, more='empty_days = "allowed"\n'),
        format_facility_in(TOKYO, "Asia/Tokyo"),
        format_facility_in(LOST, "UTC", f'bucket = "{LOST_BUCKET}"\n'),
        # No server listens on this port.
        format_facility_in(FAR, "UTC", 'endpoint = "http://127.0.0.1:9"\n'),
        format_facility_in(FINE, "UTC"),
        format_facility_in(BROKEN, "UTC"),
        format_facility_in(GONE, "UTC", 'bucket = "never-made"\n'),
        format_facility_in(STRANGER, "UTC", 'credentials = "stranger"\n'),
        # Invalid entries, which cost no other facility anything.
        format_facility_in(NOWHERE, "Europe/Berln"),
        format_facility_in(TYPO, "UTC", "wifi = 1\n"),
    ]
)


class ForkingAirflow(AirflowStack):
    """Airflow whose tasks start the command as forks."""

    python: Path

    def _build_environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        return {**super()._build_environment(settings), "FER_PYTHON": str(self.python)}


class SmallStack(Stack):
    """A stack whose tasks use the tiny CNN and split a day of the tests into several shards."""

    airflow: ForkingAirflow
    mail_port: int

    def __init__(self, stack_dir: Path) -> None:
        super().__init__(stack_dir)
        self.airflow = ForkingAirflow(
            self.folder / "airflow",
            self.postgres,
            self.seaweed,
            find_dags_dir(),
            config={
                "dag_processor": {
                    "dag_bundle_config_list": json.dumps(BUNDLES),
                    "min_file_process_interval": 600,  # the files do not change
                }
            },
        )

    def build_env(self, *, as_admin: bool = False) -> dict[str, str]:
        return {
            **super().build_env(as_admin=as_admin),
            "FER_MODEL_CARD": str(self.folder / "tiny.json"),
            "FER_SHARD_IMAGES": "30",
            "FER_THREADS": "1",
            # Maintenance leaves the capture days of the tests alone.
            "FER_RETENTION_DAYS": "9000",
            "FER_FINDING_RETENTION_DAYS": "9000",
            "FER_REPORT_RETENTION_DAYS": "9000",
            "FER_DEADLINE_HOURS": "-0.1",  # before the usual end: every run misses it
            "FER_SMTP_HOST": "127.0.0.1",
            "FER_SMTP_PORT": str(self.mail_port),
            "FER_SMTP_SECURITY": "none",
            "FER_SMTP_FROM": "fer-batch@example.com",
            "FER_INCIDENT_TO": "on-call@example.com",
        }


@dataclass(frozen=True)
class Airflow:
    """The stack with Airflow's API and SQL, as a data engineer uses it."""

    stack: Stack
    api: AirflowApi
    mails: SmtpServer

    @property
    def metadata_url(self) -> str:
        """Airflow's own database."""
        return self.stack.postgres.build_url(DATABASE, role=DATABASE)

    def upload(self, name: str, day: date, *, happy: int, sad: int, bucket: str = BUCKET) -> None:
        images = [
            (f"{name}/{day}/{n:04}.png", encode_crop(is_happy, number=n))
            for n, is_happy in enumerate(spread(happy, sad))
        ]
        upload_many(self.stack.build_settings(), bucket, images)

    def trigger(self, day: date, *facilities: str, **params: Any) -> str:
        conf = {"capture_day": day.isoformat(), "facilities": list(facilities), "lookback_days": 0}
        return self.api.trigger_dag_run(DAG_ID, conf | params)

    def backfill(self, dag_id: str, from_day: date, to_day: date) -> None:
        days = {"from_date": f"{from_day}T00:00:00Z", "to_date": f"{to_day}T00:00:00Z"}
        self.api.call("POST", "backfills", {"dag_id": dag_id, **days})

    def create_connection(self, name: str, **fields: Any) -> None:
        """Create a Connection, as a user does in the UI."""
        self.api.call("POST", "connections", {"connection_id": name, **fields})

    def clear(self, run_id: str, *task_ids: str) -> None:
        """Clear these tasks and all downstream tasks, in whatever state they are."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": False,
            "include_downstream": True,
            "task_ids": list(task_ids),
        }
        self.api.call("POST", f"dags/{DAG_ID}/clearTaskInstances", body)

    def wait(self, run_id: str, dag_id: str = DAG_ID) -> RunState:
        self._wait_until_none_is_open("dag_id = %s and run_id = %s", dag_id, run_id)
        return self.api.wait_for_run(dag_id, run_id, lambda _: None, DEADLINE_S)

    def wait_for_all(self) -> None:
        """Wait until no run of fer-batch's DAGs is queued or running."""
        self._wait_until_none_is_open("dag_id = any(%s)", [DAG_ID, BERLIN_DAG_ID])

    def _wait_until_none_is_open(self, condition: LiteralString, *parameters: Any) -> None:
        """Ask Airflow's database, as a request to its API takes much longer."""
        end = time.monotonic() + DEADLINE_S
        query = f"select 1 from dag_run where state in ('queued', 'running') and {condition}"  # noqa: S608
        with psycopg.connect(self.metadata_url, autocommit=True) as connection:
            while connection.execute(query, parameters).fetchone() and time.monotonic() < end:
                time.sleep(0.3)

    def wait_for_mail(self, subject: str, run_id: str) -> EmailMessage:
        """Wait for the only mail about a run with this text in its subject."""
        end = time.monotonic() + DEADLINE_S
        while True:
            found = [
                mail
                for mail in list(self.mails.mails)
                if subject in mail["Subject"] and run_id in mail.get_content()
            ]
            if found or time.monotonic() > end:
                (mail,) = found
                return mail
            time.sleep(0.3)

    def stop_at(self, run_id: str, task_id: str, state: str) -> RunState:
        """Wait until a task has this state, return the run as it is then, and end the run.

        The tasks that would run after a failed one take longer than a test of the failure.
        """
        query = "select 1 from task_instance where run_id = %s and task_id = %s and state = %s"
        end = time.monotonic() + DEADLINE_S
        with psycopg.connect(self.metadata_url, autocommit=True) as connection:
            while connection.execute(query, [run_id, task_id, state]).fetchone() is None:
                if time.monotonic() > end:
                    pytest.fail(f"{task_id} of {run_id} is not {state}: {self._get_run(run_id)}")
                time.sleep(0.3)
        run = self._get_run(run_id)
        self._end(DAG_ID, run_id)
        return run

    def skip_scheduled_run(self, dag_id: str) -> None:
        """End the run of the last night, which Airflow starts when a DAG is unpaused.

        Its tasks may have run by then.
        """
        self._end(dag_id, self._find_scheduled_run(dag_id))

    def wait_for_scheduled_run(self, dag_id: str) -> RunState:
        """Wait until the run of the last night, as above, has succeeded."""
        return self.wait_for_success(self._find_scheduled_run(dag_id), dag_id)

    def _find_scheduled_run(self, dag_id: str) -> str:
        query = "select run_id from dag_run where dag_id = %s and run_type = 'scheduled'"
        end = time.monotonic() + DEADLINE_S
        with psycopg.connect(self.metadata_url, autocommit=True) as connection:
            while (row := connection.execute(query, [dag_id]).fetchone()) is None:
                if time.monotonic() > end:
                    pytest.fail(f"no scheduled run of {dag_id}")
                time.sleep(0.3)
        return str(row[0])

    def _get_run(self, run_id: str) -> RunState:
        return self.api.get_run_state(DAG_ID, run_id)

    def _end(self, dag_id: str, run_id: str) -> None:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}"
        try:
            self.api.call("PATCH", path, {"state": "failed"})
        except AirflowUnavailableError:  # it answers its first requests slowly
            self.api.call("PATCH", path, {"state": "failed"})

    def has_successful_run(self) -> bool:
        query = "select 1 from dag_run where dag_id = %s and state = 'success' limit 1"
        with psycopg.connect(self.metadata_url) as connection:
            return connection.execute(query, [DAG_ID]).fetchone() is not None

    def wait_for_success(self, run_id: str, dag_id: str = DAG_ID) -> RunState:
        run = self.wait(run_id, dag_id)
        if run.state != "success":
            failed = [task for task in run.tasks if task.state == "failed"]
            pytest.fail("\n".join(self.api.get_task_log(dag_id, run_id, task) for task in failed))
        return run

    def wait_for_example(self, facility_day: str) -> list[str]:
        """Wait for a run of the example DAG that an event with this facility day has started.

        Returns what its task returned.
        """
        end = time.monotonic() + DEADLINE_S
        seen: set[str] = set()
        while time.monotonic() < end:
            runs = self.api.call("GET", f"dags/{EXAMPLE_DAG_ID}/dagRuns?limit=100")["dag_runs"]
            for run_id in sorted({run["dag_run_id"] for run in runs} - seen):
                seen.add(run_id)
                self.wait_for_success(run_id, EXAMPLE_DAG_ID)
                result = self.api.get_result(EXAMPLE_DAG_ID, run_id, "list_complete_days")
                if facility_day in result:
                    return list(result)
            time.sleep(0.5)
        pytest.fail(f"no run of {EXAMPLE_DAG_ID} got {facility_day}")

    def read_log(self, run: RunState, task_id: str) -> str:
        """The logs of all map indices of a task."""
        return "\n".join(
            self.api.get_task_log(run.dag_id, run.run_id, t) for t in find_tasks(run, task_id)
        )

    def query(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        url = self.stack.build_env()["FER_DATABASE_URL"]
        with psycopg.connect(url, row_factory=dict_row) as connection:
            return connection.execute(sql, parameters).fetchall()

    def read_summary(self, name: str, day: date) -> dict[str, Any]:
        (row,) = self.query(
            "select * from fer.satisfaction_summary where facility_id = %s and capture_day = %s"
            " and period = 'day' order by revision desc limit 1",
            name,
            day,
        )
        return row

    def read_results(self, name: str, day: date) -> dict[str, list[dict[str, Any]]]:
        """All result rows of a facility's day, including the times at which they were written."""
        return {
            table: self.query(
                f"select * from fer.{table}"  # noqa: S608
                " where facility_id = %s and capture_day = %s order by 3, 4, 5, 6",
                name,
                day,
            )
            for table in ("image_result", "face_result", "satisfaction_summary")
        }


@contextmanager
def airflow_running(folder: Path, fork_server: ForkServer) -> Iterator[Airflow]:
    """Airflow with the facilities of these tests, for the duration of the block."""
    stack = SmallStack(folder)
    stack.write_registry(REGISTRY)
    write_tiny_cnn(stack.folder)
    with forked_python(fork_server, stack.folder) as python, smtp_server_running() as mails:
        stack.airflow.python = python
        stack.mail_port = mails.port
        with stack.running(with_airflow=True):
            api = stack.airflow.create_client()
            for dag_id in (DAG_ID, BERLIN_DAG_ID):
                unpause(api, dag_id)
            running = Airflow(stack, api, mails)
            running.skip_scheduled_run(BERLIN_DAG_ID)
            yield running
    shutil.rmtree(stack.folder)


def unpause(api: AirflowApi, dag_id: str) -> None:
    """Unpause a DAG, also if the first requests take longer than the client waits."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            api.unpause(dag_id, DEADLINE_S)
            return
        except AirflowUnavailableError:
            if time.monotonic() > end:
                raise


def find_tasks(run: RunState, task_id: str) -> list[TaskState]:
    return [task for task in run.tasks if task.task_id == task_id]


def get_states(run: RunState) -> dict[str, str | None]:
    """The state of each task; for a mapped task, that of its last map index."""
    return {task.task_id: task.state for task in sorted(run.tasks, key=lambda t: t.map_index)}
