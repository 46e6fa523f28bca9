"""Summaries in the database: counted, and written as a new revision if something changed.

Revisions are never altered. The arithmetic is left to estimator.py and figures.py, the presentation
to reporting.
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
from fer_batch.satisfaction.audits import Audits, LocalAudit
from fer_batch.satisfaction.figures import (
    PRECISION,
    RATES,
    compute_figures,
    is_published,
    keep_published,
)
from fer_batch.satisfaction.intervals import Floats
from fer_batch.testing.failpoints import failpoint

log = get_logger(__name__)

_STATEMENTS = load_statements(__file__)
_NOT_COMPARED = {"revision", "run_id", "created_at", "reason"}
_UNSEEN = ("missing", "archived", "refused", "erased")


def write_summaries(
    connection: sa.Connection,
    batches: Iterable[Batch],
    model_version: str,
    facilities: Mapping[str, Facility],
    run_id: str,
    due_until: date | None = None,
    *,
    is_asked: bool = False,
) -> list[dict[str, Any]]:
    """Summarize the batches; returns the newest summary of each, whether new or unchanged.

    The rates of an incomplete day are published if it is not after `due_until`, the last day that
    no later run looks at again; None publishes those of all days. With `is_asked`, somebody has
    asked to re-estimate the days: also an audit that came into force later corrects them, and a
    new revision says so in its `reason`.

    The dictionaries have the columns of `satisfaction_summary` and `is_new_revision`. A revision
    is written only if something other than the run and the time would change. It does not replace
    a summary of another model version that covers more images or belongs to a later run. A batch
    that was never listed has no summary, unless its listing failed: then it has an incomplete one.
    Raises DatabaseError for a model version that is not registered.
    """
    connections.prefer_hash_joins(connection)
    results.check_registered(connection, model_version)
    confusion, audits = Confusions(connection).load(model_version), Audits(connection)
    summarized = [
        _summarize_batch(
            connection,
            batch,
            model_version,
            facilities[batch.facility_id],
            confusion,
            audits,
            is_due=due_until is None or batch.capture_day <= due_until,
            is_asked=is_asked,
        )
        # Sorted, so that concurrent runs take the locks in the same order and cannot deadlock.
        for batch in sorted(batches, key=lambda b: (b.capture_day, b.facility_id))
    ]
    summaries = [
        write_revision(connection, row, run_id, facilities[row["facility_id"]], confusion, audit)
        for row, audit in filter(None, summarized)
    ]
    new = sum(summary["is_new_revision"] for summary in summaries)
    log.info("summarized", summaries=len(summaries), new_revisions=new)
    return summaries


class Confusions:
    """The confusion matrices in the cards of model versions, each read once."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._loaded: dict[str, Floats | None] = {}

    def load(self, model_version: str) -> Floats | None:
        """[3,3] the matrix in counts, or None if the card has none.

        Rows are the class that most FER+ voters chose, columns the called class.
        """
        if model_version not in self._loaded:
            path = ("confusions", "PublicTest", "plurality", "48")
            table = tables.model_version
            matrix = self._connection.execute(
                sa.select(table.c.card[path]).where(table.c.model_version == model_version)
            ).scalar_one()
            self._loaded[model_version] = (
                None if matrix is None else np.asarray(matrix, dtype=np.float64)
            )
        return self._loaded[model_version]


def find_audit(
    connection: sa.Connection,
    audits: Audits,
    batch: Batch,
    period: str,
    model_version: str,
    is_asked: bool,
) -> LocalAudit | None:
    """The audit that corrects the period that ends on the batch's day; None without one."""
    newest = find_newest(connection, batch, period)
    return audits.find(
        batch.facility_id,
        model_version,
        batch.capture_day,
        used_id=None if newest is None else newest["audit_id"],
        is_asked=is_asked,
    )


def explain_request(audit_id: int | None) -> str:
    """The reason of a revision that somebody has asked for, with the audit that corrects it."""
    return f"re-estimated {'without an audit' if audit_id is None else f'with audit {audit_id}'}"


def _summarize_batch(
    connection: sa.Connection,
    batch: Batch,
    model_version: str,
    facility: Facility,
    confusion: Floats | None,
    audits: Audits,
    *,
    is_due: bool,
    is_asked: bool,
) -> tuple[dict[str, Any], LocalAudit | None] | None:
    """The columns of a batch's summary and its audit; None if the batch has no summary."""
    connections.lock(connection, f"summary:{batch.facility_id}:{batch.capture_day}")
    params = asdict(batch) | {"model_version": model_version, "time_zone": facility.time_zone}
    counts = connection.execute(_STATEMENTS["count_batch"], params).mappings().one_or_none()
    if counts is None:
        return None
    row = dict(counts)
    audit = find_audit(connection, audits, batch, "day", model_version, is_asked)
    listed_at, is_unlisted = row.pop("listed_at"), row.pop("is_unlisted")
    is_doubtful = row.pop("is_largely_unread") or is_unlisted
    was_over = listed_at is not None and listed_at >= facility.compute_day_end_utc(
        batch.capture_day
    )
    is_complete = was_over and row["images_pending"] == 0 and not is_doubtful
    figures = compute_figures(
        row["totals"], "day", facility, confusion, is_due=is_due or is_complete, audit=audit
    )
    summary = {
        **row,
        **figures,
        "reason": explain_request(figures["audit_id"]) if is_asked else "",
        "faces_scored": row["faces"],
        "period": "day",
        "first_day": batch.capture_day,
        "model_version": model_version,
        "time_zone": facility.time_zone,
        "is_complete": is_complete,
        "is_below_expected": was_over
        and not facility.is_closed(batch.capture_day)
        and row["images"] < facility.expected_images_min,
    }
    return summary, audit


def write_revision(
    connection: sa.Connection,
    summary: Mapping[str, Any],
    run_id: str,
    facility: Facility,
    confusion: Floats | None,
    audit: LocalAudit | None = None,
) -> dict[str, Any]:
    """Insert the summary as the next revision unless the newest one is equal or must stay.

    `facility`, `confusion` and `audit` are those that the summary was computed with.
    """
    newest = find_newest(
        connection, Batch(summary["facility_id"], summary["capture_day"]), summary["period"]
    )
    if newest is not None:
        summary = keep_published(newest, summary, facility, confusion, audit)
    if newest is not None and all(
        newest[name] == summary.get(name) for name in newest if name not in _NOT_COMPARED
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
    if is_published(newest["method"]) and summary["verdict"] == "pending":
        return "with this run's model version, images of the period are not counted yet"
    if _count_known_images(summary) < _count_known_images(newest):
        return (
            "this run's model version could read fewer of the day's images, or not all of them yet"
        )
    params = {
        "facility_id": summary["facility_id"],
        "capture_day": summary["capture_day"],
        "period": summary["period"],
        "model_version": newest["model_version"],
        "run_id": run_id,
    }
    if connection.execute(_STATEMENTS["has_later_run"], params).scalar_one():
        return "a run that began later than this one wrote it"
    return ""


def _count_known_images(summary: Mapping[Any, Any]) -> int:
    """Images that the summary's model version has an outcome for, without those it never read."""
    unseen = sum(summary["not_scored"].get(outcome, 0) for outcome in _UNSEEN)
    return int(summary["images"] - summary["images_pending"] - unseen)


def find_newest(
    connection: sa.Connection, batch: Batch, period: str = "day"
) -> sa.RowMapping | None:
    """The newest revision of the summary of the period that ends on the batch's day, or None."""
    table = tables.satisfaction_summary
    revisions = sa.select(table).where(
        table.c.facility_id == batch.facility_id,
        table.c.capture_day == batch.capture_day,
        table.c.period == period,
    )
    newest = revisions.order_by(table.c.revision.desc()).limit(1)
    return connection.execute(newest).mappings().one_or_none()


def load_daily(
    connection: sa.Connection, facility_ids: Sequence[str], first_day: date, last_day: date
) -> pd.DataFrame:
    """The newest summaries of days of some facilities, both days included.

    The columns are those of the view `satisfaction_daily`, but no count is hidden.
    Rates are NaN where suppressed; counts are int, or None; `not_scored` holds dictionaries. The
    additional column `is_closed` tells a closed weekday without images, `publish_period` the
    shortest period that the facility publishes. Sorted by day and name.
    """
    params = {"facility_ids": list(facility_ids), "first_day": first_day, "last_day": last_day}
    rows = connection.execute(_STATEMENTS["load_daily"], params)
    # As objects: a column of counts with a NULL would become float.
    daily = pd.DataFrame(rows.mappings().all(), columns=list(rows.keys()), dtype=object)
    return daily.astype(
        dict.fromkeys((*RATES, *PRECISION, "target_rate", "confidence"), np.float64)
    )


def load_recent_rates(
    connection: sa.Connection, facility_ids: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The newest published happy rate of each facility that has one, with interval and day."""
    rows = connection.execute(
        _STATEMENTS["load_recent_rates"], {"facility_ids": list(facility_ids)}
    )
    return {row["facility_id"]: dict(row) for row in rows.mappings()}
