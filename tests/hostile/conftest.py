"""Whole runs over hostile images and names: what the process that reads keeps, and who dies."""

from __future__ import annotations

import functools
import gc
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from fer_batch import worker
from tests.cli.conftest import caller, fer, nightly
from tests.dags.conftest import fer_command
from tests.end_to_end.conftest import night
from tests.s3.conftest import moto

__all__ = ["caller", "fer", "fer_command", "moto", "night", "nightly"]

GROWTH_MB = 20
"""By so much the process that reads hostile images, or starts who does, may have grown."""


def resident_mb() -> float:
    """Resident memory of this process, after what is garbage has gone."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


@pytest.fixture
def scoring_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Let the scoring process of the coming runs begin with a script of the test's own.

    It is the real one after that: it reads its job, fetches from S3 and writes to Postgres.
    """

    def begins_with(script: str) -> None:
        path = tmp_path / "scoring_process.py"
        path.write_text(f"{script}\n\nfrom fer_batch.cli import main\nmain()\n")
        command = (sys.executable, str(path), "worker")
        real = functools.partial(worker.score_shard, command=command)
        monkeypatch.setattr(worker, "score_shard", real)

    return begins_with
