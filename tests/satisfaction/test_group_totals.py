"""Totals of groups: estimated once, of published figures only, or not comparable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fer_batch.satisfaction.change import compute_change
from fer_batch.satisfaction.estimator import ClusterTotals, estimate
from fer_batch.satisfaction.group_totals import (
    compare_group,
    compute_labels_needed,
    estimate_group,
)

CONFUSION = np.array([[784, 11, 84], [14, 364, 216], [93, 344, 1679]], dtype=np.float64)
CONFUSIONS: dict[str, Any] = {"a": CONFUSION, "b": CONFUSION}


def build_totals(seed: int, clusters: int = 60) -> ClusterTotals:
    rng = np.random.default_rng(seed)
    return ClusterTotals.from_clusters(rng.multinomial(5, (0.3, 0.1, 0.6), clusters))


def build_summary(seed: int, **changes: Any) -> dict[str, Any]:
    totals = build_totals(seed, changes.pop("clusters", 60))
    return {
        "method": "benchmark",
        "audit_id": None,
        "audit_labels": None,
        "model_version": "a",
        "session_rule": "gap",
        "totals": {"gap": totals.to_json()},
        "design_effect": 2.0,
        "faces": totals.faces,
        "target_rate": 0.3,
    } | changes


def test_a_total_is_the_rate_of_all_faces_together() -> None:
    total = estimate_group([build_summary(1), build_summary(2)], CONFUSIONS)
    assert (total.facilities, total.faces) == (2, 600)
    assert total.rate == estimate([build_totals(1) + build_totals(2)], CONFUSION).happy


def test_many_facilities_do_not_average_out_the_error_of_the_card() -> None:
    """The facilities share it: the interval keeps the width that it has for very many faces."""
    few, many = (
        estimate_group([build_summary(n) for n in range(count)], CONFUSIONS).rate
        for count in (2, 200)
    )
    assert few is not None
    assert many is not None
    limit = estimate([build_totals(1)], CONFUSION).happy_limit
    assert many.high - many.low > 0.9 * (limit.high - limit.low)
    assert many.high - many.low < few.high - few.low


def test_suppressed_facilities_are_not_part_of_a_total() -> None:
    """With them, a total minus the published ones would be the suppressed figure."""
    published = [build_summary(1), build_summary(2)]
    small = build_summary(3, clusters=3, method="suppressed")
    assert estimate_group([*published, small], CONFUSIONS) == estimate_group(published, CONFUSIONS)
    alone = estimate_group([published[0], small], CONFUSIONS)
    assert (alone.rate, alone.facilities) == (None, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "local"}, "not comparable: some facilities have an audit of their own"),
        ({"audit_id": 3}, "not comparable: some facilities have an audit of their own"),
        ({"model_version": "b"}, "not comparable: different model versions"),
    ],
)
def test_unlike_facilities_are_not_comparable(changes: dict[str, Any], reason: str) -> None:
    total = estimate_group([build_summary(1), build_summary(2, **changes)], CONFUSIONS)
    assert total.rate is None
    assert total.reason == reason


def test_other_clusters_count_with_the_largest_design_effect() -> None:
    unordered = build_summary(2, session_rule="design effect", design_effect=6.0)
    total = estimate_group([build_summary(1), unordered], CONFUSIONS)
    both = build_totals(1) + build_totals(2)
    assert total.rate == estimate([both], CONFUSION, design_effect=6.0).happy


def test_most_of_the_error_of_the_card_cancels_in_a_change() -> None:
    """The facilities share it, and so do the two weeks: very many faces leave none of it."""
    counts = {"gap": ClusterTotals.from_counts([300_000, 100_000, 600_000]).to_json()}
    row = build_summary(1, totals=counts, faces=1_000_000, session_rule="design effect")
    total = estimate_group([row, row], CONFUSIONS).rate
    change = compare_group([(row, row), (row, row)], CONFUSIONS)
    assert total is not None
    assert change is not None
    assert change.happy.difference == 0
    assert change.happy.high - change.happy.low < 0.1 * (total.high - total.low)


def test_a_change_of_all_faces_is_that_of_their_sums() -> None:
    pairs = [(build_summary(1), build_summary(2)), (build_summary(3), build_summary(4))]
    earlier, later = ([build_totals(a) + build_totals(b)] for a, b in ((1, 3), (2, 4)))
    change = compare_group(pairs, CONFUSIONS)
    assert change is not None
    assert (change.facilities, change.happy) == (
        2,
        compute_change(earlier, later, CONFUSION).happy,
    )


def test_only_facilities_that_published_both_periods_are_compared() -> None:
    """Otherwise a facility that is new or suppressed would look like a change of the others."""
    pairs = [(build_summary(n), build_summary(n + 9)) for n in range(2)]
    hidden = build_summary(30, method="suppressed")
    for pair in ((hidden, build_summary(31)), (build_summary(31), hidden)):
        assert compare_group([*pairs, pair], CONFUSIONS) == compare_group(pairs, CONFUSIONS)
        assert compare_group([pairs[0], pair], CONFUSIONS) is None
    other = build_summary(1, model_version="b")
    assert compare_group([*pairs, (build_summary(0), other)], CONFUSIONS) is None


def test_a_change_of_other_clusters_counts_with_the_largest_design_effect() -> None:
    unordered = build_summary(2, session_rule="design effect", design_effect=6.0)
    change = compare_group([(build_summary(1), unordered)] * 2, CONFUSIONS)
    assert change is not None
    earlier, later = ([ClusterTotals.from_counts(2 * build_totals(n).counts)] for n in (1, 2))
    assert change.happy == compute_change(earlier, later, CONFUSION, design_effect=6.0).happy


def test_labels_that_would_settle_a_verdict() -> None:
    """A rate that is far enough from the target for an audit, but not for the card alone."""
    counts = ClusterTotals.from_counts([3300, 1570, 5130]).to_json()
    summary = build_summary(1, totals={"gap": counts}, design_effect=1.5, faces=10_000)
    happy = estimate([ClusterTotals.from_json(counts)], CONFUSION, design_effect=1.5).happy
    near, far = happy.rate - 0.6 * (happy.rate - happy.low), happy.rate - 0.001
    assert compute_labels_needed(summary | {"target_rate": near}, CONFUSION) in (200, 400)
    assert compute_labels_needed(summary | {"target_rate": far}, CONFUSION) is None
    assert compute_labels_needed(summary | {"target_rate": None}, CONFUSION) is None
