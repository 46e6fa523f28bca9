"""The whole demo: start the stack, upload images, run the DAG, compare the tables with the input.

The capture day of a source of images is chosen on its first run and stored in the stack's
directory, so that a second run has nothing left to do and prints the same table.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.errors import EXIT_FINDINGS, PermanentError
from fer_batch.local.demo import fer2013_day, photographs
from fer_batch.local.demo.day import (
    DemoFacility,
    compare_summary,
    draw_day,
    format_registry,
    list_objects,
)
from fer_batch.local.stack import Stack
from fer_batch.local.stack.airflow_api import AirflowApi, RunState, TaskState
from fer_batch.log import get_logger
from fer_batch.model import active_model
from fer_batch.records import Emotion
from fer_batch.reporting import report
from fer_batch.satisfaction import revisions
from fer_batch.settings import Settings
from fer_batch.storage.reader import BucketReader
from fer_batch.storage.writer import upload_many

log = get_logger(__name__)

DAG_ID = "satisfaction_nightly"

_LIST_RESULTS = sa.text("""
    SELECT image_key, outcome, emotion, is_uncertain, face_count, run_id
    FROM fer.image_result
    WHERE facility_id = ANY (:facility_ids)
        AND capture_day = :capture_day
        AND model_version = :model_version""")


def run_demo(settings: Settings, *, images: Path | None = None, fer2013: Path | None = None) -> int:
    """Run a demo day and print the result; return the exit code.

    0: the tables match the input. 3: they differ; the last log lines name each difference. Raises
    StackError if the stack does not start, PermanentError if the DAG run fails.
    """
    began = time.monotonic()
    labels: dict[int, Emotion] = {}
    if fer2013 is not None:
        print_progress("reading FER2013")
        facilities, labels = fer2013_day.load_fer2013_day(fer2013)
    elif images is not None:
        facilities = photographs.load_photographs_day(images)
    else:
        print_progress("drawing a day of synthetic faces")
        facilities = draw_day()
    stack = Stack(settings.stack_dir)
    stack.write_registry(format_registry(facilities))
    with stack.running(with_airflow=True, on_progress=print_progress):
        demo = _Demo(stack, facilities, _choose_day(stack, fer2013 or images))
        demo.upload()
        run_id = demo.run()
        problems = demo.print_summaries(run_id)
        if labels:
            problems += demo.compare_labels(labels)
        if images is not None:
            demo.compare_manifest(photographs.read_manifest(images))
        demo.print_next_steps(run_id)
    print_progress(f"done in {time.monotonic() - began:.0f} s")
    for problem in problems:
        log.error(problem)
    return EXIT_FINDINGS if problems else 0


def print_progress(text: str) -> None:
    """Print a line of progress to stderr; stdout is for the result."""
    print(f"  {text}", file=sys.stderr, flush=True)  # noqa: T201


def _choose_day(stack: Stack, source: Path | None) -> date:
    """Return the capture day of a source, which has ended in every time zone; no two share one."""
    days = stack.folder / "demo-days.json"
    chosen: dict[str, str] = json.loads(days.read_text()) if days.exists() else {}
    name = str(source.resolve()) if source else "drawn"
    if name not in chosen:
        day = datetime.now(UTC).date() - timedelta(days=2)
        while day.isoformat() in chosen.values():
            day -= timedelta(days=1)
        chosen[name] = day.isoformat()
        days.write_text(json.dumps(chosen))
    return date.fromisoformat(chosen[name])


class _Demo:
    """One run over the facilities of a day, on a stack that is running."""

    def __init__(self, stack: Stack, facilities: Sequence[DemoFacility], day: date) -> None:
        self._stack = stack
        self._facilities = facilities
        self._ids = [facility.facility_id for facility in facilities]
        self._day = day
        self._settings = stack.build_settings()
        self._engine = connections.create_engine(self._settings)

    def upload(self) -> None:
        """Upload the images that are not yet in the bucket."""
        uploaded = 0
        with BucketReader(self._settings) as reader:
            for facility in self._facilities:
                prefix = f"{facility.facility_id}/{self._day.isoformat()}/"
                etags = {listed.key: listed.etag for listed in reader.list(prefix)}
                new = (
                    (key, data)
                    for key, data in list_objects(facility, self._day)
                    # The ETag of an object that was uploaded in one part is its MD5.
                    if etags.get(key) != hashlib.md5(data, usedforsecurity=False).hexdigest()
                )
                uploaded += upload_many(self._settings, self._settings.s3_bucket, new)
        existing = sum(len(facility.images) for facility in self._facilities) - uploaded
        print_progress(f"uploaded {uploaded} images of {self._day} ({existing} were there already)")

    def run(self) -> str:
        """Trigger the DAG for the day and wait for it; return the run id as in the tables.

        Raises PermanentError, with the log of the failed task, if the run fails.
        """
        api = self._stack.airflow.create_client()
        api.unpause(DAG_ID)
        conf = {
            "capture_day": self._day.isoformat(),
            "facilities": self._ids,
            "lookback_days": 0,
        }
        run_id = api.trigger_dag_run(DAG_ID, conf)
        print_progress(f"running {DAG_ID} for {self._day} in Airflow")
        printed: set[tuple[str, int]] = set()
        state = api.wait_for_run(DAG_ID, run_id, lambda now: _print_finished_tasks(now, printed))
        if state.state != "success":
            raise PermanentError(
                f"run {run_id} of {DAG_ID} is {state.state}\n{_read_failure(api, state)}",
                f"Its logs are in {self._stack.folder / 'airflow' / 'logs'}",
            )
        return f"{DAG_ID}/{run_id}"

    def print_summaries(self, run_id: str) -> list[str]:
        """Print the table of the day; return each difference from the input."""
        with connections.translate_errors(), self._engine.connect() as connection:
            daily = revisions.load_daily(connection, self._ids, self._day, self._day)
        summaries = report.to_rows(daily)
        truths = {f.facility_id: f.true_share for f in self._facilities if f.true_share is not None}
        report.print_summaries(summaries, truths or None)
        runs = Counter(row["run_id"] for row in self._load_results())
        earlier = runs.total() - runs[run_id]
        sys.stdout.write(f"{runs[run_id]} images scored; {earlier} had their result already\n")
        by_id = {row["facility_id"]: row for row in summaries}
        return [p for f in self._facilities for p in compare_summary(f, by_id.get(f.facility_id))]

    def compare_labels(self, labels: dict[int, Emotion]) -> list[str]:
        """Print the agreement with the labels of FER2013; return an error if rows are missing."""
        figures = fer2013_day.measure_agreement(labels, self._load_results())
        _print_pairs("Agreement with the labels of FER2013", figures)
        missing = figures["images"] - figures["with a result"]
        return [f"{missing} images of FER2013 have no result"] if missing else []

    def compare_manifest(self, faces: dict[str, int]) -> None:
        """Print the detected faces and those that the manifest names."""
        rows = list(photographs.compare_faces(faces, self._load_results()))
        for row in rows:
            sys.stdout.write("{photograph}: {faces} faces, {detected} detected\n".format(**row))
        if not all(row["is_same"] for row in rows):
            smallest = self._settings.min_face_px
            sys.stdout.write(f"faces under {smallest} px are not counted (FER_MIN_FACE_PX)\n")

    def print_next_steps(self, run_id: str) -> None:
        """Print where the report is, and commands to continue with."""
        airflow_run_id = run_id.removeprefix(f"{DAG_ID}/")
        command = sys.argv[0]
        reports = sorted(self._stack.report_dir.glob("*.html"), key=lambda p: p.stat().st_mtime)
        sys.stdout.write(
            f"\nreport      {reports[-1] if reports else 'none'}\n"
            f"Airflow UI  `{command} stack up` prints address and login; the run is "
            f"{airflow_run_id}\n"
            f"tables      `{command} stack up`, then `{command} stack psql`; begin with "
            "fer.satisfaction_daily\n"
            f"data        {self._stack.folder}; `{command} stack delete` removes it\n"
        )

    def _load_results(self) -> list[dict[str, Any]]:
        params = {
            "facility_ids": self._ids,
            "capture_day": self._day,
            "model_version": active_model.load_active_version(self._settings),
        }
        with connections.translate_errors(), self._engine.connect() as connection:
            rows = connection.execute(_LIST_RESULTS, params).mappings()
            return [dict(row) for row in rows]


def _print_finished_tasks(now: RunState, printed: set[tuple[str, int]]) -> None:
    """Print each task that has ended, once."""
    for task in now.tasks:
        if task.is_finished and (task.task_id, task.map_index) not in printed:
            printed.add((task.task_id, task.map_index))
            if task.state != "skipped":
                name = task.task_id if task.map_index < 0 else f"{task.task_id}: {task.name}"
                print_progress(f"  {name}: {task.state}, {task.duration_s or 0:.1f} s")


def _read_failure(api: AirflowApi, state: RunState) -> str:
    """Return the end of the log of the first task that failed; later failures follow from it."""
    order = ["sync_facilities", "list_images", "plan_shards", "score", "summarize", "check_data"]
    failed: list[TaskState] = [
        task
        for name in order
        for task in state.tasks
        if (task.task_id, task.state) == (name, "failed")
    ]
    if not failed:
        return "no task failed"
    return "\n".join(api.get_task_log(state.dag_id, state.run_id, failed[0]).splitlines()[-12:])


def _print_pairs(title: str, pairs: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{title}\n")
    for name, value in pairs.items():
        sys.stdout.write(f"  {name:<24}{value}\n")
