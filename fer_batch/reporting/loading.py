"""Reads from the database what a report shows.

A report is about all facilities of the registry, but a run checks only its own. So the findings of
each run are stored (package `findings`), and the report shows those of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from fer_batch.database.statements import load_statements
from fer_batch.facilities.registry import WEEKDAYS
from fer_batch.findings import history
from fer_batch.findings.history import StoredFinding
from fer_batch.satisfaction.intervals import Floats
from fer_batch.satisfaction.revisions import Confusions

DAYS = 28
"""Days of a trend."""
LOADED_DAYS = DAYS + 6
"""Four ISO weeks that ended in the last seven days begin up to so many days ago."""
RECENT_DAYS = 7
"""Findings and failed listings of so many days are shown."""

Row = Mapping[str, Any]

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class FacilityRows:
    """The rows of one facility up to the capture day of the report.

    `days` are the newest daily summaries by day, oldest first; `as_of` is the newest complete one
    with customers, with its sums in `totals`. `periods` are the week and the four weeks that ended
    in the last seven days; `weeks` those of the last four weeks by last day, of a facility that
    publishes by week. `earlier` has, by period (`day`, `week`), the summary with its sums of the
    same weekday or week before `as_of` and the newest week. `changes` are those of days and weeks,
    oldest first. `findings` is what each day shows, `open_findings` are the problems that are not
    closed. The other rows are newest first.
    """

    facility: Row
    days: Mapping[date, Row]
    as_of: Row | None
    periods: Sequence[Row] = ()
    weeks: Mapping[date, Row] = field(default_factory=dict)
    earlier: Mapping[str, Row] = field(default_factory=dict)
    changes: Sequence[Row] = ()
    revisions: Sequence[Row] = ()
    findings: Sequence[Row] = ()
    batches: Sequence[Row] = ()
    open_findings: Sequence[StoredFinding] = ()


@dataclass(frozen=True, slots=True)
class ReportRows:
    """What a report is made from. `confusions` holds the confusion matrix of each model version;
    `unknown` are findings about facilities that are not in the table `facility`."""

    capture_day: date
    facilities: Sequence[FacilityRows]
    confusions: Mapping[str, Floats | None] = field(default_factory=dict)
    unknown: Sequence[Row] = ()
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def load_rows(connection: sa.Connection, capture_day: date) -> ReportRows:
    """The rows of all facilities of the registry, up to the capture day."""
    recent = {
        "first_day": capture_day - timedelta(days=RECENT_DAYS - 1),
        "last_day": capture_day,
    }
    month = recent | {"first_day": capture_day - timedelta(days=DAYS - 1)}
    loaded = recent | {"first_day": capture_day - timedelta(days=LOADED_DAYS - 1)}

    def load(
        statement: sa.TextClause, params: Mapping[str, Any]
    ) -> dict[str, list[dict[str, Any]]]:
        """The rows of each facility."""
        by_facility: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in connection.execute(statement, params).mappings():
            by_facility[row["facility_id"]].append(dict(row))
        return by_facility

    facilities = [
        dict(row) for row in connection.execute(_STATEMENTS["load_facilities"]).mappings()
    ]
    days = load(_STATEMENTS["load_days"], loaded)
    periods = load(_STATEMENTS["load_periods"], recent)
    weeks = load(_STATEMENTS["load_weeks"], month)
    changes = load(_STATEMENTS["load_changes"], loaded)
    revisions = load(_STATEMENTS["load_revisions"], month)
    findings: dict[str, list[Row]] = defaultdict(list)
    for row in history.load_days(connection, recent["first_day"], recent["last_day"]):
        findings[row["facility_id"]].append(row)
    open_findings: dict[str, list[StoredFinding]] = defaultdict(list)
    for each in history.list_findings(connection, until=capture_day):
        open_findings[each.facility_id].append(each)
    batches = load(_STATEMENTS["load_batches"], recent)
    as_of = {
        facility["facility_id"]: found
        for facility in facilities
        if (found := find_as_of(facility, days[facility["facility_id"]])) is not None
    }
    _add_totals(connection, as_of)
    earlier = _load_earlier(connection, as_of, periods)
    known = [facility["facility_id"] for facility in facilities]
    confusions = Confusions(connection)
    versions = {row["model_version"] for row in as_of.values()}
    versions |= {row["model_version"] for rows in periods.values() for row in rows}
    return ReportRows(
        capture_day,
        [
            FacilityRows(
                facility,
                {row["capture_day"]: row for row in days[facility_id]},
                as_of.get(facility_id),
                periods[facility_id],
                {row["last_day"]: row for row in weeks[facility_id]},
                earlier[facility_id],
                changes[facility_id],
                revisions[facility_id],
                findings[facility_id],
                batches[facility_id],
                open_findings[facility_id],
            )
            for facility_id, facility in zip(known, facilities, strict=True)
        ],
        {version: confusions.load(version) for version in sorted(versions)},
        [row for name, rows in sorted(findings.items()) if name not in known for row in rows],
    )


def find_as_of(facility: Row, days: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest complete day of a facility that was not closed; `days` are oldest first."""
    open_days = (row for row in reversed(days) if not is_closed(facility, row["capture_day"], row))
    return next((row for row in open_days if row["is_complete"]), None)


def is_closed(facility: Row, day: date, summary: Row | None) -> bool:
    """Whether a day is a closed weekday of the facility, without an image."""
    is_closed_weekday = WEEKDAYS[day.weekday()] in facility["closed_weekdays"]
    return is_closed_weekday and (summary is None or summary["images"] == 0)


def _add_totals(connection: sa.Connection, as_of: Mapping[str, dict[str, Any]]) -> None:
    """Add the column `totals` to the summaries, one of each facility."""
    params = {
        "facility_ids": list(as_of),
        "days": [row["capture_day"] for row in as_of.values()],
    }
    for row in connection.execute(_STATEMENTS["load_totals"], params):
        as_of[row.facility_id]["totals"] = row.totals


def _load_earlier(
    connection: sa.Connection,
    as_of: Mapping[str, Row],
    periods: Mapping[str, Sequence[Row]],
) -> dict[str, dict[str, Row]]:
    """The summaries a week before `as_of` and the newest week, by facility and period."""
    asked = [(facility_id, "day", row["capture_day"]) for facility_id, row in as_of.items()]
    asked += [
        (facility_id, "week", row["last_day"])
        for facility_id, rows in periods.items()
        for row in rows
        if row["period"] == "week"
    ]
    params = {
        "facility_ids": [facility_id for facility_id, _, _ in asked],
        "periods": [period for _, period, _ in asked],
        "days": [day - timedelta(weeks=1) for _, _, day in asked],
    }
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in connection.execute(_STATEMENTS["load_earlier"], params).mappings():
        found[row["facility_id"]][row["period"]] = dict(row)
    return found
