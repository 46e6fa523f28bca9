"""Server processes of the local stack: started, found again after a crash, and ended.

A server is known by its mark: a text that holds the path of its folder and stands in its command
line or its environment. No file remembers a process id, so none can be stale, and no process
is ever taken for ours because of its name. Which servers there are, and how each says that it is
ready, is left to the modules that use this one.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fer_batch.stack.files import PRIVATE_FILE, StackError, tail

try:
    import psutil
except ImportError as error:
    raise StackError("the local stack is not installed", "Install fer-batch[local]") from error

MARK = "FER_STACK_SERVER"
"""Environment variable that carries the mark to every child of a server."""
LOG_BYTES = 10_000_000
PORTS = range(12_000, 22_000)
"""Below the ports that Linux gives to outgoing connections, also with 10,000 added."""


@dataclass(frozen=True)
class RunAs:
    """The unprivileged user to whom root hands a server."""

    name: str
    uid: int
    gid: int


class Server:
    """One server: a process with its children, its log, and the mark to find them by."""

    def __init__(self, name: str, mark: str, log: Path, run_as: RunAs | None = None) -> None:
        self.name = name
        self.mark = mark
        self.log = log
        self.run_as = run_as
        self._child: subprocess.Popen[bytes] | None = None
        self._family: set[psutil.Process] = set()
        self._log_start = 0

    def start(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> None:
        """Start the process in a session of its own, so that a Ctrl-C of ours does not reach it."""
        self._turn_log()
        user = (
            {"user": self.run_as.uid, "group": self.run_as.gid, "extra_groups": []}
            if self.run_as
            else {}
        )
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE)
        try:
            self._child = subprocess.Popen(
                [str(part) for part in command],
                env={**env, MARK: self.mark},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
                **user,  # type: ignore[call-overload]
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StackError(f"{self.name} cannot be started: {error}") from error
        finally:
            os.close(log)

    def processes(self) -> list[psutil.Process]:
        """Every live process with the mark, the oldest first."""
        uids = self._uids()
        born = {process: _born(process, self.mark, uids) for process in psutil.process_iter()}
        return sorted((p for p in born if born[p]), key=lambda process: born[process])

    def is_running(self) -> bool:
        if self._child is not None and self._child.poll() is None:
            return True
        return bool(self.processes())

    def wait_until(self, ready: Callable[[], bool], deadline_s: float) -> None:
        """Return when `ready()` is true. Raises StackError, with the end of the log, when the
        process dies or the time is over."""
        end = time.monotonic() + deadline_s
        while not ready():
            self.check_alive()
            if time.monotonic() > end:
                raise self.error(f"was not ready after {deadline_s:.0f} s")
            time.sleep(0.05)

    def check_alive(self) -> None:
        """Raises StackError, with the end of the log, if the process is gone."""
        if not self.is_running():
            code = f" with exit code {self._child.returncode}" if self._child else ""
            raise self.error(f"ended{code}")

    def wait(self, deadline_s: float) -> int:
        """Wait for a process that ends by itself; returns its exit code."""
        if self._child is None:
            raise self.error("was not started by this process")
        try:
            return self._child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise self.error(f"was not done after {deadline_s:.0f} s") from None

    def still_answers(self, ready: Callable[[], bool], deadline_s: float) -> bool:
        """Whether a server of an earlier run is there and usable; one that is not is ended."""
        if not self.is_running():
            return False
        try:
            self.wait_until(ready, deadline_s)
        except StackError:
            self.stop()
            return False
        return True

    def error(self, what: str) -> StackError:
        """What went wrong, with the lines that the server wrote since we started it."""
        said = tail(self.log, self._log_start)
        quoted = f"; its log ends with:\n{said}\n" if said else ""
        return StackError(f"{self.name} {what}{quoted}", f"The whole log is {self.log}")

    def log_since_start(self) -> str:
        return tail(self.log, self._log_start)

    def ask_to_end(self) -> None:
        """Send SIGTERM to the oldest process and do not wait; for servers that end together."""
        for process in self.processes()[:1]:
            self._family |= _descendants(process)
            _signal(process, signal.SIGTERM)

    def stop(self, polite: signal.Signals = signal.SIGTERM, wait_s: float = 15.0) -> None:
        """Ask the oldest process to end, and kill whatever is left when the time is over."""
        with deferred_signals():
            if asked := self.processes()[:1]:
                self._family |= _descendants(asked[0])
                _signal(asked[0], polite)
                psutil.wait_procs(asked, timeout=wait_s)
            # Waited for by their ids: a process that is dying no longer shows its mark.
            left = {*asked, *self._family, *self.processes()}
            for process in left:
                _signal(process, signal.SIGKILL)
            psutil.wait_procs(left, timeout=10)
            self._family.clear()
            if self._child is not None:
                self._child.wait()
                self._child = None

    def _uids(self) -> set[int]:
        return {os.geteuid(), self.run_as.uid if self.run_as else os.geteuid()}

    def _turn_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        self._log_start = self.log.stat().st_size if self.log.exists() else 0


def _born(process: psutil.Process, mark: str, uids: set[int]) -> float:
    """When a process with the mark began, in seconds; 0 if it has no mark or is gone."""
    try:
        if Path(f"/proc/{process.pid}").stat().st_uid not in uids:
            return 0
        is_marked = mark in process.cmdline() or process.environ().get(MARK) == mark
        return process.create_time() if is_marked else 0
    except (psutil.Error, OSError):  # gone meanwhile, or another user's and so not ours
        return 0


def _descendants(process: psutil.Process) -> set[psutil.Process]:
    """Children and theirs. Airflow's workers hide their environment, and so the mark, from an
    ordinary user: they are known by their parent alone."""
    try:
        return set(process.children(recursive=True))
    except psutil.Error:
        return set()


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil compares the start time first
    except psutil.NoSuchProcess:
        return


def free_port(kept: int | None = None, also: int = 0, taken: Sequence[int] = ()) -> int:
    """A port of 127.0.0.1 that nobody listens on: the kept one if it is free, else a new one.

    With `also`, the port that many higher is free too.
    """
    tries = [kept] if kept is not None else []
    tries += random.sample(PORTS, 200)
    for port in tries:
        if port not in taken and _is_free(port) and (not also or _is_free(port + also)):
            return port
    raise StackError("no free port was found on 127.0.0.1", "End some of the servers running here")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set it as well; without it a port that was just closed would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Hold back Ctrl-C and requests to end until the block is done.

    Python handles signals in its main thread only, so elsewhere there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, note)) for number in held]
    try:
        yield
    finally:
        for held_back, handler in before:
            signal.signal(held_back, handler)
        for number in came[:1]:
            signal.raise_signal(number)
