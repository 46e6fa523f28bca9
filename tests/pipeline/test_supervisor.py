"""A scoring process that crashes, hangs or grows is killed, and the shard continues."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from fer_batch.errors import PermanentError, RetryableError, ScoringProcessError
from fer_batch.pipeline import in_flight, supervisor
from fer_batch.pipeline.jobs import Job, ShardResult
from fer_batch.pipeline.nightly import Run
from fer_batch.pipeline.whole_run import score_shards
from fer_batch.records import Batch, KeyRange, Shard

BATCH = Batch("north-mall", date(2026, 11, 21))
LIMITS = supervisor.ProcessLimits(deadline_s=30, memory_mb=600, threads=2)

PROLOGUE = """
import json, os, sys, time
from pathlib import Path
from fer_batch.pipeline.in_flight import InFlightRegister
from fer_batch.pipeline.jobs import JOB, RESULT, ShardResult
from fer_batch.records import Image
job = JOB.validate_json(sys.stdin.read())
in_flight = InFlightRegister(Path(sys.argv[sys.argv.index("--in-flight") + 1]))
jobs = Path(__file__).with_suffix(".jobs")
with jobs.open("a") as file:
    file.write(json.dumps({"facilities": [r.batch.facility_id for r in job.shard.ranges],
                           "suspects": [i.key for i in job.suspects],
                           "quarantined": [i.key for i in job.quarantined]}) + "\\n")
batches = {r.batch.facility_id: r.batch for r in job.shard.ranges}
batch = job.shard.ranges[0].batch
def image(key, facility_id=batch.facility_id): return Image(batches[facility_id], key, "etag", 1)
def begin(facility_id): in_flight.begin_range(list(batches).index(facility_id))
def done(**outcomes):
    print(RESULT.dump_json(ShardResult(outcomes=outcomes)).decode())
"""


def shard() -> Shard:
    return Shard("north-mall · 3 images", (KeyRange(BATCH, "a", "z", 3),))


def job(*facility_ids: str) -> Job:
    """A job with a shard of one facility, or of these."""
    batches = [Batch(name, BATCH.capture_day) for name in facility_ids]
    ranges = tuple(KeyRange(batch, "a", "z", 3) for batch in batches)
    chosen = Shard(f"{len(ranges)} facilities", ranges) if ranges else shard()
    return Job(chosen, "run", "0" * 64, BATCH.capture_day)


def child(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "child.py"
    script.write_text(PROLOGUE + textwrap.dedent(body))
    return [sys.executable, str(script)]


def read_jobs(tmp_path: Path) -> list[str]:
    return (tmp_path / "child.jobs").read_text().splitlines()


def read_facilities(tmp_path: Path) -> list[list[str]]:
    """The facilities of each job, in their order."""
    return [json.loads(line)["facilities"] for line in read_jobs(tmp_path)]


def test_the_result_of_the_child_is_returned(tmp_path: Path) -> None:
    result = supervisor.score_shard(job(), LIMITS, {}, child(tmp_path, "done(scored=2, no_face=1)"))
    assert result.outcomes == {"scored": 2, "no_face": 1}
    assert result.image_count == 3


def test_a_full_disk_is_retried_and_does_not_stop_the_next_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_register = in_flight.create_register
    tries = iter([OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])

    def create(path: Path, slots: int) -> None:
        if error := next(tries, None):
            raise error
        create_register(path, slots)

    monkeypatch.setattr(in_flight, "create_register", create)
    command = child(tmp_path, "done(scored=3)")

    class FakeRun:
        def score_shard(self, shard: Shard) -> ShardResult:
            return supervisor.score_shard(replace(job(), shard=shard), LIMITS, {}, command)

    full, next_one = shard(), replace(shard(), name="next")
    done, error = score_shards(cast("Run", FakeRun()), [full, next_one])
    assert [each.name for each, _ in done] == ["next"]
    assert isinstance(error, RetryableError)
    assert "'north-mall · 3 images': No space left on device" in str(error)
    assert "Free space in the folder of temporary files" in str(error)


def test_an_image_that_crashes_is_scored_alone_then_quarantined(tmp_path: Path) -> None:
    body = """
    if any(i.key == "crasher" for i in job.quarantined):
        done(scored=2, decoder_crashed=1)
    else:
        with in_flight.track(image("crasher")):
            os.kill(os.getpid(), 11)
    """
    result = supervisor.score_shard(job(), LIMITS, {}, child(tmp_path, body))
    assert result.outcomes["decoder_crashed"] == 1
    jobs = read_jobs(tmp_path)
    assert len(jobs) <= 4
    assert '"quarantined": ["crasher"]' in jobs[-1]
    assert '"suspects": ["crasher"]' in jobs[1]


def test_a_later_process_gets_less_of_the_time_of_the_task(tmp_path: Path) -> None:
    """Its SQL statements end with the task too."""
    times = tmp_path / "times"
    body = f"""
    with open({str(times)!r}, "a") as file:
        print(os.environ["FER_TIME_LEFT_S"], file=file)
    if any(i.key == "crasher" for i in job.quarantined):
        done(scored=2, decoder_crashed=1)
    else:
        with in_flight.track(image("crasher")):
            os.kill(os.getpid(), 11)
    """
    environment = {"FER_TIME_LEFT_S": "600"}
    supervisor.score_shard(job(), LIMITS, environment, child(tmp_path, body))
    left = [float(line) for line in times.read_text().split()]
    assert len(left) >= 2
    assert left == sorted(left, reverse=True)
    assert 600 > left[0] > left[-1] > 0


def test_of_two_suspects_only_the_one_that_crashes_is_quarantined(tmp_path: Path) -> None:
    body = """
    if any(i.key == "crasher" for i in job.quarantined):
        done(scored=3)
    elif job.suspects:
        with in_flight.track(image("crasher")):
            os.kill(os.getpid(), 9)
    else:
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier
        barrier = Barrier(2)
        def decode(key):
            with in_flight.track(image(key)):
                barrier.wait()
                os.kill(os.getpid(), 9)
        list(ThreadPoolExecutor(2).map(decode, ["harmless", "crasher"]))
    """
    supervisor.score_shard(job(), LIMITS, {}, child(tmp_path, body))
    assert {*json.loads(read_jobs(tmp_path)[1])["suspects"]} == {"harmless", "crasher"}
    assert '"quarantined": ["crasher"]' in read_jobs(tmp_path)[-1]


def test_a_child_that_passes_its_deadline_is_killed_and_retryable(tmp_path: Path) -> None:
    limits = supervisor.ProcessLimits(deadline_s=1.5, memory_mb=600, threads=1)
    with pytest.raises(ScoringProcessError, match="deadline"):
        supervisor.score_shard(job(), limits, {}, child(tmp_path, "time.sleep(60)"))


def test_the_deadline_holds_for_a_child_that_does_not_read_its_job(tmp_path: Path) -> None:
    large = job(*(f"facility-{n:04}" for n in range(1500)))  # more than a pipe holds
    limits = supervisor.ProcessLimits(deadline_s=0.5, memory_mb=600, threads=1)
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(ScoringProcessError, match="and 1,495 more passed its deadline"):
        supervisor.score_shard(large, limits, {}, sleeping)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("while True: os.write(1, b'x' * 1_000_000)", "wrote more than 16 MB to stdout"),
        ("""print('{"outcomes": {"sco')""", "ended without a complete result"),
        ("print('[]')", "ended without a complete result"),
        ("", "ended without a complete result"),
        ("sys.exit(75)", "failed with exit code 75"),
        ("sys.exit(1)", "failed with exit code 1"),
        ("os.kill(os.getpid(), 40)", "was ended by signal 40"),
    ],
)
def test_a_child_that_misbehaves_is_a_retryable_error(body: str, reason: str) -> None:
    command = [sys.executable, "-c", f"import os, sys\n{body}"]
    with pytest.raises(ScoringProcessError, match=reason):
        supervisor.score_shard(job(), LIMITS, {}, command)


def test_a_process_that_keeps_the_streams_of_the_child_open_is_not_waited_for(
    tmp_path: Path,
) -> None:
    body = """
    done(scored=3)
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        time.sleep(60)
    Path(__file__).with_suffix(".pid").write_text(str(pid))
    """
    try:
        assert supervisor.score_shard(job(), LIMITS, {}, child(tmp_path, body)).image_count == 3
    finally:
        os.kill(int((tmp_path / "child.pid").read_text()), signal.SIGKILL)


DEATHS = {
    "a crash": (
        "with in_flight.track(image('x', 'a')): os.kill(os.getpid(), 11)",
        "ended 25 times",
    ),
    "a kill": ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    "an error": ("sys.exit(1)", "failed with exit code 1"),
    "memory": ("hoard = b'x' * 500_000_000; time.sleep(60)", "grew to .*, over 300 MB"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_other_facilities_are_done_before_the_one_whose_process_died(
    tmp_path: Path, death: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MAX_CRASHES", 100)
    monkeypatch.setattr(supervisor, "MAX_PROCESSES", 3)
    dying, reason = DEATHS[death]
    body = f"""
    for name in batches:
        begin(name)
        if name == "a":
            {dying}
        with Path(__file__).with_suffix(".done").open("a") as file:
            file.write(name)
    done(scored=len(batches))
    """
    limits = supervisor.ProcessLimits(deadline_s=60, memory_mb=300, threads=1)
    reason = reason.replace("25", "3")
    with pytest.raises(ScoringProcessError, match=f"the scoring process of a {reason}"):
        supervisor.score_shard(job("a", "b", "c"), limits, {}, child(tmp_path, body))
    assert (tmp_path / "child.done").read_text() == "bc"
    jobs = read_facilities(tmp_path)
    assert jobs[:2] == [["a", "b", "c"], ["b", "c"]]
    assert jobs[2:] == [["a"]] * (2 if death == "a crash" else 0)


def test_a_facility_that_takes_half_of_the_time_gives_way_to_the_others(tmp_path: Path) -> None:
    body = """
    if list(batches) == ["slow", "other"]:
        with in_flight.track(image("innocent")):
            time.monotonic = lambda: -1e9  # it began long ago
            begin("slow")
            time.sleep(60)
    done(scored=len(batches))
    """
    limits = supervisor.ProcessLimits(deadline_s=100, memory_mb=600, threads=1)
    result = supervisor.score_shard(job("slow", "other"), limits, {}, child(tmp_path, body))
    assert result.outcomes == {"scored": 2}
    assert read_facilities(tmp_path) == [["slow", "other"], ["other"], ["slow"]]
    assert '"innocent"' not in "".join(read_jobs(tmp_path))


def test_each_facility_has_tries_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MAX_CRASHES", 1)
    monkeypatch.setattr(supervisor, "MAX_PROCESSES", 2)
    body = """
    for name in batches:
        begin(name)
        if name not in {i.key for i in job.quarantined}:
            with in_flight.track(image(name, name)):
                os.kill(os.getpid(), 11)
    done(scored=len(batches))
    """
    result = supervisor.score_shard(job("a", "b"), LIMITS, {}, child(tmp_path, body))
    assert result.outcomes == {"scored": 2}
    assert read_facilities(tmp_path) == [["a", "b"], ["b"], ["a"], ["b"]]


def test_failures_of_facilities_are_kept_when_another_one_dies(tmp_path: Path) -> None:
    body = """
    if "a" in batches:
        begin("a")
        os.kill(os.getpid(), 9)
    print(RESULT.dump_json(ShardResult(failures={"b on 2026-11-21": "no bucket"})).decode())
    """
    with pytest.raises(ScoringProcessError, match="SIGKILL; b on 2026-11-21: no bucket"):
        supervisor.score_shard(job("a", "b"), LIMITS, {}, child(tmp_path, body))


def test_a_shard_whose_processes_die_at_their_start_is_not_tried_for_each_facility() -> None:
    dying = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    with capture_logs() as lines, pytest.raises(ScoringProcessError, match="ended by SIGKILL"):
        supervisor.score_shard(job(*(f"facility-{n}" for n in range(20))), LIMITS, {}, dying)
    assert len(lines) == supervisor.MAX_EARLY_DEATHS


def test_the_error_names_the_deadline_of_the_shard(tmp_path: Path) -> None:
    body = """
    if job.suspects:
        time.sleep(60)
    with in_flight.track(image("crasher")):
        os.kill(os.getpid(), 9)
    """
    limits = supervisor.ProcessLimits(deadline_s=3, memory_mb=600, threads=1)
    with pytest.raises(ScoringProcessError, match="passed its deadline of 3 s"):
        supervisor.score_shard(job(), limits, {}, child(tmp_path, body))


def test_a_child_that_exceeds_its_memory_is_killed(tmp_path: Path) -> None:
    limits = supervisor.ProcessLimits(deadline_s=30, memory_mb=300, threads=1)
    body = "hoard = b'x' * 500_000_000\ntime.sleep(60)"
    with pytest.raises(ScoringProcessError, match="over 300 MB"):
        supervisor.score_shard(job(), limits, {}, child(tmp_path, body))


def test_a_permanent_error_of_the_child_is_not_retried(tmp_path: Path) -> None:
    body = "print('the model file was altered'); sys.exit(2)"
    with pytest.raises(PermanentError, match="the model file was altered"):
        supervisor.score_shard(job(), LIMITS, {}, child(tmp_path, body))
    assert len(read_jobs(tmp_path)) == 1


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, subprocess, sys, time
            code = ("import sys, time; from fer_batch.pipeline.processes import die_with_parent;"
                    "die_with_parent(int(sys.argv[1])); print('ready', flush=True); time.sleep(60)")
            child = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())],
                                     stdout=subprocess.PIPE, text=True)
            child.stdout.readline()
            print(child.pid, flush=True)
            time.sleep(60)
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def test_a_killed_parent_leaves_no_keys_on_disk(tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    command = child(
        tmp_path,
        """
        from fer_batch.pipeline.processes import die_with_parent
        die_with_parent(int(sys.argv[sys.argv.index("--parent") + 1]))
        with in_flight.track(image("a")):
            print("decoding", file=sys.stderr, flush=True)
            time.sleep(60)
        """,
    )
    code = (
        "import sys; from tests.pipeline.test_supervisor import job, LIMITS, supervisor;"
        "supervisor.score_shard(job(), LIMITS, {}, sys.argv[1:])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        env={**os.environ, "TMPDIR": str(disk)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stderr is not None
    assert parent.stderr.readline() == "decoding\n"
    parent.kill()
    parent.communicate()
    assert list(disk.iterdir()) == []


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"
