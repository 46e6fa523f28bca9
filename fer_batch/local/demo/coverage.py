"""How often the published intervals contain the known truth, over many summaries.

The truth is known twice: the rates of the day's faces themselves, and those of the shop in the long
run, of which the day is a sample. An interval of 95 % must contain the second one on 95 % of the
days; the first one more often, because the day's own faces are not a sample of themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any

from fer_batch.console import print_table
from fer_batch.local.demo.day import DemoFacility, compute_rates
from fer_batch.local.demo.visits import Mix
from fer_batch.records import CalledClass
from fer_batch.reporting import formatting, wording

MIN_COVERAGE = 0.91
"""The least share of the intervals of `happy_rate` that must contain the rate of the shop."""
FIGURES = {
    "happy rate": ("happy_rate", "happy"),
    "sad rate": ("sad_rate", "sad"),
    "called happy, not corrected": ("called_happy_rate", "happy"),
    "called sad, not corrected": ("called_sad_rate", "sad"),
}
"""For each row of the table the column of a summary and the field of `Mix`."""


@dataclass(frozen=True, slots=True)
class Case:
    """A summary with the truth: the rates of its faces, and those of the shop."""

    faces: Mix
    shop: Mix
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Coverage:
    """A row of the table: how many intervals there are, which shares (0 to 1) of them contain the
    rates of the faces and of the shop, and how wide they are."""

    figure: str
    intervals: int
    of_faces: float
    of_shop: float
    median_width: float


FacilityDays = Mapping[date, Sequence[DemoFacility]]
"""The facilities of a demo with their images, by capture day."""


def match_days(days: FacilityDays, summaries: Iterable[Mapping[str, Any]]) -> list[Case]:
    """Pair the published summaries of days with the truth."""
    facilities = {
        (facility.facility_id, day): facility for day, of_day in days.items() for facility in of_day
    }
    return [
        Case(facility.true_rates, facility.mix, summary)
        for summary in summaries
        if (facility := facilities.get((summary["facility_id"], summary["capture_day"])))
        and facility.true_rates is not None
        and facility.mix is not None
        and summary["happy_rate"] is not None
    ]


def match_periods(
    days: FacilityDays,
    daily: Iterable[Mapping[str, Any]],
    periods: Iterable[Mapping[str, Any]],
) -> list[Case]:
    """Pair the published summaries of longer periods with the truth.

    A period consists of the published days; of a facility that publishes by week, of all days. The
    shop's rates in a period are the mean of those of its days, weighted by their faces.
    """
    published = {
        (summary["facility_id"], summary["capture_day"])
        for summary in daily
        if summary["happy_rate"] is not None
    }
    used: dict[tuple[str, date], tuple[Counter[CalledClass], Mix]] = {}
    for day, of_day in days.items():
        for facility in of_day:
            is_used = facility.publish_period == "week" or (facility.facility_id, day) in published
            if is_used and facility.faces and facility.mix is not None:
                used[facility.facility_id, day] = (facility.faces, facility.mix)
    cases = []
    for summary in periods:
        facility_id, first, last = (
            summary[name] for name in ("facility_id", "first_day", "last_day")
        )
        of_period = [
            used[facility_id, day]
            for number in range((last - first).days + 1)
            if (facility_id, day := first + timedelta(days=number)) in used
        ]
        if summary["happy_rate"] is not None and of_period:
            faces = sum((of_day for of_day, _ in of_period), Counter())
            cases.append(Case(compute_rates(faces), _average(of_period), summary))
    return cases


def measure_coverage(cases: Sequence[Case]) -> list[Coverage]:
    """The coverage of each figure; empty without cases."""
    return [
        _measure(figure, column, name, cases) for figure, (column, name) in FIGURES.items() if cases
    ]


def find_problems(coverages: Iterable[Coverage]) -> list[str]:
    """A message if too few intervals of the happy rate contain the rate of the shop."""
    return [
        f"{coverage.of_shop:.3f} of the intervals of the {coverage.figure} contain the rate of "
        f"the shop, expected at least {MIN_COVERAGE}"
        for coverage in coverages
        if coverage.figure == "happy rate" and coverage.of_shop < MIN_COVERAGE
    ]


def print_periods(cases: Sequence[Case]) -> None:
    """Print a table of longer periods with their true rates, in the order of the cases."""
    rows = []
    for case in cases:
        summary, target = case.summary, case.summary["target_rate"]
        rows.append(
            {
                "period": summary["period"],
                "until": summary["last_day"],
                "facility": summary["facility_name"],
                "faces": f"{summary['faces']:,}",
                "true happy": f"{formatting.format_percent(case.faces.happy)} %",
                "happy": formatting.format_rate(summary, "happy_rate"),
                "target": None if target is None else f"{formatting.format_percent(target)} %",
                "verdict": wording.name_verdict(summary),
            }
        )
    print_table("Weeks, and four weeks", rows)


def print_coverage(title: str, coverages: Sequence[Coverage]) -> None:
    """Print a table."""
    rows = [
        {
            "figure": row.figure,
            "intervals": f"{row.intervals:,}",
            "contain the faces' rate": f"{row.of_faces:.3f}",
            "contain the shop's rate": f"{row.of_shop:.3f}",
            "median width": f"{row.median_width:.2f}",
        }
        for row in coverages
    ]
    print_table(title, rows)


def _average(days: Sequence[tuple[Counter[CalledClass], Mix]]) -> Mix:
    """The mean of the rates of some days, weighted by their faces."""
    faces = sum(of_day.total() for of_day, _ in days)
    return Mix(
        sum(of_day.total() * mix.happy for of_day, mix in days) / faces,
        sum(of_day.total() * mix.sad for of_day, mix in days) / faces,
    )


def _measure(figure: str, column: str, name: str, cases: Sequence[Case]) -> Coverage:
    intervals = [
        (float(case.summary[f"{column}_low"]), float(case.summary[f"{column}_high"]))
        for case in cases
    ]

    def cover(truths: Iterable[float]) -> float:
        hits = [low <= true <= high for (low, high), true in zip(intervals, truths, strict=True)]
        return sum(hits) / len(hits)

    return Coverage(
        figure=figure,
        intervals=len(cases),
        of_faces=cover(getattr(case.faces, name) for case in cases),
        of_shop=cover(getattr(case.shop, name) for case in cases),
        median_width=median(high - low for low, high in intervals),
    )
