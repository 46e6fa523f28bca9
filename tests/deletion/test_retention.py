"""Retention: rows of old days are dropped for good, and no run lists such a day again."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from threading import Event
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from fer_batch.database import connections, deletions, ledger
from fer_batch.deletion import expired_rows, retention
from fer_batch.errors import ConfigurationError, LockTimeoutError, RetryableError
from fer_batch.findings import history
from fer_batch.records import Batch, ListedImage
from fer_batch.satisfaction import audits
from tests.deletion.conftest import (
    DAY,
    NEXT,
    PER_IMAGE,
    check,
    count_rows,
    list_partitions,
    list_summaries,
)
from tests.fixtures.servers import INSPECTOR, RETAINER
from tests.support.audits import build_insert


def test_days_before_a_day_are_dropped_and_their_summaries_stay(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    before = list_summaries(tables)
    dropped = [retention.DroppedDay(DAY, 40, 40)]
    assert retention.find_expired(tables.retainer, NEXT) == dropped
    assert count_rows(tables, two_days[0]) == (40, 40, 40)
    assert retention.retain(tables.retainer, NEXT) == dropped
    assert count_rows(tables, two_days[0]) == (0, 0, 0)
    assert count_rows(tables, two_days[1]) == (50, 50, 50)
    assert list_partitions(tables) == [f"{table}_2026_03_02" for table in sorted(PER_IMAGE)]
    assert list_summaries(tables) == before
    assert check(tables, *two_days) == []
    assert retention.find_expired(tables.retainer, NEXT) == []
    assert retention.retain(tables.retainer, NEXT) == []
    recorded = "SELECT kind, facility_id, capture_day, images, faces FROM fer.deletion"
    assert tables.query(recorded) == [("retention", None, DAY, 40, 40)]


def test_labels_of_a_dropped_day_lead_to_no_image(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    """They still count in the confusion matrix of their audit; the other day's faces stay whole."""
    number = build_insert(tables)([[40, 0, 0], [0, 50, 0], [0, 0, 0]], DAY, date(2026, 9, 1))
    tables.execute(
        "UPDATE fer.audit_face AS a SET capture_day = i.capture_day, image_key = i.image_key,"
        " member = '', etag = i.etag, size_bytes = 1, face_index = 0, box_x = 0, box_y = 0,"
        " box_width = 48, box_height = 48, session_number = 1"
        " FROM (SELECT *, row_number() OVER (ORDER BY capture_day, image_key) AS n FROM fer.image)"
        " AS i WHERE i.n = a.face_number"
    )
    retention.retain(tables.retainer, NEXT)
    kept = (
        "SELECT capture_day, count(image_key), count(*) FROM fer.audit_face GROUP BY 1 ORDER BY 1"
    )
    assert tables.query(kept) == [(NEXT, 50, 50), (None, 0, 40)]
    with tables.transaction() as connection:
        (audit,) = audits.load_audits(connection, "north-mall", tables.version)
    assert (audit.audit_id, audit.labels) == (number, 90)


def test_dropped_day_is_neither_listed_nor_summarized_again(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    retention.retain(tables.retainer, NEXT)
    before = list_summaries(tables)
    with pytest.raises(RetryableError, match="deleted during this run"):
        tables.list(["000000.jpg"], two_days[0])
    assert tables.list_work(two_days[0]) == []
    assert tables.summarize(two_days[0]) == []
    assert list_summaries(tables) == before
    assert list_partitions(tables) == [f"{table}_2026_03_02" for table in sorted(PER_IMAGE)]


def test_run_skips_dropped_days_of_the_lookback_and_rejects_a_dropped_capture_day(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    retention.retain(tables.retainer, NEXT)
    old, new = two_days
    with tables.transaction() as connection:
        assert retention.filter_deleted(connection, [new, old], NEXT) == [new]
        with pytest.raises(ConfigurationError, match="all days before 2026-03-02"):
            retention.filter_deleted(connection, [old], DAY)


def test_the_horizon_only_moves_forward(tables: Any) -> None:
    for before in (NEXT, DAY, NEXT):
        retention.retain(tables.retainer, before)
    with tables.transaction() as connection:
        assert deletions.load_horizon(connection) == NEXT
    with pytest.raises(sa.exc.IntegrityError, match="never changed"):
        tables.execute("DELETE FROM fer.retention")


def test_an_open_transaction_keeps_a_day_whole_until_the_next_run(
    tables: Any, two_days: tuple[Batch, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PATIENCE_S", 0)
    with tables.connect(INSPECTOR).connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM fer.image"))
        with pytest.raises(LockTimeoutError, match=f"2026-03-01 .*user {INSPECTOR}, fer-batch"):
            retention.retain(tables.retainer, NEXT)
        assert count_rows(tables, two_days[0]) == (40, 40, 40)
        tables.fill(1, 1, Batch("north-mall", NEXT + timedelta(1)))  # waits for nobody
    assert retention.retain(tables.retainer, NEXT) == [retention.DroppedDay(DAY, 40, 40)]
    assert [name for name in list_partitions(tables) if name.endswith("03_01")] == []


def test_a_day_waits_for_the_findings_before_anybody_waits_for_it(
    tables: Any, two_days: tuple[Batch, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night that stores its findings, or an erasure, holds their lock."""
    monkeypatch.setattr(retention, "PATIENCE_S", 0)
    failing = {**retention._STATEMENTS, "drop_day": sa.text("SELECT 1 / 0")}
    monkeypatch.setattr(retention, "_STATEMENTS", failing)
    with tables.connect(INSPECTOR).connect() as night:
        connections.lock(night, "findings")
        with pytest.raises(LockTimeoutError, match=f"2026-03-01 .*user {INSPECTOR}, fer-batch"):
            retention.retain(tables.retainer, NEXT)


def test_no_table_is_scanned_while_others_wait(tables: Any) -> None:
    of_day = {"capture_day": DAY, "facility_id": None}
    statements: list[tuple[str, str, Any]] = [
        (
            "audit_face_day",  # in fer.drop_day
            "UPDATE fer.audit_face SET image_key = NULL WHERE capture_day = :capture_day",
            of_day,
        ),
        ("checked_day_day", history._STATEMENTS["forget_days"].text, of_day),
        (
            "satisfaction_summary_of_audit",
            expired_rows._STATEMENTS["find_audits"].text,
            {"before": DAY},
        ),
        (
            "satisfaction_summary_of_audit",
            expired_rows._STATEMENTS["delete_audits"].text,
            {"before": DAY, "days": [DAY]},
        ),
    ]
    with tables.admin.begin() as connection:
        # Small tables are scanned otherwise.
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        for index, statement, parameters in statements:
            plan = connection.execute(sa.text(f"EXPLAIN {statement}"), parameters).scalars()
            assert f" {index} " in "\n".join(plan)


def test_a_day_before_our_era_has_no_tables(tables: Any, two_days: tuple[Batch, Batch]) -> None:
    """Their names would be those of a day that is still kept."""
    retainer = tables.connect(RETAINER)
    retention.set_horizon(retainer, "rows", DAY)
    assert tables.query("SELECT images FROM fer.count_day('2026-03-01 BC')") == [(0,)]
    with (
        pytest.raises(sa.exc.DBAPIError, match="not before the retention horizon"),
        retainer.begin() as connection,
    ):
        connection.execute(sa.text("SELECT fer.drop_day('2026-03-01 BC')"))
    assert count_rows(tables, two_days[0]) == (40, 40, 40)


def test_a_day_that_an_earlier_version_left_half_detached_is_dropped(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    detach = "ALTER TABLE fer.{0} DETACH PARTITION fer.{0}_2026_03_01 {1}"
    tables.execute(detach.format("image_result", ""))
    with tables.admin.connect() as reader, psycopg.connect(tables.admin_url) as owner:
        reader.execute(sa.text("SELECT count(*) FROM fer.image"))
        owner.autocommit = True
        owner.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            owner.execute(detach.format("image", "CONCURRENTLY").encode())
    assert count_rows(tables, two_days[0]) == (0, 0, 40)  # half there
    assert tables.query("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == [(1,)]
    assert retention.retain(tables.retainer, NEXT) == [retention.DroppedDay(DAY, 40, 40)]
    assert list_partitions(tables) == [f"{table}_2026_03_02" for table in sorted(PER_IMAGE)]


def test_others_neither_fail_nor_see_a_part_of_a_day(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    """Readers in loops, whose transactions lock the tables in different orders, and a writer.

    Two processes drop the day at once.
    """
    done, seen = Event(), set()

    def read(names: tuple[str, ...]) -> None:
        while not done.is_set():
            with tables.transaction() as connection:
                count = "SELECT count(*) FROM fer.{} WHERE capture_day = '2026-03-01'"
                counts = {
                    connection.execute(sa.text(count.format(name))).scalar_one() for name in names
                }
            seen.add(tuple(counts))

    def write() -> None:
        for number in itertools.count():
            if done.is_set():
                break
            tables.list([f"late-{number}.jpg"], Batch("north-mall", NEXT))

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(read, PER_IMAGE), pool.submit(read, PER_IMAGE[::-1])]
        others.append(pool.submit(write))
        try:
            both = [pool.submit(retention.retain, tables.retainer, NEXT) for _ in range(2)]
            dropped = [day for each in both for day in each.result()]
        finally:
            done.set()
        for other in others:
            other.result()
    assert dropped == [retention.DroppedDay(DAY, 40, 40)]
    assert seen <= {(40,), (0,)}
    assert tables.query("SELECT images FROM fer.deletion") == [(40,)]


def test_retention_waits_for_a_listing_that_has_begun(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:

    with ThreadPoolExecutor() as pool:
        with tables.transaction() as connection:
            ledger.merge_listing(connection, two_days[0], [ListedImage("late.jpg", "1", 5)])
            retained = pool.submit(retention.retain, tables.retainer, NEXT)
            while not tables.is_anyone_waiting():
                assert not retained.done()
        assert retained.result() == [retention.DroppedDay(DAY, 41, 40)]
    assert count_rows(tables, two_days[0]) == (0, 0, 0)
