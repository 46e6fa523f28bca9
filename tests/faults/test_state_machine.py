"""Whatever happens to a few days, in whatever order, the tables stay true.

Hypothesis chooses what happens: images come, are replaced and deleted; runs, reruns, backfills,
another CNN, rescoring; runs that die at a failpoint; retention and erasure. After each step the
tables are read as they are, and what they must say is worked out here, in Python, from the rows
and from what the test itself has put into the bucket.

A run dies in this process, by an exception that nothing catches, which takes a fraction of a
second; in a test of its own it is a process and dies by SIGKILL. With `FER_FAULT_SEEDS` many more
histories are tried, other ones each time.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import sql
from psycopg.rows import namedtuple_row

from fer_batch import announce, choice, database, erasure, failpoints, models, retention
from fer_batch.announce import Announcer
from fer_batch.classifier import Classifier, Cnn, load_artefact
from fer_batch.errors import ConfigurationError
from fer_batch.nightly import Run, Selection
from fer_batch.scoring import ShardScorer
from fer_batch.settings import Settings, to_environment
from tests.conftest import fresh_database, settings_for
from tests.end_to_end.conftest import facility
from tests.support.command import only_ours
from tests.support.models import tiny_onnx, write_tiny_cnn

SEEDS = int(os.environ.get("FER_FAULT_SEEDS", "0"))
DAYS = [date(2025, 6, day) for day in (2, 3, 4)]
FACILITIES = ("mall", "shop")
TARGET = 0.5
PER_IMAGE = ("image", "image_result", "face_result")
NAMES = [f"{n}.png" for n in range(5)]


def _grey(value: int) -> bytes:
    return cv2.imencode(".png", np.full((48, 48), value, np.uint8))[1].tobytes()


CONTENT = {
    "bright": _grey(230),
    "brighter": _grey(240),
    "dark": _grey(20),
    "grey": _grey(128),
    "damaged": b"\x89PNG\r\n\x1a\n???",
    "empty": b"",
}
ETAGS = {
    kind: hashlib.md5(data, usedforsecurity=False).hexdigest() for kind, data in CONTENT.items()
}
OUTCOMES = {"damaged": "unreadable", "empty": "empty"}
"""All others are scored: the CNN takes bright for Happy, grey for uncertain."""

Day = tuple[str, date]
Rows = dict[str, list[Any]]
ALL = [(name, day) for day in DAYS for name in FACILITIES]
days = st.sampled_from(ALL)


class DiedError(BaseException):
    """The run has come to the failpoint. No handler of fer-batch takes it for an error."""


@dataclass
class Death:
    """An armed failpoint that raises where others send a signal."""

    name: str
    nth: int

    def __post_init__(self) -> None:
        self.passes = itertools.count(1)

    @property
    def signal(self) -> Any:
        raise DiedError(self.name)


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


@pytest.fixture
def lab(
    postgres_server: Any,
    migrated_template: str,
    s3_client: Any,
    seaweed_server: Any,
    tmp_path: Path,
) -> Lab:
    cnns = []
    for name, is_inverted in (("upright", False), ("inverted", True)):
        (tmp_path / name).mkdir()
        card = write_tiny_cnn(tmp_path / name, tiny_onnx(is_inverted=is_inverted), name=name)
        cnns.append(load_artefact(card))
    return Lab(
        postgres_server, migrated_template, s3_client, seaweed_server, tmp_path, (cnns[0], cnns[1])
    )


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
        (self.folder / "facilities.toml").write_text("\n".join(map(facility, FACILITIES)))
        self.settings = self._settings(url)
        self.tables = self.closing.enter_context(
            psycopg.connect(url, autocommit=True, row_factory=namedtuple_row)
        )
        self._promote(lab.cnns[0])
        self.others = itertools.cycle(reversed(lab.cnns))
        self.inverted = choice.version(self.settings, lab.cnns[1].card)
        self.numbers = itertools.count(1)
        self.objects: dict[Day, dict[str, str]] = {day: {} for day in ALL}
        self.last: Selection | None = None
        self.settled: set[Day] = set()
        """Days whose rows nothing has changed since their summary was written."""
        self.horizon = date.min
        self.erased_days: set[Day] = set()
        self.erased_names: set[tuple[Day, str]] = set()
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

    @rule(day=days, name=st.sampled_from(NAMES), kind=st.sampled_from(sorted(CONTENT)))
    def put(self, day: Day, name: str, kind: str) -> None:
        """A new image, or another one in place of an old."""
        self._put(day, name, kind)

    @rule(day=days, bright=st.integers(10, 35), dark=st.integers(0, 12))
    def fill(self, day: Day, bright: int, dark: int) -> None:
        """Enough images for a day that is published."""
        for number in range(bright + dark):
            self._put(day, f"many-{number}.png", "bright" if number < bright else "dark")

    def _put(self, day: Day, name: str, kind: str) -> None:
        self.lab.s3.put_object(Bucket=self.bucket, Key=key_of(day, name), Body=CONTENT[kind])
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

    @rule(day=st.sampled_from(DAYS), lookback_days=st.integers(0, 2))
    def rescore(self, day: date, lookback_days: int) -> None:
        self._complete(self._selection(day, lookback_days=lookback_days, rescore=True))

    @rule()
    def other_model(self) -> None:
        """From now on runs use the other CNN; one that has begun goes on with its own."""
        self._promote(next(self.others))

    @rule(
        point=st.sampled_from(failpoints.NAMES),
        nth=st.integers(1, 4),
        day=st.sampled_from(DAYS),
        lookback_days=st.integers(0, 2),
        is_rescoring=st.booleans(),
    )
    def killed(
        self, point: str, nth: int, day: date, lookback_days: int, is_rescoring: bool
    ) -> None:
        """A run that dies at a failpoint, if it comes there."""
        chosen = self._selection(day, lookback_days=lookback_days, rescore=is_rescoring)
        if not self._left(chosen):
            return
        self.settled -= set(self._left(chosen))
        if self.dies_for_real:
            self._kill_process(chosen, f"{point}:{nth}")
            return
        armed = Death(point, nth)
        with mock.patch.object(failpoints, "_armed", return_value=armed), suppress(DiedError):
            self._run(chosen)
            event("came to its end before the failpoint")
            return
        event(f"died at {point}")

    @precondition(lambda self: self.last is not None)
    @rule()
    def rerun(self) -> None:
        """The retry of the last run, under its name."""
        assert self.last is not None
        self._complete(self.last)

    def _selection(self, day: date, lookback_days: int = 0, rescore: bool = False) -> Selection:
        return Selection(
            run_id=f"run-{next(self.numbers)}",
            capture_day=day,
            lookback_days=min(lookback_days, DAYS.index(day)),
            rescore=rescore,
        )

    def _left(self, chosen: Selection) -> list[Day]:
        """The days that the run is about; none: it is refused."""
        asked = [(name, day) for day in chosen.days() for name in FACILITIES]
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
        self.settled |= set(left)
        assert [f for f in findings if f["severity"] == "error"] == []
        now = self.read()
        for day in left:
            self._check_scored(day, of_day(now, day), model_version)

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
        ended = subprocess.run(
            [sys.executable, "-m", "fer_batch", "run", *words],
            env=only_ours(
                {
                    **to_environment(self.settings),
                    "FER_ENV_FILE": os.devnull,
                    failpoints.VARIABLE: point,
                }
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        # It died at the point, or its child did and it said so; or it came to its end without.
        is_reached = "failpoint" in ended.stderr
        event(f"died at {point}" if is_reached else "came to its end before the failpoint")
        assert ended.returncode in ((-signal.SIGKILL, 75, 0) if is_reached else (0,)), ended.stderr

    # What is deleted for good

    @rule(before=st.sampled_from(DAYS[1:]))
    def retain(self, before: date) -> None:
        assert self.settings.database_url is not None
        retention.retain(self.settings, before)
        self.horizon = max(self.horizon, before)

    @precondition(lambda self: self.before["image"])
    @rule(data=st.data())
    def erase_image(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.before["image"]))
        day = (row.facility_id, row.capture_day)
        self._erase([day], erasure.Target(row.facility_id, None, row.image_key))
        self.erased_names.add((day, row.image_key.rpartition("/")[2]))

    @precondition(lambda self: self.before["image"])
    @rule(data=st.data())
    def erase_day(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.before["image"]))
        day = (row.facility_id, row.capture_day)
        self._erase([day], erasure.Target(*day))
        self.erased_days.add(day)

    @precondition(lambda self: len({row.facility_id for row in self.before["image"]}) > 1)
    @rule(name=st.sampled_from(FACILITIES))
    def erase_facility(self, name: str) -> None:
        rows = [row for row in self.before["image"] if row.facility_id == name]
        gone = {(row.facility_id, row.capture_day) for row in rows}
        self._erase(gone, erasure.Target(name))
        self.erased_days |= gone

    def _erase(self, gone: Iterable[Day], target: erasure.Target) -> None:
        engine = database.engine(self.settings)
        try:
            done = erasure.erase(engine, target)
        finally:
            engine.dispose()
        assert {(day.facility_id, day.capture_day) for day in done} == set(gone)
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
            for table in (*PER_IMAGE, "satisfaction_summary")
        }

    @invariant()
    def tables_are_true(self) -> None:
        now = self.read()
        for rows in (now[table] for table in PER_IMAGE):
            for row in rows:
                assert not self._is_gone(row), "what was deleted for good came back"
        known = {row for row in self.before["image"] if not self._is_gone(row)}
        assert {identity(row) for row in known} <= {identity(row) for row in now["image"]}
        assert set(map(text, self.before["satisfaction_summary"])) <= set(
            map(text, now["satisfaction_summary"])
        ), "a revision was changed or deleted"
        for day in ALL:
            self._check_rows(of_day(now, day))
            self._check_summaries(day, of_day(now, day))
        self.before = now

    def _is_gone(self, row: Any) -> bool:
        day = (row.facility_id, row.capture_day)
        name = row.image_key.rpartition("/")[2]
        return day[1] < self.horizon or day in self.erased_days or (day, name) in self.erased_names

    def _check_rows(self, rows: Rows) -> None:
        """One outcome for each image and model version, with its faces, and nothing else."""
        images = {identity(row) for row in rows["image"]}
        results = [(identity(row), row.model_version) for row in rows["image_result"]]
        assert len(set(results)) == len(results)
        assert {image for image, _ in results} <= images
        faces = Counter((identity(row), row.model_version) for row in rows["face_result"])
        for row in rows["image_result"]:
            assert faces.pop((identity(row), row.model_version), 0) == row.face_count
        assert not faces

    def _check_summaries(self, day: Day, rows: Rows) -> None:
        found = sorted(rows["satisfaction_summary"], key=lambda row: row.revision)
        assert [row.revision for row in found] == list(range(1, len(found) + 1))
        for row in found:
            left_out = sum(row.not_scored.values())
            assert row.images == row.images_scored + row.images_pending + left_out
            assert not (row.is_complete and row.images_pending)
        if day in self.settled and day[1] >= self.horizon:
            wanted = self._recount(day, rows)
            assert {name: getattr(found[-1], name) for name in wanted} == wanted

    def _recount(self, day: Day, rows: Rows) -> dict[str, Any]:
        """What the newest summary must say, from the rows of its model version."""
        newest = max(rows["satisfaction_summary"], key=lambda row: row.revision)
        results = {
            identity(row): row
            for row in rows["image_result"]
            if row.model_version == newest.model_version
        }
        final = {
            identity(image): result
            for image in rows["image"]
            if (result := results.get(identity(image))) and is_final(result, image)
        }
        outcomes = Counter(result.outcome for result in final.values())
        faces = [
            row
            for row in rows["face_result"]
            if row.model_version == newest.model_version and identity(row) in final
        ]
        sure = Counter(row.p_happy >= row.p_sad for row in faces if not row.is_uncertain)
        erased = {"erased": self.erased[day]} if self.erased[day] else {}
        not_scored = {k: n for k, n in outcomes.items() if k != "scored"} | erased
        pending = len(rows["image"]) - len(final)
        return {
            "images": len(rows["image"]) + self.erased[day],
            "images_scored": outcomes["scored"],
            "images_pending": pending,
            "not_scored": not_scored,
            "faces": len(faces),
            "happy": sure[True],
            "sad": sure[False],
            "uncertain": len(faces) - sure.total(),
            "neither": sum(row.p_neither > max(row.p_happy, row.p_sad) for row in faces),
            "is_complete": pending == 0,
        } | judged(sure[True], sure[False])

    def _check_scored(self, day: Day, rows: Rows, model_version: str) -> None:
        """After a whole run: what lies in the bucket was listed, and has its right outcome."""
        there = {
            name: kind
            for name, kind in self.objects[day].items()
            if (day, name) not in self.erased_names
        }
        earlier = {
            row.image_key for row in of_day(self.before, day)["image"] if not self._is_gone(row)
        }
        images = {row.image_key: row for row in rows["image"]}
        assert set(images) == earlier | {key_of(day, name) for name in there}
        results = {
            row.image_key: row for row in rows["image_result"] if row.model_version == model_version
        }
        for key, image in images.items():
            assert key in results, f"{key} was listed and has no outcome"
            assert is_final(results[key], image)
        is_inverted = model_version == self.inverted
        for name, kind in there.items():
            result = results[key_of(day, name)]
            assert images[key_of(day, name)].etag.strip('"') == ETAGS[kind]
            assert result.outcome == OUTCOMES.get(kind, "scored")
            if kind in ("bright", "brighter", "dark"):
                assert result.emotion == ("Sad" if (kind == "dark") != is_inverted else "Happy")
            if kind == "grey":
                assert result.is_uncertain


def judged(happy: int, sad: int) -> dict[str, Any]:
    """Share and verdict as the documents say, for a target of `TARGET`."""
    n = happy + sad
    if n < 30:
        return {"happy_share": None, "verdict": "suppressed"}
    share, z2 = happy / n, 1.959964**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    is_above, is_below = centre - half > TARGET, centre + half < TARGET
    verdict = "satisfied" if is_above else "not satisfied" if is_below else "inconclusive"
    return {"happy_share": round(share, 6), "verdict": verdict}


def key_of(day: Day, name: str) -> str:
    return f"{day[0]}/{day[1]}/{name}"


def of_day(rows: Mapping[str, list[Any]], day: Day) -> Rows:
    return {
        table: [row for row in found if (row.facility_id, row.capture_day) == day]
        for table, found in rows.items()
    }


def identity(row: Any) -> tuple[Any, ...]:
    return row.facility_id, row.capture_day, row.image_key, row.member


def text(row: Any) -> str:
    return repr(row)


def is_final(result: Any, image: Any) -> bool:
    """Whether the result settles the image, as docs/operate.md tells it."""
    if result.etag != image.etag or result.outcome in ("changed", "fetch_failed"):
        return False
    return bool(result.outcome != "vanished" or result.scored_at >= image.listed_at)


class MachineOfProcesses(Machine):
    dies_for_real = True


def histories(number: int, steps: int) -> settings:
    return settings(
        max_examples=number,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=not SEEDS,  # CI tries the same ones each time
        phases=[Phase.generate],  # each step takes a while: a short history is shown as it is
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@pytest.mark.timeout(7200)
def test_any_history_leaves_true_tables(lab: Lab) -> None:
    run_state_machine_as_test(lambda: Machine(lab), settings=histories(SEEDS * 10 or 6, 14))


@pytest.mark.timeout(7200)
def test_any_history_of_processes_that_are_killed_leaves_true_tables(lab: Lab) -> None:
    run_state_machine_as_test(lambda: MachineOfProcesses(lab), settings=histories(SEEDS or 2, 10))
