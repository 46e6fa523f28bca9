"""The difference of the happy rates of two facilities that have an audit each.

Without audits the rates of two facilities are not comparable: both are corrected with the
benchmark, and how much a facility differs from it is not known. With an audit each, the two
estimates share no error, unlike two periods of one facility (change.py). Arithmetic only.
"""

from __future__ import annotations

import math

from fer_batch.satisfaction.change import Difference
from fer_batch.satisfaction.estimator import Rate
from fer_batch.satisfaction.intervals import Z


def compute_difference(one: Rate, other: Rate) -> Difference:
    """The rate of `one` minus that of `other`, which must be independent of each other.

    The ends of the interval combine the distances from each rate to the ends of its own interval:
    G. Y. Zou and A. Donner (2008), Construction of confidence limits about effect measures: A
    general approach, Statistics in Medicine 27, 1693-1702. So it stays asymmetric where they are.
    """
    difference = one.rate - other.rate
    below = math.hypot(one.rate - one.low, other.high - other.rate)
    above = math.hypot(one.high - one.rate, other.rate - other.low)
    toward_zero = below if difference > 0 else above
    p_value = 1.0
    if difference and toward_zero:
        p_value = math.erfc(abs(difference) / toward_zero * Z / math.sqrt(2))
    elif difference:
        p_value = 0.0
    return Difference(
        difference, max(-1.0, difference - below), min(1.0, difference + above), p_value
    )
