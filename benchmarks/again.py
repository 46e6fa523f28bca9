"""What a night costs that finds nothing to do: the same day of crops, run twice.

Each pair begins on empty tables. The first run lists and scores everything; the second finds it
finished. A run is every step of the nightly job, in a process whose libraries are loaded; its
scoring has a process of its own, as a task starts it. A last run goes through a proxy that counts
the requests for images, which must be none.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks import servers
from benchmarks.counting import counting
from benchmarks.drawn import CROPS, DAY, crops_day
from benchmarks.measuring import QUIET, Spread, as_plain, machine, result_path, write_json
from fer_batch import log, nightly
from fer_batch.demo.day import DemoFacility, DemoImage
from fer_batch.settings import Settings

DRAWN = 512
"""Different images of the day; all others are the same under other keys."""
AT_MOST = 1 / 20
"""A second run's share of the first."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many images the day has, and how often it is run twice."""

    images: int
    rounds: int


FULL = Sizes(images=50_000, rounds=5)
QUICK = Sizes(images=300, rounds=1)


def repeated_day(count: int) -> DemoFacility:
    """Crops of which only some differ: drawing them all would take longer than scoring them."""
    drawn = crops_day(min(count, DRAWN)).images

    def names() -> Iterable[DemoImage]:
        for number in range(count):
            one = drawn[number % len(drawn)]
            ending = one.name.rpartition(".")[2]
            yield DemoImage(f"face-{number:07}.{ending}", one.data)

    return DemoFacility(CROPS, "Crops", "UTC", "crops", list(names()))


def run(settings: Settings) -> dict[str, float]:
    """Every step of a run over the day, in seconds. Raises if a shard fails."""
    job = nightly.Run(settings, nightly.Selection(f"bench-{uuid.uuid4()}", DAY))
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = step()
        seconds[name] = time.perf_counter() - began
        return made

    timed("registry", job.sync_facilities)
    timed("list", job.list_images)
    shards = timed("plan", job.plan_shards)
    timed("score", lambda: [job.score(shard) for shard in shards])
    timed("summarise", job.summarize)
    findings = timed("check", job.check)
    timed("report", lambda: job.report(findings))
    return seconds


def measure(stack: servers.Servers, rounds: int) -> tuple[list[Any], list[Any]]:
    """The seconds of each step of every first and every second run."""
    first, second = [], []
    for number in range(rounds):
        stack.forget()
        first.append(run(stack.settings()))
        second.append(run(stack.settings()))
        print(
            f"  round {number + 1} of {rounds}: {sum(first[-1].values()):.1f} s, then "
            f"{sum(second[-1].values()):.2f} s",
            flush=True,
        )
    return first, second


def requests(settings: Settings) -> dict[str, int]:
    """What a run asks the S3 server for."""
    assert settings.s3_endpoint is not None  # noqa: S101  (the stack's own)
    with counting(settings.s3_endpoint) as proxy:
        run(settings.model_copy(update={"s3_endpoint": proxy.endpoint}))
    return {"list": proxy.counts["list"], "get": proxy.counts["get"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.again", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="at least 5")
    options = parser.parse_args()
    is_quick: bool = options.quick
    sizes = QUICK if is_quick else FULL
    rounds = sizes.rounds if is_quick else max(options.rounds, FULL.rounds)
    described = machine()
    log.configure("console", "warning")
    os.environ.update(QUIET)
    day = repeated_day(sizes.images)
    print(f"starting the servers, uploading {sizes.images:,} images", flush=True)
    with servers.running([day]) as stack:
        # Libraries that a step imports are there before the first round.
        run(stack.settings())
        first, second = measure(stack, rounds)
        asked = requests(stack.settings())
    totals = {
        "first": Spread.of([sum(steps.values()) for steps in first]),
        "second": Spread.of([sum(steps.values()) for steps in second]),
    }
    share = Spread.of_ratios(totals["second"], totals["first"])
    print(f"\nfirst run {totals['first']} s, second run {totals['second']} s")
    verdict = "kept" if share.median <= AT_MOST else "NOT KEPT"
    print(f"share of the first: {share}; at most {AT_MOST}: {verdict}")
    print(f"requests of a run with nothing to do: {asked['list']} listings, {asked['get']} objects")
    for name in second[0]:
        print(f"  {name:<10} {Spread.of([steps[name] for steps in second])!s} s of the second run")
    result = {
        "is_quick": is_quick,
        "machine": described,
        "rounds": rounds,
        "images": sizes.images,
        "seconds": as_plain(totals),
        **as_plain({"second_by_first": share}),
        "steps_of_second_run_s": as_plain(
            {name: Spread.of([steps[name] for steps in second]) for name in second[0]}
        ),
        "requests_of_second_run": asked,
    }
    write_json(result_path("again.json", is_quick=is_quick), result)
    return 0 if asked["get"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
