"""The happy and the sad rate of all faces of a period, corrected for the classifier's errors.

The input is small: totals over the clusters of a period (sessions, or blocks in time order) and
confusion matrices in counts, true class × called class, of the model card and of a local audit.
The output is each rate with a 95 % interval. Every array has the order happy, sad, neither.

Arithmetic only, without any input or output. What a session is, what may be published and what a
verdict says is left to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fer_batch.satisfaction.intervals import (
    CONFIDENCE,
    ErrorRates,
    Floats,
    Z,
    compute_corrected_interval,
    compute_wilson_interval,
)

BENCHMARK_FACES = 25
"""The card's confusion matrix counts as at most this many faces of each true class. The faces of a
facility differ from the benchmark's in labels, light and size. That error is larger than the
sampling error of the benchmark, and with all its faces the interval would ignore it."""

HAPPY, SAD, NEITHER = range(3)
_VERY_MANY = 1e12
_LEAST_WEIGHT = 1e-3  # so that a class that seems absent still contributes to the error


@dataclass(frozen=True, eq=False)
class ClusterTotals:
    """Sums over the clusters of a period.

    A cluster is a set of faces that may resemble each other, such as the faces of one session. With
    k = (faces called happy, sad, neither) of a cluster, `counts` [3] is Σk and `products` [3,3] is
    Σkkᵀ, both float64. The totals of two periods without a common cluster add up to the totals of
    both.
    """

    clusters: int
    counts: Floats
    products: Floats

    @classmethod
    def from_clusters(cls, called: npt.ArrayLike) -> Self:
        """The totals of `called` [C,3], the called counts of each of C clusters."""
        k = np.asarray(called, dtype=np.float64).reshape(-1, 3)
        return cls(len(k), k.sum(axis=0), k.T @ k)

    @classmethod
    def from_counts(cls, counts: npt.ArrayLike) -> Self:
        """Totals of `counts` [3] without clusters, for `estimate` with a given design effect."""
        return cls(0, np.asarray(counts, dtype=np.float64), np.zeros((3, 3)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The totals that `to_json` wrote."""
        return cls(
            int(data["clusters"]),
            np.asarray(data["counts"], dtype=np.float64),
            np.asarray(data["products"], dtype=np.float64),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible dict of integers: `clusters`, `counts` [3] and `products` [3][3]."""
        return {
            "clusters": self.clusters,
            "counts": [round(count) for count in self.counts.tolist()],
            "products": [[round(sum_) for sum_ in row] for row in self.products.tolist()],
        }

    def __add__(self, other: ClusterTotals) -> ClusterTotals:
        return ClusterTotals(
            self.clusters + other.clusters,
            self.counts + other.counts,
            self.products + other.products,
        )

    @property
    def faces(self) -> int:
        return round(float(self.counts.sum()))

    @cached_property
    def shares(self) -> Floats:
        """[3] the called classes as shares of all faces."""
        return self.counts / float(self.counts.sum())

    @cached_property
    def clusters_effective(self) -> float:
        """(Σm)² / Σm², m being the faces of a cluster: as many equal clusters tell as much."""
        squares = float(self.products.sum())
        return float(self.counts.sum()) ** 2 / squares if squares > 0 else 0.0

    @cached_property
    def covariance(self) -> Floats:
        """[3,3] covariance of `shares`, which varies as whole clusters are drawn.

        Linearized: the residuals k - m·shares of the clusters, squared and summed, without a look
        at single clusters (Woodruff 1971, A simple method for approximating the variance of a
        complicated estimate, JASA 66, 411-414). Zero with fewer than two clusters.
        """
        if self.clusters < 2:
            return np.zeros((3, 3))
        shares, sums_mk = self.shares, self.products.sum(axis=1)
        half = shares[:, None] * (float(sums_mk.sum()) / 2 * shares - sums_mk)
        residuals: Floats = self.products + half + half.T
        residuals *= self.clusters / (self.clusters - 1) / float(self.counts.sum()) ** 2
        return residuals

    @cached_property
    def faces_effective(self) -> float:
        """The number of independent faces that would tell as much, from 1 to the number of faces.

        Faces are divided by the largest of the generalized design effects (J. N. K. Rao and A. J.
        Scott 1981, The analysis of categorical data from complex sample surveys, JASA 76, 221-230):
        no weighted sum of the shares varies more. The design effect of one class alone is too
        small by chance if the class is rare. The t quantile takes the number of clusters into
        account (E. L. Korn and B. I. Graubard 1998, Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data, Survey Methodology 24,
        193-201), here with the effective clusters, because clusters differ in size.
        """
        if self.clusters < 2:
            return 1.0
        occurring = self.counts > 0
        if occurring.sum() == 1:
            # All faces are called the same: the clusters do not show how similar their faces are.
            return max(1.0, self.clusters_effective)
        # 1 / shares is a generalized inverse of the covariance of independent faces.
        root = np.sqrt(self.shares[occurring] / self.faces)
        covariance = self.covariance[np.ix_(occurring, occurring)]
        largest = float(np.linalg.eigvalsh(covariance / np.outer(root, root))[-1])
        widening = (_compute_t(self.clusters_effective - 1) / Z) ** 2
        return max(1.0, self.faces / (max(1.0, largest) * widening))


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate and the ends of its 95 % interval: 0 <= `low` <= `rate` <= `high` <= 1."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The rates of a period.

    `happy`, `sad` and `neither_rate` are shares of all faces, corrected for the classifier's errors
    unless `method` is `raw`; they sum to 1. `called_happy` and `called_sad` are the uncorrected
    shares of faces called so. `design_effect` is `faces` / `faces_effective`, which includes the
    uncertainty of few clusters. `sessions` and `sessions_effective` describe the first clustering;
    they are None where a design effect was given. `benchmark_weight` (0 to 1) is the model card's
    share of the faces in the audit table. `happy_limit` is `happy` as it would be for very many
    faces with the same shares: its interval contains the classifier's errors alone.
    """

    method: str
    happy: Rate
    sad: Rate
    neither_rate: float
    called_happy: Rate
    called_sad: Rate
    faces: int
    sessions: int | None
    sessions_effective: float | None
    faces_effective: float
    design_effect: float
    benchmark_weight: float
    happy_limit: Rate


@dataclass(frozen=True, slots=True, eq=False)
class AuditTable:
    """What is known of the classifier: `counts` [3,3], true class × called class.

    `method` is `benchmark` (the card alone) or `local` (with audited faces of the facility).
    """

    counts: Floats
    method: str
    benchmark_weight: float

    @classmethod
    def from_matrices(
        cls, confusion: npt.ArrayLike | None, local: npt.ArrayLike | None
    ) -> Self | None:
        """The `local` counts, completed with the card's `confusion`; None without either.

        In each true class, a local face replaces two of the card's `BENCHMARK_FACES`. Local faces
        tell more of their facility than any number of faces of the benchmark: both added up, the
        error of the benchmark would stay in the rates while the interval narrows.
        """
        if confusion is None and local is None:
            return None
        audited = np.zeros((3, 3)) if local is None else np.asarray(local, dtype=np.float64)
        card = np.zeros((3, 3)) if confusion is None else np.asarray(confusion, dtype=np.float64)
        missing = np.maximum(BENCHMARK_FACES - 2 * audited.sum(axis=1, keepdims=True), 0)
        filled = cap_rows(card, missing)
        counts = audited + filled
        weight = float(filled.sum() / max(counts.sum(), 1e-12))
        return cls(counts, "benchmark" if local is None else "local", weight)

    def is_informative(self, target: int) -> bool:
        """True if faces of the class `target` are called so more often than faces of each other."""
        called = (self.counts[:, target] + 1) / (self.counts.sum(axis=1) + 2)
        return bool((np.delete(called, target) < called[target]).all())

    def invert(self, pseudo_count: float = 0.0) -> Floats:
        """[3,3] matrix that turns called shares into true shares.

        `pseudo_count` is added to each entry. A true class without any face is taken to be called
        each class equally often. A matrix that cannot be inverted gets its pseudo-inverse.
        """
        counts = self.counts + pseudo_count
        faces = counts.sum(axis=1, keepdims=True)
        rows = np.where(faces > 0, counts / np.where(faces > 0, faces, 1), 1 / 3)
        inverse: Floats
        if abs(np.linalg.det(rows)) > 1e-9:
            inverse = np.linalg.inv(rows.T)
        else:
            inverse = np.linalg.pinv(rows.T, rcond=1e-8)
        return inverse


def estimate(
    clusterings: Sequence[ClusterTotals],
    confusion: npt.ArrayLike | None,
    local: npt.ArrayLike | None = None,
    design_effect: float | None = None,
) -> Estimate:
    """The rates of the faces in `clusterings`, which hold the same faces in different clusters.

    Of the clusterings (by sessions first, then for example by blocks in time order), the one with
    fewer effective faces is used. `confusion` [3,3] is the card's confusion matrix in counts,
    `local` [3,3] that of an audit of the facility's own faces. Without either, nothing is corrected
    (method `raw`). With `design_effect` (at least 1), the clusters are not used, and totals that
    only have counts are enough.

    Raises ValueError without faces, or if clusters are needed and there are none.
    """
    if not clusterings or clusterings[0].faces == 0:
        raise ValueError("a rate needs at least one face")
    if design_effect is None and any(totals.clusters == 0 for totals in clusterings):
        raise ValueError("totals without clusters need a design effect")
    first, table = clusterings[0], AuditTable.from_matrices(confusion, local)
    effective = find_effective_faces(clusterings, design_effect)
    called = _estimate_called(first.shares[:2], effective)
    if table is None:
        rates, neither_rate = called, float(first.shares[NEITHER])
        limit = Rate(*[called[HAPPY].rate] * 3)
    else:
        mix = estimate_mix(first.shares, table)
        rates = [
            _correct(target, first.shares, effective, table.counts, mix) for target in (HAPPY, SAD)
        ]
        neither_rate = max(0.0, 1 - rates[HAPPY].rate - rates[SAD].rate)
        limit = _correct(HAPPY, first.shares, _VERY_MANY, table.counts, mix)
    has_clusters = design_effect is None
    return Estimate(
        method="raw" if table is None else table.method,
        happy=rates[HAPPY],
        sad=rates[SAD],
        neither_rate=neither_rate,
        called_happy=called[HAPPY],
        called_sad=called[SAD],
        faces=first.faces,
        sessions=first.clusters if has_clusters else None,
        sessions_effective=first.clusters_effective if has_clusters else None,
        faces_effective=effective,
        design_effect=first.faces / effective,
        benchmark_weight=0.0 if table is None else table.benchmark_weight,
        happy_limit=limit,
    )


def find_effective_faces(
    clusterings: Sequence[ClusterTotals], design_effect: float | None
) -> float:
    """The fewest effective faces of the clusterings, or faces / `design_effect` if it is given."""
    if design_effect is not None:
        return max(1.0, clusterings[0].faces / max(1.0, design_effect))
    return min(totals.faces_effective for totals in clusterings)


def estimate_mix(shares: Floats, table: AuditTable) -> Floats:
    """[3] true shares, 0 to 1 with the sum 1, for the called `shares` [3]."""
    return project_to_simplex(table.invert() @ shares)


def cap_rows(confusion: Floats, most: float | Floats) -> Floats:
    """The matrix with each row scaled down to at most `most` faces, one number or [3,1]."""
    faces = confusion.sum(axis=1, keepdims=True)
    capped: Floats = confusion * np.minimum(1, most / np.maximum(faces, 1e-12))
    return capped


def project_to_simplex(point: Floats) -> Floats:
    """The nearest shares that are not negative and sum to 1.

    Source: M. Held, P. Wolfe, H. P. Crowder (1974), Validation of subgradient optimization,
    Mathematical Programming 6, 62-88.
    """
    descending = -np.sort(-point)
    excess = descending.cumsum() - 1
    kept = int((descending > excess / np.arange(1, len(point) + 1)).sum())
    projected: Floats = np.maximum(point - float(excess[kept - 1]) / kept, 0)
    return projected


def _compute_t(degrees: float) -> float:
    """The 97.5 % quantile of Student's t, with at least one degree of freedom."""
    from scipy.special import stdtrit  # here, because it takes half a second to import

    return float(stdtrit(max(degrees, 1.0), (1 + CONFIDENCE) / 2))


def _estimate_called(shares: Floats, faces_effective: float) -> list[Rate]:
    low, high = compute_wilson_interval(shares * faces_effective, faces_effective)
    # Rounding errors must not exclude the share.
    ends = zip(shares.tolist(), low.tolist(), high.tolist(), strict=True)
    return [Rate(share, min(low, share), max(high, share)) for share, low, high in ends]


def _correct(
    target: int, shares: Floats, faces_effective: float, audit: Floats, mix: Floats
) -> Rate:
    """The rate of the class `target`: `mix` with its interval.

    The sensitivity is the share of true `target` faces that are called so; the false positive rate
    is that of the other two classes, weighted by their shares in `mix`. As Lang and Reiczigel do,
    one face of each kind is added to `audit`.
    """
    others = [label for label in (HAPPY, SAD, NEITHER) if label != target]
    faces = audit.sum(axis=1) + 2
    called = (audit[:, target] + 1) / faces
    variances = called * (1 - called) / faces
    weights = np.maximum(mix[others], _LEAST_WEIGHT)
    weights /= weights.sum()
    errors = ErrorRates(
        sensitivity=float(called[target]),
        var_sensitivity=float(variances[target]),
        false_positive=float(weights @ called[others]),
        var_false_positive=float(weights**2 @ variances[others]),
    )
    low, high = compute_corrected_interval(float(shares[target]), faces_effective, errors)
    rate = float(np.clip(mix[target], 0, 1))
    return Rate(rate, min(low, rate), max(high, rate))
