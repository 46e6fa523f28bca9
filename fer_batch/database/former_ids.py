"""Facilities whose id changed in the registry: deletions stay recorded under the former id.

A facility that has left the registry counts as the former id of another one if both may have the
same images: if their prefixes overlap, in what may be the same bucket. The tables do not know the
name of the default bucket, so it may be any.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from fer_batch.database.statements import load_statements
from fer_batch.facilities.key_overlaps import find_overlaps

_STATEMENTS = load_statements(__file__)


def list_ids(connection: sa.Connection, facility_id: str) -> list[str]:
    """The ids under which an image of a facility may be stored: its own, former and later ones."""
    former = find_former_ids(connection, None, [facility_id])
    later = find_former_ids(connection, [facility_id])
    return sorted({facility_id}.union(*former, *later))


def find_former_ids(
    connection: sa.Connection,
    candidates: Collection[str] | None,
    facility_ids: Collection[str] | None = None,
) -> set[tuple[str, str]]:
    """Pairs of a former id and the id in the registry of what may be the same facility.

    The former ids are among `candidates`, the others among `facility_ids`; None: any. Without
    candidates nothing is read.
    """
    if candidates is not None and not candidates:
        return set()
    params = {"candidates": None if candidates is None else sorted(candidates)}
    former = connection.execute(_STATEMENTS["list_former"], params).all()
    if not former:
        return set()
    ids = None if facility_ids is None else sorted(facility_ids)
    present = connection.execute(_STATEMENTS["list_present"], {"facility_ids": ids}).all()
    by_bucket: dict[str | None, list[sa.Row[Any]]] = {}
    for row in present:
        by_bucket.setdefault(row.bucket, []).append(row)
    pairs = set()
    for bucket, in_bucket in by_bucket.items():
        may_be_there = [row for row in former if bucket is None or row.bucket in (None, bucket)]
        pairs |= _pair(may_be_there, in_bucket)
    return pairs


def _pair(former: Sequence[sa.Row[Any]], present: Sequence[sa.Row[Any]]) -> set[tuple[str, str]]:
    if not former:
        return set()
    former_ids = {row.facility_id for row in former}
    templates = {row.facility_id: row.key_template for row in (*former, *present)}
    pairs = set()
    for pair in find_overlaps(templates):
        first, second = sorted(pair, key=former_ids.__contains__, reverse=True)
        if first in former_ids and second not in former_ids:
            pairs.add((first, second))
    return pairs
