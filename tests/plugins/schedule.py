"""The order of the tests, and which of them stay together on one worker of pytest-xdist.

A file's tests share a worker, with the fixtures of the file. All tests on Airflow share one, since
starting it takes longer than most of them, and so do all that train, as TensorFlow takes much
memory, and all of the command, for their fork server. What takes longest comes first, so that no
worker is left with it at the end.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.plugins.kinds import imported_modules, kinds_of_file
from tests.support.repository import REPO_ROOT

KILLS = "tests/faults/test_kill_anywhere.py"
COMMAND = "tests/cli/"
LONGEST_FIRST = (
    "airflow",
    "training",
    KILLS,
    COMMAND,
    "tests/test_wheel.py",
    "tests/faults/",
    "tests/hostile/",
)
"""Beginnings of scopes; scopes with none of them come last."""


def scope_of(nodeid: str) -> str:
    """What a test shares its worker with: tests of the same scope run on one."""
    name = nodeid.partition("::")[0]
    path = REPO_ROOT / name
    if "tests.end_to_end.airflow_stack" in imported_modules(path):
        return "airflow"
    if "training" in kinds_of_file(path):
        return "training"
    if name.startswith(COMMAND):
        return COMMAND
    return nodeid if name == KILLS else name  # each kill test is long, and they share nothing


def _rank(item: pytest.Item) -> int:
    scope = scope_of(item.nodeid)
    starts = (rank for rank, start in enumerate(LONGEST_FIRST) if scope.startswith(start))
    return next(starts, len(LONGEST_FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as cores, up to four, and more, because tests of timeouts wait.

    Those that use servers wait most: with them there is one worker more.
    """
    has_servers = config.getoption("markexpr") != "unit"
    return min(len(os.sched_getaffinity(0)), 4) + (2 if has_servers else 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduler(config, log)
