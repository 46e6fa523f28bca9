"""Start scoring processes for a shard, watch them, and report how they ended.

Scoring runs in a separate process: a crash in a decoder, a memory leak or a hang ends the scoring
process and not the task that started it. The scoring process reads its job as JSON from stdin and
writes one JSON line to stdout; its logs pass through on stderr. stdin and stdout are files, so that
neither side ever waits for the other. The run time, the resident memory, the output and the time
for a single image are limited, and a scoring process dies with its parent.

First, one process scores all facilities of the shard. If it dies, the facility that it was working
on is scored again in a process of its own, after all others: no facility can use up the time and
the tries of the others. For the same reason a facility that has taken half of the time that was
left is interrupted once, and continues after those that wait.

An image that was being decoded when a scoring process died is a suspect. The next process of its
facility scores the suspects one at a time before anything else. An image that was the only one in
flight in `MAX_CRASHES` crashes is quarantined: it gets the outcome `decoder_crashed`, and the rest
of the facility continues.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from fer_batch.errors import PermanentError, ScoringProcessError
from fer_batch.log import get_logger
from fer_batch.phrases import join_names
from fer_batch.pipeline import in_flight
from fer_batch.pipeline.jobs import JOB, RESULT, Job, ShardResult
from fer_batch.pipeline.processes import measure_resident_mb
from fer_batch.records import Image, KeyRange, Shard

log = get_logger(__name__)

MAX_CRASHES = 2
"""An image that was the only one in flight in this many crashes is quarantined."""
MAX_PROCESSES = 25
"""Maximum number of scoring processes that one facility of a shard may end."""
MAX_EARLY_DEATHS = 3
"""Maximum number of scoring processes of a shard that may die before they begin a facility."""
MAX_OUTPUT_BYTES = 16_000_000
"""A scoring process that writes more to stdout is killed. A result with 1,000 failed facilities has
less than 1 MB."""
MAX_MESSAGE_CHARACTERS = 2000
POLL_S = 0.1
_NAMED_FACILITIES = 5
_BLAS_LIBRARIES = ("OMP", "OPENBLAS", "MKL")


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """The limits of the scoring processes of a shard.

    `deadline_s` is the time for all of them together, `memory_mb` the memory of each of them,
    without that of its decoders. `threads` applies to each library with its own threads.
    """

    deadline_s: float
    memory_mb: int
    threads: int


def score_shard(
    job: Job,
    limits: ProcessLimits,
    environment: Mapping[str, str],
    command: Sequence[str] = (sys.executable, "-m", "fer_batch", "worker"),
) -> ShardResult:
    """Score a shard in scoring processes, one after another, until each facility is done.

    `environment` is the whole environment of the scoring process, with its settings. Raises
    PermanentError with the message of a scoring process; raises ScoringProcessError if a facility
    could not be finished because its scoring processes died, once the others are done, and if the
    machine lacks something to start one, such as space on its disk.
    """
    try:
        with tempfile.TemporaryFile() as file:  # unnamed, so that a crash leaves no keys on disk
            launcher = _Launcher(limits, environment, command, file.fileno())
            return _ShardSupervisor(job, launcher).run()
    except OSError as error:
        reason = error.strerror or error
        raise ScoringProcessError(
            f"no scoring process can be started for shard {job.shard.name!r}: {reason}",
            "Free space in the folder of temporary files, or look for too many processes or open "
            "files; nothing is lost, and a retry continues",
        ) from error


@dataclass(slots=True)
class _Facility:
    """A facility of the shard, and what happened to the processes that worked on it."""

    facility_id: str
    ranges: list[KeyRange] = field(default_factory=list)
    suspects: tuple[Image, ...] = ()
    crashes: Counter[Image] = field(default_factory=Counter)
    deaths: int = 0
    has_given_way: bool = False

    @property
    def quarantined(self) -> tuple[Image, ...]:
        return tuple(image for image, count in self.crashes.items() if count >= MAX_CRASHES)

    def add_death(self, suspects: Sequence[Image]) -> None:
        """Count a death of a process in which these images were in flight."""
        self.deaths += 1
        self.crashes.update(suspects if len(suspects) == 1 else ())
        quarantined = self.quarantined
        candidates = dict.fromkeys((*suspects, *self.suspects))
        self.suspects = tuple(image for image in candidates if image not in quarantined)


class _ShardSupervisor:
    """Decides which facilities of the shard the next process scores, until each is done."""

    def __init__(self, job: Job, launcher: _Launcher) -> None:
        self._job = job
        self._launcher = launcher
        self._deadline = time.monotonic() + launcher.limits.deadline_s
        facilities: dict[str, _Facility] = {}
        for key_range in job.shard.ranges:
            facility_id = key_range.batch.facility_id
            facilities.setdefault(facility_id, _Facility(facility_id)).ranges.append(key_range)
        self._queue = deque([list(facilities.values())])  # one process for each entry
        self._given_up: dict[str, list[str]] = {}  # facility ids by reason
        self._early_deaths = 0

    def run(self) -> ShardResult:
        """Score all facilities. Raises what `score_shard` raises."""
        result = ShardResult()
        while self._queue:
            group = self._queue.popleft()
            process = _ScoringProcess(
                self._launcher,
                self._build_job(group),
                self._deadline,
                self._list_interruptible(group),
            )
            ended = process.run()
            if ended.result is not None:
                result.add(ended.result)
            elif ended.is_late:
                unfinished = [group[process.find_position() :], *self._queue]
                names = [facility.facility_id for facility in chain.from_iterable(unfinished)]
                self._given_up.setdefault(ended.reason, []).extend(names)
                break
            else:
                self._handle_death(group, process, ended)
        if self._given_up:
            raise self._make_error(result)
        return result

    def _build_job(self, group: Sequence[_Facility]) -> Job:
        ranges = chain.from_iterable(facility.ranges for facility in group)
        return replace(
            self._job,
            shard=Shard(self._job.shard.name, tuple(ranges)),
            suspects=tuple(chain.from_iterable(facility.suspects for facility in group)),
            quarantined=tuple(chain.from_iterable(facility.quarantined for facility in group)),
        )

    def _list_interruptible(self, group: Sequence[_Facility]) -> list[bool]:
        """Whether each facility may be interrupted: once, and only if others wait."""
        waiting = len(self._queue)
        return [
            not facility.has_given_way and waiting + len(group) - number > 1
            for number, facility in enumerate(group)
        ]

    def _handle_death(self, group: list[_Facility], process: _ScoringProcess, ended: _Exit) -> None:
        """Put the facility that the process worked on behind all others, or give it up.

        Of a process that died before it began with a facility, it is the first one, so that another
        facility is the first of the next process.
        """
        facility = group[process.find_position()]
        if others := [other for other in group if other is not facility]:
            self._queue.appendleft(others)
        facts = {"shard": self._job.shard.name, "facility": facility.facility_id}
        if ended.is_interrupted:
            facility.has_given_way = True
            self._queue.append([facility])
            log.info("facility postponed", **facts, reason=ended.reason)
            return
        suspects = process.list_suspects()
        if not suspects and not process.has_begun():
            self._early_deaths += 1
            if ended.is_error or self._early_deaths > MAX_EARLY_DEATHS:
                reason = f"the scoring process of shard {self._job.shard.name!r} {ended.reason}"
                raise ScoringProcessError(reason, "Nothing is lost; a retry continues")
        facility.add_death(suspects)
        if not suspects:
            self._given_up.setdefault(ended.reason, []).append(facility.facility_id)
        elif facility.deaths >= MAX_PROCESSES:
            reason = f"ended {facility.deaths} times; look at the images named in the log"
            self._given_up.setdefault(reason, []).append(facility.facility_id)
        else:
            self._queue.append([facility])
        log.warning(
            "scoring process died",
            **facts,
            reason=ended.reason,
            suspects=[image.key for image in facility.suspects],
            quarantined=[image.key for image in facility.quarantined],
        )

    def _make_error(self, result: ShardResult) -> ScoringProcessError:
        deaths = [
            f"the scoring process of {join_names(names, _NAMED_FACILITIES)} {reason}"
            for reason, names in self._given_up.items()
        ]
        failures = [f"{name}: {reason}" for name, reason in result.failures.items()]
        return ScoringProcessError(
            f"shard {self._job.shard.name!r}: {'; '.join(deaths + failures)}",
            "What was written is kept; a retry continues from there",
        )


@dataclass(frozen=True, slots=True)
class _Exit:
    """How a scoring process ended: with its result, or for a reason.

    `is_late`: the deadline has passed. `is_interrupted`: other facilities wait, and the current one
    has taken long. `is_error`: the process itself reported an error by its exit code.
    """

    result: ShardResult | None
    reason: str = ""
    is_late: bool = False
    is_interrupted: bool = False
    is_error: bool = False


class _Launcher:
    """How a scoring process is started, and the in-flight register that it writes."""

    def __init__(
        self,
        limits: ProcessLimits,
        environment: Mapping[str, str],
        command: Sequence[str],
        register_fd: int,
    ) -> None:
        self.limits = limits
        self.register = Path(f"/dev/fd/{register_fd}")
        self._environment = environment
        self._command = command
        self._register_fd = register_fd
        self._began = time.monotonic()

    def launch(self, stdin: IO[bytes], stdout: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a process with an empty register."""
        in_flight.create_register(self.register, self.limits.threads)
        return subprocess.Popen(
            [*self._command, "--in-flight", str(self.register), "--parent", str(os.getpid())],
            stdin=stdin,
            stdout=stdout,
            pass_fds=[self._register_fd],
            env={
                **self._environment,
                **build_thread_limits(self.limits.threads),
                **self._compute_time_left(),
            },
        )

    def _compute_time_left(self) -> dict[str, str]:
        """The time left for the task now: a later process has less of it."""
        left_s = self._environment.get("FER_TIME_LEFT_S")
        if left_s is None:
            return {}
        return {"FER_TIME_LEFT_S": str(float(left_s) - (time.monotonic() - self._began))}


class _ScoringProcess:
    """One scoring process, and after its end what it was working on.

    `interruptible` is whether each facility of the job may be interrupted when it takes long.
    """

    def __init__(
        self, launcher: _Launcher, job: Job, deadline: float, interruptible: Sequence[bool]
    ) -> None:
        self._launcher = launcher
        self._job = job
        self._deadline = deadline
        self._interruptible = interruptible
        ids = [key_range.batch.facility_id for key_range in job.shard.ranges]
        order = {facility_id: number for number, facility_id in enumerate(dict.fromkeys(ids))}
        self._positions = [order[facility_id] for facility_id in ids]
        self._order = order

    def run(self) -> _Exit:
        """Start the process, and wait until it ends or exceeds a limit."""
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
            stdin.write(JOB.dump_json(self._job))
            stdin.seek(0)
            process = self._launcher.launch(stdin, stdout)
            try:
                ended = self._watch(process, stdout)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            return ended or _read_exit(process.returncode, stdout)

    def list_suspects(self) -> list[Image]:
        """The images that were in flight."""
        tracked = in_flight.read_register(self._launcher.register)
        return [image for image in tracked if image.batch.facility_id in self._order]

    def has_begun(self) -> bool:
        """Whether the process began with a facility."""
        return in_flight.read_begun_range(self._launcher.register) is not None

    def find_position(self) -> int:
        """The position of the facility that the process worked on; 0 if it had not begun."""
        for image in self.list_suspects():
            return self._order[image.batch.facility_id]
        return self._positions[self._find_range(0.0)[0]]

    def _find_range(self, started: float) -> tuple[int, float]:
        """The position of the current key range, and since when it is the current one."""
        begun = in_flight.read_begun_range(self._launcher.register)
        if begun is None or begun.index >= len(self._positions):
            return 0, started
        return begun.index, begun.since_s

    def _watch(self, process: subprocess.Popen[bytes], stdout: IO[bytes]) -> _Exit | None:
        """Wait until the process ends by itself (None) or exceeds a limit."""
        limits = self._launcher.limits
        started = time.monotonic()
        while True:
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                pass
            else:
                return None
            now = time.monotonic()
            if now > self._deadline:
                reason = f"passed its deadline of {limits.deadline_s:.0f} s"
                return _Exit(None, reason, is_late=True)
            used_mb = measure_resident_mb(process.pid)
            if used_mb > limits.memory_mb:
                return _Exit(None, f"grew to {used_mb} MB, over {limits.memory_mb} MB")
            if os.fstat(stdout.fileno()).st_size > MAX_OUTPUT_BYTES:
                return _Exit(None, f"wrote more than {MAX_OUTPUT_BYTES / 1e6:.0f} MB to stdout")
            index, since = self._find_range(started)
            if self._interruptible[self._positions[index]] and now - since > self._deadline - now:
                return _Exit(None, "took half of the time while others wait", is_interrupted=True)


def _read_exit(code: int, output: IO[bytes]) -> _Exit:
    """How a process ended that was not killed here. Raises PermanentError with its message."""
    output.seek(0)
    text = output.read(MAX_OUTPUT_BYTES)
    if code == 0:
        try:
            return _Exit(RESULT.validate_json(text))
        except ValidationError:
            return _Exit(None, "ended without a complete result", is_error=True)
    if code < 0:
        return _Exit(None, f"was ended by {_get_signal_name(-code)}")
    message = text.decode(errors="replace").strip()[:MAX_MESSAGE_CHARACTERS]
    if code == PermanentError.exit_code:
        raise PermanentError(message or f"the scoring process failed with exit code {code}")
    return _Exit(None, message or f"failed with exit code {code}", is_error=True)


def _get_signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def build_thread_limits(threads: int) -> dict[str, str]:
    """The environment that limits the threads of BLAS libraries and of the S3 client.

    They read it when they are loaded. By default they start a thread for each core of the machine,
    even if the process may use fewer. OpenCV and ONNX Runtime are limited by scoring.py.
    """
    blas = {f"{library}_NUM_THREADS": str(threads) for library in _BLAS_LIBRARIES}
    return {**blas, "TOKIO_WORKER_THREADS": str(threads)}
