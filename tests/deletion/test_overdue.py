"""`fer-batch check` tells that retention has not run, and not that it has nothing to do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fer_batch.database import connections
from fer_batch.deletion import retention
from fer_batch.deletion.overdue import describe_overdue
from tests.deletion.conftest import DAY, NEXT

KEPT_DAYS = 400
SLACK = timedelta(KEPT_DAYS + 3)


@pytest.mark.usefixtures("two_days")
def test_retention_is_overdue_while_days_are_left_that_it_should_have_dropped(tables: Any) -> None:
    def describe(today: date) -> str:
        with connections.transaction(tables.engine) as connection:
            return describe_overdue(connection, KEPT_DAYS, today)

    assert describe(DAY + SLACK) == ""
    never = describe(DAY + SLACK + timedelta(1))
    assert f"retention has never run: the rows per image of 1 day from {DAY} on" in never
    assert "satisfaction_maintenance" in never
    retention.retain(tables.retainer, NEXT)
    assert describe(DAY + SLACK + timedelta(1)) == ""
    late = describe(NEXT + SLACK + timedelta(9))
    assert f"has not run since {datetime.now(UTC).year}" in late
    assert f"1 day from {NEXT} on" in late
    # The horizon moves also if a day cannot be dropped.
    retention.set_horizon(tables.admin, "rows", NEXT + timedelta(9))
    assert "other sessions keep it from dropping" in describe(NEXT + SLACK + timedelta(9))
    # After a long pause of the nights there is nothing to delete.
    retention.retain(tables.retainer, NEXT + timedelta(1))
    assert describe(NEXT + SLACK + timedelta(99)) == ""
