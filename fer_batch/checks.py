"""The data checks: every file of `sql/checks` is a question whose right answer is no row.

A file's first line says how bad a row is and what it means: `-- error: …` or `-- warning: …`. Its
rows name a facility and a capture day and say in `finding` what was found. An error means that
the tables contradict themselves or that work is missing; a warning, that a person should look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa

from fer_batch import database, resources
from fer_batch.errors import DatabaseError
from fer_batch.records import Batch

CHECKS_AT_ONCE = 2
"""Each has a connection of its own. PostgreSQL answers one with one core."""

_FIRST_LINE = re.compile(r"-- (error|warning): (.+)")


@dataclass(frozen=True, slots=True)
class Check:
    """One file: its name, how bad a finding is, what it means, and the question."""

    name: str
    severity: Literal["error", "warning"]
    meaning: str
    statement: sa.TextClause


@cache
def all_checks() -> tuple[Check, ...]:
    """The checks in the order of their names. Raises DatabaseError for a file that is none."""
    return tuple(_read())


def _read() -> Iterator[Check]:
    for file in sorted((resources.sql_dir() / "checks").glob("*.sql")):
        sql = file.read_text(encoding="utf-8")
        first = _FIRST_LINE.match(sql)
        if first is None:
            raise DatabaseError(
                f"{file} is not a check", "Its first line says `-- error: …` or `-- warning: …`"
            )
        severity: Literal["error", "warning"] = "error" if first[1] == "error" else "warning"
        yield Check(file.stem, severity, first[2].strip(), sa.text(sql))


def run(
    engine: sa.Engine, batches: Iterable[Batch], model_version: str, run_id: str
) -> list[dict[str, Any]]:
    """Run every check on the facilities and days of the batches; returns the findings.

    Each finding has `check`, `severity` ("error" or "warning"), `facility_id`, `capture_day`,
    `meaning` (what the check is about) and `finding` (what it found). Errors come first. Which
    images lack an outcome is asked for the model version given. What other runs have changed since
    the run `run_id` began is left to their checks. Raises the database's errors.
    """
    looked_at = set(batches)
    question = {
        "facility_ids": sorted({b.facility_id for b in looked_at}),
        "capture_days": sorted({b.capture_day for b in looked_at}),
        "model_version": model_version,
        "run_id": run_id,
    }

    def ask(check: Check) -> Sequence[sa.RowMapping]:
        with database.translate_errors(), engine.connect() as connection:
            database.join_by_hash(connection)
            return connection.execute(check.statement, question).mappings().all()

    with ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="check") as pool:
        answers = list(pool.map(ask, all_checks()))
    findings = [
        {
            "check": check.name,
            "severity": check.severity,
            "facility_id": row["facility_id"],
            "capture_day": row["capture_day"],
            "meaning": check.meaning,
            "finding": row["finding"],
        }
        for check, rows in zip(all_checks(), answers, strict=True)
        for row in rows
        if Batch(row["facility_id"], row["capture_day"]) in looked_at
    ]
    return sorted(
        findings, key=lambda f: (f["severity"], f["capture_day"], f["facility_id"], f["check"])
    )
