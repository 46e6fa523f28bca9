"""Long work shows itself: what a scoring process says while it works."""

from __future__ import annotations

import os
import time
from datetime import date

from structlog.testing import capture_logs

from fer_batch.records import Batch, Image, ImageScore, KeyRange, Outcome, Shard
from fer_batch.scoring import Progress

BATCH = Batch("north-mall", date(2026, 11, 21))
SHARD = Shard("north-mall · 4 images", (KeyRange(BATCH, "a", "d", 4),))


def scores(*outcomes: Outcome) -> list[ImageScore]:
    return [ImageScore(Image(BATCH, str(n), "etag", 1), o) for n, o in enumerate(outcomes)]


def test_progress_is_said_also_while_nothing_gets_done() -> None:
    with capture_logs() as said:
        with Progress(SHARD, interval_s=0.01) as progress:
            progress.add(scores(Outcome.SCORED, Outcome.NO_FACE, Outcome.SCORED))
            counted = len(said)
            deadline = time.monotonic() + 20
            while len(said) < counted + 2 and time.monotonic() < deadline:
                os.sched_yield()
        assert len(said) > counted + 2
    first, last = said[0], said[-1]
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
    assert {line["shard"] for line in said} == {SHARD.name}
