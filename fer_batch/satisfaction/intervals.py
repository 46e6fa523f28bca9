"""95 % intervals of a share, counted as it is or corrected for the classifier's errors.

Arithmetic on single numbers. How the errors of the classifier are known is left to the estimator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

_LEAST_YOUDEN = 1e-6  # below, the calls tell nothing, and the division would overflow

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """How often a classifier calls a class, each rate (0 to 1) with its variance.

    `sensitivity` is the share of true faces of the class that are called so, `false_positive` that
    of all other faces.
    """

    sensitivity: float
    var_sensitivity: float
    false_positive: float
    var_false_positive: float

    @property
    def youden(self) -> float:
        """Youden's index, -1 to 1; at 0 or below, the calls tell nothing about the class."""
        return self.sensitivity - self.false_positive


def compute_wilson_interval(happy: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Lower and upper end of Wilson's 95 % score interval for `happy` of `n`, elementwise, 0 to 1.

    Returns two float64 arrays of the broadcast shape, NaN where n is 0. Unlike the textbook
    interval p ± z·sqrt(p(1-p)/n) it stays between 0 and 1 and keeps its coverage near both ends.
    It assumes independent faces; for faces of visits, `happy` and `n` are effective faces, which
    need not be whole numbers. Source: E. B. Wilson (1927), Probable inference, the law of
    succession, and statistical inference, JASA 22, 209-212.
    """
    k, trials = np.asarray(happy, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z2 = Z**2
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / trials
        center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
        half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # Exactly 0 and 1 at the ends, where rounding errors would leave the range or exclude the share.
    low = np.where(k == 0, 0.0, np.clip(center - half, 0, 1))
    high = np.where(k == trials, 1.0, np.clip(center + half, 0, 1))
    return np.where(trials > 0, low, np.nan), np.where(trials > 0, high, np.nan)


def compute_corrected_interval(
    share: float, faces_effective: float, errors: ErrorRates
) -> Interval:
    """The interval of the true share of a class of which the share `share` (0 to 1) is called so.

    The outer ends of two intervals, from 0 to 1. Where many faces meet few audited ones, the
    interval of Lang and Reiczigel is too short above, and that of Fieller is too short below. With
    many audited faces both agree. If the calls tell nothing, the interval is 0 to 1.
    """
    if errors.youden <= _LEAST_YOUDEN:
        return 0.0, 1.0
    trials = faces_effective + Z**2
    smoothed = (share * faces_effective + Z**2 / 2) / trials
    variance = smoothed * (1 - smoothed) / trials
    symmetric = _compute_lang_reiczigel(smoothed, variance, errors)
    inverted = _compute_fieller(smoothed, variance, errors)
    low, high = min(symmetric[0], inverted[0]), max(symmetric[1], inverted[1])
    return min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)


def _compute_lang_reiczigel(share: float, variance: float, errors: ErrorRates) -> Interval:
    """Around a shifted center.

    Z. Lang and J. Reiczigel (2014), Confidence limits for prevalence of disease adjusted for
    estimated sensitivity and specificity, Preventive Veterinary Medicine 113, 13-22.
    """
    center = (share - errors.false_positive) / errors.youden
    shift = center * errors.var_sensitivity - (1 - center) * errors.var_false_positive
    shift *= 2 * Z**2
    variance += center**2 * errors.var_sensitivity
    variance += (1 - center) ** 2 * errors.var_false_positive
    half = Z * math.sqrt(variance) / errors.youden
    return center + shift - half, center + shift + half


def _compute_fieller(share: float, variance: float, errors: ErrorRates) -> Interval:
    """All true shares p that a test does not reject: a quadratic inequality in p.

    The test compares `share` with p·sensitivity + (1 - p)·false_positive. E. C. Fieller (1954),
    Some problems in interval estimation, JRSS B 16, 175-185. If the sensitivity is hardly known,
    the shares beyond a gap are not rejected either; the interval spans the gap.
    """
    z2, excess = Z**2, share - errors.false_positive
    square = errors.youden**2 - z2 * (errors.var_sensitivity + errors.var_false_positive)
    linear = excess * errors.youden - z2 * errors.var_false_positive
    constant = excess**2 - z2 * (variance + errors.var_false_positive)
    discriminant = linear**2 - square * constant
    if abs(square) < 1e-12 or discriminant < 0:
        return 0.0, 1.0
    root = math.sqrt(discriminant)
    first, second = sorted(((linear - root) / square, (linear + root) / square))
    if square > 0:
        return first, second
    kept = [end for end in (0.0, first) if first >= 0] + [
        end for end in (second, 1.0) if second <= 1
    ]
    return (min(kept), max(kept)) if kept else (0.0, 1.0)
