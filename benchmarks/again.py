"""The cost of a nightly run without new images: the same day of crops, run twice.

Each pair starts with empty tables. The first run lists and scores everything; the second has
nothing to score. A run is all steps of the nightly job in a process with loaded libraries; scoring
runs in a separate process, as in an Airflow task. A last run goes through a proxy that counts the
requests: there must be none for images.
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
from benchmarks.drawn import CROPS, DAY, build_crops_day
from benchmarks.measuring import (
    QUIET,
    Spread,
    build_result_path,
    convert_spreads,
    describe_machine,
    write_json,
)
from fer_batch import log
from fer_batch.local.demo.day import DemoFacility, DemoImage
from fer_batch.pipeline import nightly
from fer_batch.pipeline.selection import Selection
from fer_batch.settings import Settings

DISTINCT_IMAGES = 512
"""Number of distinct images of the day; the others repeat them under other keys."""
MAX_SHARE = 1 / 20
"""Maximum duration of the second run as a share of the first."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The number of images of the day, and the number of pairs of runs."""

    images: int
    rounds: int


FULL = Sizes(images=50_000, rounds=5)
QUICK = Sizes(images=300, rounds=1)


def build_repeated_day(count: int) -> DemoFacility:
    """A day of `count` crops that repeats `DISTINCT_IMAGES`: drawing is slower than scoring."""
    distinct = build_crops_day(min(count, DISTINCT_IMAGES)).images

    def repeat_images() -> Iterable[DemoImage]:
        for number in range(count):
            image = distinct[number % len(distinct)]
            extension = image.name.rpartition(".")[2]
            yield DemoImage(f"face-{number:07}.{extension}", image.data)

    return DemoFacility(CROPS, "Crops", "UTC", "crops", list(repeat_images()))


def run_night(settings: Settings) -> dict[str, float]:
    """Run every step of the nightly job; returns the seconds of each. Raises if a shard fails."""
    nightly_run = nightly.Run(settings, Selection(f"bench-{uuid.uuid4()}", DAY))
    seconds: dict[str, float] = {}

    def time_step(name: str, step: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = step()
        seconds[name] = time.perf_counter() - began
        return result

    time_step("registry", nightly_run.sync_facilities)
    time_step("list", nightly_run.list_images)
    shards = time_step("plan", nightly_run.plan_shards)
    time_step("score", lambda: [nightly_run.score_shard(shard) for shard in shards])
    time_step("summarize", nightly_run.summarize)
    time_step("check", nightly_run.check_data)
    time_step("report", nightly_run.report)
    return seconds


def measure(stack: servers.Servers, rounds: int) -> tuple[list[Any], list[Any]]:
    """The seconds of each step, of every first and of every second run."""
    first, second = [], []
    for number in range(rounds):
        stack.empty_tables()
        first.append(run_night(stack.build_settings()))
        second.append(run_night(stack.build_settings()))
        print(
            f"  round {number + 1} of {rounds}: {sum(first[-1].values()):.1f} s, then "
            f"{sum(second[-1].values()):.2f} s",
            flush=True,
        )
    return first, second


def count_requests(settings: Settings) -> dict[str, int]:
    """The number of `list` and `get` requests of one run."""
    assert settings.s3_endpoint is not None  # noqa: S101  (the stack sets it)
    with counting(settings.s3_endpoint) as proxy:
        run_night(settings.model_copy(update={"s3_endpoint": proxy.endpoint}))
    return {"list": proxy.counts["list"], "get": proxy.counts["get"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.again", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument(
        "--rounds", type=int, default=FULL.rounds, help="at least 5 (default %(default)s)"
    )
    options = parser.parse_args()
    is_quick: bool = options.quick
    sizes = QUICK if is_quick else FULL
    rounds = sizes.rounds if is_quick else max(options.rounds, FULL.rounds)
    machine_facts = describe_machine()
    log.configure("console", "warning")
    os.environ.update(QUIET)
    day = build_repeated_day(sizes.images)
    print(f"starting the servers, uploading {sizes.images:,} images", flush=True)
    with servers.running([day]) as stack:
        # Warm-up: imports the libraries of all steps before the first round.
        run_night(stack.build_settings())
        first, second = measure(stack, rounds)
        request_counts = count_requests(stack.build_settings())
    totals = {
        "first": Spread.from_values([sum(steps.values()) for steps in first]),
        "second": Spread.from_values([sum(steps.values()) for steps in second]),
    }
    share = Spread.from_ratios(totals["second"], totals["first"])
    print(f"\nfirst run {totals['first']} s, second run {totals['second']} s")
    verdict = "met" if share.median <= MAX_SHARE else "NOT MET"
    print(f"share of the first: {share}; at most {MAX_SHARE}: {verdict}")
    listings, objects = request_counts["list"], request_counts["get"]
    print(f"requests of a run with nothing to score: {listings} listings, {objects} objects")
    second_steps = {name: Spread.from_values([s[name] for s in second]) for name in second[0]}
    for name, spread in second_steps.items():
        print(f"  {name:<10} {spread!s} s of the second run")
    result = {
        "is_quick": is_quick,
        "machine": machine_facts,
        "rounds": rounds,
        "images": sizes.images,
        "seconds": convert_spreads(totals),
        **convert_spreads({"second_by_first": share}),
        "steps_of_second_run_s": convert_spreads(second_steps),
        "requests_of_second_run": request_counts,
    }
    write_json(build_result_path("again.json", is_quick=is_quick), result)
    return 0 if request_counts["get"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
