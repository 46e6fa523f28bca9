"""A scoring process that crashes, hangs or grows is ended, named and survived."""

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

from fer_batch import announce, worker
from fer_batch.errors import PermanentError, WorkerError
from fer_batch.jobs import Job
from fer_batch.records import Batch, Image, KeyRange, Shard

BATCH = Batch("north-mall", date(2026, 11, 21))
LIMITS = worker.Limits(deadline_s=30, memory_mb=600, image_s=20, threads=2)

PROLOGUE = """
import json, os, sys, time
from pathlib import Path
from fer_batch.announce import Announcer
from fer_batch.jobs import JOB, RESULT, ShardResult
from fer_batch.records import Image
job = JOB.validate_json(sys.stdin.read())
announcer = Announcer(Path(sys.argv[sys.argv.index("--announce") + 1]))
memory = Path(__file__).with_suffix(".jobs")
with memory.open("a") as file:
    file.write(json.dumps({"suspects": [i.key for i in job.suspects],
                           "condemned": [i.key for i in job.condemned]}) + "\\n")
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


def jobs_seen(tmp_path: Path) -> list[str]:
    return (tmp_path / "child.jobs").read_text().splitlines()


def test_the_result_of_the_child_comes_back(tmp_path: Path) -> None:
    result = worker.score_shard(job(), LIMITS, {}, child(tmp_path, "done(scored=2, no_face=1)"))
    assert result.outcomes == {"scored": 2, "no_face": 1}
    assert result.image_count == 3


def test_an_image_that_kills_is_tried_alone_then_given_up(tmp_path: Path) -> None:
    body = """
    if any(i.key == "killer" for i in job.condemned):
        done(scored=2, killed_worker=1)
    else:
        with announcer.decoding(image("killer")):
            os.kill(os.getpid(), 11)
    """
    result = worker.score_shard(job(), LIMITS, {}, child(tmp_path, body))
    assert result.outcomes["killed_worker"] == 1
    seen = jobs_seen(tmp_path)
    assert len(seen) <= 4
    assert '"condemned": ["killer"]' in seen[-1]
    assert '"suspects": ["killer"]' in seen[1]


def test_only_the_killer_of_two_suspects_is_given_up(tmp_path: Path) -> None:
    body = """
    if any(i.key == "killer" for i in job.condemned):
        done(scored=3)
    elif job.suspects:
        with announcer.decoding(image("killer")):
            os.kill(os.getpid(), 9)
    else:
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier
        both = Barrier(2)
        def decode(key):
            with announcer.decoding(image(key)):
                both.wait()
                os.kill(os.getpid(), 9)
        list(ThreadPoolExecutor(2).map(decode, ["innocent", "killer"]))
    """
    worker.score_shard(job(), LIMITS, {}, child(tmp_path, body))
    assert {*json.loads(jobs_seen(tmp_path)[1])["suspects"]} == {"innocent", "killer"}
    assert '"condemned": ["killer"]' in jobs_seen(tmp_path)[-1]


def test_an_image_that_hangs_is_ended_and_given_up(tmp_path: Path) -> None:
    body = """
    if job.condemned:
        done(scored=2)
    else:
        with announcer.decoding(image("endless")):
            time.sleep(60)
    """
    limits = worker.Limits(deadline_s=30, memory_mb=600, image_s=0.3, threads=1)
    assert worker.score_shard(job(), limits, {}, child(tmp_path, body)).outcomes == {"scored": 2}


def test_a_child_that_is_late_is_ended_and_may_be_tried_again(tmp_path: Path) -> None:
    limits = worker.Limits(deadline_s=1.5, memory_mb=600, image_s=20, threads=1)
    with pytest.raises(WorkerError, match="deadline"):
        worker.score_shard(job(), limits, {}, child(tmp_path, "time.sleep(60)"))


def test_the_deadline_that_is_named_is_that_of_the_shard(tmp_path: Path) -> None:
    body = """
    if job.suspects:
        time.sleep(60)
    with announcer.decoding(image("killer")):
        os.kill(os.getpid(), 9)
    """
    limits = worker.Limits(deadline_s=3, memory_mb=600, image_s=20, threads=1)
    with pytest.raises(WorkerError, match="passed its deadline of 3 s"):
        worker.score_shard(job(), limits, {}, child(tmp_path, body))


def test_a_child_that_grows_is_ended(tmp_path: Path) -> None:
    limits = worker.Limits(deadline_s=30, memory_mb=300, image_s=20, threads=1)
    body = "hoard = b'x' * 500_000_000\ntime.sleep(60)"
    with pytest.raises(WorkerError, match="over 300 MB"):
        worker.score_shard(job(), limits, {}, child(tmp_path, body))


def test_what_the_child_refuses_for_good_is_not_retried(tmp_path: Path) -> None:
    body = "print('the model file was altered'); sys.exit(2)"
    with pytest.raises(PermanentError, match="the model file was altered"):
        worker.score_shard(job(), LIMITS, {}, child(tmp_path, body))
    assert len(jobs_seen(tmp_path)) == 1


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, subprocess, sys, time
            code = ("import sys, time; from fer_batch.worker import die_with_parent;"
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


def test_a_killed_parent_leaves_no_key_on_the_disk(tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    command = child(
        tmp_path,
        """
        from fer_batch.worker import die_with_parent
        die_with_parent(int(sys.argv[sys.argv.index("--parent") + 1]))
        with announcer.decoding(image("a")):
            print("decoding", file=sys.stderr, flush=True)
            time.sleep(60)
        """,
    )
    code = (
        "import sys; from tests.test_worker import job, LIMITS, worker;"
        "worker.score_shard(job(), LIMITS, {}, sys.argv[1:])"
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


def test_announced_images_survive_any_key(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    announce.create(slots, 1)
    image = Image(BATCH, '\x01é\\"' * 250, '"etag"', 5)
    with announce.Announcer(slots).decoding(image):
        assert [a.image for a in announce.read(slots)] == [image]
    assert announce.read(slots) == []


def test_a_slot_that_is_being_rewritten_is_passed_over(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    announce.create(slots, 2)
    announcer = announce.Announcer(slots)
    image = Image(BATCH, "a.jpg", "etag", 5)
    with announcer.decoding(image):
        half = slots.read_bytes().replace(b'"a.jpg"', b'"a.j{"x')
        slots.write_bytes(half)
        assert announce.read(slots) == []
