"""A run that is killed at any failpoint is repaired by a rerun.

For each seed the runs of one day are killed one after the other: the first run at the first
failpoint, its rerun at the second, and so on, each at a random pass. The last run is not disturbed,
and then every table must equal that of an undisturbed day. With `FER_FAULT_SEEDS=20` every seed
uses every failpoint; without it every seed uses the failpoints of `EVERY_SEED`, and each of the
others is used by one seed.
"""

from __future__ import annotations

import os
import random
import signal

import pytest

from fer_batch.testing.failpoints import NAMES
from tests.faults.conftest import Job, Tables

SEEDS = int(os.environ.get("FER_FAULT_SEEDS", "2"))
SCORING = NAMES[NAMES.index("fetch.before") : NAMES.index("commit.after") + 1]
"""The failpoints of the scoring process. The command itself passes all others."""
EVERY_SEED = {
    "list.page",
    "list.copy.during",
    "list.commit.before",
    "plan.after",
    "fetch.after",
    "decode.after",
    "classify.after",
    "copy.during",
    "upsert.during",
    "commit.before",
    "commit.after",
    "summary.during",
    "summary.commit.before",
    "file.during",
}
PASSES = {
    **dict.fromkeys(("list.before", "list.page", "list.commit.before", "list.commit.after"), 3),
    **dict.fromkeys(("list.copy.before", "list.copy.after", "list.copy.during"), 2),
    "list.upsert.after": 2,
    **dict.fromkeys((name for name in SCORING), 4),
    **dict.fromkeys((name for name in SCORING if name.startswith(("fetch", "decode"))), 8),
    "summary.during": 2,
}
"""How often a run passes each failpoint at least, however far the day has come; default 1."""


def list_points(seed: int) -> list[str]:
    """The failpoints of a seed, in the order of a run."""
    return [
        name
        for number, name in enumerate(NAMES)
        if SEEDS > 2 or name in EVERY_SEED or number % 2 == seed
    ]


def kill_process(job: Job, point: str, nth: int) -> None:
    """Run until the process that passes the failpoint kills itself with SIGKILL."""
    code, process = job.run(f"{point}:{nth}")
    assert process.has_reached(point), (point, nth, process.lines)
    if point in SCORING:
        # Only the child was killed. Its parent reported that and completed the other steps.
        assert code == 75, process.lines
        assert "was ended by SIGKILL" in process.errors
    else:
        assert code == -signal.SIGKILL


def kill_all_processes(job: Job, point: str, nth: int) -> None:
    """Kill all processes of a run while one is stopped at a failpoint, as a power failure would."""
    process = job.start(f"{point}:{nth}:STOP")
    process.wait_until("failpoint")
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def check_reports(job: Job) -> None:
    """Every report that exists is complete."""
    for report in (job.folder / "reports").glob("*.html"):
        assert report.read_text().rstrip().endswith("</html>")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_after_kills_at_every_failpoint_a_rerun_leaves_the_tables_of_an_undisturbed_day(
    job: Job, undisturbed: Tables, seed: int
) -> None:
    rng = random.Random(seed)
    is_whole_machine = seed % 2 == 1
    for point in list_points(seed):
        nth = rng.randint(1, PASSES.get(point, 1))
        if is_whole_machine:
            kill_all_processes(job, point, nth)
        elif point != "decode.during":  # the run survives this one, see below
            kill_process(job, point, nth)
        check_reports(job)
    job.finish()
    assert job.read_tables() == undisturbed
    # A parent whose child was killed publishes the day with a summary marked as incomplete.
    incomplete = job.count_incomplete_summaries()
    assert (incomplete == 0) if is_whole_machine else (incomplete > 0)
    assert job.count_rows("satisfaction_summary") == 3 + incomplete


def test_a_run_survives_that_its_child_is_killed_while_decoding(
    job: Job, undisturbed: Tables
) -> None:
    # In the second facility: the next child starts its count again and has fewer images left, so
    # that it never reaches the pass.
    code, process = job.run("decode.during:130")
    assert process.has_reached("decode.during")
    assert code == 0, process.lines
    (death,) = (line for line in process.lines if line["event"] == "scoring process died")
    assert death["reason"] == "was ended by SIGKILL"
    assert death["suspects"]
    assert job.read_tables() == undisturbed
    assert job.count_incomplete_summaries() == 0


@pytest.mark.parametrize("point", ["list.copy.during:2", "summary.commit.before"])
def test_a_terminated_run_rolls_back_its_transaction(
    job: Job, undisturbed: Tables, point: str
) -> None:
    name, _, nth = point.partition(":")
    code, _ = job.run(f"{name}:{nth or 1}:TERM")
    assert code == -signal.SIGTERM
    assert job.count_rows("satisfaction_summary") == 0
    job.finish()
    assert job.read_tables() == undisturbed


def test_a_terminated_run_terminates_its_child(job: Job, undisturbed: Tables) -> None:
    process = job.start("commit.before:5:STOP")
    process.wait_until("failpoint")
    process.popen.terminate()
    # This reads stderr to its end, so the child has ended too.
    assert process.wait() == -signal.SIGTERM
    # Four chunks of two images were committed, and nothing of the fifth.
    assert job.count_rows("image_result") == 8
    job.finish()
    assert job.read_tables() == undisturbed
    assert job.count_incomplete_summaries() == 0
