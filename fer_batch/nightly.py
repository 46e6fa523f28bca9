"""A run: the steps of the nightly job over some facilities and days, in order.

Airflow calls the steps one by one through the `fer-batch` command; `fer-batch run` calls them
all in one process. Both go through `Run`, so there is one way to do each step. A step takes
what it needs from the tables and leaves its work there, and may be repeated at any time.
"""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_batch import registry
from fer_batch.errors import ConfigurationError, ModelError, PermanentError, RetryableError
from fer_batch.failpoints import reach
from fer_batch.jobs import Job, ShardResult
from fer_batch.log import logger
from fer_batch.records import Batch, Shard
from fer_batch.registry import Facility
from fer_batch.settings import Settings, to_environment

if TYPE_CHECKING:
    import sqlalchemy as sa

    from fer_batch.classifier import Cnn
    from fer_batch.listing import BatchListing

log = logger(__name__)

MAX_NAMES = 3
"""Facilities that a file's name spells out."""

SUMMARIES_AT_ONCE = 500
"""Facility days that one transaction summarises. Each takes a lock of PostgreSQL's, which has some
thousands for all sessions together."""
IMAGE_DEADLINE_S = 60.0
"""A scoring process that decodes one image for longer is ended."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run is about.

    A `run_id` stands for one run: its first planning fixes the CNN for all that follows under it,
    in whatever process. `model_version` may be the first characters of the one that must be in
    use; None accepts whichever is. With `rescore`, results older than the run count as unfinished.
    """

    run_id: str
    capture_day: date
    facility_ids: tuple[str, ...] = ()
    time_zone: str | None = None
    lookback_days: int = 0
    model_version: str | None = None
    rescore: bool = False

    def facilities(self, known: Mapping[str, Facility]) -> dict[str, Facility]:
        """The selected facilities. Raises ConfigurationError for an unknown id."""
        chosen = registry.select(known, self.facility_ids)
        if self.time_zone is not None:
            chosen = {i: f for i, f in chosen.items() if f.time_zone == self.time_zone}
        if not chosen:
            raise ConfigurationError(
                "no facility is selected",
                f"The registry knows {', '.join(sorted(known)) or 'none'}",
            )
        return chosen

    def file_name(self) -> str:
        """What a file about this selection is called: of other facilities, it has another name."""
        names = sorted(set(self.facility_ids))
        if len(names) > MAX_NAMES:
            digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
            names = [f"{len(names)}_facilities_{digest}"]
        scope = ([self.time_zone] if self.time_zone else []) + names
        text = f"{self.capture_day}-{'.'.join(scope)}" if scope else f"{self.capture_day}"
        return re.sub("[^A-Za-z0-9._+-]+", "_", text)

    def days(self) -> list[date]:
        """The capture day and the days before it that are looked at again, newest first."""
        return [self.capture_day - timedelta(days=n) for n in range(self.lookback_days + 1)]


class Run:
    """The steps of one run, each usable alone."""

    def __init__(self, settings: Settings, selection: Selection) -> None:
        self.settings = settings
        self.selection = selection
        self.registry = registry.load(settings.facilities_file, settings)
        self.facilities = selection.facilities(self.registry)

    @cached_property
    def batches(self) -> list[Batch]:
        """What the run is about, without days whose rows were deleted for good.

        Raises ConfigurationError where that leaves nothing of the capture day.
        """
        asked = [Batch(f, day) for day in self.selection.days() for f in self.facilities]
        if self.settings.database_url is None:
            return asked
        from fer_batch import database, retention

        with database.translate_errors(), self.engine.connect() as connection:
            return retention.without_deleted(connection, asked, self.selection.capture_day)

    @cached_property
    def engine(self) -> sa.Engine:
        from fer_batch import database

        engine = database.engine(self.settings)
        database.check_migrated(engine)
        return engine

    @cached_property
    def model_version(self) -> str:
        """The version of this run. Raises ModelError if it is not the one that was asked for."""
        from fer_batch import choice

        version = choice.version(self.settings, self.cnn.card)
        wanted = self.selection.model_version
        if wanted and not version.startswith(wanted):
            raise ModelError(
                f"model version {wanted} is not the one in use, which is {version[:12]}",
                "Set FER_MODEL_CARD to its card, or promote it, for a new run; "
                "see `fer-batch models`",
            )
        return version

    @cached_property
    def cnn(self) -> Cnn:
        """The CNN that this run was planned with, else the one in use."""
        from fer_batch import choice, database, ledger

        planned = None
        if self.settings.database_url is not None:
            with database.translate_errors(), self.engine.connect() as connection:
                planned = ledger.version_of_run(connection, self.selection.run_id)
        if planned is not None:
            return choice.of_version(self.settings, planned)
        return choice.in_use(self.settings).cnn

    def begin(self) -> datetime | None:
        """Begin this run, or find it begun: from then on the tables hold its model version and
        its CNN, and every other process of the run takes those.

        Returns when it began, by the database's clock, if it rescores. A retry finds the same
        time and does not score again what the run has scored already.
        """
        from fer_batch import classifier, database, ledger, models, results

        manifest = classifier.manifest_of(self.cnn.card, self.settings)
        card = self.cnn.card.model_dump(mode="json")
        with database.transaction(self.engine) as connection:
            models.register(connection, self.cnn)
            results.register_model_version(connection, self.model_version, manifest, card)
            began_at = ledger.begin_run(connection, self.selection.run_id, self.model_version)
        return began_at if self.selection.rescore else None

    def sync_facilities(self) -> None:
        """Write the whole registry to the table `facility`."""
        from fer_batch import database, ledger

        with database.transaction(self.engine) as connection:
            ledger.sync_facilities(connection, self.registry)

    def count_finished(self) -> dict[Batch, int]:
        """How many images of each batch have a final result; none where no database is set."""
        if self.settings.database_url is None:
            return {}
        from fer_batch import database, results

        with database.translate_errors(), self.engine.connect() as connection:
            return results.count_finished(connection, self.batches, self.model_version)

    def list_images(self) -> list[BatchListing]:
        """List every batch into the ledger; a facility's failure is its own."""
        from fer_batch import listing

        gc.freeze()  # what is loaded by now stays: no use in looking for garbage in it
        return listing.list_batches(
            self.engine,
            self.settings,
            self.facilities,
            self.batches,
            self.selection.run_id,
            datetime.now(UTC),
        )

    def plan_shards(self) -> list[Shard]:
        """Cut the images without a final result into shards."""
        from fer_batch import database, planning

        reach("plan.before")
        rescore_before = self.begin()
        with database.transaction(self.engine) as connection:
            shards = planning.plan(
                connection,
                [batch for batch in self.batches if self._is_permitted(batch)],
                self.facilities,
                self.settings,
                self.model_version,
                rescore_before,
            )
        reach("plan.after")
        return shards

    def score(self, shard: Shard) -> ShardResult:
        """Score a shard in a process of its own.

        Raises RetryableError or PermanentError if a facility failed; the others are done.
        """
        from fer_batch import worker

        job = Job(
            shard,
            self.selection.run_id,
            self.model_version,
            self.selection.capture_day,
            self.begin(),
        )
        limits = worker.Limits(
            deadline_s=self.settings.score_deadline_s,
            memory_mb=self.settings.score_memory_mb,
            image_s=IMAGE_DEADLINE_S,
            threads=self.settings.threads,
        )
        reach("score.before")
        result = worker.score_shard(job, limits, to_environment(self.settings))
        reach("score.after")
        if result.failures:
            what = "; ".join(f"{name}: {why}" for name, why in result.failures.items())
            kind = RetryableError if result.is_retryable else PermanentError
            raise kind(f"shard {shard.name!r}: {what}")
        return result

    def summarize(self) -> list[dict[str, Any]]:
        """Write a new revision of each summary that changed; returns the newest of each batch."""
        from fer_batch import database, satisfaction

        reach("summary.before")
        self.begin()
        database.analyse(self.engine, (batch.capture_day for batch in self.batches))
        summaries: list[dict[str, Any]] = []
        for begin in range(0, len(self.batches), SUMMARIES_AT_ONCE):
            with database.transaction(self.engine) as connection:
                summaries += satisfaction.write_summaries(
                    connection,
                    self.batches[begin : begin + SUMMARIES_AT_ONCE],
                    self.model_version,
                    self.facilities,
                    self.selection.run_id,
                )
                reach("summary.commit.before")
            reach("summary.commit.after")
        return summaries

    def _is_permitted(self, batch: Batch) -> bool:
        """Images that were listed while a permission held are not read after it has ended."""
        return not self.facilities[batch.facility_id].refusal(batch.capture_day, datetime.now(UTC))

    def check(self) -> list[dict[str, Any]]:
        """The findings of the data checks, one dictionary each."""
        from fer_batch import checks

        return checks.run(self.engine, self.batches, self.model_version, self.selection.run_id)

    def report(self, findings: Sequence[Mapping[str, Any]] | None = None) -> Path:
        """Write the report of the capture day and return its path.

        `findings` are what `check` just returned; None means to check again.
        """
        from fer_batch import report

        if findings is None:
            findings = self.check()
        reach("report.before")
        path = report.write_day(
            self.engine, self.settings, self.batches, findings, self.selection.file_name()
        )
        reach("report.after")
        return path


def score_all(
    run: Run, shards: Iterable[Shard]
) -> tuple[list[tuple[Shard, ShardResult]], RetryableError | PermanentError | None]:
    """Score shard after shard; those that ended well, and an error of the others: the first that
    may pass, else the first."""
    done: list[tuple[Shard, ShardResult]] = []
    failed: RetryableError | PermanentError | None = None
    for shard in shards:
        try:
            done.append((shard, run.score(shard)))
        except (RetryableError, PermanentError) as error:
            log.error("shard failed", shard=shard.name, error=str(error))
            # What may pass decides: who tries again gets that shard done as well.
            if not isinstance(failed, RetryableError):
                failed = error if isinstance(error, RetryableError) else failed or error
    return done, failed


def run_all(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All steps in this process, the scoring in its own. Returns the summaries and the findings.

    Raises the error of `score_all` after every other step was done, as Airflow would.
    """
    run.sync_facilities()
    run.list_images()
    _, failed = score_all(run, run.plan_shards())
    summaries = run.summarize()
    findings = run.check()
    run.report(findings)
    if failed is not None:
        raise failed
    return summaries, findings
