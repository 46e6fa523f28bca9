"""What the faces of an audit's window were like, so that later days can be compared with them.

The labels of an audit hold for faces like those that were drawn. The data check
`faces_differ_from_audit` compares the faces of later days with the reference that is computed here,
by the population stability index of each distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa

from fer_batch.database.statements import load_statements

_STATEMENTS = load_statements(__file__)


def compute_reference(
    connection: sa.Connection, facility_id: str, days: Sequence[date], model_version: str
) -> dict[str, Any]:
    """The distributions of the faces of published days, for the column `reference` of an audit.

    The dictionary is JSON-compatible. `edges` and `counts` hold a histogram of each of `p_happy`,
    `p_sad`, `p_neither` and `face_px` (the shorter side of the face's box): n edges in ascending
    order and the faces of the n + 1 bins below, between and from the last edge on. The edges are
    deciles. `faces` is their number, `faces_effective` and `sessions_effective` as many independent
    faces and equal sessions; `neither_share` is the share that is called neither; `not_scored`
    counts the `images` that were not scored by outcome, erased ones left out.
    """
    params = {"facility_id": facility_id, "days": list(days), "model_version": model_version}
    reference = dict(connection.execute(_STATEMENTS["load_figure"], params).mappings().one())
    edges: dict[str, list[float]] = {}
    counts: dict[str, list[int]] = {}
    for row in connection.execute(_STATEMENTS["count_bins"], params):
        edges[row.name] = row.edges
        counts[row.name] = row.counts
        reference |= {"faces": row.faces, "neither_share": row.neither_share}
    return {**reference, "edges": edges, "counts": counts}
