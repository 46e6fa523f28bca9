"""Old days are dropped and erased images deleted, and nothing brings either back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch import checks, erasure, ledger, results, retention
from fer_batch.erasure import Target
from fer_batch.errors import ConfigurationError, DatabaseUnavailableError, RetryableError
from fer_batch.records import Batch

DAY = date(2026, 3, 1)
NEXT = DAY + timedelta(1)
PER_IMAGE = ("image", "image_result", "face_result")


def counts(tables: Any, batch: Batch) -> tuple[int, ...]:
    """Rows per image of a batch, table by table."""
    where = "WHERE facility_id = :facility_id AND capture_day = :capture_day"
    return tuple(
        tables.rows(
            f"SELECT count(*) FROM fer.{table} {where}",  # noqa: S608
            facility_id=batch.facility_id,
            capture_day=batch.capture_day,
        )[0][0]
        for table in PER_IMAGE
    )


def partitions(tables: Any) -> list[str]:
    """The tables of single days, attached or not."""
    found = tables.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'fer'::regnamespace"
        " AND relkind = 'r' AND relname ~ '_[0-9]{4}_[0-9]{2}_[0-9]{2}$' ORDER BY 1"
    )
    return [name for (name,) in found]


def summaries(tables: Any) -> list[Any]:
    return list(tables.rows("SELECT * FROM fer.satisfaction_summary ORDER BY 1, 2, 3"))


def newest(tables: Any, batch: Batch) -> Any:
    return tables.rows(
        "SELECT * FROM fer.satisfaction_daily"
        " WHERE facility_id = :facility_id AND capture_day = :capture_day",
        facility_id=batch.facility_id,
        capture_day=batch.capture_day,
    )[0]


def findings(tables: Any, *batches: Batch) -> list[dict[str, Any]]:
    return checks.run(tables.engine, batches, tables.version, "run-1")


def erase(tables: Any, *target: Any) -> list[erasure.ErasedDay]:
    return erasure.erase(tables.engine, Target(*target))


@pytest.fixture
def two_days(tables: Any) -> tuple[Batch, Batch]:
    """Two days of 40 and 50 scored images, with their summaries."""
    old, new = Batch("north-mall", DAY), Batch("north-mall", NEXT)
    tables.fill(30, 10, old)
    tables.fill(20, 30, new)
    tables.summarise(old, new)
    return old, new


# Retention


def test_days_before_a_day_are_dropped_and_their_summaries_stay(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    before = summaries(tables)
    dropped = [retention.DroppedDay(DAY, 40, 40)]
    assert retention.expired(tables.url, NEXT) == dropped
    assert counts(tables, two_days[0]) == (40, 40, 40)
    assert retention.retain(tables.url, NEXT) == dropped
    assert counts(tables, two_days[0]) == (0, 0, 0)
    assert counts(tables, two_days[1]) == (50, 50, 50)
    assert partitions(tables) == [f"{table}_2026_03_02" for table in sorted(PER_IMAGE)]
    assert summaries(tables) == before
    assert findings(tables, *two_days) == []
    assert retention.expired(tables.url, NEXT) == retention.retain(tables.url, NEXT) == []
    recorded = "SELECT kind, facility_id, capture_day, images, faces FROM fer.deletion"
    assert tables.rows(recorded) == [("retention", None, DAY, 40, 40)]


def test_dropped_day_is_neither_listed_nor_summarised_again(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    retention.retain(tables.url, NEXT)
    before = summaries(tables)
    with pytest.raises(RetryableError, match="deleted meanwhile"):
        tables.list(["000000.jpg"], two_days[0])
    assert tables.work(two_days[0]) == []
    assert tables.summarise(two_days[0]) == []
    assert summaries(tables) == before
    assert partitions(tables) == [f"{table}_2026_03_02" for table in sorted(PER_IMAGE)]


def test_a_lookback_leaves_dropped_days_out_and_a_run_about_one_is_refused(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    retention.retain(tables.url, NEXT)
    old, new = two_days
    with tables.transaction() as connection:
        assert retention.without_deleted(connection, [new, old], NEXT) == [new]
        with pytest.raises(ConfigurationError, match="all days before 2026-03-02"):
            retention.without_deleted(connection, [old], DAY)


def test_the_horizon_only_moves_forward(tables: Any) -> None:
    for before in (NEXT, DAY, NEXT):
        retention.retain(tables.url, before)
    with tables.transaction() as connection:
        assert retention.horizon(connection) == NEXT
    with pytest.raises(sa.exc.IntegrityError, match="never changed"):
        tables.execute("DELETE FROM fer.retention")


def test_a_reader_holds_up_only_the_retention(
    tables: Any, two_days: tuple[Batch, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOCK_TIMEOUT_S", 0.2)
    with tables.engine.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM fer.image"))
        with pytest.raises(DatabaseUnavailableError):
            retention.retain(tables.url, NEXT)
        # Half detached, it hinders nobody.
        tables.fill(1, 1, Batch("north-mall", NEXT + timedelta(1)))
        assert counts(tables, two_days[1]) == (50, 50, 50)
    assert retention.retain(tables.url, NEXT) == [retention.DroppedDay(DAY, 40, 40)]
    assert [name for name in partitions(tables) if name.endswith("03_01")] == []


def test_what_a_retention_that_died_has_detached_is_dropped(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    tables.execute("ALTER TABLE fer.image DETACH PARTITION fer.image_2026_03_01")
    tables.execute("ALTER TABLE fer.image_result DETACH PARTITION fer.image_result_2026_03_01")
    tables.execute("DROP TABLE fer.image_result_2026_03_01")
    assert retention.retain(tables.url, NEXT) == [retention.DroppedDay(DAY, 40, 40)]
    assert partitions(tables) == [f"{table}_2026_03_02" for table in sorted(PER_IMAGE)]


def test_a_retention_waits_for_a_listing_that_saw_the_day_open(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:

    with ThreadPoolExecutor() as pool:
        with tables.transaction() as connection:
            ledger.merge_listing(connection, two_days[0], [("late.jpg", "1", 5)])
            retained = pool.submit(retention.retain, tables.url, NEXT)
            while not tables.someone_waits():
                assert not retained.done()
        assert retained.result() == [retention.DroppedDay(DAY, 41, 40)]
    assert counts(tables, two_days[0]) == (0, 0, 0)


# Erasure


def test_an_image_is_erased_with_all_that_was_said_of_it(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    old, _ = two_days
    before = summaries(tables)
    assert erase(tables, "north-mall", None, "000000.jpg") == [
        erasure.ErasedDay("north-mall", old.capture_day, 1, 1, 2),
        erasure.ErasedDay("north-mall", NEXT, 1, 1, 2),
    ]  # the same key on two days: here the days have no prefixes of their own
    assert counts(tables, old) == (39, 39, 39)
    after = newest(tables, old)
    assert (after.images, after.images_scored, after.happy, after.sad) == (40, 39, 29, 10)
    assert after.not_scored == {"erased": 1}
    assert after.is_complete
    assert [row for row in summaries(tables) if row.revision == 1] == before
    assert findings(tables, *two_days) == []
    assert "000000" not in str(tables.rows("SELECT * FROM fer.deletion"))


def test_an_erased_image_is_not_listed_again_whatever_its_content(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    old, _ = two_days
    erase(tables, "north-mall", None, "000000.jpg")
    assert tables.list({"000000.jpg": "etag-1", "000001.jpg": "etag-1"}, old) == (2, 0)
    assert tables.list({"000000.jpg": "etag-2", "new.jpg": "etag-1"}, old) == (2, 1)
    assert [image.key for image in tables.work(old)] == ["new.jpg"]
    assert erase(tables, "north-mall", None, "000000.jpg") == []
    other = tables.add("outlet")  # whose image of that name is another one
    assert tables.list({"000000.jpg": "etag-1"}, other) == (1, 1)


def test_a_chunk_that_was_being_scored_does_not_bring_an_image_back(tables: Any) -> None:
    tables.list(["a.jpg", "b.jpg"])
    scores = [tables.scored(image) for image in tables.work()]
    erase(tables, "north-mall", None, "a.jpg")
    assert tables.write(*scores) == 1
    assert counts(tables, tables.batch) == (1, 1, 1)
    tables.summarise()
    assert newest(tables, tables.batch).not_scored == {"erased": 1}
    assert findings(tables, tables.batch) == []


def test_a_day_is_erased_and_says_how_much_is_gone(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    old, new = two_days
    assert erase(tables, "north-mall", DAY) == [erasure.ErasedDay("north-mall", DAY, 40, 40, 2)]
    assert counts(tables, old) == (0, 0, 0)
    assert counts(tables, new) == (50, 50, 50)
    after = newest(tables, old)
    assert (after.images, after.images_scored, after.faces) == (40, 0, 0)
    assert (after.verdict, after.not_scored) == ("suppressed", {"erased": 40})
    assert findings(tables, old, new) == []
    with tables.transaction() as connection:
        assert retention.without_deleted(connection, [new, old], NEXT) == [new]
        with pytest.raises(ConfigurationError, match="erased for every facility"):
            retention.without_deleted(connection, [old], DAY)
    with pytest.raises(RetryableError):
        tables.list(["000000.jpg"], old)
    assert erase(tables, "north-mall", DAY) == []


def test_a_facility_is_erased_and_the_others_stay(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    outlet = tables.add("outlet")
    tables.fill(5, 5, outlet)
    tables.execute("UPDATE fer.facility SET is_in_registry = false WHERE facility_id <> 'outlet'")
    assert [day.capture_day for day in erase(tables, "north-mall")] == [DAY, NEXT]
    assert {counts(tables, batch) for batch in two_days} == {(0, 0, 0)}
    assert counts(tables, outlet) == (10, 10, 10)
    later = Batch("north-mall", NEXT + timedelta(1))
    assert tables.list(["a.jpg"], later) == (1, 1)  # what comes with a new permission is read


def test_results_of_every_model_version_are_erased(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    other = "b" * 64
    with tables.transaction() as connection:
        results.register_model_version(connection, other, {"format": 1}, {"name": "other"})
    images = tables.work(two_days[0], model_version=other)
    tables.write(*(tables.scored(image) for image in images), model_version=other)
    tables.summarise(two_days[0], model_version=other)
    erased = erase(tables, "north-mall", DAY)
    assert erased == [erasure.ErasedDay("north-mall", DAY, 40, 80, 3)]
    assert newest(tables, two_days[0]).model_version == other


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (("north-mall", None, "000.jpg"), "no image with that key"),
        (("north-mall", date(2026, 1, 1), None), "no image of that day"),
        (("zoo", None, None), "no image of facility 'zoo'"),
    ],
)
def test_what_is_not_there_is_not_taken_for_erased(
    tables: Any, two_days: tuple[Batch, Batch], target: Any, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        erase(tables, *target)
    assert tables.rows("SELECT * FROM fer.deletion") == []


def test_two_who_erase_the_same_at_once(tables: Any, two_days: tuple[Batch, Batch]) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(erase, tables, "north-mall", DAY) for _ in range(2)]
        images = [sum(day.images for day in one.result()) for one in both]
    assert sorted(images) == [0, 40]
    assert newest(tables, two_days[0]).not_scored == {"erased": 40}


def test_days_and_images_in_dropped_partitions_count_once(
    tables: Any, two_days: tuple[Batch, Batch]
) -> None:
    """Erasure of an image, then of its day, then retention: numbers stay whole all along."""
    old, _ = two_days
    tables.list({"extra.jpg": "1"}, old)
    tables.write(tables.scored(tables.image("extra.jpg", "1", old)))
    tables.summarise(old)
    erase(tables, "north-mall", None, "extra.jpg")
    erase(tables, "north-mall", DAY)
    assert newest(tables, old).not_scored == {"erased": 41}
    before = summaries(tables)
    retention.retain(tables.url, NEXT)
    assert summaries(tables) == before
    assert findings(tables, *two_days) == []
