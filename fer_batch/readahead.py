"""Work in threads, a bounded way ahead of the one who asks.

Used where the time goes into waiting for S3: many items at once, or one thing after the other
that only its predecessor leads to.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_threads(
    function: Callable[[In], Out],
    items: Iterable[In],
    *,
    threads: int,
    ahead_bytes: int,
    bytes_of: Callable[[In], int],
) -> Iterator[Out]:
    """`function` of each item, in the order in which they are finished.

    At most 4 items per thread and `ahead_bytes` of them (by `bytes_of`) are under way or
    finished and not yet taken; a single item may be larger. `items` is read in the caller's
    thread. The first exception of `function` is raised here and ends the rest; so does leaving
    the iterator early, which does not wait for the items that are under way.
    """
    todo: SimpleQueue[In | None] = SimpleQueue()
    done: SimpleQueue[tuple[int, Out | None, BaseException | None]] = SimpleQueue()
    workers: list[Thread] = []

    def work() -> None:
        while (item := todo.get()) is not None:
            try:
                done.put((bytes_of(item), function(item), None))
            except BaseException as error:
                done.put((0, None, error))

    under_way = under_way_bytes = 0
    source = iter(items)
    upcoming = next(source, None)
    try:
        while upcoming is not None or under_way:
            while upcoming is not None and (
                not under_way
                or (under_way < 4 * threads and under_way_bytes + bytes_of(upcoming) <= ahead_bytes)
            ):
                todo.put(upcoming)
                under_way += 1
                under_way_bytes += bytes_of(upcoming)
                if len(workers) < min(threads, under_way):
                    workers.append(Thread(target=work, name="s3", daemon=True))
                    workers[-1].start()
                upcoming = next(source, None)
            size, result, error = done.get()
            if error is not None:
                raise error
            under_way -= 1
            under_way_bytes -= size
            yield result  # type: ignore[misc]  # without an error it is an Out
    finally:
        with contextlib.suppress(Empty):
            while True:
                todo.get_nowait()
        for _ in itertools.repeat(None, len(workers)):
            todo.put(None)


def read_ahead(items: Iterable[Out], count: int) -> Iterator[Out]:
    """The items in their order, read in a thread, at most `count` before they are asked for.

    An exception of `items` is raised in its place. Leaving the iterator early waits for the item
    that is being read and for no other.
    """
    source = iter(items)
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = deque(pool.submit(next, source, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]  # not the end, so an Out
    finally:
        pool.shutdown(cancel_futures=True)
