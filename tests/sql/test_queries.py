"""The queries for analysts run unchanged, on an empty database and on a filled one."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database import roles
from fer_batch.records import ImageScore, Outcome
from tests.fixtures.servers import INSPECTOR, LOGINS, READER

QUERIES = sorted((resources.find_sql_dir() / "queries").glob("*.sql"))


def run_query(tables: Any, file: Path) -> list[dict[str, Any]]:
    with tables.engine.connect() as connection:
        connection = connection.execution_options(no_parameters=True)
        rows = connection.exec_driver_sql(file.read_text())
        return [dict(row) for row in rows.mappings()]


@pytest.fixture
def filled(tables: Any) -> Any:
    """Two facilities, ten days, a revision, a broken image, a day that failed."""
    other = tables.add("outlet", expected_images_min=50, permission=None, target_rate=0.35)
    tables.add("north-mall", target_rate=0.35)
    tables.add("kiosk")
    for n in range(10):
        day = replace(tables.batch, capture_day=tables.batch.capture_day + timedelta(n))
        tables.fill(110 - 10 * n, 10, day, neither=80 + 10 * n)
        tables.summarize(day)
    tables.list(["north-mall/2026-03-01/000001.jpg", "broken.jpg"])
    broken, late = tables.list_work()
    tables.write(
        ImageScore(broken, Outcome.UNREADABLE, "JPEG ends early"), tables.build_score(late)
    )
    tables.summarize()
    last = replace(other, capture_day=tables.batch.capture_day + timedelta(9))
    tables.fill(10, 2, last, neither=18)
    tables.list([f"{n:06d}.jpg" for n in range(30)] + ["broken.jpg", "pending.jpg"], last)
    unreadable, _ = tables.list_work(last)
    tables.write(ImageScore(unreadable, Outcome.UNREADABLE, "JPEG ends early"))
    tables.summarize(last)
    tables.execute(
        "WITH c AS (INSERT INTO fer.cnn (cnn_sha256, artifact_sha256, card, artifact)"
        " SELECT h, h, jsonb_build_object('name', 'tiny', 'artefact_sha256', h), b"
        " FROM (SELECT encode(sha256(b), 'hex') AS h, b FROM (SELECT 'x'::bytea AS b) AS x) AS y"
        " RETURNING cnn_sha256)"
        " INSERT INTO fer.cnn_promotion (cnn_sha256, is_rollback, promoted_by, why)"
        " SELECT cnn_sha256, false, 'Ada', 'better on Sad' FROM c"
    )
    tables.execute(
        "INSERT INTO fer.batch (facility_id, capture_day, status, reason, attempted_at, run_id)"
        " VALUES ('kiosk', '2026-03-10', 'not_ready', 'no _SUCCESS yet', now(), 'r')"
    )
    return tables


def test_first_line_is_the_question() -> None:
    for file in QUERIES:
        first = file.read_text().splitlines()[0]
        assert first.startswith("-- "), file
        assert "?" in first, file


def test_queries_run_on_an_empty_database(tables: Any) -> None:
    results = {file.stem: run_query(tables, file) for file in QUERIES}
    # The one model version is registered; the one facility has its permission, and no rate.
    assert [name for name, rows in results.items() if rows] == [
        "how_do_groups_compare",
        "which_facilities_have_no_rate",
        "which_model_version_scored_which_days",
    ]


def test_every_query_returns_rows(filled: Any) -> None:
    results = {file.stem: run_query(filled, file) for file in QUERIES}
    # Those about weeks, changes, hours and cameras are in test_questions.py.
    assert [name for name, rows in results.items() if not rows] == [
        "how_do_facilities_differ",
        "how_many_images_per_camera",
        "what_changed_since_last_week",
        "which_cameras_went_quiet",
        "which_hours_have_the_most_happy_faces",
        "which_weeks_met_the_target",
    ]
    newest = {row["facility_name"]: row for row in results["which_facilities_were_satisfied"]}
    assert newest["Outlet"]["verdict"] == "inconclusive"
    assert newest["North-Mall"]["verdict"] == "not satisfied"
    (weak, *_) = results["which_days_missed_the_target_most"]
    assert (weak["facility_name"], weak["capture_day"].day) == ("North-Mall", 10)
    (dead,) = results["which_days_have_too_few_images"]
    assert (dead["facility_name"], dead["images"], dead["expected_images_min"]) == (
        "Outlet",
        32,
        50,
    )
    (reason,) = results["why_were_images_not_scored"]
    assert (reason["outcome"], reason["images"], float(reason["percent_of_those_days"])) == (
        "unreadable",
        1,
        3.13,
    )
    revised = results["which_days_were_revised"]
    assert [(r["revision"], r["images_added"]) for r in revised] == [(1, None), (2, 2)]
    (permission,) = results["which_permissions_expire_soon"]
    assert permission["facility_name"] == "Outlet"
    (missing,) = results["which_days_are_not_complete"]
    assert (missing["facility_name"], missing["images_pending"]) == ("Outlet", 1)
    (unlisted,) = results["which_days_have_no_summary"]
    assert (unlisted["facility_name"], unlisted["reason"]) == ("Kiosk", "no _SUCCESS yet")
    (image,) = results["what_is_the_outcome_of_an_image"]
    assert (image["emotion"], image["face_count"]) == ("Happy", 1)


def test_queries_about_days_weeks_and_models(filled: Any) -> None:
    def select(name: str, *columns: str) -> list[tuple[Any, ...]]:
        (file,) = (file for file in QUERIES if file.stem == name)
        return [tuple(row[column] for column in columns) for row in run_query(filled, file)]

    first, *_, last = select(
        "how_did_the_happy_rate_change", "facility_name", "weekday", "happy_rate"
    )
    assert first == ("North-Mall", "Sun", pytest.approx(0.5698, abs=1e-4))
    assert last == ("Outlet", "Tue", pytest.approx(0.2888, abs=1e-4))
    kinds = [f"{verdict}_days" for verdict in ("satisfied", "inconclusive", "not_satisfied")]
    weeks = select("how_many_days_were_satisfied", "facility_name", "week_from", *kinds)
    # The interval contains the target of 0.35 for 50 to 90 of 200 faces called happy.
    assert weeks == [
        ("North-Mall", date(2026, 2, 23), 1, 0, 0),
        ("North-Mall", date(2026, 3, 2), 1, 5, 1),
        ("North-Mall", date(2026, 3, 9), 0, 0, 2),
        ("Outlet", date(2026, 3, 9), 0, 1, 0),
    ]
    days = ("facility_name", "weekday", "days", "not_satisfied_days")
    assert select("which_weekdays_miss_the_target", *days) == [
        ("North-Mall", "Mon", 2, 1),
        ("North-Mall", "Tue", 2, 1),
        ("North-Mall", "Wed", 1, 0),
        *(("North-Mall", day, 1, 0) for day in ("Thu", "Fri", "Sat")),
        ("North-Mall", "Sun", 2, 1),
    ]
    frames = ("facility_id", "face_count", "images")
    assert select("how_many_faces_per_image", *frames) == [
        ("north-mall", 1, 200),
        ("outlet", 1, 30),
    ]
    wide = ("facility_name", "session_rule", "days", "faces_a_day", "benchmark_weight")
    assert select("how_wide_are_the_intervals", *wide) == [
        ("Outlet", "blocks", 1, 30, 1),
        ("North-Mall", "blocks", 10, 200, 1),
    ]
    broken = ("facility_id", "image_key", "outcome", "reason")
    assert select("which_files_are_broken", *broken) == [
        ("outlet", "broken.jpg", "unreadable", "JPEG ends early")
    ]
    cnn = ("cnn", "in_use_until", "promoted_by", "why")
    assert select("which_cnn_was_active_when", *cnn) == [("tiny", None, "Ada", "better on Sad")]
    made = ("model", "name", "summaries", "first_day", "last_day")
    assert select("which_model_version_scored_which_days", *made) == [
        (filled.version[:12], "test", 11, date(2026, 3, 1), date(2026, 3, 10))
    ]


def test_figures_of_the_method_wilson_are_in_no_trend(filled: Any) -> None:
    """Their verdicts are about another target, and they have no rates."""
    columns = filled.query(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'fer'"
        " AND table_name = 'satisfaction_summary' AND column_name ~ '_rate|^called|^totals'"
    )
    filled.execute(
        "UPDATE fer.satisfaction_summary SET method = 'wilson', verdict = 'not satisfied',"  # noqa: S608
        f" former_figures = '{{}}', {', '.join(f'{name} = NULL' for (name,) in columns)}"
        " WHERE capture_day BETWEEN '2026-03-02' AND '2026-03-08'"
    )
    results = {file.stem: run_query(filled, file) for file in QUERIES}
    assert {row["capture_day"].day for row in results["how_did_the_happy_rate_change"]} == {
        *(1, 9, 10)
    }
    missed = results["which_days_missed_the_target_most"]
    assert [row["capture_day"].day for row in missed] == [10, 9]
    weekdays = results["which_weekdays_miss_the_target"]
    assert {row["weekday"]: row["days"] for row in weekdays} == {"Mon": 1, "Tue": 1, "Sun": 1}
    weeks = results["how_many_days_were_satisfied"]
    assert date(2026, 3, 2) not in {row["week_from"] for row in weeks}
    wide = {row["facility_name"]: row["days"] for row in results["how_wide_are_the_intervals"]}
    assert wide == {"North-Mall": 3, "Outlet": 1}


def test_each_query_runs_as_the_role_that_it_names(filled: Any) -> None:
    roles.grant(filled.admin_url, INSPECTOR, "inspector", ["north-mall", "outlet"])
    for file in QUERIES:
        statement = file.read_text()
        with filled.connect(LOGINS[read_role(file)]).connect() as connection:
            connection = connection.execution_options(no_parameters=True)
            rows = connection.exec_driver_sql(statement).all()
        with filled.admin.connect() as connection:
            connection = connection.execution_options(no_parameters=True)
            assert connection.exec_driver_sql(statement).all() == rows, file.stem


def test_a_query_names_the_least_role(filled: Any) -> None:
    """An inspector or a reader may not run the queries of the job."""
    for file in QUERIES:
        weaker = {"writer": READER, "inspector": READER}.get(read_role(file))
        if weaker is None:
            continue
        with (
            filled.connect(weaker).connect() as connection,
            pytest.raises(sa.exc.ProgrammingError, match="permission denied"),
        ):
            connection.execution_options(no_parameters=True).exec_driver_sql(file.read_text())


def read_role(file: Path) -> str:
    """The role that a query names, without its prefix."""
    match = re.search(r"^-- Role: fer_(\w+)$", file.read_text(), re.MULTILINE)
    assert match is not None, file
    return match[1]


def test_the_newest_complete_day_is_that_of_each_facility(tables: Any) -> None:
    """Neither a day by mistake in the future nor the date in the east hides another facility."""
    east = tables.add("east", time_zone="Pacific/Kiritimati")
    today = datetime.now(UTC).date()
    today_in_the_east = datetime.now(ZoneInfo("Pacific/Kiritimati")).date()
    yesterday, before = (today - timedelta(n) for n in (1, 2))
    day_after = datetime.combine(today + timedelta(1), datetime.min.time(), UTC)
    tables.fill(30, 10, replace(tables.batch, capture_day=before))
    tables.fill(30, 10, replace(east, capture_day=yesterday))
    tables.list(["late.jpg"], replace(tables.batch, capture_day=yesterday))  # not scored yet
    tables.list(
        [], replace(tables.batch, capture_day=today + timedelta(400)), attempted_at=day_after
    )
    tables.list([], replace(east, capture_day=today + timedelta(1)), attempted_at=day_after)
    tables.summarize(
        *(replace(tables.batch, capture_day=today + timedelta(n)) for n in (-2, -1, 400)),
        *(replace(east, capture_day=today + timedelta(n)) for n in (-1, 1)),
    )

    results = {file.stem: run_query(tables, file) for file in QUERIES}

    newest = [("East", yesterday), ("North-Mall", before)]
    for name in ("which_facilities_were_satisfied", "how_did_the_happy_rate_change"):
        assert [(r["facility_name"], r["capture_day"]) for r in results[name]] == newest
    faces = results["how_many_faces_per_image"]
    assert [(r["facility_id"], r["capture_day"]) for r in faces] == [
        ("east", yesterday),
        ("north-mall", before),
    ]
    for name, rows in results.items():
        for row in rows:
            for column in ("capture_day", "last_day", "week_from"):
                assert row.get(column, today) <= today_in_the_east, name
