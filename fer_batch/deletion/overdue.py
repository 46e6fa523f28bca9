"""Whether retention is overdue, as `fer-batch check` tells it. Nothing is deleted here."""

from __future__ import annotations

from datetime import date, timedelta

import sqlalchemy as sa

from fer_batch.database.statements import load_statements
from fer_batch.phrases import format_count

SLACK_DAYS = 3
"""Nights that may fail before retention is overdue."""

_STATEMENTS = load_statements(__file__)


def describe_overdue(connection: sa.Connection, retention_days: int, today: date) -> str:
    """Since when rows per image have not been deleted that should be; empty: all were.

    `today` is a UTC day.
    """
    before = today - timedelta(days=retention_days + SLACK_DAYS)
    horizon = connection.execute(_STATEMENTS["load_horizon"]).one_or_none()
    left = connection.execute(_STATEMENTS["count_days"], {"before_day": before}).one()
    if not left.days:
        return ""
    if horizon is None:
        what = "retention has never run"
    elif horizon.before_day < before:
        what = f"retention has not run since {horizon.set_at:%Y-%m-%d}"
    else:  # which it moves before it drops
        what = "retention runs, but other sessions keep it from dropping days"
    return (
        f"{what}: the rows per image of {format_count(left.days, 'day')} from {left.first_day} on "
        f"are older than FER_RETENTION_DAYS, which is {retention_days}. Is the DAG "
        "satisfaction_maintenance paused, or does it fail?"
    )
