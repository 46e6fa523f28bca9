"""Names the image that a scoring process is about to decode, so that a killer is known by name.

An image can take its process down: a decoder that crashes, memory that runs out, a loop that
never ends. The process writes each image into a slot of a small shared file before it touches
the bytes; whoever started the process reads the slots when it is gone or hangs. One slot per
decoding thread. What to do with a suspect is decided in worker.py.
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

from fer_batch.jobs import IMAGE
from fer_batch.records import Image

# A key has at most 1,024 bytes; JSON may write each as six characters.
_SLOT_BYTES = 8192
_HEADER = struct.Struct("<dI")


@dataclass(frozen=True, slots=True)
class Announcement:
    """An image that was being decoded, and since when (seconds of the monotonic clock)."""

    image: Image
    since_s: float


class Announcer:
    """The writing side. `path` is a file made by `create`, with a slot for each decoding thread."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._next_slot = 0

    @contextmanager
    def decoding(self, image: Image) -> Iterator[None]:
        """Announce the image for as long as the block runs."""
        offset = self._offset()
        text = IMAGE.dump_json(image)
        start = offset + _HEADER.size
        self._map[start : start + len(text)] = text
        _HEADER.pack_into(self._map, offset, time.monotonic(), len(text))
        try:
            yield
        finally:
            _HEADER.pack_into(self._map, offset, 0.0, 0)

    def _offset(self) -> int:
        offset: int | None = getattr(self._local, "offset", None)
        if offset is None:
            with self._lock:
                offset = self._next_slot * _SLOT_BYTES
                self._next_slot += 1
            if offset + _SLOT_BYTES > len(self._map):
                raise RuntimeError("more decoding threads than slots")
            self._local.offset = offset
        return offset


def create(path: Path, slots: int) -> None:
    """Make an empty file with room for so many decoding threads."""
    path.write_bytes(b"\0" * (slots * _SLOT_BYTES))


def read(path: Path) -> list[Announcement]:
    """The images that are (or, after a death, were) being decoded."""
    data = path.read_bytes()
    found = []
    for offset in range(0, len(data), _SLOT_BYTES):
        since_s, length = _HEADER.unpack_from(data, offset)
        if length:
            start = offset + _HEADER.size
            with suppress(ValidationError):  # read in the moment in which it was rewritten
                image = IMAGE.validate_json(data[start : start + length])
                found.append(Announcement(image, since_s))
    return found
