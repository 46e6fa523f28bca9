"""A night's statements leave the partitions of other days alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from fer_batch import checks, ledger, planning
from fer_batch.settings import Settings

IMPATIENT = "?options=-c%20lock_timeout%3D5s"


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
        with night.transaction() as connection:
            assert checks.run(connection, [night.batch], night.version) == []
    night.engine.dispose()
