"""The whole demo: start its stack, upload images, run the DAG, compare the tables with the input.

The demo has a stack of its own, so that it changes nothing in the user's stack, even one that runs.
Several days are one run of the DAG that looks back, as after a week in which no run was possible.
Which images there are, and of which days, is left to sources.py.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_batch.console import print_progress, print_text
from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.errors import EXIT_FINDINGS, PermanentError
from fer_batch.local.demo import audit, coverage, fer2013_day, photographs
from fer_batch.local.demo.day import compare_rates, compare_summary, format_registry, list_objects
from fer_batch.local.demo.sources import DRAWN, Source, assign_days, choose_day, open_source
from fer_batch.local.stack import Stack, get_demo_stack_dir
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
PRINTED_FACILITIES = 10
DEADLINE_S = 3600.0
"""Enough for the 60,000 images of the shops with faces of FER2013 on two cores."""
_STATEMENTS = load_statements(__file__)


def run_demo(
    settings: Settings,
    *,
    images: Path | None = None,
    fer2013: Path | None = None,
    shop: bool = False,
    days: int = 1,
) -> int:
    """Run a demo and print the result; return the exit code.

    0: the tables match the input. 3: they differ; the last log lines name each difference. Raises
    StackError if the stack does not start, PermanentError if the DAG run fails.
    """
    began = time.monotonic()
    stack = Stack(get_demo_stack_dir(settings.stack_dir))
    with open_source(images, fer2013, is_shop=shop, days=days) as source:
        stack.write_registry(format_registry(source.facilities))
        # A demo has no deadline; the triggerer would take a fifth of its CPU time.
        with stack.running(with_airflow=True, with_triggerer=False, on_progress=print_progress):
            problems = _run(stack, source, images, is_judged_together=shop or days > 1)
    print_progress(f"done in {time.monotonic() - began:.0f} s")
    for problem in problems:
        log.error(problem)
    return EXIT_FINDINGS if problems else 0


def _run(
    stack: Stack, source: Source, images: Path | None, *, is_judged_together: bool
) -> list[str]:
    """Run the demo on a running stack; return each difference from the input.

    So many intervals that some must miss are judged together.
    """
    demo = _Demo(stack, assign_days(source.load(), choose_day(stack, source.name)))
    demo.upload()
    run_id = demo.run()
    if source.name == DRAWN:
        demo.audit()
    problems = demo.compare_summaries(run_id, is_judged_together=is_judged_together)
    if source.name == DRAWN:
        demo.print_audit()
    demo.print_findings()
    if is_judged_together:
        problems += demo.compare_coverage()
    if source.labels:
        problems += demo.compare_labels(source.labels)
    if images is not None:
        demo.compare_manifest(photographs.read_manifest(images))
    demo.print_next_steps(run_id)
    return problems


class _Demo:
    """One run over the facilities of some days, the last one first, on a stack that is running."""

    def __init__(self, stack: Stack, days: coverage.FacilityDays) -> None:
        self._stack = stack
        self._days = days
        self._last_day, self._first_day = max(days), min(days)
        self._ids = [facility.facility_id for facility in days[self._last_day]]
        self._settings = stack.build_settings()
        self._engine = connections.create_engine(self._settings)
        self._findings: list[dict[str, Any]] = []

    def upload(self) -> None:
        """Upload the images that are not yet in the bucket."""
        with BucketReader(self._settings) as reader:
            uploaded = upload_many(
                self._settings, self._settings.s3_bucket, self._list_new_objects(reader)
            )
        images = sum(len(f.images) for of_day in self._days.values() for f in of_day)
        print_progress(
            f"uploaded {uploaded} images of {self._name_days()} "
            f"({images - uploaded} were there already)"
        )

    def _list_new_objects(self, reader: BucketReader) -> Iterator[tuple[str, bytes]]:
        for day, of_day in self._days.items():
            for facility in of_day:
                prefix = f"{facility.facility_id}/{day.isoformat()}/"
                etags = {listed.key: listed.etag for listed in reader.list(prefix)}
                for key, data in list_objects(facility, day):
                    # The ETag of an object that was uploaded in one part is its MD5.
                    if etags.get(key) != hashlib.md5(data, usedforsecurity=False).hexdigest():
                        yield key, data

    def _name_days(self) -> str:
        if self._first_day == self._last_day:
            return f"{self._last_day}"
        return f"{self._first_day} to {self._last_day}"

    def run(self) -> str:
        """Trigger the DAG for the days and wait for it; return the run id as in the tables.

        Raises PermanentError, with the log of the failed task, if the run fails.
        """
        api = self._stack.airflow.create_client()
        api.unpause(DAG_ID)
        conf = {
            "capture_day": self._last_day.isoformat(),
            "facilities": self._ids,
            "lookback_days": (self._last_day - self._first_day).days,
        }
        run_id = api.trigger_dag_run(DAG_ID, conf)
        print_progress(f"running {DAG_ID} for {self._name_days()} in Airflow")
        printed: set[tuple[str, int]] = set()
        state = api.wait_for_run(
            DAG_ID, run_id, lambda now: _print_finished_tasks(now, printed), DEADLINE_S
        )
        if state.state != "success":
            raise PermanentError(
                f"run {run_id} of {DAG_ID} is {state.state}\n{_read_failure(api, state)}",
                f"Its logs are in {self._stack.folder / 'airflow' / 'logs'}",
            )
        self._findings = api.get_result(DAG_ID, run_id, "check_data") or []
        return f"{DAG_ID}/{run_id}"

    def audit(self) -> None:
        """Audit one facility, if it has no audit yet, and write the report again."""
        true_classes = {
            f"{facility.facility_id}/{day}/{image.name}": image.face
            for day, of_day in self._days.items()
            for facility in of_day
            if facility.facility_id == audit.AUDITED
            for image in facility.images
            if image.face is not None
        }
        if audit.audit_facility(self._stack, true_classes, self._first_day, self._last_day):
            report.write_report(self._engine, self._settings, self._last_day)

    def print_audit(self) -> None:
        """Print what the audit changed."""
        names = {facility.facility_id: facility.name for facility in self._days[self._last_day]}
        audit.print_audit(self._engine, names[audit.AUDITED], self._first_day, self._last_day)

    def compare_summaries(self, run_id: str, *, is_judged_together: bool) -> list[str]:
        """Print the table of the last day; return each difference from the input.

        With `is_judged_together` the rates are left to `compare_coverage`; of many facilities
        only the first ones are printed.
        """
        summaries = self._load_daily()
        today = [row for row in summaries if row["capture_day"] == self._last_day]
        truths = {
            facility.facility_id: facility.true_rates.happy
            for facility in self._days[self._last_day]
            if facility.true_rates is not None
        }
        report.print_summaries(today[:PRINTED_FACILITIES], truths or None)
        if len(today) > PRINTED_FACILITIES:
            sys.stdout.write(f"and {len(today) - PRINTED_FACILITIES} more facilities\n")
        runs = Counter(row["run_id"] for row in self._load_results())
        earlier = runs.total() - runs[run_id]
        sys.stdout.write(f"{runs[run_id]} images scored; {earlier} had their result already\n")
        by_batch = {(row["facility_id"], row["capture_day"]): row for row in summaries}
        problems = []
        for day, of_day in self._days.items():
            for facility in of_day:
                summary = by_batch.get((facility.facility_id, day))
                found = compare_summary(facility, summary)
                if not is_judged_together:
                    found += compare_rates(facility, summary)
                problems += [f"{day}: {problem}" for problem in found]
        return problems

    def print_findings(self) -> None:
        """Print what the data checks of the run found on the last day."""
        names = {facility.facility_id: facility.name for facility in self._days[self._last_day]}
        for finding in self._findings:
            if finding["capture_day"] == self._last_day.isoformat():
                name = names.get(finding["facility_id"], finding["facility_id"])
                print_text(
                    "{severity} of {name}: {meaning}: {finding}".format(**{**finding, "name": name})
                )

    def compare_coverage(self) -> list[str]:
        """Print how many intervals contain the truth; return an error if too few do."""
        daily = self._load_daily()
        of_days = coverage.measure_coverage(coverage.match_days(self._days, daily))
        coverage.print_coverage("Intervals of days", of_days)
        params = {
            "facility_ids": self._ids,
            "first_day": self._first_day,
            "last_day": self._last_day,
        }
        with connections.translate_errors(), self._engine.connect() as connection:
            periods = [
                dict(row)
                for row in connection.execute(_STATEMENTS["list_periods"], params).mappings()
            ]
        cases = coverage.match_periods(self._days, daily, periods)
        if cases:
            coverage.print_periods(cases)
        if weeks := [case for case in cases if case.summary["period"] == "week"]:
            coverage.print_coverage("Intervals of weeks", coverage.measure_coverage(weeks))
        return list(coverage.find_problems(of_days))

    def compare_labels(self, labels: Mapping[int, Emotion]) -> list[str]:
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
        report_file = self._stack.report_dir / f"{self._last_day}.html"
        sys.stdout.write(
            f"\nreport      {report_file if report_file.exists() else 'none'}\n"
            f"Airflow UI  `{command} stack up --demo` prints address and login; the run is "
            f"{airflow_run_id}\n"
            f"tables      `{command} stack up --demo`, then `{command} stack psql --demo`; begin "
            "with fer.satisfaction_daily\n"
            f"data        {self._stack.folder}; `{command} stack delete --demo` removes it\n"
        )

    def _load_daily(self) -> list[dict[str, Any]]:
        with connections.translate_errors(), self._engine.connect() as connection:
            daily = revisions.load_daily(connection, self._ids, self._first_day, self._last_day)
        return report.to_rows(daily)

    def _load_results(self) -> list[dict[str, Any]]:
        params = {
            "facility_ids": self._ids,
            "capture_days": list(self._days),
            "model_version": active_model.load_active_version(self._settings),
        }
        with connections.translate_errors(), self._engine.connect() as connection:
            rows = connection.execute(_STATEMENTS["list_results"], params).mappings()
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
