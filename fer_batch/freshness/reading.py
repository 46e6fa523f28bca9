"""Reads the facilities and the summaries of their last days, from the views of `fer_reader` only.

A monitor therefore needs no other right in the database.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.freshness.expectations import FacilityDays, Summary

LOOKED_BACK = timedelta(days=35)
"""Summaries of so many days are read; `newest_day` of a facility is not older."""

_READ_ONLY = sa.text("SET TRANSACTION READ ONLY")
_STATEMENTS = load_statements(__file__)


def load_facilities(engine: sa.Engine, now: datetime) -> list[FacilityDays]:
    """The facilities of the registry with the summaries of their last days, by id.

    Raises what `connections.translate_errors` raises.
    """
    params = {"first_day": (now - LOOKED_BACK).date()}
    with connections.transaction(engine) as connection:
        connection.execute(_READ_ONLY)
        facilities = connection.execute(_STATEMENTS["load_facilities"]).mappings().all()
        days = connection.execute(_STATEMENTS["load_days"], params).all()
        weeks = connection.execute(_STATEMENTS["load_weeks"], params).all()
        denials = connection.execute(_STATEMENTS["load_denials"], params).all()
        erased_days = connection.execute(_STATEMENTS["load_erased_days"], params).all()
    summaries: dict[str, dict[date, Summary]] = defaultdict(dict)
    for facility_id, day, created_at, is_complete in days:
        summaries[facility_id][day] = Summary(created_at, is_complete)
    ended: dict[str, set[date]] = defaultdict(set)
    for facility_id, sunday in weeks:
        ended[facility_id].add(sunday)
    denied: dict[str, set[date]] = defaultdict(set)
    for facility_id, first, last in denials:
        begin = max(first, params["first_day"])
        denied[facility_id] |= {begin + timedelta(days=n) for n in range((last - begin).days + 1)}
    erased: dict[str, set[date]] = defaultdict(set)
    for facility_id, day in erased_days:
        erased[facility_id].add(day)
    return [
        FacilityDays(
            **row,
            summaries=summaries[row["facility_id"]],
            weeks=ended[row["facility_id"]],
            denied_days=denied[row["facility_id"]],
            erased_days=erased[row["facility_id"]],
        )
        for row in facilities
    ]
