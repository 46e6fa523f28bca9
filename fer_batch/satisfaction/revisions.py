"""Summaries in the database: counted, and written as a new revision if something changed.

Revisions are never altered. The arithmetic is left to figures.py, the presentation to reporting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from fer_batch.database import connections, results, tables
from fer_batch.database.statements import load_statements
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.records import Batch
from fer_batch.satisfaction.figures import SHARES, summarize_counts
from fer_batch.testing.failpoints import failpoint

log = get_logger(__name__)

_STATEMENTS = load_statements(__file__)
_NOT_COMPARED = {"revision", "run_id", "created_at"}


def write_summaries(
    connection: sa.Connection,
    batches: Iterable[Batch],
    model_version: str,
    facilities: Mapping[str, Facility],
    run_id: str,
) -> list[dict[str, Any]]:
    """Summarize the batches; returns the newest summary of each, whether new or unchanged.

    The dictionaries have the columns of `satisfaction_summary` and `is_new_revision`. A revision
    is written only if something other than the run and the time would change. It does not replace
    a summary of another model version that covers more images or belongs to a later run. A batch
    that was never listed has no summary, unless its listing failed: then it has an incomplete one.
    Raises DatabaseError for a model version that is not registered.
    """
    connections.prefer_hash_joins(connection)
    results.check_registered(connection, model_version)
    counts = [
        row
        # Sorted, so that concurrent runs take the locks in the same order and cannot deadlock.
        for batch in sorted(batches, key=lambda b: (b.capture_day, b.facility_id))
        if (row := _count_batch(connection, batch, model_version, facilities[batch.facility_id]))
    ]
    if not counts:
        return []
    rows = summarize_counts(pd.DataFrame(counts)).to_dict("records")
    summaries = [_write_revision(connection, row, run_id) for row in rows]
    new = sum(summary["is_new_revision"] for summary in summaries)
    log.info("summarized", summaries=len(summaries), new_revisions=new)
    return summaries


def _count_batch(
    connection: sa.Connection, batch: Batch, model_version: str, facility: Facility
) -> dict[str, Any] | None:
    """The counts of a batch with the facility's settings; None if the batch has no summary."""
    connections.lock(connection, f"summary:{batch.facility_id}:{batch.capture_day}")
    params = asdict(batch) | {"model_version": model_version}
    counts = connection.execute(_STATEMENTS["count_batch"], params).mappings().one_or_none()
    if counts is None:
        return None
    row = dict(counts)
    listed_at = row.pop("listed_at")
    was_over = listed_at is not None and listed_at >= facility.compute_day_end_utc(
        batch.capture_day
    )
    return row | {
        "model_version": model_version,
        "target_share": facility.target_share,
        "time_zone": facility.time_zone,
        "is_complete": was_over and row["images_pending"] == 0,
        "is_below_expected": was_over
        and not facility.is_closed(batch.capture_day)
        and row["images"] < facility.expected_images_min,
    }


def _write_revision(
    connection: sa.Connection, row: Mapping[Any, Any], run_id: str
) -> dict[str, Any]:
    """Insert the row as the next revision unless the newest one is equal or must stay."""
    summary = {
        str(name): None if name in SHARES and pd.isna(value) else value
        for name, value in row.items()
    }
    newest = find_newest(connection, Batch(row["facility_id"], row["capture_day"]))
    if newest is not None and all(
        newest[name] == summary[name] for name in newest if name not in _NOT_COMPARED
    ):
        return dict(newest) | {"is_new_revision": False}
    if newest is not None and newest["model_version"] != summary["model_version"]:
        reason = _explain_why_newest_stays(connection, newest, summary, run_id)
        if reason:
            log.warning(
                "summary kept",
                facility=newest["facility_id"],
                day=newest["capture_day"].isoformat(),
                revision=newest["revision"],
                model_version=newest["model_version"][:12],
                reason=reason,
            )
            return dict(newest) | {"is_new_revision": False}
    table = tables.satisfaction_summary
    written = connection.execute(
        sa.insert(table)
        .values(
            **summary,
            revision=newest["revision"] + 1 if newest else 1,
            run_id=run_id,
            created_at=sa.func.statement_timestamp(),
        )
        .returning(table)
    )
    failpoint("summary.during")
    return dict(written.mappings().one()) | {"is_new_revision": True}


def _explain_why_newest_stays(
    connection: sa.Connection, newest: Mapping[Any, Any], summary: Mapping[str, Any], run_id: str
) -> str:
    """Why the newest summary, of another model version, is not replaced; empty if it is.

    A new version cannot score a day whose images can no longer be read. And a run of an older
    version that is cleared in Airflow must not revert the summary of a later run of another.
    """
    if _count_known_images(summary) < _count_known_images(newest):
        return (
            "this run's model version could read fewer of the day's images, or not all of them yet"
        )
    params = {
        "facility_id": summary["facility_id"],
        "capture_day": summary["capture_day"],
        "model_version": newest["model_version"],
        "run_id": run_id,
    }
    if connection.execute(_STATEMENTS["has_later_run"], params).scalar_one():
        return "a run that began later than this one wrote it"
    return ""


def _count_known_images(summary: Mapping[Any, Any]) -> int:
    """Images that the summary's model version has an outcome for, without those it never read."""
    unseen = sum(summary["not_scored"].get(outcome, 0) for outcome in ("missing", "erased"))
    return int(summary["images"] - summary["images_pending"] - unseen)


def find_newest(connection: sa.Connection, batch: Batch) -> sa.RowMapping | None:
    """The newest revision of a batch's summary; None if it has none."""
    table = tables.satisfaction_summary
    revisions = sa.select(table).where(
        table.c.facility_id == batch.facility_id, table.c.capture_day == batch.capture_day
    )
    newest = revisions.order_by(table.c.revision.desc()).limit(1)
    return connection.execute(newest).mappings().one_or_none()


def load_daily(
    connection: sa.Connection, facility_ids: Sequence[str], first_day: date, last_day: date
) -> pd.DataFrame:
    """The rows of the view `satisfaction_daily` of some facilities, both days included.

    Shares are NaN where suppressed; `not_scored` holds dictionaries. Sorted by day and name.
    """
    params = {"facility_ids": list(facility_ids), "first_day": first_day, "last_day": last_day}
    rows = connection.execute(_STATEMENTS["load_daily"], params)
    daily = pd.DataFrame(rows.mappings().all(), columns=list(rows.keys()))
    return daily.astype(dict.fromkeys((*SHARES, "target_share", "confidence"), np.float64))
