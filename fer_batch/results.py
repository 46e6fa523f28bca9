"""What became of the images, written chunk by chunk into `image_result` and `face_result`.

A chunk is one transaction: COPY into staging, then a merge that keeps whatever is finished
already. So a chunk may be written twice, by two processes at once, or after the image was
overwritten, and the tables still hold one right answer. What is left to do is asked of
ledger.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from fer_batch import database, tables
from fer_batch.database import statement
from fer_batch.errors import DatabaseError
from fer_batch.failpoints import reach
from fer_batch.records import Batch, Image, ImageScore, Outcome

_UNDECODABLE = {Outcome.KILLED_WORKER, Outcome.UNREADABLE, Outcome.UNSUPPORTED}
_REASON_CHARACTERS = 200


def register_model_version(
    connection: sa.Connection,
    version: str,
    manifest: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Write a model version down, once; the first writer's manifest and card stay.

    `version` is 64 hexadecimal digits. Results of a version that is not registered are refused.
    """
    row = {"model_version": version, "manifest": dict(manifest), "card": dict(card)}
    connection.execute(
        insert(tables.model_version)
        .values(row | {"registered_at": sa.func.now()})
        .on_conflict_do_nothing()
    )


def model_versions(connection: sa.Connection) -> list[dict[str, Any]]:
    """The registered versions, newest first: `model_version`, `card`, `registered_at`."""
    table = tables.model_version
    rows = connection.execute(
        sa.select(table.c.model_version, table.c.card, table.c.registered_at).order_by(
            table.c.registered_at.desc()
        )
    )
    return [dict(row) for row in rows.mappings()]


def count_finished(
    connection: sa.Connection, batches: Sequence[Batch], model_version: str
) -> dict[Batch, int]:
    """How many images of each batch have a final result of this version."""
    question = {
        "facility_ids": sorted({batch.facility_id for batch in batches}),
        "capture_days": sorted({batch.capture_day for batch in batches}),
        "model_version": model_version,
    }
    rows = connection.execute(statement("count_finished"), question)
    return {Batch(row.facility_id, row.capture_day): row.images for row in rows}


def write_chunk(
    connection: sa.Connection,
    scores: Sequence[ImageScore],
    model_version: str,
    run_id: str,
    rescore_before: datetime | None = None,
) -> int:
    """Write the outcomes of a chunk with their faces; returns how many images were written.

    Left out are images whose ETag is not the listed one any more, images with a final result
    (with `rescore_before`: a final one not older than that), and, when rescoring, images that
    could not be read again, or not be decoded any more: then their result stays. An image must
    not occur twice. A replaced result loses its faces in the same transaction, which is the
    caller's. Raises DatabaseError for an unknown version.
    """
    if not scores:
        return 0
    version = {"model_version": model_version}
    if not connection.execute(statement("has_model_version"), version).scalar_one():
        raise DatabaseError(
            f"model version {model_version[:12]} is not registered",
            "Register it before its results are written",
        )
    # Sorted, so that two chunks of several batches cannot wait for each other in a circle.
    batches = sorted({(s.image.batch.capture_day, s.image.batch.facility_id) for s in scores})
    for capture_day, facility_id in batches:
        database.lock(connection, f"results:{facility_id}:{capture_day}")
    for name in ("stage_images", "stage_faces"):
        connection.execute(statement(name))
    reach("copy.before")
    _copy(connection, "copy_images", (_image_row(score) for score in scores))
    _copy(connection, "copy_faces", (row for score in scores for row in _face_rows(score)))
    reach("copy.after")
    chunk = version | {
        "capture_days": sorted({day for day, _ in batches}),
        "facility_ids": sorted({facility_id for _, facility_id in batches}),
        "first_key": min(score.image.key for score in scores),
        "last_key": max(score.image.key for score in scores),
        "rescore_before": rescore_before,
    }
    if rescore_before is not None and any(s.outcome in _UNDECODABLE for s in scores):
        connection.execute(statement("keep_decoded"), chunk | {"run_id": run_id})
    connection.execute(statement("discard_staged"), chunk)
    reach("upsert.before")
    written = connection.execute(statement("merge_images"), version | {"run_id": run_id})
    connection.execute(statement("delete_faces"), chunk)
    reach("upsert.during")
    connection.execute(statement("merge_faces"), version)
    reach("upsert.after")
    return written.rowcount


def _copy(connection: sa.Connection, name: str, rows: Iterable[tuple[object, ...]]) -> None:
    with (
        database.driver_connection(connection).cursor() as cursor,
        cursor.copy(database.script(name)) as copy,
    ):
        for row in rows:
            copy.write_row(row)
        reach("copy.during")


def _image_row(score: ImageScore) -> tuple[object, ...]:
    return (
        *_key(score.image),
        score.image.etag,
        score.outcome.value,
        _storable(score.reason),
        score.width_px,
        score.height_px,
        score.image.size_bytes,
    )


def _face_rows(score: ImageScore) -> Iterator[tuple[object, ...]]:
    for index, face in enumerate(score.faces):
        box = face.box
        yield (
            *_key(score.image),
            index,
            *(box.x, box.y, box.width, box.height),
            face.detector_score,
            *(face.p_happy, face.p_sad, face.p_neither),
            face.is_uncertain,
        )


def _key(image: Image) -> tuple[object, ...]:
    return image.batch.facility_id, image.batch.capture_day, image.key, image.member


def _storable(reason: str) -> str:
    """A reason may quote a hostile file: no NUL, no half characters, not too long."""
    text = reason.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    return text[:_REASON_CHARACTERS]
