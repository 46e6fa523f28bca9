"""The report from the database: all facilities, several time zones, findings; the console table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_batch.database import schema
from fer_batch.findings import storing
from fer_batch.records import Batch
from fer_batch.reporting import report
from fer_batch.settings import Settings
from tests.fixtures.tables import Tables
from tests.reporting.builders import get_text
from tests.satisfaction.conftest import Calendar, draw_clusters

DAY = date(2026, 11, 20)  # a Friday
SUNDAY = date(2026, 11, 22)
NOTHING = {f"{name}_rate{end}": None for name in ("happy", "sad") for end in ("", "_low", "_high")}


def build_summary(facility_id: str = "north-mall", **changes: Any) -> dict[str, Any]:
    return {
        "facility_id": facility_id,
        "facility_name": facility_id.title(),
        "capture_day": DAY,
        "model_version": "ab" * 32,
        "method": "benchmark",
        "audit_id": None,
        "audit_labels": None,
        "target_rate": 0.3,
        "images": 1_250,
        "images_pending": 0,
        "not_scored": {"empty": 2, "unreadable": 1},
        "faces": 1_247,
        "faces_needed": None,
        "happy_rate": 0.4333,
        "happy_rate_low": 0.3112,
        "happy_rate_high": 0.5533,
        "sad_rate": 0.0701,
        "sad_rate_low": 0.0,
        "sad_rate_high": 0.1849,
        "neither_rate": 0.4966,
        "called_happy_rate": 0.3917,
        "called_sad_rate": 0.1313,
        "verdict": "satisfied",
        "is_complete": True,
        "is_below_expected": False,
    } | changes


def build_suppressed(facility_id: str = "quiet-shop") -> dict[str, Any]:
    return build_summary(
        facility_id, faces=23, method="suppressed", verdict="suppressed", **NOTHING
    )


def write(
    calendar: Calendar,
    folder: Path,
    *findings: Mapping[str, Any],
    day: date = DAY,
    **others: Any,
) -> str:
    """Write the report of a day, as a run of some facilities does; returns its text."""
    settings = Settings(_env_file=None, report_dir=folder)
    batches = [Batch(each["facility_id"], DAY) for each in findings] + others.get("batches", [])
    with calendar.tables.transaction() as connection:
        storing.store_findings(connection, batches, findings, "run-1", settings)
    path = report.write_report(calendar.tables.engine, settings, day)
    assert path == folder / f"{day}.html"
    return get_text(path.read_text())


def find(facility_id: str, finding: str) -> dict[str, Any]:
    return {
        "check": "frozen_camera",
        "severity": "warning",
        "facility_id": facility_id,
        "capture_day": DAY,
        "meaning": "a camera is frozen",
        "finding": finding,
        "subject": finding.removeprefix("camera ").partition(":")[0],
        "closing_rule": "same camera",
    }


def test_each_run_writes_the_facilities_of_all_time_zones(
    calendar: Calendar,
    tmp_path: Path,
) -> None:
    """The run of the second zone keeps the findings of the first one, and completes its figures."""
    calendar.tables.add("tokyo", name="Tokyo Mall", time_zone="Asia/Tokyo", target_rate=0.2)
    calendar.tables.add("toronto", name="Toronto Clinic", time_zone="America/Toronto")
    for age in range(8):
        calendar.write_day(draw_clusters(age, 200), DAY - timedelta(age), "tokyo")
        if age:
            calendar.write_day(draw_clusters(age + 9, 200), DAY - timedelta(age), "toronto")
    text = write(calendar, tmp_path, find("tokyo", "camera a: one picture"))
    assert "Tokyo Mall: Camera a repeats the same picture." in text
    assert "Toronto Clinic: Not processed yet; its figures are of Thu 19 Nov." in text
    calendar.write_day(draw_clusters(9, 200), DAY, "toronto")
    later = write(calendar, tmp_path, find("toronto", "camera b: one picture"))
    assert "Tokyo Mall: Camera a repeats the same picture." in later
    assert "Toronto Clinic: Camera b repeats the same picture." in later
    assert "Not processed yet; its figures are of Thu 19 Nov." not in later
    again = write(calendar, tmp_path, batches=[Batch("tokyo", DAY)])
    assert "Camera a" not in again
    assert "Camera b" in again
    assert sorted(file.name for file in tmp_path.iterdir()) == ["2026-11-20.html", "index.html"]


def test_concurrent_runs_leave_the_report_of_both(
    calendar: Calendar,
    tmp_path: Path,
) -> None:
    """Each has stored its findings before one of them writes the last file."""
    names = [f"shop-{n}" for n in range(6)]
    for name in names:
        calendar.tables.add(name)
        calendar.write_day(draw_clusters(1, 200), DAY, name)
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(lambda name: write(calendar, tmp_path, find(name, f"camera {name}: x")), names)
        )
    text = get_text((tmp_path / "2026-11-20.html").read_text())
    for name in names:
        assert f"camera {name}: x" in text


def test_findings_are_stored_even_if_the_report_cannot_be_written(
    calendar: Calendar, tmp_path: Path
) -> None:
    calendar.write_day(draw_clusters(1, 200), DAY)
    (folder := tmp_path / "reports").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="reports"):
        write(calendar, folder, find("north-mall", "camera a: one picture"))
    assert calendar.tables.query("SELECT state FROM fer.finding") == [("open",)]


def test_a_report_of_an_earlier_day_shows_nothing_newer(
    calendar: Calendar,
    tmp_path: Path,
) -> None:
    calendar.write_day(draw_clusters(1, 200), DAY)
    calendar.write_day(draw_clusters(2, 5000), DAY + timedelta(1))
    text = write(calendar, tmp_path)
    assert "Sat 21 Nov" not in text
    assert "5,000" not in text


def test_a_revision_is_shown_with_its_reason(
    calendar: Calendar,
    tmp_path: Path,
) -> None:
    calendar.write_day(draw_clusters(1, 200), DAY)
    calendar.write_day(np.concatenate([draw_clusters(1, 200), draw_clusters(2, 60)]), DAY)
    text = write(calendar, tmp_path)
    assert re.search(
        r"Fri 20 Nov, on \w{3} \d+ \w{3}: \d+ % .*became.* Reason: 60 images arrived", text
    )


def test_changes_and_weeks_reach_the_report(
    calendar: Calendar,
    tmp_path: Path,
) -> None:
    """A facility that really fell, over two weeks of the calendar."""
    days = [DAY - timedelta(n) for n in range(19)]
    for n, day in enumerate(days):
        mix = (0.1, 0.2, 0.7) if n < 12 else (0.6, 0.1, 0.3)
        calendar.write_day(draw_clusters(n, 300, mix), day)
    calendar.summarize(*days)
    text = write(calendar, tmp_path)
    assert "North-Mall fell by about" in text
    assert "points against the week before" in text


def test_the_tables_give_hours_and_cameras_of_each_day(tables: Tables, tmp_path: Path) -> None:
    """From keys to the heat map: the local hour, and cells with few faces are suppressed."""
    tables.add("north-mall", name_template="{camera}/{captured_at:%H%M%S}-{*}.jpg")
    sundays = [date(2026, 2, 8) + timedelta(7 * n) for n in range(4)]
    with tables.transaction() as connection:
        schema.ensure_partitions(connection, sundays)
    for day in sundays:
        batch = Batch("north-mall", day)
        times = [f"{9 + i % 2:02d}{i:02d}00-{i}" for i in range(60)]
        if day.day != 1:  # in March; so many faces less
            times.append("200000-late")
        cameras = ["till", "door", "door"]
        keys = [f"north-mall/{day}/{cameras[i % 3]}/{each}.jpg" for i, each in enumerate(times)]
        tables.list(keys, batch)
        tables.write(*(tables.build_score(image) for image in tables.list_work(batch)))
        tables.summarize(batch)
    row = tables.query(
        "SELECT hours, cameras FROM fer.satisfaction_summary WHERE capture_day = '2026-02-08'"
    )[0]
    assert row.hours == {"9": [30, 0, 0, 30], "10": [30, 0, 0, 30], "20": [1, 0, 0, 1]}
    assert row.cameras == {"door": 40, "till": 21}
    settings = Settings(_env_file=None, report_dir=tmp_path)
    path = report.write_report(tables.engine, settings, sundays[-1])
    html = path.read_text()
    cells = dict(re.findall(r'<th scope="row">(\d+:00)((?:<td[^>]*>[^<]*)+)', html))
    assert re.findall(r">([^<]+)", cells["10:00"]) == ["100"]
    assert re.findall(r">([^<]+)", cells["20:00"]) == ["few"]
    assert re.findall(r">([^<]+)", cells["9:00"]) == ["few"]  # with one of the others


def test_the_group_of_the_registry_has_a_section_and_a_total(
    calendar: Calendar, tmp_path: Path
) -> None:
    for name in ("mall", "kiosk"):
        calendar.tables.add(name, group="Nord & Süd", target_rate=0.2)
        calendar.write_day(draw_clusters(1, 300), DAY, name)
    text = write(calendar, tmp_path)
    assert re.search(r"Nord & Süd \d above target, \d below", text)
    assert re.search(r"All faces together, newest days: \d+\s% \(.*?\) of 600 faces", text)
    calendar.tables.add("kiosk")
    assert "of 600 faces" not in write(calendar, tmp_path)


def test_a_total_says_how_it_changed_since_last_week(calendar: Calendar, tmp_path: Path) -> None:
    for name in ("mall", "kiosk", "new"):
        calendar.tables.add(name, group="Coast")
        for age in range(14):
            if name != "new" or age < 7:
                mix = (0.2, 0.1, 0.7) if age < 7 else (0.6, 0.1, 0.3)
                called = draw_clusters(age, 400, mix)
                calendar.write_day(called, SUNDAY - timedelta(age), name)
    calendar.summarize(*[(n, SUNDAY - timedelta(a)) for n in ("mall", "kiosk") for a in (0, 7)])
    calendar.summarize(("new", SUNDAY))
    text = write(calendar, tmp_path, day=SUNDAY)
    for since in ("the same weekday a week before", "the week before"):
        assert re.search(
            rf"in 3 facilities. It fell by about \d+ points against {since} \(very likely \d+ to "
            r"\d+\) in the 2 facilities with figures of both\.",
            text,
        ), text


def test_a_closed_day_is_not_called_suppressed(capsys: pytest.CaptureFixture[str]) -> None:
    closed = build_suppressed() | {"images": 0, "faces": 0, "not_scored": {}}
    facility = Tables.build_facility("quiet-shop", closed_weekdays=["fri"])
    report.print_summaries([closed], facilities={"quiet-shop": facility})
    printed = capsys.readouterr().out
    assert "closed" in printed
    assert "suppressed" not in printed


def test_the_console_has_no_counts_by_class(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor rates with decimals, from which they could be computed, nor the uncorrected rates."""
    counts: dict[str, Any] = {"called_happy": 488, "called_sad": 164, "called_neither": 595}
    report.print_summaries([build_summary(**counts)])
    assert not re.search(r"488|164|595|43\.3|0\.43|39 %|13 %", capsys.readouterr().out)


def test_the_console_table_shows_the_drawn_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.print_summaries([build_summary(), build_suppressed()], {"north-mall": 0.452})
    out = capsys.readouterr().out
    lines = [re.split(r" {2,}", line) for line in out.splitlines()]
    assert lines[0] == ["Capture day 2026-11-20"]
    assert dict(zip(lines[1], lines[2], strict=True)) == {
        "facility": "North-Mall",
        "images": "1,250",
        "faces": "1,247",
        "true happy": "45 %",
        "happy": "43 % (31 to 55)",
        "target": "30 %",
        "verdict": "above target",
        "sad": "7 % (0 to 18)",
        "not scored": "2 empty, 1 unreadable",
        "complete": "yes",
    }
    assert lines[3][5:7] == ["30 %", "no rate"]
    assert "North-Mall: About 43 of 100 faces showed a happy expression" in out
    assert "Quiet-Shop: Too few faces or visits on Fri 20 Nov to publish" in out


def test_the_console_knows_who_publishes_by_week(capsys: pytest.CaptureFixture[str]) -> None:
    facility = Tables.build_facility("quiet-shop", publish_period="week")
    report.print_summaries([build_suppressed()], facilities={"quiet-shop": facility})
    assert "Quiet-Shop: It publishes by week, and single days" in capsys.readouterr().out
