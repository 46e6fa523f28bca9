"""The corrected rates of a period and their intervals."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from fer_batch.satisfaction.estimator import (
    BENCHMARK_FACES,
    ClusterTotals,
    Rate,
    cap_rows,
    estimate,
    project_to_simplex,
)
from fer_batch.satisfaction.intervals import compute_wilson_interval

CARD = np.array([[824, 5, 70], [6, 237, 169], [50, 122, 2106]], float)
Z = 1.959963984540054

periods = (
    stn.arrays(np.int64, st.tuples(st.integers(1, 10), st.just(3)), elements=st.integers(0, 9))
    .map(lambda called: called[called.sum(axis=1) > 0])
    .filter(len)
)
matrices = stn.arrays(np.float64, (3, 3), elements=st.integers(0, 800).map(float))


def draw_visits(
    seed: int,
    visits: int = 60,
    faces: int = 5,
    correlation: float = 0.5,
    mix: Any = (0.3, 0.1, 0.6),
) -> Any:
    """[visits, 3] faces of each class, more alike within a visit the larger the correlation."""
    rng = np.random.default_rng(seed)
    mixes = rng.dirichlet(np.array(mix) * (1 - correlation) / correlation, visits)
    return rng.multinomial(faces, mixes)


def call(true: Any, rows: Any, seed: int) -> Any:
    """[visits, 3] called classes of the true ones, by the probabilities `rows` [3, 3]."""
    return np.random.default_rng((seed, 1)).multinomial(true, rows).sum(axis=1)


def width(rate: Rate) -> float:
    return rate.high - rate.low


# --- totals over clusters ---------------------------------------------------------------------


@settings(max_examples=40)
@given(periods, periods)
def test_totals_add_up(first: Any, second: Any) -> None:
    total = ClusterTotals.from_clusters(first) + ClusterTotals.from_clusters(second)
    together = ClusterTotals.from_clusters(np.concatenate([first, second]))
    assert total.to_json() == together.to_json()
    assert total.faces == first.sum() + second.sum()


@settings(max_examples=40)
@given(periods, st.randoms(use_true_random=False))
def test_the_order_of_clusters_changes_nothing(called: Any, random: Any) -> None:
    shuffled = called[random.sample(range(len(called)), len(called))]
    results = [estimate([ClusterTotals.from_clusters(each)], CARD) for each in (called, shuffled)]
    assert results[0] == results[1]


@settings(max_examples=40)
@given(periods)
def test_totals_survive_json(called: Any) -> None:
    totals = ClusterTotals.from_clusters(called)
    stored = ClusterTotals.from_json(json.loads(json.dumps(totals.to_json())))
    assert estimate([stored], CARD) == estimate([totals], CARD)


@settings(max_examples=40)
@given(periods, st.integers(2, 5))
def test_copies_of_faces_within_their_clusters_tell_nothing_new(called: Any, times: int) -> None:
    one, many = (ClusterTotals.from_clusters(each) for each in (called, called * times))
    assert many.covariance == pytest.approx(one.covariance, abs=1e-12)
    assert many.clusters_effective == pytest.approx(one.clusters_effective)


@settings(max_examples=40)
@given(periods.filter(lambda called: len(called) > 1), st.integers(2, 5))
def test_copies_of_clusters_divide_the_covariance(called: Any, times: int) -> None:
    clusters = len(called)
    one = ClusterTotals.from_clusters(called)
    many = ClusterTotals.from_clusters(np.tile(called, (times, 1)))
    ratio = (clusters - 1) / (times * clusters - 1)
    assert many.covariance == pytest.approx(one.covariance * ratio, abs=1e-12)
    assert many.clusters_effective == pytest.approx(times * one.clusters_effective)


@pytest.mark.parametrize("visits", [20, 60, 400])
@pytest.mark.parametrize("seed", range(5))
def test_the_linearized_covariance_agrees_with_the_jackknife(visits: int, seed: int) -> None:
    sizes = 3 + np.random.default_rng(seed).integers(0, 5, visits)
    called = np.concatenate([draw_visits(1000 * seed + i, 1, n) for i, n in enumerate(sizes)])
    faces = called.sum()
    without = (called.sum(axis=0) - called) / (faces - called.sum(axis=1))[:, None]
    deviations = without - without.mean(axis=0)
    jackknife = (visits - 1) / visits * deviations.T @ deviations
    linearized = ClusterTotals.from_clusters(called).covariance
    assert np.sqrt(linearized.diagonal()) == pytest.approx(np.sqrt(jackknife.diagonal()), rel=0.02)


@settings(max_examples=40)
@given(periods)
def test_effective_faces_lie_between_one_and_the_faces(called: Any) -> None:
    totals = ClusterTotals.from_clusters(called)
    assert 1 <= totals.faces_effective <= totals.faces


def test_faces_that_agree_within_each_visit_count_as_one_face_a_visit() -> None:
    true = np.random.default_rng(1).multinomial(1, [0.3, 0.2, 0.5], 400)
    totals = ClusterTotals.from_clusters(true * 6)
    assert totals.faces_effective == pytest.approx(400, rel=0.15)


def test_independent_faces_count_almost_fully() -> None:
    true = np.random.default_rng(1).multinomial(5, [0.3, 0.2, 0.5], 400)
    assert ClusterTotals.from_clusters(true).faces_effective > 0.8 * 2000


# --- estimates --------------------------------------------------------------------------------


@settings(max_examples=40)
@given(periods, st.none() | matrices, st.none() | matrices)
def test_every_input_gives_rates_within_their_intervals(
    called: Any, confusion: Any, local: Any
) -> None:
    clusterings = [ClusterTotals.from_clusters(called)]
    result = estimate(clusterings, confusion, local)
    for rate in (result.happy, result.sad, result.called_happy, result.called_sad):
        assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert result.happy.rate + result.sad.rate + result.neither_rate == pytest.approx(1)
    assert 0 <= result.neither_rate <= 1
    assert 1 <= result.faces_effective <= result.faces
    assert result.faces_effective * result.design_effect == pytest.approx(result.faces)
    assert 0 <= result.benchmark_weight <= 1
    assert estimate(clusterings, confusion, local) == result


@settings(max_examples=40)
@given(periods)
def test_without_a_matrix_nothing_is_corrected(called: Any) -> None:
    result = estimate([ClusterTotals.from_clusters(called)], None)
    assert (result.method, result.benchmark_weight) == ("raw", 0)
    assert (result.happy, result.sad) == (result.called_happy, result.called_sad)
    assert result.happy.rate == called.sum(axis=0)[0] / called.sum()
    happy = result.happy.rate * result.faces_effective
    low, high = compute_wilson_interval(happy, result.faces_effective)
    assert (result.happy.low, result.happy.high) == pytest.approx((float(low), float(high)))


@settings(max_examples=40)
@given(periods)
def test_a_perfect_classifier_needs_no_correction(called: Any) -> None:
    totals = ClusterTotals.from_clusters(called)
    result = estimate([totals], np.eye(3) * 600)
    assert [result.happy.rate, result.sad.rate, result.neither_rate] == pytest.approx(totals.shares)


def test_a_perfect_classifier_known_exactly_gives_the_uncorrected_interval() -> None:
    totals = [ClusterTotals.from_clusters(draw_visits(1))]
    result = estimate(totals, None, np.eye(3) * 1e9)
    for rate, called in ((result.happy, result.called_happy), (result.sad, result.called_sad)):
        assert (rate.low, rate.high) == pytest.approx((called.low, called.high), abs=0.01)


@given(stn.arrays(np.float64, 3, elements=st.integers(1, 100).map(float)))
def test_the_true_rates_are_found_in_exact_shares(mix: Any) -> None:
    mix = mix / mix.sum()
    called = mix @ (CARD / CARD.sum(axis=1, keepdims=True))
    result = estimate([ClusterTotals.from_counts(called * 1e6)], CARD, design_effect=1)
    found = [result.happy.rate, result.sad.rate, result.neither_rate]
    assert found == pytest.approx(mix, abs=1e-4)


def estimate_independently(called: Any, audit: Any, target: int) -> tuple[float, float]:
    """The interval as the publications state it, from single clusters."""
    from scipy.special import betaincinv

    sizes, n, clusters = called.sum(axis=1), called.sum(), len(called)
    q = called.sum(axis=0) / n
    residuals = called - np.outer(sizes, q)
    covariance = clusters / (clusters - 1) * residuals.T @ residuals / n**2
    independent = (np.diag(q) - np.outer(q, q)) / n
    # Generalized design effects, of two of the three classes: the third follows from them.
    rao_scott = np.linalg.eigvals(np.linalg.solve(independent[:2, :2], covariance[:2, :2])).max()
    degrees = n**2 / (sizes**2).sum() - 1
    t = math.sqrt(degrees * (1 / betaincinv(degrees / 2, 0.5, 0.05) - 1))  # Student's t, 97.5 %
    effective = n / (max(1, rao_scott) * t**2 / Z**2)
    mix = np.linalg.solve((audit / audit.sum(axis=1, keepdims=True)).T, q)
    assert (mix > 0.001).all()  # no projection, no least weight
    others = [i for i in range(3) if i != target]
    # Lang and Reiczigel: one success and one failure more in sensitivity and specificity.
    positives = audit[target].sum() + 2
    se = (audit[target, target] + 1) / positives
    negatives = [audit[i].sum() + 2 for i in others]
    sp_each = [1 - (audit[i, target] + 1) / n_i for i, n_i in zip(others, negatives, strict=True)]
    share = mix[others] / mix[others].sum()
    sp = share @ sp_each
    var_sp = sum(
        w**2 * s * (1 - s) / n_i for w, s, n_i in zip(share, sp_each, negatives, strict=True)
    )
    p = (q[target] * effective + Z**2 / 2) / (effective + Z**2)
    var_p, var_se = p * (1 - p) / (effective + Z**2), se * (1 - se) / positives
    tp = (p + sp - 1) / (se + sp - 1)
    dt = 2 * Z**2 * (tp * var_se - (1 - tp) * var_sp)
    half = Z * math.sqrt(var_p + tp**2 * var_se + (1 - tp) ** 2 * var_sp) / (se + sp - 1)
    # Fieller: the true shares that are not rejected, found on a grid instead of by a formula.
    grid = np.linspace(0, 1, 1_000_001)
    deviations = (p - grid * se - (1 - grid) * (1 - sp)) ** 2
    kept = grid[deviations <= Z**2 * (var_p + grid**2 * var_se + (1 - grid) ** 2 * var_sp)]
    return max(0, min(tp + dt - half, kept[0])), min(1, max(tp + dt + half, kept[-1]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "local", [None, [[60, 4, 16], [2, 20, 10], [4, 9, 75]], [[60, 4, 16], [1, 4, 8], [4, 9, 75]]]
)
def test_intervals_match_the_publications(seed: int, local: Any) -> None:
    true = draw_visits(seed, mix=(0.3, 0.2, 0.5))
    called = call(true, CARD / CARD.sum(axis=1, keepdims=True), seed)
    audit = CARD * 25 / CARD.sum(axis=1, keepdims=True) if local is None else np.array(local)
    result = estimate([ClusterTotals.from_clusters(called)], CARD, local)
    assert result.method == ("benchmark" if local is None else "local")
    for target, rate in enumerate((result.happy, result.sad)):
        expected = estimate_independently(called, audit, target)
        assert (rate.low, rate.high) == pytest.approx(expected, abs=2e-6)


def test_known_figures_stay() -> None:
    """30 visits of 10 faces, of which 26 % are called happy and 16 % sad."""
    called = np.tile([[8, 0, 2], [0, 4, 6], [1, 0, 9], [2, 2, 6], [2, 2, 6]], (6, 1))
    result = estimate([ClusterTotals.from_clusters(called)], CARD)
    corrected = [*dataclasses.astuple(result.happy), *dataclasses.astuple(result.sad)]
    assert corrected == pytest.approx(
        [0.267978, 0.116244, 0.411593, 0.228692, 0, 0.486625], abs=1e-6
    )
    counted = [*dataclasses.astuple(result.called_happy), *dataclasses.astuple(result.called_sad)]
    assert counted == pytest.approx([0.26, 0.168174, 0.379113, 0.16, 0.089808, 0.268849], abs=1e-6)
    assert result.neither_rate == pytest.approx(0.503330, abs=1e-6)
    assert result.faces_effective == pytest.approx(63.732624)
    assert (result.sessions, result.sessions_effective) == (30, 30)


def test_the_card_counts_as_few_faces_of_each_class() -> None:
    totals = [ClusterTotals.from_clusters(draw_visits(1))]
    once, often = (estimate(totals, CARD * times).happy for times in (1, 100))
    assert dataclasses.astuple(once) == pytest.approx(dataclasses.astuple(often))
    assert cap_rows(CARD, BENCHMARK_FACES).sum(axis=1) == pytest.approx([25, 25, 25])
    few = np.array([[8, 0, 0], [0, 4, 0], [0, 0, 0]], float)
    assert (cap_rows(few, BENCHMARK_FACES) == few).all()


def test_an_audited_face_replaces_two_of_the_card() -> None:
    totals = [ClusterTotals.from_clusters(draw_visits(1))]
    audited = np.array([[30, 0, 10], [2, 4, 4], [0, 0, 0]], float)
    table = np.array(
        [audited[0], audited[1] + CARD[1] * 5 / CARD[1].sum(), CARD[2] * 25 / CARD[2].sum()]
    )
    result = estimate(totals, CARD, audited)
    filled = estimate(totals, None, table)
    assert dataclasses.astuple(result.happy) == pytest.approx(dataclasses.astuple(filled.happy))
    assert result.method == filled.method == "local"
    assert result.benchmark_weight == pytest.approx(30 / 80)
    assert filled.benchmark_weight == 0


def test_audited_faces_narrow_the_interval() -> None:
    totals = [ClusterTotals.from_clusters(draw_visits(1, visits=400))]
    results = [estimate(totals, CARD, audited) for audited in (None, CARD * 0.1, CARD * 0.5)]
    widths = [width(result.happy) for result in results]
    assert widths == sorted(widths, reverse=True)
    assert [result.benchmark_weight for result in results] == [1, 0, 0]


def test_more_visits_narrow_the_interval() -> None:
    called = draw_visits(3)
    few, many = (
        estimate([ClusterTotals.from_clusters(np.tile(called, (times, 1)))], CARD)
        for times in (1, 4)
    )
    for narrow, wide in ((many.happy, few.happy), (many.sad, few.sad)):
        assert narrow.rate == pytest.approx(wide.rate)
        assert width(narrow) < width(wide)
    assert width(many.called_happy) < 0.6 * width(few.called_happy)


@settings(max_examples=40)
@given(periods)
def test_the_clustering_with_fewer_effective_faces_counts(called: Any) -> None:
    half = -(-len(called) // 2)
    pairs = np.array([called[i::half].sum(axis=0) for i in range(half)])
    sessions, blocks = ClusterTotals.from_clusters(called), ClusterTotals.from_clusters(pairs)
    alone = [estimate([each], CARD) for each in (sessions, blocks)]
    both = estimate([sessions, blocks], CARD)
    assert both.faces_effective == min(each.faces_effective for each in alone)
    assert both.sessions == len(called)
    assert width(both.happy) == pytest.approx(max(width(each.happy) for each in alone))


def test_a_given_design_effect_replaces_the_clusters() -> None:
    called = draw_visits(2)
    counts = ClusterTotals.from_counts(called.sum(axis=0))
    result = estimate([counts], CARD, design_effect=6)
    assert (result.faces, result.faces_effective, result.design_effect) == (300, 50, 6)
    assert result.sessions is None
    assert result.sessions_effective is None
    assert estimate([ClusterTotals.from_clusters(called)], CARD, design_effect=6) == result
    independent = estimate([counts], CARD, design_effect=1)
    assert width(independent.happy) < width(result.happy)


def test_a_rate_without_faces_or_clusters_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one face"):
        estimate([ClusterTotals.from_counts([0, 0, 0])], CARD, design_effect=6)
    with pytest.raises(ValueError, match="at least one face"):
        estimate([], CARD)
    with pytest.raises(ValueError, match="design effect"):
        estimate([ClusterTotals.from_counts([10, 10, 10])], CARD)


def test_one_cluster_says_almost_nothing() -> None:
    result = estimate([ClusterTotals.from_clusters([[200, 40, 60]])], CARD)
    assert result.faces_effective == 1
    assert width(result.happy) > 0.8
    assert width(result.called_happy) > 0.7


@pytest.mark.parametrize("label", range(3))
def test_faces_of_one_class_count_as_one_a_session(label: int) -> None:
    called = np.zeros((40, 3), int)
    called[:, label] = 10
    result = estimate([ClusterTotals.from_clusters(called)], CARD)
    assert result.faces_effective == pytest.approx(40)
    assert width(result.happy) > 0.05


def test_a_classifier_that_tells_nothing_leaves_everything_open() -> None:
    totals = [ClusterTotals.from_clusters(draw_visits(1))]
    same_rows = np.tile([[30.0, 10, 60]], (3, 1))
    swapped = CARD[[1, 0, 2]]
    for matrix in (same_rows, swapped, np.zeros((3, 3))):
        result = estimate(totals, matrix)
        assert (result.happy.low, result.happy.high) == (0, 1)
        assert (result.sad.low, result.sad.high) == (0, 1)


@given(stn.arrays(np.float64, 3, elements=st.integers(-300, 300).map(lambda i: i / 100)))
def test_the_projection_is_the_nearest_mix(point: Any) -> None:
    nearest = project_to_simplex(point)
    assert (nearest >= 0).all()
    assert nearest.sum() == pytest.approx(1)
    corners = [np.eye(3)[i] for i in range(3)]
    for first, second in itertools.product([*corners, np.full(3, 1 / 3)], repeat=2):
        other = (first + second) / 2
        assert np.linalg.norm(point - nearest) <= np.linalg.norm(point - other) + 1e-9


def test_coverage_needs_the_correction_and_the_sessions() -> None:
    """The truth is in the intervals of almost all days, but not without one of the two."""
    rng, mix, rows = (
        np.random.default_rng(22),
        np.array([0.6, 0.1, 0.3]),
        CARD / CARD.sum(1)[:, None],
    )
    hits, days = np.zeros(4), 300
    for _ in range(days):
        true = rng.multinomial(6, rng.dirichlet(mix * 0.4 / 0.6, 300))
        local = rng.multinomial(600, rows).astype(float)
        totals = [ClusterTotals.from_clusters(rng.multinomial(true, rows).sum(axis=1))]
        result = estimate(totals, None, local)
        independent = estimate(totals, None, local, design_effect=1)
        for i, (rate, truth) in enumerate(
            (
                (result.happy, 0.6),
                (result.sad, 0.1),
                (result.called_happy, 0.6),
                (independent.happy, 0.6),
            )
        ):
            hits[i] += rate.low <= truth <= rate.high
    corrected_happy, corrected_sad, uncorrected, without_sessions = hits / days
    assert corrected_happy >= 0.92
    assert corrected_sad >= 0.92
    assert uncorrected < 0.8
    assert without_sessions < 0.8


def test_an_estimate_takes_less_than_three_milliseconds() -> None:
    totals = [ClusterTotals.from_clusters(draw_visits(1, visits=1800))] * 2
    durations = []
    for _ in range(20):
        before = time.process_time()
        estimate(totals, CARD)
        durations.append(time.process_time() - before)
    assert min(durations) < 0.003


def test_scipy_is_imported_when_it_is_needed() -> None:
    program = "import sys, fer_batch.satisfaction.estimator; sys.exit('scipy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
