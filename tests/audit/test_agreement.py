"""Cohen's kappa against published values, and what counts as a disagreement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.audit.agreement import compare_raters, compute_kappa
from fer_batch.audit.labeling import Label

CELL = st.integers(0, 60)


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        # J. L. Fleiss (1981), Statistical methods for rates and proportions, chapter 13. SAS and
        # statsmodels print 0.6765, 0.5046 and 0.8484.
        ([[75, 1, 4], [5, 4, 1], [0, 0, 10]], (0.6765, 0.5046, 0.8484)),
        # Two raters who read 50 proposals.
        ([[20, 5], [10, 15]], (0.4, 0.1511, 0.6489)),
        ([[10, 0], [0, 20]], (1.0, 0.7446, 1.0)),
    ],
)
def test_kappa_has_the_published_value(
    confusion: list[list[int]], expected: tuple[float, float, float]
) -> None:
    kappa = compute_kappa(confusion)
    assert kappa is not None
    assert (kappa.kappa, kappa.low, kappa.high) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("confusion", [[[0, 0, 0]] * 3, [[9, 0, 0], [0, 0, 0], [0, 0, 0]]])
def test_kappa_without_a_choice_is_not_defined(confusion: list[list[int]]) -> None:
    assert compute_kappa(confusion) is None


@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=3, max_size=3))
def test_kappa_does_not_depend_on_who_comes_first(confusion: list[list[int]]) -> None:
    kappa = compute_kappa(confusion)
    turned = compute_kappa([list(row) for row in zip(*confusion, strict=True)])
    if kappa is None or turned is None:
        assert kappa is turned
    else:
        assert -1 <= kappa.low <= kappa.kappa <= kappa.high <= 1
        assert (kappa.low, kappa.high) == pytest.approx((turned.low, turned.high))


def test_cannot_tell_counts_as_neither_and_is_reported() -> None:
    ratings = {
        1: {"Ada": Label.HAPPY, "Bo": Label.HAPPY},
        2: {"Ada": Label.NEITHER, "Bo": Label.CANNOT_TELL},
        3: {"Ada": Label.SAD, "Bo": Label.CANNOT_TELL},
        4: {"Ada": Label.HAPPY, "Bo": Label.SAD},
        5: {"Ada": Label.SAD},
    }
    agreement = compare_raters(ratings, settled={4})
    assert agreement.raters == ("Ada", "Bo")
    assert (agreement.labeled, agreement.cannot_tell) == ((5, 4), (0, 2))
    assert agreement.confusion == ((1, 1, 0), (0, 0, 1), (0, 0, 1))
    assert (agreement.both, agreement.disputed, agreement.settled) == (4, 2, 1)
    alone = compare_raters({1: {"Ada": Label.HAPPY}}, set())
    assert (alone.raters, alone.kappa, alone.both) == (("Ada",), None, 0)
