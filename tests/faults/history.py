"""A Hypothesis state machine: random steps on a bucket and a database.

The machine applies each step to the real servers and keeps a model of the expected state. After
each step it reads the tables and checks them with truth.py.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import date
from typing import Any
from unittest import mock

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from psycopg import sql
from psycopg.rows import namedtuple_row

from fer_batch.database import connections, schema
from fer_batch.deletion import erasure, retention
from fer_batch.errors import ConfigurationError
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.model import active_model, model_registry
from fer_batch.model.classifier import Classifier, Cnn
from fer_batch.pipeline import in_flight
from fer_batch.pipeline.in_flight import InFlightRegister
from fer_batch.pipeline.nightly import Run
from fer_batch.pipeline.scoring import ShardScorer
from fer_batch.pipeline.selection import Selection
from fer_batch.settings import Settings
from fer_batch.settings_sources import to_environment
from fer_batch.testing import failpoints
from tests.faults import truth
from tests.faults.death import Death, DiedError
from tests.faults.environment import Environment
from tests.faults.truth import ALL, DAYS, Day, Rows, build_key, select_day
from tests.fixtures.night import format_facility
from tests.fixtures.servers import (
    ERASER,
    RETAINER,
    SECRET,
    build_settings,
    fresh_database,
    switch_login,
)
from tests.support.command import run_command

days = st.sampled_from(ALL)
points = st.sampled_from(failpoints.NAMES)
numbers = st.integers(0, 10_000)


class Machine(RuleBasedStateMachine):
    """One history: a bucket and a database, and the model of their state."""

    uses_processes = False

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self.environment = environment
        self.resources = ExitStack()
        self.folder = environment.folder / secrets.token_hex(4)
        self.folder.mkdir()
        self.bucket = f"state-{secrets.token_hex(8)}"
        environment.s3.create_bucket(Bucket=self.bucket)
        self.resources.callback(environment.s3.delete_bucket, Bucket=self.bucket)
        self.resources.callback(shutil.rmtree, self.folder)
        url = self.resources.enter_context(fresh_database(environment.server, environment.template))
        (self.folder / "facilities.toml").write_text(
            "\n".join(
                format_facility(name, more='empty_days = "allowed"\n') for name in truth.FACILITIES
            )
        )
        self.url = url
        self.settings = self._build_settings(url)
        self.tables = self.resources.enter_context(
            psycopg.connect(switch_login(url), autocommit=True, row_factory=namedtuple_row)
        )
        self._promote(environment.cnns[0])
        self.next_cnns = itertools.cycle(reversed(environment.cnns))
        self.inverted_version = active_model.compute_version(
            self.settings, environment.cnns[1].card
        )
        self.runs = 0
        self.objects: dict[Day, dict[str, str]] = {day: {} for day in ALL}
        self.last_selection: Selection | None = None
        self.summarized_days: set[Day] = set()
        """Days whose rows are unchanged since their last summary was written."""
        self.retained_from = date.min
        self.erased_days: set[Day] = set()
        self.erased_images: set[tuple[Day, str]] = set()
        self.erased_counts: Counter[Day] = Counter()
        """The number of images of each day whose rows were erased."""
        self.before: Rows = self.read_rows()

    def _build_settings(self, url: str) -> Settings:
        server = self.environment.s3_server
        return build_settings(
            url,
            s3_endpoint=server.endpoint,
            s3_bucket=self.bucket,
            s3_access_key_id=server.access_key_id,
            s3_secret_access_key=server.secret_access_key,
            facilities_file=self.folder / "facilities.toml",
            report_dir=self.folder / "reports",
            threads=1,
            chunk_images=2,
            s3_concurrency=4,
        )

    def _promote(self, cnn: Cnn) -> None:
        with active_model.connect(self.settings) as connection:
            model_registry.promote(connection, cnn, "the test", "another one")

    def teardown(self) -> None:
        self.resources.close()

    # Changes of the bucket

    @rule(day=days, name=st.sampled_from(truth.NAMES), kind=st.sampled_from(sorted(truth.KINDS)))
    def put(self, day: Day, name: str, kind: str) -> None:
        """Upload a new image, or replace one."""
        self._put(day, name, kind)

    @rule(day=days, bright=st.integers(10, 35), dark=st.integers(0, 12))
    def fill(self, day: Day, bright: int, dark: int) -> None:
        """Upload enough images for a day whose rates may be published."""
        for number in range(bright + dark):
            kind = "bright" if number < bright else "dark"
            self._put(day, f"many-{number:02}.png", f"{kind} {number}")

    def _put(self, day: Day, name: str, kind: str) -> None:
        self.environment.s3.put_object(
            Bucket=self.bucket, Key=build_key(day, name), Body=truth.CONTENT[kind]
        )
        self.objects[day][name] = kind

    @precondition(lambda self: any(self.objects.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        day = data.draw(st.sampled_from([day for day, objects in self.objects.items() if objects]))
        name = data.draw(st.sampled_from(sorted(self.objects[day])))
        self.environment.s3.delete_object(Bucket=self.bucket, Key=build_key(day, name))
        del self.objects[day][name]

    # Runs

    @rule()
    def run(self) -> None:
        """A nightly run: the last day, with a lookback over the days before."""
        self._run_to_end(self._select(DAYS[-1], lookback_days=2))

    @rule(day=st.sampled_from(DAYS))
    def backfill(self, day: date) -> None:
        self._run_to_end(self._select(day))

    @rule(day=st.sampled_from(DAYS))
    def rescore(self, day: date) -> None:
        self._run_to_end(self._select(day, lookback_days=1, rescore=True))

    @rule()
    def promote_other_model(self) -> None:
        """New runs use the other CNN; a rerun of an earlier run keeps its own."""
        self._promote(next(self.next_cnns))

    @rule(point=points, nth=st.integers(1, 3), day=days, is_rescoring=st.booleans())
    def kill_run(self, point: str, nth: int, day: Day, is_rescoring: bool) -> None:
        """A run that dies at a failpoint, if it reaches it."""
        self._run_and_die(self._select(day[1], rescore=is_rescoring), point, nth)

    @rule(point=points, nth=st.integers(1, 3), day=days, number=st.integers(1, 6))
    def kill_night(self, point: str, nth: int, day: Day, number: int) -> None:
        """A nightly run with new images, which dies at a failpoint, if it reaches it."""
        for n in range(number):
            self._put(day, f"late-{n}.png", f"{'bright' if n % 2 else 'dark'} {50 + n}")
        self._run_and_die(self._select(DAYS[-1], lookback_days=2), point, nth)

    def _run_and_die(self, selection: Selection, point: str, nth: int) -> None:
        if not self._list_days(selection):
            return
        self.summarized_days -= set(self._list_days(selection))
        if self.uses_processes:
            self._kill_process(selection, f"{point}:{nth}")
            return
        armed = Death(point, nth)
        with mock.patch.object(failpoints, "get_armed", return_value=armed), suppress(DiedError):
            self._run(selection)
            point = ""
        self._note_death(point)

    def _note_death(self, point: str) -> None:
        step = point.partition(".")[0]
        self.environment.event_counts[f"deaths in {step}" if step else "runs that did not die"] += 1

    @rule()
    def rerun(self) -> None:
        """Retry the last run with the same run id."""
        if self.last_selection is not None:
            self._run_to_end(self.last_selection)

    def _select(self, day: date, lookback_days: int = 0, rescore: bool = False) -> Selection:
        self.runs += 1
        return Selection(
            run_id=f"run-{self.runs}",
            capture_day=day,
            lookback_days=min(lookback_days, DAYS.index(day)),
            rescore=rescore,
        )

    def _list_days(self, selection: Selection) -> list[Day]:
        """The days that the run processes; none if it must refuse."""
        selected = [(name, day) for day in selection.list_days() for name in truth.FACILITIES]
        allowed = [d for d in selected if d[1] >= self.retained_from and d not in self.erased_days]
        return allowed if any(day == selection.capture_day for _, day in allowed) else []

    def _run_to_end(self, selection: Selection) -> None:
        """An undisturbed run, and the checks of its results."""
        days = self._list_days(selection)
        if not days:
            with pytest.raises(ConfigurationError, match=r"dropped by retention|was erased"):
                self._run(selection)
            return
        model_version, findings = self._run(selection)
        self.environment.event_counts["whole runs"] += 1
        self.summarized_days |= set(days)
        assert [f for f in findings if f["severity"] == "error"] == []
        now = self.read_rows()
        for day in days:
            names = {
                n: kind
                for n, kind in self.objects[day].items()
                if (day, n) not in self.erased_images
            }
            contents = {build_key(day, name): kind for name, kind in names.items()}
            earlier = select_day(self.before, day)["image"]
            truth.check_outcomes(
                select_day(now, day),
                model_version,
                contents,
                {row.image_key for row in earlier if not self._is_deleted(row)},
                is_inverted=model_version == self.inverted_version,
            )

    def _run(self, selection: Selection) -> tuple[str, list[dict[str, Any]]]:
        """Run all steps, scoring in this process. Returns the model version and the findings."""
        self.last_selection = selection
        run = Run(self.settings, selection)
        try:
            run.sync_facilities()
            run.list_images()
            for shard in run.plan_shards():
                with (
                    Decoders(run.settings) as decoders,
                    self._make_scorer(run, decoders) as scorer,
                ):
                    result = scorer.score(shard)
                assert result.failures == {}
            run.summarize()
            return run.model_version, run.check_data()
        finally:
            run.engine.dispose()

    def _make_scorer(self, run: Run, decoders: Decoders) -> ShardScorer:
        """Build the scorer as `fer-batch worker` does for a job."""
        register = self.folder / "in-flight"
        in_flight.create_register(register, run.settings.threads)
        return ShardScorer(
            run.engine,
            run.settings,
            run.registry,
            Classifier(run.settings, active_model.load_version(run.settings, run.model_version)),
            decoders,
            run.selection.run_id,
            run.selection.capture_day,
            run.begin(),
            InFlightRegister(register),
        )

    def _kill_process(self, selection: Selection, point: str) -> None:
        self.last_selection = selection
        options = ["--capture-day", str(selection.capture_day), "--run-id", selection.run_id]
        options += ["--lookback-days", str(selection.lookback_days)]
        options += ["--rescore"] if selection.rescore else []
        env = {**to_environment(self.settings), "FER_ENV_FILE": os.devnull}
        run = run_command(
            self.environment.fork_server,
            "run",
            *options,
            env={**env, failpoints.ENV_VARIABLE: point},
            folder=self.folder,
        )
        # The command or its child was killed at the failpoint; or the run completed without it.
        is_reached = "failpoint" in run.err
        self._note_death(point if is_reached else "")
        assert run.code in ((-signal.SIGKILL, 75, 0) if is_reached else (0,)), run.err

    # Permanent deletion.
    #
    # How much a run wrote before it died varies. But the rules that are possible and the values
    # that are drawn must be the same when a history is replayed, or Hypothesis reports it as flaky:
    # so preconditions and strategies do not depend on the tables.

    @precondition(lambda self: self.runs > 1)
    @rule(before=st.sampled_from(DAYS[1:]))
    def apply_retention(self, before: date) -> None:
        if self._has_few_summaries():
            return
        with schema.open_engine(switch_login(self.url, RETAINER)) as engine:
            retention.retain(engine, before)
        self.retained_from = max(self.retained_from, before)
        self.environment.event_counts["retentions"] += 1

    @precondition(lambda self: self.runs > 0)
    @rule(number=numbers)
    def erase_image(self, number: int) -> None:
        if row := self._pick_image(number):
            day = (row.facility_id, row.capture_day)
            self._erase([day], erasure.Target(row.facility_id, None, row.image_key))
            self.erased_images.add((day, row.image_key.rpartition("/")[2]))

    @precondition(lambda self: self.runs > 0)
    @rule(number=numbers)
    def erase_day(self, number: int) -> None:
        if row := self._pick_image(number):
            day = (row.facility_id, row.capture_day)
            self._erase([day], erasure.Target(*day))
            self.erased_days.add(day)

    @precondition(lambda self: self.runs > 1)
    @rule(name=st.sampled_from(truth.FACILITIES))
    def erase_facility(self, name: str) -> None:
        rows = [row for row in self.before["image"] if row.facility_id == name]
        gone = {(row.facility_id, row.capture_day) for row in rows}
        if gone and not self._has_few_summaries():
            self._erase(gone, erasure.Target(name))
            self.erased_days |= gone

    def _has_few_summaries(self) -> bool:
        """Whether so little exists that a large deletion would leave almost nothing to check."""
        return len(self.before["satisfaction_summary"]) <= 4

    def _pick_image(self, number: int) -> Any | None:
        """One of the images in the tables, or None if they hold none."""
        rows = sorted(self.before["image"], key=truth.get_identity)
        return rows[number % len(rows)] if rows else None

    def _erase(self, gone: Iterable[Day], target: erasure.Target) -> None:
        engine = connections.create_engine(switch_login(self.url, ERASER))
        try:
            erased = erasure.erase(engine, target, None, SECRET)
        finally:
            engine.dispose()
        assert {(day.facility_id, day.capture_day) for day in erased} == set(gone)
        self.environment.event_counts["erasures"] += 1
        for day in erased:
            self.erased_counts[day.facility_id, day.capture_day] += day.images
            if day.revision is not None:
                self.summarized_days.add((day.facility_id, day.capture_day))

    # Checks

    def read_rows(self) -> Rows:
        """Every row of the tables that truth.py checks."""
        return {
            table: self.tables.execute(
                sql.SQL("select * from {}").format(sql.Identifier("fer", table))
            ).fetchall()
            for table in (*truth.PER_IMAGE, "satisfaction_summary")
        }

    @invariant()
    def check_tables(self) -> None:
        now = self.read_rows()
        for row in itertools.chain.from_iterable(now[table] for table in truth.PER_IMAGE):
            assert not self._is_deleted(row), "a permanently deleted row came back"
        known = {
            truth.get_identity(row) for row in self.before["image"] if not self._is_deleted(row)
        }
        assert known <= {truth.get_identity(row) for row in now["image"]}, "an image was lost"
        revisions = {repr(row) for row in self.before["satisfaction_summary"]}
        assert revisions <= {repr(row) for row in now["satisfaction_summary"]}, (
            "a summary was changed"
        )
        self.environment.event_counts["checks of all tables"] += 1
        for day in ALL:
            rows = select_day(now, day)
            truth.check_rows(rows)
            truth.check_revisions(rows)
            if day in self.summarized_days and day[1] >= self.retained_from:
                earlier = select_day(self.before, day)
                truth.check_summary(rows, self.erased_counts[day], earlier)
        self.before = now

    def _is_deleted(self, row: Any) -> bool:
        day = (row.facility_id, row.capture_day)
        name = row.image_key.rpartition("/")[2]
        return (
            day[1] < self.retained_from
            or day in self.erased_days
            or (day, name) in self.erased_images
        )


class ProcessMachine(Machine):
    """Runs are processes, which die by SIGKILL."""

    uses_processes = True
