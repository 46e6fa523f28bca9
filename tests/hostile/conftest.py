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
from fer_batch.settings import Settings
from tests.end_to_end.conftest import Night
from tests.support.models import write_tiny_cnn

GROWTH_MB = 20


def resident_mb() -> float:
    """Resident memory of this process, after what is garbage has gone."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


@pytest.fixture
def night(stack_settings: Settings, s3: Any, tmp_path: Path) -> Night:
    """A bucket, a database and a registry of the test's own, and a CNN: bright is Happy."""
    folder = tmp_path / "cnn"
    folder.mkdir()
    return Night(stack_settings.model_copy(update={"model_card": write_tiny_cnn(folder)}), s3)


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
