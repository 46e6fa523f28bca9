"""Running the data checks on the tables of a test."""

from __future__ import annotations

from typing import Any

from fer_batch.pipeline import checks
from fer_batch.records import Batch
from fer_batch.settings import Settings


def run(tables: Any, *batches: Batch, run_id: str = "run-1") -> list[dict[str, Any]]:
    """The findings of batches, by default of the day of `tables`."""
    settings = Settings(_env_file=None)
    return checks.check_data(
        tables.engine, batches or [tables.batch], tables.version, run_id, settings
    )


def find(tables: Any, *batches: Batch, run_id: str = "run-1") -> dict[str, str]:
    """The details of the findings by check, with their examples."""
    return {
        f["check"]: ", ".join(filter(None, (f["finding"], f["example"])))
        for f in run(tables, *batches, run_id=run_id)
    }


def write_healthy_day(tables: Any) -> None:
    """A day without a finding."""
    tables.fill(happy=60, sad=20, neither=20)
    tables.summarize()
