"""A server of decoders for tests: an image's comment says what its decoder does.

`Decoders` starts it if its module is named in `handles.SERVER_MODULE`. The comments are obeyed
inside the decoder, after it has given up its rights: what it finds out is the reason of the outcome
`unreadable`.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_batch.imaging.faces import DecodedImage, DetectedFace, extract_faces
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.imaging.sandbox import messages, server
from fer_batch.records import Box, Outcome

MODULE = __name__
_COMMAND = re.compile(rb"please (\w+)")


def make_image(valid_jpeg: bytes, command: str) -> bytes:
    """A valid JPEG with a comment that its decoder obeys."""
    word = f"please {command}".encode()
    return valid_jpeg[:2] + b"\xff\xfe" + (2 + len(word)).to_bytes(2) + word + valid_jpeg[2:]


def main(descriptor: int) -> None:
    vars(server)["extract_faces"] = _obey
    server.main(descriptor)


_extract = extract_faces


def _obey(data: bytes, *arguments: Any) -> DecodedImage:
    match = _COMMAND.search(data)
    if match is None:
        return _extract(data, *arguments)
    command = match[1].decode()
    if command in _LIES:
        return _LIES[command]
    if command in _DEATHS:
        _DEATHS[command]()
    raise UndecodableImageError(Outcome.UNREADABLE, _try(_ATTEMPTS[command]))


def _try(attempt: Callable[[], object]) -> str:
    """Tell whether the attempt succeeds, or its error."""
    try:
        return f"succeeded: {attempt()!r}"
    except OSError as error:
        return error.strerror or repr(error)


def _call(name: str, *arguments: int) -> None:
    """A function of the C library. Raises OSError if it returns -1."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _list_descriptors() -> list[int]:
    """The descriptors that can be written to or read from, without opening /proc."""
    found = []
    for number in range(4096):
        try:
            os.readv(number, [])
        except OSError as error:
            if error.strerror == "Bad file descriptor":
                try:
                    os.writev(number, [])
                except OSError:
                    continue
        found.append(number)
    return found


def _read_environment() -> list[object]:
    first = ctypes.c_char_p.in_dll(ctypes.CDLL(None), "environ")
    pointers = ctypes.cast(ctypes.pointer(first), ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p)))
    return [dict(os.environ), pointers.contents[0] if pointers.contents else None]


def _execute() -> None:
    os.execv("/bin/sh", ["sh", "-c", "true"])  # noqa: S606


_ATTEMPTS: dict[str, Callable[[], object]] = {
    "open_file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "create_file": lambda: os.open("/tmp/fer-decoder", os.O_CREAT | os.O_WRONLY),
    "read_metadata": lambda: Path("/etc/passwd").stat(),
    "list_folder": lambda: list(Path("/").iterdir()),
    "make_socket": lambda: socket.socket(),
    "connect": lambda: _call("connect", 0, 0, 0),
    "execute": _execute,
    "fork": lambda: _call("fork"),
    "kill_parent": lambda: os.kill(os.getppid(), 0),
    "kill_init": lambda: os.kill(1, 0),
    "trace": lambda: _call("ptrace", 16, 1, 0, 0),
    "read_memory": lambda: _call("process_vm_readv", 1, 0, 0, 0, 0, 0),
    "map_code": lambda: _call("mprotect", 4096 * (id(server) // 4096), 4096, 7),
    "raise_limit": lambda: _call("setrlimit", resource.RLIMIT_NOFILE, 0),
    "duplicate": lambda: os.dup(0),
    "make_pipe": lambda: os.pipe(),
    "environment": _read_environment,
    "descriptors": _list_descriptors,
}
PROBES = ("environment", "descriptors")
FORBIDDEN = tuple(name for name in _ATTEMPTS if name not in PROBES)


def _kill() -> None:
    ctypes.string_at(0)


def _grow() -> None:
    held = [bytearray(b"x") * 100_000_000 for _ in range(10_000)]
    time.sleep(len(held))


def _answer_rubbish() -> None:
    os.writev(_answers, [b"\xff" * 1000])
    time.sleep(3600)


def _promise_much() -> None:
    os.writev(_answers, [messages.ANSWER.pack(messages.Kind.DONE, 2**62)])
    time.sleep(3600)


_answers = -1
_become = server._become_decoder


def _remember_pipe(decoding: Any, requests: int, answers: int) -> None:
    global _answers
    _answers = answers
    _become(decoding, requests, answers)


vars(server)["_become_decoder"] = _remember_pipe

_DEATHS: dict[str, Callable[[], None]] = {
    "crash": _kill,
    "exit": lambda: os._exit(0),
    "abort": os.abort,
    "fail": lambda: 1 // 0,  # type: ignore[dict-item]
    "grow": _grow,
    "hang": lambda: time.sleep(3600),
    "spin": lambda: [None for _ in iter(int, 1)],  # type: ignore[dict-item]
    "rubbish": _answer_rubbish,
    "promise": _promise_much,
}
DEATHS = tuple(_DEATHS)


def _make_lie(
    width: int = 64, height: int = 48, boxes: Sequence[Box] | None = None, crops: int = 1
) -> DecodedImage:
    faces = [DetectedFace(box, 0.9) for box in boxes or [Box(0, 0, width, height)]]
    return DecodedImage(width, height, tuple(faces), np.zeros((crops, 48, 48), np.uint8))


_LIES = {
    "huge": _make_lie(width=2**31, height=2**31),
    "empty": _make_lie(width=0, height=0),
    "many": _make_lie(boxes=[Box(0, 0, 48, 48)] * 3, crops=3),
    "few": _make_lie(crops=0),
    "more": _make_lie(crops=2),
}
LIES = tuple(_LIES)
