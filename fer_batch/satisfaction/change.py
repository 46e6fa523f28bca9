"""The change of the happy and the sad rate between two periods of a facility.

Both periods are corrected with the same audit table, so most of the classifier's error cancels: the
interval of the difference is narrower than the two intervals together suggest. Arithmetic only;
which periods are compared is left to others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_batch.satisfaction.estimator import (
    HAPPY,
    SAD,
    AuditTable,
    ClusterTotals,
    find_effective_faces,
    project_to_simplex,
)
from fer_batch.satisfaction.intervals import Floats, Z

MAX_Q_VALUE = 0.05
"""A change with a larger q value is not called clear: too many of them would be chance."""
_PSEUDO_COUNT = 1 / 3  # added to each entry of the audit table, so that an empty one has a variance


@dataclass(frozen=True, slots=True)
class Difference:
    """A rate minus the rate of the earlier period, with a 95 % interval, from -1 to 1.

    -1 <= `low` <= `difference` <= `high` <= 1. `p_value` (0 to 1, two-sided) is that of no change.
    """

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Change:
    """The differences of both rates, later minus earlier."""

    happy: Difference
    sad: Difference


def compute_change(
    earlier: Sequence[ClusterTotals],
    later: Sequence[ClusterTotals],
    confusion: npt.ArrayLike | None,
    local: npt.ArrayLike | None = None,
    design_effect: float | None = None,
) -> Change:
    """The change from the period `earlier` to the period `later` of one facility.

    The arguments are those of `estimator.estimate`; the two periods must not share a face. The
    faces of each period and the rows of the audit table vary independently of each other. An error
    in a row of the table moves both periods, and the difference only in proportion to the change of
    that class: the variance is linearized (delta method). A table in which true faces of a class
    are not called so more often than other faces tells nothing: the interval is -1 to 1.

    Raises ValueError if a period has no faces.
    """
    for totals in (earlier, later):
        if not totals or totals[0].faces == 0:
            raise ValueError("a change needs at least one face in each period")
    table = AuditTable.from_matrices(confusion, local)
    contrasts = np.eye(3) if table is None else table.invert(_PSEUDO_COUNT)
    corrections = np.eye(3) if table is None else table.invert()
    return Change(
        *(
            _compute_difference(
                target, earlier, later, table, contrasts, corrections, design_effect
            )
            for target in (HAPPY, SAD)
        )
    )


def compute_q_values(p_values: npt.ArrayLike) -> Floats:
    """[n] q values of `p_values` [n], 0 to 1, in the same order.

    The changes with a q value of at most 0.05 contain at most 5 % false ones, on average. Source:
    Y. Benjamini and Y. Hochberg (1995), Controlling the false discovery rate, JRSS B 57, 289-300.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(q, 1.0)


def _compute_difference(
    target: int,
    earlier: Sequence[ClusterTotals],
    later: Sequence[ClusterTotals],
    table: AuditTable | None,
    contrasts: Floats,
    corrections: Floats,
    design_effect: float | None,
) -> Difference:
    shares = [earlier[0].shares, later[0].shares]
    rates = [project_to_simplex(corrections @ each)[target] for each in shares]
    difference = float(rates[1] - rates[0])
    if table is not None and not table.is_informative(target):
        return Difference(difference, -1.0, 1.0, 1.0)
    contrast, variance = contrasts[target], 0.0
    for clusterings, called in zip((earlier, later), shares, strict=True):
        effective = find_effective_faces(clusterings, design_effect)
        smoothed = (called * effective + 1) / (effective + 3)
        variance += _compute_variance(smoothed, contrast) / effective
    shift = contrasts @ (shares[1] - shares[0])
    if table is not None:
        rows = table.counts + _PSEUDO_COUNT
        for row, change in zip(rows, shift, strict=True):
            faces = float(row.sum())
            variance += change**2 * _compute_variance(row / faces, contrast) / faces
    linear = float(shift[target])
    half = Z * math.sqrt(variance)
    # No change is claimed that the two rates, each held between 0 and 1, do not show.
    p_value = math.erfc(abs(linear) / math.sqrt(2 * variance)) if difference * linear > 0 else 1.0
    return Difference(
        difference,
        max(-1.0, min(linear - half, difference)),
        min(1.0, max(linear + half, difference)),
        p_value,
    )


def _compute_variance(shares: Floats, contrast: Floats) -> float:
    """The variance of `contrast` at one face whose called class has the probabilities `shares`."""
    return float(shares @ contrast**2) - float(shares @ contrast) ** 2
