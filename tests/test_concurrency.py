"""Bounded concurrency: every item is returned once, and no more are read ahead than allowed."""

import os
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.concurrency import (
    count_cpus,
    group_chunks,
    map_bounded,
    map_in_order,
    measure_memory_limit,
    prefetch,
)


def run_bounded(function, items, threads=4, ahead_bytes=1_000_000, bytes_of=lambda _: 1):
    return map_bounded(function, items, threads=threads, ahead_bytes=ahead_bytes, bytes_of=bytes_of)


class Counted:
    """An iterator that counts the items read from it."""

    def __init__(self, items):
        self._items = iter(items)
        self.read = 0

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self._items)
        self.read += 1
        return item


@given(st.lists(st.integers(1, 50)), st.integers(1, 8), st.integers(1, 100))
def test_each_item_is_returned_once(items, threads, ahead_bytes):
    done = run_bounded(lambda n: n + 1, items, threads, ahead_bytes, bytes_of=lambda n: n)

    assert sorted(done) == sorted(n + 1 for n in items)


def test_items_are_processed_concurrently():
    barrier = threading.Barrier(4, timeout=30)

    assert list(run_bounded(lambda n: barrier.wait() * 0 + n, [1, 1, 1, 1])) == [1, 1, 1, 1]


def test_no_more_items_are_read_than_four_per_thread():
    source = Counted(range(1, 1000))
    results = run_bounded(lambda n: n, source, threads=3)
    next(results)

    # One that was consumed, twelve ahead, and one that did not fit.
    assert source.read <= 1 + 12 + 1
    assert isinstance(results, Generator)
    results.close()


def test_no_more_bytes_are_read_than_allowed():
    source = Counted([40] * 100)
    results = run_bounded(lambda n: n, source, ahead_bytes=100, bytes_of=lambda n: n)
    next(results)

    assert source.read <= 1 + 2 + 1
    assert isinstance(results, Generator)
    results.close()


def test_an_item_larger_than_the_bound_is_processed_alone():
    assert list(run_bounded(lambda n: n, [500, 500], ahead_bytes=100, bytes_of=lambda n: n)) == [
        500,
        500,
    ]


def test_an_exception_is_raised_to_the_consumer():
    def fail(n):
        if n == 3:
            raise KeyError(n)
        return n

    with pytest.raises(KeyError):
        list(run_bounded(fail, range(1, 1000)))


def test_closing_the_iterator_early_ends_the_threads():
    hold = threading.Event()
    started = threading.Semaphore(0)
    done = []

    def wait(n):
        if n > 1:
            started.release()
            hold.wait(30)
        done.append(n)
        return n

    others = set(threading.enumerate())  # such as threads of an earlier test
    results = run_bounded(wait, range(1, 1000), threads=2)
    assert next(results) == 1
    started.acquire(timeout=30)
    workers = set(threading.enumerate()) - others
    assert len(workers) == 2
    assert isinstance(results, Generator)
    results.close()
    hold.set()
    for thread in workers:
        thread.join(timeout=30)
        assert not thread.is_alive()

    assert len(done) <= 3  # the one that was consumed and those in progress


# In order


@given(st.lists(st.integers()), st.integers(1, 3), st.integers(1, 5))
def test_a_map_over_a_pool_keeps_the_order(items, threads, size):
    with ThreadPoolExecutor(threads) as pool:
        assert list(map_in_order(pool, lambda n: n + 1, items, size)) == [n + 1 for n in items]


def test_no_more_items_are_mapped_ahead_than_allowed():
    source = Counted(range(1000))
    with ThreadPoolExecutor(2) as pool:
        results = map_in_order(pool, lambda n: n, source, size=3)
        for consumed in range(1, 20):
            next(results)
            assert source.read <= consumed + 3


def test_an_error_of_a_map_is_raised_at_its_item():
    with ThreadPoolExecutor(2) as pool:
        results = map_in_order(pool, lambda n: 1 // n, [1, 1, 0, 1], size=4)
        assert [next(results), next(results)] == [1, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)


@given(st.lists(st.integers()), st.integers(1, 5))
def test_chunks_hold_every_item_in_order(items, size):
    chunks = list(group_chunks(iter(items), size))
    assert [item for chunk in chunks for item in chunk] == items
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(chunks)


# Prefetching


@given(st.lists(st.integers()), st.integers(1, 5))
def test_prefetching_keeps_the_order(items, count):
    assert list(prefetch(items, count)) == items


def test_no_more_items_are_prefetched_than_allowed():
    items = Counted(range(1000))
    results = prefetch(items, 3)

    for consumed in range(1, 20):
        next(results)
        assert items.read <= consumed + 3

    assert isinstance(results, Generator)
    results.close()
    assert items.read <= 22


def test_an_error_is_raised_at_the_position_of_its_item():
    def raise_after_five():
        yield from range(5)
        raise ValueError("no more")

    results: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        results.extend(prefetch(raise_after_five(), 2))

    assert results == list(range(5))


V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/system.slice\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "cpus"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/../../a\n", {"cpu.max": "300000 100000\n"}, 3),  # seen from inside a container
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        (V1, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "25000\n"}, 2),
        (
            V1,
            {
                "cpu/docker/abc/cpu.cfs_quota_us": "400000\n",
                "cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        ("0::/\n", {"cpu.max": "0 0\n"}, 8),
        ("0::/\n", {"cpu.max": "garbage"}, 8),
        ("garbage\n", {}, 8),
    ],
)
def test_the_cpus_of_a_process_are_limited_by_its_control_groups(
    tmp_path, monkeypatch, cgroup, files, cpus
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    texts = {"proc/self/cgroup": cgroup} | {f"sys/fs/cgroup/{n}": t for n, t in files.items()}
    for name, text in texts.items():
        (path := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert count_cpus(tmp_path) == cpus


def test_the_cpus_of_a_process_are_limited_by_its_affinity():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert count_cpus(Path("/")) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {}, 8_000 * 1024),
        ("0::/\n", {"memory.max": "max\n"}, 8_000 * 1024),
        ("0::/a/b\n", {"a/memory.max": "4096000\n", "a/b/memory.max": "max\n"}, 4_096_000),
        ("3:cpu:/\n4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "5000\n"}, 5_000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 8_000 * 1024),
    ],
)
def test_the_memory_of_a_process_is_limited_by_its_control_groups(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int
) -> None:
    for name, text in {
        "proc/self/cgroup": groups,
        "proc/meminfo": "MemTotal:  8000 kB\nMemFree:  1 kB\n",
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert measure_memory_limit(tmp_path) == limit
