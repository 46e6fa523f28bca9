"""A program in the place of FER_PYTHON that starts the command as a fork of the fork server.

The tasks of Airflow start the command hundreds of times in the tests, and importing its modules
takes longer than most calls. The program imports next to nothing: it sends its arguments,
environment, folder and streams through a socket to the process of the tests, which asks the fork
server. It forwards SIGTERM, ends with the exit code of the command, and takes it along when it is
killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

from tests.support.fork_server import LARGEST_MESSAGE, ForkServer

_TERMINATE = b"T"
_PROGRAM = """\
#!{python} -IS
import ctypes, json, os, signal, socket, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the task
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
signal.signal(signal.SIGTERM, lambda *_: connection.send({terminate!r}))
connection.connect({path!r})
call = [sys.argv[1:], dict(os.environ), os.getcwd()]
socket.send_fds(connection, [json.dumps(call).encode()], [0, 1, 2])
code = int(connection.recv(100))
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@contextlib.contextmanager
def forked_python(server: ForkServer, folder: Path) -> Iterator[Path]:
    """The program, written to `folder`, for the duration of the block."""
    path, program = folder / "fork.sock", folder / "python"
    program.write_text(_PROGRAM.format(python=sys.executable, terminate=_TERMINATE, path=str(path)))
    program.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen(100)
        Thread(target=_accept, args=(listening, server), daemon=True).start()
        yield program
        listening.shutdown(socket.SHUT_RDWR)  # ends the thread


def _accept(listening: socket.socket, server: ForkServer) -> None:
    with contextlib.suppress(OSError):  # it is closed
        while True:
            connection, _ = listening.accept()
            Thread(target=_run, args=(connection, server), daemon=True).start()


def _run(connection: socket.socket, server: ForkServer) -> None:
    """Start the command of one call, and wait for its end or that of the program."""
    with connection:
        message, streams, _, _ = socket.recv_fds(connection, LARGEST_MESSAGE, 3)
        (_, _, _, *arguments), environment, folder = json.loads(message)  # -m, fer_batch, parent
        process = server.start(
            arguments, environment, folder, dict(enumerate(streams)), is_new_session=False
        )
        for stream in streams:
            os.close(stream)
        handle = os.pidfd_open(process)
        try:
            code = _wait(connection, process, handle)
        finally:
            os.close(handle)
        with contextlib.suppress(OSError):  # the program was killed
            connection.send(str(code).encode())


def _wait(connection: socket.socket, process: int, handle: int) -> int:
    """The exit code of the process; negative: the signal that killed it."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(connection, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if handle in ready:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if connection.recv(len(_TERMINATE)) == _TERMINATE:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        else:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            poll.unregister(connection)
