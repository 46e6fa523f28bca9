"""A run: the steps of the nightly job for selected facilities and days, in order.

Airflow calls the steps one by one through the `fer-batch` command; `whole_run` calls all of them in
one process. Both use `Run`, so each step is implemented once. A step reads its input from
the tables, writes its result to them, and can be repeated at any time. How a step works is left to
its module.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_batch.errors import (
    FerError,
    ModelError,
    PermanentError,
    RetryableError,
)
from fer_batch.facilities.capture_days import check_has_begun
from fer_batch.facilities.loading import load_registry
from fer_batch.log import get_logger
from fer_batch.pipeline.jobs import Job, ShardResult
from fer_batch.pipeline.selection import Selection
from fer_batch.records import Batch, ListedImage, Shard
from fer_batch.settings import Settings
from fer_batch.testing.failpoints import failpoint

if TYPE_CHECKING:
    import sqlalchemy as sa

    from fer_batch.digests.notify import Preview, Sent
    from fer_batch.model.classifier import Cnn
    from fer_batch.pipeline.listing import BatchListing

log = get_logger(__name__)


class Run:
    """The steps of one run. Each can be called alone."""

    def __init__(self, settings: Settings, selection: Selection) -> None:
        self.settings = settings
        self.selection = selection
        self.registry = load_registry(settings.facilities_file, settings)
        selected = selection.select_facilities(self.registry)
        self.facilities, self.invalid_facilities = selected.facilities, selected.invalid
        if not selection.force:
            now = datetime.now(UTC)
            check_has_begun(self.facilities.values(), selection.capture_day, now)

    @cached_property
    def batches(self) -> list[Batch]:
        """The selected facilities and days, without days whose rows were permanently deleted.

        Raises ConfigurationError if that leaves none, or if retention has dropped the capture day.
        """
        selected = [Batch(f, day) for day in self.selection.list_days() for f in self.facilities]
        if self.settings.database_url is None:
            return selected
        from fer_batch.database import connections
        from fer_batch.deletion import retention

        with connections.translate_errors(), self.engine.connect() as connection:
            return retention.filter_deleted(connection, selected, self.selection.capture_day)

    @cached_property
    def engine(self) -> sa.Engine:
        from fer_batch.database import connections, schema

        engine = connections.create_engine(self.settings)
        schema.check_migrated(engine)
        return engine

    @cached_property
    def model_version(self) -> str:
        """The model version of this run. Raises ModelError if it is not the requested one."""
        from fer_batch.model import active_model

        version = active_model.compute_version(self.settings, self.cnn.card)
        requested = self.selection.model_version
        if requested and not version.startswith(requested):
            raise ModelError(
                f"model version {requested} is not the one in use, which is {version[:12]}",
                "Set FER_MODEL_CARD to its card, or promote it, for a new run; "
                "see `fer-batch models`",
            )
        return version

    @cached_property
    def cnn(self) -> Cnn:
        """The CNN that this run was planned with, otherwise the active one."""
        from fer_batch.database import connections, ledger
        from fer_batch.model import active_model

        planned = None
        if self.settings.database_url is not None:
            with connections.translate_errors(), self.engine.connect() as connection:
                planned = ledger.find_version_of_run(connection, self.selection.run_id)
        if planned is not None:
            return active_model.load_version(self.settings, planned)
        return active_model.load_active(self.settings).cnn

    def begin(self) -> datetime | None:
        """Record this run with its model version and its CNN, unless it is already recorded.

        From then on every other process of the run uses the recorded version and CNN.

        Returns the start of the run by the database's clock if it rescores, otherwise None. A
        retry gets the same time and does not rescore what the run has already scored.
        """
        from fer_batch.database import connections, ledger, results
        from fer_batch.model import classifier, model_registry

        manifest = classifier.build_manifest(self.cnn.card, self.settings)
        card = self.cnn.card.model_dump(mode="json")
        with connections.transaction(self.engine) as connection:
            model_registry.register(connection, self.cnn)
            results.register_model_version(connection, self.model_version, manifest, card)
            began_at = ledger.begin_run(connection, self.selection.run_id, self.model_version)
        return began_at if self.selection.rescore else None

    def sync_facilities(self) -> None:
        """Write the whole registry to the table `facility`."""
        from fer_batch.database import connections, ledger

        with connections.transaction(self.engine) as connection:
            ledger.sync_facilities(
                connection, self.registry.facilities, invalid_ids=self.registry.invalid
            )

    def preview_images(self) -> list[BatchListing]:
        """List every batch without writing anything; `new_images` is what is left to score.

        If no database is set, these are all images.
        """
        from fer_batch.pipeline import listing

        batches, now = self.batches, datetime.now(UTC)
        if self.settings.database_url is None:
            return listing.preview_images(self.settings, self.facilities, batches, now)
        from fer_batch.database import connections, results
        from fer_batch.database.erased_keys import ErasureSecret

        engine, secret = self.engine, ErasureSecret(self.settings.erasure_secret)
        version = None if self.selection.rescore else self.model_version

        def load_finished(batch: Batch) -> Callable[[ListedImage], bool]:
            with connections.translate_errors(), engine.connect() as connection:
                return results.load_finished(connection, batch, version, secret).contain

        return listing.preview_images(self.settings, self.facilities, batches, now, load_finished)

    def list_images(self) -> list[BatchListing]:
        """List every batch into the ledger; a facility that fails does not affect the others.

        An invalid facility is only logged; `check_data` has a finding for it. With a lookback, late
        images of the days before it are counted.
        """
        from fer_batch.pipeline import late_images, listing

        for invalid in self.invalid_facilities.values():
            log.error("not listed", facility=invalid.facility_id, reason=invalid.reason)
        gc.freeze()  # what is loaded by now stays loaded: the collector need not visit it
        now = datetime.now(UTC)
        listings = listing.list_images(
            self.engine,
            self.settings,
            self.facilities,
            self.batches,
            self.selection.run_id,
            now,
        )
        if self.selection.lookback_days:
            ids = {each.batch.facility_id for each in listings if each.status == "listed"}
            facilities = {i: facility for i, facility in self.facilities.items() if i in ids}
            first_day = min(self.selection.list_days())
            late_images.find_late_images(self.engine, self.settings, facilities, first_day, now)
        return listings

    def plan_shards(self) -> list[Shard]:
        """Plan shards of the images without a final result."""
        from fer_batch.database import connections
        from fer_batch.pipeline import planning

        failpoint("plan.before")
        rescore_before = self.begin()
        with connections.transaction(self.engine) as connection:
            unreadable = self._list_unreadable(connection)
            shards = planning.plan_shards(
                connection,
                [
                    batch
                    for batch in self.batches
                    if batch.facility_id not in unreadable and self._is_permitted(batch)
                ],
                self.facilities,
                self.settings,
                self.model_version,
                rescore_before,
            )
        failpoint("plan.after")
        return shards

    def score_shard(self, shard: Shard) -> ShardResult:
        """Score a shard in a separate process; the outcomes are those that this run has written.

        Raises RetryableError or PermanentError if a facility failed; the others are scored.
        """
        from fer_batch.database import connections, results
        from fer_batch.pipeline import supervisor
        from fer_batch.pipeline.process_environment import build_environment

        job = Job(
            shard,
            self.selection.run_id,
            self.model_version,
            self.selection.capture_day,
            self.begin(),
        )
        limits = supervisor.ProcessLimits(
            deadline_s=self.settings.score_deadline_s,
            memory_mb=self.settings.score_memory_mb,
            threads=self.settings.threads,
        )
        failpoint("score.before")
        ids = {key_range.batch.facility_id for key_range in shard.ranges}
        facilities = [f for name, f in self.registry.facilities.items() if name in ids]
        result = supervisor.score_shard(job, limits, build_environment(self.settings, facilities))
        failpoint("score.after")
        # The result lacks what processes that died had written.
        with connections.translate_errors(), self.engine.connect() as connection:
            result.outcomes = results.count_outcomes(
                connection, shard.ranges, self.model_version, self.selection.run_id
            )
        if result.failures:
            what = "; ".join(f"{name}: {reason}" for name, reason in result.failures.items())
            kind = RetryableError if result.is_retryable else PermanentError
            raise kind(f"shard {shard.name!r}: {what}")
        return result

    def summarize(self) -> list[dict[str, Any]]:
        """Write a new revision of each summary that changed; returns the latest of each batch."""
        from fer_batch.pipeline import summarizing

        failpoint("summary.before")
        self.begin()
        return summarizing.summarize(
            self.engine, self.batches, self.facilities, self.selection, self.model_version
        )

    def estimate_anew(self, first_day: date) -> list[dict[str, Any]]:
        """Summarize the days from `first_day` to the capture day again from their stored results.

        Raises ConfigurationError if `first_day` is after the capture day.
        """
        from fer_batch.pipeline import summarizing

        days = self.selection.list_days_since(first_day)
        self.begin()
        return summarizing.estimate_anew(self.engine, days, self.facilities, self.selection.run_id)

    def _is_permitted(self, batch: Batch) -> bool:
        """Whether images may be read: the registry may have changed since they were listed."""
        return not self.facilities[batch.facility_id].get_denial_reason(
            batch.capture_day, datetime.now(UTC), self.settings.strict_registry_from
        )

    def _list_unreadable(self, connection: sa.Connection) -> list[str]:
        """The facilities whose erased images cannot be recognized; those of the run are logged.

        The status of their listing, `failed`, has the reason.
        """
        from fer_batch.database import erased_keys

        secret = erased_keys.ErasureSecret(self.settings.erasure_secret)
        unreadable = erased_keys.list_unreadable_facilities(connection, secret)
        for facility_id in unreadable:
            if facility_id in self.facilities:
                log.error("not planned: FER_ERASURE_SECRET does not fit", facility=facility_id)
        return unreadable

    def check_data(self) -> list[dict[str, Any]]:
        """Store and return the findings about the registry and of the data checks.

        Each is a `checks.Finding` as a dictionary.
        """
        from fer_batch.database import connections
        from fer_batch.findings import storing
        from fer_batch.pipeline import checks

        of_registry = [
            checks.make_invalid_finding(invalid, self.selection.capture_day)
            for invalid in self.invalid_facilities.values()
        ]
        of_registry += checks.find_in_registry(
            self.facilities, self.batches, datetime.now(UTC), self.settings.strict_registry_from
        )
        run_id = self.selection.run_id
        findings = of_registry + checks.check_data(
            self.engine, self.batches, self.model_version, run_id, self.settings
        )
        with connections.transaction(self.engine) as connection:
            storing.store_findings(connection, self.batches, findings, run_id, self.settings)
        return findings

    def report(self) -> Path:
        """Write the report of the capture day, about all facilities, and return its path.

        Runs the data checks before, unless this run was the last one that checked its days.
        """
        from fer_batch.database import connections
        from fer_batch.findings import storing
        from fer_batch.reporting import report

        with connections.transaction(self.engine) as connection:
            is_checked = storing.is_checked(connection, self.batches, self.selection.run_id)
        if not is_checked:
            self.check_data()
        failpoint("report.before")
        path = report.write_report(self.engine, self.settings, self.selection.capture_day)
        failpoint("report.after")
        return path

    def list_new_findings(self) -> list[dict[str, Any]]:
        """The findings of the facilities of the run that were opened since it began, no details."""
        from fer_batch.database import connections
        from fer_batch.findings import history

        ids = [*self.facilities, *self.invalid_facilities]
        with connections.transaction(self.engine) as connection:
            return history.list_new_findings(connection, ids, self.selection.run_id)

    def export(self) -> list[dict[str, Any]]:
        """Export the published figures of all facilities to the places of the settings.

        Returns what was done in each place; nothing if no place is set.
        """
        from fer_batch.export import places, publishing

        opened = places.open_places(self.settings)
        return [asdict(each) for each in publishing.export(self.engine, opened)] if opened else []

    def notify(
        self, subscriptions: Sequence[str] = (), *, resend: bool = False
    ) -> tuple[list[Sent], FerError | None]:
        """Send the digests that are due after this run; what became of each, and an error.

        `subscriptions` limits them to these names.
        """
        from fer_batch.digests import notify

        night = notify.Night(
            self.selection.capture_day,
            self.selection.run_id,
            datetime.now(UTC),
            [*self.facilities, *self.invalid_facilities],
            list(self.registry.facilities),
            resend,
        )
        return notify.send_digests(self.engine, self.settings, night, subscriptions)

    def preview_digests(self, subscriptions: Sequence[str] = ()) -> list[Preview]:
        """The digests of the capture day; nothing is sent."""
        from fer_batch.digests import notify

        return notify.preview_digests(
            self.engine, self.settings, self.selection.capture_day, subscriptions
        )
