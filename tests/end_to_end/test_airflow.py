"""The DAGs in a real Airflow: what a data engineer sees in the grid, the logs and the tables.

One local stack for all tests. The runs are started together, since a run waits more than it
works; each has a capture day of its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg.rows import dict_row

from fer_batch.stack import Stack
from fer_batch.stack.airflow_api import AirflowApi, RunState, TaskState
from fer_batch.stack.files import PASSABLE, own_folder
from fer_batch.stack.stack import BUCKET
from fer_batch.storage import upload_many
from tests.end_to_end.conftest import crop, facility
from tests.support.models import write_tiny_cnn

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("airflow")]

DAG_ID = "satisfaction_nightly"
BERLIN_DAG_ID = "satisfaction_nightly_europe_berlin"
NORTH, TOKYO, LOST, FAR = "north-mall", "tokyo-mall", "lost-mall", "far-mall"
LOST_BUCKET = "not-made-yet"
ZONES_DAY, BUCKET_DAY, VERSION_DAY, FAR_DAY = (date(2025, 3, day) for day in (3, 4, 5, 6))
# The night between the two, Berlin's clocks go forward.
BACKFILL_DAYS = (date(2025, 3, 29), date(2025, 3, 30))
DEADLINE_S = 900


def elsewhere(name: str, time_zone: str, more: str = "") -> str:
    return facility(name, more=more).replace("Europe/Berlin", time_zone)


REGISTRY = "\n".join(
    [
        facility(NORTH),
        elsewhere(TOKYO, "Asia/Tokyo"),
        elsewhere(LOST, "UTC", f'bucket = "{LOST_BUCKET}"\n'),
        elsewhere(FAR, "UTC", 'endpoint = "http://127.0.0.1:9"\n'),  # nothing listens there
    ]
)


class SmallStack(Stack):
    """A stack whose tasks use the tiny CNN and cut a day of the tests into several shards."""

    def env(self) -> dict[str, str]:
        return {
            **super().env(),
            "FER_MODEL_CARD": str(self.folder / "tiny.json"),
            "FER_SHARD_IMAGES": "30",
            "FER_THREADS": "1",
        }


@dataclass(frozen=True)
class Airflow:
    """The stack as a data engineer uses it: Airflow's API, and SQL."""

    stack: Stack
    api: AirflowApi

    def upload(self, name: str, day: date, *, happy: int, sad: int, bucket: str = BUCKET) -> None:
        images = [(f"{name}/{day}/{n:04}.png", crop(n < happy)) for n in range(happy + sad)]
        upload_many(self.stack.settings(), bucket, images)

    def trigger(self, day: date, *facilities: str, **params: Any) -> str:
        conf = {"capture_day": day.isoformat(), "facilities": list(facilities), "lookback_days": 0}
        return self.api.trigger_dag_run(DAG_ID, conf | params)

    def backfill(self, dag_id: str, from_day: date, to_day: date) -> None:
        days = {"from_date": f"{from_day}T00:00:00Z", "to_date": f"{to_day}T00:00:00Z"}
        self.api.call("POST", "backfills", {"dag_id": dag_id, **days})

    def clear(self, run_id: str, *task_ids: str) -> None:
        """Clear these tasks and all that follow them, whatever became of them."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": False,
            "include_downstream": True,
            "task_ids": list(task_ids),
        }
        self.api.call("POST", f"dags/{DAG_ID}/clearTaskInstances", body)

    def end(self, run_id: str, dag_id: str = DAG_ID) -> RunState:
        return self.api.wait_for_run(dag_id, run_id, lambda _: None, DEADLINE_S)

    def success(self, run_id: str, dag_id: str = DAG_ID) -> RunState:
        run = self.end(run_id, dag_id)
        if run.state != "success":
            failed = [task for task in run.tasks if task.state == "failed"]
            pytest.fail("\n".join(self.api.task_log(dag_id, run_id, task) for task in failed))
        return run

    def log(self, run: RunState, task_id: str) -> str:
        """The logs of a task, of each of its map indices."""
        return "\n".join(self.api.task_log(run.dag_id, run.run_id, t) for t in of(run, task_id))

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        url = self.stack.env()["FER_DATABASE_URL"]
        with psycopg.connect(url, row_factory=dict_row) as connection:
            return connection.execute(sql, parameters).fetchall()

    def summary(self, name: str, day: date) -> dict[str, Any]:
        (row,) = self.rows(
            "select * from fer.satisfaction_daily where facility_id = %s and capture_day = %s",
            name,
            day,
        )
        return row

    def finished(self, name: str, day: date) -> dict[str, list[dict[str, Any]]]:
        """Every row that a facility's day left, down to when each was written."""
        return {
            table: self.rows(
                f"select * from fer.{table}"  # noqa: S608
                " where facility_id = %s and capture_day = %s order by 3, 4, 5, 6",
                name,
                day,
            )
            for table in ("image_result", "face_result", "satisfaction_summary")
        }


def of(run: RunState, task_id: str) -> list[TaskState]:
    return [task for task in run.tasks if task.task_id == task_id]


def states(run: RunState) -> dict[str, str | None]:
    """The tasks' states; of a mapped task, that of its last map index."""
    return {task.task_id: task.state for task in sorted(run.tasks, key=lambda t: t.map_index)}


@pytest.fixture(scope="module")
def airflow(servers_dir: Path) -> Iterator[Airflow]:
    stack = SmallStack(own_folder(servers_dir / "nightly-in-airflow", PASSABLE))
    write_tiny_cnn(stack.folder)
    stack.write_registry(REGISTRY)
    with stack.running(with_airflow=True):
        api = stack.airflow.api()
        for dag_id in (DAG_ID, BERLIN_DAG_ID):
            api.unpause(dag_id, DEADLINE_S)
        yield Airflow(stack, api)
    shutil.rmtree(stack.folder)


@pytest.fixture(scope="module")
def runs(airflow: Airflow) -> dict[date, str]:
    """The runs by hand, under way: their ids by capture day."""
    airflow.upload(NORTH, ZONES_DAY, happy=48, sad=12)
    airflow.upload(TOKYO, ZONES_DAY, happy=9, sad=21)
    airflow.upload(NORTH, BUCKET_DAY, happy=5, sad=5)
    airflow.upload(NORTH, BACKFILL_DAYS[0], happy=2, sad=1)  # nothing came on the second day
    airflow.backfill(BERLIN_DAG_ID, date(2025, 3, 30), date(2025, 4, 1))
    return {
        ZONES_DAY: airflow.trigger(ZONES_DAY, NORTH, TOKYO),
        BUCKET_DAY: airflow.trigger(BUCKET_DAY, NORTH, LOST),
        VERSION_DAY: airflow.trigger(VERSION_DAY, NORTH, model_version="abcdef0"),
    }


def test_a_day_of_two_time_zones_becomes_summaries(airflow: Airflow, runs: dict[date, str]) -> None:
    run = airflow.success(runs[ZONES_DAY])
    assert states(run) == {
        "sync_facilities": "success",
        "list_images": "success",
        "plan_shards": "success",
        "score": "success",
        "summarise": "success",
        "check_data": "success",
        "report": "success",
        "watcher": "skipped",
    }
    assert sorted(task.name for task in of(run, "score")) == [
        "north-mall 1 of 2 · 30 images",
        "north-mall 2 of 2 · 30 images",
        "tokyo-mall · 30 images",
    ]
    results = airflow.rows(
        "select facility_id, emotion, outcome, run_id, count(*) as images from fer.image_result"
        " where capture_day = %s group by 1, 2, 3, 4 order by 1, 2",
        ZONES_DAY,
    )
    written_by = f"{DAG_ID}/{run.run_id}"
    assert [tuple(row.values()) for row in results] == [
        (NORTH, "Happy", "scored", written_by, 48),
        (NORTH, "Sad", "scored", written_by, 12),
        (TOKYO, "Happy", "scored", written_by, 9),
        (TOKYO, "Sad", "scored", written_by, 21),
    ]
    for name, zone, share, verdict in (
        (NORTH, "Europe/Berlin", 0.8, "satisfied"),
        (TOKYO, "Asia/Tokyo", 0.3, "not satisfied"),
    ):
        summary = airflow.summary(name, ZONES_DAY)
        assert summary["is_complete"]
        assert (summary["time_zone"], summary["verdict"]) == (zone, verdict)
        assert summary["happy_share"] == pytest.approx(share)


def test_the_log_of_a_score_says_how_far_and_how_fast(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    log = airflow.log(airflow.end(runs[ZONES_DAY]), "score")
    assert "shard=tokyo-mall · 30 images images=30 of=30 images_per_s=" in log


def test_the_day_has_a_report(airflow: Airflow, runs: dict[date, str]) -> None:
    run = airflow.end(runs[ZONES_DAY])
    (path,) = airflow.stack.report_dir.glob(f"{ZONES_DAY}*.html")
    assert str(path) in airflow.log(run, "report")
    html = path.read_text()
    for name, images, verdict in ((NORTH, 60, "satisfied"), (TOKYO, 30, "not satisfied")):
        (row,) = re.findall(rf"<tr>(?:(?!</tr>).)*{name}.*?</tr>", html, re.DOTALL)
        assert f">{images}</td>" in row
        assert verdict in row


def test_who_waits_for_the_asset_gets_the_summaries(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    run = airflow.end(runs[ZONES_DAY])
    query = f"source_dag_id={DAG_ID}&source_run_id={quote(run.run_id)}&order_by=timestamp"
    event = airflow.api.call("GET", f"assets/events?{query}")["asset_events"][0]
    assert event["name"] == "satisfaction_daily"
    shares = {s["facility_id"]: s["happy_share"] for s in event["extra"]["summaries"]}
    assert shares == {NORTH: pytest.approx(0.8), TOKYO: pytest.approx(0.3)}


def test_clearing_a_finished_run_changes_no_row(airflow: Airflow, runs: dict[date, str]) -> None:
    run = airflow.end(runs[ZONES_DAY])
    before = [airflow.finished(name, ZONES_DAY) for name in (NORTH, TOKYO)]
    airflow.clear(run.run_id, "sync_facilities")
    again = airflow.success(run.run_id)
    assert [t.try_number for t in of(again, "summarise")] == [2]
    assert [airflow.finished(name, ZONES_DAY) for name in (NORTH, TOKYO)] == before


def test_a_facility_without_a_bucket_is_red_and_green_when_it_is_made_good(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    red = airflow.end(runs[BUCKET_DAY])
    assert red.state == "failed"
    assert {task for task, state in states(red).items() if state == "failed"} == {
        "check_data",
        "watcher",
    }
    assert of(red, "check_data")[0].try_number == 1
    assert LOST_BUCKET in airflow.log(red, "check_data")
    assert airflow.summary(NORTH, BUCKET_DAY)["is_complete"]
    assert not airflow.summary(LOST, BUCKET_DAY)["is_complete"]

    before = airflow.finished(NORTH, BUCKET_DAY)
    airflow.upload(LOST, BUCKET_DAY, happy=30, sad=0, bucket=LOST_BUCKET)
    airflow.clear(red.run_id, "list_images")
    green = airflow.success(red.run_id)
    assert [t.name for t in of(green, "score") if t.state == "success"] == ["lost-mall · 30 images"]
    summary = airflow.summary(LOST, BUCKET_DAY)
    assert (summary["is_complete"], summary["revision"], summary["images"]) == (True, 2, 30)
    assert airflow.finished(NORTH, BUCKET_DAY) == before


def test_what_only_a_person_can_repair_is_not_tried_again(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    run = airflow.end(runs[VERSION_DAY])
    assert run.state == "failed"
    (planning,) = of(run, "plan_shards")
    assert (planning.state, planning.try_number) == ("failed", 1)
    log = airflow.log(run, "plan_shards")
    assert "model version abcdef0 is not the one in use" in log
    assert "Set FER_MODEL_CARD" in log
    assert "PermanentFailureError" in log


def test_what_may_pass_waits_for_another_try(airflow: Airflow) -> None:
    run_id = airflow.trigger(FAR_DAY, FAR)
    waiting = []

    def give_up(now: RunState) -> None:
        if states(now).get("list_images") == "up_for_retry":
            waiting.append(now)
            airflow.api.call("PATCH", f"dags/{DAG_ID}/dagRuns/{quote(run_id)}", {"state": "failed"})

    airflow.api.wait_for_run(DAG_ID, run_id, give_up, DEADLINE_S)
    assert waiting
    assert "127.0.0.1:9" in airflow.log(waiting[0], "list_images")


def test_a_backfill_is_about_the_day_before_each_night_and_no_other(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    found = airflow.api.call("GET", f"dags/{BERLIN_DAG_ID}/dagRuns?run_type=backfill&limit=100")
    ids = [run["dag_run_id"] for run in found["dag_runs"]]
    for run_id in ids:
        airflow.success(run_id, BERLIN_DAG_ID)
    batches = airflow.rows(
        "select facility_id, capture_day, images_listed from fer.batch where run_id = any(%s)"
        " order by capture_day",
        [f"{BERLIN_DAG_ID}/{run_id}" for run_id in ids],
    )
    assert [tuple(row.values()) for row in batches] == [
        (NORTH, BACKFILL_DAYS[0], 3),
        (NORTH, BACKFILL_DAYS[1], 0),
    ]
    assert [airflow.summary(NORTH, day)["is_complete"] for day in BACKFILL_DAYS] == [True, True]


def test_no_log_holds_a_secret(airflow: Airflow, runs: dict[date, str]) -> None:
    for run_id in runs.values():
        airflow.end(run_id)
    folder = airflow.stack.airflow.folder
    logs = {path: path.read_text() for path in folder.rglob("*.log")}
    assert sum("running fer-batch" in text for text in logs.values()) > 20
    env = airflow.stack.env()
    for secret in (urlsplit(env["FER_DATABASE_URL"]).password, env["FER_S3_SECRET_ACCESS_KEY"]):
        assert secret
        assert [path for path, text in logs.items() if secret in text] == []
