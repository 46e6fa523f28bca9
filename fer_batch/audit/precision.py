"""How wide the intervals of a facility are expected to become with the labels of an audit.

Arithmetic only. The facility's usual numbers of faces and called classes are taken as they are, and
the labels as if the classifier erred as its card says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fer_batch.satisfaction.estimator import (
    AuditTable,
    ClusterTotals,
    estimate,
    estimate_mix,
)
from fer_batch.satisfaction.intervals import Floats

_UNIFORM = np.full((3, 3), 1.0) + 7 * np.eye(3)
"""What is taken for the card's matrix if it has none: 80 % of each class are called so."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected width (0 to 1) of the 95 % interval of the happy rate of a period.

    `faces` are the usual faces of the period. `width_without` is the width with the card alone,
    None if the card has no confusion matrix; `width` that with the labels.
    """

    period: str
    faces: int
    width_without: float | None
    width: float


def expect(
    called: Sequence[int],
    *,
    days: int,
    days_a_week: float,
    design_effect: float,
    confusion: Floats | None,
    labels: int,
    publish_period: str,
) -> tuple[Expectation, ...]:
    """The expectations for a day (unless the facility publishes by week), a week and four weeks.

    `called` [3] are the faces called happy, sad and neither of `days` days with published results;
    `design_effect` is how many faces count as one independent face.
    """
    periods = {"day": 1.0, "week": days_a_week, "four weeks": 4 * days_a_week}
    if publish_period == "week":
        del periods["day"]
    a_day = np.asarray(called, dtype=np.float64) / days
    return tuple(
        _expect_period(period, a_day * many, design_effect, confusion, labels)
        for period, many in periods.items()
    )


def _expect_period(
    period: str, called: Floats, design_effect: float, confusion: Floats | None, labels: int
) -> Expectation:
    totals = ClusterTotals.from_counts(called)
    assumed = _UNIFORM if confusion is None else confusion
    table = AuditTable.from_matrices(assumed, None)
    if table is None:
        raise ValueError("a confusion matrix is needed")
    mix = estimate_mix(totals.shares, table)
    rows = assumed / np.maximum(assumed.sum(axis=1, keepdims=True), 1e-12)
    local = labels * mix[:, None] * rows
    with_labels = estimate([totals], confusion, local, design_effect).happy
    without = None
    if confusion is not None:
        alone = estimate([totals], confusion, None, design_effect).happy
        without = round(alone.high - alone.low, 4)
    return Expectation(
        period,
        totals.faces,
        without,
        round(with_labels.high - with_labels.low, 4),
    )
