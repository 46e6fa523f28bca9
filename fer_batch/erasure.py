"""Erasure: one image, one day or all of a facility is deleted on demand, and is not read again.

The rows of `image`, `image_result` and `face_result` go, of all model versions; what was deleted
is recorded without saying what it said; and the day's summary gets a revision made of what is
left. The object in S3 belongs to whoever put it there: it is left alone, and a listing that meets
it again passes over it. Old days as a whole are for retention.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa

from fer_batch import database, ledger, satisfaction
from fer_batch.database import statement
from fer_batch.errors import ConfigurationError
from fer_batch.log import logger
from fer_batch.records import Batch

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be erased: an image by its key, else a capture day, else all of the facility."""

    facility_id: str
    capture_day: date | None = None
    image_key: str | None = None


@dataclass(frozen=True, slots=True)
class ErasedDay:
    """A facility's capture day with its rows of `image` and `face_result` to erase, or erased.

    `revision` is the number of the summary that leaves them out; None: the day has none."""

    facility_id: str
    capture_day: date
    images: int
    faces: int
    revision: int | None = None


def erasable(connection: sa.Connection, target: Target) -> list[ErasedDay]:
    """What there is to erase, day by day; nothing if it was erased before.

    Raises ConfigurationError if nothing of the kind is stored and nothing of it was erased: a key
    with a typing error must not pass for an image that is gone.
    """
    question = asdict(target)
    found = [
        ErasedDay(**row) for row in connection.execute(statement("erasable"), question).mappings()
    ]
    if not found and not connection.execute(statement("is_erased"), question).scalar_one():
        what = {
            "image with that key": target.image_key,
            "image of that day": target.capture_day,
        }
        missing = next((name for name, value in what.items() if value is not None), "image")
        raise ConfigurationError(
            f"the tables hold no {missing} of facility {target.facility_id!r}",
            "Check how it is written. What was never listed is kept away by deleting it in S3",
        )
    return found


def erased_keys(connection: sa.Connection, facility_id: str) -> frozenset[bytes]:
    """The SHA-256 of each key of the facility that was erased as an image of its own."""
    rows = connection.execute(statement("erased_keys"), {"facility_id": facility_id})
    return frozenset(bytes(row.key_sha256) for row in rows)


def erase(engine: sa.Engine, target: Target) -> list[ErasedDay]:
    """Erase it; returns the days from which something was deleted, oldest first.

    Each day is one transaction: its rows, the record and the summary change together. Asking
    again goes on where an earlier attempt was ended. Raises what `erasable` raises.
    """
    run_id = f"erase/{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    with database.transaction(engine) as connection:
        days = erasable(connection, target)
    erased: list[ErasedDay] = []
    for day in days:
        batch = Batch(day.facility_id, day.capture_day)
        with database.transaction(engine) as connection:
            done = _erase_day(connection, batch, target, run_id)
        log.info(
            "erased",
            facility=batch.facility_id,
            day=batch.capture_day.isoformat(),
            images=done.images,
            faces=done.faces,
        )
        erased.append(done)
    return erased


def _erase_day(connection: sa.Connection, batch: Batch, target: Target, run_id: str) -> ErasedDay:
    question = asdict(batch) | {"image_key": target.image_key}
    database.share_lock(connection, "retention")
    # A listing, a chunk or a summary that is being written ends before, or begins after: and then
    # finds the image neither in the tables nor in its listing.
    for step in ("listing", "results", "summary"):
        database.lock(connection, f"{step}:{batch.facility_id}:{batch.capture_day}")
    faces = connection.execute(statement("erase_face_result"), question).rowcount
    connection.execute(statement("erase_image_result"), question)
    images = connection.execute(statement("erase_image"), question).rowcount
    if images:  # else somebody erased the same at the same moment
        connection.execute(
            statement("record_deletion"),
            question
            | {
                "kind": "day" if target.image_key is None else "image",
                "images": images,
                "faces": faces,
            },
        )
    return ErasedDay(
        **asdict(batch), images=images, faces=faces, revision=_revise(connection, batch, run_id)
    )


def _revise(connection: sa.Connection, batch: Batch, run_id: str) -> int | None:
    """Summarise what is left, for the model version of the newest summary; its revision."""
    newest = connection.execute(statement("newest_summary"), asdict(batch)).mappings().one_or_none()
    if newest is None:
        return None
    facility = ledger.facility(connection, batch.facility_id)
    summaries: Sequence[dict[str, Any]] = satisfaction.write_summaries(
        connection, [batch], newest["model_version"], {batch.facility_id: facility}, run_id
    )
    return int(summaries[0]["revision"]) if summaries else None
