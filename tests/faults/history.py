"""A history that Hypothesis writes: what happens to a bucket and a database, step by step.

The machine does each step to the real servers and notes what it knows by it. After each, the
tables are read and held against truth.py.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from psycopg import sql
from psycopg.rows import namedtuple_row

from fer_batch import announce, choice, database, erasure, failpoints, models, retention
from fer_batch.announce import Announcer
from fer_batch.classifier import Classifier, Cnn
from fer_batch.errors import ConfigurationError
from fer_batch.nightly import Run, Selection
from fer_batch.scoring import ShardScorer
from fer_batch.settings import Settings, to_environment
from tests.conftest import fresh_database, settings_for
from tests.end_to_end.conftest import facility
from tests.faults import truth
from tests.faults.death import Death, DiedError
from tests.faults.truth import ALL, DAYS, Day, Rows, key_of, of_day
from tests.support.command import only_ours

days = st.sampled_from(ALL)
points = st.sampled_from(failpoints.NAMES)
numbers = st.integers(0, 10_000)


@dataclass(frozen=True)
class Lab:
    """What all histories share: the servers, and a folder with two CNNs."""

    server: Any
    template: str
    s3: Any
    s3_server: Any
    folder: Path
    cnns: tuple[Cnn, Cnn]
    """The first takes bright for Happy, the second dark."""
    happened: Counter[str]


class Machine(RuleBasedStateMachine):
    """One history: a bucket and a database, and what the test knows about them."""

    dies_for_real = False

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.closing = ExitStack()
        self.folder = lab.folder / secrets.token_hex(4)
        self.folder.mkdir()
        self.bucket = f"state-{secrets.token_hex(8)}"
        lab.s3.create_bucket(Bucket=self.bucket)
        self.closing.callback(lab.s3.delete_bucket, Bucket=self.bucket)
        self.closing.callback(shutil.rmtree, self.folder)
        url = self.closing.enter_context(fresh_database(lab.server, lab.template))
        (self.folder / "facilities.toml").write_text("\n".join(map(facility, truth.FACILITIES)))
        self.settings = self._settings(url)
        self.tables = self.closing.enter_context(
            psycopg.connect(url, autocommit=True, row_factory=namedtuple_row)
        )
        self._promote(lab.cnns[0])
        self.others = itertools.cycle(reversed(lab.cnns))
        self.inverted = choice.version(self.settings, lab.cnns[1].card)
        self.runs = 0
        self.objects: dict[Day, dict[str, str]] = {day: {} for day in ALL}
        self.last: Selection | None = None
        self.settled: set[Day] = set()
        """Days whose rows nothing has changed since their summary was written."""
        self.horizon = date.min
        self.erased_days: set[Day] = set()
        self.gone: set[tuple[Day, str]] = set()
        self.erased: Counter[Day] = Counter()
        """How many images that the tables knew were erased."""
        self.before: Rows = self.read()

    def _settings(self, url: str) -> Settings:
        server = self.lab.s3_server
        return settings_for(
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
        with choice.connected(self.settings) as connection:
            models.promote(connection, cnn, "the test", "another one")

    def teardown(self) -> None:
        self.closing.close()

    # What happens to the bucket

    @rule(day=days, name=st.sampled_from(truth.NAMES), kind=st.sampled_from(sorted(truth.CONTENT)))
    def put(self, day: Day, name: str, kind: str) -> None:
        """A new image, or another one in place of an old."""
        self._put(day, name, kind)

    @rule(day=days, bright=st.integers(10, 35), dark=st.integers(0, 12))
    def fill(self, day: Day, bright: int, dark: int) -> None:
        """Enough images for a day that is published."""
        for number in range(bright + dark):
            self._put(day, f"many-{number}.png", "bright" if number < bright else "dark")

    def _put(self, day: Day, name: str, kind: str) -> None:
        self.lab.s3.put_object(Bucket=self.bucket, Key=key_of(day, name), Body=truth.CONTENT[kind])
        self.objects[day][name] = kind

    @precondition(lambda self: any(self.objects.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        day = data.draw(st.sampled_from([day for day, found in self.objects.items() if found]))
        name = data.draw(st.sampled_from(sorted(self.objects[day])))
        self.lab.s3.delete_object(Bucket=self.bucket, Key=key_of(day, name))
        del self.objects[day][name]

    # Runs

    @rule()
    def run(self) -> None:
        """The night: the last day, and those before once more."""
        self._complete(self._selection(DAYS[-1], lookback_days=2))

    @rule(day=st.sampled_from(DAYS))
    def backfill(self, day: date) -> None:
        self._complete(self._selection(day))

    @rule(day=st.sampled_from(DAYS))
    def rescore(self, day: date) -> None:
        self._complete(self._selection(day, lookback_days=1, rescore=True))

    @rule()
    def other_model(self) -> None:
        """From now on runs use the other CNN; one that has begun goes on with its own."""
        self._promote(next(self.others))

    @rule(point=points, nth=st.integers(1, 3), day=days, is_rescoring=st.booleans())
    def killed(self, point: str, nth: int, day: Day, is_rescoring: bool) -> None:
        """A run that dies at a failpoint, if it comes there."""
        self._die(self._selection(day[1], rescore=is_rescoring), point, nth)

    @rule(point=points, nth=st.integers(1, 3), day=days, number=st.integers(1, 6))
    def killed_night(self, point: str, nth: int, day: Day, number: int) -> None:
        """A night that has something to do, and dies."""
        for n in range(number):
            self._put(day, f"late-{n}.png", "bright" if n % 2 else "dark")
        self._die(self._selection(DAYS[-1], lookback_days=2), point, nth)

    def _die(self, chosen: Selection, point: str, nth: int) -> None:
        if not self._left(chosen):
            return
        self.settled -= set(self._left(chosen))
        if self.dies_for_real:
            self._kill_process(chosen, f"{point}:{nth}")
            return
        armed = Death(point, nth)
        with mock.patch.object(failpoints, "_armed", return_value=armed), suppress(DiedError):
            self._run(chosen)
            point = ""
        self._note_death(point)

    def _note_death(self, point: str) -> None:
        step = point.partition(".")[0]
        self.lab.happened[f"deaths in {step}" if step else "runs that never died"] += 1

    @rule()
    def rerun(self) -> None:
        """The retry of the last run, under its name."""
        if self.last is not None:
            self._complete(self.last)

    def _selection(self, day: date, lookback_days: int = 0, rescore: bool = False) -> Selection:
        self.runs += 1
        return Selection(
            run_id=f"run-{self.runs}",
            capture_day=day,
            lookback_days=min(lookback_days, DAYS.index(day)),
            rescore=rescore,
        )

    def _left(self, chosen: Selection) -> list[Day]:
        """The days that the run is about; none: it is refused."""
        asked = [(name, day) for day in chosen.days() for name in truth.FACILITIES]
        left = [d for d in asked if d[1] >= self.horizon and d not in self.erased_days]
        return left if any(day == chosen.capture_day for _, day in left) else []

    def _complete(self, chosen: Selection) -> None:
        """A run that nobody disturbs, and what it must have done."""
        left = self._left(chosen)
        if not left:
            with pytest.raises(ConfigurationError, match=r"dropped by retention|was erased"):
                self._run(chosen)
            return
        model_version, findings = self._run(chosen)
        self.lab.happened["whole runs"] += 1
        self.settled |= set(left)
        assert [f for f in findings if f["severity"] == "error"] == []
        now = self.read()
        for day in left:
            names = {n: kind for n, kind in self.objects[day].items() if (day, n) not in self.gone}
            there = {key_of(day, name): kind for name, kind in names.items()}
            earlier = of_day(self.before, day)["image"]
            truth.check_outcomes(
                of_day(now, day),
                model_version,
                there,
                {row.image_key for row in earlier if not self._is_gone(row)},
                is_inverted=model_version == self.inverted,
            )

    def _run(self, chosen: Selection) -> tuple[str, list[dict[str, Any]]]:
        """All steps, the scoring in this process. Its model version and the findings."""
        self.last = chosen
        run = Run(self.settings, chosen)
        try:
            run.sync_facilities()
            run.list_images()
            for shard in run.plan_shards():
                with self._scorer(run) as scorer:
                    result = scorer.score(shard)
                assert result.failures == {}
            run.summarize()
            return run.model_version, run.check()
        finally:
            run.engine.dispose()

    @contextmanager
    def _scorer(self, run: Run) -> Iterator[ShardScorer]:
        """What `fer-batch worker` makes for a job."""
        slots = self.folder / "slots"
        announce.create(slots, run.settings.threads)
        scorer = ShardScorer(
            run.engine,
            run.settings,
            run.registry,
            Classifier(run.settings, choice.of_version(run.settings, run.model_version)),
            run.selection.run_id,
            run.selection.capture_day,
            run.begin(),
            Announcer(slots),
        )
        try:
            yield scorer
        finally:  # a process that died has no threads that go on
            scorer._decoders.shutdown(cancel_futures=True)
            scorer._writer.shutdown()

    def _kill_process(self, chosen: Selection, point: str) -> None:
        self.last = chosen
        words = ["--capture-day", str(chosen.capture_day), "--run-id", chosen.run_id]
        words += ["--lookback-days", str(chosen.lookback_days)]
        words += ["--rescore"] if chosen.rescore else []
        env = {**to_environment(self.settings), "FER_ENV_FILE": os.devnull}
        ended = subprocess.run(
            [sys.executable, "-m", "fer_batch", "run", *words],
            env=only_ours({**env, failpoints.VARIABLE: point}),
            capture_output=True,
            text=True,
            check=False,
        )
        # It died at the point, or its child did and it said so; or it came to its end without.
        is_reached = "failpoint" in ended.stderr
        self._note_death(point if is_reached else "")
        assert ended.returncode in ((-signal.SIGKILL, 75, 0) if is_reached else (0,)), ended.stderr

    # What is deleted for good.
    #
    # How far a run came before it died is not the same each time. What may happen next and what is
    # drawn for it must be, or Hypothesis does not know its own histories again: so neither depends
    # on the tables.

    @precondition(lambda self: self.runs > 1)
    @rule(before=st.sampled_from(DAYS[1:]))
    def retain(self, before: date) -> None:
        if self._is_early():
            return
        assert self.settings.database_url is not None
        retention.retain(self.settings, before)
        self.horizon = max(self.horizon, before)
        self.lab.happened["retentions"] += 1

    @precondition(lambda self: self.runs > 0)
    @rule(number=numbers)
    def erase_image(self, number: int) -> None:
        if row := self._image(number):
            day = (row.facility_id, row.capture_day)
            self._erase([day], erasure.Target(row.facility_id, None, row.image_key))
            self.gone.add((day, row.image_key.rpartition("/")[2]))

    @precondition(lambda self: self.runs > 0)
    @rule(number=numbers)
    def erase_day(self, number: int) -> None:
        if row := self._image(number):
            day = (row.facility_id, row.capture_day)
            self._erase([day], erasure.Target(*day))
            self.erased_days.add(day)

    @precondition(lambda self: self.runs > 1)
    @rule(name=st.sampled_from(truth.FACILITIES))
    def erase_facility(self, name: str) -> None:
        rows = [row for row in self.before["image"] if row.facility_id == name]
        gone = {(row.facility_id, row.capture_day) for row in rows}
        if gone and not self._is_early():
            self._erase(gone, erasure.Target(name))
            self.erased_days |= gone

    def _is_early(self) -> bool:
        """Whether there is too little yet for a deletion that leaves next to nothing."""
        return len(self.before["satisfaction_summary"]) <= 4

    def _image(self, number: int) -> Any | None:
        """One of the images that the tables know, if they know any."""
        rows = sorted(self.before["image"], key=truth.identity)
        return rows[number % len(rows)] if rows else None

    def _erase(self, gone: Iterable[Day], target: erasure.Target) -> None:
        engine = database.engine(self.settings)
        try:
            done = erasure.erase(engine, target)
        finally:
            engine.dispose()
        assert {(day.facility_id, day.capture_day) for day in done} == set(gone)
        self.lab.happened["erasures"] += 1
        for day in done:
            self.erased[day.facility_id, day.capture_day] += day.images
            if day.revision is not None:
                self.settled.add((day.facility_id, day.capture_day))

    # What must be true

    def read(self) -> Rows:
        """Every row of the tables that count."""
        return {
            table: self.tables.execute(
                sql.SQL("select * from {}").format(sql.Identifier("fer", table))
            ).fetchall()
            for table in (*truth.PER_IMAGE, "satisfaction_summary")
        }

    @invariant()
    def tables_are_true(self) -> None:
        now = self.read()
        for row in itertools.chain.from_iterable(now[table] for table in truth.PER_IMAGE):
            assert not self._is_gone(row), "what was deleted for good came back"
        known = {truth.identity(row) for row in self.before["image"] if not self._is_gone(row)}
        assert known <= {truth.identity(row) for row in now["image"]}, "an image was forgotten"
        revisions = {repr(row) for row in self.before["satisfaction_summary"]}
        assert revisions <= {repr(row) for row in now["satisfaction_summary"]}, "one was changed"
        self.lab.happened["checks of every table"] += 1
        for day in ALL:
            rows = of_day(now, day)
            truth.check_rows(rows)
            truth.check_revisions(rows)
            if day in self.settled and day[1] >= self.horizon:
                truth.check_summary(rows, self.erased[day])
        self.before = now

    def _is_gone(self, row: Any) -> bool:
        day = (row.facility_id, row.capture_day)
        name = row.image_key.rpartition("/")[2]
        return day[1] < self.horizon or day in self.erased_days or (day, name) in self.gone


class MachineOfProcesses(Machine):
    dies_for_real = True
