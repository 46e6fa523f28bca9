"""The DAGs in a real Airflow: states of tasks, logs, and tables.

All tests share one local stack. The runs are started together, because a run waits more than it
computes; each has a different capture day.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import date
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from tests.end_to_end.airflow_stack import (
    BERLIN_DAG_ID,
    DAG_ID,
    DEADLINE_S,
    EXAMPLE_DAG_ID,
    FAR,
    LOST,
    LOST_BUCKET,
    NORTH,
    NOWHERE,
    TOKYO,
    TOKYO_DAG_ID,
    TYPO,
    Airflow,
    find_tasks,
    get_states,
)

pytestmark = pytest.mark.timeout(1200)

ZONES_DAY, BUCKET_DAY, VERSION_DAY, FAR_DAY, TEST_DAY = (
    date(2025, 3, day) for day in (3, 4, 5, 6, 7)
)
# Daylight saving time starts in Berlin in the night after it.
BACKFILL_DAY = date(2025, 3, 29)


@pytest.fixture(scope="module")
def runs(airflow: Airflow) -> dict[date, str]:
    """The ids of the manual runs, which have been started, by capture day."""
    airflow.api.unpause(EXAMPLE_DAG_ID, DEADLINE_S)
    airflow.upload(NORTH, ZONES_DAY, happy=48, sad=12)
    airflow.upload(TOKYO, ZONES_DAY, happy=6, sad=24)
    airflow.upload(NORTH, BUCKET_DAY, happy=5, sad=5)
    airflow.upload(NORTH, BACKFILL_DAY, happy=2, sad=1)
    airflow.backfill(BERLIN_DAG_ID, date(2025, 3, 30), date(2025, 3, 31))
    return {
        ZONES_DAY: airflow.trigger(ZONES_DAY, NORTH, TOKYO),
        BUCKET_DAY: airflow.trigger(BUCKET_DAY, NORTH, LOST),
    }


def test_a_day_of_two_time_zones_becomes_summaries(airflow: Airflow, runs: dict[date, str]) -> None:
    run = airflow.wait_for_success(runs[ZONES_DAY])
    assert get_states(run) == {
        "sync_facilities": "success",
        "list_images": "success",
        "plan_shards": "success",
        "score": "success",
        "summarize": "success",
        "check_data": "success",
        "report": "success",
        "export": "skipped",  # no place is set
        "notify": "success",
        "watcher": "skipped",
    }
    assert sorted(task.name for task in find_tasks(run, "score")) == [
        f"{ZONES_DAY} · north-mall 1 of 2 · 30 images",
        f"{ZONES_DAY} · north-mall 2 of 2 · 30 images",
        f"{ZONES_DAY} · tokyo-mall · 30 images",
    ]
    results = airflow.query(
        "select facility_id, emotion, outcome, run_id, count(*) as images from fer.image_result"
        " where capture_day = %s group by 1, 2, 3, 4 order by 1, 2",
        ZONES_DAY,
    )
    written_by = f"{DAG_ID}/{run.run_id}"
    assert [tuple(row.values()) for row in results] == [
        (NORTH, "Happy", "scored", written_by, 48),
        (NORTH, "Sad", "scored", written_by, 12),
        (TOKYO, "Happy", "scored", written_by, 6),
        (TOKYO, "Sad", "scored", written_by, 24),
    ]
    for name, zone, rate, verdict in (
        (NORTH, "Europe/Berlin", 0.8, "satisfied"),
        (TOKYO, "Asia/Tokyo", 0.2, "not satisfied"),
    ):
        summary = airflow.read_summary(name, ZONES_DAY)
        assert summary["is_complete"]
        assert (summary["time_zone"], summary["verdict"]) == (zone, verdict)
        assert summary["called_happy_rate"] == pytest.approx(rate)


def test_the_report_is_one_click_away_in_the_ui(airflow: Airflow, runs: dict[date, str]) -> None:
    run = airflow.wait_for_success(runs[ZONES_DAY])
    path = f"dags/{DAG_ID}/dagRuns/{quote(run.run_id)}/taskInstances/report/links"
    link = airflow.api.call("GET", path)["extra_links"]["Report"]
    assert link == f"/satisfaction/{ZONES_DAY}.html"
    request = urllib.request.Request(airflow.stack.airflow.url + link)  # noqa: S310
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request)  # noqa: S310
    request.add_header("Authorization", f"Bearer {airflow.api._token}")
    with urllib.request.urlopen(request) as response:  # noqa: S310
        assert response.read() == (airflow.stack.report_dir / f"{ZONES_DAY}.html").read_bytes()


def test_every_task_shows_the_capture_day(airflow: Airflow, runs: dict[date, str]) -> None:
    run = airflow.wait(runs[ZONES_DAY])
    names = {task.task_id: task.name for task in run.tasks if task.state != "skipped"}
    assert all(name.startswith(str(ZONES_DAY)) for name in names.values()), names
    log = airflow.read_log(run, "list_images")
    assert f"running fer-batch list-images --capture-day={ZONES_DAY}" in log
    assert f"{NORTH} {ZONES_DAY}: listed images=60" in log


def test_a_test_run_of_a_dag_ends_without_a_traceback(airflow: Airflow) -> None:
    airflow.upload(TOKYO, TEST_DAY, happy=3, sad=2)
    # Its DAG is paused: the scheduler leaves the tasks to the test run.
    command = [sys.executable, "-m", "airflow", "dags", "test", TOKYO_DAG_ID]
    conf = {"capture_day": str(TEST_DAY), "facilities": [TOKYO], "lookback_days": 0}
    ended = subprocess.run(
        [*command, "--conf", json.dumps(conf)],
        env=airflow.stack.airflow._build_environment(airflow.stack._build_task_settings()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "deadline_alert" not in ended.stdout + ended.stderr
    assert airflow.read_summary(TOKYO, TEST_DAY)["images"] == 5


def test_a_facility_without_a_time_zone_is_an_import_error(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    ((file, error),) = airflow.api.list_import_errors()
    assert file == "invalid_facilities.py"
    assert f"facility {NOWHERE}: time_zone must be an IANA time zone" in error
    run = airflow.wait_for_success(runs[ZONES_DAY])
    assert f"{TYPO}: invalid in the registry: unknown field wifi" in airflow.read_log(
        run, "sync_facilities"
    )


def test_an_unknown_parameter_fails_the_run_before_anything_is_listed(airflow: Airflow) -> None:
    run_id = airflow.api.trigger_dag_run(DAG_ID, {"captureday": str(ZONES_DAY)})
    run = airflow.stop_at(run_id, "list_images", "upstream_failed")
    assert get_states(run)["sync_facilities"] == "failed"
    assert "did you mean capture_day?" in airflow.read_log(run, "sync_facilities")


def test_the_log_of_scoring_has_progress_and_rate(airflow: Airflow, runs: dict[date, str]) -> None:
    log = airflow.read_log(airflow.wait(runs[ZONES_DAY]), "score")
    assert "shard=tokyo-mall · 30 images images=30 of=30 images_per_s=" in log


def test_the_day_has_a_report(airflow: Airflow, runs: dict[date, str]) -> None:
    run = airflow.wait(runs[ZONES_DAY])
    (path,) = airflow.stack.report_dir.glob(f"{ZONES_DAY}*.html")
    assert str(path) in airflow.read_log(run, "report")
    html = path.read_text()
    table = html[html.index('<table class="all">') : html.index("</table>")]
    for name, status in ((NORTH, "above target"), (TOKYO, "below target")):
        (row,) = re.findall(rf"<tr>(?:(?!</tr>).)*{name}.*?</tr>", table, re.DOTALL)
        assert status in row
    assert path.name in (path.parent / "index.html").read_text()


def test_the_asset_event_names_the_facility_days_without_figures(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    run = airflow.wait(runs[ZONES_DAY])
    query = f"source_dag_id={DAG_ID}&source_run_id={quote(run.run_id)}&order_by=timestamp"
    event = airflow.api.call("GET", f"assets/events?{query}")["asset_events"][0]
    assert event["name"] == "satisfaction_daily"
    day = {"capture_day": str(ZONES_DAY), "revision": 1, "is_complete": True}
    assert event["extra"] == {
        "partitions": [{"facility_id": name} | day for name in (NORTH, TOKYO)],
        "is_truncated": False,
    }


def test_the_example_of_the_docs_runs_after_the_summaries(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    days = airflow.wait_for_example(f"{NORTH} {ZONES_DAY}")
    assert f"{TOKYO} {ZONES_DAY}" in days
    # Further runs of it would only take time.
    airflow.api.call("PATCH", f"dags/{EXAMPLE_DAG_ID}", {"is_paused": True})


def test_rescoring_changes_only_the_selected_facility_and_clearing_its_run_nothing(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    airflow.wait(runs[ZONES_DAY])
    before = airflow.read_results(NORTH, ZONES_DAY)
    run = airflow.wait_for_success(airflow.trigger(ZONES_DAY, TOKYO, rescore=True))
    written_by = f"{DAG_ID}/{run.run_id}"
    rescored = airflow.read_results(TOKYO, ZONES_DAY)
    assert {row["run_id"] for row in rescored["image_result"]} == {written_by}
    assert [row["revision"] for row in rescored["satisfaction_summary"]] == [1]
    assert airflow.read_results(NORTH, ZONES_DAY) == before
    airflow.clear(run.run_id, "sync_facilities")
    again = airflow.wait_for_success(run.run_id)
    assert [t.try_number for t in find_tasks(again, "summarize")] == [2]
    assert airflow.read_results(TOKYO, ZONES_DAY) == rescored
    assert airflow.read_results(NORTH, ZONES_DAY) == before


def test_a_run_with_a_missing_bucket_fails_and_succeeds_once_the_bucket_exists(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    failed_run = airflow.wait(runs[BUCKET_DAY])
    assert failed_run.state == "failed"
    assert get_states(failed_run) == {
        "sync_facilities": "success",
        "list_images": "success",
        "plan_shards": "success",
        "score": "success",
        "summarize": "success",
        "check_data": "failed",
        "report": "success",
        "export": "skipped",  # no place is set
        "notify": "success",
        "watcher": "failed",
    }
    assert find_tasks(failed_run, "check_data")[0].try_number == 1
    assert LOST_BUCKET in airflow.read_log(failed_run, "check_data")
    assert airflow.read_summary(NORTH, BUCKET_DAY)["is_complete"]
    assert not airflow.read_summary(LOST, BUCKET_DAY)["is_complete"]

    before = airflow.read_results(NORTH, BUCKET_DAY)
    airflow.upload(LOST, BUCKET_DAY, happy=30, sad=0, bucket=LOST_BUCKET)
    airflow.clear(failed_run.run_id, "list_images")
    repaired_run = airflow.wait_for_success(failed_run.run_id)
    assert [t.name for t in find_tasks(repaired_run, "score") if t.state == "success"] == [
        f"{BUCKET_DAY} · lost-mall · 30 images"
    ]
    summary = airflow.read_summary(LOST, BUCKET_DAY)
    assert (summary["is_complete"], summary["revision"], summary["images"]) == (True, 2, 30)
    assert airflow.read_results(NORTH, BUCKET_DAY) == before


def test_a_permanent_error_is_not_retried(airflow: Airflow) -> None:
    run_id = airflow.trigger(VERSION_DAY, NORTH, model_version="abcdef0")
    run = airflow.stop_at(run_id, "plan_shards", "failed")
    assert [task.try_number for task in find_tasks(run, "plan_shards")] == [1]
    log = airflow.read_log(run, "plan_shards")
    assert "model version abcdef0 is not the one in use" in log
    assert "Set FER_MODEL_CARD" in log
    assert "PermanentFailureError" in log


def test_a_transient_error_is_retried_after_a_delay(airflow: Airflow) -> None:
    run_id = airflow.trigger(FAR_DAY, FAR)
    run = airflow.stop_at(run_id, "list_images", "up_for_retry")
    wait_s, reason = read_retry(airflow, run_id)
    assert 15 <= wait_s <= 25
    assert reason == "transient error"
    assert "127.0.0.1:9" in airflow.read_log(run, "list_images")


def read_retry(airflow: Airflow, run_id: str) -> tuple[float, str]:
    """Delay in seconds and reason of the retry of a run's listing."""
    with psycopg.connect(airflow.metadata_url) as connection:
        (row,) = connection.execute(
            "select retry_delay_override, retry_reason from task_instance"
            " where run_id = %s and task_id = 'list_images'",
            [run_id],
        ).fetchall()
        return row


def test_a_backfill_processes_only_the_day_before_the_night(
    airflow: Airflow, runs: dict[date, str]
) -> None:
    response = airflow.api.call("GET", f"dags/{BERLIN_DAG_ID}/dagRuns?run_type=backfill&limit=100")
    (run_id,) = (run["dag_run_id"] for run in response["dag_runs"])
    airflow.wait_for_success(run_id, BERLIN_DAG_ID)
    batches = airflow.query(
        "select facility_id, capture_day, images_listed from fer.batch where run_id = %s",
        f"{BERLIN_DAG_ID}/{run_id}",
    )
    assert [tuple(row.values()) for row in batches] == [(NORTH, BACKFILL_DAY, 3)]
    assert airflow.read_summary(NORTH, BACKFILL_DAY)["is_complete"]


def test_no_log_contains_a_secret(airflow: Airflow, runs: dict[date, str]) -> None:
    for run_id in runs.values():
        airflow.wait(run_id)
    folder = airflow.stack.airflow.folder
    logs = {path: path.read_text() for path in folder.rglob("*.log")}
    assert sum("running fer-batch" in text for text in logs.values()) > 20
    env = airflow.stack.build_env()
    for secret in (urlsplit(env["FER_DATABASE_URL"]).password, env["FER_S3_SECRET_ACCESS_KEY"]):
        assert secret
        assert [path for path, text in logs.items() if secret in text] == []
