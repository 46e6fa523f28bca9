"""Start a scoring process, watch it, and report how it ended.

Scoring runs in a separate process: a crash in a decoder, a memory leak or a hang ends the scoring
process and not the task that started it. The scoring process reads its job as JSON from stdin and
writes one JSON line to stdout; its logs pass through on stderr. Its run time, its resident memory
and the time for a single image are limited, and it dies with its parent.

An image that was being decoded when a scoring process died is a suspect. The next scoring process
scores the suspects one at a time before anything else. An image that was the only one in flight in
`MAX_CRASHES` crashes is quarantined: it gets the outcome `decoder_crashed`, and the rest of the
shard continues.
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

from fer_batch.errors import PermanentError, ScoringProcessError
from fer_batch.log import get_logger
from fer_batch.pipeline import in_flight
from fer_batch.pipeline.jobs import JOB, RESULT, Job, ShardResult
from fer_batch.records import Image

log = get_logger(__name__)

MAX_CRASHES = 2
"""An image that was the only one in flight in this many crashes is quarantined."""
MAX_PROCESSES = 25
"""Maximum number of scoring processes that are started for one shard."""
POLL_S = 0.1
_BLAS_LIBRARIES = ("OMP", "OPENBLAS", "MKL")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """The limits of a scoring process. `threads` applies to each library with its own threads."""

    deadline_s: float
    memory_mb: int
    image_s: float
    threads: int


def score_shard(
    job: Job,
    limits: ProcessLimits,
    environment: Mapping[str, str],
    command: Sequence[str] = (sys.executable, "-m", "fer_batch", "worker"),
) -> ShardResult:
    """Score a shard in scoring processes, one after another, until one succeeds.

    `environment` is added to this process's environment and contains the settings of the scoring
    process. Raises PermanentError or ScoringProcessError with its message, or with the reason why
    it ended.
    """
    deadline = time.monotonic() + limits.deadline_s
    crashes: Counter[Image] = Counter()
    with tempfile.TemporaryFile() as file:  # unnamed, so that a crash leaves no keys on disk
        register = Path(f"/dev/fd/{file.fileno()}")
        for _ in range(MAX_PROCESSES):
            in_flight.create_register(register, limits.threads)
            ended = _ScoringProcess(
                job, limits, deadline, file.fileno(), register, environment, command
            ).run()
            if ended.result is not None:
                return ended.result
            suspects = [tracked.image for tracked in in_flight.read_register(register)]
            if ended.stops_shard or not suspects:
                raise ScoringProcessError(
                    f"the scoring process of shard {job.shard.name!r} {ended.reason}",
                    "What it had written is kept; a retry continues from there",
                )
            crashes.update(suspects if len(suspects) == 1 else ())
            job = _make_next_job(job, suspects, crashes)
            log.warning(
                "scoring process died",
                shard=job.shard.name,
                reason=ended.reason,
                suspects=[image.key for image in job.suspects],
                quarantined=[image.key for image in job.quarantined],
            )
    raise ScoringProcessError(
        f"shard {job.shard.name!r} crashed {MAX_PROCESSES} scoring processes",
        "Look at the images named in the log above",
    )


def _make_next_job(job: Job, suspects: list[Image], crashes: Counter[Image]) -> Job:
    quarantined = tuple(image for image, count in crashes.items() if count >= MAX_CRASHES)
    candidates = dict.fromkeys((*suspects, *job.suspects))
    return replace(
        job,
        suspects=tuple(image for image in candidates if image not in quarantined),
        quarantined=quarantined,
    )


@dataclass(frozen=True, slots=True)
class _Exit:
    """How a scoring process ended: with its result, or for a reason.

    `stops_shard` is True if no further process is started.
    """

    result: ShardResult | None
    reason: str = ""
    stops_shard: bool = False


class _ScoringProcess:
    def __init__(
        self,
        job: Job,
        limits: ProcessLimits,
        deadline: float,
        register_fd: int,
        register: Path,
        environment: Mapping[str, str],
        command: Sequence[str],
    ) -> None:
        self._job = job
        self._limits = limits
        self._deadline = deadline
        self._register_fd = register_fd
        self._register = register
        self._environment = environment
        self._command = command

    def run(self) -> _Exit:
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*self._command, "--in-flight", str(self._register), "--parent", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=output,
                pass_fds=[self._register_fd],
                env={
                    **os.environ,
                    **self._environment,
                    **build_thread_limits(self._limits.threads),
                },
            )
            try:
                self._send(process)
                ended = self._watch(process)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            return ended or self._read_exit(process.returncode, output)

    def _send(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101  (stdin=PIPE)
        try:
            process.stdin.write(JOB.dump_json(self._job))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; its exit code shows how

    def _watch(self, process: subprocess.Popen[bytes]) -> _Exit | None:
        """Wait until the process ends by itself (None) or exceeds a limit."""
        while True:
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                pass
            else:
                return None
            now = time.monotonic()
            if now > self._deadline:
                return _Exit(None, f"passed its deadline of {self._limits.deadline_s:.0f} s", True)
            used_mb = measure_resident_mb(process.pid)
            if used_mb > self._limits.memory_mb:
                return _Exit(None, f"grew to {used_mb} MB, over {self._limits.memory_mb} MB")
            for tracked in in_flight.read_register(self._register):
                if now - tracked.since_s > self._limits.image_s:
                    return _Exit(None, f"hung on one image for {self._limits.image_s:.0f} s")

    def _read_exit(self, code: int, output: IO[bytes]) -> _Exit:
        if code == 0:
            output.seek(0)
            return _Exit(RESULT.validate_json(output.read()))
        if code < 0:
            return _Exit(None, f"was ended by {signal.Signals(-code).name}")
        output.seek(0)
        message = output.read().decode(errors="replace").strip()
        if code == PermanentError.exit_code:
            raise PermanentError(message or f"the scoring process failed with exit code {code}")
        return _Exit(None, message or f"failed with exit code {code}", True)


def build_thread_limits(threads: int) -> dict[str, str]:
    """The environment that limits the threads of BLAS libraries and of the S3 client.

    They read it when they are loaded. By default they start a thread for each core of the machine,
    even if the process may use fewer. OpenCV and ONNX Runtime are limited by scoring.py.
    """
    blas = {f"{library}_NUM_THREADS": str(threads) for library in _BLAS_LIBRARIES}
    return {**blas, "TOKIO_WORKER_THREADS": str(threads)}


def measure_resident_mb(pid: int) -> int:
    """Resident memory of a process in MB; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel (Linux) kill this process when its parent ends."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)
