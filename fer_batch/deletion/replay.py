"""Erasures are repeated from the log after a restore from a backup that is older than they are.

What the restored tables hold of an erased image or day is erased again, also what a night has
listed and scored since the restore. What they do not hold is only recorded, so that no run reads
it. The image of an erasure is found by the HMAC of its key, so the secret must be the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections, former_ids, tables
from fer_batch.database.erased_keys import ErasureSecret
from fer_batch.database.statements import load_statements
from fer_batch.deletion import erasure, erasure_log
from fer_batch.deletion.erasure_log import LoggedErasure
from fer_batch.log import get_logger
from fer_batch.records import Batch

log = get_logger(__name__)

_STATEMENTS = load_statements(__file__)
_FETCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Replayed:
    """A repeated erasure, with the rows that it deleted; 0: the tables held nothing of it."""

    facility_id: str
    capture_day: date
    kind: str
    images: int
    faces: int


def find_unknown_facilities(
    connection: sa.Connection, erasures: Collection[LoggedErasure]
) -> list[str]:
    """The facilities of the log that the database does not know."""
    ids = {each.facility_id for each in erasures}
    table = tables.facility
    known = connection.execute(sa.select(table.c.facility_id).where(table.c.facility_id.in_(ids)))
    return sorted(ids.difference(known.scalars()))


def find_missing(
    connection: sa.Connection, erasures: Sequence[LoggedErasure]
) -> list[LoggedErasure]:
    """The erasures that the database has no record of, without those of unknown facilities."""
    unknown = {*find_unknown_facilities(connection, erasures)}
    return [
        each
        for each in erasures
        if each.facility_id not in unknown and not _is_recorded(connection, each)
    ]


def replay(
    engine: sa.Engine, erasures: Sequence[LoggedErasure], log_file: Path, secret: ErasureSecret
) -> list[Replayed]:
    """Repeat the erasures that the database has no record of; returns those of whole days first.

    Each is one transaction, in which an image is erased on whatever day it is listed. Those that
    the log `log_file` lacks are appended to it. Raises ErasureSecretError, before any image is
    erased, if the database still has a record of an image that was erased with another secret:
    those of days that are erased as a whole need none.
    """
    run_id = f"erase/{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    known = erasure_log.read(log_file, secret).erasures if log_file.exists() else ()
    logged = {each.identity for each in known}
    with connections.transaction(engine) as connection:
        missing = find_missing(connection, erasures)
    replayed: list[Replayed] = []

    def repeat(each: LoggedErasure, listed: Collection[tuple[Batch, str]] = ()) -> None:
        with connections.transaction(engine) as connection:
            result = _replay_one(connection, each, listed, run_id, secret)
            if each.identity not in logged:
                erasure_log.append(log_file, each)
        facts = {"facility": each.facility_id, "day": each.capture_day.isoformat()}
        log.info("erased again", **facts, images=result.images, faces=result.faces)
        replayed.append(result)

    for each in missing:
        if each.kind == "day":
            repeat(each)
    images = [each for each in missing if each.kind == "image"]
    for facility_id in sorted({each.facility_id for each in images}):
        of_facility = [each for each in images if each.facility_id == facility_id]
        listed = _find_images(engine, facility_id, of_facility, secret)
        for each in of_facility:
            repeat(each, listed[each.key_hmac])
    return replayed


def _find_images(
    engine: sa.Engine, facility_id: str, erasures: Sequence[LoggedErasure], secret: ErasureSecret
) -> dict[bytes | None, set[tuple[Batch, str]]]:
    """The batches and keys of a facility's erased images, by their HMACs, as they are listed.

    All days and ids of the facility are searched: by the registry, a key may belong to another day
    than when it was erased, and the facility may have another id.
    """
    found: dict[bytes | None, set[tuple[Batch, str]]] = {each.key_hmac: set() for each in erasures}
    statement = _STATEMENTS["list_all_keys"].execution_options(yield_per=_FETCH_ROWS)
    with connections.transaction(engine) as connection:
        params = {"facility_ids": former_ids.list_ids(connection, facility_id)}
        for name, day, key in connection.execute(statement, params):
            if (key_hmac := secret.hash_key(key)) in found:
                found[key_hmac].add((Batch(name, day), key))
    return found


def _replay_one(
    connection: sa.Connection,
    each: LoggedErasure,
    listed: Collection[tuple[Batch, str]],
    run_id: str,
    secret: ErasureSecret,
) -> Replayed:
    """Repeat an erasure; `listed` has the batch and key of each row that was found of an image."""
    batch = Batch(each.facility_id, each.capture_day)
    erasure.lock_day(connection, batch)
    images = faces = 0
    if not _is_recorded(connection, each):
        if each.kind == "image":
            erasure.check_secret(connection, secret)
        # Of its own day, the rows of a run in progress are known only under the lock.
        own_key = _find_key(connection, each, secret)
        if own_key is not None:
            listed = {*listed, (batch, own_key)}
        for of_day, key in sorted(listed, key=lambda row: (astuple(row[0]), row[1])):
            image_key = None if each.kind == "day" else key
            target = erasure.Target(of_day.facility_id, of_day.capture_day, image_key)
            erased = erasure.erase_day(connection, of_day, target, run_id, secret)
            images, faces = images + erased.images, faces + erased.faces
        if own_key is None:
            erasure.record_absent(connection, each, run_id)
    return Replayed(batch.facility_id, batch.capture_day, each.kind, images, faces)


def _find_key(connection: sa.Connection, each: LoggedErasure, secret: ErasureSecret) -> str | None:
    """The key of the erased image, or any key of the erased day; None if the tables hold none."""
    keys = connection.execute(_STATEMENTS["list_keys"], _build_params(each)).scalars().all()
    if each.kind == "day":
        return next(iter(keys), None)
    return next((key for key in keys if secret.hash_key(key) == each.key_hmac), None)


def _is_recorded(connection: sa.Connection, each: LoggedErasure) -> bool:
    return bool(connection.execute(_STATEMENTS["is_recorded"], _build_params(each)).scalar_one())


def _build_params(each: LoggedErasure) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "facility_id": each.facility_id,
        "capture_day": each.capture_day,
        "key_hmac": each.key_hmac,
    }
