"""The messages between the processes of a run, as JSON: a shard, a job, its result.

Shards pass from planning to scoring through the scheduler; a scoring process reads a job and
writes its result.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from pydantic import TypeAdapter

from fer_batch.records import Image, Shard


@dataclass(frozen=True, slots=True)
class Job:
    """The work of one scoring process: a shard, or some facilities of it.

    `suspects` are images that may have crashed an earlier process and are scored alone;
    `quarantined` images are not decoded any more. `capture_day` is that of the run: only on this
    day do failed fetches make the shard fail, because earlier runs have already tried the images
    of the lookback days.
    """

    shard: Shard
    run_id: str
    model_version: str
    capture_day: date
    rescore_before: datetime | None = None
    suspects: tuple[Image, ...] = ()
    quarantined: tuple[Image, ...] = ()


@dataclass(slots=True)
class ShardResult:
    """The result of a shard: images by outcome, and the facilities that failed.

    `failures` maps the text "facility on day" to what happened; `is_retryable` is whether a retry
    may succeed for any of them.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    is_retryable: bool = False
    seconds: float = 0.0

    @property
    def image_count(self) -> int:
        return sum(self.outcomes.values())

    def add(self, other: ShardResult) -> None:
        """Add the result of other facilities of the same shard."""
        self.outcomes.update(other.outcomes)
        self.failures |= other.failures
        self.is_retryable |= other.is_retryable
        self.seconds += other.seconds


JOB = TypeAdapter(Job)
SHARD = TypeAdapter(Shard)
SHARDS = TypeAdapter(list[Shard])
RESULT = TypeAdapter(ShardResult)


def dump_json(adapter: TypeAdapter[Any], value: object) -> Any:
    """Convert a record to plain lists, dictionaries and strings, as JSON holds them."""
    return adapter.dump_python(value, mode="json")
