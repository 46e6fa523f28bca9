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
    "second",
    [
        pytest.param(("--run-id", "night"), id="a retry"),
        pytest.param(("--run-id", "backfill"), id="a backfill"),
        pytest.param(("--run-id", "again", "--rescore"), id="a rescore"),
    ],
)
def test_two_runs_with_the_same_images_in_hand(
    job: Job, undisturbed: Tables, second: tuple[str, ...]
) -> None:
    runs = [job.start("classify.after:4:STOP"), job.start("classify.after:4:STOP", *second)]
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
    runs = [job.start(f"{point}:STOP"), job.start(f"{point}:STOP", "--run-id", "backfill")]
    for process in runs:
        process.wait_until("failpoint")
    for process in runs:
        process.send(signal.SIGCONT)
    assert [process.end() for process in runs] == [0, 0], [p.lines for p in runs]
    assert job.tables() == undisturbed


@pytest.mark.parametrize("point", ["list.page:1", "fetch.after:9", "classify.after:3"])
def test_a_run_that_wakes_up_after_its_retry_changes_nothing(
    job: Job, undisturbed: Tables, point: str
) -> None:
    zombie = job.start(f"{point}:STOP")
    zombie.wait_until("failpoint")
    zombie.send(signal.SIGSTOP)
    code, process = job.run("", "--run-id", "retry")
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
    code, process = job.run("", "--run-id", "retry")
    assert code == 0, process.lines
    zombie.send(signal.SIGCONT)
    assert zombie.end() == 75
    assert "idle-in-transaction timeout" in zombie.errors
    assert job.tables() == undisturbed
    assert job.incomplete_summaries() == 0
