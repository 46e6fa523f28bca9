"""The progress of a shard is logged regularly."""

from __future__ import annotations

import os
import time
from datetime import date

from structlog.testing import capture_logs

from fer_batch.pipeline.progress import Progress
from fer_batch.records import Batch, Image, ImageScore, KeyRange, Outcome, Shard

BATCH = Batch("north-mall", date(2026, 11, 21))
SHARD = Shard("north-mall · 4 images", (KeyRange(BATCH, "a", "d", 4),))


def scores(*outcomes: Outcome) -> list[ImageScore]:
    return [ImageScore(Image(BATCH, str(n), "etag", 1), o) for n, o in enumerate(outcomes)]


def test_progress_is_logged_while_no_image_is_finished() -> None:
    with capture_logs() as lines:
        with Progress(SHARD, interval_s=0.01) as progress:
            progress.add(scores(Outcome.SCORED, Outcome.NO_FACE, Outcome.SCORED))
            count = len(lines)
            deadline = time.monotonic() + 20
            while len(lines) < count + 2 and time.monotonic() < deadline:
                os.sched_yield()
        assert len(lines) > count + 2
    first, last = lines[0], lines[-1]
    assert (first["event"], first["images"], first["of"], first["outcomes"]) == (
        "scoring",
        0,
        4,
        {},
    )
    assert first["remaining_s"] is None
    assert (last["event"], last["images"]) == ("scored", 3)
    assert last["outcomes"] == {"no_face": 1, "scored": 2}
    assert last["images_per_s"] > 0
    assert {line["shard"] for line in lines} == {SHARD.name}
