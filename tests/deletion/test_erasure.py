"""Erasure: rows of an image, a day or a facility are deleted for good, and never written again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch.database import deletions, ledger, results
from fer_batch.deletion import erasure, replay, retention
from fer_batch.deletion.erasure import Target
from fer_batch.errors import ConfigurationError, RetryableError
from fer_batch.records import Batch, ImageScore, Outcome
from fer_batch.satisfaction import comparisons, periods
from tests.deletion.conftest import (
    DAY,
    NEXT,
    build_line,
    check,
    count_rows,
    list_summaries,
    read_newest,
)
from tests.fixtures.servers import SECRET
from tests.fixtures.tables import name_etag


def erase(tables: Any, *target: Any) -> list[erasure.ErasedDay]:
    return erasure.erase(tables.eraser, Target(*target), None, SECRET)


def test_erased_image_loses_all_its_rows(tables: Any, two_days: tuple[Batch, Batch]) -> None:
    old, _ = two_days
    before = list_summaries(tables)
    assert erase(tables, "north-mall", None, "000000.jpg") == [
        erasure.ErasedDay("north-mall", old.capture_day, 1, 1, 2),
        erasure.ErasedDay("north-mall", NEXT, 1, 1, 2),
    ]  # the same key on two days, which have no prefixes in this test
    assert count_rows(tables, old) == (39, 39, 39)
    after = read_newest(tables, old)
    # One face more or less would reveal it, so the published figure stays.
    assert (after.images, after.images_scored, after.faces_scored) == (40, 39, 39)
    assert (after.faces, after.called_happy_rate, after.method) == (40, 0.75, "benchmark")
    assert after.not_scored == {"erased": 1}
    assert after.is_complete
    assert [row for row in list_summaries(tables) if row.revision == 1] == before
    assert check(tables, *two_days) == []
    assert "000000" not in str(tables.query("SELECT * FROM fer.deletion"))


def test_erased_image_is_not_listed_again_whatever_its_content(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    old, _ = two_days
    erase(tables, "north-mall", None, "000000.jpg")
    assert tables.list({key: name_etag(key) for key in ("000000.jpg", "000001.jpg")}, old) == (2, 0)
    assert tables.list({"000000.jpg": "etag-2", "new.jpg": "etag-1"}, old) == (2, 1)
    assert [image.key for image in tables.list_work(old)] == ["new.jpg"]
    assert erase(tables, "north-mall", None, "000000.jpg") == []


def test_an_erased_image_is_skipped_in_whatever_facility_of_its_bucket(tables: Any) -> None:
    """The id of a facility changes, or it is split; its images stay where they are."""
    key = "door/2026-03-01/000000.jpg"
    tables.add("old", bucket="images", key_template="door/{capture_day:%Y-%m-%d}/")
    tables.list([key, "000001.jpg"], Batch("old", DAY))
    erase(tables, "old", None, key)
    elsewhere = tables.add("other", bucket="others", key_template="{capture_day:%Y-%m-%d}/")
    assert tables.list([key], elsewhere) == (1, 1)  # another image, of the same key
    for later, expected in ((0, 0), (1, 0), (30, 1)):  # by another clock, the day is a neighbor
        for bucket in (None, "Images"):
            tables.add("new", bucket=bucket, key_template="door/{capture_day:%Y-%m-%d}/")
            assert tables.list([key], Batch("new", DAY + timedelta(later))) == (1, expected)
            expected = 0  # listed before
    with tables.transaction() as connection:
        # Whole days: under the former id only.
        erase(tables, "old", DAY)
        days = [Batch("new", DAY), Batch("other", DAY), Batch("new", NEXT)]
        assert deletions.load_erased_days(connection, days) == set()
        del tables.facilities["old"]
        ledger.sync_facilities(connection, tables.facilities)
        assert deletions.load_erased_days(connection, days) == {Batch("new", DAY)}


def test_chunk_in_progress_does_not_restore_an_erased_image(tables: Any) -> None:
    tables.list(["a.jpg", "b.jpg"])
    scores = [tables.build_score(image) for image in tables.list_work()]
    erase(tables, "north-mall", None, "a.jpg")
    assert tables.write(*scores) == 1
    assert count_rows(tables, tables.batch) == (1, 1, 1)
    tables.summarize()
    assert read_newest(tables, tables.batch).not_scored == {"erased": 1}
    assert check(tables, tables.batch) == []


def test_summary_of_an_erased_day_counts_the_erased_images(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    old, new = two_days
    assert erase(tables, "north-mall", DAY) == [erasure.ErasedDay("north-mall", DAY, 40, 40, 2)]
    assert count_rows(tables, old) == (0, 0, 0)
    assert count_rows(tables, new) == (50, 50, 50)
    after = read_newest(tables, old)
    assert (after.images, after.images_scored, after.faces) == (40, 0, 0)
    assert (after.verdict, after.not_scored) == ("suppressed", {"erased": 40})
    assert check(tables, old, new) == []
    with tables.transaction() as connection:
        assert retention.filter_deleted(connection, [new, old], NEXT) == [new]
        # The days of its lookback are processed even if nothing is left of the capture day.
        earlier = Batch("north-mall", DAY - timedelta(1))
        assert retention.filter_deleted(connection, [old, earlier], DAY) == [earlier]
        with pytest.raises(ConfigurationError, match="erased for every facility"):
            retention.filter_deleted(connection, [old], DAY)
    with pytest.raises(RetryableError):
        tables.list(["000000.jpg"], old)
    assert erase(tables, "north-mall", DAY) == []


@pytest.mark.parametrize("publish_period", ["day", "week"])
def test_erasure_does_not_publish_a_day_that_waits_for_images(
    tables: Any, tmp_path: Path, publish_period: str
) -> None:
    batch = tables.add("kiosk", publish_period=publish_period)
    tables.fill(30, 10, batch)
    tables.list([*(f"{n:06d}.jpg" for n in range(40)), "late.jpg"], batch)
    (late,) = tables.list_work(batch)
    tables.write(ImageScore(late, Outcome.FETCH_FAILED))
    assert tables.summarize(batch, due_until=DAY - timedelta(1))[0]["verdict"] == "pending"
    erase(tables, "kiosk", None, "000000.jpg")
    unlisted = Target("kiosk", None, "000001.jpg")
    erasure.erase_unlisted(tables.eraser, unlisted, None, SECRET)
    absent = build_line(facility_id="kiosk", key_hmac=SECRET.hash_key("2.jpg"))
    replay.replay(tables.eraser, [absent], tmp_path / "log", SECRET)
    after = read_newest(tables, batch)
    assert (after.verdict, after.happy_rate, after.images) == ("pending", None, 42)
    # The last night of its lookback publishes it, and then it stays published.
    tables.summarize(batch, due_until=DAY)
    erase(tables, "kiosk", None, "000003.jpg")
    after = read_newest(tables, batch)
    expected = (
        ("suppressed", "suppressed") if publish_period == "week" else ("benchmark", "no target")
    )
    assert (after.method, after.verdict) == expected


def test_erasing_a_facility_keeps_the_others(tables: Any, two_days: tuple[Batch, Batch]) -> None:
    outlet = tables.add("outlet")
    tables.fill(5, 5, outlet)
    tables.execute("UPDATE fer.facility SET is_in_registry = false WHERE facility_id <> 'outlet'")
    assert [day.capture_day for day in erase(tables, "north-mall")] == [DAY, NEXT]
    assert {count_rows(tables, batch) for batch in two_days} == {(0, 0, 0)}
    assert count_rows(tables, outlet) == (10, 10, 10)
    later = Batch("north-mall", NEXT + timedelta(1))
    assert tables.list(["a.jpg"], later) == (1, 1)  # images listed with a new permission are read


def test_results_of_every_model_version_are_erased(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    other = "b" * 64
    with tables.transaction() as connection:
        results.register_model_version(connection, other, {"format": 1}, {"name": "other"})
    images = tables.list_work(two_days[0], model_version=other)
    tables.write(*(tables.build_score(image) for image in images), model_version=other)
    tables.summarize(two_days[0], model_version=other)
    erased = erase(tables, "north-mall", DAY)
    assert erased == [erasure.ErasedDay("north-mall", DAY, 40, 80, 3)]
    assert read_newest(tables, two_days[0]).model_version == other


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (("north-mall", None, "000.jpg"), "no image with that key"),
        (("north-mall", date(2026, 1, 1), None), "no image of that day"),
        (("zoo", None, None), "no image of facility 'zoo'"),
    ],
)
def test_unknown_target_is_rejected_and_not_reported_as_erased(
    tables: Any, two_days: tuple[Batch, Batch], target: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        erase(tables, *target)
    assert tables.query("SELECT * FROM fer.deletion") == []


def test_concurrent_erasures_delete_once(tables: Any, two_days: tuple[Batch, Batch]) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(erase, tables, "north-mall", DAY) for _ in range(2)]
        images = [sum(day.images for day in one.result()) for one in both]
    assert sorted(images) == [0, 40]
    assert read_newest(tables, two_days[0]).not_scored == {"erased": 40}


def test_days_and_images_in_dropped_partitions_count_once(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    """Erasure of an image, then of its day, then retention: the counts stay correct."""
    old, _ = two_days
    tables.list({"extra.jpg": "1"}, old)
    tables.write(tables.build_score(tables.build_image("extra.jpg", "1", old)))
    tables.summarize(old)
    erase(tables, "north-mall", None, "extra.jpg")
    erase(tables, "north-mall", DAY)
    assert read_newest(tables, old).not_scored == {"erased": 41}
    before = list_summaries(tables)
    retention.retain(tables.retainer, NEXT)
    assert list_summaries(tables) == before
    assert check(tables, *two_days) == []


# An empty day


def test_an_empty_day_is_withdrawn_and_may_be_listed_later(tables: Any) -> None:
    """A day that was processed by mistake, in the future or not, leaves no trace."""
    monday = date(2026, 3, 2)
    tables.fill(30, 10, Batch("north-mall", monday))
    mistake = Batch("north-mall", monday + timedelta(6))
    tables.list([], mistake)
    summaries = tables.summarize(Batch("north-mall", monday), mistake)
    assert [row["images"] for row in summaries] == [40, 0]
    tables.list(
        [], Batch("north-mall", monday + timedelta(5))
    )  # another empty day, without summary
    assert erase(tables, "north-mall", mistake.capture_day) == [
        erasure.ErasedDay("north-mall", mistake.capture_day, 0, 0, None)
    ]
    days = tables.query("SELECT capture_day FROM fer.batch ORDER BY 1")
    assert [day for (day,) in days] == [monday, monday + timedelta(5)]
    assert [row.capture_day for row in list_summaries(tables)] == [monday]
    assert tables.query("SELECT * FROM fer.deletion") == []
    with pytest.raises(ConfigurationError, match="no image of that day"):
        erase(tables, "north-mall", mistake.capture_day)
    assert tables.list(["a.jpg"], mistake) == (1, 1)


def test_a_withdrawn_day_leaves_its_week_and_its_changes(tables: Any) -> None:
    monday = date(2026, 3, 2)
    days = [Batch("north-mall", monday + timedelta(n)) for n in range(3)]
    for day in days[:2]:
        tables.fill(30, 10, day)
    mistakes = [days[2], Batch("north-mall", monday + timedelta(14))]
    for mistake in mistakes:
        tables.list([], mistake)
    tables.summarize(*days, mistakes[1])
    with tables.transaction() as connection:
        for write in (periods.write_period_summaries, comparisons.write_changes):
            write(connection, [*days, mistakes[1]], tables.facilities, "run-1")
    for mistake in mistakes:
        erase(tables, "north-mall", mistake.capture_day)
    weeks = "SELECT last_day, faces FROM fer.satisfaction_period WHERE period = 'week'"
    assert tables.query(weeks) == [(monday + timedelta(6), 80)]
    assert check(tables, *days) == []


def test_a_day_that_was_not_listed_is_withdrawn_too(tables: Any) -> None:
    with tables.transaction() as connection:
        ledger.record_batch(
            connection, tables.batch, "not_ready", run_id="r", attempted_at=datetime.now(UTC)
        )
    assert len(erase(tables, "north-mall", tables.batch.capture_day)) == 1
    assert tables.query("SELECT * FROM fer.batch") == []


def test_a_deleted_day_is_not_empty(tables: Any, two_days: tuple[Batch, Batch]) -> None:
    old, _ = two_days
    erase(tables, "north-mall", NEXT)
    assert erase(tables, "north-mall", NEXT) == []
    for n in range(40):
        erase(tables, "north-mall", None, f"{n:06d}.jpg")
    with pytest.raises(ConfigurationError):
        erase(tables, "north-mall", old.capture_day)
    retention.retain(tables.retainer, NEXT)
    with pytest.raises(ConfigurationError):
        erase(tables, "north-mall", old.capture_day)
    assert tables.query("SELECT count(*) FROM fer.batch") == [(2,)]
