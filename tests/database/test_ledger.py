"""Facilities, listings, batches, and the remaining work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch.database import connections, ledger
from fer_batch.errors import DatabaseError, StorageError
from fer_batch.records import ListedImage
from tests.fixtures.tables import name_etag

# Facilities


def facility_rows(tables: Any) -> dict[str, Any]:
    return {r.facility_id: r for r in tables.query("SELECT *, xmin::text FROM fer.facility")}


def test_registry_is_written_to_the_table(tables: Any) -> None:
    tables.add("outlet", name="Outlet", closed_weekdays=["sun"], permission=None, bucket="own")
    row = facility_rows(tables)["outlet"]
    assert (row.name, row.closed_weekdays, row.bucket) == ("Outlet", ["sun"], "own")
    assert row.permission_valid_until is None
    assert facility_rows(tables)["north-mall"].permission_valid_until == date(2099, 12, 31)


def test_only_rows_that_changed_are_written(tables: Any) -> None:
    tables.add("outlet")
    before = facility_rows(tables)
    tables.add("outlet", target_rate=0.9)
    after = facility_rows(tables)
    assert after["north-mall"] == before["north-mall"]
    assert after["outlet"].target_rate == 0.9
    assert after["outlet"].updated_at > before["outlet"].updated_at


def test_name_template_is_copied_and_read_back(tables: Any) -> None:
    assert facility_rows(tables)["north-mall"].name_template is None
    tables.add("outlet", name_template="{captured_at:%H%M}", name_clock="UTC")
    row = facility_rows(tables)["outlet"]
    assert (row.name_template, row.name_clock) == ("{captured_at:%H%M}", "UTC")
    with tables.transaction() as connection:
        facility = ledger.load_facility(connection, "outlet")
    assert (facility.name_template, facility.name_clock) == ("{captured_at:%H%M}", "UTC")


def test_facility_removed_from_the_registry_keeps_its_history(tables: Any) -> None:
    tables.add("outlet")
    gone = tables.facilities.pop("outlet")
    tables.add("north-mall")
    assert not facility_rows(tables)["outlet"].is_in_registry
    tables.facilities["outlet"] = gone
    tables.add("north-mall")
    assert facility_rows(tables)["outlet"].is_in_registry


# Listings


def test_listed_images_become_work_once(tables: Any) -> None:
    assert tables.list(["a.jpg", "b.jpg"]) == (2, 2)
    first = tables.query("SELECT *, xmin::text FROM fer.image")
    assert tables.list(["a.jpg", "b.jpg"]) == (2, 0)
    assert tables.query("SELECT *, xmin::text FROM fer.image") == first
    assert [image.key for image in tables.list_work()] == ["a.jpg", "b.jpg"]


def test_new_and_changed_images_are_counted_and_known_ones_are_not(tables: Any) -> None:
    tables.list({"a.jpg": "1", "b.jpg": "1"})
    (before,) = tables.query("SELECT * FROM fer.image WHERE image_key = 'b.jpg'")
    assert tables.list({"a.jpg": "1", "b.jpg": "2", "c.jpg": "1"}) == (3, 2)
    (after,) = tables.query("SELECT * FROM fer.image WHERE image_key = 'b.jpg'")
    assert after.etag == "2"
    assert after.listed_at > before.listed_at
    assert after.first_seen_at == before.first_seen_at


def capture_rows(tables: Any) -> list[tuple[str, str | None, str | None]]:
    rows = tables.query("SELECT image_key, camera, captured_at_utc FROM fer.image ORDER BY 1")
    return [
        (r.image_key, r.camera, r.captured_at_utc and f"{r.captured_at_utc:%H:%M:%S.%f}")
        for r in rows
    ]


PREFIX = "outlet/2026-03-01/"
TEMPLATE = "{camera}/{captured_at:%H%M%S.%f}{*}"


def test_camera_and_time_are_stored_with_the_image(tables: Any) -> None:
    batch = tables.add("outlet", name_template=TEMPLATE)
    names = ["door/101500.25.jpg", "d\\N\t%/235959.999999", "door/250000.0", "unknown.jpg"]
    assert tables.list([PREFIX + name for name in names], batch) == (4, 4)
    assert capture_rows(tables) == [
        (f"{PREFIX}d\\N\t%/235959.999999", None, None),
        (f"{PREFIX}door/101500.25.jpg", "door", "09:15:00.250000"),
        (f"{PREFIX}door/250000.0", "door", None),
        (f"{PREFIX}unknown.jpg", None, None),
    ]


def test_changed_template_changes_rows_but_is_no_work(tables: Any) -> None:
    keys = [f"{PREFIX}door/101500.25.jpg", f"{PREFIX}unknown.jpg"]
    batch = tables.add("outlet")
    tables.list(keys, batch)
    tables.write(*map(tables.build_score, tables.list_work(batch)))
    before = tables.query("SELECT *, xmin::text FROM fer.image ORDER BY image_key")
    assert capture_rows(tables) == [(key, None, None) for key in keys]

    tables.add("outlet", name_template=TEMPLATE)
    assert tables.list(keys, batch) == (2, 0)
    assert capture_rows(tables)[0] == (keys[0], "door", "09:15:00.250000")
    after = tables.query("SELECT *, xmin::text FROM fer.image ORDER BY image_key")
    assert after[0].listed_at == before[0].listed_at
    assert after[1] == before[1]
    assert tables.list_work(batch) == []

    tables.add("outlet", name_template=TEMPLATE, name_clock="UTC")
    assert tables.list({keys[0]: "etag-2"}, batch) == (1, 1)  # and overwritten
    assert capture_rows(tables)[0] == (keys[0], "door", "10:15:00.250000")

    tables.add("outlet")
    assert tables.list({keys[0]: "etag-2", keys[1]: name_etag(keys[1])}, batch) == (2, 0)
    assert capture_rows(tables) == [(key, None, None) for key in keys]


def test_key_that_is_listed_twice_has_one_camera(tables: Any) -> None:
    batch = tables.add("outlet", name_template=TEMPLATE)
    key = f"{PREFIX}door/101500.25.jpg"
    parse_name = tables.facilities["outlet"].build_name_parser(batch.capture_day)
    with tables.transaction() as connection:
        listed = [ListedImage(key, "1", 5), ListedImage(key, "2", 5)]
        assert ledger.merge_listing(connection, batch, listed, parse_name) == (1, 1)
    assert capture_rows(tables) == [(key, "door", "09:15:00.250000")]


def test_deleted_objects_keep_their_rows(tables: Any) -> None:
    tables.list(["a.jpg", "b.jpg"])
    assert tables.list(["a.jpg"]) == (1, 0)
    assert tables.list([]) == (0, 0)
    assert [image.key for image in tables.list_work()] == ["a.jpg", "b.jpg"]


def test_key_that_is_listed_twice_counts_once_with_its_last_etag(tables: Any) -> None:
    listed = [
        ListedImage("a.jpg", "1", 5),
        ListedImage("b.jpg", "1", 5),
        ListedImage("a.jpg", "2", 7),
    ]
    with tables.transaction() as connection:
        assert ledger.merge_listing(connection, tables.batch, listed) == (2, 2)
    assert [(i.key, i.etag, i.size_bytes) for i in tables.list_work()] == [
        ("a.jpg", "2", 7),
        ("b.jpg", "1", 5),
    ]


def test_two_listings_in_one_transaction_stay_apart(tables: Any) -> None:
    other = tables.add("outlet")
    with tables.transaction() as connection:
        ledger.merge_listing(connection, tables.batch, [ListedImage("a.jpg", "1", 5)])
        ledger.merge_listing(connection, other, [ListedImage("b.jpg", "1", 5)])
    assert [i.key for i in tables.list_work()] == ["a.jpg"]
    assert [i.key for i in tables.list_work(other)] == ["b.jpg"]


def test_interrupted_listing_changes_nothing(tables: Any) -> None:
    def broken() -> Any:
        yield from (ListedImage(f"{n:06d}.jpg", "1", 5) for n in range(25_000))
        raise StorageError("S3 is gone")

    with pytest.raises(StorageError, match="gone"), tables.transaction() as connection:
        ledger.merge_listing(connection, tables.batch, broken())
    assert tables.query("SELECT * FROM fer.image") == []


@pytest.mark.parametrize("key", ["nul\0.jpg", "half\ud83d.jpg"])
def test_key_that_postgres_cannot_hold_is_named(tables: Any, key: str) -> None:
    with (
        pytest.raises(DatabaseError, match=r"(nul|half).*Rename"),
        tables.transaction() as connection,
    ):
        ledger.merge_listing(connection, tables.batch, [ListedImage(key, "1", 5)])


def test_concurrent_listings_of_one_day_agree(tables: Any) -> None:
    tables.list(["known.jpg"])  # so that the day has its partitions
    with ThreadPoolExecutor(1) as pool, tables.transaction() as connection:
        assert ledger.merge_listing(connection, tables.batch, [ListedImage("a.jpg", "1", 5)]) == (
            1,
            1,
        )
        waiting = pool.submit(tables.list, ["a.jpg", "b.jpg"])
        while not tables.is_anyone_waiting():
            assert not waiting.done()
        connection.commit()
        assert waiting.result(30) == (2, 2)  # a.jpg of the other listing has another ETag
    assert len(tables.list_work()) == 3


def test_large_listing_takes_bounded_memory(tables: Any) -> None:
    import tracemalloc

    def objects() -> Any:
        return (ListedImage(f"{n:0200d}.jpg", "1", 5) for n in range(60_000))

    tracemalloc.start()
    with tables.transaction() as connection:
        assert ledger.merge_listing(connection, tables.batch, objects()) == (60_000, 60_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # the listing itself is 15 MB


# Batches


def batch_row(tables: Any) -> Any:
    (row,) = tables.query("SELECT * FROM fer.batch")
    return row


def record(tables: Any, status: ledger.BatchStatus, day: int, **others: Any) -> None:
    with tables.transaction() as connection:
        ledger.record_batch(
            connection,
            tables.batch,
            status,
            run_id=f"run-{day}",
            attempted_at=datetime(2026, 3, day, tzinfo=UTC),
            **others,
        )


def test_failed_listing_never_overwrites_a_good_one(tables: Any) -> None:
    record(tables, "listed", 2, images=5, size_bytes=50)
    record(tables, "failed", 3, reason="S3 does not answer")
    row = batch_row(tables)
    assert (row.status, row.reason, row.run_id) == ("failed", "S3 does not answer", "run-3")
    assert (row.images_listed, row.bytes_listed) == (5, 50)
    assert (row.listed_at.day, row.attempted_at.day) == (2, 3)
    record(tables, "listed", 4, images=6, size_bytes=60)
    row = batch_row(tables)
    assert (row.status, row.reason, row.images_listed, row.listed_at.day) == ("listed", "", 6, 4)


@pytest.mark.parametrize("status", ["failed", "not_ready", "no_permission"])
def test_batch_that_was_never_listed_has_no_listing_time(tables: Any, status: Any) -> None:
    record(tables, status, 2, reason="because")
    assert batch_row(tables).listed_at is None


def test_run_begins_once(tables: Any) -> None:
    with tables.transaction() as connection:
        began = ledger.begin_run(connection, "run-1")
    with tables.transaction() as connection:
        assert ledger.begin_run(connection, "run-1") == began
        assert ledger.begin_run(connection, "run-2") > began


def test_missing_database_tables_are_named(postgres_url: str) -> None:
    engine = connections.create_engine(postgres_url)
    with (
        pytest.raises(DatabaseError, match="fer-batch db upgrade"),
        connections.transaction(engine) as connection,
    ):
        ledger.sync_facilities(connection, {})


def test_slow_listing_does_not_end_the_idle_session_and_no_upgrade_waits_for_it(
    tables: Any,
) -> None:
    idle = "idle_in_transaction_session_timeout"
    show = sa.text(f"SHOW {idle}")
    locked = (
        "SELECT c.relname FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
        " WHERE c.relnamespace = 'fer'::regnamespace"
    )

    def slow() -> Iterator[ListedImage]:
        time.sleep(1)  # as S3 may, page after page
        assert tables.query(locked) == []
        yield ListedImage("a.jpg", "etag-1", 1300)

    with tables.engine.connect() as connection:
        connection.execute(sa.text(f"SET LOCAL {idle} = '300ms'"))
        assert ledger.merge_listing(connection, tables.batch, slow()) == (1, 1)
        assert connection.execute(show).scalar_one() == "300ms"
        connection.rollback()
        connection.invalidate()
