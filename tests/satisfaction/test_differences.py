"""The difference of two facilities: an interval of its own, from two independent estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.satisfaction.differences import compute_difference
from fer_batch.satisfaction.estimator import ClusterTotals, Rate, estimate

ENDS = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted)


@given(ENDS, ENDS)
def test_the_interval_holds_the_difference_and_is_wider_than_both(
    one: list[float], other: list[float]
) -> None:
    first, second = (Rate(rate, low, high) for low, rate, high in (one, other))
    found, reverse = compute_difference(first, second), compute_difference(second, first)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((-reverse.high, -reverse.low))
    assert found.p_value == pytest.approx(reverse.p_value)
    assert 0 <= found.p_value <= 1
    if found.low > -1 and found.high < 1:
        for rate in (first, second):
            assert found.high - found.low >= rate.high - rate.low - 1e-12
    # The p value and the interval agree whether there is a difference.
    if abs(found.p_value - 0.05) > 1e-3:
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_two_audited_facilities_with_other_errors() -> None:
    """The CNN misses every fourth happy face in one of them; the truths are 30 % and 15 % more."""
    rng, card = np.random.default_rng(1), np.array([[816, 5, 59], [5, 233, 157], [59, 126, 2129]])
    fits = card / card.sum(axis=1, keepdims=True)
    weak = np.array([[0.7, 0.05, 0.25], *fits[1:]])

    def draw(rows: Any, happy: float) -> Rate:
        called = rng.multinomial(5, np.array([happy, 0.05, 0.95 - happy]) @ rows, 400)
        local = [rng.multinomial(n, row) for n, row in zip((60, 15, 125), rows, strict=True)]
        return estimate([ClusterTotals.from_clusters(called)], card, local).happy

    for truth in (0.0, 0.15):
        found = [compute_difference(draw(fits, 0.3 + truth), draw(weak, 0.3)) for _ in range(100)]
        assert sum(each.low <= truth <= each.high for each in found) >= 92
        is_seen = sum(each.p_value <= 0.05 for each in found)
        assert is_seen <= 8 if truth == 0 else is_seen >= 70
