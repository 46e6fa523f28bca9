"""The arithmetic of a summary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fer_batch.satisfaction.figures import (
    MIN_FACES,
    SHARES,
    compute_wilson_interval,
    summarize_counts,
)

confidences = st.sampled_from([0.8, 0.95, 0.99])


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.one_of(st.integers(1, 60), st.integers(1, 10_000_000)))
    return draw(st.integers(0, n)), n


def interval(happy: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    low, high = compute_wilson_interval([happy], [n], confidence)
    return float(low[0]), float(high[0])


@pytest.mark.parametrize(
    ("happy", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_the_literature(happy: int, n: int, low: float, high: float) -> None:
    assert interval(happy, n) == pytest.approx((low, high), abs=5e-5)


@given(shares(), confidences)
def test_wilson_lies_between_0_and_1_around_the_share(
    share: tuple[int, int], confidence: float
) -> None:
    happy, n = share
    low, high = interval(happy, n, confidence)
    assert 0 <= low <= happy / n <= high <= 1
    assert low < high


@given(shares(), confidences)
def test_wilson_solves_its_equation(share: tuple[int, int], confidence: float) -> None:
    """At both ends p, the share is z standard errors of p away, by definition."""
    from statistics import NormalDist

    happy, n = share
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for end in interval(happy, n, confidence):
        if 0 < end < 1:
            deviation = abs(happy / n - end) / math.sqrt(end * (1 - end) / n)
            assert deviation == pytest.approx(z, rel=1e-3)


@given(shares())
def test_wilson_is_symmetric(share: tuple[int, int]) -> None:
    happy, n = share
    low, high = interval(happy, n)
    assert interval(n - happy, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(shares())
def test_more_happy_faces_move_the_interval_up(share: tuple[int, int]) -> None:
    happy, n = share
    assume(happy < n)
    low, high = interval(happy, n)
    low_up, high_up = interval(happy + 1, n)
    assert low_up > low
    assert high_up >= high


@given(shares(), st.integers(2, 10))
def test_more_faces_and_less_confidence_narrow_the_interval(
    share: tuple[int, int], times: int
) -> None:
    happy, n = share

    def width(happy: int, n: int, confidence: float = 0.95) -> float:
        low, high = interval(happy, n, confidence)
        return high - low

    assert width(happy * times, n * times) < width(happy, n)
    assert width(happy, n, 0.8) < width(happy, n)


def test_interval_without_faces_is_nan() -> None:
    low, high = compute_wilson_interval([0, 5], [0, 10])
    assert np.isnan([low[0], high[0]]).all()
    assert not np.isnan([low[1], high[1]]).any()


def counts(happy: int, sad: int, **others: Any) -> pd.DataFrame:
    row = {"happy": happy, "sad": sad, "uncertain": 0, "neither": 0, "target_share": 0.8}
    row |= others
    row["faces"] = row["happy"] + row["sad"] + row["uncertain"]
    return pd.DataFrame([row])


@pytest.mark.parametrize(
    ("happy", "sad", "verdict"),
    [
        (900, 100, "satisfied"),
        (700, 300, "not satisfied"),
        (800, 200, "inconclusive"),
        (27, 3, "inconclusive"),  # 0.9, but of 30 faces only
        (29, 0, "suppressed"),
        (0, 29, "suppressed"),
        (30, 0, "satisfied"),
        (0, 0, "suppressed"),
    ],
)
def test_verdict_follows_the_interval(happy: int, sad: int, verdict: str) -> None:
    assert summarize_counts(counts(happy, sad))["verdict"].tolist() == [verdict]


def test_uncertain_faces_are_excluded_from_the_share_and_reported() -> None:
    row = summarize_counts(counts(60, 20, uncertain=20, neither=30)).iloc[0]
    assert row["happy_share"] == 0.75
    assert row["uncertain_share"] == 0.2
    assert row["neither_share"] == 0.3
    assert (row["interval_method"], row["confidence"]) == ("wilson", 0.95)


def test_few_faces_are_suppressed_however_many_are_uncertain() -> None:
    row = summarize_counts(counts(MIN_FACES - 1, 0, uncertain=1000)).iloc[0]
    assert row["verdict"] == "suppressed"
    assert row[list(SHARES)].isna().all()


@given(st.lists(st.tuples(*[st.integers(0, 200)] * 3, st.floats(0, 1)), min_size=1, max_size=20))
def test_rows_are_computed_independently(days: list[tuple[int, int, int, float]]) -> None:
    table = pd.concat(
        [counts(h, s, uncertain=u, target_share=t) for h, s, u, t in days], ignore_index=True
    )
    before = table.copy()
    together = summarize_counts(table)
    alone = pd.concat([summarize_counts(table.iloc[[n]]) for n in range(len(days))])
    pd.testing.assert_frame_equal(together, alone)
    pd.testing.assert_frame_equal(table, before)
    published = together[together["verdict"] != "suppressed"]
    assert (
        published["happy_share"]
        .between(published["happy_share_low"], published["happy_share_high"])
        .all()
    )
    assert (together["verdict"] == "suppressed").equals(together["happy_share"].isna())
