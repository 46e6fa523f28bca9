"""Alerts on the figure: below target, fell, unusual; and nothing about what is not published."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from fer_batch.findings import history, storing
from fer_batch.pipeline import checks
from fer_batch.records import Batch
from fer_batch.settings import Settings
from tests.satisfaction.conftest import Calendar, draw_clusters

SUNDAY = date(2026, 5, 31)
CALM, SAD = (0.5, 0.1, 0.4), (0.1, 0.2, 0.7)
ALERTS = ("rate_below_target", "rate_fell", "unusual_share")


def day(age: int) -> date:
    return SUNDAY - timedelta(age)


def alert(
    calendar: Calendar, *ages: int, facility_id: str = "north-mall", **settings: Any
) -> list[tuple[str, str, str]]:
    """Check, subject and details of the alerts of days, by default of the Sunday."""
    tables = calendar.tables
    batches = [Batch(facility_id, day(age)) for age in ages or (0,)]
    found = checks.check_data(
        tables.engine, batches, tables.version, "run-1", Settings(_env_file=None, **settings)
    )
    assert {f["severity"] for f in found if f["check"] in ALERTS} <= {"warning"}
    return [(f["check"], f["subject"], f["finding"]) for f in found if f["check"] in ALERTS]


def write(calendar: Calendar, age: int, mix: Any = CALM, **others: Any) -> Any:
    clusters = draw_clusters(age, others.pop("faces", 400), mix, others.pop("clusters", 20))
    return calendar.write_day(clusters, day(age), **others)


# Below the target


@pytest.mark.parametrize(
    ("sad_days", "is_found"),
    [([0, 2, 6], True), ([0, 2], False), ([0, 2, 7], False), ([1, 2, 3], True)],
)
def test_a_rate_below_target_on_three_of_seven_days(
    calendar: Calendar, sad_days: list[int], is_found: bool
) -> None:
    calendar.tables.add("north-mall", target_rate=0.3)
    for age in range(9):
        write(calendar, age, SAD if age in sad_days else CALM)
    assert [found[0] for found in alert(calendar)] == ["rate_below_target"] * is_found
    if sad_days == [0, 2, 6]:
        (finding,) = alert(calendar)
        assert finding[2].startswith("on 3 of the last 7 days; newest: ")
        assert finding[2].endswith("target 30 %")
        assert alert(calendar, alert_below_days=4) == []
        assert alert(calendar, alert_below_window_days=6) == []
        assert alert(calendar, alert_min_faces=401) == []
        assert alert(calendar, alert_min_sessions=21) == []


def test_the_target_of_the_newest_day_counts(calendar: Calendar) -> None:
    """If the target is lowered, the verdicts of earlier days are about another one."""
    calendar.tables.add("north-mall", target_rate=0.9)
    for age in (2, 1):
        assert write(calendar, age)["verdict"] == "not satisfied"
    calendar.tables.add("north-mall", target_rate=0.2)
    write(calendar, 0)
    assert alert(calendar, alert_below_days=1) == []


def test_a_suppressed_or_pending_day_gives_no_alert(calendar: Calendar) -> None:
    calendar.tables.add("north-mall", target_rate=0.3)
    for age in range(1, 8):
        write(calendar, age, SAD, faces=400)
    assert len(alert(calendar, 1)) == 1
    write(calendar, 0, SAD, faces=20)
    assert alert(calendar) == []
    write(calendar, 0, SAD, is_due=False)
    assert alert(calendar) == []


def test_a_facility_that_publishes_by_week_has_alerts_of_weeks(calendar: Calendar) -> None:
    calendar.tables.add("north-mall", target_rate=0.3, publish_period="week")
    for age in range(28):
        write(calendar, age, SAD if age < 14 else CALM, faces=100)
    assert alert(calendar, *range(28)) == [], "no week is published yet"
    calendar.summarize(*map(day, range(28)))
    found = alert(calendar, *range(28))
    assert [each[:2] for each in found] == [("rate_fell", "week"), ("rate_below_target", "")]
    assert found[1][2].startswith("on 2 of the last 4 weeks; newest: ")
    assert found[0][2].endswith("against the week before")
    assert alert(calendar, 1) == []


def test_without_a_target_or_a_correction_nothing_is_below(calendar: Calendar) -> None:
    for age in range(7):
        write(calendar, age, SAD)
    assert alert(calendar) == []
    calendar.tables.add("north-mall", target_rate=0.9)
    with calendar.tables.admin.begin() as connection:
        connection.exec_driver_sql('UPDATE fer.model_version SET card = \'{"name": "test"}\'')
    for age in range(7):
        assert write(calendar, age, CALM)["method"] == "raw"
    assert alert(calendar) == []


# Fell


@pytest.mark.parametrize(
    ("before", "mix", "is_found"), [(CALM, SAD, True), (CALM, CALM, False), (SAD, CALM, False)]
)
def test_a_clear_fall_against_last_week(
    calendar: Calendar, before: Any, mix: Any, is_found: bool
) -> None:
    write(calendar, 7, before)
    write(calendar, 0, mix)
    calendar.summarize(day(7), day(0))
    found = [each for each in alert(calendar) if each[1] == "day"]
    assert [each[0] for each in found] == ["rate_fell"] * is_found
    if is_found:
        assert found[0][2].startswith("by about 4")
        assert found[0][2].endswith("against the Sunday before")
        assert alert(calendar, alert_min_faces=401) == []
        assert alert(calendar, alert_min_sessions=21) == []


def test_a_fall_from_or_to_few_faces_is_no_alert(calendar: Calendar) -> None:
    for first, second in ((90, 400), (400, 90)):
        write(calendar, 7, CALM, faces=first)
        write(calendar, 0, SAD, faces=second)
        calendar.summarize(day(7), day(0))
        assert [each for each in alert(calendar) if each[1] == "day"] == []
        write(calendar, 0, CALM, faces=1000)


def test_a_fall_is_clear_among_those_of_all_facilities(calendar: Calendar) -> None:
    """One of many facilities that seems to fall by chance is no alert."""
    names = [f"shop-{n}" for n in range(20)]
    for n, name in enumerate(names):
        calendar.tables.add(name)
        calendar.write_day(draw_clusters(n, 400, (0.4, 0.1, 0.5)), day(7), name)
        mix = (0.25, 0.1, 0.65) if n == 0 else (0.4, 0.1, 0.5)
        calendar.write_day(draw_clusters(n + 50, 400, mix), day(0), name)
    calendar.summarize(*((name, day(age)) for name in names for age in (7, 0)))
    rows = calendar.tables.query(
        "SELECT facility_id, happy_q_value FROM fer.satisfaction_change"
        " WHERE comparison = 'week before' AND happy_change_high < 0"
    )
    for row in rows:
        found = [a for a in alert(calendar, facility_id=row.facility_id) if a[1] == "day"]
        assert bool(found) is (row.happy_q_value <= 0.05)
    assert rows


# Unusual


def fill_month(calendar: Calendar, **others: Any) -> None:
    """Thirty days on which between 8 and 12 % of 1,000 images show no face."""
    for age in range(1, 31):
        images = {"images": 1000, "not_scored": {"no_face": 100 + 10 * (age % 5 - 2)}}
        write(calendar, age, **(images | others))


@pytest.mark.parametrize(
    ("not_scored", "subjects"),
    [
        ({"no_face": 120}, []),
        ({"no_face": 300}, ["no_face"]),
        ({"no_face": 10}, ["no_face"]),  # a poster, or another crop
        ({"no_face": 100, "unreadable": 90}, ["unreadable"]),
        ({"no_face": 100, "unreadable": 40}, []),  # less than 5 points
        ({"no_face": 80, "erased": 200}, []),
    ],
)
def test_reasons_out_of_their_usual_range(
    calendar: Calendar, not_scored: dict[str, int], subjects: list[str]
) -> None:
    fill_month(calendar)
    write(calendar, 0, images=1000, not_scored=not_scored)
    found = alert(calendar)
    assert [each[:2] for each in found] == [("unusual_share", subject) for subject in subjects]
    if not_scored == {"no_face": 300}:
        assert found[0][2] == (
            "30 % of 1000 images are no_face; usually 10 % (the last 28 complete days)"
        )
        assert alert(calendar, alert_min_difference=0.25) == []
        assert alert(calendar, alert_spread_factor=20) == []


def test_that_fewer_images_fail_is_no_alert(calendar: Calendar) -> None:
    fill_month(calendar, not_scored={"unreadable": 400})
    write(calendar, 0, images=1000, not_scored={})
    assert alert(calendar) == []


def test_the_share_called_neither_out_of_its_usual_range(calendar: Calendar) -> None:
    for age in range(1, 29):
        write(calendar, age, (0.3, 0.1, 0.6), faces=1000)
    write(calendar, 0, (0.05, 0.05, 0.9), faces=1000)
    found = [each for each in alert(calendar) if each[0] == "unusual_share"]
    assert [each[1] for each in found] == ["neither"]
    assert found[0][2].endswith(
        " % of the faces are called neither; usually 60 % (the last 28 complete days)"
    )
    write(calendar, 0, (0.3, 0.1, 0.6), faces=1100)
    assert alert(calendar) == []


def test_few_or_other_days_are_no_comparison(calendar: Calendar) -> None:
    for age in range(1, 14):
        write(calendar, age, images=1000, not_scored={"no_face": 100})
    write(calendar, 0, images=1000, not_scored={"no_face": 500})
    assert alert(calendar) == [], "13 days"
    write(calendar, 14, images=1000, not_scored={"no_face": 100}, is_complete=False)
    assert alert(calendar) == [], "not complete"
    write(calendar, 15, images=1000, not_scored={"no_face": 100}, faces=25)
    assert alert(calendar) == [], "suppressed"
    write(calendar, 16, images=1000, not_scored={"no_face": 100})
    assert [each[1] for each in alert(calendar)] == ["no_face"]


def test_a_suppressed_day_is_not_called_unusual(calendar: Calendar) -> None:
    fill_month(calendar)
    write(calendar, 0, images=1000, not_scored={"no_face": 900}, faces=25)
    assert alert(calendar) == []


# Over the nights


def test_an_alert_is_one_finding_until_a_published_day_does_not_show_it(
    calendar: Calendar,
) -> None:
    tables = calendar.tables
    tables.add("north-mall", target_rate=0.3)
    settings = Settings(_env_file=None)
    for age in range(17, 10, -1):
        write(calendar, age, SAD)

    def run(*ages: int) -> list[tuple[str, int, str]]:
        batches = [Batch("north-mall", day(age)) for age in ages]
        found = checks.check_data(tables.engine, batches, tables.version, "run-1", settings)
        with tables.transaction() as connection:
            storing.store_findings(connection, batches, found, "run-1", settings)
            known = history.list_findings(connection, states=("open", "closed"))
        return [
            (f.state, (SUNDAY - f.last_day).days, str(f.closed_comment))
            for f in known
            if f.check == "rate_below_target"
        ]

    assert run(12, 11) == [("open", 11, "None")]
    write(calendar, 10, CALM, faces=25)  # suppressed
    write(calendar, 9, CALM, faces=60)  # too few for an alert
    assert run(11, 10, 9) == [("open", 11, "None")]
    for age in range(8, 1, -1):
        write(calendar, age, CALM)
    assert run(8) == [("open", 8, "None")]  # still on 3 of 7 days
    assert run(11, 2) == [("closed", 8, f"{day(2)} does not show it")]
