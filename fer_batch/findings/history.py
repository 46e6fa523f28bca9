"""The history of findings in the database: listed, acknowledged, closed and forgotten.

Every function that writes takes the lock `findings`, so that runs and people change findings one
after another. What a run finds is stored by storing.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError
from fer_batch.findings.episodes import Severity, State
from fer_batch.records import Batch

NOT_CLOSED: tuple[State, ...] = ("open", "acknowledged")
SEVERITIES: tuple[Severity, ...] = ("error", "warning")
_MAX_ID = 2**63 - 1

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """A finding with its history.

    `first_day` and `last_day` are the first and the last capture day that showed the problem,
    `days` how many days show it by their newest check. `details` are those of the newest day, or
    empty; their second line, if any, may name the key of an image. `closed_by` is None if a run
    closed it.
    """

    finding_id: int
    facility_id: str
    check: str
    subject: str
    severity: Severity
    meaning: str
    details: str
    state: State
    first_day: date
    last_day: date
    days: int
    opened_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    acknowledged_comment: str | None
    closed_at: datetime | None
    closed_by: str | None
    closed_comment: str | None


def list_findings(
    connection: sa.Connection,
    facility_ids: Collection[str] | None = None,
    states: Collection[State] = NOT_CLOSED,
    severities: Collection[Severity] = SEVERITIES,
    *,
    finding_ids: Collection[int] | None = None,
    until: date | None = None,
) -> list[StoredFinding]:
    """The findings of some facilities, states and severities; the closed ones come last.

    They are in order of facility, severity and first day. `facility_ids` None: of all facilities.
    `until`: those first seen up to this capture day, with nothing of later days.
    """
    params = {
        "facility_ids": None if facility_ids is None else sorted(facility_ids),
        "finding_ids": None if finding_ids is None else sorted(finding_ids),
        "states": sorted(states),
        "severities": sorted(severities),
        "until": until,
    }
    found = []
    for row in connection.execute(_STATEMENTS["list_findings"], params).mappings():
        values = dict(row)
        found.append(StoredFinding(check=values.pop("check_name"), **values))
    return found


def list_new_findings(
    connection: sa.Connection, facility_ids: Collection[str], run_id: str
) -> list[dict[str, Any]]:
    """The findings of the run that were opened since it began, for the first time, and are open.

    Each has `facility_id`, `check`, `subject`, `severity`, `meaning`, `first_day`, `last_day` and
    `opened_at` (UTC), and no details, which may name images. Errors come first.
    """
    params = {"facility_ids": sorted(facility_ids), "run_id": run_id}
    found = []
    for row in connection.execute(_STATEMENTS["list_new_findings"], params).mappings():
        values = dict(row)
        found.append({"check": values.pop("check_name"), **values})
    return found


def check_facilities(connection: sa.Connection, facility_ids: Collection[str]) -> None:
    """Raise ConfigurationError for ids that neither the registry nor a finding ever had."""
    params = {"facility_ids": sorted(facility_ids)}
    unknown = connection.execute(_STATEMENTS["list_unknown_facilities"], params).scalars().all()
    if unknown:
        raise ConfigurationError(
            f"unknown facility: {', '.join(map(repr, unknown))}",
            "Check the spelling in the facility registry",
        )


def acknowledge(
    connection: sa.Connection, finding_ids: Collection[int], by: str, comment: str
) -> list[StoredFinding]:
    """Note that somebody takes care of the findings; returns them.

    Again with the same comment: nothing changes; with another one, the comment is replaced. Raises
    ConfigurationError for an unknown or closed finding, and then changes nothing.
    """
    found = _load_to_change(connection, finding_ids, by, comment)
    closed = [each.finding_id for each in found if each.state == "closed"]
    if closed:
        raise ConfigurationError(
            f"finding {_join(closed)} is closed and cannot be acknowledged",
            "If the problem returns, it is a new finding: see `fer-batch findings list`",
        )
    return _change(connection, _STATEMENTS["acknowledge"], finding_ids, by, comment)


def close(
    connection: sa.Connection, finding_ids: Collection[int], by: str, comment: str
) -> list[StoredFinding]:
    """Close the findings; returns them. A closed one keeps its reason.

    The days that show the problem do not open it again, later days do. Raises ConfigurationError
    for an unknown finding, and then changes nothing.
    """
    _load_to_change(connection, finding_ids, by, comment)
    return _change(connection, _STATEMENTS["close_by_person"], finding_ids, by, comment)


def _load_to_change(
    connection: sa.Connection, finding_ids: Collection[int], by: str, comment: str
) -> list[StoredFinding]:
    for name, text in (("comment", comment), ("name", by)):
        if not text.strip():
            raise ConfigurationError(f"the {name} is empty", f"Give a {name}")
        if not _is_storable(text):
            raise ConfigurationError(f"the {name} is not valid UTF-8", f"Correct the {name}")
    connections.lock(connection, "findings")
    known = [number for number in finding_ids if 0 < number <= _MAX_ID]
    found = list_findings(connection, None, (*NOT_CLOSED, "closed"), finding_ids=known)
    unknown = sorted(set(finding_ids) - {each.finding_id for each in found})
    if unknown:
        raise ConfigurationError(
            f"there is no finding {_join(unknown)}", "`fer-batch findings list` has the numbers"
        )
    return found


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _join(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _change(
    connection: sa.Connection,
    statement: sa.TextClause,
    finding_ids: Collection[int],
    by: str,
    comment: str,
) -> list[StoredFinding]:
    params = {"finding_ids": sorted(finding_ids), "by": by.strip(), "comment": comment.strip()}
    connection.execute(statement, params)
    return list_findings(connection, None, (*NOT_CLOSED, "closed"), finding_ids=finding_ids)


def load_days(
    connection: sa.Connection, first_day: date, last_day: date
) -> Sequence[Mapping[str, Any]]:
    """What the days from the first to the last one show, by the newest check of each.

    Rows with `facility_id`, `capture_day`, `check_name`, `severity`, `meaning`, `subject` and
    `finding` (the details); by facility, newest day first.
    """
    params = {"first_day": first_day, "last_day": last_day}
    return [dict(row) for row in connection.execute(_STATEMENTS["load_days"], params).mappings()]


def forget_keys(connection: sa.Connection, batch: Batch, image_key: str | None) -> None:
    """Delete what may name an erased image of the day, while its row in `image` still exists.

    The details of the day's findings are deleted, as are comments that contain the key; with None,
    comments that contain the key of any image of the day. The findings stay.
    """
    connections.lock(connection, "findings")
    params = asdict(batch) | {"image_key": image_key}
    connection.execute(_STATEMENTS["clear_details"], params)
    connection.execute(_STATEMENTS["clear_comments"], params)


def forget_day(connection: sa.Connection, capture_day: date, facility_id: str | None) -> None:
    """Delete what a day showed, of one facility or of all (None).

    Findings that no other day shows are closed.
    """
    connections.lock(connection, "findings")
    params = {"capture_day": capture_day, "facility_id": facility_id}
    connection.execute(_STATEMENTS["forget_days"], params)
    connection.execute(_STATEMENTS["close_without_days"], params)


def forget_days_before(connection: sa.Connection, before: date) -> None:
    """Delete what the days before a day showed, of all facilities.

    Findings that no other day shows are closed.
    """
    connections.lock(connection, "findings")
    connection.execute(_STATEMENTS["forget_days_before"], {"before_day": before})
    connection.execute(_STATEMENTS["close_without_days"], {"facility_id": None})
