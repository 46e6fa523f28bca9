"""The questions of analysts run as they stand, on an empty database and on one with days in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch import resources
from fer_batch.records import ImageScore, Outcome

QUERIES = sorted((resources.sql_dir() / "queries").glob("*.sql"))


def ask(tables: Any, file: Path) -> list[dict[str, Any]]:
    with tables.engine.connect() as connection:
        connection = connection.execution_options(no_parameters=True)
        found = connection.exec_driver_sql(file.read_text())
        return [dict(row) for row in found.mappings()]


@pytest.fixture
def filled(tables: Any) -> Any:
    """Two facilities, ten days, a revision, a broken image, a day that failed."""
    other = tables.add("outlet", expected_images_min=50, permission=None)
    tables.add("kiosk")
    for n in range(10):
        day = replace(tables.batch, capture_day=tables.batch.capture_day + timedelta(n))
        tables.fill(90 - 5 * n, 10 + 5 * n, day, uncertain=5)
        tables.summarise(day)
    tables.list(["north-mall/2026-03-01/000001.jpg", "broken.jpg"])
    broken, late = tables.work()
    tables.write(ImageScore(broken, Outcome.UNREADABLE, "JPEG ends early"), tables.scored(late))
    tables.summarise()
    last = replace(other, capture_day=tables.batch.capture_day + timedelta(9))
    tables.fill(20, 10, last)
    tables.list([f"{n:06d}.jpg" for n in range(30)] + ["broken.jpg", "pending.jpg"], last)
    unreadable, _ = tables.work(last)
    tables.write(ImageScore(unreadable, Outcome.UNREADABLE, "JPEG ends early"))
    tables.summarise(last)
    tables.execute(
        "WITH c AS (INSERT INTO fer.cnn (cnn_sha256, artefact_sha256, card, artefact)"
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


def test_there_are_a_dozen_and_more() -> None:
    assert len(QUERIES) >= 12


def test_first_line_is_the_question() -> None:
    for file in QUERIES:
        first = file.read_text().splitlines()[0]
        assert first.startswith("-- "), file
        assert "?" in first, file


def test_queries_run_on_an_empty_database(tables: Any) -> None:
    answers = {file.stem: ask(tables, file) for file in QUERIES}
    # The one model version is registered, and the one facility has its permission.
    assert [name for name, rows in answers.items() if rows] == ["which_model_made_which_days"]


def test_every_query_answers(filled: Any) -> None:
    answers = {file.stem: ask(filled, file) for file in QUERIES}
    assert [name for name, rows in answers.items() if not rows] == []
    newest = {row["facility_name"]: row for row in answers["which_facilities_were_satisfied"]}
    assert newest["Outlet"]["verdict"] == "inconclusive"
    assert newest["North-Mall"]["verdict"] == "not satisfied"
    (weak, *_) = answers["which_days_missed_the_target_most"]
    assert (weak["facility_name"], weak["capture_day"].day) == ("North-Mall", 10)
    (dead,) = answers["which_cameras_may_be_dead"]
    assert (dead["facility_name"], dead["images"], dead["expected_images_min"]) == (
        "Outlet",
        32,
        50,
    )
    (reason,) = answers["why_were_images_not_scored"]
    assert (reason["outcome"], reason["images"], float(reason["percent_of_those_days"])) == (
        "unreadable",
        1,
        3.13,
    )
    revised = answers["which_days_were_revised"]
    assert [(r["revision"], r["more_images"]) for r in revised] == [(1, None), (2, 2)]
    (permission,) = answers["which_permissions_end_soon"]
    assert permission["facility_name"] == "Outlet"
    (missing,) = answers["which_days_are_not_complete"]
    assert (missing["facility_name"], missing["images_pending"]) == ("Outlet", 1)
    (unlisted,) = answers["which_days_have_no_summary"]
    assert (unlisted["facility_name"], unlisted["reason"]) == ("Kiosk", "no _SUCCESS yet")
    (image,) = answers["what_became_of_an_image"]
    assert (image["emotion"], image["face_count"]) == ("Happy", 1)


def test_queries_need_no_more_than_the_analysts_role(filled: Any) -> None:
    with filled.transaction() as connection:
        connection.execution_options(no_parameters=True).exec_driver_sql(
            (resources.sql_dir() / "roles" / "analyst.sql").read_text()
        )
    with filled.engine.connect() as connection:
        connection.execute(sa.text("GRANT fer_analyst TO CURRENT_USER"))
        connection.execute(sa.text("SET ROLE fer_analyst"))
        for file in QUERIES:
            connection.execution_options(no_parameters=True).exec_driver_sql(file.read_text()).all()
