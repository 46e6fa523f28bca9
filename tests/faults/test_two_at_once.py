"""Two real runs of one day at once leave one set of rows, the one of an undisturbed day."""

from __future__ import annotations

import signal

import psycopg
import pytest

from tests.faults.conftest import Job, Tables


def writers(job: Job) -> dict[str, int]:
    """How many results each run has written."""
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
def test_two_runs_with_the_same_images_in_hand(
    job: Job, undisturbed: Tables, second: str, arguments: tuple[str, ...]
) -> None:
    point = "classify.after:1:STOP"  # no chunk is being written, so none waits for the other
    runs = [job.start(point), job.start(point, *arguments, run_id=second)]
    for process in runs:
        process.wait_until("failpoint")
    for process in runs:
        process.send(signal.SIGCONT)
    assert [process.end() for process in runs] == [0, 0], [p.lines for p in runs]
    assert job.tables() == undisturbed
    assert job.incomplete_summaries() == 0
    assert sum(writers(job).values()) == 150


@pytest.mark.parametrize("point", ["list.copy.during:1", "list.page:2"])
def test_two_runs_that_list_at_once(job: Job, undisturbed: Tables, point: str) -> None:
    runs = [job.start(f"{point}:STOP"), job.start(f"{point}:STOP", run_id="backfill")]
    for process in runs:
        process.wait_until("failpoint")
    for process in runs:
        process.send(signal.SIGCONT)
    assert [process.end() for process in runs] == [0, 0], [p.lines for p in runs]
    assert job.tables() == undisturbed


@pytest.mark.parametrize("point", ["plan.after:1", "fetch.after:1", "score.after:1"])
def test_a_run_that_wakes_up_after_its_retry_changes_nothing(
    job: Job, undisturbed: Tables, point: str
) -> None:
    zombie = job.start(f"{point}:STOP")
    zombie.wait_until("failpoint")
    zombie.send(signal.SIGSTOP)
    code, process = job.run(run_id="retry")
    assert code == 0, process.lines
    assert job.tables() == undisturbed
    written = writers(job)
    zombie.send(signal.SIGCONT)
    assert zombie.end() == 0, zombie.lines
    assert job.tables() == undisturbed
    assert writers(job) == written


@pytest.mark.parametrize("point", ["list.commit.before:1", "commit.before:3"])
def test_a_run_that_sleeps_in_a_transaction_loses_it(
    job: Job, undisturbed: Tables, point: str
) -> None:
    zombie = job.start(f"{point}:STOP", FER_STATEMENT_TIMEOUT_S="5")
    zombie.wait_until("failpoint")
    zombie.send(signal.SIGSTOP)
    # Waits for what the sleeper holds, until the server takes it from it.
    code, process = job.run(run_id="retry")
    assert code == 0, process.lines
    zombie.send(signal.SIGCONT)
    assert zombie.end() == 75
    assert "the database" in zombie.errors
    assert job.tables() == undisturbed
    assert job.incomplete_summaries() == 0
