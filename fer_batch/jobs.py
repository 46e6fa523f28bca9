"""What passes between the processes of a run, as JSON: a shard, a job, its result.

Shards travel from planning to scoring through the scheduler; jobs go into a scoring process
and results come out of it.
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
    """What a scoring process is told to do.

    `suspects` are images that may have taken an earlier process down and are tried alone;
    `condemned` are given up. `capture_day` is the run's; what is left of days before it was tried
    by the nights before.
    """

    shard: Shard
    run_id: str
    model_version: str
    capture_day: date
    rescore_before: datetime | None = None
    suspects: tuple[Image, ...] = ()
    condemned: tuple[Image, ...] = ()


@dataclass(slots=True)
class ShardResult:
    """What became of a shard: images by outcome, and the facilities that gave trouble.

    `failures` maps a facility and day, in words, to what happened; `is_retryable` says whether
    any of it may pass.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    is_retryable: bool = False
    seconds: float = 0.0

    @property
    def image_count(self) -> int:
        return sum(self.outcomes.values())


JOB = TypeAdapter(Job)
SHARD = TypeAdapter(Shard)
SHARDS = TypeAdapter(list[Shard])
RESULT = TypeAdapter(ShardResult)
IMAGE = TypeAdapter(Image)


def as_json(adapter: TypeAdapter[Any], value: object) -> Any:
    """A record as plain lists and dictionaries."""
    return adapter.dump_python(value, mode="json")
