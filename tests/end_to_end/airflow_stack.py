"""A real Airflow for the tests of the DAGs, used as a data engineer does: by API, logs and SQL.

All tests share one, because starting it takes longer than most tests. Each run has a different
capture day, so that no run sees the rows of another.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from fer_batch.local.stack import Stack
from fer_batch.local.stack.airflow import DATABASE
from fer_batch.local.stack.airflow_api import AirflowApi, RunState, TaskState
from fer_batch.local.stack.stack import BUCKET
from fer_batch.storage.writer import upload_many
from tests.fixtures.night import encode_crop, format_facility, spread
from tests.support.models import write_tiny_cnn

DAG_ID = "satisfaction_nightly"
BERLIN_DAG_ID = "satisfaction_nightly_europe_berlin"
TOKYO_DAG_ID = "satisfaction_nightly_asia_tokyo"
NORTH, TOKYO, LOST, FAR = "north-mall", "tokyo-mall", "lost-mall", "far-mall"
FINE, BROKEN, GONE, STRANGER = "fine-mall", "broken-mall", "gone-mall", "stranger-mall"
DENIED = "denied-mall"
NOWHERE, TYPO = "nowhere-mall", "typo-mall"
LOST_BUCKET = "not-made-yet"
DEADLINE_S = 900


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


class SmallStack(Stack):
    """A stack whose tasks use the tiny CNN and split a day of the tests into several shards."""

    def build_env(self) -> dict[str, str]:
        return {
            **super().build_env(),
            "FER_MODEL_CARD": str(self.folder / "tiny.json"),
            "FER_SHARD_IMAGES": "30",
            "FER_THREADS": "1",
            "FER_DEADLINE_HOURS": "-0.1",  # before the usual end: every run misses it
        }


@dataclass(frozen=True)
class Airflow:
    """The stack with Airflow's API and SQL, as a data engineer uses it."""

    stack: Stack
    api: AirflowApi

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
        return self.api.wait_for_run(dag_id, run_id, lambda _: None, DEADLINE_S)

    def wait_for_success(self, run_id: str, dag_id: str = DAG_ID) -> RunState:
        run = self.wait(run_id, dag_id)
        if run.state != "success":
            failed = [task for task in run.tasks if task.state == "failed"]
            pytest.fail("\n".join(self.api.get_task_log(dag_id, run_id, task) for task in failed))
        return run

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
            "select * from fer.satisfaction_daily where facility_id = %s and capture_day = %s",
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
def airflow_running(folder: Path) -> Iterator[Airflow]:
    """Airflow with the facilities of these tests, for the duration of the block."""
    stack = SmallStack(folder)
    stack.write_registry(REGISTRY)
    write_tiny_cnn(stack.folder)
    with stack.running(with_airflow=True):
        api = stack.airflow.create_client()
        for dag_id in (DAG_ID, BERLIN_DAG_ID):
            api.unpause(dag_id, DEADLINE_S)
        yield Airflow(stack, api)
    shutil.rmtree(stack.folder)


def find_tasks(run: RunState, task_id: str) -> list[TaskState]:
    return [task for task in run.tasks if task.task_id == task_id]


def get_states(run: RunState) -> dict[str, str | None]:
    """The state of each task; for a mapped task, that of its last map index."""
    return {task.task_id: task.state for task in sorted(run.tasks, key=lambda t: t.map_index)}
