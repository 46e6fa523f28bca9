"""The demo from start to end: stack up, images in, the DAG run, tables compared with the truth.

The capture day of a source of images is chosen at its first run and kept in the stack's folder, so
that a second run finds everything done and prints the same table.
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

from fer_batch import choice, database, report, satisfaction
from fer_batch.database import statement
from fer_batch.demo import fer2013_day, photographs
from fer_batch.demo.day import DemoFacility, compare, drawn_day, keyed, registry_text
from fer_batch.errors import EXIT_FINDINGS, PermanentError
from fer_batch.log import logger
from fer_batch.records import Emotion
from fer_batch.settings import Settings
from fer_batch.stack import Stack
from fer_batch.stack.airflow_api import AirflowApi, RunState, TaskState
from fer_batch.storage import BucketReader
from fer_batch.uploading import upload_many

log = logger(__name__)

DAG_ID = "satisfaction_nightly"


def run_demo(settings: Settings, *, images: Path | None = None, fer2013: Path | None = None) -> int:
    """Run a demo day and print what came out; the exit code.

    0: the tables hold what was made. 3: they differ, the lines at the end say how. Raises
    StackError if the stack does not start, PermanentError if the DAG run fails.
    """
    began = time.monotonic()
    labels: dict[int, Emotion] = {}
    if fer2013 is not None:
        say("reading FER2013")
        facilities, labels = fer2013_day.fer2013_day(fer2013)
    elif images is not None:
        facilities = photographs.photographs_day(images)
    else:
        say("drawing a day of images of nobody's faces")
        facilities = drawn_day()
    stack = Stack(settings.stack_dir)
    stack.write_registry(registry_text(facilities))
    with stack.running(with_airflow=True, on_progress=say):
        demo = _Demo(stack, facilities, _day_of(stack, fer2013 or images))
        demo.upload()
        run_id = demo.run()
        problems = demo.show(run_id)
        if labels:
            problems += demo.compare_labels(labels)
        if images is not None:
            demo.compare_manifest(photographs.faces_by_name(images))
        demo.show_ways(run_id)
    say(f"done in {time.monotonic() - began:.0f} s")
    for problem in problems:
        log.error(problem)
    return EXIT_FINDINGS if problems else 0


def say(text: str) -> None:
    """Progress, on stderr, so that stdout holds the result."""
    print(f"  {text}", file=sys.stderr, flush=True)  # noqa: T201


def _day_of(stack: Stack, source: Path | None) -> date:
    """The capture day of a source of images: over everywhere on earth, and of no other source."""
    days = stack.folder / "demo-days.json"
    known: dict[str, str] = json.loads(days.read_text()) if days.exists() else {}
    name = str(source.resolve()) if source else "drawn"
    if name not in known:
        day = datetime.now(UTC).date() - timedelta(days=2)
        while day.isoformat() in known.values():
            day -= timedelta(days=1)
        known[name] = day.isoformat()
        days.write_text(json.dumps(known))
    return date.fromisoformat(known[name])


class _Demo:
    """One run over a day's facilities, against a stack that is up."""

    def __init__(self, stack: Stack, facilities: Sequence[DemoFacility], day: date) -> None:
        self._stack = stack
        self._facilities = facilities
        self._ids = [facility.facility_id for facility in facilities]
        self._day = day
        self._settings = stack.settings()
        self._engine = database.engine(self._settings)

    def upload(self) -> None:
        """Put the images into the bucket, but for those that are there already."""
        sent = 0
        with BucketReader(self._settings) as reader:
            for facility in self._facilities:
                prefix = f"{facility.facility_id}/{self._day.isoformat()}/"
                etags = {found.key: found.etag for found in reader.list(prefix)}
                new = (
                    (key, data)
                    for key, data in keyed(facility, self._day)
                    # The ETag of an object that was sent in one piece is its MD5.
                    if etags.get(key) != hashlib.md5(data, usedforsecurity=False).hexdigest()
                )
                sent += upload_many(self._settings, self._settings.s3_bucket, new)
        there = sum(len(facility.images) for facility in self._facilities) - sent
        say(f"uploaded {sent} images of {self._day} ({there} were there already)")

    def run(self) -> str:
        """Trigger the DAG for the day and wait for it; the run's id in the tables.

        Raises PermanentError with the failed task's log if the run fails.
        """
        api = self._stack.airflow.api()
        api.unpause(DAG_ID)
        conf = {
            "capture_day": self._day.isoformat(),
            "facilities": self._ids,
            "lookback_days": 0,
        }
        run_id = api.trigger_dag_run(DAG_ID, conf)
        say(f"running {DAG_ID} for {self._day} in Airflow")
        told: set[tuple[str, int]] = set()
        state = api.wait_for_run(DAG_ID, run_id, lambda now: _tell(now, told))
        if state.state != "success":
            raise PermanentError(
                f"the run {run_id} of {DAG_ID} ended as {state.state}\n{_why(api, state)}",
                f"Its logs are in {self._stack.folder / 'airflow' / 'logs'}",
            )
        return f"{DAG_ID}/{run_id}"

    def show(self, run_id: str) -> list[str]:
        """Print the table of the day; what differs from what was made."""
        with database.translate_errors(), self._engine.connect() as connection:
            daily = satisfaction.daily(connection, self._ids, self._day, self._day)
        summaries = report.as_rows(daily)
        truths = {f.facility_id: f.true_share for f in self._facilities if f.true_share is not None}
        report.print_summaries(summaries, truths or None)
        runs = Counter(row["run_id"] for row in self._results())
        before = runs.total() - runs[run_id]
        sys.stdout.write(f"{runs[run_id]} images scored; {before} had their result already\n")
        by_id = {row["facility_id"]: row for row in summaries}
        return [p for f in self._facilities for p in compare(f, by_id.get(f.facility_id))]

    def compare_labels(self, labels: dict[int, Emotion]) -> list[str]:
        """Print how FER2013's labels and the tables agree; rows that are missing."""
        figures = fer2013_day.figures(labels, self._results())
        _print_pairs("Against the labels of FER2013", figures)
        missing = figures["images"] - figures["with a result"]
        return [f"{missing} images of FER2013 have no result"] if missing else []

    def compare_manifest(self, faces: dict[str, int]) -> None:
        """Print faces found beside faces in the photographs, where a manifest says."""
        lines = list(photographs.compared(faces, self._results()))
        for line in lines:
            sys.stdout.write("{photograph}: {faces} faces, {found} found\n".format(**line))
        if any(line["same"] == "no" for line in lines):
            smallest = self._settings.min_face_px
            sys.stdout.write(f"faces under {smallest} px are not counted (FER_MIN_FACE_PX)\n")

    def show_ways(self, run_id: str) -> None:
        """Say where the report is and how to look further."""
        name = run_id.removeprefix(f"{DAG_ID}/")
        reports = sorted(self._stack.report_dir.glob("*.html"), key=lambda p: p.stat().st_mtime)
        sys.stdout.write(
            f"\nreport      {reports[-1] if reports else 'none'}\n"
            f"Airflow UI  `make up` prints the address and the login; the run is {name}\n"
            "tables      `make up`, then `.venv/bin/fer-batch stack psql`; begin with "
            "fer.satisfaction_daily\n"
            f"data        {self._stack.folder}; `.venv/bin/fer-batch stack delete` removes it\n"
        )

    def _results(self) -> list[dict[str, Any]]:
        question = {
            "facility_ids": self._ids,
            "capture_day": self._day,
            "model_version": choice.version_in_use(self._settings),
        }
        with database.translate_errors(), self._engine.connect() as connection:
            rows = connection.execute(statement("demo_results"), question).mappings()
            return [dict(row) for row in rows]


def _tell(now: RunState, told: set[tuple[str, int]]) -> None:
    """Say each task that has ended, once."""
    for task in now.tasks:
        if task.is_finished and (task.task_id, task.map_index) not in told:
            told.add((task.task_id, task.map_index))
            if task.state != "skipped":
                name = task.task_id if task.map_index < 0 else f"{task.task_id}: {task.name}"
                say(f"  {name}: {task.state}, {task.duration_s or 0:.1f} s")


def _why(api: AirflowApi, state: RunState) -> str:
    """The end of the log of the task that failed first; the ones after it only follow."""
    order = ["sync_facilities", "list_images", "plan_shards", "score", "summarise", "check_data"]
    failed: list[TaskState] = [
        task
        for name in order
        for task in state.tasks
        if (task.task_id, task.state) == (name, "failed")
    ]
    if not failed:
        return "no task says why"
    return "\n".join(api.task_log(state.dag_id, state.run_id, failed[0]).splitlines()[-12:])


def _print_pairs(title: str, pairs: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{title}\n")
    for name, value in pairs.items():
        sys.stdout.write(f"  {name:<24}{value}\n")
