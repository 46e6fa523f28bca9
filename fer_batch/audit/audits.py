"""An audit as it is stored, and whether the images of its facility may be read.

Drawing one is left to sampling.py, its labels to labeling.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError, PermanentError
from fer_batch.facilities.loading import load_registry
from fer_batch.facilities.registry import Facility
from fer_batch.settings import Settings

_STATEMENTS = load_statements(__file__)
_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Audit:
    """One row of `fer.audit`, without the reference of drift.

    `start_day` is the first capture day that it corrects and `expiry_day` the first one that it
    does not correct any more; both are None until it is finished.
    """

    audit_id: int
    facility_id: str
    model_version: str
    first_day: date
    last_day: date
    seed: int
    faces_in_window: int
    faces_drawn: int
    created_at: datetime
    created_by: str
    finished_at: datetime | None
    finished_by: str | None
    start_day: date | None
    expiry_day: date | None


def load(connection: sa.Connection, audit_id: int) -> Audit:
    """The audit. Raises ConfigurationError if there is none, or the login may not see it."""
    row = None
    if 0 < audit_id <= _MAX_ID:
        params = {"audit_id": audit_id}
        row = connection.execute(_STATEMENTS["load_audit"], params).mappings().one_or_none()
    if row is None:
        raise ConfigurationError(
            f"there is no audit {audit_id}",
            "List them with `fer-batch audit list`; of facilities that were not granted to this "
            "login, none is shown",
        )
    return Audit(**row)


def load_open(connection: sa.Connection, audit_id: int) -> Audit:
    """The audit, if its labels may still change; until the transaction ends, nobody finishes it.

    Raises ConfigurationError if there is none, or it is finished.
    """
    connections.lock_shared(connection, f"audit:{audit_id}")
    audit = load(connection, audit_id)
    if audit.finished_at is not None:
        raise ConfigurationError(
            f"audit {audit_id} is finished: its labels do not change any more",
            f"Sample a new one: `fer-batch audit sample --facility {audit.facility_id}`",
        )
    return audit


def list_audits(connection: sa.Connection, facility_id: str | None = None) -> list[dict[str, Any]]:
    """The audits that the login may see, newest first, with how many faces are left and labeled."""
    params = {"facility_id": facility_id}
    return [dict(row) for row in connection.execute(_STATEMENTS["list_audits"], params).mappings()]


def find_permitted(settings: Settings, facility_id: str, days: list[date]) -> list[date]:
    """The capture days of these whose images may be read now.

    Raises PermanentError with the reason if there are days and none may be read.
    """
    facility = load_facility(settings, facility_id)
    now_utc, reason = datetime.now(UTC), ""
    permitted = []
    for day in days:
        denied = facility.get_denial_reason(day, now_utc, settings.strict_registry_from)
        if denied is None:
            permitted.append(day)
        reason = denied or reason
    if days and not permitted:
        raise PermanentError(f"{facility_id} may not be read: {reason}")
    return permitted


def load_facility(settings: Settings, facility_id: str) -> Facility:
    """The facility of the registry. Raises ConfigurationError if it is missing or invalid."""
    registry = load_registry(settings.facilities_file, settings).select([facility_id])
    registry.check()
    return registry.facilities[facility_id]
