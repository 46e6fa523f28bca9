"""The data checks: each file of `sql/checks` is a query that returns no rows for correct data.

A file's first line gives the severity and the meaning of a row: `-- error: …` or `-- warning: …`.
The second one gives the rule by which the finding is closed on later nights: `-- closed by: …`,
followed by a `ClosingRule` of findings/episodes.py. Each row is a finding: a facility, a capture
day, and in `finding` the details. A column `subject` tells problems of a facility apart, such as
two frozen cameras. An error means that the tables contradict each other or that work is missing; a
warning, that a person should examine it. The history of findings is left to the package `findings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Literal, get_args

import sqlalchemy as sa
from pydantic import TypeAdapter

from fer_batch import resources
from fer_batch.database import connections
from fer_batch.errors import DatabaseError
from fer_batch.facilities.loading import InvalidFacility
from fer_batch.findings.episodes import ClosingRule
from fer_batch.records import Batch
from fer_batch.satisfaction.change import MAX_Q_VALUE
from fer_batch.settings import Settings

CONCURRENT_CHECKS = 2
"""Each check uses one connection, and PostgreSQL runs it on one core."""

_HEAD = re.compile(
    rf"-- (error|warning): (.+)\n-- closed by: ({'|'.join(get_args(ClosingRule))})\n"
)
_THRESHOLDS = tuple(name for name in Settings.model_fields if name.startswith("alert_"))


@dataclass(frozen=True, slots=True)
class Check:
    """One file: its name, the severity, meaning and closing rule of a finding, and the query."""

    name: str
    severity: Literal["error", "warning"]
    meaning: str
    closing_rule: ClosingRule
    statement: sa.TextClause


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding as JSON holds it; the steps pass it on as a dictionary.

    `subject` is empty if the problem is about the whole facility.
    """

    check: str
    severity: Literal["error", "warning"]
    facility_id: str
    capture_day: date
    meaning: str
    finding: str | None
    subject: str
    closing_rule: ClosingRule


FINDINGS = TypeAdapter(list[Finding])


@cache
def load_checks() -> tuple[Check, ...]:
    """The checks, ordered by name. Raises DatabaseError for a file without valid first lines."""
    return tuple(_read_files())


def _read_files() -> Iterator[Check]:
    for file in sorted((resources.find_sql_dir() / "checks").glob("*.sql")):
        sql = file.read_text(encoding="utf-8")
        head = _HEAD.match(sql)
        if head is None:
            raise DatabaseError(
                f"{file} is not a check",
                "Its first line must be `-- error: …` or `-- warning: …`, its second line "
                f"`-- closed by: …` with one of: {', '.join(get_args(ClosingRule))}",
            )
        severity: Literal["error", "warning"] = "error" if head[1] == "error" else "warning"
        rule = next(rule for rule in get_args(ClosingRule) if rule == head[3])
        yield Check(file.stem, severity, head[2].strip(), rule, sa.text(sql))


def make_invalid_finding(invalid: InvalidFacility, capture_day: date) -> dict[str, Any]:
    """The finding about a facility whose entry in the registry is invalid."""
    return {
        "check": "invalid_in_registry",
        "severity": "error",
        "facility_id": invalid.facility_id,
        "capture_day": capture_day,
        "meaning": "the facility's entry in the registry is invalid: nothing of it was read",
        "finding": invalid.reason,
        "subject": "",
        "closing_rule": "later day",
    }


def read_thresholds(settings: Settings | None) -> dict[str, Any]:
    """The settings `alert_…` as parameters of the checks; of None the defaults."""
    fields = Settings.model_fields
    return {
        name: fields[name].default if settings is None else getattr(settings, name)
        for name in _THRESHOLDS
    }


def check_data(
    engine: sa.Engine,
    batches: Iterable[Batch],
    model_version: str,
    run_id: str,
    settings: Settings | None = None,
) -> list[dict[str, Any]]:
    """Run every check on the facilities and days of the batches; returns the findings.

    Each finding has the keys of `Finding`. Errors come first. Missing outcomes are checked for the
    given model version. Rows that other runs have changed since the run `run_id` began are left to
    the checks of those runs. `settings` has the thresholds of the alerts; None: the default ones.
    Raises what `connections.translate_errors` raises.
    """
    selected = set(batches)
    params = {
        "facility_ids": sorted({b.facility_id for b in selected}),
        "capture_days": sorted({b.capture_day for b in selected}),
        "model_version": model_version,
        "run_id": run_id,
        "max_q_value": MAX_Q_VALUE,
        **read_thresholds(settings),
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
            "subject": row.get("subject") or "",
            "closing_rule": check.closing_rule,
        }
        for check, rows in zip(load_checks(), rows_by_check, strict=True)
        for row in rows
        if Batch(row["facility_id"], row["capture_day"]) in selected
    ]
    return sorted(
        findings, key=lambda f: (f["severity"], f["capture_day"], f["facility_id"], f["check"])
    )
