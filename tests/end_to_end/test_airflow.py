"""The DAGs in a real Airflow: what a data engineer sees in the grid, the logs and the tables.

One local stack for all tests. The runs are started together, since a run waits more than it
works; each has a capture day of its own.
"""

from __future__ import annotations

import re
from datetime import date
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from fer_batch.stack.airflow_api import RunState
from tests.end_to_end.airflow_stack import (
    BERLIN_DAG_ID,
    DAG_ID,
    DEADLINE_S,
    FAR,
    LOST,
    LOST_BUCKET,
    NORTH,
    TOKYO,
    Airflow,
    of,
    states,
)

pytestmark = pytest.mark.timeout(1200)

ZONES_DAY, BUCKET_DAY, VERSION_DAY, FAR_DAY = (date(2025, 3, day) for day in (3, 4, 5, 6))
# The night between the two, Berlin's clocks go forward.
BACKFILL_DAYS = (date(2025, 3, 29), date(2025, 3, 30))


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


def test_a_day_is_scored_once_more_where_it_is_asked_for(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    airflow.end(runs[ZONES_DAY])
    before = airflow.finished(NORTH, ZONES_DAY)
    run = airflow.success(airflow.trigger(ZONES_DAY, TOKYO, rescore=True))
    written_by = f"{DAG_ID}/{run.run_id}"
    again = airflow.finished(TOKYO, ZONES_DAY)
    assert {row["run_id"] for row in again["image_result"]} == {written_by}
    assert [row["revision"] for row in again["satisfaction_summary"]] == [1]
    assert airflow.finished(NORTH, ZONES_DAY) == before
    airflow.clear(run.run_id, "list_images")
    airflow.success(run.run_id)
    assert airflow.finished(TOKYO, ZONES_DAY) == again


def test_a_facility_without_a_bucket_is_red_and_green_when_it_is_made_good(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    red = airflow.end(runs[BUCKET_DAY])
    assert red.state == "failed"
    assert states(red) == {
        "sync_facilities": "success",
        "list_images": "success",
        "plan_shards": "success",
        "score": "success",
        "summarise": "success",
        "check_data": "failed",
        "report": "success",
        "watcher": "failed",
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
    waiting: list[tuple[RunState, float, str]] = []

    def give_up(now: RunState) -> None:
        if states(now).get("list_images") == "up_for_retry":
            waiting.append((now, *retry(airflow, run_id)))
            airflow.api.call("PATCH", f"dags/{DAG_ID}/dagRuns/{quote(run_id)}", {"state": "failed"})

    airflow.api.wait_for_run(DAG_ID, run_id, give_up, DEADLINE_S)
    run, wait_s, reason = waiting[0]
    assert 15 <= wait_s <= 25
    assert reason == "it may pass when tried again"
    assert "127.0.0.1:9" in airflow.log(run, "list_images")


def retry(airflow: Airflow, run_id: str) -> tuple[float, str]:
    """After how many seconds, and why, the listing of a run is tried again."""
    with psycopg.connect(airflow.metadata_url) as connection:
        (found,) = connection.execute(
            "select retry_delay_override, retry_reason from task_instance"
            " where run_id = %s and task_id = 'list_images'",
            [run_id],
        ).fetchall()
        return found


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
