"""Contestants in separate processes that take turns.

Each is started once, reports when it is ready, and then works only in its turns, while no thread of
another contestant runs. In each round all contestants therefore have the same conditions, and none
is slowed down by the libraries of another.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

Work = Callable[[], int]
"""Does the work of one round and returns the number of items."""
Maker = Callable[..., Work]
"""Loads everything that the work needs; must be importable, because it runs in another process."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One contestant's round. `core_s` is the processor time of its process and its children."""

    items: int
    seconds: float
    core_s: float
    peak_mb: float

    @property
    def items_per_s(self) -> float:
        return self.items / self.seconds


class Contestant:
    """A process that waits for its turns. `ready_after_s` is the duration of its start."""

    def __init__(
        self, name: str, maker: Maker, arguments: tuple[Any, ...], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        parent_end, child_end = multiprocessing.get_context("spawn").Pipe()
        self._connection: Connection[Any, Any] = parent_end
        began = time.perf_counter()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(child_end, maker, arguments, dict(environment)), daemon=False
        )
        self._process.start()
        child_end.close()
        self._receive()
        self.ready_after_s = time.perf_counter() - began

    def run_turn(self) -> Turn:
        """Run one turn. Raises RuntimeError with the traceback if the work fails."""
        self._connection.send("go")
        turn: Turn = self._receive()
        return turn

    def stop(self) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            is_ok, reply = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self.name} died: exit code {self._process.exitcode}") from None
        if not is_ok:
            raise RuntimeError(f"{self.name} failed:\n{reply}")
        return reply


@contextmanager
def running_contestants(
    makers: Mapping[str, tuple[Maker, tuple[Any, ...]]], environment: Mapping[str, str]
) -> Iterator[dict[str, Contestant]]:
    """All contestants, started one after the other, within the block."""
    contestants: dict[str, Contestant] = {}
    try:
        for name, (maker, arguments) in makers.items():
            contestants[name] = Contestant(name, maker, arguments, environment)
            print(f"  {name}: ready after {contestants[name].ready_after_s:.1f} s", flush=True)
        yield contestants
    finally:
        for contestant in contestants.values():
            contestant.stop()


def rotate_order(names: list[str], rounds: int) -> Iterator[tuple[int, list[str]]]:
    """The number and the order of each round; the first contestant changes each time."""
    for number in range(rounds):
        start = number % len(names)
        yield number, names[start:] + names[:start]


def _serve(
    connection: Connection[Any, Any],
    maker: Maker,
    arguments: tuple[Any, ...],
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)
    try:
        work = maker(*arguments)
        connection.send((True, None))
        while True:
            try:
                connection.recv()
            except EOFError:
                return
            began, core_s = time.perf_counter(), _measure_core_s()
            items = work()
            seconds = time.perf_counter() - began
            turn = Turn(items, seconds, _measure_core_s() - core_s, _measure_peak_mb())
            connection.send((True, turn))
    except Exception:
        connection.send((False, traceback.format_exc()))


def _measure_core_s() -> float:
    """The processor time of this process and its children, those that still run included."""
    own = psutil.Process()
    return sum(
        times.user + times.system + times.children_user + times.children_system
        for times in (each.cpu_times() for each in [own, *own.children(recursive=True)])
    )


def _measure_peak_mb() -> float:
    """Peak resident memory of this process, or of its largest child."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in who) * 1024 / 1e6
