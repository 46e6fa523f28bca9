"""Erasure on request: the rows of one image, one day or a whole facility are deleted for good.

Rows of `image`, `image_result` and `face_result` are deleted for all model versions, and the faces
of audits with their labels. The deletion is recorded without the deleted contents, and the day's
summary gets a revision computed from the remaining rows. The object in S3 belongs to whoever
uploaded it: it is not touched, and a listing that contains it again skips it. An empty day, such as
one that was processed by mistake, is withdrawn instead: its batch and its summaries are deleted,
and a later run may list it. Deleting old days is left to retention.py, repeating erasures after a
restore to replay.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import sqlalchemy as sa

from fer_batch.database import connections, deletions, erased_keys, former_ids, ledger, tables
from fer_batch.database.erased_keys import ErasureSecret
from fer_batch.database.statements import load_statements
from fer_batch.deletion import erasure_log
from fer_batch.deletion.erasure_log import LoggedErasure
from fer_batch.errors import ConfigurationError
from fer_batch.facilities.ownership import Owner
from fer_batch.findings import history
from fer_batch.log import get_logger
from fer_batch.records import Batch
from fer_batch.satisfaction import comparisons, periods, revisions
from fer_batch.satisfaction.figures import is_published

log = get_logger(__name__)

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class Target:
    """What to erase: an image by its key, else a capture day, else the whole facility."""

    facility_id: str
    capture_day: date | None = None
    image_key: str | None = None


@dataclass(frozen=True, slots=True)
class ErasedDay:
    """A facility's capture day and how many `image` and `face_result` rows are to erase or erased.

    `revision` is the summary that no longer counts them; None if the day has no summary. A day of 0
    images is an empty one, which is withdrawn with its summaries.
    """

    facility_id: str
    capture_day: date
    images: int
    faces: int
    revision: int | None = None


def find_erasable(
    connection: sa.Connection,
    target: Target,
    secret: ErasureSecret,
    *,
    accept_unlisted: bool = False,
) -> list[ErasedDay]:
    """The rows that can be erased, day by day; empty if they were erased before.

    Those of an image also under former and later ids of the facility.

    A target that is a day without images is returned with 0 images, if a run has processed it.
    Raises ConfigurationError if no such rows are stored and none were erased, so that a mistyped
    key is not reported as erased. With `accept_unlisted`, an image or a day that may not be listed
    yet is returned with 0 images instead. Raises ErasureSecretError as `hash_target`.
    """
    params = asdict(target) | {"key_hmac": hash_target(connection, target, secret)}
    days = _find_rows(connection, target)
    if not days and target.capture_day is not None and target.image_key is None:
        batch = Batch(target.facility_id, target.capture_day)
        if _is_empty(connection, batch):
            return [ErasedDay(**asdict(batch), images=0, faces=0)]
    if not days and not connection.execute(_STATEMENTS["is_erased"], params).scalar_one():
        if accept_unlisted:
            batch = find_batch(connection, target)
            return [ErasedDay(**asdict(batch), images=0, faces=0)]
        if target.image_key is not None:
            kind = "image with that key"
        else:
            kind = "image" if target.capture_day is None else "image of that day"
        raise ConfigurationError(
            f"the tables hold no {kind} of facility {target.facility_id!r}",
            "Check the spelling. To keep an image or a day that was never listed from being read, "
            "add --unlisted, or delete the objects in S3",
        )
    return days


def _find_rows(connection: sa.Connection, target: Target) -> list[ErasedDay]:
    ids = [target.facility_id]
    if target.image_key is not None:  # it is the same image under another id of the facility
        ids = former_ids.list_ids(connection, target.facility_id)
    params = asdict(target) | {"facility_ids": ids}
    rows = connection.execute(_STATEMENTS["find_erasable"], params).mappings()
    return [ErasedDay(**row) for row in rows]


def hash_target(connection: sa.Connection, target: Target, secret: ErasureSecret) -> bytes | None:
    """The HMAC under which the erasure of an image is recorded; None for days, without the secret.

    Raises ErasureSecretError as `check_secret`.
    """
    if target.image_key is None:
        return None
    check_secret(connection, secret)
    return secret.hash_key(target.image_key)


def check_secret(connection: sa.Connection, secret: ErasureSecret) -> None:
    """Raise ErasureSecretError if an image was erased with another secret.

    All records must be comparable with one secret, so it also waits for concurrent erasures.
    """
    connections.lock(connection, "erasure secret")
    erased_keys.check_secret(connection, secret)


def erase(
    engine: sa.Engine,
    target: Target,
    log_file: Path | None,
    secret: ErasureSecret,
) -> list[ErasedDay]:
    """Erase the target; returns the days from which rows were deleted, oldest first.

    Each day is one transaction: its rows, the record and the summary change together. A call
    after an interrupted one continues with the remaining days. Before a day is committed, it is
    appended to the erasure log `log_file`; None: it is not logged. Raises what `find_erasable` and
    `erasure_log.append` raise.
    """
    run_id = f"erase/{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    with connections.transaction(engine) as connection:
        days = find_erasable(connection, target, secret)
    return _erase_days(engine, days, target, run_id, log_file, secret)


def _erase_days(
    engine: sa.Engine,
    days: Sequence[ErasedDay],
    target: Target,
    run_id: str,
    log_file: Path | None,
    secret: ErasureSecret,
) -> list[ErasedDay]:
    erased: list[ErasedDay] = []
    for day in days:
        batch = Batch(day.facility_id, day.capture_day)
        with connections.transaction(engine) as connection:
            erased_day = erase_day(connection, batch, target, run_id, secret)
            if erased_day.images and log_file is not None:
                erasure_log.append(log_file, _make_line(erased_day, target, secret))
        log.info(
            "erased",
            facility=batch.facility_id,
            day=batch.capture_day.isoformat(),
            images=erased_day.images,
            faces=erased_day.faces,
        )
        erased.append(erased_day)
    return erased


def erase_unlisted(
    engine: sa.Engine,
    target: Target,
    log_file: Path | None,
    secret: ErasureSecret,
) -> list[ErasedDay]:
    """Record an image or a day that no run has listed yet as erased, so that none reads it.

    Rows of it that exist are erased, those of an image on whatever day: the registry may have given
    its key another day. Returns nothing if it was erased before. Raises what `find_batch`,
    `hash_target` and `erasure_log.append` raise.
    """
    run_id = f"erase/{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    with connections.transaction(engine) as connection:
        days = _find_rows(connection, target)
    if days:
        return _erase_days(engine, days, target, run_id, log_file, secret)
    with connections.transaction(engine) as connection:
        batch = find_batch(connection, target)
        target = replace(target, capture_day=batch.capture_day)
        lock_day(connection, batch)
        params = asdict(target) | {"key_hmac": hash_target(connection, target, secret)}
        if connection.execute(_STATEMENTS["is_erased"], params).scalar_one():
            return []
        erased = erase_day(connection, batch, target, run_id, secret)
        line = _make_line(erased, target, secret)
        if not erased.images:
            record_absent(connection, line, run_id)
        if log_file is not None:
            erasure_log.append(log_file, line)
    facts = {"facility": batch.facility_id, "day": batch.capture_day.isoformat()}
    log.info("erased", **facts, images=erased.images, faces=erased.faces)
    return [erased]


def find_batch(connection: sa.Connection, target: Target) -> Batch:
    """The facility and the capture day of a target that is a day or an image.

    Of a key it is found by the templates that the last run has read. Raises ConfigurationError if
    the facility is unknown, or the key is of no day of it.
    """
    facility_id = target.facility_id
    try:
        facility = ledger.load_facility(connection, facility_id)
    except sa.exc.NoResultFound:
        raise ConfigurationError(
            f"the tables hold no facility {facility_id!r}",
            "Check the spelling, or run `fer-batch facilities sync`",
        ) from None
    day = target.capture_day
    if target.image_key is not None:
        day = Owner(facility_id, facility).find_day(target.image_key)
    if day is None:
        raise ConfigurationError(
            f"that key is no image of facility {facility_id!r}: it does not fit its key_template",
            "Give the whole key, as in the bucket",
        )
    return Batch(facility_id, day)


def _make_line(erased: ErasedDay, target: Target, secret: ErasureSecret) -> LoggedErasure:
    key = target.image_key
    return LoggedErasure(
        kind="day" if key is None else "image",
        facility_id=erased.facility_id,
        capture_day=erased.capture_day,
        key_hmac=None if key is None else secret.hash_key(key),
        secret_check=None if key is None else secret.check,
        images=erased.images,
        faces=erased.faces,
        erased_at=datetime.now(UTC),
    )


def lock_day(connection: sa.Connection, batch: Batch) -> None:
    """Take the locks of an erasure, until the transaction ends.

    A listing, chunk or summary of the day either ends before, or begins after the erasure and then
    finds the image neither in the tables nor in its listing.
    """
    connections.lock_shared(connection, "retention")
    for step in ("listing", "results", "summary"):
        connections.lock(connection, f"{step}:{batch.facility_id}:{batch.capture_day}")


def erase_day(
    connection: sa.Connection, batch: Batch, target: Target, run_id: str, secret: ErasureSecret
) -> ErasedDay:
    """Erase what the target has on one day: the rows, with the record and the summary.

    Raises ErasureSecretError as `hash_target`.
    """
    params = asdict(batch) | {"image_key": target.image_key}
    lock_day(connection, batch)
    key_hmac = hash_target(connection, target, secret)
    if target.image_key is None and _is_empty(connection, batch):
        _withdraw(connection, batch, run_id)
        return ErasedDay(**asdict(batch), images=0, faces=0)
    history.forget_keys(connection, batch, target.image_key)
    if target.image_key is None:
        history.forget_day(connection, batch.capture_day, batch.facility_id)
    connections.lock(connection, f"audit faces:{batch.facility_id}")
    connection.execute(_STATEMENTS["delete_audit_faces"], params)
    faces = connection.execute(_STATEMENTS["delete_faces"], params).rowcount
    connection.execute(_STATEMENTS["delete_results"], params)
    images = connection.execute(_STATEMENTS["delete_images"], params).rowcount
    if images:  # otherwise another process has erased the same rows concurrently
        secret_check = None if key_hmac is None else secret.check
        _record_deletion(connection, batch, key_hmac, secret_check, images, faces)
    revision = _write_summary(connection, batch, run_id)
    return ErasedDay(**asdict(batch), images=images, faces=faces, revision=revision)


def record_absent(connection: sa.Connection, logged: LoggedErasure, run_id: str) -> None:
    """Record an erasure of which the tables hold no row, as its line in the log says.

    The day's summary then leaves out as many images as before the restore. A day that retention
    has dropped keeps its summary.
    """
    batch = Batch(logged.facility_id, logged.capture_day)
    hashed = logged.key_hmac, logged.secret_check
    _record_deletion(connection, batch, *hashed, logged.images, logged.faces)
    horizon = deletions.load_horizon(connection)
    if horizon is None or batch.capture_day >= horizon:
        _write_summary(connection, batch, run_id)


def _record_deletion(
    connection: sa.Connection,
    batch: Batch,
    key_hmac: bytes | None,
    secret_check: bytes | None,
    images: int,
    faces: int,
) -> None:
    """Record what was deleted. Of a key only the HMAC, since the key itself is to be erased."""
    connection.execute(
        sa.insert(tables.deletion).values(
            asdict(batch)
            | {
                "kind": "day" if key_hmac is None else "image",
                "key_hmac": key_hmac,
                "secret_check": secret_check,
                "images": images,
                "faces": faces,
            }
        )
    )


def _is_empty(connection: sa.Connection, batch: Batch) -> bool:
    """Whether a run has processed the day without ever finding an image."""
    return bool(connection.execute(_STATEMENTS["is_empty"], asdict(batch)).scalar_one())


def _withdraw(connection: sa.Connection, batch: Batch, run_id: str) -> None:
    """Delete the batch and the summaries of an empty day, and write the periods without it.

    Nothing is recorded in `deletion`: a later run may list the day.
    """
    facility = ledger.load_facility(connection, batch.facility_id)
    params = asdict(batch) | {"today": facility.compute_local_day(datetime.now(UTC))}
    history.forget_day(connection, batch.capture_day, batch.facility_id)
    connection.execute(_STATEMENTS["delete_batch"], params)
    connection.execute(_STATEMENTS["delete_day_summaries"], params)
    connection.execute(_STATEMENTS["delete_period_summaries"], params)
    facilities = {batch.facility_id: facility}
    periods.write_period_summaries(connection, [batch], facilities, run_id, keeps_version=True)
    comparisons.write_changes(connection, [batch], facilities, run_id)


def _write_summary(connection: sa.Connection, batch: Batch, run_id: str) -> int | None:
    """Summarize the remaining rows for the model version of the newest summary.

    A day whose rates are not published stays so unless it is complete. Returns the revision; None
    if the day has no summary.
    """
    newest = revisions.find_newest(connection, batch)
    if newest is None:
        return None
    facility = ledger.load_facility(connection, batch.facility_id)
    facilities = {batch.facility_id: facility}
    # What is not published yet is left to the nights, which know when no more images will come.
    is_due = is_published(newest["method"]) or (
        facility.publish_period == "week" and newest["verdict"] != "pending"
    )
    summaries = revisions.write_summaries(
        connection,
        [batch],
        newest["model_version"],
        facilities,
        run_id,
        due_until=batch.capture_day if is_due else date.min,
    )
    periods.write_period_summaries(connection, [batch], facilities, run_id, keeps_version=True)
    comparisons.write_changes(connection, [batch], facilities, run_id)
    return int(summaries[0]["revision"]) if summaries else None
