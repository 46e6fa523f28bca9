"""Cut the unfinished images of a run into shards of equal work.

`cut_shards` computes from the number of images per batch where shards begin and end; `plan_shards`
gets those numbers and the keys at the cuts from the database. Which images are unfinished is
decided by the ledger; the scheduler decides where shards are scored.
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

from fer_batch.database.statements import load_statements
from fer_batch.facilities.registry import Facility
from fer_batch.log import get_logger
from fer_batch.records import Batch, KeyRange, Shard
from fer_batch.settings import Settings

log = get_logger(__name__)

_STATEMENTS = load_statements(__file__)

WORK_PER_IMAGE = {"crops": 1, "frames": 20}
"""Work of one image, in units of a crop. The CNN takes about 0.2 ms for a crop; YuNet takes 7 ms
for a frame of 640×480 and 1.8 ms for one of 320×240, and each detected face adds a crop. 20 is in
between."""

WORK_PER_S = 1000
"""A rough throughput of two cores."""

SNAP_SHARE = 0.08
"""A cut this close to a boundary between two batches (as a share of a shard's work) moves to the
boundary, so that a small facility is not split for a few images. Both ends of a shard may move: at
0.1 the largest shard could hold 1.5 times the work of the smallest."""


def estimate_seconds(images: int, image_kind: str) -> float:
    """Roughly how long two cores take for so many images of a kind."""
    return images * WORK_PER_IMAGE[image_kind] / WORK_PER_S


@dataclass(frozen=True, slots=True)
class BatchWork:
    """How many images of a batch are to be scored, and the work of each in units of a crop."""

    batch: Batch
    images: int
    work_per_image: int = 1

    @property
    def work(self) -> int:
        return self.images * self.work_per_image


@dataclass(frozen=True, slots=True)
class Slice:
    """Images of a batch by their position in the order of keys: from `start`, without `stop`."""

    batch: Batch
    start: int
    stop: int


def cut_shards(batches: Iterable[BatchWork], shard_work: int, max_shards: int) -> list[list[Slice]]:
    """Divide the work into as many shards of `shard_work` as needed, at most `max_shards`.

    The batches are concatenated, the largest first, and cut at equal distances; a cut near a
    boundary moves to the boundary. Every image is in exactly one slice. A shard holds 0.84 to 1.16
    times the mean work, plus or minus one image: the largest has less than 1.5 times the work of
    the smallest if the mean is 25 images or more. The result depends only on the arguments.
    """
    line = sorted(
        (b for b in batches if b.images),
        key=lambda b: (-b.work, b.batch.facility_id, b.batch.capture_day),
    )
    boundaries = list(accumulate((b.work for b in line), initial=0))
    count = min(-(-boundaries[-1] // shard_work), max_shards, sum(b.images for b in line))
    length = boundaries[-1] / count if count else 0
    cuts = {_find_cut(line, boundaries, n * length, SNAP_SHARE * length) for n in range(1, count)}
    ends = sorted(cuts | {(0, 0), (len(line), 0)})
    return [_slice_between(line, start, stop) for start, stop in pairwise(ends)]


def _find_cut(
    line: Sequence[BatchWork], boundaries: Sequence[int], at: float, snap: float
) -> tuple[int, int]:
    """Where to cut the line at a distance: (index of the batch, images of it before the cut)."""
    after = bisect_left(boundaries, at)
    nearest = min((after - 1, after), key=lambda n: abs(boundaries[n] - at))
    if abs(boundaries[nearest] - at) <= snap:
        return nearest, 0
    batch = line[after - 1]
    images = round((at - boundaries[after - 1]) / batch.work_per_image)
    return (after, 0) if images == batch.images else (after - 1, images)


def _slice_between(
    line: Sequence[BatchWork], start: tuple[int, int], stop: tuple[int, int]
) -> list[Slice]:
    """The slices between two cuts."""
    slices = []
    for n in range(start[0], min(stop[0] + 1, len(line))):
        first = start[1] if n == start[0] else 0
        last = stop[1] if n == stop[0] else line[n].images
        if first < last:
            slices.append(Slice(line[n].batch, first, last))
    return slices


def plan_shards(
    connection: sa.Connection,
    batches: Sequence[Batch],
    facilities: Mapping[str, Facility],
    settings: Settings,
    model_version: str,
    rescore_before: datetime | None = None,
) -> list[Shard]:
    """Cut all images of the batches that have no final result into shards.

    Returns an empty list if there is no such image. Each shard has a unique name. With
    `rescore_before`, results that were written before it count as missing.
    """
    params = {"model_version": model_version, "rescore_before": rescore_before}
    whole: dict[Batch, KeyRange] = {}
    for batch in batches:
        work = connection.execute(_STATEMENTS["measure_work"], params | asdict(batch)).one()
        if work.images:
            whole[batch] = KeyRange(batch, work.first_key, work.last_key, work.images)
    batch_works = (
        BatchWork(b, r.image_count, WORK_PER_IMAGE[facilities[b.facility_id].image_kind])
        for b, r in whole.items()
    )
    shards = cut_shards(batch_works, settings.shard_images, settings.max_shards)
    starts: dict[Batch, list[int]] = {}
    for piece in chain.from_iterable(shards):
        starts.setdefault(piece.batch, []).append(piece.start)
    ranges: dict[tuple[Batch, int], KeyRange] = {}
    for batch, first in starts.items():
        if len(first) == 1:
            ranges[batch, 0] = whole[batch]
        else:
            ranges |= _find_ranges(connection, batch, first, params)
    # A slice is missing if another run finished it between the two statements.
    planned = [
        [ranges[at] for s in shard if (at := (s.batch, s.start)) in ranges] for shard in shards
    ]
    named = _name_shards([shard for shard in planned if shard])
    log.info("planned", shards=len(named), images=sum(shard.image_count for shard in named))
    return named


def _find_ranges(
    connection: sa.Connection, batch: Batch, starts: list[int], params: dict[str, Any]
) -> dict[tuple[Batch, int], KeyRange]:
    """The key range of each slice of a batch, by the slice's start."""
    rows = connection.execute(
        _STATEMENTS["cut_work"],
        params | asdict(batch) | {"slice_starts": [start + 1 for start in starts[1:]]},
    )
    return {
        (batch, starts[row.slice]): KeyRange(batch, row.first_key, row.last_key, row.images)
        for row in rows
    }


def _name_shards(shards: list[list[KeyRange]]) -> list[Shard]:
    """Give each shard a readable name that is unique in the run.

    "north-mall 1 of 3 · 20,000 images", "4 facilities · 812 images". Days are named if the plan has
    more than one.
    """
    parts = Counter(r.batch for shard in shards for r in shard)
    has_days = len({batch.capture_day for batch in parts}) > 1
    part: Counter[Batch] = Counter()
    uses: Counter[str] = Counter()
    named = []
    for ranges in shards:
        pieces = {}
        for batch in (r.batch for r in ranges):
            part[batch] += 1
            day = f" {batch.capture_day}" if has_days else ""
            of = f" {part[batch]} of {parts[batch]}" if parts[batch] > 1 else ""
            pieces[batch] = f"{batch.facility_id}{day}{of}"
        label = _make_label(pieces, [pieces[b] for b in pieces if parts[b] > 1])
        uses[label] += 1
        suffix = f" ({uses[label]})" if uses[label] > 1 else ""
        count = sum(r.image_count for r in ranges)
        plural = "" if count == 1 else "s"
        named.append(Shard(f"{label}{suffix} · {count:,} image{plural}", tuple(ranges)))
    return named


def _make_label(pieces: Mapping[Batch, str], split: Sequence[str]) -> str:
    """Describe a shard. `split` are its pieces of batches that are divided among several shards."""
    if len(pieces) == 1:
        return next(iter(pieces.values()))
    ids = sorted({batch.facility_id for batch in pieces})
    label = f"{len(ids)} facilities" if len(ids) > 1 else f"{ids[0]} {len(pieces)} days"
    return f"{label} with {' and '.join(split)}" if split else label
