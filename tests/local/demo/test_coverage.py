"""Coverage: each summary is paired with its truth, and hits are counted for both truths."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from fer_batch.local.demo import coverage
from fer_batch.local.demo.day import DemoFacility
from fer_batch.local.demo.visits import Mix
from fer_batch.records import CalledClass

SUNDAY = date(2026, 11, 22)
FACES = Counter({CalledClass.HAPPY: 20, CalledClass.SAD: 10, CalledClass.NEITHER: 70})
CAFE = DemoFacility("cafe", "Café", "UTC", "crops", [], FACES, Mix(0.3, 0.1))
KIOSK = replace(CAFE, facility_id="kiosk", publish_period="week")


def summary(facility_id: str, day: date, low: float | None, high: float | None) -> dict[str, Any]:
    rates = ("happy_rate", "sad_rate", "called_happy_rate", "called_sad_rate")
    return {
        "facility_id": facility_id,
        "capture_day": day,
        "first_day": day - timedelta(days=6),
        "last_day": day,
        "happy_rate": low,
        **{f"{rate}_low": low for rate in rates},
        **{f"{rate}_high": high for rate in rates},
    }


def test_intervals_are_compared_with_the_days_faces_and_with_the_shop() -> None:
    days = {SUNDAY: [CAFE], SUNDAY - timedelta(days=1): [CAFE]}
    cases = coverage.match_days(
        days,
        [
            summary("cafe", SUNDAY, 0.15, 0.25),
            summary("cafe", SUNDAY - timedelta(days=1), 0.05, 0.35),
            summary("cafe", SUNDAY - timedelta(days=2), 0.0, 1.0),  # was not drawn
            summary("other", SUNDAY, 0.0, 1.0),
        ],
    )
    happy, sad, called_happy, called_sad = coverage.measure_coverage(cases)
    assert (happy.figure, happy.intervals) == ("happy rate", 2)
    assert (happy.of_faces, happy.of_shop) == (1.0, 0.5)
    assert happy.median_width == pytest.approx(0.2)
    assert (sad.of_faces, sad.of_shop) == (0.5, 0.5)
    assert (called_happy.of_shop, called_sad.of_shop) == (0.5, 0.5)
    (problem,) = coverage.find_problems([happy, sad])
    assert problem.startswith("0.500 of the intervals of the happy rate")
    assert coverage.find_problems([replace(happy, of_shop=coverage.MIN_COVERAGE)]) == []


def test_suppressed_summaries_do_not_count() -> None:
    cases = coverage.match_days({SUNDAY: [CAFE]}, [summary("cafe", SUNDAY, None, None)])
    assert coverage.measure_coverage(cases) == []


def test_the_truth_of_a_week_is_that_of_its_published_days() -> None:
    smiles = Counter({CalledClass.HAPPY: 100})
    days = {
        SUNDAY: [CAFE, KIOSK],
        SUNDAY - timedelta(days=1): [replace(CAFE, faces=smiles), replace(KIOSK, faces=smiles)],
    }
    daily = [
        summary("cafe", SUNDAY, 0.1, 0.3),
        summary("cafe", SUNDAY - timedelta(days=1), None, None),
    ]
    weeks = [summary("cafe", SUNDAY, 0.1, 0.3), summary("kiosk", SUNDAY, 0.1, 0.3)]
    cafe, kiosk = coverage.match_periods(days, daily, weeks)
    assert cafe.faces == Mix(happy=0.2, sad=0.1)
    assert kiosk.faces == Mix(happy=0.6, sad=0.05)


def test_the_rate_of_the_shop_in_a_period_is_the_mean_of_its_days() -> None:
    """Weighted by faces: a shop whose rate fell had another rate in four weeks than in the last."""
    days = {
        SUNDAY: [CAFE],
        SUNDAY - timedelta(days=1): [
            replace(CAFE, faces=Counter({CalledClass.HAPPY: 300}), mix=Mix(0.7, 0.0))
        ],
        SUNDAY - timedelta(days=2): [replace(CAFE, faces=None)],  # closed
    }
    daily = [summary("cafe", day, 0.1, 0.3) for day in days]
    (case,) = coverage.match_periods(days, daily, [summary("cafe", SUNDAY, 0.1, 0.3)])
    assert case.shop.happy == pytest.approx((100 * 0.3 + 300 * 0.7) / 400)
    assert case.shop.sad == pytest.approx((100 * 0.1 + 300 * 0.0) / 400)


def test_the_table_names_each_figure(capsys: pytest.CaptureFixture[str]) -> None:
    cases = coverage.match_days({SUNDAY: [CAFE]}, [summary("cafe", SUNDAY, 0.1, 0.3)])
    coverage.print_coverage("Intervals of days", coverage.measure_coverage(cases))
    printed = capsys.readouterr().out
    assert "Intervals of days" in printed
    for figure in coverage.FIGURES:
        assert figure in printed


def test_the_table_of_periods_has_the_drawn_rate(capsys: pytest.CaptureFixture[str]) -> None:
    week = summary("kiosk", SUNDAY, 0.1, 0.3) | {
        "period": "week",
        "facility_name": "Pier Kiosk",
        "faces": 1234,
        "target_rate": None,
        "verdict": "inconclusive",
    }
    coverage.print_periods(coverage.match_periods({SUNDAY: [KIOSK]}, [], [week]))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "Pier Kiosk" in line]
    assert re.split(r" {2,}", row) == [
        *("week", "2026-11-22", "Pier Kiosk", "1,234"),
        *("20 %", "10 % (10 to 30)", "–", "not clear"),
    ]
