"""The in-flight register: which images are being decoded, so that a crash can be attributed.

An image can end the process that decodes it: a decoder crashes, memory runs out, a loop never
ends. The scoring process writes each image into a slot of a small shared file before it touches
the bytes; the supervisor reads the slots when the process has died or hangs. Each decoding thread
has one slot. What to do with a suspect is decided in supervisor.py.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fer_batch.pipeline.jobs import IMAGE
from fer_batch.records import Image

# A key has at most 1,024 bytes; JSON may write each as six characters.
_SLOT_BYTES = 8192
_HEADER = struct.Struct("<dI")


@dataclass(frozen=True, slots=True)
class InFlightImage:
    """An image that is being decoded, and since when (seconds of the monotonic clock)."""

    image: Image
    since_s: float


class InFlightRegister:
    """The writing side. `path` is a file made by `create_register`, with a slot for each thread."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._next_slot = 0

    @contextmanager
    def track(self, image: Image) -> Iterator[None]:
        """Keep the image in this thread's slot while the block runs."""
        offset = self._get_offset()
        text = IMAGE.dump_json(image)
        start = offset + _HEADER.size
        self._map[start : start + len(text)] = text
        _HEADER.pack_into(self._map, offset, time.monotonic(), len(text))
        try:
            yield
        finally:
            _HEADER.pack_into(self._map, offset, 0.0, 0)

    def _get_offset(self) -> int:
        """This thread's slot; the first call in a thread assigns the next free one."""
        offset: int | None = getattr(self._local, "offset", None)
        if offset is None:
            with self._lock:
                offset = self._next_slot * _SLOT_BYTES
                self._next_slot += 1
            if offset + _SLOT_BYTES > len(self._map):
                raise RuntimeError("more decoding threads than slots")
            self._local.offset = offset
        return offset


def create_register(path: Path, slots: int) -> None:
    """Create an empty register with a slot for each of `slots` decoding threads."""
    path.write_bytes(b"\0" * (slots * _SLOT_BYTES))


def read_register(path: Path) -> list[InFlightImage]:
    """The images that are being decoded or, after a crash, were being decoded."""
    data = path.read_bytes()
    images = []
    for offset in range(0, len(data), _SLOT_BYTES):
        since_s, length = _HEADER.unpack_from(data, offset)
        if length:
            start = offset + _HEADER.size
            with suppress(ValidationError):  # read while it was being rewritten
                image = IMAGE.validate_json(data[start : start + length])
                images.append(InFlightImage(image, since_s))
    return images
