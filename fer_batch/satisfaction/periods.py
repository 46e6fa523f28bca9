"""Summaries of ISO weeks and of four complete ISO weeks, added up from those of shorter periods.

A week consists of its published days, four weeks of their published weeks, so that no figure of a
longer period reveals a suppressed one. Rows of images are not read: the totals in the summaries are
enough. Counting days is left to revisions.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.facilities.registry import Facility
from fer_batch.records import Batch
from fer_batch.satisfaction.audits import Audits, LocalAudit
from fer_batch.satisfaction.figures import add_totals, compute_figures, is_published
from fer_batch.satisfaction.intervals import Floats
from fer_batch.satisfaction.revisions import (
    Confusions,
    explain_request,
    find_audit,
    find_newest,
    write_revision,
)

WEEK_DAYS = 7
WEEKS = 4

_STATEMENTS = load_statements(__file__)


def write_period_summaries(
    connection: sa.Connection,
    batches: Iterable[Batch],
    facilities: Mapping[str, Facility],
    run_id: str,
    *,
    due_until: date = date.min,
    asked: tuple[date, date] | None = None,
    keeps_version: bool = False,
) -> None:
    """Write the summaries of the weeks and four weeks that contain the batches.

    Call it after the summaries of all the days are written. A week has a summary once its Sunday is
    over and a summary of that day or a later one exists, four weeks once each of the weeks has one.
    The week of a facility that publishes by week is pending while one of its days has no summary
    of the model version of its last day, unless it ends by `due_until`, the last day that no later
    run looks at again, or is asked for.
    `asked` are the first and the last day that somebody has asked to re-estimate: an audit that
    came into force later corrects the periods within them too. A summary has the model version of
    its last day; with `keeps_version`, as after an erasure, that of its newest revision.
    """
    connections.lock(connection, "period summaries")
    weeks = {(batch.facility_id, find_week_end(batch.capture_day)) for batch in batches}
    # A week is part of the four weeks that end with it, and of three later ones.
    four_weeks = {
        (facility_id, end + timedelta(weeks=later))
        for facility_id, end in weeks
        for later in range(WEEKS)
    }
    confusions, audits = Confusions(connection), Audits(connection)
    for period, ends in (("week", weeks), ("four weeks", four_weeks)):
        for (facility_id, end), parts in _load_parts(connection, period, ends).items():
            facility = facilities[facility_id]
            batch = Batch(facility_id, end)
            version = parts[-1]["model_version"]
            if keeps_version:
                version = _find_version(connection, batch, period, parts)
            confusion = confusions.load(version)
            first_day = end - timedelta(days=_count_days(period) - 1)
            is_asked = asked is not None and asked[0] <= first_day and end <= asked[1]
            audit = find_audit(connection, audits, batch, period, version, is_asked)
            used = [part for part in parts if _is_used(part, version, facility, period)]
            is_due = (
                is_asked or end <= due_until or _is_whole(connection, facility, period, end, used)
            )
            row = _summarize_period(
                facility, period, end, version, parts, used, confusion, audit, is_due=is_due
            )
            row["reason"] = explain_request(row["audit_id"]) if is_asked else ""
            write_revision(connection, row, run_id, facility, confusion, audit)


def list_pending_weeks(
    connection: sa.Connection, facility_ids: Iterable[str], due_until: date
) -> list[Batch]:
    """The Sundays of weeks that are pending although they end by `due_until`, or shortly before.

    No listing of a night may lead to such a week: its last day may have been erased, or the night
    that would have published it did not happen.
    """
    params = {
        "facility_ids": sorted(facility_ids),
        "first_day": due_until - timedelta(days=_count_days("four weeks")),
        "last_day": due_until,
    }
    rows = connection.execute(_STATEMENTS["list_pending_weeks"], params)
    return [Batch(*row) for row in rows]


def find_week_end(day: date) -> date:
    """The Sunday of the day's ISO week."""
    return day + timedelta(days=7 - day.isoweekday())


def _load_parts(
    connection: sa.Connection, period: str, ends: Iterable[tuple[str, date]]
) -> dict[tuple[str, date], list[Mapping[str, Any]]]:
    """The newest summaries of the days of each week, or of the weeks of each four weeks, in order
    of time, without the periods that have no summary yet."""
    chosen = sorted(ends)
    params = {
        "facility_ids": [facility_id for facility_id, _ in chosen],
        "ends": [end for _, end in chosen],
        "period": "day" if period == "week" else "week",
        "days": _count_days(period),
        "parts": 1 if period == "week" else WEEKS,
    }
    parts: dict[tuple[str, date], list[Mapping[str, Any]]] = defaultdict(list)
    for row in connection.execute(_STATEMENTS["load_parts"], params).mappings():
        parts[row["facility_id"], row["period_end"]].append(dict(row))
    return parts


def _count_days(period: str) -> int:
    return WEEK_DAYS * (1 if period == "week" else WEEKS)


def _find_version(
    connection: sa.Connection, batch: Batch, period: str, parts: Sequence[Mapping[str, Any]]
) -> str:
    """The model version of the period's newest summary if a part has it, else of its last day."""
    newest = find_newest(connection, batch, period)
    versions: list[str] = [part["model_version"] for part in parts]
    kept = None if newest is None else newest["model_version"]
    return kept if kept in versions else versions[-1]


def _is_whole(
    connection: sa.Connection,
    facility: Facility,
    period: str,
    end: date,
    used: Sequence[Mapping[str, Any]],
) -> bool:
    """Whether a period lacks no day that may still come, or did not wait for it before.

    The few faces of one more day would never change a published week of a facility that publishes
    by week. Published shorter periods have enough faces to do so.
    """
    if period != "week" or facility.publish_period != "week" or len(used) == WEEK_DAYS:
        return True
    newest = find_newest(connection, Batch(facility.facility_id, end), period)
    return (
        newest is not None
        and newest["verdict"] != "pending"
        and all(part["model_version"] == newest["model_version"] for part in used)
    )


def _summarize_period(
    facility: Facility,
    period: str,
    end: date,
    model_version: str,
    parts: Sequence[Mapping[str, Any]],
    used: Sequence[Mapping[str, Any]],
    confusion: Floats | None,
    audit: LocalAudit | None,
    *,
    is_due: bool,
) -> dict[str, Any]:
    """The columns of the summary of a week or of four weeks that consists of `parts`.

    `used` are those that its figure is added up from.
    """
    totals = add_totals([part["totals"] for part in used if part["totals"]])
    not_scored: Counter[str] = Counter()
    for part in parts:
        not_scored.update(part["not_scored"])
    expected = WEEK_DAYS if period == "week" else WEEKS
    # Days of a facility that publishes by week, for which more images may come.
    is_waiting = any(part["verdict"] == "pending" for part in used)
    return {
        "facility_id": facility.facility_id,
        "period": period,
        "first_day": end - timedelta(days=_count_days(period) - 1),
        "capture_day": end,
        "model_version": model_version,
        "time_zone": facility.time_zone,
        **{
            name: sum(part[name] for part in parts)
            for name in ("images", "images_scored", "images_pending")
        },
        "not_scored": dict(sorted(not_scored.items())),
        **{
            name: sum(part[name] for part in used)
            for name in ("faces", "called_happy", "called_sad", "called_neither")
        },
        "faces_scored": sum(part["faces_scored"] for part in parts),
        "totals": totals,
        "is_complete": len(parts) == expected and all(part["is_complete"] for part in parts),
        "is_below_expected": any(part["is_below_expected"] for part in parts),
        **compute_figures(totals, period, facility, confusion, is_due and not is_waiting, audit),
    }


def _is_used(part: Mapping[str, Any], model_version: str, facility: Facility, period: str) -> bool:
    """Whether a shorter period is part of the figure: one that is published, of the same CNN.

    A facility that publishes by week publishes no day, so each of its days is part of the week.
    """
    if part["model_version"] != model_version or part["method"] == "wilson":
        return False
    return is_published(part["method"]) or (period == "week" and facility.publish_period == "week")
