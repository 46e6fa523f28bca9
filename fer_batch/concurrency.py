"""Bounded concurrency: how many CPUs may be used, and maps over threads that hold few items.

`count_cpus` is the number of threads that can run at once, `measure_memory_limit` the memory.
`map_bounded` runs a function on many items at once where the time is spent waiting for S3;
`map_in_order` does so on a given pool and keeps the order; `prefetch` reads a sequence ahead
whose items depend on one another. What the items are is left to the callers.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def count_cpus(root: Path = Path("/")) -> int:
    """How many CPUs this process may use, at least 1.

    That is the number of CPUs in its affinity mask (as set by `taskset` or by a cpuset), or fewer
    if a control group limits its CPU time (as `docker run --cpus` does): 1.5 CPUs count as 2.
    `root` is the folder of /proc and /sys.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return max(1, min([available, *map(math.ceil, _read_cpu_limits(root))]))


def measure_memory_limit(root: Path = Path("/")) -> int:
    """The memory in bytes that this process may use, at least 1.

    That is the memory of the machine, or less if a control group limits it (as `docker run
    --memory` does). `root` is the folder of /proc and /sys.
    """
    meminfo = _read_text(root / "proc/meminfo").splitlines()
    limits = [1024 * int(line.split()[1]) for line in meminfo if line.startswith("MemTotal:")]
    limits += _read_memory_limits(root)
    if not limits:  # not Linux
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(min(limits), 1)


def _read_memory_limits(root: Path) -> Iterator[int]:
    for folder, is_version_1 in _list_groups(root, "memory"):
        text = _read_text(folder / ("memory.limit_in_bytes" if is_version_1 else "memory.max"))
        with contextlib.suppress(ValueError):  # no limit: "max"
            yield int(text)


def _read_cpu_limits(root: Path) -> Iterator[float]:
    """The CPU limits of this process's control groups and their parents, in CPUs."""
    for folder, is_version_1 in _list_groups(root, "cpu"):
        if is_version_1:
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            limit = " ".join(_read_text(folder / name).strip() for name in files)
        else:
            limit = _read_text(folder / "cpu.max")
        with contextlib.suppress(ValueError, ZeroDivisionError):  # no limit: "max", -1
            quota, period = map(int, limit.split())
            if quota > 0:
                yield quota / period


def _list_groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of this process's control groups for a controller and of their parents, each with
    whether it is of version 1.

    In a container, the paths in /proc/self/cgroup may be those of the host, and the folder of the
    container's own group is that of the root group.
    """
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controllers and controller)  # a link in version 1
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mount):
                break
            yield folder, bool(controllers)


def _read_text(file: Path) -> str:
    """The content of a file, empty if it cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return ""


def map_bounded(
    function: Callable[[In], Out],
    items: Iterable[In],
    *,
    threads: int,
    ahead_bytes: int,
    bytes_of: Callable[[In], int],
) -> Iterator[Out]:
    """`function` of each item, in the order of completion.

    At most 4 items per thread and `ahead_bytes` of items (as measured by `bytes_of`) are in
    progress or completed and not yet consumed; a single item may be larger. `items` is iterated in
    the caller's thread. The first exception of `function` is raised here and ends the rest. So
    does closing the iterator early, which does not wait for the items in progress.
    """
    tasks: SimpleQueue[In | None] = SimpleQueue()
    done: SimpleQueue[tuple[int, Out | None, BaseException | None]] = SimpleQueue()
    workers: list[Thread] = []

    def run_tasks() -> None:
        while (item := tasks.get()) is not None:
            try:
                done.put((bytes_of(item), function(item), None))
            except BaseException as error:
                done.put((0, None, error))

    pending = pending_bytes = 0
    source = iter(items)
    upcoming = next(source, None)
    try:
        while upcoming is not None or pending:
            while upcoming is not None and (
                not pending
                or (pending < 4 * threads and pending_bytes + bytes_of(upcoming) <= ahead_bytes)
            ):
                tasks.put(upcoming)
                pending += 1
                pending_bytes += bytes_of(upcoming)
                if len(workers) < min(threads, pending):
                    workers.append(Thread(target=run_tasks, name="s3", daemon=True))
                    workers[-1].start()
                upcoming = next(source, None)
            size, result, error = done.get()
            if error is not None:
                raise error
            pending -= 1
            pending_bytes -= size
            yield result  # type: ignore[misc]  # without an error it is an Out
    finally:
        with contextlib.suppress(Empty):
            while True:
                tasks.get_nowait()
        for _ in workers:
            tasks.put(None)


def map_in_order(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In], size: int
) -> Iterator[Out]:
    """`function` of each item on a pool, in the order of the items, at most `size` in progress.

    `items` is iterated in the caller's thread. An exception of `function` is raised at its item.
    """
    window: deque[Future[Out]] = deque()
    for item in items:
        window.append(pool.submit(function, item))
        if len(window) >= size:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def prefetch(items: Iterable[Out], count: int) -> Iterator[Out]:
    """The items in their order, read in one thread at most `count` items ahead of the consumer.

    An exception of `items` is raised at its position. Closing the iterator early waits for the
    item that is being read and for no other.
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


def group_chunks(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Lists of at most `size` items, in order."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
