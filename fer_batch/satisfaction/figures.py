"""The figures of a summary: happy share, confidence interval and verdict, computed from counts.

Arithmetic only, without any input or output. Counting and storing is left to revisions.py.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

CONFIDENCE = 0.95
MIN_FACES = 30
"""With fewer faces that are happy or sad, no share is published: the interval would be too wide to
mean anything, and single visitors might be recognized in the numbers."""

SHARES = ("happy_share", "happy_share_low", "happy_share_high", "uncertain_share", "neither_share")
_DECIMALS = 6
"""Shares are rounded, so that rounding errors of another machine do not cause a new revision."""


def compute_wilson_interval(
    happy: npt.ArrayLike, n: npt.ArrayLike, confidence: float = CONFIDENCE
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lower and upper end of Wilson's score interval for `happy` of `n`, elementwise, from 0 to 1.

    Returns two float64 arrays of the broadcast shape, NaN where n is 0. Unlike the textbook
    interval p ± z·sqrt(p(1-p)/n) it stays between 0 and 1 and keeps its coverage near both ends,
    where happy shares usually are. It assumes independent faces, which the faces of one visit are
    not: the true interval is at least this wide. Source: E. B. Wilson (1927), Probable inference,
    the law of succession, and statistical inference, JASA 22, 209-212.
    """
    k, trials = np.asarray(happy, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / trials
        center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
        half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # Exactly 0 and 1 at the ends, where rounding errors would leave the range or exclude the share.
    low = np.where(k == 0, 0.0, np.clip(center - half, 0, 1))
    high = np.where(k == trials, 1.0, np.clip(center + half, 0, 1))
    return np.where(trials > 0, low, np.nan), np.where(trials > 0, high, np.nan)


def summarize_counts(counts: pd.DataFrame) -> pd.DataFrame:
    """Add shares, interval and verdict to counts, one row per facility and capture day.

    Needs the integer columns `faces`, `happy`, `sad`, `uncertain` (the last three add up to
    `faces`) and `neither`, and `target_share` from 0 to 1. Adds the columns of `SHARES` (float64,
    NaN where suppressed), `interval_method`, `confidence` and `verdict`. The argument is not
    changed.
    """
    happy, faces = counts["happy"].to_numpy(np.float64), counts["faces"].to_numpy(np.float64)
    counted = happy + counts["sad"].to_numpy(np.float64)
    is_suppressed = counted < MIN_FACES
    target = counts["target_share"].to_numpy(np.float64)
    low, high = (end.round(_DECIMALS) for end in compute_wilson_interval(happy, counted))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {
            "happy_share": happy / counted,
            "happy_share_low": low,
            "happy_share_high": high,
            "uncertain_share": counts["uncertain"].to_numpy(np.float64) / faces,
            "neither_share": counts["neither"].to_numpy(np.float64) / faces,
        }
    verdict = np.select(
        [is_suppressed, low > target, high < target],
        ["suppressed", "satisfied", "not satisfied"],
        default="inconclusive",
    )
    return counts.assign(
        **{k: np.where(is_suppressed, np.nan, v.round(_DECIMALS)) for k, v in shares.items()},
        interval_method="wilson",
        confidence=CONFIDENCE,
        verdict=verdict,
    )
