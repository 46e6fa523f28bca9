"""The data checks: each file of `sql/checks` is a query that returns no rows for correct data.

A file's first line gives the severity and the meaning of a row: `-- error: …` or `-- warning: …`.
Each row is a finding: a facility, a capture day, and in `finding` the details. An error means
that the tables contradict each other or that work is missing; a warning, that a person should
examine it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import TypeAdapter

from fer_batch import resources
from fer_batch.database import connections
from fer_batch.errors import DatabaseError
from fer_batch.facilities.loading import InvalidFacility
from fer_batch.records import Batch

CONCURRENT_CHECKS = 2
"""Each check uses one connection, and PostgreSQL runs it on one core."""

_FIRST_LINE = re.compile(r"-- (error|warning): (.+)")


@dataclass(frozen=True, slots=True)
class Check:
    """One file: its name, the severity and the meaning of a finding, and the query."""

    name: str
    severity: Literal["error", "warning"]
    meaning: str
    statement: sa.TextClause


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding as JSON holds it; the steps pass it on as a dictionary."""

    check: str
    severity: Literal["error", "warning"]
    facility_id: str
    capture_day: date
    meaning: str
    finding: str | None


FINDINGS = TypeAdapter(list[Finding])


@cache
def load_checks() -> tuple[Check, ...]:
    """The checks, ordered by name. Raises DatabaseError for a file without a valid first line."""
    return tuple(_read_files())


def _read_files() -> Iterator[Check]:
    for file in sorted((resources.find_sql_dir() / "checks").glob("*.sql")):
        sql = file.read_text(encoding="utf-8")
        first = _FIRST_LINE.match(sql)
        if first is None:
            raise DatabaseError(
                f"{file} is not a check", "Its first line must be `-- error: …` or `-- warning: …`"
            )
        severity: Literal["error", "warning"] = "error" if first[1] == "error" else "warning"
        yield Check(file.stem, severity, first[2].strip(), sa.text(sql))


def make_invalid_finding(invalid: InvalidFacility, capture_day: date) -> dict[str, Any]:
    """The finding about a facility whose entry in the registry is invalid."""
    return {
        "check": "invalid_in_registry",
        "severity": "error",
        "facility_id": invalid.facility_id,
        "capture_day": capture_day,
        "meaning": "the facility's entry in the registry is invalid: nothing of it was read",
        "finding": invalid.reason,
    }


def check_data(
    engine: sa.Engine, batches: Iterable[Batch], model_version: str, run_id: str
) -> list[dict[str, Any]]:
    """Run every check on the facilities and days of the batches; returns the findings.

    Each finding has `check`, `severity` ("error" or "warning"), `facility_id`, `capture_day`,
    `meaning` (of the check) and `finding` (the details). Errors come first. Missing outcomes are
    checked for the given model version. Rows that other runs have changed since the run `run_id`
    began are left to the checks of those runs. Raises what `connections.translate_errors` raises.
    """
    selected = set(batches)
    params = {
        "facility_ids": sorted({b.facility_id for b in selected}),
        "capture_days": sorted({b.capture_day for b in selected}),
        "model_version": model_version,
        "run_id": run_id,
    }

    def run_check(check: Check) -> Sequence[sa.RowMapping]:
        with connections.translate_errors(), engine.connect() as connection:
            connections.prefer_hash_joins(connection)
            return connection.execute(check.statement, params).mappings().all()

    with ThreadPoolExecutor(CONCURRENT_CHECKS, thread_name_prefix="check") as pool:
        rows_by_check = list(pool.map(run_check, load_checks()))
    findings = [
        {
            "check": check.name,
            "severity": check.severity,
            "facility_id": row["facility_id"],
            "capture_day": row["capture_day"],
            "meaning": check.meaning,
            "finding": row["finding"],
        }
        for check, rows in zip(load_checks(), rows_by_check, strict=True)
        for row in rows
        if Batch(row["facility_id"], row["capture_day"]) in selected
    ]
    return sorted(
        findings, key=lambda f: (f["severity"], f["capture_day"], f["facility_id"], f["check"])
    )
