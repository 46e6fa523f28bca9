"""Micro-batches, and failures that belong to one facility of a shard."""

from __future__ import annotations

from datetime import date
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.errors import StorageUnavailableError
from fer_batch.pipeline.progress import Progress
from fer_batch.pipeline.scoring import (
    MICRO_BATCH_BYTES,
    MICRO_BATCH_IMAGES,
    ShardScorer,
    group_micro_batches,
)
from fer_batch.records import Batch, FetchedImage, Image, ImageScore, KeyRange, Outcome, Shard

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


class FailingScorer(ShardScorer):
    """Scores nothing; the first facility fails."""

    def __init__(self, error: Exception) -> None:
        self._in_flight = Mock()
        self.error = error
        self.scored: list[str] = []

    def _score_range(self, key_range: KeyRange, _: Progress) -> None:
        if not self.scored:
            self.scored.append("failed")
            raise self.error
        self.scored.append(key_range.batch.facility_id)


@pytest.mark.parametrize(
    ("error", "text", "is_retryable"),
    [
        (KeyError("ContentLength"), "unexpected error: KeyError: 'ContentLength'. The log", False),
        (StorageUnavailableError("busy", "Try again"), "busy. Try again", True),
    ],
)
def test_any_exception_belongs_to_its_facility(
    capsys: pytest.CaptureFixture[str], error: Exception, text: str, is_retryable: bool
) -> None:
    ranges = tuple(
        KeyRange(Batch(name, BATCH.capture_day), "a", "b", 1) for name in ("odd", "good", "late")
    )
    scorer = FailingScorer(error)
    result = scorer.score(Shard("three", ranges))
    assert scorer.scored == ["failed", "good", "late"]
    (failure,) = result.failures.items()
    assert failure[0] == "odd on 2026-11-21"
    assert failure[1].startswith(text)
    assert result.is_retryable is is_retryable
    output = capsys.readouterr()
    assert ("Traceback" in output.out + output.err) is not is_retryable
