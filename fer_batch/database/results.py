"""The outcomes of the images, written in chunks into `image_result` and `face_result`.

A chunk is one transaction: COPY into staging tables, then a merge that keeps finished results.
A chunk may therefore be written twice, by two processes concurrently, or after an image was
overwritten, and the tables still hold one correct result per image. The remaining work is
computed by ledger.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from fer_batch.database import connections, erased_keys, tables
from fer_batch.database.erased_keys import ErasedKeys, ErasureSecret
from fer_batch.database.statements import load_statements
from fer_batch.errors import DatabaseError
from fer_batch.records import Batch, Image, ImageScore, KeyRange, ListedImage, Outcome
from fer_batch.testing.failpoints import failpoint

_STATEMENTS = load_statements(__file__)

_DECODED = (Outcome.SCORED, Outcome.NO_FACE)
_UNDECODABLE = (Outcome.DECODER_CRASHED, Outcome.UNREADABLE, Outcome.UNSUPPORTED)
_UNREAD = (
    Outcome.MISSING,
    Outcome.ARCHIVED,
    Outcome.REFUSED,
    Outcome.CHANGED,
    Outcome.FETCH_FAILED,
)
"""Outcomes of images whose content was not read."""
_MAX_REASON_CHARACTERS = 200


def register_model_version(
    connection: sa.Connection,
    version: str,
    manifest: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Insert a model version if it is not there; the first writer's manifest and card stay.

    `version` is 64 hexadecimal digits. Results of an unregistered version are rejected.
    """
    row = {"model_version": version, "manifest": dict(manifest), "card": dict(card)}
    connection.execute(
        insert(tables.model_version)
        .values(row | {"registered_at": sa.func.now()})
        .on_conflict_do_nothing()
    )


def list_model_versions(connection: sa.Connection) -> list[dict[str, Any]]:
    """The registered versions, newest first, with `model_version`, `card`, `registered_at`."""
    table = tables.model_version
    rows = connection.execute(
        sa.select(table.c.model_version, table.c.card, table.c.registered_at).order_by(
            table.c.registered_at.desc()
        )
    )
    return [dict(row) for row in rows.mappings()]


@dataclass(frozen=True, slots=True)
class FinishedImages:
    """Which images of a batch a run would not score, as `load_finished` reads them.

    `etags` are the ETags of final results by key; `unread` are the keys whose object could not be
    read; `erased` are the keys of erased images.
    """

    etags: Mapping[str, str]
    unread: frozenset[str]
    erased: ErasedKeys

    def contain(self, listed: ListedImage) -> bool:
        """Whether a listed image is one of them."""
        if listed.key in self.erased:
            return True
        is_read = listed.key not in self.unread or listed.is_archived
        return is_read and self.etags.get(listed.key) == listed.etag


def load_finished(
    connection: sa.Connection, batch: Batch, model_version: str | None, secret: ErasureSecret
) -> FinishedImages:
    """The images of a batch that are finished for this version, as far as they are listed again.

    Without a version these are the erased ones only. Raises ErasureSecretError if an image of the
    facility was erased with another secret than this.
    """
    erased = erased_keys.load_erased_keys(connection, batch, secret)
    params = asdict(batch) | {"model_version": model_version}
    rows = connection.execute(_STATEMENTS["list_finished"], params).all() if model_version else ()
    return FinishedImages(
        {row.image_key: row.etag for row in rows},
        frozenset(row.image_key for row in rows if row.is_unread),
        erased,
    )


def count_outcomes(
    connection: sa.Connection, key_ranges: Sequence[KeyRange], model_version: str, run_id: str
) -> Counter[str]:
    """How many results a run has written in these key ranges for this version, by outcome."""
    params = {
        "facility_ids": [key_range.batch.facility_id for key_range in key_ranges],
        "capture_days": [key_range.batch.capture_day for key_range in key_ranges],
        "first_keys": [key_range.first_key for key_range in key_ranges],
        "last_keys": [key_range.last_key for key_range in key_ranges],
        "model_version": model_version,
        "run_id": run_id,
    }
    rows = connection.execute(_STATEMENTS["count_outcomes"], params)
    return Counter({row.outcome: row.images for row in rows})


def check_registered(connection: sa.Connection, model_version: str) -> None:
    """Raise DatabaseError if the model version is not registered."""
    table = tables.model_version
    is_registered = sa.select(sa.exists().where(table.c.model_version == model_version))
    if not connection.execute(is_registered).scalar_one():
        raise DatabaseError(
            f"model version {model_version[:12]} is not registered",
            "Register it before its results are written or summarized",
        )


def write_chunk(
    connection: sa.Connection,
    scores: Sequence[ImageScore],
    model_version: str,
    run_id: str,
    rescore_before: datetime | None = None,
) -> int:
    """Write the outcomes of a chunk with their faces; returns how many images were written.

    Left out are images whose ETag is no longer the listed one, images with a final result (with
    `rescore_before`: a final result that is not older than that), and, when rescoring, images
    that could not be read or decoded again: these keep their result. An image must not occur
    twice. The faces of a replaced result are deleted in the same transaction, which is the
    caller's. Raises DatabaseError for an unregistered version.
    """
    if not scores:
        return 0
    check_registered(connection, model_version)
    # Sorted, so that two chunks of several batches cannot deadlock.
    batches = sorted({(s.image.batch.capture_day, s.image.batch.facility_id) for s in scores})
    for capture_day, facility_id in batches:
        connections.lock(connection, f"results:{facility_id}:{capture_day}")
    _stage(connection, scores)
    params = {
        "model_version": model_version,
        "run_id": run_id,
        "rescore_before": rescore_before,
        "capture_days": sorted({day for day, _ in batches}),
        "facility_ids": sorted({facility_id for _, facility_id in batches}),
        "first_key": min(score.image.key for score in scores),
        "last_key": max(score.image.key for score in scores),
        "decoded_outcomes": [outcome.value for outcome in _DECODED],
        "undecodable_outcomes": [outcome.value for outcome in _UNDECODABLE],
        "unread_outcomes": [outcome.value for outcome in _UNREAD],
    }
    if rescore_before is not None and any(s.outcome in _UNDECODABLE for s in scores):
        connection.execute(_STATEMENTS["keep_decoded"], params)
    connection.execute(_STATEMENTS["discard_staged"], params)
    failpoint("upsert.before")
    merged = connection.execute(_STATEMENTS["merge_images"], params)
    connection.execute(_STATEMENTS["delete_faces"], params)
    failpoint("upsert.during")
    connection.execute(_STATEMENTS["merge_faces"], params)
    failpoint("upsert.after")
    return merged.rowcount


def _stage(connection: sa.Connection, scores: Sequence[ImageScore]) -> None:
    """COPY the chunk into the staging tables of the session."""
    connection.execute(_STATEMENTS["create_image_staging"])
    connection.execute(_STATEMENTS["create_face_staging"])
    failpoint("copy.before")
    _copy(connection, _STATEMENTS["copy_images"], (_make_image_row(score) for score in scores))
    face_rows = (row for score in scores for row in _make_face_rows(score))
    _copy(connection, _STATEMENTS["copy_faces"], face_rows)
    failpoint("copy.after")


def _copy(
    connection: sa.Connection, statement: sa.TextClause, rows: Iterable[tuple[object, ...]]
) -> None:
    driver = connections.get_driver_connection(connection)
    with driver.cursor() as cursor, cursor.copy(statement.text) as copy:
        for row in rows:
            copy.write_row(row)
        failpoint("copy.during")


def _make_image_row(score: ImageScore) -> tuple[object, ...]:
    return (
        *_make_key(score.image),
        score.image.etag,
        score.outcome.value,
        _make_storable(score.reason),
        score.emotion and score.emotion.value,
        score.called_class and score.called_class.value,
        score.width_px,
        score.height_px,
        score.image.size_bytes,
    )


def _make_face_rows(score: ImageScore) -> Iterator[tuple[object, ...]]:
    for index, face in enumerate(score.faces):
        box = face.box
        yield (
            *_make_key(score.image),
            index,
            *(box.x, box.y, box.width, box.height),
            face.detector_score,
            *(face.p_happy, face.p_sad, face.p_neither),
            face.emotion.value,
            face.called_class.value,
        )


def _make_key(image: Image) -> tuple[object, ...]:
    return image.batch.facility_id, image.batch.capture_day, image.key, image.member


def _make_storable(reason: str) -> str:
    """Remove what PostgreSQL cannot store from a reason, which may quote a hostile file.

    NUL characters and lone surrogates are replaced, and the text is truncated.
    """
    text = reason.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    return text[:_MAX_REASON_CHARACTERS]
