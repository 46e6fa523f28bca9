"""All steps of a run in one process, as `fer-batch run` does them.

The steps themselves are methods of `nightly.Run`. Which of them a failed step prevents is the same
as in Airflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fer_batch.errors import FerError, PermanentError, RetryableError
from fer_batch.log import get_logger
from fer_batch.pipeline.jobs import ShardResult
from fer_batch.pipeline.nightly import Run
from fer_batch.records import Shard

log = get_logger(__name__)

Out = TypeVar("Out")
Failure = TypeVar("Failure", bound=Exception)


def score_shards(
    run: Run, shards: Iterable[Shard]
) -> tuple[list[tuple[Shard, ShardResult]], RetryableError | PermanentError | None]:
    """Score the shards one after another.

    Returns those that succeeded with their results, and the error of the others: the first
    retryable one, otherwise the first.
    """
    done: list[tuple[Shard, ShardResult]] = []
    failure: RetryableError | PermanentError | None = None
    for shard in shards:
        try:
            done.append((shard, run.score_shard(shard)))
        except (RetryableError, PermanentError) as error:
            log.error("shard failed", shard=shard.name, error=str(error))
            failure = _choose_failure(failure, error)
    return done, failure


def _choose_failure(former: Failure | None, error: Failure) -> Failure:
    """The first retryable of two errors, otherwise the first: a retry then completes its work."""
    if isinstance(error, RetryableError) and not isinstance(former, RetryableError):
        return error
    return former or error


@dataclass(slots=True)
class NightResult:
    """What a whole run returned.

    `summaries`, `findings` and `report`, the path of the report, are None if their step failed.
    `failure` is the error of a failed step: the first retryable one, otherwise the first; None if
    no step failed.
    """

    summaries: list[dict[str, Any]] | None = None
    findings: list[dict[str, Any]] | None = None
    report: Path | None = None
    failure: Exception | None = None

    def attempt(self, step: Callable[[], Out]) -> Out | None:
        """The result of a step; None if it failed, and then its error is logged and kept."""
        try:
            return step()
        except Exception as error:
            if isinstance(error, FerError):
                log.error("step failed", error=str(error))
            else:
                log.exception("step failed")
            self.failure = _choose_failure(self.failure, error)
            return None


def run_steps(run: Run) -> NightResult:
    """Run all steps in this process, scoring in a separate one.

    A step that fails prevents the same steps as in Airflow: without a listing nothing is scored,
    but summaries, checks and report are always done. Raises what opening the database raises, and
    ConfigurationError for a day whose rows were deleted.
    """
    night = NightResult()
    if run.engine and run.batches:  # without the database no step would succeed
        night.attempt(lambda: _score_images(run))
    night.summaries = night.attempt(run.summarize)
    night.findings = night.attempt(run.check_data)
    night.report = night.attempt(run.report)
    night.attempt(run.export)
    night.attempt(lambda: _notify(run))
    return night


def _notify(run: Run) -> None:
    _, failure = run.notify()
    if failure is not None:
        raise failure


def _score_images(run: Run) -> None:
    run.sync_facilities()
    run.list_images()
    _, failure = score_shards(run, run.plan_shards())
    if failure is not None:
        raise failure
