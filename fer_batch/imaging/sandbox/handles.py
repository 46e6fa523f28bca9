"""The server of the decoders and each decoder, as the process sees them that holds the secrets.

A decoder is two pipes and a number. What it answers is only received here, within a deadline and up
to a size; whether it is a possible answer is decided in messages.py, and what a failure means in
decoders.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from fer_batch.errors import ModelError
from fer_batch.imaging.sandbox import control
from fer_batch.imaging.sandbox.confinement import Layer
from fer_batch.imaging.sandbox.memory import MemoryBudget
from fer_batch.imaging.sandbox.messages import ANSWER, GRANTED, Kind, Task, format_request

IMAGE_DEADLINE_S = 60.0
"""Time for one request, without waiting for memory. A frame takes less than a second."""
START_DEADLINE_S = 120.0
"""Time in which the server has loaded OpenCV, also on a machine that is overloaded."""
SERVER_MODULE = "fer_batch.imaging.sandbox.server"
# Libraries of linear algebra start threads when they are loaded, which would not survive a fork.
_BOOT = (
    "import importlib, json, os, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "os.environ['OPENBLAS_NUM_THREADS'] = os.environ['OMP_NUM_THREADS'] = '1'; "
    "importlib.import_module(sys.argv[1]).main(int(sys.argv[3]))"
)
_PIPE_BYTES = 1 << 20


class DecoderFailedError(Exception):
    """A decoder died, took too long or gave an invalid answer. `str` is what happened."""

    def __init__(self, what: str, *, is_late: bool = False) -> None:
        super().__init__(what)
        self.is_late = is_late


class Server:
    """The server process, and the socket to it."""

    def __init__(self, configuration: control.Configuration) -> None:
        text = configuration.to_json()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-c", _BOOT, SERVER_MODULE),
                    json.dumps([os.path.abspath(path) for path in sys.path]),  # noqa: PTH100
                    str(theirs.fileno()),
                ],
                env={},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libjpeg and libpng print about each damaged image
            )
        self._control.settimeout(START_DEADLINE_S)
        self._is_ready = False
        self._control.sendall(control.LENGTH.pack(len(text)) + text)

    def start_decoder(self, facility_id: str) -> DecoderHandle:
        """Fork a decoder. Raises DecoderFailedError or OSError if the server is gone."""
        self._await_ready()
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        try:
            command = control.COMMAND.pack(control.START, 0)
            socket.send_fds(self._control, [command], [requests_read, answers_write])
            (process,) = control.REPLY.unpack(self._receive(control.REPLY.size))
        except BaseException:
            os.close(requests_write)
            os.close(answers_read)
            raise
        finally:
            os.close(requests_read)
            os.close(answers_write)
        return DecoderHandle(process, facility_id, requests_write, answers_read)

    def end_decoder(self, decoder: DecoderHandle) -> None:
        self._control.sendall(control.COMMAND.pack(control.END, decoder.process))
        self._receive(control.REPLY.size)

    def close(self) -> None:
        """End the server; it ends its decoders."""
        self._control.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_ready(self) -> None:
        if self._is_ready:
            return
        (length,) = control.LENGTH.unpack(self._receive(control.LENGTH.size))
        if problems := json.loads(self._receive(length)):
            raise ModelError(problems[0])
        self._is_ready = True

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._control.recv(size - len(data))
            if not part:
                raise DecoderFailedError("the server of the decoders has ended")
            data += part
        return data


class DecoderHandle:
    """One decoder: its two pipes, and the layers of its confinement."""

    def __init__(self, process: int, facility_id: str, requests: int, answers: int) -> None:
        self.process = process
        self.facility_id = facility_id
        self._requests, self._answers = requests, answers
        for descriptor in (requests, answers):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError, AttributeError):  # Linux, within the user's limit
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(answers, select.POLLIN)
        self._writable.register(requests, select.POLLOUT)
        self._deadline = time.monotonic() + START_DEADLINE_S
        try:
            kind, layers = self._read_header()
        except DecoderFailedError:
            self.close()
            raise
        if kind != Kind.READY:
            self.close()
            raise DecoderFailedError("did not start")
        self.layers = Layer(layers)

    def close(self) -> None:
        os.close(self._requests)
        os.close(self._answers)

    def ask(
        self, task: Task, images: Sequence[bytes], largest: int, budget: MemoryBudget
    ) -> bytearray:
        """Send a request and return the body of the answer, of at most `largest` bytes.

        Raises DecoderFailedError if the decoder dies, lies or is late.
        """
        self._deadline = time.monotonic() + IMAGE_DEADLINE_S
        for part in format_request(task, images):
            self._write(part)
        taken = 0
        try:
            while True:
                kind, number = self._read_header()
                budget.give_back(taken)
                taken = 0
                if kind == Kind.DONE and number <= largest:
                    return self._read(number)
                if kind != Kind.NEEDS or number > budget.total_bytes:
                    raise DecoderFailedError("gave an invalid answer")
                budget.take(number)
                taken = number
                self._deadline = time.monotonic() + IMAGE_DEADLINE_S
                self._write(GRANTED)
        finally:
            budget.give_back(taken)

    def _read_header(self) -> tuple[int, int]:
        kind, number = ANSWER.unpack(self._read(ANSWER.size))
        return kind, number

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                count = os.readv(self._answers, [rest])
            except BlockingIOError:
                self._wait(self._readable)
                continue
            if count == 0:
                raise DecoderFailedError("died")
            rest = rest[count:]
        return data

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                self._wait(self._writable)
            except BrokenPipeError:
                raise DecoderFailedError("died") from None

    def _wait(self, poll: select.poll) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(1000 * left_s):
            raise DecoderFailedError("took too long", is_late=True)
