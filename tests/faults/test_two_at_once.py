"""Two concurrent runs of one day leave the same rows as one undisturbed run."""

from __future__ import annotations

import signal

import psycopg
import pytest

from tests.faults.conftest import Job, Tables


def count_results_by_run(job: Job) -> dict[str, int]:
    """The number of results that each run has written."""
    with psycopg.connect(job.url) as connection:
        return dict(
            connection.execute(
                "select run_id, count(*) from fer.image_result group by 1"
            ).fetchall()
        )


@pytest.mark.parametrize(
    ("second", "arguments"),
    [
        pytest.param("night", (), id="a retry"),
        pytest.param("backfill", (), id="a backfill"),
        pytest.param("again", ("--rescore",), id="a rescore"),
    ],
)
def test_two_concurrent_runs_that_score_the_same_images(
    job: Job, undisturbed: Tables, second: str, arguments: tuple[str, ...]
) -> None:
    # At this point no chunk is being written, so neither run waits for a lock of the other.
    point = "classify.after:1:STOP"
    runs = [job.start(point), job.start(point, *arguments, run_id=second)]
    for process in runs:
        process.wait_until("failpoint")
    for process in runs:
        process.send(signal.SIGCONT)
    assert [process.wait() for process in runs] == [0, 0], [p.lines for p in runs]
    assert job.read_tables() == undisturbed
    assert job.count_incomplete_summaries() == 0
    assert sum(count_results_by_run(job).values()) == 150


@pytest.mark.parametrize("point", ["list.copy.during:1", "list.page:2"])
def test_two_concurrent_listings(job: Job, undisturbed: Tables, point: str) -> None:
    runs = [job.start(f"{point}:STOP"), job.start(f"{point}:STOP", run_id="backfill")]
    for process in runs:
        process.wait_until("failpoint")
    for process in runs:
        process.send(signal.SIGCONT)
    assert [process.wait() for process in runs] == [0, 0], [p.lines for p in runs]
    assert job.read_tables() == undisturbed


@pytest.mark.parametrize("point", ["plan.after:1", "fetch.after:1", "score.after:1"])
def test_a_stopped_run_that_continues_after_its_retry_changes_nothing(
    job: Job, undisturbed: Tables, point: str
) -> None:
    stopped_run = job.start(f"{point}:STOP")
    stopped_run.wait_until("failpoint")
    stopped_run.send(signal.SIGSTOP)
    code, process = job.run(run_id="retry")
    assert code == 0, process.lines
    assert job.read_tables() == undisturbed
    written = count_results_by_run(job)
    stopped_run.send(signal.SIGCONT)
    assert stopped_run.wait() == 0, stopped_run.lines
    assert job.read_tables() == undisturbed
    assert count_results_by_run(job) == written


@pytest.mark.parametrize("point", ["list.commit.before:1", "commit.before:3"])
def test_a_run_stopped_inside_a_transaction_loses_the_transaction(
    job: Job, undisturbed: Tables, point: str
) -> None:
    stopped_run = job.start(f"{point}:STOP", FER_STATEMENT_TIMEOUT_S="5")
    stopped_run.wait_until("failpoint")
    stopped_run.send(signal.SIGSTOP)
    # Waits for the locks of the stopped run, until the server ends its idle transaction.
    code, process = job.run(run_id="retry")
    assert code == 0, process.lines
    stopped_run.send(signal.SIGCONT)
    assert stopped_run.wait() == 75
    assert "the database" in stopped_run.errors
    assert job.read_tables() == undisturbed
    assert job.count_incomplete_summaries() == 0
