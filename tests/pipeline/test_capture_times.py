"""The backfill of cameras and capture times."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fer_batch.database import connections
from fer_batch.pipeline import capture_times
from fer_batch.pipeline.capture_times import BackfilledFacility, backfill_times
from fer_batch.records import Batch

TEMPLATE = "{camera}/{captured_at:%H%M%S}{*}"


@pytest.fixture
def batches(tables: Any) -> list[Batch]:
    """Three days of a facility without a template; every fifth key would match none."""
    first = tables.add("outlet")
    batches = [Batch("outlet", first.capture_day + timedelta(days)) for days in range(3)]
    for batch in batches:
        names = [f"door/1000{n:02}.jpg" if n % 5 else f"{n}.jpg" for n in range(25)]
        tables.list([f"outlet/{batch.capture_day}/{name}" for name in names], batch)
    return batches


def read_times(tables: Any, batch: Batch) -> dict[str, tuple[str | None, str | None]]:
    rows = tables.query(
        "SELECT image_key, camera, captured_at_utc FROM fer.image"
        " WHERE facility_id = :facility AND capture_day = :day",
        facility=batch.facility_id,
        day=batch.capture_day,
    )
    return {
        r.image_key: (r.camera, r.captured_at_utc and f"{r.captured_at_utc:%m-%d %H:%M:%S}")
        for r in rows
    }


def test_stored_images_get_their_times_page_by_page(
    tables: Any, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_times, "PAGE_SIZE", 5)  # a day ends with a full page
    tables.list(["a.jpg"])  # another facility, without a template
    tables.write(*map(tables.build_score, tables.list_work(batches[0])))
    work = tables.list_work(batches[1])
    tables.add("outlet", name_template=TEMPLATE)

    assert backfill_times(tables.engine, tables.facilities) == [
        BackfilledFacility("north-mall", 1, 1, 0, 1, 0),
        BackfilledFacility("outlet", 3, 75, 60, 15, 60),
    ]
    times = read_times(tables, batches[2])
    assert times["outlet/2026-03-03/door/100007.jpg"] == ("door", "03-03 09:00:07")
    assert times["outlet/2026-03-03/10.jpg"] == (None, None)
    assert tables.list_work(batches[0]) == []  # no image became work, and none is lost
    assert tables.list_work(batches[1]) == work


def test_only_rows_that_differ_are_written(tables: Any, batches: list[Batch]) -> None:
    rows = "SELECT *, xmin::text FROM fer.image ORDER BY capture_day, image_key"
    tables.add("outlet", name_template=TEMPLATE)
    backfill_times(tables.engine, tables.facilities)
    before = tables.query(rows)
    (_, again) = backfill_times(tables.engine, tables.facilities)
    assert (again.with_time, again.updated) == (60, 0)
    assert tables.query(rows) == before
    # A listing with the same template agrees.
    assert tables.list([f"outlet/2026-03-01/door/1000{n:02}.jpg" for n in (1, 2)], batches[0]) == (
        2,
        0,
    )
    assert tables.query(rows) == before


def test_days_outside_the_range_stay_as_they_are(tables: Any, batches: list[Batch]) -> None:
    tables.add("outlet", name_template=TEMPLATE)
    day = batches[1].capture_day
    facilities = {"outlet": tables.facilities["outlet"]}
    (result,) = backfill_times(tables.engine, facilities, first_day=day, last_day=day)
    assert result == BackfilledFacility("outlet", 1, 25, 20, 5, 20)
    for batch in batches:
        has_times = set(read_times(tables, batch).values()) != {(None, None)}
        assert has_times == (batch == batches[1])


def test_removed_or_changed_template_changes_the_times(tables: Any, batches: list[Batch]) -> None:
    key = "outlet/2026-03-01/door/100007.jpg"
    for fields, expected in (
        ({"name_template": TEMPLATE}, ("door", "03-01 09:00:07")),
        ({"name_template": TEMPLATE, "name_clock": "UTC"}, ("door", "03-01 10:00:07")),
        ({"name_template": "{*}/{captured_at:%H%M%S}.jpg"}, (None, "03-01 09:00:07")),
        ({}, (None, None)),
    ):
        tables.add("outlet", **fields)
        backfill_times(tables.engine, tables.facilities)
        assert read_times(tables, batches[0])[key] == expected


def test_day_that_was_deleted_or_never_listed_has_no_images(
    tables: Any, batches: list[Batch]
) -> None:
    tables.execute("DELETE FROM fer.image WHERE capture_day = :day", day=batches[0].capture_day)
    tables.add("outlet", name_template=TEMPLATE)
    tables.add("new", name_template=TEMPLATE)
    assert backfill_times(tables.engine, tables.facilities)[1:] == [
        BackfilledFacility("outlet", 2, 50, 40, 10, 40),
        BackfilledFacility("new", 0, 0, 0, 0, 0),
    ]


def test_backfill_waits_for_a_listing_of_the_day(tables: Any, batches: list[Batch]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    tables.add("outlet", name_template=TEMPLATE)
    with ThreadPoolExecutor(1) as pool, tables.transaction() as connection:
        connections.lock(connection, f"listing:outlet:{batches[0].capture_day}")
        waiting = pool.submit(backfill_times, tables.engine, tables.facilities)
        while not tables.is_anyone_waiting():
            assert not waiting.done()
        connection.commit()
        assert waiting.result(30)[1].updated == 60
