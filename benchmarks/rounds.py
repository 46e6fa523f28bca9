"""Contestants in processes of their own, which take turns.

Each is made once, says when it is ready, and then does its work when it is told to, alone: no
other contestant's threads run meanwhile. So all of them see the same machine, round by round,
and none pays for another's libraries.
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

Work = Callable[[], int]
"""Does the work of one round and says how many items that were."""
Maker = Callable[..., Work]
"""Loads what the work needs; must be importable, for it runs in another process."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One contestant's round. `core_s` is processor time of its process and their children."""

    items: int
    seconds: float
    core_s: float
    peak_mb: float

    @property
    def items_per_s(self) -> float:
        return self.items / self.seconds


class Contestant:
    """A process that waits for its turns."""

    def __init__(
        self, name: str, maker: Maker, arguments: tuple[Any, ...], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        here, there = multiprocessing.get_context("spawn").Pipe()
        self._connection: Connection[Any, Any] = here
        began = time.perf_counter()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(there, maker, arguments, dict(environment)), daemon=False
        )
        self._process.start()
        there.close()
        self._receive()
        self.ready_after_s = time.perf_counter() - began

    def turn(self) -> Turn:
        """Let it work. Raises RuntimeError with its traceback if it fails."""
        self._connection.send("go")
        turn: Turn = self._receive()
        return turn

    def end(self) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            is_well, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self.name} died: exit code {self._process.exitcode}") from None
        if not is_well:
            raise RuntimeError(f"{self.name} failed:\n{answer}")
        return answer


@contextmanager
def ready(
    makers: Mapping[str, tuple[Maker, tuple[Any, ...]]], environment: Mapping[str, str]
) -> Iterator[dict[str, Contestant]]:
    """All contestants, made one after the other, for the time of a block."""
    contestants: dict[str, Contestant] = {}
    try:
        for name, (maker, arguments) in makers.items():
            contestants[name] = Contestant(name, maker, arguments, environment)
            print(f"  {name}: ready after {contestants[name].ready_after_s:.1f} s", flush=True)
        yield contestants
    finally:
        for contestant in contestants.values():
            contestant.end()


def in_turn(names: list[str], rounds: int) -> Iterator[tuple[int, list[str]]]:
    """The order of each round: another one goes first each time."""
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
            began, core_s = time.perf_counter(), _core_s()
            items = work()
            seconds = time.perf_counter() - began
            turn = Turn(items, seconds, _core_s() - core_s, _peak_mb())
            connection.send((True, turn))
    except Exception:
        connection.send((False, traceback.format_exc()))


def _core_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_mb() -> float:
    """Of this process, or of the largest that it started."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in who) * 1024 / 1e6
