"""Statements of a run and queries of analysts use no partitions of other days."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch import resources
from fer_batch.database import connections, ledger
from fer_batch.pipeline import checks, planning
from fer_batch.settings import Settings

QUERIES = sorted((resources.find_sql_dir() / "queries").glob("*.sql"))


def test_run_does_not_wait_for_a_locked_day_of_others(tables: Any) -> None:
    # As retention does before it drops that day. A plan that includes the day would wait, and with
    # years of days, planning would take as long as execution.
    other = replace(tables.batch, capture_day=tables.batch.capture_day - timedelta(1))
    tables.list(["a.jpg"], other)
    night = type(tables)(tables.url)
    night.engine.dispose()
    impatient = Settings(_env_file=None, database_url=tables.url, statement_timeout_s=5)
    night.engine = connections.create_engine(impatient)
    with connections.transaction(tables.admin) as holder:
        locked = ", ".join(f"fer.{t}_2026_02_28" for t in ("image", "image_result", "face_result"))
        holder.exec_driver_sql(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        night.list([f"{n:02d}.jpg" for n in range(20)])
        with night.transaction() as connection:
            (shard,) = planning.plan_shards(
                connection, [night.batch], night.facilities, Settings(_env_file=None), night.version
            )
        scores = [
            night.build_score(image, night.build_face(), night.build_face(0.2, 0.7))
            for image in night.list_work()
        ]
        assert night.write(*scores) == shard.image_count == 20
        with night.transaction() as connection:
            again = ledger.begin_run(connection, "again")
        assert night.write(*scores, run_id="again", rescore_before=again) == 20
        (summary,) = night.summarize()
        assert summary["faces"] == 40
        assert (
            checks.check_data(
                night.engine, [night.batch], night.version, "again", Settings(_env_file=None)
            )
            == []
        )
    night.engine.dispose()


@pytest.fixture
def three_days(tables: Any) -> Any:
    for n in range(3):
        day = replace(tables.batch, capture_day=tables.batch.capture_day - timedelta(n))
        tables.fill(40, 10, day)
        tables.summarize(day)
    return tables


def test_query_reads_at_most_one_day_of_images(three_days: Any) -> None:
    read = {file.stem: _partitions_read(three_days, file) for file in QUERIES}
    assert read["how_many_faces_per_image"] == {"image_result_2026_03_01"}
    assert {name: days for name, days in read.items() if len({d[-10:] for d in days}) > 1} == {}


def _partitions_read(tables: Any, file: Path) -> set[str]:
    """The partitions that the query has read; its plan may include more."""
    with tables.engine.connect() as connection:
        connection = connection.execution_options(no_parameters=True)
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {file.read_text()}"
        nodes = [connection.exec_driver_sql(explained).scalar_one()[0]["Plan"]]
    partitions = set()
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node["Actual Loops"] and "_2026_" in node.get("Relation Name", ""):
            partitions.add(node["Relation Name"])
    return partitions
