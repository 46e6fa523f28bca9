"""Start `python -m fer_batch` as a fork of a process that has already imported its modules.

Importing takes longer than most calls of the command. So a server process imports the modules once
and forks for each call. The fork takes the arguments, environment, folder and streams of the call
and then does what `python -m fer_batch` does, including the exit code. It is a child of the process
that asked for it, which can wait for it and kill it. Its memory is that of a process that has done
nothing but import: the server starts no thread and runs no command itself.

A command that scores starts a scoring process, and one that decodes the server of the decoders. It
gets a fork server of its own, forked before the command begins, so that these start from the same
state.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

# They start no thread when they are imported: threads do not survive a fork.
IMPORTED = (
    "onnxruntime",
    "fer_batch.cli",
    "fer_batch.cli.doctor",
    "fer_batch.database.results",
    "fer_batch.digests.notify",
    "fer_batch.export.publishing",
    "fer_batch.imaging.sandbox.decoders",
    "fer_batch.imaging.sandbox.server",
    "fer_batch.model.model_registry",
    "fer_batch.pipeline.checks",
    "fer_batch.pipeline.late_images",
    "fer_batch.pipeline.listing",
    "fer_batch.pipeline.nightly",
    "fer_batch.pipeline.planning",
    "fer_batch.pipeline.scoring",
    "fer_batch.pipeline.supervisor",
    "fer_batch.pipeline.whole_run",
    "fer_batch.predict.prediction",
    "fer_batch.reporting.report",
    "fer_batch.satisfaction.comparisons",
    "fer_batch.settings_sources",
    # which these modules import when they need them
    "boto3.s3.transfer",
    "scipy.special",
)
SCORING_COMMANDS = ("run", "score")
DECODING_COMMANDS = ("audit", "check", "models", "predict", "worker")
DECODERS = "the server of the decoders"
"""The first argument of a call that starts it, in place of a command."""
COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""Environment variable by which coverage.py measures a process that a measured process starts."""
LARGEST_MESSAGE = 200_000  # bytes; Linux sends one of this size at once
_PR_SET_CHILD_SUBREAPER = 36


class ForkServer:
    """Starts commands through the connection with a server process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        descriptors: Mapping[int, int],
        *,
        is_new_session: bool,
    ) -> int:
        """Start the command and return its process id.

        `descriptors` are its open files: the number that each has in the new process, and its
        number in this process.
        """
        call = {"arguments": list(arguments), "env": dict(environment), "folder": folder,
                "descriptors": list(descriptors), "is_new_session": is_new_session}  # fmt: skip
        with self._lock:
            # The new process is an orphan at first, and becomes a child of the nearest subreaper.
            _set_subreaper(True)
            try:
                message = json.dumps(call).encode()
                socket.send_fds(self._connection, [message], list(descriptors.values()))
                return int(self._connection.recv(100))
            finally:
                _set_subreaper(False)


class ForkedPopen(subprocess.Popen[Any]):
    """A Popen of `python -m fer_batch` with the given arguments, forked from a server."""

    def __init__(self, server: ForkServer, arguments: Sequence[str], **options: Any) -> None:
        self._server = server
        super().__init__(arguments, **options)

    def _execute_child(self, *options: Any) -> None:
        """Take the place of Popen's own method, which forks and executes a program."""
        arguments, _, _, _, pass_fds, folder, environment, *_ = options
        pipes, is_new_session = options[10:16], options[-2]
        inherited = {number: number for number in (0, 1, 2, *pass_fds)}
        given = {number: pipes[at] for number, at in enumerate((0, 3, 5)) if pipes[at] != -1}
        self.pid = self._server.start(
            arguments,
            os.environ if environment is None else environment,
            str(folder or Path.cwd()),
            inherited | given,
            is_new_session=is_new_session,
        )
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


@contextlib.contextmanager
def fork_server_running(environment: Mapping[str, str]) -> Iterator[ForkServer]:
    """A server in a new process, which imports with these environment variables.

    Its own coverage is not measured. That of a command is, if the command's environment says so.
    """
    imported = {name: value for name, value in environment.items() if name != COVERAGE}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        # -P: do not import the files next to this one as modules
        [sys.executable, "-P", __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**imported, "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"},
    )
    theirs.close()
    with ours:  # the process ends when this is closed
        yield ForkServer(ours)
    process.wait()


def build_subprocess_module(server: ForkServer) -> Any:
    """A replacement for the module `subprocess` in supervisor.py and handles.py.

    Scoring processes and servers of decoders are forks.
    """

    def popen(arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        if list(arguments[:3]) == [sys.executable, "-m", "fer_batch"]:
            return ForkedPopen(server, arguments[3:], **options)
        if "fer_batch.imaging.sandbox.server" in arguments:
            return ForkedPopen(server, [DECODERS, arguments[-1]], **options)
        return subprocess.Popen(arguments, **options)  # the scoring process of a test

    return SimpleNamespace(
        Popen=popen,
        PIPE=subprocess.PIPE,
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    )


def _set_subreaper(is_subreaper: bool) -> None:
    """Whether orphaned descendants become children of this process (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(is_subreaper))


def _serve(connection: socket.socket) -> None:
    """Fork for each call, until the other side is closed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, LARGEST_MESSAGE, 20)
        if not message:
            return
        if (parent := os.fork()) == 0:
            # The command is a grandchild of the server, and is adopted when its parent ends.
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() == parent:
                    time.sleep(0.0005)
                connection.send(str(os.getpid()).encode())
                _become(json.loads(message), descriptors)
            os._exit(0)
        os.waitpid(parent, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(call: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Run the command of a call, and end this process as `python -m fer_batch` ends."""
    _replace_descriptors(dict(zip(call["descriptors"], descriptors, strict=True)))
    if call["is_new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["folder"])
    if call["arguments"][0] == DECODERS:
        _serve_decoders(int(call["arguments"][1]))
    sys.argv = ["fer-batch", *call["arguments"]]
    # A forked server inherits these objects, whose end must not close the files of its forks.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # by line
    if call["arguments"][:1] in ([name] for name in SCORING_COMMANDS):
        from fer_batch.pipeline import supervisor

        vars(supervisor)["subprocess"] = build_subprocess_module(_fork_server())
    elif call["arguments"][:1] in ([name] for name in DECODING_COMMANDS):
        from fer_batch.imaging.sandbox import handles

        vars(handles)["subprocess"] = build_subprocess_module(_fork_server())
    # After the fork of a server, whose processes it would trace too.
    if COVERAGE in os.environ:
        import coverage

        coverage.process_startup(force=True)
    code = 1
    try:
        from fer_batch.cli import main

        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # without the slow cleanup of all imported modules


def _serve_decoders(descriptor: int) -> NoReturn:
    from fer_batch.imaging.sandbox import server

    try:
        server.main(descriptor)
    finally:
        os._exit(0)


def _replace_descriptors(descriptors: Mapping[int, int]) -> None:
    """Give the open files these numbers, and close all others."""
    # Numbers above all wanted ones first, so that none is overwritten before it is copied.
    above = max(descriptors) + 1
    copies = {n: fcntl.fcntl(fd, fcntl.F_DUPFD, above) for n, fd in descriptors.items()}
    for number, copy in copies.items():
        os.dup2(copy, number)
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if number not in descriptors:
            with contextlib.suppress(OSError):  # the listing itself, which is closed by then
                os.close(number)


def _fork_server() -> ForkServer:
    """Fork a server from this process, which has only imported modules. It ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        _replace_descriptors({0: nothing, 1: nothing, 2: nothing, 3: theirs.fileno()})
        _serve(socket.socket(fileno=3))
        os._exit(0)
    theirs.close()
    return ForkServer(ours)


def main() -> None:
    """Import the modules, and serve the calls that come through the socket of the given number."""
    sys.modules["pyarrow"] = None  # type: ignore[assignment]  # pandas imports it: it starts threads
    for name in IMPORTED:
        importlib.import_module(name)
    del sys.modules["pyarrow"]
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "threads do not survive a fork"
    gc.freeze()  # the garbage collector of a fork then writes into no page that it shares
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
