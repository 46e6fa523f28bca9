"""A run that is killed at any point of its way leaves nothing that a rerun does not put right.

For each seed one day is killed over and over: at the first point, then the rerun at the second,
and so on, each at a chosen pass. Then a run is left alone, and every table must be the one of a
day that nobody disturbed. With `FER_FAULT_SEEDS=20` every seed goes through every point; without
it every seed goes through the points of `EVERY_SEED`, and each of the others has one seed.
"""

from __future__ import annotations

import os
import random
import signal

import pytest

from fer_batch.failpoints import NAMES
from tests.faults.conftest import Job, Tables

SEEDS = int(os.environ.get("FER_FAULT_SEEDS", "3"))
SCORING = NAMES[NAMES.index("fetch.before") : NAMES.index("commit.after") + 1]
"""The points of the scoring child. All others are passed by the command itself."""
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
    "report.during",
}
PASSES = {
    **dict.fromkeys(("list.before", "list.page", "list.commit.before", "list.commit.after"), 3),
    **dict.fromkeys(("list.copy.before", "list.copy.after", "list.copy.during"), 2),
    "list.upsert.after": 2,
    **dict.fromkeys((name for name in SCORING), 4),
    **dict.fromkeys((name for name in SCORING if name.startswith(("fetch", "decode"))), 8),
    "summary.during": 2,
}
"""So many times each point is passed at least, wherever the day stands then; else once."""


def points(seed: int) -> list[str]:
    """The points of a seed, in the order of a run."""
    return [
        name
        for number, name in enumerate(NAMES)
        if SEEDS > 3 or name in EVERY_SEED or number % 3 == seed
    ]


def killed(job: Job, point: str, nth: int) -> None:
    """A run whose process is killed by its own SIGKILL at a point."""
    code, process = job.run(f"{point}:{nth}")
    assert process.passed(point), (point, nth, process.lines)
    if point in SCORING:
        # Only the child died. Its parent said so, and did what else is to be done.
        assert code == 75, process.lines
        assert "was ended by SIGKILL" in process.errors
    else:
        assert code == -signal.SIGKILL


def machine_dies(job: Job, point: str, nth: int) -> None:
    """A run of which every process is killed while one stands at a point."""
    process = job.start(f"{point}:{nth}:STOP")
    process.wait_until("failpoint")
    process.send(signal.SIGKILL)
    assert process.end() == -signal.SIGKILL


def check_report(job: Job) -> None:
    """Whatever is published is whole."""
    for report in (job.folder / "reports").glob("*.html"):
        assert report.read_text().rstrip().endswith("</html>")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_kills_at_every_point_leave_the_tables_of_an_undisturbed_day(
    job: Job, undisturbed: Tables, seed: int
) -> None:
    chosen = random.Random(seed)
    is_whole_machine = seed % 2 == 1
    for point in points(seed):
        nth = chosen.randint(1, PASSES.get(point, 1))
        if is_whole_machine:
            machine_dies(job, point, nth)
        elif point != "decode.during":  # that one is survived, see below
            killed(job, point, nth)
        check_report(job)
    job.finish()
    assert job.tables() == undisturbed
    # A parent that lost its child publishes the day as incomplete, and says so.
    incomplete = job.incomplete_summaries()
    assert (incomplete == 0) if is_whole_machine else (incomplete > 0)
    assert job.count("satisfaction_summary") == 3 + incomplete


def test_the_death_of_the_child_alone_while_it_decodes_is_survived(
    job: Job, undisturbed: Tables
) -> None:
    # In the second facility, so that the next child, which counts anew, has fewer left.
    code, process = job.run("decode.during:130")
    assert process.passed("decode.during")
    assert code == 0, process.lines
    (death,) = (line for line in process.lines if line["event"] == "scoring process died")
    assert death["what"] == "was ended by SIGKILL"
    assert len(death["suspects"]) == 1
    assert job.tables() == undisturbed
    assert job.incomplete_summaries() == 0


@pytest.mark.parametrize("point", ["list.copy.during:2", "summary.commit.before"])
def test_a_run_that_is_told_to_end_gives_up_what_it_has_in_hand(
    job: Job, undisturbed: Tables, point: str
) -> None:
    name, _, nth = point.partition(":")
    code, _ = job.run(f"{name}:{nth or 1}:TERM")
    assert code == -signal.SIGTERM
    assert job.count("satisfaction_summary") == 0
    job.finish()
    assert job.tables() == undisturbed


def test_a_run_that_is_told_to_end_takes_its_child_along(job: Job, undisturbed: Tables) -> None:
    process = job.start("commit.before:5:STOP")
    process.wait_until("failpoint")
    process.popen.terminate()
    assert process.end() == -signal.SIGTERM  # read up to its end, so the child is gone as well
    # Four chunks of two images are there, and nothing of the one in hand.
    assert job.count("image_result") == 8
    job.finish()
    assert job.tables() == undisturbed
    assert job.incomplete_summaries() == 0
