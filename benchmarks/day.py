"""`make bench`: a day of images scored by straightforward programs and by fer-batch.

The S3 server and PostgreSQL are those of the local stack, on the same cores; they are created for
the benchmark and removed afterwards. The contestants take turns. A turn goes from the listing to
the last commit, with libraries and CNN loaded beforehand; *naive* and *loop* score only a part of
the day because they are slow. Then the core-seconds of each stage are measured alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import chart, contestants, servers
from benchmarks.drawn import CROPS, FRAMES, build_crops_day, build_frames_day
from benchmarks.measuring import (
    QUIET,
    Spread,
    build_result_path,
    convert_spreads,
    count_usable_cores,
    describe_machine,
    write_json,
)
from benchmarks.rounds import Contestant, Turn, rotate_order, running_contestants
from benchmarks.stages import Cost, Stages
from fer_batch import log

OURS = "fer-batch"
COLD = "fer-batch, process start included"
IN_PROCESS = "fer-batch without the sandbox"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of images, of images for the slow contestants, and of rounds."""

    crops: int
    naive: int
    frames: int
    loop: int
    rounds: int


FULL = Sizes(crops=4000, naive=200, frames=400, loop=60, rounds=5)
QUICK = Sizes(crops=200, naive=10, frames=20, loop=5, rounds=1)


@dataclass(frozen=True, slots=True)
class Figures:
    """The measurements of one facility's day."""

    images_per_s: dict[str, Spread]
    core_ms_per_image: dict[str, Spread]
    peak_mb: dict[str, float]
    ready_after_s: dict[str, float]
    stages: dict[str, list[Cost]]

    @property
    def times_as_fast_as(self) -> dict[str, Spread]:
        ours = self.images_per_s[OURS]
        return {
            name: Spread.from_ratios(ours, rate)
            for name, rate in self.images_per_s.items()
            if name not in (OURS, COLD)
        }

    @property
    def stage_limit(self) -> Spread:
        """Images per second if the cores spent all their time on the stages."""
        rounds = zip(*self.stages.values(), strict=True)
        return Spread.from_values(
            [
                count_usable_cores() / sum(cost.core_s / cost.images for cost in costs)
                for costs in rounds
            ]
        )

    @property
    def share_of_stage_limit(self) -> float:
        return self.images_per_s[OURS].median / self.stage_limit.median


def measure(
    stack: servers.Servers, facility_id: str, makers: Mapping[str, Any], rounds: int
) -> Figures:
    """Measure one facility's day with each contestant in turn, then stage by stage."""
    turns: dict[str, list[tuple[Turn, float]]] = {name: [] for name in makers}
    with running_contestants(makers, QUIET | stack.build_environment()) as started:
        for number, order in rotate_order(list(makers), rounds):
            for name in order:
                turns[name].append(_run_turn(stack, started[name]))
            rates = ", ".join(f"{n} {turns[n][-1][0].items_per_s:,.0f}" for n in makers)
            print(f"  round {number + 1} of {rounds}, images/s: {rates}", flush=True)
        ready_after_s = {name: round(started[name].ready_after_s, 1) for name in makers}
    stages = Stages(stack, facility_id)
    stages.measure()  # warm-up
    measured = [stages.measure() for _ in range(rounds)]
    return Figures(
        {name: Spread.from_values([t.items_per_s for t, _ in turns[name]]) for name in makers},
        {name: Spread.from_values([1000 * c / t.items for t, c in turns[name]]) for name in makers},
        {name: round(max(t.peak_mb for t, _ in turns[name])) for name in makers},
        ready_after_s,
        {name: [costs[name] for costs in measured] for name in measured[0]},
    )


def _run_turn(stack: servers.Servers, contestant: Contestant) -> tuple[Turn, float]:
    """A turn on empty tables, and the core-seconds of all processes for it."""
    stack.empty_tables()
    before = stack.measure_core_s()
    turn = contestant.run_turn()
    of_servers = stack.measure_core_s() - before
    return turn, turn.core_s + of_servers.s3 + of_servers.postgres


# ---------------------------------------------------------------- results


def show(title: str, figures: Figures) -> None:
    print(f"\n{title}: images/s, median (min to max); core-ms per image; peak memory in MB")
    for name, rate in figures.images_per_s.items():
        cost = figures.core_ms_per_image[name].median
        print(f"  {name:<36}{rate!s:<28}{cost:>8.2f}{figures.peak_mb[name]:>8.0f}")
    for name, ratio in figures.times_as_fast_as.items():
        print(f"  fer-batch is {ratio} times as fast as {name}")
    print("single stages: images/s; core-ms per image of fer-batch, S3 server, PostgreSQL")
    for name, stage in summarize_stages(figures).items():
        own, s3, postgres = (stage[f"{part}_core_ms_per_image"] for part in PARTS)
        print(f"  {name:<8}{stage['images_per_s']:>12,.0f}{own:>10.3f}{s3:>10.3f}{postgres:>10.3f}")
    print(
        f"stage limit {figures.stage_limit} images/s on {count_usable_cores()} cores; "
        f"fer-batch reaches {figures.share_of_stage_limit:.2f} of it"
    )


PARTS = ("own", "s3", "postgres")


def summarize_stages(figures: Figures) -> dict[str, dict[str, float]]:
    """The medians of each stage over the rounds."""
    medians = {}
    for name, costs in figures.stages.items():
        medians[name] = {
            "images_per_s": Spread.from_values(
                [cost.images / cost.seconds for cost in costs]
            ).median,
            **{
                f"{part}_core_ms_per_image": Spread.from_values(
                    [1000 * getattr(cost, f"{part}_core_s") / cost.images for cost in costs]
                ).median
                for part in PARTS
            },
        }
    return medians


def convert_figures(figures: Figures) -> dict[str, Any]:
    return {
        "images_per_s": convert_spreads(figures.images_per_s),
        "times_as_fast_as": convert_spreads(figures.times_as_fast_as),
        "core_ms_per_image": convert_spreads(figures.core_ms_per_image),
        "peak_mb": figures.peak_mb,
        "ready_after_s": figures.ready_after_s,
        "stages": summarize_stages(figures),
        **convert_spreads({"stage_limit_images_per_s": figures.stage_limit}),
        "share_of_stage_limit": round(figures.share_of_stage_limit, 4),
    }


def list_makers(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """The contestants of each facility: the function that makes each, and its arguments."""
    return {
        CROPS: {
            "naive": (contestants.make_naive, (CROPS, sizes.naive)),
            "careful": (contestants.make_careful, (CROPS, sizes.crops)),
            OURS: (contestants.make_fer_batch, (CROPS,)),
            COLD: (contestants.make_fer_batch_cold, (CROPS,)),
            IN_PROCESS: (contestants.make_fer_batch, (CROPS, False)),
        },
        FRAMES: {
            "loop": (contestants.make_loop, (FRAMES, sizes.loop)),
            OURS: (contestants.make_fer_batch, (FRAMES,)),
            COLD: (contestants.make_fer_batch_cold, (FRAMES,)),
            IN_PROCESS: (contestants.make_fer_batch, (FRAMES, False)),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument(
        "--rounds", type=int, default=FULL.rounds, help="at least 5 (default %(default)s)"
    )
    parser.add_argument("--only", choices=["crops", "frames"], help="only this kind of images")
    options = parser.parse_args()
    is_quick: bool = options.quick
    sizes = QUICK if is_quick else FULL
    rounds = sizes.rounds if is_quick else max(options.rounds, 5)
    machine_facts = describe_machine()
    log.configure("console", "warning")
    print("drawing the day", flush=True)
    days = []
    if options.only != "frames":
        days.append(build_crops_day(sizes.crops))
    if options.only != "crops":
        days.append(build_frames_day(sizes.frames))
    makers = list_makers(sizes)
    measured: dict[str, Figures] = {}
    print("starting the servers", flush=True)
    with servers.running(days) as stack:
        for day in days:
            print(f"{day.name}: {len(day.images)} images", flush=True)
            measured[day.image_kind] = measure(
                stack, day.facility_id, makers[day.facility_id], rounds
            )
    for kind, figures in measured.items():
        show(kind, figures)
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": machine_facts,
        "rounds": rounds,
        "images": {
            day.image_kind: {
                "count": len(day.images),
                "mean_bytes": round(sum(len(i.data) for i in day.images) / len(day.images)),
            }
            for day in days
        },
        "images_of_slow_contestants": {"naive": sizes.naive, "loop": sizes.loop},
        **{kind: convert_figures(figures) for kind, figures in measured.items()},
    }
    name = f"day-{options.only}" if options.only else "day"
    write_json(build_result_path(f"{name}.json", is_quick=is_quick), result)
    chart.draw(result, build_result_path(f"{name}.png", is_quick=is_quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
