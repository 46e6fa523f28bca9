"""Cut the work of a run into shards of equal work.

`cut` decides on paper, from the number of images per batch alone, where shards begin and end;
`plan` asks the database for those numbers and for the keys at which it cuts. What counts as work
is decided by the ledger, who scores the shards by the scheduler.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import accumulate, chain, pairwise
from typing import Any

import sqlalchemy as sa

from fer_batch.database import statement
from fer_batch.log import logger
from fer_batch.records import Batch, KeyRange, Shard
from fer_batch.registry import Facility
from fer_batch.settings import Settings

log = logger(__name__)

WORK_OF_IMAGE = {"crops": 1, "frames": 20}
"""Work of one image, in crops. A crop takes about 0.2 ms of CNN; YuNet takes 7 ms on a frame of
640×480 and 1.8 ms on one of 320×240, and every face found is a crop more. 20 lies between."""

SNAP = 0.08
"""A cut that comes this near to a border between two batches (as a share of a shard's work) goes
there, so that a small facility is not split for the sake of a few images. Both ends of a shard
may move: at 0.1 the largest shard could hold half as much again as the smallest."""


@dataclass(frozen=True, slots=True)
class BatchWork:
    """How many images of a batch are to be scored, and how much work each is, in crops."""

    batch: Batch
    images: int
    work_per_image: int = 1

    @property
    def work(self) -> int:
        return self.images * self.work_per_image


@dataclass(frozen=True, slots=True)
class Slice:
    """Images of a batch by their place in the order of keys: from `start` up to before `stop`."""

    batch: Batch
    start: int
    stop: int


def cut(batches: Iterable[BatchWork], shard_work: int, max_shards: int) -> list[list[Slice]]:
    """Divide the work into as many shards of `shard_work` as it takes, `max_shards` at most.

    The batches are laid end to end, the largest first, and cut at equal distances; a cut near a
    border goes to the border. Every image lies in exactly one slice, and a shard holds 0.84 to 1.16
    times the mean work, give or take one image: the largest is less than 1.5 times the smallest
    if the mean is 25 images or more. The result depends on nothing but the arguments.
    """
    line = sorted(
        (b for b in batches if b.images),
        key=lambda b: (-b.work, b.batch.facility_id, b.batch.capture_day),
    )
    borders = list(accumulate((b.work for b in line), initial=0))
    count = min(-(-borders[-1] // shard_work), max_shards, sum(b.images for b in line))
    length = borders[-1] / count if count else 0
    places = {_place(line, borders, n * length, SNAP * length) for n in range(1, count)}
    ends = sorted(places | {(0, 0), (len(line), 0)})
    return [_between(line, start, stop) for start, stop in pairwise(ends)]


def _place(
    line: Sequence[BatchWork], borders: Sequence[int], at: float, snap: float
) -> tuple[int, int]:
    """Where to cut the line at a distance: (batch, images of it that come before the cut)."""
    after = bisect_left(borders, at)
    nearest = min((after - 1, after), key=lambda n: abs(borders[n] - at))
    if abs(borders[nearest] - at) <= snap:
        return nearest, 0
    batch = line[after - 1]
    images = round((at - borders[after - 1]) / batch.work_per_image)
    return (after, 0) if images == batch.images else (after - 1, images)


def _between(
    line: Sequence[BatchWork], start: tuple[int, int], stop: tuple[int, int]
) -> list[Slice]:
    """The slices between two places of the line."""
    slices = []
    for n in range(start[0], min(stop[0] + 1, len(line))):
        first = start[1] if n == start[0] else 0
        last = stop[1] if n == stop[0] else line[n].images
        if first < last:
            slices.append(Slice(line[n].batch, first, last))
    return slices


def plan(
    connection: sa.Connection,
    batches: Sequence[Batch],
    facilities: Mapping[str, Facility],
    settings: Settings,
    model_version: str,
    rescore_before: datetime | None = None,
) -> list[Shard]:
    """The shards that hold all images of the batches without a final result; none if none is left.

    Each shard has a name of its own. With `rescore_before`, results that were written before it
    count as missing.
    """
    question = {"model_version": model_version, "rescore_before": rescore_before}
    whole: dict[Batch, KeyRange] = {}
    for batch in batches:
        found = connection.execute(statement("measure_work"), question | asdict(batch)).one()
        if found.images:
            whole[batch] = KeyRange(batch, found.first_key, found.last_key, found.images)
    work = (
        BatchWork(b, r.image_count, WORK_OF_IMAGE[facilities[b.facility_id].image_kind])
        for b, r in whole.items()
    )
    shards = cut(work, settings.shard_images, settings.max_shards)
    starts: dict[Batch, list[int]] = {}
    for piece in chain.from_iterable(shards):
        starts.setdefault(piece.batch, []).append(piece.start)
    ranges: dict[tuple[Batch, int], KeyRange] = {}
    for batch, first in starts.items():
        if len(first) == 1:
            ranges[batch, 0] = whole[batch]
        else:
            ranges |= _ranges(connection, batch, first, question)
    # A slice is missing if others finished it between the two questions.
    planned = [
        [ranges[at] for s in shard if (at := (s.batch, s.start)) in ranges] for shard in shards
    ]
    named = _named([shard for shard in planned if shard])
    log.info("planned", shards=len(named), images=sum(shard.image_count for shard in named))
    return named


def _ranges(
    connection: sa.Connection, batch: Batch, starts: list[int], question: dict[str, Any]
) -> dict[tuple[Batch, int], KeyRange]:
    """The key range of each slice of a batch, by the slice's start."""
    rows = connection.execute(
        statement("cut_work"),
        question | asdict(batch) | {"first_places": [start + 1 for start in starts[1:]]},
    )
    return {
        (batch, starts[row.slice]): KeyRange(batch, row.first_key, row.last_key, row.images)
        for row in rows
    }


def _named(shards: list[list[KeyRange]]) -> list[Shard]:
    """Give each shard a name that a person can read, and that no other shard of the run has.

    "north-mall 1 of 3 · 20,000 images", "4 facilities · 812 images". Days are named where the
    plan holds more than one.
    """
    parts = Counter(r.batch for shard in shards for r in shard)
    has_days = len({batch.capture_day for batch in parts}) > 1
    part: Counter[Batch] = Counter()
    seen: Counter[str] = Counter()
    named = []
    for ranges in shards:
        pieces = {}
        for batch in (r.batch for r in ranges):
            part[batch] += 1
            day = f" {batch.capture_day}" if has_days else ""
            of = f" {part[batch]} of {parts[batch]}" if parts[batch] > 1 else ""
            pieces[batch] = f"{batch.facility_id}{day}{of}"
        label = _label(pieces, [pieces[b] for b in pieces if parts[b] > 1])
        seen[label] += 1
        again = f" ({seen[label]})" if seen[label] > 1 else ""
        count = sum(r.image_count for r in ranges)
        plural = "" if count == 1 else "s"
        named.append(Shard(f"{label}{again} · {count:,} image{plural}", tuple(ranges)))
    return named


def _label(pieces: Mapping[Batch, str], split: Sequence[str]) -> str:
    """What a shard holds. `split` are the pieces of batches that other shards hold too."""
    if len(pieces) == 1:
        return next(iter(pieces.values()))
    ids = sorted({batch.facility_id for batch in pieces})
    label = f"{len(ids)} facilities" if len(ids) > 1 else f"{ids[0]} {len(pieces)} days"
    return f"{label} with {' and '.join(split)}" if split else label
