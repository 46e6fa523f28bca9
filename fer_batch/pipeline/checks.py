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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, Literal, get_args

import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.errors import DatabaseError
from fer_batch.facilities.audience import AT_WORK_OR_IN_EDUCATION
from fer_batch.facilities.loading import InvalidFacility
from fer_batch.facilities.registry import Facility
from fer_batch.findings.episodes import ClosingRule
from fer_batch.records import Batch
from fer_batch.satisfaction.change import MAX_Q_VALUE
from fer_batch.settings import Settings

CONCURRENT_CHECKS = 2
"""Each check uses one connection, and PostgreSQL runs it on one core."""

_HEAD = re.compile(
    rf"-- (error|warning): (.+)\n-- closed by: ({'|'.join(get_args(ClosingRule))})\n"
)
_STATEMENTS = load_statements(__file__)
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
    """A finding; the steps pass it on as a dictionary.

    `subject` is empty if the problem is about the whole facility. `example` is for engineers: the
    key of an image, or what a file or a server said. `finding` has nothing of that, because mails
    and reports show it, and no count of faces, because the day may be suppressed.
    """

    check: str
    severity: Literal["error", "warning"]
    facility_id: str
    capture_day: date
    meaning: str
    finding: str | None
    subject: str
    closing_rule: ClosingRule
    example: str = ""


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
    return asdict(
        Finding(
            check="invalid_in_registry",
            severity="error",
            facility_id=invalid.facility_id,
            capture_day=capture_day,
            meaning="the facility's entry in the registry is invalid: nothing of it was read",
            finding=invalid.reason,
            subject="",
            closing_rule="later day",
        )
    )


def find_in_registry(
    facilities: Mapping[str, Facility],
    batches: Iterable[Batch],
    now_utc: datetime,
    strict_from: date,
) -> list[dict[str, Any]]:
    """The findings about facilities that may be read, but whose entry needs a person's attention.

    The entry lacks who is read, where, or a date of the permission; or it says that people at work
    or in education are read, where that is not prohibited. `strict_from` is the setting
    `strict_registry_from`.
    """
    found: list[Finding] = []

    def add(batch: Batch, check: str, meaning: str, finding: str) -> None:
        found.append(
            Finding(
                check=check,
                severity="warning",
                facility_id=batch.facility_id,
                capture_day=batch.capture_day,
                meaning=meaning,
                finding=finding,
                subject="",
                closing_rule="later day",
            )
        )

    for batch in batches:
        facility = facilities[batch.facility_id]
        if facility.get_denial_reason(batch.capture_day, now_utc, strict_from):
            continue  # the check no_permission has the reason
        if gap := facility.describe_gap(strict_from):
            add(
                batch,
                "incomplete_in_registry",
                "the facility's entry in the registry is not complete: from a date on, nothing of "
                "it is read",
                gap,
            )
        if groups := [each for each in AT_WORK_OR_IN_EDUCATION if each in facility.audience]:
            add(
                batch,
                "people_at_work_or_in_education",
                "the facility has images of people at work or in education",
                f"{' and '.join(groups)} in {facility.jurisdiction}: in the EU this is prohibited; "
                "have a lawyer confirm that it is lawful there",
            )
    return [asdict(each) for each in found]


def read_thresholds(settings: Settings) -> dict[str, Any]:
    """The settings `alert_…` as parameters of the checks."""
    return {name: getattr(settings, name) for name in _THRESHOLDS}


def list_figure_days(capture_days: Iterable[date]) -> list[date]:
    """The days, and all days of the weeks that end with one of them.

    The checks that read the faces of weeks have them as a parameter: a range would read the
    partitions of every day.
    """
    days = set(capture_days)
    sundays = [day for day in days if day.isoweekday() == 7]
    return sorted(days | {day - timedelta(days=n) for day in sundays for n in range(1, 7)})


def check_data(
    engine: sa.Engine,
    batches: Iterable[Batch],
    model_version: str,
    run_id: str,
    settings: Settings,
) -> list[dict[str, Any]]:
    """Run every check on the facilities and days of the batches; returns the findings.

    Each finding has the keys of `Finding`. Errors come first. Missing outcomes are checked for the
    given model version. Rows that other runs have changed since the run `run_id` began are left to
    the checks of those runs. `settings` has the thresholds of the alerts. Raises what
    `connections.translate_errors` raises.
    """
    selected = set(batches)
    facility_ids = sorted({b.facility_id for b in selected})
    days = {b.capture_day for b in selected}
    with connections.translate_errors(), engine.connect() as connection:
        has_weeks = connection.execute(
            _STATEMENTS["publishes_weeks"], {"facility_ids": facility_ids}
        ).scalar_one()
    params = {
        "facility_ids": facility_ids,
        "capture_days": sorted(days),
        "model_version": model_version,
        "run_id": run_id,
        "figure_days": list_figure_days(days) if has_weeks else sorted(days),
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
        Finding(
            check=check.name,
            severity=check.severity,
            facility_id=row["facility_id"],
            capture_day=row["capture_day"],
            meaning=check.meaning,
            finding=row["finding"],
            subject=row.get("subject") or "",
            closing_rule=check.closing_rule,
            example=row.get("example") or "",
        )
        for check, rows in zip(load_checks(), rows_by_check, strict=True)
        for row in rows
        if Batch(row["facility_id"], row["capture_day"]) in selected
    ]
    findings.sort(key=lambda f: (f.severity, f.capture_day, f.facility_id, f.check))
    return [asdict(finding) for finding in findings]
