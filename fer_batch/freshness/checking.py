"""Checks the summaries of all facilities and, where it is set, Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time

from fer_batch.database import schema
from fer_batch.freshness import airflow, reading
from fer_batch.freshness.airflow import Check
from fer_batch.freshness.expectations import Freshness, judge
from fer_batch.settings import Settings

NOT_CHECKED = Check(
    "airflow",
    "",
    "not checked",
    "DAGs, import errors and the scheduler: set FER_AIRFLOW_URL, FER_AIRFLOW_USER and "
    "FER_AIRFLOW_PASSWORD",
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `facilities` is empty if the database has none, which is a problem."""

    checked_at: datetime
    facilities: Sequence[Freshness]
    checks: Sequence[Check]

    @property
    def is_fresh(self) -> bool:
        """Whether nothing is missing, and nothing that was checked has a problem."""
        has_problem = any(check.state == "problem" for check in self.checks)
        is_missing = any(each.state == "missing" for each in self.facilities)
        return bool(self.facilities) and not has_problem and not is_missing


def check_freshness(settings: Settings, now: datetime, by: time) -> Report:
    """Check what should be there at `now`, if summaries are due at the local time `by`.

    Raises ConfigurationError, DatabaseError and DatabaseUnavailableError. An Airflow that cannot be
    asked is a problem in the report.
    """
    client = airflow.create_client(settings)
    with schema.open_engine(settings) as engine:
        facilities = [judge(each, now, by) for each in reading.load_facilities(engine, now)]
    if client is None:
        return Report(now, facilities, [NOT_CHECKED])
    zones = {each.time_zone for each in facilities if each.state != "not expected"}
    return Report(now, facilities, airflow.check_airflow(client, zones))
