"""Where shards begin and end, computed without a database."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.pipeline.planning import SNAP_SHARE, BatchWork, Slice, cut_shards
from fer_batch.records import Batch

DAY = date(2026, 3, 1)


def batch(name: str) -> Batch:
    return Batch(name, DAY)


def crops(**images: int) -> list[BatchWork]:
    return [BatchWork(batch(name), count) for name, count in images.items()]


def test_large_facility_is_split_and_small_ones_share() -> None:
    shards = cut_shards(crops(mall=30_000, kiosk=300, stand=200), shard_work=10_000, max_shards=64)
    assert [[(s.batch.facility_id, s.stop - s.start) for s in shard] for shard in shards] == [
        [("mall", 7625)],
        [("mall", 7625)],
        [("mall", 7625)],
        [("mall", 7125), ("kiosk", 300), ("stand", 200)],
    ]


def test_small_facility_is_not_split_for_a_few_images() -> None:
    shards = cut_shards(crops(a=1000, b=1040, c=960), shard_work=1000, max_shards=64)
    assert sorted([s.batch.facility_id for s in shard] for shard in shards) == [["a"], ["b"], ["c"]]


def test_frames_are_more_work_than_crops() -> None:
    work = [BatchWork(batch("crops"), 1000), BatchWork(batch("frames"), 1000, 20)]
    shards = cut_shards(work, shard_work=1000, max_shards=64)
    holding_crops = [shard for shard in shards if any(s.batch == batch("crops") for s in shard)]
    assert len(shards) == 21
    assert len(holding_crops) == 1


def test_number_of_shards_is_bounded() -> None:
    shards = cut_shards(crops(mall=1_000_000), shard_work=10, max_shards=7)
    assert len(shards) == 7


@pytest.mark.parametrize("images", [[], [0], [0, 0]])
def test_nothing_to_do_is_no_shard(images: list[int]) -> None:
    work = [BatchWork(batch(str(n)), count) for n, count in enumerate(images)]
    assert cut_shards(work, shard_work=100, max_shards=64) == []


works = st.lists(
    st.builds(
        BatchWork,
        st.builds(Batch, st.text("abc", min_size=1), st.dates(DAY, date(2026, 3, 4))),
        st.one_of(st.integers(0, 50), st.integers(0, 100_000)),
        st.sampled_from([1, 20]),
    ),
    unique_by=lambda work: work.batch,
    max_size=30,
)


@given(works, st.integers(1, 30_000), st.integers(1, 64))
def test_every_image_is_in_exactly_one_slice(
    work: list[BatchWork], shard_work: int, max_shards: int
) -> None:
    covered: dict[Batch, list[Slice]] = defaultdict(list)
    for shard in cut_shards(work, shard_work, max_shards):
        assert shard
        for piece in shard:
            covered[piece.batch].append(piece)
    for b in work:
        slices = sorted(covered[b.batch], key=lambda s: s.start)
        ends = [0, *(s.stop for s in slices)]
        assert [s.start for s in slices] == ends[:-1]
        assert ends[-1] == b.images
        assert all(s.start < s.stop for s in slices)


@given(works, st.integers(1, 30_000), st.integers(1, 64))
def test_shards_hold_about_the_same_work(
    work: list[BatchWork], shard_work: int, max_shards: int
) -> None:
    weight = {b.batch: b.work_per_image for b in work}
    shards = cut_shards(work, shard_work, max_shards)
    assert len(shards) <= max_shards
    loads = [sum((s.stop - s.start) * weight[s.batch] for s in shard) for shard in shards]
    expected = min(-(-sum(loads) // shard_work), max_shards, sum(b.images for b in work))
    if expected:
        mean = sum(loads) / expected
        one_image = max(weight.values())
        assert all(load <= mean * (1 + 2 * SNAP_SHARE) + one_image for load in loads)
        assert len(shards) == expected or mean < one_image
        assert all(load >= mean * (1 - 2 * SNAP_SHARE) - one_image for load in loads)


@given(
    st.integers(0, 2**32),
    st.floats(0.8, 3),
    st.sampled_from([(1,), (20,), (1, 20)]),
    st.integers(1_000, 50_000),
)
@settings(max_examples=20)
def test_facilities_of_very_different_sizes_become_tasks_of_similar_work(
    seed: int, shape: float, kinds: tuple[int, ...], shard_work: int
) -> None:
    random = Random(seed)
    # Pareto's law: at the shape 1.16, a fifth of the facilities has four fifths of the images.
    work = [
        BatchWork(
            batch(f"shop-{n}"), round(30 * random.paretovariate(shape)), kinds[n % len(kinds)]
        )
        for n in range(1000)
    ]
    weight = {b.batch: b.work_per_image for b in work}
    shards = cut_shards(work, shard_work, 64)
    loads = [sum((s.stop - s.start) * weight[s.batch] for s in shard) for shard in shards]
    assert len(shards) <= 64
    assert sum(loads) == sum(b.work for b in work)
    assert max(loads) < 1.5 * min(loads)


@given(works, st.integers(1, 30_000), st.integers(1, 64), st.randoms())
def test_order_of_the_batches_does_not_matter(
    work: list[BatchWork], shard_work: int, max_shards: int, random: object
) -> None:
    shuffled = list(work)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert cut_shards(shuffled, shard_work, max_shards) == cut_shards(work, shard_work, max_shards)
