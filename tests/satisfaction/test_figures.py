"""What is published of an estimate, its verdict, and when a published figure stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from fer_batch.satisfaction.estimator import ClusterTotals, estimate
from fer_batch.satisfaction.figures import (
    MIN_FACES,
    MIN_SESSIONS,
    PRECISION,
    RATES,
    add_totals,
    compute_figures,
    is_published,
    keep_published,
)
from tests.fixtures.tables import CARD, Tables

CONFUSION = np.array(CARD["confusions"]["PublicTest"]["plurality"]["48"], float)
NULL_RATES = dict.fromkeys(RATES)

sessions = stn.arrays(
    np.int64, st.tuples(st.integers(10, 60), st.just(3)), elements=st.integers(0, 8)
).filter(lambda called: called.sum() >= MIN_FACES)
targets = st.floats(0, 1)


def build_facility(**others: Any) -> Any:
    return Tables.build_facility("a", **others)


def cluster(called: Any, rule: str = "blocks") -> dict[str, Any]:
    return {rule: ClusterTotals.from_clusters(called).to_json()}


def spread(happy: int, sad: int, neither: int, clusters: int = 10, rule: str = "blocks") -> Any:
    """Totals of faces that are spread over the clusters as evenly as can be."""
    counts = [
        [(i + 1) * n // clusters - i * n // clusters for n in (happy, sad, neither)]
        for i in range(clusters)
    ]
    return cluster(counts, rule)


def compute(totals: Any, period: str = "day", **others: Any) -> dict[str, Any]:
    confusion = others.pop("confusion", CONFUSION)
    is_due = others.pop("is_due", True)
    return compute_figures(totals, period, build_facility(**others), confusion, is_due=is_due)


# What is published


@pytest.mark.parametrize("period", ["day", "week", "four weeks"])
@pytest.mark.parametrize(
    ("totals", "is_suppressed"),
    [
        ({}, True),
        (spread(15, 5, 9), True),
        (spread(15, 5, 10), False),
        (spread(29, 0, 0), True),
        (spread(30, 0, 0), False),
        (spread(150, 50, 100, clusters=9), True),
        (spread(150, 50, 100, clusters=9, rule="gap"), True),
        (spread(15, 5, 10, rule="gap"), False),
        # Sessions are what counts where they are known, even beside enough blocks.
        (spread(60, 20, 20, 9, "gap") | spread(60, 20, 20, 20), True),
        (spread(60, 20, 20, 40, "gap") | spread(60, 20, 20, 9), False),
    ],
)
def test_few_faces_or_sessions_are_suppressed(
    totals: Any, is_suppressed: bool, period: str
) -> None:
    figures = compute(totals, period, target_rate=0.4)
    assert (figures["method"] == figures["verdict"] == "suppressed") is is_suppressed
    if is_suppressed:
        nothing = dict.fromkeys((*RATES, *PRECISION, "faces_needed"))
        assert {name: figures[name] for name in nothing} == nothing
    else:
        assert None not in {figures[name] for name in (*RATES, *PRECISION)}
        assert is_published(figures["method"])
    assert (figures["target_rate"], figures["confidence"]) == (0.4, 0.95)


def test_a_facility_that_publishes_by_week_has_no_rate_for_a_day() -> None:
    totals = spread(150, 50, 100)
    day = compute(totals, "day", publish_period="week")
    assert (day["method"], day["verdict"], day["happy_rate"]) == ("suppressed", "suppressed", None)
    for period in ("week", "four weeks"):
        assert compute(totals, period, publish_period="week") == compute(totals, period)
        assert compute(totals, period)["method"] == "benchmark"


def test_no_rate_is_published_while_more_images_may_come() -> None:
    figures = compute(spread(150, 50, 100), target_rate=0.1, is_due=False)
    assert (figures["method"], figures["verdict"]) == ("suppressed", "pending")
    assert {name: figures[name] for name in RATES} == NULL_RATES
    # Too few faces are no promise of a rate.
    few = compute(spread(15, 5, 5), is_due=False)
    assert few["verdict"] == "suppressed"
    # A day that is never published may be what its week waits for.
    days: tuple[Any, ...] = (spread(150, 50, 100), spread(2, 1, 1), {})
    for totals in days:
        weekly = compute(totals, is_due=False, publish_period="week")
        assert (weekly["method"], weekly["verdict"]) == ("suppressed", "pending")
        assert {weekly[name] for name in RATES} == {None}
    assert compute({}, is_due=False)["verdict"] == "suppressed"


def test_figures_are_those_of_the_estimator() -> None:
    totals = spread(80, 20, 100, 40, "gap") | spread(80, 20, 100, 20)
    figures = compute(totals)
    expected = estimate(
        [ClusterTotals.from_json(totals[rule]) for rule in ("gap", "blocks")], CONFUSION
    )
    for name in ("happy", "sad", "called_happy", "called_sad"):
        rate = getattr(expected, name)
        assert figures[f"{name}_rate"] == pytest.approx(rate.rate, abs=5e-7)
        assert figures[f"{name}_rate_low"] == pytest.approx(rate.low, abs=5e-7)
        assert figures[f"{name}_rate_high"] == pytest.approx(rate.high, abs=5e-7)
    for name in PRECISION:
        assert figures[name] == pytest.approx(getattr(expected, name), abs=5e-7)
    assert (figures["sessions"], figures["session_rule"]) == (40, "gap")
    assert (figures["method"], figures["benchmark_weight"]) == ("benchmark", 1)


# Which clusters


def test_sessions_come_before_blocks_and_blocks_before_a_design_effect() -> None:
    gap, blocks = spread(80, 20, 100, 40, "gap"), spread(80, 20, 100, 10)
    for order, rule in (("time", "blocks"), ("none", "design effect")):
        both = compute(gap | blocks, key_order=order)
        assert (both["session_rule"], both["sessions"]) == ("gap", 40)
        alone = compute(blocks, key_order=order)
        assert alone["session_rule"] == rule
        assert alone["sessions"] == (10 if rule == "blocks" else None)


def test_without_an_order_the_design_effect_divides_the_faces() -> None:
    totals = spread(80, 20, 100)
    few, many = (
        compute(totals, key_order="none", design_effect=effect, target_rate=0.3)
        for effect in (1.0, 8.0)
    )
    assert (few["faces_effective"], few["design_effect"]) == (200, 1)
    assert (many["faces_effective"], many["design_effect"]) == (25, 8)
    assert many["sessions"] is many["sessions_effective"] is None
    assert many["happy_rate"] == few["happy_rate"]
    assert many["happy_rate_low"] < few["happy_rate_low"]
    assert few["happy_rate_high"] < many["happy_rate_high"]


def test_without_an_order_only_faces_are_too_few() -> None:
    assert compute(spread(20, 5, 5, clusters=3), key_order="none")["method"] == "benchmark"
    assert compute(spread(20, 5, 4, clusters=3), key_order="none")["method"] == "suppressed"


# Verdicts


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (0.0, "satisfied"),
        (0.2, "satisfied"),
        (0.4, "inconclusive"),
        (0.7, "not satisfied"),
        (1.0, "not satisfied"),
        (None, "no target"),
    ],
)
def test_verdict_follows_the_interval(target: float | None, verdict: str) -> None:
    figures = compute(spread(800, 200, 1000, clusters=200), target_rate=target)
    assert 0.2 < figures["happy_rate_low"] < 0.4 < figures["happy_rate_high"] < 0.7
    assert figures["verdict"] == verdict
    assert (figures["faces_needed"] is not None) <= (verdict == "inconclusive")


@given(sessions, targets)
def test_verdict_claims_no_more_than_the_interval(called: Any, target: float) -> None:
    figures = compute(cluster(called), target_rate=target)
    low, high = figures["happy_rate_low"], figures["happy_rate_high"]
    expected = "satisfied" if low > target else "not satisfied" if high < target else "inconclusive"
    assert figures["verdict"] == expected


@pytest.mark.parametrize("target", [None, 0.1, 0.9])
def test_a_card_without_a_confusion_matrix_gives_raw_rates_and_no_verdict(
    target: float | None,
) -> None:
    figures = compute(spread(150, 50, 100), confusion=None, target_rate=target)
    assert (figures["method"], figures["verdict"]) == ("raw", "no verdict")
    for end in ("", "_low", "_high"):
        assert figures[f"happy_rate{end}"] == figures[f"called_happy_rate{end}"]
        assert figures[f"sad_rate{end}"] == figures[f"called_sad_rate{end}"]
    assert figures["happy_rate"] == 0.5
    assert (figures["benchmark_weight"], figures["faces_needed"]) == (0, None)


@given(sessions, st.one_of(st.none(), targets), st.booleans())
def test_rates_are_whole_and_ordered(called: Any, target: float | None, is_raw: bool) -> None:
    """What the constraints of the table demand, for any day that may be published."""
    figures = compute(cluster(called), target_rate=target, confusion=None if is_raw else CONFUSION)
    for name in ("happy_rate", "sad_rate", "called_happy_rate", "called_sad_rate"):
        assert 0 <= figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"] <= 1
    total = sum(figures[f"{name}_rate"] for name in ("happy", "sad", "neither"))
    assert total == pytest.approx(1, abs=3e-6)
    faces = called.sum()
    assert figures["called_happy_rate"] == pytest.approx(called[:, 0].sum() / faces, abs=1e-6)
    assert 1 <= figures["faces_effective"] <= faces
    assert figures["faces_effective"] * figures["design_effect"] == pytest.approx(faces, rel=1e-4)


@given(sessions, st.integers(2, 6))
def test_more_of_the_same_sessions_narrow_the_interval(called: Any, times: int) -> None:
    one, many = (compute(cluster(np.tile(called, (n, 1)))) for n in (1, times))
    assert many["happy_rate"] == pytest.approx(one["happy_rate"], abs=1e-6)
    widths = [f["happy_rate_high"] - f["happy_rate_low"] for f in (one, many)]
    assert widths[1] <= widths[0] + 2e-6


# Faces that would settle it


def copy_clusters(stored: Any, times: int) -> dict[str, Any]:
    """The totals of `times` as many clusters of the same kind."""
    one = ClusterTotals.from_json(stored)
    many = ClusterTotals(one.clusters * times, one.counts * times, one.products * times)
    return many.to_json()


def needed(totals: Any, target: float, **others: Any) -> int | None:
    figures = compute(totals, target_rate=target, **others)
    assert figures["verdict"] == "inconclusive"
    count = figures["faces_needed"]
    assert count is None or isinstance(count, int)
    return count


@pytest.mark.parametrize(
    ("clusters", "target"), [(20, 0.27), (20, 0.3), (20, 0.56), (100, 0.3), (100, 0.52)]
)
def test_with_the_faces_needed_the_verdict_is_conclusive(clusters: int, target: float) -> None:
    """And with half of them it is not; the counts are those of a larger copy of the day."""
    faces = 4 * clusters
    totals = spread(int(0.4 * faces), int(0.1 * faces), faces // 2, clusters)
    count = needed(totals, target)
    assert count is not None
    assert count > faces

    def copy(times: int) -> str:
        larger = {rule: copy_clusters(stored, times) for rule, stored in totals.items()}
        return str(compute(larger, target_rate=target)["verdict"])

    times = -(-count // faces)
    assert copy(times + 1) in ("satisfied", "not satisfied")
    assert copy(max(1, times // 2)) == "inconclusive"


def test_no_number_of_faces_settles_a_target_inside_the_classifiers_error() -> None:
    totals = spread(160, 40, 200, clusters=100)
    rate = compute(totals)["happy_rate"]
    assert needed(totals, rate) is None
    assert needed(totals, rate + 0.03) is None
    assert compute(totals, target_rate=None)["faces_needed"] is None


def test_faces_needed_grow_towards_the_rate_and_with_the_design_effect() -> None:
    totals = spread(160, 40, 200, clusters=100)
    counts = [needed(totals, target, key_order="none") for target in (0.59, 0.57, 0.54)]
    assert None not in counts
    assert counts == sorted(counts, key=lambda count: count or 0)
    assert len(set(counts)) == 3


# Longer periods


@given(st.lists(sessions, min_size=1, max_size=4))
def test_totals_of_days_add_up_to_those_of_the_week(days: list[Any]) -> None:
    added = add_totals([cluster(day) | cluster(day[::-1], "gap") for day in days])
    whole = np.concatenate(days)
    assert added == cluster(whole) | cluster(whole, "gap")
    assert compute(added, "week") == compute(cluster(whole) | cluster(whole, "gap"), "week")


def test_a_day_without_sessions_leaves_the_week_with_blocks() -> None:
    timed = spread(20, 5, 5, 40, "gap") | spread(20, 5, 5, 20)
    added = add_totals([timed, spread(20, 5, 5, 10)])
    assert list(added) == ["blocks"]
    assert added["blocks"]["clusters"] == 30
    assert add_totals([]) == {}


# A published figure stays


def build_summary(totals: Any, **others: Any) -> dict[str, Any]:
    """The columns that `keep_published` compares, of a day with these totals."""
    period, version = others.pop("period", "day"), others.pop("model_version", "a" * 64)
    scored = others.pop("faces_scored", None)
    counts = next(iter(totals.values()))["counts"] if totals else [0, 0, 0]
    names = ("called_happy", "called_sad", "called_neither")
    return {
        **compute(totals, period, **others),
        **dict(zip(names, counts, strict=True)),
        "faces": sum(counts),
        "faces_scored": sum(counts) if scored is None else scored,
        "totals": totals,
        "hours": [],
        "model_version": version,
        "images": sum(counts),
        "period": period,
    }


def keep(newest: Any, summary: Any, **others: Any) -> Any:
    facility = build_facility(target_rate=summary["target_rate"], **others)
    return keep_published(newest, summary, facility, CONFUSION)


@pytest.mark.parametrize(
    ("happy", "sad", "neither", "is_kept"),
    [
        (40, 20, 40, False),  # nothing changed: the summary as it is
        (41, 20, 40, True),
        (69, 20, 40, True),
        (70, 20, 40, False),
        (50, 30, 49, True),
        (50, 30, 50, False),
        (25, 20, 55, False),  # 15 faces are called otherwise: a change of 15 + 15
        (26, 20, 54, True),
        (11, 20, 40, True),
        (10, 20, 40, False),
    ],
)
def test_a_published_figure_stays_until_enough_faces_change(
    happy: int, sad: int, neither: int, is_kept: bool
) -> None:
    newest = build_summary(spread(40, 20, 40), target_rate=0.3)
    summary = build_summary(spread(happy, sad, neither), target_rate=0.3)
    result = keep(newest, summary)
    if not is_kept:
        assert result == summary
        return
    assert {name: result[name] for name in RATES} == {name: newest[name] for name in RATES}
    for name in ("faces", "called_happy", "totals", "sessions", "faces_needed", "method"):
        assert result[name] == newest[name]
    # The numbers of images and of scored faces follow at once.
    for name in ("images", "faces_scored", "target_rate"):
        assert result[name] == summary[name]
    assert keep(result, summary) == result


@pytest.mark.parametrize(("clusters", "is_kept"), [(49, True), (50, False), (31, True)])
def test_a_published_figure_stays_until_enough_sessions_change(
    clusters: int, is_kept: bool
) -> None:
    newest = build_summary(spread(40, 20, 40, 40, "gap"))
    summary = build_summary(spread(90, 45, 90, clusters, "gap"))
    assert (keep(newest, summary)["faces"] == 100) is is_kept


def test_many_small_changes_are_measured_against_the_published_figure() -> None:
    newest = build_summary(spread(40, 20, 40))
    for happy in range(45, 70, 5):
        newest = keep(newest, build_summary(spread(happy, 20, 40)))
        assert (newest["called_happy"], newest["faces_scored"]) == (40, happy + 60)
    assert keep(newest, build_summary(spread(70, 20, 40)))["called_happy"] == 70


def test_the_verdict_of_a_kept_figure_follows_the_target() -> None:
    totals = spread(160, 40, 200, clusters=100)
    newest = build_summary(totals, target_rate=0.52)
    assert (newest["verdict"], newest["faces_needed"] is None) == ("inconclusive", False)
    more = spread(161, 40, 200, clusters=100)
    for target in (0.05, 0.525, 0.95, None, newest["happy_rate"]):
        result = keep(newest, build_summary(more, target_rate=target))
        expected = build_summary(totals, target_rate=target)
        assert result["faces"] == 400
        for name in ("verdict", "faces_needed", "target_rate", "happy_rate"):
            assert result[name] == expected[name], (target, name)


def test_a_pending_day_keeps_its_published_figure() -> None:
    newest = build_summary(spread(40, 20, 40), target_rate=0.9)
    pending = build_summary(spread(140, 20, 40), target_rate=0.9, is_due=False)
    assert pending["verdict"] == "pending"
    result = keep(newest, pending)
    assert (result["verdict"], result["faces"]) == ("not satisfied", 100)


def test_what_was_never_published_is_replaced() -> None:
    summary = build_summary(spread(40, 20, 40))
    for newest in (
        build_summary(spread(10, 5, 5)),
        build_summary(spread(40, 20, 39), is_due=False),
        {"method": "wilson", "model_version": "a" * 64},
    ):
        assert keep(newest, summary) == summary
    other = build_summary(spread(40, 20, 39), model_version="b" * 64)
    assert keep(other, summary) == summary


def test_a_day_that_loses_most_faces_is_suppressed() -> None:
    newest = build_summary(spread(40, 20, 40))
    assert keep(newest, build_summary(spread(5, 5, 5)))["method"] == "suppressed"
    assert keep(newest, build_summary({}))["method"] == "suppressed"


@given(sessions, sessions, st.sampled_from(["gap", "blocks"]))
def test_two_figures_of_a_day_differ_by_many_faces_of_many_sessions(
    first: Any, second: Any, rule: str
) -> None:
    """The difference of two published figures never reveals a few faces."""
    newest, summary = (build_summary(cluster(called, rule)) for called in (first, second))
    assume(newest["method"] == "benchmark")
    result = keep(newest, summary)
    names = ("called_happy", "called_sad", "called_neither")
    changed = sum(abs(result[name] - newest[name]) for name in names)
    assert changed == 0 or changed >= MIN_FACES
    if rule == "gap" and changed:
        assert abs(result["sessions"] - newest["sessions"]) >= MIN_SESSIONS
