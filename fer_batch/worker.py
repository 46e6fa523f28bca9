"""Start a scoring process, watch it, and report how it ended.

Scoring runs in a child of its own: a decoder that crashes, a leak or a hang ends the child and
not the task that started it. The child gets its job as JSON on stdin and answers with one JSON
line on stdout; its logs pass through on stderr. It has a deadline, a bound on resident memory,
a bound on the time that a single image may take, and it dies with its parent.

An image that was being decoded when a child died is a suspect. The next child scores suspects
one at a time before anything else; one that takes a child down on its own again is given the
outcome `killed_worker`, and the rest of the shard goes on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from fer_batch import announce
from fer_batch.errors import PermanentError, WorkerError
from fer_batch.jobs import JOB, RESULT, Job, ShardResult
from fer_batch.log import logger
from fer_batch.records import Image

log = logger(__name__)

MAX_KILLS = 2
"""Children that an image may take down before it is given up: the third try is not made."""
MAX_CHILDREN = 25
POLL_S = 0.1
_THREADS_OF = ("OMP", "OPENBLAS", "MKL")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds on one child. `threads` holds for each library that has threads of its own."""

    deadline_s: float
    memory_mb: int
    image_s: float
    threads: int


def score_shard(
    job: Job,
    limits: Limits,
    environment: Mapping[str, str],
    command: Sequence[str] = (sys.executable, "-m", "fer_batch", "worker"),
) -> ShardResult:
    """Score a shard in child processes until one ends well.

    `environment` is added to this process's own; the child's settings are in it.

    Raises PermanentError or WorkerError with what the child said or what ended it.
    """
    deadline = time.monotonic() + limits.deadline_s
    kills: Counter[Image] = Counter()
    with tempfile.TemporaryFile() as file:  # without a name: no death leaves its keys on the disk
        slots = Path(f"/dev/fd/{file.fileno()}")
        for _ in range(MAX_CHILDREN):
            announce.create(slots, limits.threads)
            ended = _Child(job, limits, deadline, file.fileno(), slots, environment, command).run()
            if ended.result is not None:
                return ended.result
            suspects = [a.image for a in announce.read(slots)]
            if ended.is_final or not suspects:
                raise WorkerError(
                    f"the scoring process of shard {job.shard.name!r} {ended.what}",
                    "What it had written is kept; a retry goes on from there",
                )
            kills.update(suspects if len(suspects) == 1 else ())
            job = _next_job(job, suspects, kills)
            log.warning(
                "scoring process died",
                shard=job.shard.name,
                what=ended.what,
                suspects=[s.key for s in job.suspects],
                given_up=[c.key for c in job.condemned],
            )
    raise WorkerError(
        f"shard {job.shard.name!r} took {MAX_CHILDREN} scoring processes down",
        "Look at the images named in the log above",
    )


def _next_job(job: Job, suspects: list[Image], kills: Counter[Image]) -> Job:
    condemned = tuple(image for image, count in kills.items() if count >= MAX_KILLS)
    seen = dict.fromkeys((*suspects, *job.suspects))
    return replace(
        job,
        suspects=tuple(image for image in seen if image not in condemned),
        condemned=condemned,
    )


@dataclass(frozen=True, slots=True)
class _End:
    """How a child ended: with its result, or with what happened to it."""

    result: ShardResult | None
    what: str = ""
    is_final: bool = False


class _Child:
    def __init__(
        self,
        job: Job,
        limits: Limits,
        deadline: float,
        slots_fd: int,
        slots: Path,
        environment: Mapping[str, str],
        command: Sequence[str],
    ) -> None:
        self._job = job
        self._limits = limits
        self._deadline = deadline
        self._slots_fd = slots_fd
        self._slots = slots
        self._environment = environment
        self._command = command

    def run(self) -> _End:
        with tempfile.TemporaryFile() as answer:
            process = subprocess.Popen(
                [*self._command, "--announce", str(self._slots), "--parent", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=answer,
                pass_fds=[self._slots_fd],
                env={**os.environ, **self._environment, **thread_bounds(self._limits.threads)},
            )
            try:
                self._send(process)
                ended = self._watch(process)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            return ended or self._read(process.returncode, answer)

    def _send(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101  (a pipe was asked for)
        try:
            process.stdin.write(JOB.dump_json(self._job))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; how is said by its exit code

    def _watch(self, process: subprocess.Popen[bytes]) -> _End | None:
        """Wait for the child's own end (None), or say which bound it broke."""
        while True:
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                pass
            else:
                return None
            now = time.monotonic()
            if now > self._deadline:
                return _End(None, f"passed its deadline of {self._limits.deadline_s:.0f} s", True)
            used_mb = resident_mb(process.pid)
            if used_mb > self._limits.memory_mb:
                return _End(None, f"grew to {used_mb} MB, over {self._limits.memory_mb} MB")
            for announced in announce.read(self._slots):
                if now - announced.since_s > self._limits.image_s:
                    return _End(None, f"hung on one image for {self._limits.image_s:.0f} s")

    def _read(self, code: int, answer: IO[bytes]) -> _End:
        if code == 0:
            answer.seek(0)
            return _End(RESULT.validate_json(answer.read()))
        if code < 0:
            return _End(None, f"was ended by {signal.Signals(-code).name}")
        answer.seek(0)
        said = answer.read().decode(errors="replace").strip()
        if code == PermanentError.exit_code:
            raise PermanentError(said or f"the scoring process failed with exit code {code}")
        return _End(None, said or f"failed with exit code {code}", True)


def thread_bounds(threads: int) -> dict[str, str]:
    """The environment that bounds what a library decides as it is loaded: BLAS, and the S3 client.

    Unset they take a thread for each core of the machine, however few of them a worker may use.
    OpenCV and ONNX Runtime are told by scoring.py.
    """
    bounded = {f"{library}_NUM_THREADS": str(threads) for library in _THREADS_OF}
    return {**bounded, "TOKIO_WORKER_THREADS": str(threads)}


def resident_mb(pid: int) -> int:
    """Resident memory of a process in MB; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel (Linux) to kill this process when its parent is gone."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
