"""Wilson's interval of a share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fer_batch.satisfaction.estimator import compute_wilson_interval

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
