"""The change between two periods of a facility, and q values over many of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from fer_batch.satisfaction.change import Difference, compute_change, compute_q_values
from fer_batch.satisfaction.estimator import ClusterTotals, estimate

CARD = np.array([[824, 5, 70], [6, 237, 169], [50, 122, 2106]], float)
ROWS = CARD / CARD.sum(axis=1, keepdims=True)
Z = 1.959963984540054

periods = (
    stn.arrays(np.int64, st.tuples(st.integers(1, 8), st.just(3)), elements=st.integers(0, 9))
    .map(lambda called: called[called.sum(axis=1) > 0])
    .filter(len)
    .map(lambda called: [ClusterTotals.from_clusters(called)])
)
matrices = stn.arrays(np.float64, (3, 3), elements=st.integers(0, 800).map(float))
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def draw_called(rng: np.random.Generator, mix: Any, visits: int = 60) -> Any:
    """[visits, 3] called classes of visits of five faces that resemble each other."""
    true = rng.multinomial(5, rng.dirichlet(np.array(mix), visits))
    return rng.multinomial(true, ROWS).sum(axis=1)


def draw_period(seed: int, mix: Any = (0.3, 0.1, 0.6), visits: int = 60) -> list[ClusterTotals]:
    return [ClusterTotals.from_clusters(draw_called(np.random.default_rng(seed), mix, visits))]


def width(difference: Difference) -> float:
    return difference.high - difference.low


@settings(max_examples=40)
@given(periods, periods, st.none() | matrices, st.none() | matrices)
def test_every_input_gives_a_difference_within_its_interval(
    earlier: Any, later: Any, confusion: Any, local: Any
) -> None:
    change = compute_change(earlier, later, confusion, local)
    for difference in (change.happy, change.sad):
        assert -1 <= difference.low <= difference.difference <= difference.high <= 1
        assert 0 <= difference.p_value <= 1
    assert compute_change(earlier, later, confusion, local) == change


@settings(max_examples=40)
@given(periods, periods)
def test_a_change_backwards_is_the_opposite(earlier: Any, later: Any) -> None:
    there, back = (
        compute_change(*pair, CARD).happy for pair in ((earlier, later), (later, earlier))
    )
    assert dataclasses.astuple(back) == pytest.approx(
        (-there.difference, -there.high, -there.low, there.p_value)
    )


@settings(max_examples=40)
@given(periods)
def test_the_same_faces_twice_are_no_change(period: Any) -> None:
    happy = compute_change(period, period, CARD).happy
    assert (happy.difference, happy.p_value) == (0, 1)
    assert happy.low < 0 < happy.high


@settings(max_examples=40)
@given(periods, periods)
def test_the_difference_is_that_of_the_two_rates(earlier: Any, later: Any) -> None:
    change = compute_change(earlier, later, CARD)
    before, after = (estimate(period, CARD) for period in (earlier, later))
    assert change.happy.difference == pytest.approx(after.happy.rate - before.happy.rate)
    assert change.sad.difference == pytest.approx(after.sad.rate - before.sad.rate)


@pytest.mark.parametrize("seed", range(20))
def test_a_small_p_value_means_that_the_interval_excludes_zero(seed: int) -> None:
    happy = compute_change(
        draw_period(seed), draw_period(seed + 100, (0.5, 0.1, 0.4)), CARD, CARD
    ).happy
    assert (happy.p_value < 0.05) == (not happy.low <= 0 <= happy.high)


def test_without_a_matrix_it_is_the_difference_of_the_called_shares() -> None:
    earlier, later = draw_period(1), draw_period(2, (0.5, 0.1, 0.4))
    change = compute_change(earlier, later, None)
    shares = later[0].shares - earlier[0].shares
    assert [change.happy.difference, change.sad.difference] == pytest.approx(shares[:2])


@pytest.mark.parametrize("seed", range(5))
def test_the_error_that_both_periods_share_cancels(seed: int) -> None:
    """The interval is narrower than that of a difference of two independent rates."""
    periods_ = draw_period(seed, visits=400), draw_period(seed + 10, visits=400)
    happy = compute_change(*periods_, CARD).happy
    halves = [(rate.high - rate.low) / 2 for rate in (estimate(p, CARD).happy for p in periods_)]
    assert width(happy) / 2 < 0.6 * math.hypot(*halves)


def test_a_larger_change_depends_more_on_the_classifier() -> None:
    earlier, later = draw_period(1, visits=400), draw_period(2, (0.8, 0.1, 0.1), visits=400)
    few, many = (compute_change(earlier, later, None, ROWS * faces).happy for faces in (40, 40_000))
    assert width(few) > 1.3 * width(many)


@pytest.mark.parametrize("target", [0, 1])
def test_the_interval_matches_the_delta_method(target: int) -> None:
    """Written out for single clusters; the audit's part agrees with simulated audits."""
    from scipy.special import betaincinv

    rng = np.random.default_rng(7)
    samples = [draw_called(rng, (0.5, 0.4, 0.6)), draw_called(rng, (1.2, 0.2, 0.3))]
    audit = ROWS * 60
    smoothed = audit + 1 / 3
    rows = smoothed / smoothed.sum(axis=1, keepdims=True)
    contrast = np.linalg.inv(rows.T)[target]
    variance, mixes = 0.0, []
    for called in samples:
        sizes, n, clusters = called.sum(axis=1), called.sum(), len(called)
        q = called.sum(axis=0) / n
        residuals = called - np.outer(sizes, q)
        covariance = clusters / (clusters - 1) * residuals.T @ residuals / n**2
        independent = (np.diag(q) - np.outer(q, q)) / n
        effects = np.linalg.eigvals(np.linalg.solve(independent[:2, :2], covariance[:2, :2]))
        degrees = n**2 / (sizes**2).sum() - 1
        t = math.sqrt(degrees * (1 / betaincinv(degrees / 2, 0.5, 0.05) - 1))
        effective = n / (max(1, *effects) * t**2 / Z**2)
        s = (q * effective + 1) / (effective + 3)
        variance += (s @ contrast**2 - (s @ contrast) ** 2) / effective
        mixes.append(np.linalg.solve(rows.T, q))
    shift = mixes[1] - mixes[0]
    of_audit = sum(
        shift[i] ** 2 * contrast @ (np.diag(row) - np.outer(row, row)) @ contrast / 61
        for i, row in enumerate(rows)
    )
    total = math.sqrt(variance + of_audit)
    earlier, later = ([ClusterTotals.from_clusters(each)] for each in samples)
    result = compute_change(earlier, later, None, audit)
    difference = (result.happy, result.sad)[target]
    assert (difference.low, difference.high) == pytest.approx(
        (shift[target] - Z * total, shift[target] + Z * total)
    )
    assert difference.p_value == pytest.approx(math.erfc(abs(shift[target]) / total / math.sqrt(2)))
    called_shift = rows.T @ shift
    simulated = [
        np.linalg.solve((rng.multinomial(61, rows) / 61).T, called_shift)[target]
        for _ in range(3000)
    ]
    assert np.std(simulated) == pytest.approx(math.sqrt(of_audit), rel=0.15)


def test_a_classifier_that_tells_nothing_finds_no_change() -> None:
    earlier, later = draw_period(1), draw_period(2, (0.8, 0.1, 0.1))
    for matrix in (np.tile([[30.0, 10, 60]], (3, 1)), np.zeros((3, 3)), CARD[[1, 0, 2]]):
        happy = compute_change(earlier, later, matrix).happy
        assert (happy.low, happy.high, happy.p_value) == (-1, 1, 1)


def test_a_change_needs_faces_in_both_periods() -> None:
    nothing = [ClusterTotals.from_counts([0, 0, 0])]
    for pair in ((nothing, draw_period(1)), (draw_period(1), nothing), ([], draw_period(1))):
        with pytest.raises(ValueError, match="each period"):
            compute_change(*pair, CARD)


def test_the_intervals_of_differences_contain_the_truth() -> None:
    rng, hits, pairs = np.random.default_rng(22), np.zeros(2), 200
    for _ in range(pairs):
        local = rng.multinomial(200, ROWS).astype(float)
        earlier, later, same = (
            [ClusterTotals.from_clusters(draw_called(rng, mix))]
            for mix in ((0.6, 0.2, 1.2), (1.0, 0.2, 0.8), (0.6, 0.2, 1.2))
        )
        for i, (other, truth) in enumerate(((later, 0.2), (same, 0.0))):
            happy = compute_change(earlier, other, CARD, local).happy
            hits[i] += happy.low <= truth <= happy.high
    assert (hits >= 0.92 * pairs).all()


# --- q values ---------------------------------------------------------------------------------


def test_q_values_of_the_published_example() -> None:
    """Benjamini and Hochberg (1995), section 3.2: four of fifteen are rejected at 0.05."""
    published = [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240),
        *(0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
    ]
    assert (compute_q_values(published) <= 0.05).tolist() == [True] * 4 + [False] * 11


@given(p_values)
def test_q_values_match_their_definition(p: list[float]) -> None:
    """The least share of false ones among all changes up to some p value that is not smaller."""
    expected = [
        min(1, *(len(p) * cut / sum(each <= cut for each in p) for cut in p if cut >= value))
        for value in p
    ]
    assert compute_q_values(p) == pytest.approx(expected)


@given(p_values)
def test_q_values_are_not_smaller_than_their_p_values(p: list[float]) -> None:
    q = compute_q_values(p)
    assert (q >= np.array(p) - 1e-12).all()
    assert (q <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(q[order]) >= 0).all()


@given(p_values, st.randoms(use_true_random=False))
def test_q_values_follow_their_p_values(p: list[float], random: Any) -> None:
    order = random.sample(range(len(p)), len(p))
    assert (compute_q_values(np.array(p)[order]) == compute_q_values(p)[order]).all()


def test_no_changes_have_no_q_values() -> None:
    assert compute_q_values([]).shape == (0,)
