"""A scoring process that crashes, hangs or grows is killed, and the shard continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import date
from pathlib import Path

import pytest

from fer_batch.errors import PermanentError, ScoringProcessError
from fer_batch.pipeline import in_flight, supervisor
from fer_batch.pipeline.jobs import Job
from fer_batch.records import Batch, Image, KeyRange, Shard

BATCH = Batch("north-mall", date(2026, 11, 21))
LIMITS = supervisor.ProcessLimits(deadline_s=30, memory_mb=600, image_s=20, threads=2)

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
    file.write(json.dumps({"suspects": [i.key for i in job.suspects],
                           "quarantined": [i.key for i in job.quarantined]}) + "\\n")
batch = job.shard.ranges[0].batch
def image(key): return Image(batch, key, "etag", 1)
def done(**outcomes):
    print(RESULT.dump_json(ShardResult(outcomes=outcomes)).decode())
"""


def shard() -> Shard:
    return Shard("north-mall · 3 images", (KeyRange(BATCH, "a", "z", 3),))


def job() -> Job:
    return Job(shard(), "run", "0" * 64, BATCH.capture_day)


def child(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "child.py"
    script.write_text(PROLOGUE + textwrap.dedent(body))
    return [sys.executable, str(script)]


def read_jobs(tmp_path: Path) -> list[str]:
    return (tmp_path / "child.jobs").read_text().splitlines()


def test_the_result_of_the_child_is_returned(tmp_path: Path) -> None:
    result = supervisor.score_shard(job(), LIMITS, {}, child(tmp_path, "done(scored=2, no_face=1)"))
    assert result.outcomes == {"scored": 2, "no_face": 1}
    assert result.image_count == 3


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


def test_an_image_that_hangs_is_killed_and_quarantined(tmp_path: Path) -> None:
    body = """
    if job.quarantined:
        done(scored=2)
    else:
        with in_flight.track(image("endless")):
            time.sleep(60)
    """
    limits = supervisor.ProcessLimits(deadline_s=30, memory_mb=600, image_s=0.3, threads=1)
    assert supervisor.score_shard(job(), limits, {}, child(tmp_path, body)).outcomes == {
        "scored": 2
    }


def test_a_child_that_passes_its_deadline_is_killed_and_retryable(tmp_path: Path) -> None:
    limits = supervisor.ProcessLimits(deadline_s=1.5, memory_mb=600, image_s=20, threads=1)
    with pytest.raises(ScoringProcessError, match="deadline"):
        supervisor.score_shard(job(), limits, {}, child(tmp_path, "time.sleep(60)"))


def test_the_error_names_the_deadline_of_the_shard(tmp_path: Path) -> None:
    body = """
    if job.suspects:
        time.sleep(60)
    with in_flight.track(image("crasher")):
        os.kill(os.getpid(), 9)
    """
    limits = supervisor.ProcessLimits(deadline_s=3, memory_mb=600, image_s=20, threads=1)
    with pytest.raises(ScoringProcessError, match="passed its deadline of 3 s"):
        supervisor.score_shard(job(), limits, {}, child(tmp_path, body))


def test_a_child_that_exceeds_its_memory_is_killed(tmp_path: Path) -> None:
    limits = supervisor.ProcessLimits(deadline_s=30, memory_mb=300, image_s=20, threads=1)
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
            code = ("import sys, time; from fer_batch.pipeline.supervisor import die_with_parent;"
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
        from fer_batch.pipeline.supervisor import die_with_parent
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


def test_the_register_holds_any_key(tmp_path: Path) -> None:
    path = tmp_path / "in-flight"
    in_flight.create_register(path, 1)
    image = Image(BATCH, '\x01é\\"' * 250, '"etag"', 5)
    with in_flight.InFlightRegister(path).track(image):
        assert [tracked.image for tracked in in_flight.read_register(path)] == [image]
    assert in_flight.read_register(path) == []


def test_a_slot_that_is_being_rewritten_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "in-flight"
    in_flight.create_register(path, 2)
    register = in_flight.InFlightRegister(path)
    image = Image(BATCH, "a.jpg", "etag", 5)
    with register.track(image):
        half = path.read_bytes().replace(b'"a.jpg"', b'"a.j{"x')
        path.write_bytes(half)
        assert in_flight.read_register(path) == []
