"""Server processes of the local stack: start them, find them again after a crash, stop them.

A server is identified by its mark, a text with the path of its directory in its command line or its
environment. No file stores a process id, so none can be stale, and a process is never identified by
its name. Which servers exist, and how each reports that it is ready, is left to the modules that
use this one.
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

from fer_batch.local.stack.files import INSTALL, PRIVATE_FILE, StackError, read_tail

try:
    import psutil
except ImportError as error:
    raise StackError("the local stack is not installed", INSTALL) from error

MARK = "FER_STACK_SERVER"
"""Environment variable that passes the mark to every child of a server."""
LOG_BYTES = 10_000_000
PORTS = range(12_000, 22_000)
"""Below the ports that Linux uses for outgoing connections, even with 10,000 added."""


@dataclass(frozen=True)
class RunAs:
    """The unprivileged user that root runs a server as."""

    name: str
    uid: int
    gid: int


class Server:
    """One server: a process with its children, its log, and the mark that identifies them."""

    def __init__(self, name: str, mark: str, log: Path, run_as: RunAs | None = None) -> None:
        self.name = name
        self.mark = mark
        self.log = log
        self.run_as = run_as
        self._child: subprocess.Popen[bytes] | None = None
        self._known_children: set[psutil.Process] = set()
        self._log_start = 0

    def start(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> None:
        """Start the process in a new session, so that Ctrl-C in the terminal does not reach it."""
        self._rotate_log()
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

    def list_processes(self) -> list[psutil.Process]:
        """Return every live process with the mark, the oldest first."""
        uids = self._get_uids()
        born = {
            process: _find_start_time(process, self.mark, uids) for process in psutil.process_iter()
        }
        return sorted((p for p in born if born[p]), key=lambda process: born[process])

    def is_running(self) -> bool:
        if self._child is not None and self._child.poll() is None:
            return True
        return bool(self.list_processes())

    def wait_until(self, ready: Callable[[], bool], deadline_s: float) -> None:
        """Wait until `ready()` is true.

        Raises StackError, with the end of the log, if the process dies or at the deadline.
        """
        end = time.monotonic() + deadline_s
        while not ready():
            self.check_alive()
            if time.monotonic() > end:
                raise self.make_error(f"was not ready after {deadline_s:.0f} s")
            time.sleep(0.05)

    def check_alive(self) -> None:
        """Raise StackError, with the end of the log, if the process has ended."""
        if not self.is_running():
            code = f" with exit code {self._child.returncode}" if self._child else ""
            raise self.make_error(f"ended{code}")

    def wait(self, deadline_s: float) -> int:
        """Wait for a process that ends by itself; return its exit code."""
        if self._child is None:
            raise self.make_error("was not started by this process")
        try:
            return self._child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise self.make_error(f"had not finished after {deadline_s:.0f} s") from None

    def adopt_running(self, ready: Callable[[], bool], deadline_s: float) -> bool:
        """Return whether a server of an earlier run is up and ready; stop it if it is not ready."""
        if not self.is_running():
            return False
        try:
            self.wait_until(ready, deadline_s)
        except StackError:
            self.stop()
            return False
        return True

    def make_error(self, what: str) -> StackError:
        """Make an error with the lines that the server has logged since its start."""
        text = self.read_new_log()
        quoted = f"; its log ends with:\n{text}\n" if text else ""
        return StackError(f"{self.name} {what}{quoted}", f"The full log is {self.log}")

    def read_new_log(self) -> str:
        return read_tail(self.log, self._log_start)

    def request_stop(self) -> None:
        """Send SIGTERM to the oldest process and do not wait, for servers that stop together."""
        for process in self.list_processes()[:1]:
            self._known_children |= _list_descendants(process)
            _send_signal(process, signal.SIGTERM)

    def stop(self, first_signal: signal.Signals = signal.SIGTERM, wait_s: float = 15.0) -> None:
        """Send the oldest process a signal, and kill all that is left after `wait_s` seconds."""
        with defer_signals():
            if oldest := self.list_processes()[:1]:
                self._known_children |= _list_descendants(oldest[0])
                _send_signal(oldest[0], first_signal)
                psutil.wait_procs(oldest, timeout=wait_s)
            # Wait for them by process id: a dying process no longer shows its mark.
            left = {*oldest, *self._known_children, *self.list_processes()}
            for process in left:
                _send_signal(process, signal.SIGKILL)
            psutil.wait_procs(left, timeout=10)
            self._known_children.clear()
            if self._child is not None:
                self._child.wait()
                self._child = None

    def _get_uids(self) -> set[int]:
        return {os.geteuid(), self.run_as.uid if self.run_as else os.geteuid()}

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        self._log_start = self.log.stat().st_size if self.log.exists() else 0


def _find_start_time(process: psutil.Process, mark: str, uids: set[int]) -> float:
    """Return the start time of a process with the mark, in seconds; 0 without it or if it ended."""
    try:
        if Path(f"/proc/{process.pid}").stat().st_uid not in uids:
            return 0
        is_marked = mark in process.cmdline() or process.environ().get(MARK) == mark
        return process.create_time() if is_marked else 0
    except (psutil.Error, OSError):  # it has ended, or belongs to another user
        return 0


def _list_descendants(process: psutil.Process) -> set[psutil.Process]:
    """Return all descendants of a process.

    Airflow's workers hide their environment, and with it the mark, from an ordinary user. Only
    their parent identifies them.
    """
    try:
        return set(process.children(recursive=True))
    except psutil.Error:
        return set()


def _send_signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil compares the start time first
    except psutil.NoSuchProcess:
        return


def find_free_port(previous: int | None = None, also: int = 0, taken: Sequence[int] = ()) -> int:
    """Return a free port of 127.0.0.1: the previous one if it is free, else a random one.

    With `also`, the port higher by that number is free too. Ports in `taken` are excluded.
    """
    candidates = [previous] if previous is not None else []
    candidates += random.sample(PORTS, 200)
    for port in candidates:
        if port not in taken and _is_free(port) and (not also or _is_free(port + also)):
            return port
    raise StackError(
        "no free port was found on 127.0.0.1", "Stop some of the servers on this machine"
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set it as well; without it a port that was just closed would not be free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer SIGINT, SIGTERM and SIGHUP until the end of the block.

    Python handles signals in its main thread only, so in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def record_signal(number: int, _: FrameType | None) -> None:
        received.append(number)

    deferred = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, record_signal)) for number in deferred]
    try:
        yield
    finally:
        for deferred_number, handler in before:
            signal.signal(deferred_number, handler)
        for number in received[:1]:
            signal.raise_signal(number)
