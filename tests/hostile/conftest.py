"""Memory measurement and a modified scoring process, for runs over hostile images and names."""

from __future__ import annotations

import functools
import gc
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from fer_batch.pipeline import supervisor

GROWTH_MB = 20
"""Allowed growth, in MB, of a process that reads hostile images or starts the one that does."""


def measure_resident_mb() -> float:
    """Resident memory of this process in MB, after garbage collection."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


@pytest.fixture
def scoring_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Make the scoring process of later runs execute a script of the test first.

    Afterwards it is the real one: it reads its job, fetches from S3 and writes to Postgres.
    """

    def start_with(script: str) -> None:
        path = tmp_path / "scoring_process.py"
        path.write_text(f"{script}\n\nfrom fer_batch.cli import main\nmain()\n")
        command = (sys.executable, str(path), "worker")
        real = functools.partial(supervisor.score_shard, command=command)
        monkeypatch.setattr(supervisor, "score_shard", real)

    return start_with
