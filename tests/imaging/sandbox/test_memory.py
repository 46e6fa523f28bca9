"""The budget of memory: never more than the total, and nobody waits for ever."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_batch.imaging.sandbox.memory import MemoryBudget


def test_threads_never_hold_more_than_the_total() -> None:
    budget = MemoryBudget(100)
    held, most, lock = 0, 0, threading.Lock()

    def hold(size: int) -> None:
        nonlocal held, most
        budget.take(size)
        with lock:
            held += size
            most = max(most, held)
        with lock:
            held -= size
        budget.give_back(size)

    sizes = itertools.islice(itertools.cycle([1, 100, 40, 60, 99]), 500)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, sizes))
    assert 0 < most <= 100


def test_more_than_the_total_is_refused() -> None:
    with pytest.raises(ValueError, match="101"):
        MemoryBudget(100).take(101)


def test_a_large_share_is_not_overtaken_by_small_ones() -> None:
    budget = MemoryBudget(10)
    budget.take(5)
    order: list[str] = []

    def take(name: str, size: int) -> None:
        budget.take(size)
        order.append(name)
        budget.give_back(size)

    first = threading.Thread(target=take, args=("large", 10))
    first.start()
    while not budget._waiting:
        time.sleep(0.001)
    second = threading.Thread(target=take, args=("small", 1))
    second.start()
    while len(budget._waiting) < 2:
        time.sleep(0.001)
    assert order == []
    budget.give_back(5)
    first.join()
    second.join()
    assert order == ["large", "small"]
