"""Intervals of a share, as it is called and corrected for the classifier's errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fer_batch.satisfaction.intervals import (
    ErrorRates,
    compute_corrected_interval,
    compute_wilson_interval,
)


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.one_of(st.integers(1, 60), st.integers(1, 10_000_000)))
    return draw(st.integers(0, n)), n


def interval(happy: int, n: int) -> tuple[float, float]:
    low, high = compute_wilson_interval([happy], [n])
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


@given(shares())
def test_wilson_lies_between_0_and_1_around_the_share(share: tuple[int, int]) -> None:
    happy, n = share
    low, high = interval(happy, n)
    assert 0 <= low <= happy / n <= high <= 1
    assert low < high


@given(shares())
def test_wilson_solves_its_equation(share: tuple[int, int]) -> None:
    """At both ends p, the share is z standard errors of p away, by definition."""
    happy, n = share
    for end in interval(happy, n):
        if 0 < end < 1:
            deviation = abs(happy / n - end) / math.sqrt(end * (1 - end) / n)
            assert deviation == pytest.approx(1.959964, rel=1e-3)


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
def test_more_faces_narrow_the_interval(share: tuple[int, int], times: int) -> None:
    happy, n = share

    def width(happy: int, n: int) -> float:
        low, high = interval(happy, n)
        return high - low

    assert width(happy * times, n * times) < width(happy, n)


def test_interval_without_faces_is_nan() -> None:
    low, high = compute_wilson_interval([0, 5], [0, 10])
    assert np.isnan([low[0], high[0]]).all()
    assert not np.isnan([low[1], high[1]]).any()


# --- corrected for the classifier's errors ----------------------------------------------------

units = st.floats(0, 1)
errors = st.builds(ErrorRates, units, st.floats(0, 0.25), units, st.floats(0, 0.25))


@given(units, st.floats(1, 1e12), errors)
def test_every_input_gives_an_interval(share: float, faces: float, known: ErrorRates) -> None:
    low, high = compute_corrected_interval(share, faces, known)
    assert 0 <= low <= high <= 1


@given(units, st.floats(30, 1e6), st.floats(0.5, 1), st.floats(0, 0.3))
def test_exactly_known_errors_leave_those_of_the_faces(
    share: float, faces: float, sensitivity: float, false_positive: float
) -> None:
    """The interval is the uncorrected one, moved and stretched."""
    known = ErrorRates(sensitivity, 0, false_positive, 0)
    low, high = compute_corrected_interval(share, faces, known)
    trials = faces + 1.959964**2
    center = (share * faces + 1.959964**2 / 2) / trials
    half = 1.959964 * math.sqrt(center * (1 - center) / trials)
    for end, called in ((low, center - half), (high, center + half)):
        true = (called - false_positive) / (sensitivity - false_positive)
        assert end == pytest.approx(min(max(true, 0), 1), abs=1e-6)


def test_a_sensitivity_that_is_hardly_known_leaves_the_upper_end_open() -> None:
    known = ErrorRates(sensitivity=0.25, var_sensitivity=0.01, false_positive=0.03,
                       var_false_positive=0.0001)  # fmt: skip
    low, high = compute_corrected_interval(0.11, 800, known)
    assert 0.02 < low < 0.3
    assert high == 1


def test_few_audited_faces_of_a_class_that_is_often_missed_are_enough_for_an_honest_interval() -> (
    None
):
    """35 % of many faces are sad; the classifier finds 27 % of them; 23 audited faces say so."""
    rng, hits, days = np.random.default_rng(23), 0, 500
    for _ in range(days):
        rates = []
        for faces, called in ((23, 0.27), (177, 0.03)):
            rate = (rng.binomial(faces, called) + 1) / (faces + 2)
            rates += [rate, rate * (1 - rate) / (faces + 2)]
        share = rng.binomial(800, 0.35 * 0.27 + 0.65 * 0.03) / 800
        low, high = compute_corrected_interval(share, 800, ErrorRates(*rates))
        hits += low <= 0.35 <= high
    assert hits / days >= 0.93
