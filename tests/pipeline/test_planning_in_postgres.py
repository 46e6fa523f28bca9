"""Shards planned from the tables: every unfinished image is in exactly one key range."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_batch.database import ledger, schema
from fer_batch.pipeline import planning
from fer_batch.pipeline.jobs import SHARDS, dump_json
from fer_batch.records import Batch, Image, Shard
from fer_batch.settings import Settings


def plan(
    tables: Any, *batches: Batch, shard_images: int = 100, max_shards: int = 64, **params: Any
) -> list[Shard]:
    limits = Settings(_env_file=None, shard_images=shard_images, max_shards=max_shards)
    with tables.transaction() as connection:
        return planning.plan_shards(
            connection, batches, tables.facilities, limits, tables.version, **params
        )


def images_of(tables: Any, shards: list[Shard]) -> Counter[Image]:
    """The images that scoring would find, and how often."""
    images: Counter[Image] = Counter()
    with tables.transaction() as connection:
        for key_range in (r for shard in shards for r in shard.ranges):
            page = ledger.list_unfinished(connection, key_range, tables.version, limit=10_000)
            assert len(page) == key_range.image_count
            images.update(page)
    return images


def names(shards: list[Shard]) -> list[str]:
    return [shard.name for shard in shards]


def test_shards_have_readable_names(tables: Any) -> None:
    tables.list([f"{n:04d}.jpg" for n in range(300)])
    kiosk, stand = tables.add("kiosk"), tables.add("stand")
    tables.list(["a.jpg", "b.jpg"], kiosk)
    tables.list(["a.jpg"], stand)
    assert names(plan(tables, tables.batch)) == [
        f"north-mall {n} of 3 · 100 images" for n in (1, 2, 3)
    ]
    assert names(plan(tables, kiosk, stand)) == ["2 facilities · 3 images"]
    assert names(plan(tables, stand)) == ["stand · 1 image"]
    assert names(plan(tables, tables.batch, kiosk, shard_images=200)) == [
        "north-mall 1 of 2 · 151 images",
        "2 facilities with north-mall 2 of 2 · 151 images",
    ]


def test_names_distinguish_several_days(tables: Any) -> None:
    before = replace(tables.batch, capture_day=tables.batch.capture_day - timedelta(1))
    tables.list([f"{n:04d}.jpg" for n in range(200)])
    tables.list(["a.jpg"], before)
    assert names(plan(tables, tables.batch, before, shard_images=101)) == [
        "north-mall 2026-03-01 1 of 2 · 100 images",
        "north-mall 2 days with north-mall 2026-03-01 2 of 2 · 101 images",
    ]
    assert names(plan(tables, before)) == ["north-mall · 1 image"]


def test_names_are_unique_in_a_run(tables: Any) -> None:
    batches = [tables.add(f"kiosk-{n}") for n in range(6)]
    for batch in batches:
        tables.list([f"{n}.jpg" for n in range(10)], batch)
    shards = plan(tables, *batches, shard_images=20)
    assert names(shards) == [
        "2 facilities · 20 images",
        "2 facilities (2) · 20 images",
        "2 facilities (3) · 20 images",
    ]


def test_frames_weigh_more(tables: Any) -> None:
    frames = tables.add("frames", image_kind="frames")
    tables.list([f"{n:04d}.jpg" for n in range(100)], frames)
    assert len(plan(tables, frames, shard_images=100)) == planning.WORK_PER_IMAGE["frames"]


def test_finished_images_are_not_planned(tables: Any) -> None:
    tables.list([f"{n:04d}.jpg" for n in range(10)])
    work = tables.list_work()
    tables.write(*map(tables.build_score, work[2:5]))
    (shard,) = plan(tables, tables.batch)
    assert shard.image_count == 7
    assert sorted(images_of(tables, [shard]), key=lambda i: i.key) == work[:2] + work[5:]
    tables.write(*map(tables.build_score, tables.list_work()))
    assert plan(tables, tables.batch) == []


def test_rescoring_plans_finished_images(tables: Any) -> None:
    tables.fill(happy=5, sad=5)
    assert plan(tables, tables.batch) == []
    with tables.transaction() as connection:
        began = ledger.begin_run(connection, "again")
    (shard,) = plan(tables, tables.batch, rescore_before=began)
    assert shard.image_count == 10


def test_batch_that_was_never_listed_is_no_shard(tables: Any) -> None:
    assert plan(tables, tables.batch) == []


@pytest.mark.parametrize(("status", "shards"), [("no_permission", 0), ("failed", 1)])
def test_images_are_not_planned_once_the_permission_has_ended(
    tables: Any, status: Any, shards: int
) -> None:
    tables.list(["a.jpg"])
    with tables.transaction() as connection:
        ledger.record_batch(
            connection,
            tables.batch,
            status,
            run_id="r",
            attempted_at=ledger.begin_run(connection, "r"),
        )
    assert len(plan(tables, tables.batch)) == shards


def test_slice_that_another_run_finishes_is_left_out(
    tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.list([f"{n:04d}.jpg" for n in range(30)])
    decide = planning.cut_shards

    def late(*arguments: Any) -> Any:
        slices = decide(*arguments)
        tables.write(*map(tables.build_score, tables.list_work()[:25]))
        return slices

    monkeypatch.setattr(planning, "cut_shards", late)
    shards = plan(tables, tables.batch, shard_images=10)
    assert sum(images_of(tables, shards).values()) == 5


def test_a_thousand_facilities_become_at_most_64_tasks_of_similar_work(tables: Any) -> None:
    # The largest has 6,000 images of 30,000, half of all facilities fewer than 10.
    images = {f"shop-{n:04}": round(5980 / (n + 1)) + n % 3 for n in range(1000)}
    tables.facilities = {name: tables.build_facility(name) for name in images}
    with tables.transaction() as connection:
        ledger.sync_facilities(connection, tables.facilities)
        schema.ensure_partitions(connection, [tables.batch.capture_day])
    tables.execute(
        "INSERT INTO fer.image"
        " SELECT facility_id, :day, to_char(n, 'FM000000'), '', 'etag-1', 1300, now(), now()"
        " FROM unnest(CAST(:ids AS text[]), CAST(:counts AS int[])) AS f (facility_id, images)"
        " CROSS JOIN LATERAL generate_series(1, f.images) AS n",
        day=tables.batch.capture_day,
        ids=list(images),
        counts=list(images.values()),
    )
    shards = plan(
        tables, *(replace(tables.batch, facility_id=name) for name in images), shard_images=500
    )
    planned: Counter[str] = Counter()
    for key_range in (r for shard in shards for r in shard.ranges):
        planned[key_range.batch.facility_id] += key_range.image_count
    loads = [shard.image_count for shard in shards]
    assert planned == images
    assert len(shards) == 64
    assert max(loads) < 1.5 * min(loads)


_number = count()
keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    listed=st.lists(st.sets(keys, max_size=40), min_size=1, max_size=4),
    finished=st.integers(0, 10),
    shard_images=st.integers(1, 30),
    max_shards=st.integers(1, 12),
)
def test_ranges_hold_the_work_exactly_once(
    tables: Any, listed: list[set[str]], finished: int, shard_images: int, max_shards: int
) -> None:
    batches = []
    for keys_of_batch in listed:
        batch = tables.add(f"facility-{next(_number)}")
        batches.append(batch)
        tables.list(keys_of_batch, batch)
        tables.write(*map(tables.build_score, tables.list_work(batch)[:finished]))
    work = [image for batch in batches for image in tables.list_work(batch)]
    shards = plan(tables, *batches, shard_images=shard_images, max_shards=max_shards)
    assert SHARDS.validate_python(dump_json(SHARDS, shards)) == shards
    assert images_of(tables, shards) == Counter(work)
    assert len(shards) <= max_shards
    assert len(set(names(shards))) == len(shards)
    if shards:
        mean = len(work) / min(-(-len(work) // shard_images), max_shards)
        assert all(0.84 * mean - 1 <= shard.image_count <= 1.16 * mean + 1 for shard in shards)
