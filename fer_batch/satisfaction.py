"""The summary of each facility's capture day: counts, happy share, interval, verdict.

`summarise` is arithmetic on a table of counts and touches nothing else. `write_summaries` counts
in the database and writes a new revision where something changed; no revision is ever altered.
How the numbers are shown is for report.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from fer_batch import database, tables
from fer_batch.database import statement
from fer_batch.errors import DatabaseError
from fer_batch.failpoints import reach
from fer_batch.log import logger
from fer_batch.records import Batch
from fer_batch.registry import Facility

log = logger(__name__)

CONFIDENCE = 0.95
MIN_FACES = 30
"""With fewer faces that count, neither Happy nor Sad is published: the interval would be wide
enough to say anything, and single visitors might be recognised in the numbers."""

SHARES = ("happy_share", "happy_share_low", "happy_share_high", "uncertain_share", "neither_share")
_DECIMALS = 6
"""Shares are stored rounded, so that another machine's last bit is no new revision."""
_NOT_COMPARED = {"revision", "run_id", "created_at"}


def wilson(
    happy: npt.ArrayLike, n: npt.ArrayLike, confidence: float = CONFIDENCE
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lower and upper end of Wilson's score interval for `happy` of `n`, elementwise, in 0 to 1.

    Unlike the textbook p ± z·sqrt(p(1-p)/n) it stays inside 0 to 1 and keeps its coverage near
    both ends, where happy shares are. It takes the faces as independent, which the faces of one
    visit are not: read it as the narrowest that the interval can be. NaN where n is 0.
    Source: E. B. Wilson (1927), Probable inference, the law of succession, and statistical
    inference, JASA 22, 209-212.
    """
    k, trials = np.asarray(happy, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / trials
        centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
        half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # Exactly 0 and 1 at the ends, where the last bit would leave the range or the share.
    low = np.where(k == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(k == trials, 1.0, np.clip(centre + half, 0, 1))
    return np.where(trials > 0, low, np.nan), np.where(trials > 0, high, np.nan)


def summarise(counts: pd.DataFrame) -> pd.DataFrame:
    """Add shares, interval and verdict to counts, one row per facility and capture day.

    Needs the integer columns `faces`, `happy`, `sad`, `uncertain` (their sum is `faces`),
    `neither`, and `target_share` from 0 to 1. Adds the columns of `SHARES` (float64, NaN where
    suppressed), `interval_method`, `confidence` and `verdict`. The argument is left as it is.
    """
    happy, faces = counts["happy"].to_numpy(np.float64), counts["faces"].to_numpy(np.float64)
    counted = happy + counts["sad"].to_numpy(np.float64)
    is_suppressed = counted < MIN_FACES
    target = counts["target_share"].to_numpy(np.float64)
    low, high = (end.round(_DECIMALS) for end in wilson(happy, counted))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {
            "happy_share": happy / counted,
            "happy_share_low": low,
            "happy_share_high": high,
            "uncertain_share": counts["uncertain"].to_numpy(np.float64) / faces,
            "neither_share": counts["neither"].to_numpy(np.float64) / faces,
        }
    verdict = np.select(
        [is_suppressed, low > target, high < target],
        ["suppressed", "satisfied", "not satisfied"],
        default="inconclusive",
    )
    return counts.assign(
        **{k: np.where(is_suppressed, np.nan, v.round(_DECIMALS)) for k, v in shares.items()},
        interval_method="wilson",
        confidence=CONFIDENCE,
        verdict=verdict,
    )


def write_summaries(
    connection: sa.Connection,
    batches: Iterable[Batch],
    model_version: str,
    facilities: Mapping[str, Facility],
    run_id: str,
) -> list[dict[str, Any]]:
    """Summarise the batches; returns the newest summary of each, new or as it was.

    The dictionaries have the columns of `satisfaction_summary` and `is_new_revision`. A revision
    is written only if something other than the run and the time would change, and not in the place
    of one of another model version that knows more or is of a later run. A batch that was
    never listed has none, unless its listing failed: then it has one that is not complete.
    Raises DatabaseError for a model version that is not registered.
    """
    database.join_by_hash(connection)
    known = {"model_version": model_version}
    if not connection.execute(statement("has_model_version"), known).scalar_one():
        raise DatabaseError(
            f"model version {model_version[:12]} is not registered",
            "Register it before its results are summarised",
        )
    counts = [
        row
        # Sorted, so that two runs at once wait for each other in the same order.
        for batch in sorted(batches, key=lambda b: (b.capture_day, b.facility_id))
        if (row := _count(connection, batch, model_version, facilities[batch.facility_id]))
    ]
    if not counts:
        return []
    summarised = summarise(pd.DataFrame(counts))
    summaries = [_write_revision(connection, row, run_id) for row in summarised.to_dict("records")]
    new = sum(summary["is_new_revision"] for summary in summaries)
    log.info("summarised", summaries=len(summaries), new_revisions=new)
    return summaries


def _count(
    connection: sa.Connection, batch: Batch, model_version: str, facility: Facility
) -> dict[str, Any] | None:
    """What is counted in a batch, and what the facility adds; None if there is nothing to say."""
    database.lock(connection, f"summary:{batch.facility_id}:{batch.capture_day}")
    question = asdict(batch) | {"model_version": model_version}
    found = connection.execute(statement("count_batch"), question).mappings().one_or_none()
    if found is None:
        return None
    row = dict(found)
    listed_at = row.pop("listed_at")
    was_over = listed_at is not None and listed_at >= facility.day_end_utc(batch.capture_day)
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
    """Insert the row as the next revision unless the newest one says the same, or more."""
    wanted = {
        str(name): None if name in SHARES and pd.isna(value) else value
        for name, value in row.items()
    }
    batch = {name: wanted[name] for name in ("facility_id", "capture_day")}
    newest = connection.execute(statement("newest_summary"), batch).mappings().one_or_none()
    if newest is not None and all(
        newest[name] == wanted[name] for name in newest if name not in _NOT_COMPARED
    ):
        return dict(newest) | {"is_new_revision": False}
    if newest is not None and newest["model_version"] != wanted["model_version"]:
        reason = _why_kept(connection, newest, wanted, run_id)
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
            **wanted,
            revision=newest["revision"] + 1 if newest else 1,
            run_id=run_id,
            created_at=sa.func.statement_timestamp(),
        )
        .returning(table)
    )
    reach("summary.during")
    return dict(written.mappings().one()) | {"is_new_revision": True}


def _why_kept(
    connection: sa.Connection, newest: Mapping[Any, Any], wanted: Mapping[str, Any], run_id: str
) -> str:
    """Why another model version's summary does not give way to this one; empty if it does.

    Of a day whose images cannot be read any more, a new version knows nothing; and a run of an
    older version that is cleared does not take back what a later run of another has said.
    """
    if _images_known(wanted) < _images_known(newest):
        return (
            "this run's model version could read fewer of the day's images, or not all of them yet"
        )
    question = {
        "facility_id": wanted["facility_id"],
        "capture_day": wanted["capture_day"],
        "model_version": newest["model_version"],
        "run_id": run_id,
    }
    if connection.execute(statement("has_later_run"), question).scalar_one():
        return "a run that began later than this one wrote it"
    return ""


def _images_known(summary: Mapping[Any, Any]) -> int:
    """Images with an outcome of the summary's model version, but for those that it never saw."""
    unseen = sum(summary["not_scored"].get(outcome, 0) for outcome in ("vanished", "erased"))
    return int(summary["images"] - summary["images_pending"] - unseen)


def daily(
    connection: sa.Connection, facility_ids: Sequence[str], first_day: date, last_day: date
) -> pd.DataFrame:
    """The rows of the view `satisfaction_daily` of some facilities, from day to day inclusive.

    Shares are NaN where suppressed; `not_scored` holds dictionaries. Sorted by day and name.
    """
    question = {"facility_ids": list(facility_ids), "first_day": first_day, "last_day": last_day}
    found = connection.execute(statement("daily"), question)
    rows = pd.DataFrame(found.mappings().all(), columns=list(found.keys()))
    return rows.astype(dict.fromkeys((*SHARES, "target_share", "confidence"), np.float64))
