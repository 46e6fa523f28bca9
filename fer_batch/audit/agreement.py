"""How far two raters of an audit agree: Cohen's kappa, their confusion, and what nobody can tell.

Arithmetic only. `cannot_tell` counts as neither, as in the confusion matrix of an audit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_batch.audit.labeling import Label, count_as, find_disputed
from fer_batch.records import CalledClass
from fer_batch.satisfaction.intervals import Z, compute_wilson_interval

CLASSES = tuple(CalledClass)


@dataclass(frozen=True, slots=True)
class Kappa:
    """Cohen's kappa with its 95 % interval: -1 <= `low` <= `kappa` <= `high` <= 1."""

    kappa: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """The labels of an audit, by rater and together.

    `raters` are at most two names, `labeled` how many faces each has labeled, and `cannot_tell` how
    many of them nobody could tell by that rater. `both` faces were labeled by both: `confusion`
    [3][3] counts them by the class of the first and of the second rater, in the order of `CLASSES`.
    `kappa` is None with fewer than two raters, without such faces, or if both gave all of them the
    same class. Of the `disputed` faces, `settled` were settled.
    """

    raters: tuple[str, ...]
    labeled: tuple[int, ...]
    cannot_tell: tuple[int, ...]
    both: int
    confusion: tuple[tuple[int, ...], ...]
    kappa: Kappa | None
    disputed: int
    settled: int


def compare_raters(
    ratings: Mapping[int, Mapping[str, Label]], settled: Collection[int]
) -> Agreement:
    """The agreement of the raters of `ratings`, labels by face and rater. `settled` are faces."""
    raters = sorted({rater for of_face in ratings.values() for rater in of_face})
    labels = Counter(
        (rater, label) for of_face in ratings.values() for rater, label in of_face.items()
    )
    confusion = np.zeros((3, 3), np.int64)
    if len(raters) == 2:
        first, second = raters
        for of_face in ratings.values():
            if len(of_face) == 2:
                row, column = (CLASSES.index(count_as(of_face[each])) for each in (first, second))
                confusion[row, column] += 1
    disputed = find_disputed(ratings)
    return Agreement(
        raters=tuple(raters),
        labeled=tuple(sum(rater in of_face for of_face in ratings.values()) for rater in raters),
        cannot_tell=tuple(labels[rater, Label.CANNOT_TELL] for rater in raters),
        both=int(confusion.sum()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        kappa=compute_kappa(confusion),
        disputed=len(disputed),
        settled=len(disputed & set(settled)),
    )


def compute_kappa(confusion: npt.ArrayLike) -> Kappa | None:
    """Cohen's kappa of `confusion` [k,k], faces by the class of one rater and of the other.

    None if it is not defined: there are no faces, or both raters gave all the same class. Sources:
    J. Cohen (1960), A coefficient of agreement for nominal scales, Educational and Psychological
    Measurement 20, 37-46; the standard error by J. L. Fleiss, J. Cohen and B. S. Everitt (1969),
    Large sample standard errors of kappa and weighted kappa, Psychological Bulletin 72, 323-327.
    That is 0 if the raters agree on every face. Then the low end is the kappa of Wilson's low end
    for their agreement.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    faces = float(counts.sum())
    if faces == 0:
        return None
    p = counts / faces
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, expected = float(np.trace(p)), float(rows @ columns)
    if expected > 1 - 1e-12:
        return None
    kappa = (observed - expected) / (1 - expected)
    if observed > 1 - 1e-12:
        low, _ = compute_wilson_interval(np.array([faces]), faces)
        return Kappa(1.0, max(-1.0, (float(low[0]) - expected) / (1 - expected)), 1.0)
    marginals = columns[:, None] + rows[None, :]  # of p[i,j]: columns of i and rows of j
    off = p * marginals**2
    on_diagonal = float(np.diag(p) @ (1 - (rows + columns) * (1 - kappa)) ** 2)
    off_diagonal = (1 - kappa) ** 2 * float(off.sum() - np.trace(off))
    shift = (kappa - expected * (1 - kappa)) ** 2
    variance = max(0.0, on_diagonal + off_diagonal - shift) / (faces * (1 - expected) ** 2)
    half = Z * math.sqrt(variance)
    return Kappa(kappa, max(-1.0, kappa - half), min(1.0, kappa + half))
