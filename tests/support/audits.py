"""Finished audits for tests, whose faces have no keys, as after retention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa

INSERT = """
WITH a AS (
    INSERT INTO fer.audit (facility_id, model_version, first_day, last_day, seed, faces_in_window,
        faces_drawn, finished_at, finished_by, start_day, expiry_day)
    VALUES (:facility_id, repeat('a', 64), '2026-02-01', '2026-02-28', 1, 10000, :faces, now(),
        'ines', :start_day, :expiry_day)
    RETURNING audit_id),
f AS (
    INSERT INTO fer.audit_face (audit_id, face_number, facility_id)
    SELECT audit_id, n, :facility_id FROM a, generate_series(1, :faces) AS n),
r AS (
    INSERT INTO fer.audit_result (audit_id, face_number, facility_id, model_version, called_class)
    SELECT audit_id, n, :facility_id, :version, c
    FROM a, unnest(CAST(:called AS text[])) WITH ORDINALITY AS t (c, n)),
l AS (
    INSERT INTO fer.audit_label (audit_id, face_number, facility_id, rater, label)
    SELECT audit_id, n, :facility_id, 'Ada', c
    FROM a, unnest(CAST(:true AS text[])) WITH ORDINALITY AS t (c, n))
SELECT audit_id FROM a
"""
CLASSES = ("happy", "sad", "neither")


def insert_audit(
    connection: sa.Connection,
    counts: Sequence[Sequence[int]],
    start_day: date,
    expiry_day: date,
    *,
    facility_id: str = "north-mall",
    version: str = "a" * 64,
) -> int:
    """Insert an audit with `counts` [3][3] faces by true and called class; returns its number.

    `version` is the model version that called the faces.
    """
    faces = [
        (true, called)
        for true, row in zip(CLASSES, counts, strict=True)
        for called, many in zip(CLASSES, row, strict=True)
        for _ in range(many)
    ]
    params: dict[str, Any] = {
        "facility_id": facility_id,
        "version": version,
        "start_day": start_day,
        "expiry_day": expiry_day,
        "faces": len(faces),
        "true": [true for true, _ in faces],
        "called": [called for _, called in faces],
    }
    number: int = connection.execute(sa.text(INSERT), params).scalar_one()
    return number


def build_insert(tables: Any) -> Callable[..., int]:
    """`insert_audit` as the owner of the tables of a test."""

    def insert(*args: Any, **others: Any) -> int:
        with tables.admin.begin() as connection:
            return insert_audit(connection, *args, **others)

    return insert
