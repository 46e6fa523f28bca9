"""Changes of the rates against earlier periods, in the database.

A day is compared with the day before and with the same weekday a week ago; a week and four weeks
with the period before. Only published figures of the same method, model version and audit are
compared.
The arithmetic is left to change.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections, tables
from fer_batch.database.statements import load_statements
from fer_batch.facilities.registry import Facility
from fer_batch.records import Batch
from fer_batch.satisfaction.audits import Audits, LocalAudit
from fer_batch.satisfaction.change import Change, compute_change, compute_q_values
from fer_batch.satisfaction.figures import parse_clusterings
from fer_batch.satisfaction.intervals import Floats
from fer_batch.satisfaction.periods import WEEKS, find_week_end
from fer_batch.satisfaction.revisions import Confusions

COMPARISONS = {
    # (period, comparison): days between the last days of the two periods
    ("day", "period before"): 1,
    ("day", "week before"): 7,
    ("week", "period before"): 7,
    ("four weeks", "period before"): 7 * WEEKS,
}
_DECIMALS = 6

_STATEMENTS = load_statements(__file__)


def write_changes(
    connection: sa.Connection,
    batches: Iterable[Batch],
    facilities: Mapping[str, Facility],
    run_id: str,
) -> None:
    """Write the changes of the periods that contain the batches, and of those compared with them.

    Call it after `periods.write_period_summaries`. The q values are those over all facilities that
    have a change of the same period, day and comparison. A change whose periods are no longer both
    published is deleted.
    """
    connections.lock(connection, "changes")  # q values are over facilities of several runs
    batches = list(batches)
    rows: list[dict[str, Any]] = []
    groups: set[tuple[Any, ...]] = set()
    confusions, audits = Confusions(connection), Audits(connection)
    for (period, comparison), days in COMPARISONS.items():
        ends = {
            (batch.facility_id, end + timedelta(days=later))
            for batch in batches
            for end in _list_ends(period, batch.capture_day)
            for later in (0, days)
        }
        params = {
            "facility_ids": [facility_id for facility_id, _ in sorted(ends)],
            "days": [end for _, end in sorted(ends)],
            "period": period,
            "comparison": comparison,
            "days_before": days,
        }
        deleted = connection.execute(_STATEMENTS["delete_changes"], params).scalars()
        groups |= {(period, day, comparison) for day in deleted}
        for pair in connection.execute(_STATEMENTS["load_pairs"], params).mappings():
            version = pair["model_version"]
            confusion = confusions.load(version)
            audit = audits.get(pair["facility_id"], version, pair["audit_id"])
            change = _compare(pair, facilities[pair["facility_id"]], confusion, audit)
            if change is not None:
                rows.append(
                    {
                        **{name: pair[name] for name in ("facility_id", "capture_day")},
                        "period": period,
                        "comparison": comparison,
                        "run_id": run_id,
                        **_name_change(change),
                    }
                )
    if rows:
        connection.execute(sa.insert(tables.satisfaction_change), rows)
    groups |= {(row["period"], row["capture_day"], row["comparison"]) for row in rows}
    _update_q_values(connection, groups)


def _list_ends(period: str, day: date) -> list[date]:
    """The last days of the periods that contain the day."""
    if period == "day":
        return [day]
    end = find_week_end(day)
    return [end + timedelta(weeks=n) for n in range(WEEKS if period == "four weeks" else 1)]


def _compare(
    pair: Mapping[Any, Any],
    facility: Facility,
    confusion: Floats | None,
    audit: LocalAudit | None,
) -> Change | None:
    """The change of a pair of `load_pairs`; None if their faces were never clustered alike."""
    earlier, later = (parse_clusterings(pair[name]) for name in ("earlier", "later"))
    rules = set(earlier) & set(later)
    if not rules:
        return None
    return compute_change(
        [earlier[rule] for rule in sorted(rules)],
        [later[rule] for rule in sorted(rules)],
        confusion,
        None if audit is None else audit.counts,
        design_effect=facility.design_effect if pair["session_rule"] == "design effect" else None,
    )


def _name_change(change: Change) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name in ("happy", "sad"):
        difference = getattr(change, name)
        columns |= {
            f"{name}_change": difference.difference,
            f"{name}_change_low": difference.low,
            f"{name}_change_high": difference.high,
            f"{name}_p_value": difference.p_value,
        }
    return {name: round(float(value), _DECIMALS) for name, value in columns.items()}


def _update_q_values(connection: sa.Connection, groups: Iterable[tuple[Any, ...]]) -> None:
    table = tables.satisfaction_change
    for period, capture_day, comparison in sorted(groups):
        where = (
            (table.c.period == period)
            & (table.c.capture_day == capture_day)
            & (table.c.comparison == comparison)
        )
        rows = connection.execute(
            sa.select(table.c.facility_id, table.c.happy_p_value, table.c.sad_p_value)
            .where(where)
            .order_by(table.c.facility_id)
        ).all()
        happy, sad = (
            compute_q_values([row[column] for row in rows]).round(_DECIMALS).tolist()
            for column in (1, 2)
        )
        params = {
            "facility_ids": [row.facility_id for row in rows],
            "happy": happy,
            "sad": sad,
            "period": period,
            "capture_day": capture_day,
            "comparison": comparison,
        }
        connection.execute(_STATEMENTS["update_q_values"], params)
