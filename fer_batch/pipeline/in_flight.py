"""The in-flight register: what a scoring process works on, so that a death can be attributed.

The scoring process can be ended while it works on an image: memory runs out, or somebody kills it.
It writes the images of a request into a slot of a small shared file before it sends their bytes to
a decoder, and into one slot the key range that it has begun; the supervisor reads the slots when
the process has died. Each thread has one slot. What to do with a suspect is decided in
supervisor.py. An image that ends only its decoder is handled in imaging/sandbox.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fer_batch.records import Image

_SLOT_BYTES = 128 * 1024
"""The longest key that PostgreSQL can index has 2,700 bytes; JSON may write each as six characters.
The rest is for the ETag, whose length an S3 server chooses."""
_HEADER = struct.Struct("<dI")
_IMAGES = TypeAdapter(list[Image])


@dataclass(frozen=True, slots=True)
class BegunRange:
    """The key range that was begun last, as its position in the shard, and since when.

    `since_s` are seconds of the monotonic clock.
    """

    index: int
    since_s: float


class InFlightRegister:
    """The writing side. `path` is a file made by `create_register`, with a slot for each thread."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._next_slot = 1

    def begin_range(self, index: int) -> None:
        """Record that the key range at this position of the shard is begun."""
        _HEADER.pack_into(self._map, 0, time.monotonic(), index + 1)

    @contextmanager
    def track(self, *images: Image) -> Iterator[None]:
        """Keep the images in this thread's slot while the block runs.

        ETags that do not fit are left out. Images whose keys do not fit either are not recorded: a
        crash is then attributed to their facility.
        """
        offset = self._get_offset()
        text = _dump_fitting(images)
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


def _dump_fitting(images: Sequence[Image]) -> bytes:
    """The images as JSON that fits into a slot: if necessary without ETags, or empty."""
    for candidates in (list(images), [replace(image, etag="") for image in images]):
        text = _IMAGES.dump_json(candidates)
        if len(text) <= _SLOT_BYTES - _HEADER.size:
            return text
    return b""


def create_register(path: Path, slots: int) -> None:
    """Create an empty register with a slot for each of `slots` decoding threads.

    Raises OSError if the disk is full: the file is not sparse, because writing to a page that
    cannot be allocated would end the scoring process while it decodes an innocent image.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (1 + slots) * _SLOT_BYTES)


def read_register(path: Path) -> list[Image]:
    """The images that are being decoded or, after a crash, were being decoded.

    The ETag of an image is empty if the register had no room for it.
    """
    images: list[Image] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for offset in range(_SLOT_BYTES, size, _SLOT_BYTES):
            _, length = _read_header(file.fileno(), offset)
            if length:
                text = os.pread(file.fileno(), length, offset + _HEADER.size)
                with suppress(ValidationError):  # read while it was being rewritten
                    images += _IMAGES.validate_json(text)
    return images


def read_begun_range(path: Path) -> BegunRange | None:
    """The key range that the process has begun last; None before the first one."""
    with path.open("rb") as file:
        since_s, number = _read_header(file.fileno(), 0)
    return BegunRange(number - 1, since_s) if number else None


def _read_header(descriptor: int, offset: int) -> tuple[float, int]:
    since_s, number = _HEADER.unpack(os.pread(descriptor, _HEADER.size, offset))
    return float(since_s), int(number)
