"""A night's statements, and the questions of analysts, leave other days' partitions alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch import checks, ledger, planning, resources
from fer_batch.settings import Settings

IMPATIENT = "?options=-c%20lock_timeout%3D5s"
QUERIES = sorted((resources.sql_dir() / "queries").glob("*.sql"))


def test_a_night_runs_while_another_day_is_locked(tables: Any) -> None:
    # As by retention, which is about to drop that day. A plan that holds the day would wait, and
    # where there are years of days it would take as long to make as to run.
    other = replace(tables.batch, capture_day=tables.batch.capture_day - timedelta(1))
    tables.list(["a.jpg"], other)
    night = type(tables)(tables.url + IMPATIENT)
    with tables.transaction() as holder:
        locked = ", ".join(f"fer.{t}_2026_02_28" for t in ("image", "image_result", "face_result"))
        holder.exec_driver_sql(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        night.list([f"{n:02d}.jpg" for n in range(20)])
        with night.transaction() as connection:
            (shard,) = planning.plan(
                connection, [night.batch], night.facilities, Settings(_env_file=None), night.version
            )
        scores = [night.scored(image, night.face(), night.face(0.2, 0.7)) for image in night.work()]
        assert night.write(*scores) == shard.image_count == 20
        with night.transaction() as connection:
            again = ledger.begin_run(connection, "again")
        assert night.write(*scores, run_id="again", rescore_before=again) == 20
        (summary,) = night.summarise()
        assert summary["faces"] == 40
        assert checks.run(night.engine, [night.batch], night.version, "again") == []
    night.engine.dispose()


@pytest.fixture
def three_days(tables: Any) -> Any:
    for n in range(3):
        day = replace(tables.batch, capture_day=tables.batch.capture_day - timedelta(n))
        tables.fill(40, 10, day)
        tables.summarise(day)
    return tables


def test_a_question_reads_one_day_of_images_at_most(three_days: Any) -> None:
    read = {file.stem: _partitions_read(three_days, file) for file in QUERIES}
    assert read["how_many_faces_does_a_frame_show"] == {"image_result_2026_03_01"}
    assert {name: days for name, days in read.items() if len({d[-10:] for d in days}) > 1} == {}


def _partitions_read(tables: Any, file: Path) -> set[str]:
    """Those that were looked into while the query ran; a plan may hold more."""
    with tables.engine.connect() as connection:
        connection = connection.execution_options(no_parameters=True)
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {file.read_text()}"
        nodes = [connection.exec_driver_sql(explained).scalar_one()[0]["Plan"]]
    found = set()
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node["Actual Loops"] and "_2026_" in node.get("Relation Name", ""):
            found.add(node["Relation Name"])
    return found
