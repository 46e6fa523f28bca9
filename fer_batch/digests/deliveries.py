"""What the database knows of digests: which nightly runs have finished, and what was sent to whom.

A digest is recorded after the server has accepted it, in the transaction that holds the lock of its
recipient. So no two runs send the same digest; if the process is killed between the two, it is sent
once more, with the same Message-ID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.digests.content import MissedNight

WAIT = timedelta(hours=12)
"""A digest waits for the runs of all its time zones until so long after the end of the day there:
a nightly run begins at 03:00 and is ended after 8 hours."""
LOOKED_BACK = timedelta(days=27)
"""Missed nights of so many days before the capture day are mentioned."""
FIRST_LOOK_BACK = timedelta(days=6)
"""The same for a recipient who has got no digest yet."""

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class Nights:
    """The finished nights of a facility in the last four weeks, and the first that is known."""

    finished: frozenset[date] = frozenset()
    first: date | None = None


def record_finished(
    connection: sa.Connection,
    facility_ids: Iterable[str],
    capture_day: date,
    run_id: str,
    now: datetime,
) -> None:
    """Record that the nightly run of a capture day has finished for these facilities.

    A run of a day that is not over in a facility's time zone is not its nightly run.
    """
    params = {
        "facility_ids": list(facility_ids),
        "capture_day": capture_day,
        "run_id": run_id,
        "now": now,
    }
    connection.execute(_STATEMENTS["record_finished"], params)


def load_nights(
    connection: sa.Connection, facility_ids: Iterable[str], capture_day: date
) -> dict[str, Nights]:
    """The nights of some facilities up to a capture day, by facility id."""
    ids = sorted(facility_ids)
    found = {
        row.facility_id: Nights(frozenset(row.nights), row.first_night)
        for row in connection.execute(
            _STATEMENTS["load_nights"],
            {
                "facility_ids": ids,
                "first_day": capture_day - LOOKED_BACK,
                "last_day": capture_day,
            },
        )
    }
    return {facility_id: found.get(facility_id, Nights()) for facility_id in ids}


def choose_day(
    capture_day: date,
    nights: Mapping[str, Nights],
    time_zones: Mapping[str, str],
    now: datetime,
) -> date | None:
    """The capture day whose digest can be sent by now; None if it waits for another time zone.

    It is the given day, once its nightly run has finished for every facility in `time_zones` whose
    runs are to be expected, or once these are overdue. Until then it is the day before if that has
    waited in vain, which no later run of its own would notice.
    """
    before = capture_day - timedelta(days=1)
    for day in (capture_day, before):
        if not any(day in nights[i].finished for i in time_zones):
            continue
        pending = [
            i for i in _list_expected(day, nights, time_zones) if day not in nights[i].finished
        ]
        if all(now >= find_end(day, time_zones[i]) + WAIT for i in pending):
            return day
    return None


def _list_expected(
    day: date, nights: Mapping[str, Nights], facility_ids: Iterable[str]
) -> list[str]:
    """The facilities that had a night in the week before; without any, all of them.

    Nobody waits for the DAG of a time zone that is paused.
    """
    ids = list(facility_ids)
    week = {day - timedelta(days=number) for number in range(1, 8)}
    return [i for i in ids if nights[i].finished & week] or ids


def find_end(day: date, time_zone: str) -> datetime:
    """When a capture day ends in a time zone, in UTC."""
    midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(time_zone))
    return midnight.astimezone(UTC)


def find_missed(
    nights: Mapping[str, Nights], capture_day: date, last_sent: date | None
) -> list[MissedNight]:
    """The nights that did not finish since the last digest, up to the capture day.

    Days before the first known night of a facility are not missed ones.
    """
    first = capture_day - FIRST_LOOK_BACK if last_sent is None else last_sent + timedelta(days=1)
    first = max(first, capture_day - LOOKED_BACK)
    missed = []
    for number in range((capture_day - first).days + 1):
        day = first + timedelta(days=number)
        ids = frozenset(
            facility_id
            for facility_id, known in nights.items()
            if known.first is not None and known.first <= day and day not in known.finished
        )
        if ids:
            missed.append(MissedNight(day, ids))
    return missed


def send_once(
    engine: sa.Engine,
    subscription: str,
    recipient: str,
    capture_day: date,
    run_id: str,
    deliver: Callable[[date | None], bool],
) -> bool:
    """Deliver a digest while no other process can, and record it; returns whether it was sent.

    `deliver` gets the capture day of the newest digest that the recipient has, and returns whether
    it has sent one. Nothing is recorded if it raises.
    """
    key = hashlib.sha256(recipient.casefold().encode()).digest()
    params = {"subscription": subscription, "recipient_sha256": key}
    with connections.transaction(engine) as connection:
        connections.lock(connection, f"digest/{subscription}/{key.hex()}")
        last_sent = connection.execute(_STATEMENTS["find_last_sent"], params).scalar_one()
        is_sent = deliver(last_sent)
        if is_sent:
            connection.execute(
                _STATEMENTS["record_sent"], params | {"capture_day": capture_day, "run_id": run_id}
            )
    return is_sent
