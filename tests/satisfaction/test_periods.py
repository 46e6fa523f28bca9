"""Weeks and four weeks: when they have a summary, and of which days it is made."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fer_batch.database import results
from fer_batch.deletion import erasure
from fer_batch.records import Batch
from fer_batch.satisfaction import periods
from tests.fixtures.servers import SECRET
from tests.fixtures.tables import VERSION
from tests.satisfaction.conftest import CALLED, MONDAY, Calendar, draw_clusters, list_days

SUNDAY = MONDAY + timedelta(6)
OTHER = "b" * 64


def add_up(rows: Any, name: str) -> int:
    return sum(row[name] for row in rows)


def fill_days(calendar: Calendar, days: list[date], faces: int = 100, **others: Any) -> Any:
    return [
        calendar.write_day(draw_clusters(n, faces), day, **others) for n, day in enumerate(days)
    ]


@pytest.mark.parametrize(
    ("day", "end"),
    [
        (date(2026, 3, 1), date(2026, 3, 1)),  # a Sunday
        (date(2026, 3, 2), date(2026, 3, 8)),
        (date(2026, 3, 8), date(2026, 3, 8)),
        (date(2026, 12, 31), date(2027, 1, 3)),  # ISO week 53
    ],
)
def test_a_week_ends_on_sunday(day: date, end: date) -> None:
    assert periods.find_week_end(day) == end
    assert end.isocalendar()[:2] == day.isocalendar()[:2]


# When


def test_a_week_has_a_summary_after_its_sunday(calendar: Calendar) -> None:
    days = list_days(7)
    for day in days[:6]:
        calendar.write_day(draw_clusters(1, 100), day)
        assert calendar.summarize(day) == []
    calendar.write_day(draw_clusters(1, 100), days[6])
    (week,) = calendar.summarize(days[6])
    assert (week["period"], week["first_day"], week["capture_day"]) == ("week", MONDAY, SUNDAY)
    assert (week["revision"], week["is_complete"]) == (1, True)
    assert calendar.summarize(*days) == [week]


def test_a_week_without_a_sunday_has_a_summary_after_a_later_day(calendar: Calendar) -> None:
    days = list_days(5)
    fill_days(calendar, days)
    assert calendar.summarize(*days) == []
    calendar.write_day(draw_clusters(1, 100), MONDAY + timedelta(7))
    (week,) = calendar.summarize(days[-1])
    assert (week["capture_day"], week["faces"], week["is_complete"]) == (SUNDAY, 500, False)


def test_a_week_that_is_not_over_has_no_summary(calendar: Calendar) -> None:
    """Not even if a day after it was summarized by mistake."""
    # Not today: if it is a Sunday, its week is over when midnight passes.
    tomorrow = datetime.now(ZoneInfo("Europe/Berlin")).date() + timedelta(1)
    for day in (tomorrow, tomorrow + timedelta(7)):
        calendar.write_day(draw_clusters(1, 100), day)
    assert calendar.summarize(tomorrow) == []


def test_a_week_of_which_no_day_is_known_has_no_summary(calendar: Calendar) -> None:
    calendar.write_day(draw_clusters(1, 100), MONDAY + timedelta(7))
    assert calendar.summarize(MONDAY) == []


def test_four_weeks_have_a_summary_once_each_week_has_one(calendar: Calendar) -> None:
    days = list_days(35)
    fill_days(calendar, days)
    calendar.summarize(*days[:21])
    assert calendar.read_weeks(period="four weeks") == []
    calendar.summarize(*days[21:28])
    (first,) = calendar.read_weeks(period="four weeks")
    assert (first["first_day"], first["last_day"]) == (MONDAY, MONDAY + timedelta(27))
    calendar.summarize(*days[28:])
    both = calendar.read_weeks(period="four weeks")
    assert [row["last_day"] for row in both] == [MONDAY + timedelta(n) for n in (27, 34)]
    weeks = calendar.read_weeks()
    assert len(weeks) == 5
    for begin, row in enumerate(both):
        assert row["faces"] == add_up(weeks[begin : begin + 4], "faces") == 2800
        assert row["sessions"] == 28 * 20
        assert row["is_complete"]
        width, of_week = (r["happy_rate_high"] - r["happy_rate_low"] for r in (row, weeks[begin]))
        assert width < of_week


# Of which days


def test_a_week_is_made_of_its_published_days(calendar: Calendar) -> None:
    faces = [100, 20, 29, 30, 0, 100, 100]
    for n, (day, number) in enumerate(zip(list_days(7), faces, strict=True)):
        calendar.write_day(draw_clusters(n, number), day, is_due=n != 5)
    (week,) = calendar.summarize(SUNDAY)
    days = calendar.read("satisfaction_daily")
    assert [day["method"] for day in days] == [
        *("benchmark", "suppressed", "suppressed", "benchmark"),
        *("suppressed", "suppressed", "benchmark"),
    ]
    used = [calendar.tables.query(
        "SELECT * FROM fer.satisfaction_summary WHERE capture_day = :day", day=day["capture_day"]
    )[0] for day in days if day["method"] == "benchmark"]  # fmt: skip
    for name in ("faces", "sessions", *CALLED):
        assert week[name] == sum(row._mapping[name] for row in used)
    # Numbers of images are those of all days.
    assert week["faces_scored"] == week["images"] == sum(faces)
    assert not week["is_complete"]
    # Once the pending day is published, the week has it too.
    calendar.write_day(draw_clusters(5, 100), days[5]["capture_day"])
    (revised,) = calendar.summarize(days[5]["capture_day"])
    assert (revised["revision"], revised["faces"]) == (2, week["faces"] + 100)


def test_a_week_of_suppressed_days_is_suppressed(calendar: Calendar) -> None:
    """Although together they have enough faces."""
    fill_days(calendar, list_days(7), faces=29)
    (week,) = calendar.summarize(SUNDAY)
    assert (week["method"], week["happy_rate"], week["faces"]) == ("suppressed", None, 0)
    assert (week["faces_scored"], week["totals"]) == (203, {})


def test_a_facility_may_publish_by_week_only(calendar: Calendar) -> None:
    calendar.tables.add("kiosk", publish_period="week", target_rate=0.05)
    days = [MONDAY + timedelta(n) for n in range(28)]
    for n, day in enumerate(days):
        calendar.write_day(draw_clusters(n, 3 * (n % 7), clusters=5), day, "kiosk")
    calendar.summarize(*(("kiosk", day) for day in days))
    assert {day["happy_rate"] for day in calendar.read("satisfaction_daily", "kiosk")} == {None}
    weeks = calendar.read_weeks("kiosk")
    assert [(week["faces"], week["method"]) for week in weeks] == [(63, "benchmark")] * 4
    (month,) = calendar.read_weeks("kiosk", "four weeks")
    assert (month["faces"], month["method"]) == (252, "benchmark")


def test_the_week_of_a_weekly_facility_waits_for_its_days(calendar: Calendar) -> None:
    """It would stay without the late images, because they are few."""
    calendar.tables.add("kiosk", publish_period="week")
    days = list_days(7)
    for n, day in enumerate(days):
        calendar.write_day(draw_clusters(n, 10, clusters=5), day, "kiosk", is_due=n != 6)
    (week,) = calendar.summarize(("kiosk", SUNDAY))
    assert (week["method"], week["verdict"], week["faces"]) == ("suppressed", "pending", 70)
    calendar.write_day(draw_clusters(6, 15, clusters=5), SUNDAY, "kiosk")
    (week,) = calendar.summarize(("kiosk", SUNDAY))
    assert (week["method"], week["verdict"], week["faces"]) == ("benchmark", "no target", 75)


@pytest.mark.parametrize("order", [range(7), reversed(range(7)), (5, 0, 6, 2, 3, 1, 4)])
def test_a_backfilled_week_of_a_weekly_facility_has_all_of_its_days(
    calendar: Calendar, order: Iterable[int]
) -> None:
    """The few faces of a day that comes later would not change a published figure."""
    calendar.tables.add("kiosk", publish_period="week")
    days = list_days(7)
    calendar.write_day(draw_clusters(7, 20, clusters=5), SUNDAY + timedelta(1), "kiosk")
    for number in order:
        calendar.write_day(draw_clusters(number, 20, clusters=5), days[number], "kiosk")
        day_before = days[number] - timedelta(1)
        (week,) = calendar.summarize(("kiosk", days[number]), due_until=day_before)
        assert week["happy_rate"] is None or week["faces"] == 140
    assert (week["faces"], week["method"], week["is_complete"]) == (140, "benchmark", True)


def test_a_weekly_facility_waits_for_a_missing_day_until_no_run_looks_at_it_again(
    calendar: Calendar,
) -> None:
    calendar.tables.add("kiosk", publish_period="week")
    days = list_days(8)
    for n in (0, 1, 2, 3, 4, 6, 7):
        calendar.write_day(draw_clusters(n, 20, clusters=5), days[n], "kiosk")
    (week,) = calendar.summarize(("kiosk", SUNDAY), due_until=days[5])
    assert (week["verdict"], week["happy_rate"]) == ("pending", None)
    # Half of the week is not the whole week.
    (week,) = calendar.summarize(("kiosk", SUNDAY), asked=(days[3], SUNDAY))
    assert week["verdict"] == "pending"
    (week,) = calendar.summarize(("kiosk", SUNDAY), due_until=SUNDAY)
    assert (week["method"], week["faces"], week["is_complete"]) == ("benchmark", 120, False)
    # A figure that is published follows its days, such as those of an erasure.
    for n in (3, 4):
        calendar.write_day([], days[n], "kiosk")
    (week,) = calendar.summarize(("kiosk", SUNDAY))
    assert (week["method"], week["faces"]) == ("benchmark", 80)


@pytest.mark.parametrize("order", [range(7), reversed(range(7)), (0, 1, 2, 3, 4, 6, 5)])
def test_a_week_of_a_weekly_facility_gets_another_model_version_once_all_its_days_have_it(
    calendar: Calendar, order: Iterable[int]
) -> None:
    calendar.tables.add("kiosk", publish_period="week")
    days = list_days(7)
    with calendar.tables.transaction() as connection:
        results.register_model_version(connection, OTHER, {}, {})
    for day in days:
        calendar.write_day(draw_clusters(1, 20, clusters=5), day, "kiosk")
    calendar.summarize(("kiosk", SUNDAY))
    for number in order:
        called = draw_clusters(2, 20, clusters=5)
        calendar.write_day(called, days[number], "kiosk", model_version=OTHER)
        (week,) = calendar.summarize(("kiosk", days[number]))
        assert week["model_version"] != OTHER or week["faces"] == 140
    assert (week["model_version"], week["method"]) == (OTHER, "raw")


def test_an_erasure_changes_a_week_whose_days_are_being_scored_with_another_model_version(
    calendar: Calendar,
) -> None:
    calendar.tables.add("kiosk", publish_period="week")
    days = list_days(7)
    with calendar.tables.transaction() as connection:
        results.register_model_version(connection, OTHER, {}, {})
    for day in days:
        calendar.write_day(draw_clusters(1, 50), day, "kiosk")
    calendar.summarize(("kiosk", SUNDAY))
    calendar.write_day(draw_clusters(2, 50), SUNDAY, "kiosk", model_version=OTHER)
    (week,) = calendar.summarize(("kiosk", SUNDAY))
    assert (week["faces"], week["model_version"]) == (350, VERSION)
    calendar.write_day([], MONDAY, "kiosk", images=50, not_scored={"erased": 50})
    (week,) = calendar.summarize(("kiosk", MONDAY), keeps_version=True)
    assert (week["faces"], week["model_version"]) == (250, VERSION)


def test_a_week_that_lacks_a_day_is_published_if_somebody_asks_for_it(calendar: Calendar) -> None:
    calendar.tables.add("kiosk", publish_period="week")
    for n, day in enumerate(list_days(7)[2:]):
        calendar.write_day(draw_clusters(n, 20, clusters=5), day, "kiosk")
    (week,) = calendar.summarize(("kiosk", SUNDAY), asked=(MONDAY, SUNDAY))
    assert (week["method"], week["faces"]) == ("benchmark", 100)


def test_a_small_week_of_a_weekly_facility_is_left_out_of_four_weeks(calendar: Calendar) -> None:
    calendar.tables.add("kiosk", publish_period="week")
    days = list_days(28)
    for n, day in enumerate(days):
        calendar.write_day(draw_clusters(n, 2 if n < 7 else 10, clusters=2), day, "kiosk")
    calendar.summarize(*(("kiosk", day) for day in days))
    weeks = calendar.read_weeks("kiosk")
    assert [week["method"] for week in weeks] == ["suppressed"] + ["benchmark"] * 3
    (month,) = calendar.read_weeks("kiosk", "four weeks")
    # 224 faces were scored; the view does not tell, because the difference is the small week.
    assert (month["faces"], month["faces_scored"]) == (210, None)


def test_a_week_has_one_model_version(calendar: Calendar) -> None:
    """That of its last day; days of another are left out."""
    with calendar.tables.transaction() as connection:
        results.register_model_version(connection, OTHER, {}, {})
    days = list_days(7)
    fill_days(calendar, days[:3], faces=100, model_version=OTHER)
    fill_days(calendar, days[3:], faces=50)
    (week,) = calendar.summarize(SUNDAY)
    assert (week["faces"], week["model_version"]) == (200, calendar.tables.version)
    assert week["method"] == "benchmark"
    assert week["faces_scored"] == 500


def test_days_of_the_method_wilson_are_left_out(calendar: Calendar) -> None:
    days = list_days(7)
    fill_days(calendar, days)
    nulls = ", ".join(
        f"{name} = NULL"
        for (name,) in calendar.tables.query(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'fer' AND"
            " table_name = 'satisfaction_summary' AND column_name ~ '_rate|^called|^totals'"
        )
    )
    calendar.tables.execute(
        f"UPDATE fer.satisfaction_summary SET method = 'wilson', former_figures = '{{}}', {nulls}"  # noqa: S608
        " WHERE capture_day < :day",
        day=days[3],
    )
    (week,) = calendar.summarize(SUNDAY)
    assert (week["faces"], week["faces_scored"], week["method"]) == (400, 700, "benchmark")


# Revisions


def test_a_revised_day_revises_its_week(calendar: Calendar) -> None:
    days = list_days(28)
    before = fill_days(calendar, days)
    calendar.summarize(*days)
    small = draw_clusters(3, 120)
    calendar.write_day(small, days[3])
    # Twenty late faces: the figure of the day stays, so that of the week does too.
    after = calendar.summarize(days[3])
    assert {row["faces"] for row in after if row["period"] == "week"} == {700}
    assert {row["faces_scored"] for row in after if row["period"] == "week"} == {720}
    assert calendar.read_weeks()[0]["happy_rate"] == before_rate(calendar)
    calendar.write_day(draw_clusters(3, 200), days[3])
    calendar.summarize(days[3])
    week, *others = calendar.read_weeks()
    assert (week["faces"], week["revision"]) == (800, 3)
    assert [row["faces"] for row in others] == [700] * 3
    (month,) = calendar.read_weeks(period="four weeks")
    assert month["faces"] == 2900
    assert before[3]["faces"] == 100


def before_rate(calendar: Calendar) -> float:
    (rate,) = calendar.tables.query(
        "SELECT happy_rate FROM fer.satisfaction_summary WHERE period = 'week' AND revision = 1"
        " AND capture_day = :day",
        day=SUNDAY,
    )[0]
    return float(rate)


def test_a_changed_target_revises_the_week(calendar: Calendar) -> None:
    days = list_days(7)
    fill_days(calendar, days)
    (week,) = calendar.summarize(*days)
    assert week["verdict"] == "no target"
    calendar.tables.add("north-mall", target_rate=0.95)
    (week,) = calendar.summarize(*days)
    assert (week["revision"], week["verdict"], week["faces"]) == (2, "not satisfied", 700)


def test_erasure_rewrites_the_week_and_the_changes(tables: Any, calendar: Calendar) -> None:
    """The figure of an erased day leaves those of the longer periods."""
    saturday, sunday = (Batch("north-mall", MONDAY + timedelta(n)) for n in (5, 6))
    tables.fill(40, 10, saturday, neither=50)
    tables.fill(40, 10, sunday, neither=50)
    tables.summarize(saturday, sunday)
    (week,) = calendar.summarize(saturday.capture_day, sunday.capture_day)
    changes = "SELECT capture_day, comparison FROM fer.satisfaction_change"
    assert tables.query(changes) == [(sunday.capture_day, "period before")]
    assert week["faces"] == 200
    erasure.erase(tables.eraser, erasure.Target("north-mall", None, "000003.jpg"), None, SECRET)
    (row,) = calendar.read_weeks()
    assert (row["faces"], row["faces_scored"], row["not_scored"]) == (200, None, {"erased": 2})
    assert len(tables.query(changes)) == 1
    erasure.erase(tables.eraser, erasure.Target("north-mall", saturday.capture_day), None, SECRET)
    (row,) = calendar.read_weeks()
    assert (row["faces"], row["images"], row["method"]) == (100, 200, "benchmark")
    assert tables.query(changes) == []
    erasure.erase(tables.eraser, erasure.Target("north-mall", sunday.capture_day), None, SECRET)
    (row,) = calendar.read_weeks()
    assert (row["faces"], row["method"], row["happy_rate"]) == (None, "suppressed", None)
