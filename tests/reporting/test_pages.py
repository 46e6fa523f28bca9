"""What a report says of a facility: which figure, the verdict, the change, and what is missing."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from fer_batch.reporting import pages
from fer_batch.satisfaction.patterns import Patterns
from tests.reporting.builders import (
    DAY,
    NO_RATE,
    build_change,
    build_facility,
    build_page,
    build_report,
    build_rows,
    build_summary,
    build_week,
)

SATURDAY = DAY - timedelta(1)
OPEN = {"verdict": "inconclusive"}


@pytest.mark.parametrize(
    ("day", "week", "status", "period"),
    [
        ({}, {}, "above", "day"),
        ({"verdict": "not satisfied"}, {}, "below", "day"),
        (OPEN, {"verdict": "not satisfied"}, "below", "week"),
        (OPEN, OPEN, "unclear", "day"),
        (NO_RATE, OPEN, "unclear", "week"),
        (
            {"verdict": "no target", "target_rate": None},
            {"verdict": "no target"},
            "no target",
            "day",
        ),
        ({"method": "raw", "verdict": "no verdict"}, NO_RATE, "no target", "day"),
        (NO_RATE, NO_RATE, "no rate", None),
    ],
)
def test_the_shortest_period_that_tells_is_shown(
    day: Any, week: Any, status: str, period: str | None
) -> None:
    page = build_page(build_summary(**day), periods=[build_week(**week)])
    assert page.status == status
    assert (page.main and page.main["period"]) == period
    assert (page.sentence == "") is (period is None)


def test_figures_are_those_of_the_newest_complete_open_day() -> None:
    """Facilities in zones where the day is not over yet show the day before."""
    late = build_page(build_summary(SATURDAY), build_summary(is_complete=False))
    assert late.as_of == SATURDAY
    closed = build_page(
        build_summary(SATURDAY),
        build_summary(images=0, faces=0, **NO_RATE),
        facility=build_facility(closed_weekdays=["sun"]),
    )
    assert (closed.as_of, closed.missing) == (SATURDAY, "")
    assert [cell.note for cell in closed.days[-2:]] == ["", "closed"]
    assert sum(cell.note == "closed" for cell in closed.days) == 4
    assert closed.spark.closed.count("M") == 4


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([build_change()], "fell"),
        ([build_change(happy_change=0.2, happy_change_low=0.1, happy_change_high=0.3)], "rose"),
        ([build_change(happy_q_value=0.06)], "none"),
        ([build_change(happy_q_value=0.06), build_change("day")], "fell"),
        ([build_change("day", capture_day=SATURDAY)], "unknown"),
        ([], "unknown"),
    ],
)
def test_a_change_is_named_only_if_it_is_hardly_chance(rows: Any, kind: str) -> None:
    page = build_page(build_summary(), periods=[build_week()], changes=rows)
    assert page.change.kind == kind
    if kind == "fell":
        assert page.change.text.startswith("fell by about 20 points against the ")
        assert "(very likely 9 to 31)" in page.change.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"images": 0, "faces": 0, **NO_RATE}, "No image arrived on Sun 29 Nov."),
        (NO_RATE | {"faces": 23}, "Too few faces or visits on Sun 29 Nov to publish"),
        (NO_RATE | {"faces": 0}, "No face was found in the 310 images of Sun 29 Nov."),
        (
            NO_RATE | {"is_complete": False, "images_pending": 12},
            "Sun 29 Nov is not complete: 12 images of 310 could not be read yet.",
        ),
        (
            NO_RATE | {"is_complete": False, "images": 0, "faces": 0},
            "Sun 29 Nov is not complete: its images have to be listed again after the day is over.",
        ),
    ],
)
def test_why_a_facility_has_no_rate(changes: Any, reason: str) -> None:
    assert build_page(build_summary(**changes)).missing.startswith(reason)
    assert bool(build_page(build_summary(**changes)).missing) is bool(reason)


def test_days_that_were_not_read_have_the_reason() -> None:
    batch = {"capture_day": DAY, "status": "no_permission", "reason": "permission ended on Friday"}
    page = build_page(build_summary(SATURDAY), batches=[batch])
    assert page.missing == "The images of Sun 29 Nov were not read: permission ended on Friday."
    assert page.days[-1].note == "not read"
    assert build_page(build_summary(SATURDAY)).missing == (
        "Not processed yet; its figures are of Sat 28 Nov."
    )
    assert build_page().missing == "No day of the last four weeks was processed."


@pytest.mark.parametrize(
    ("earlier", "periods", "missing"),
    [
        (NO_RATE, [], "Not processed yet."),
        ({"is_complete": False}, [], "Not processed yet."),
        (NO_RATE, [build_week()], "Not processed yet; its figures are of the week Mon 23 to Sun 29 "
         "Nov."),
    ],
)  # fmt: skip
def test_only_figures_that_exist_are_mentioned(earlier: Any, periods: Any, missing: str) -> None:
    assert build_page(build_summary(SATURDAY, **earlier), periods=periods).missing == missing


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"images": 0, "faces": 0}, "no image arrived"),
        ({"faces": 0}, "no face found"),
        ({"faces": 4}, "too few faces or visits"),
        ({"images": 0, "faces": 0, "is_complete": False}, "not complete"),
    ],
)
def test_the_figures_of_each_day_name_the_reason(changes: Any, note: str) -> None:
    assert build_page(build_summary(**(NO_RATE | changes))).days[-1].note == note


def test_a_facility_that_publishes_by_week_shows_its_weeks() -> None:
    days = [build_summary(DAY - timedelta(n), **NO_RATE) for n in range(28)]
    weeks = {DAY - timedelta(7 * n): build_week(happy_rate=0.3) for n in range(4)}
    page = build_page(
        *days,
        facility=build_facility(publish_period="week"),
        periods=[build_week()],
        weeks=weeks,
    )
    assert page.missing == ""
    assert page.main_period == "week Mon 23 to Sun 29 Nov"
    assert page.trend.dots.count("M") == 4
    assert page.days[-2].note == "part of its week"


def test_groups_have_totals_of_what_is_published() -> None:
    north = [
        build_rows(build_summary(), facility=build_facility(f"shop-{n}", group_name="North"))
        for n in range(3)
    ]
    small = build_rows(
        build_summary(**NO_RATE), facility=build_facility("small", group_name="North")
    )
    alone = build_rows(build_summary(), facility=build_facility("alone"))
    report = build_report(alone, *north, small)
    assert [group.name for group in report.groups] == ["North", ""]
    total = report.groups[0].day
    assert (total.figure.facilities, total.figure.faces) == (3, 900)
    assert total.figure.rate is not None
    assert total.change == ""
    assert report.groups[1].day.figure.rate is None
    assert report.groups[0].count("above") == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_version_before": "cd" * 32}, "another model version"),
        ({"images_before": 290}, "20 images arrived late"),
        ({"not_scored": {"erased": 2}, "images_before": 310}, "2 images deleted on request"),
        ({"images_pending_before": 1}, "1 image could be read by now"),
        ({"target_rate_before": 0.5}, "another target"),
        ({"audit_id": 3}, "another audit of the facility's own faces"),
        ({"reason": "re-estimated with audit 3"}, "re-estimated with audit 3"),
        ({}, "summarized again with other settings"),
    ],
)
def test_a_revision_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    summary = build_summary()
    names = (
        *("happy_rate", "verdict", "target_rate", "model_version", "audit_id"),
        *("images", "images_pending", "not_scored"),
    )
    revised = summary | {f"{name}_before": summary[name] for name in names}
    revised |= {"reason": ""}
    revised |= {"happy_rate_before_low": 0.3112, "happy_rate_before_high": 0.5533}
    revised |= {"created_at": datetime(2026, 11, 30, 3), "happy_rate_before": 0.39}  # noqa: DTZ001
    (line,) = build_page(summary, revisions=[revised | changes]).revisions
    assert line.startswith(
        "Sun 29 Nov, on Mon 30 Nov: 39 % (31 to 55) became 43 % (31 to 55).".replace(
            " % ", "\u00a0% "
        ).replace(" to ", "\u00a0to\u00a0")
    )
    assert reason in line


def test_the_heat_map_has_no_rate_of_small_cells() -> None:
    patterns = Patterns(
        date(2026, 11, 2), DAY, {0: 0.4, 5: 0.2}, {(0, 9): 0.5, (0, 17): None, (5, 9): None}
    )
    heat_map = pages.lay_out(patterns)
    assert heat_map.weekdays == ["Mon", "Sat"]
    assert heat_map.lines == [
        ("all day", [("40", 4), ("20", 2)]),
        ("9:00", [("50", 5), ("few", -1)]),
        ("17:00", [("few", -1), ("", -1)]),
    ]
    assert heat_map.days == "Mon 2 to Sun 29 Nov"


def test_a_facility_without_capture_times_has_no_heat_map() -> None:
    days = [build_summary(DAY - timedelta(n), hours={"9": [30, 10, 60, 50]}) for n in range(28)]
    assert build_page(*days).heat_map is not None
    assert build_page(*days, facility=build_facility(has_times=False)).heat_map is None
