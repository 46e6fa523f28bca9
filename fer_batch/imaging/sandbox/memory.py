"""The memory for the pixels that several decoders hold at once: how much, and who has it."""

from __future__ import annotations

import threading
from collections import deque

from fer_batch.concurrency import count_cpus, measure_memory_limit
from fer_batch.settings import Settings


def compute_decode_memory(settings: Settings) -> int:
    """The bytes of `decode_memory_mb`, or of its default on this machine.

    Scoring processes run at the same time as far as there are CPUs for `threads` of each.
    """
    if settings.decode_memory_mb is not None:
        return settings.decode_memory_mb * 1_000_000
    processes = max(count_cpus() // settings.threads, 1)
    return max(measure_memory_limit() // 2 // processes, 50_000_000)


class MemoryBudget:
    """`total_bytes` that threads take and give back; each waits until its share is free.

    First come, first served: a large image is not overtaken for ever by small ones.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._free = total_bytes
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def take(self, size_bytes: int) -> None:
        """Wait until so much is free. Raises ValueError for more than the total."""
        if size_bytes > self.total_bytes:
            raise ValueError(f"{size_bytes} bytes of {self.total_bytes}")
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= size_bytes)
            self._waiting.popleft()
            self._free -= size_bytes
            self._changed.notify_all()

    def give_back(self, size_bytes: int) -> None:
        with self._changed:
            self._free += size_bytes
            self._changed.notify_all()
