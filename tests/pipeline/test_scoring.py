"""Micro-batches: enough work for one task of a decoding thread."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from fer_batch.pipeline.scoring import (
    MICRO_BATCH_BYTES,
    MICRO_BATCH_IMAGES,
    group_micro_batches,
)
from fer_batch.records import Batch, FetchedImage, Image, ImageScore, Outcome

BATCH = Batch("north-mall", date(2026, 11, 21))


def make_item(size_bytes: int) -> FetchedImage | ImageScore:
    """An image of a size; without bytes, one that could not be fetched."""
    image = Image(BATCH, "a.jpg", "etag", size_bytes)
    if size_bytes == 0:
        return ImageScore(image, Outcome.MISSING, "the object is gone")
    return FetchedImage(image, bytes(size_bytes))


@given(st.lists(st.sampled_from([0, 1, 1_300, 30_000, 200_000]), max_size=60))
def test_micro_batches_hold_every_image_once_in_order(sizes: list[int]) -> None:
    items = [make_item(size) for size in sizes]
    micro_batches = list(group_micro_batches(items))
    assert [item for batch in micro_batches for item in batch] == items
    for batch in micro_batches:
        assert 0 < len(batch) <= MICRO_BATCH_IMAGES
        assert sum(item.image.size_bytes for item in batch[:-1]) < MICRO_BATCH_BYTES


def test_a_frame_is_a_micro_batch_alone() -> None:
    frames = [make_item(MICRO_BATCH_BYTES) for _ in range(3)]
    assert [len(batch) for batch in group_micro_batches(frames)] == [1, 1, 1]
