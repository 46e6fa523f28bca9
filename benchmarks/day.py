"""`make bench`: the same day of images by what one would write oneself, and by fer-batch.

S3 server and PostgreSQL are the local stack's, on the same cores; everything of them is made for
the benchmark and removed after it. The contestants take turns. A turn goes from the listing to
the last commit, with libraries and CNN loaded beforehand; *naive* and *loop* do a part of the day,
for they would take minutes. Then each stage is measured alone, with the core-seconds that it costs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import chart, contestants, servers
from benchmarks.drawn import CROPS, FRAMES, crops_day, frames_day
from benchmarks.measuring import (
    QUIET,
    Spread,
    as_plain,
    machine,
    result_path,
    usable_cores,
    write_json,
)
from benchmarks.rounds import Contestant, Turn, in_turn, ready
from benchmarks.stages import Cost, Stages
from fer_batch import log

OURS = "fer-batch"
COLD = "fer-batch, process start included"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many images there are, how many of them the slow contestants do, and how often."""

    crops: int
    naive: int
    frames: int
    loop: int
    rounds: int


FULL = Sizes(crops=4000, naive=200, frames=400, loop=60, rounds=5)
QUICK = Sizes(crops=200, naive=10, frames=20, loop=5, rounds=1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one facility's day."""

    images_per_s: dict[str, Spread]
    core_ms_per_image: dict[str, Spread]
    peak_mb: dict[str, float]
    ready_after_s: dict[str, float]
    stages: dict[str, list[Cost]]

    @property
    def times_as_fast_as(self) -> dict[str, Spread]:
        ours = self.images_per_s[OURS]
        return {
            name: Spread.of_ratios(ours, rate)
            for name, rate in self.images_per_s.items()
            if name not in (OURS, COLD)
        }

    @property
    def stage_limit(self) -> Spread:
        """Images a second if the cores did the stages' work and nothing else."""
        rounds = zip(*self.stages.values(), strict=True)
        return Spread.of(
            [usable_cores() / sum(cost.core_s / cost.images for cost in costs) for costs in rounds]
        )

    @property
    def share_of_stage_limit(self) -> float:
        return self.images_per_s[OURS].median / self.stage_limit.median


def measure(
    stack: servers.Servers, facility_id: str, makers: Mapping[str, Any], rounds: int
) -> Figures:
    """One facility's day by every contestant in turn, then stage by stage."""
    turns: dict[str, list[tuple[Turn, float]]] = {name: [] for name in makers}
    with ready(makers, QUIET | stack.environment()) as able:
        for number, order in in_turn(list(makers), rounds):
            for name in order:
                turns[name].append(_turn(stack, able[name]))
            said = ", ".join(f"{n} {turns[n][-1][0].items_per_s:,.0f}" for n in makers)
            print(f"  round {number + 1} of {rounds}, images/s: {said}", flush=True)
        ready_after_s = {name: round(able[name].ready_after_s, 1) for name in makers}
    stages = Stages(stack, facility_id)
    stages.measure()  # the first time, everything is new to the machine
    measured = [stages.measure() for _ in range(rounds)]
    return Figures(
        {name: Spread.of([t.items_per_s for t, _ in turns[name]]) for name in makers},
        {name: Spread.of([1000 * c / t.items for t, c in turns[name]]) for name in makers},
        {name: round(max(t.peak_mb for t, _ in turns[name])) for name in makers},
        ready_after_s,
        {name: [costs[name] for costs in measured] for name in measured[0]},
    )


def _turn(stack: servers.Servers, contestant: Contestant) -> tuple[Turn, float]:
    """A turn on empty tables, and the core-seconds that all processes spent on it."""
    stack.forget()
    before = stack.core_s()
    turn = contestant.turn()
    of_servers = stack.core_s() - before
    return turn, turn.core_s + of_servers.s3 + of_servers.postgres


# ---------------------------------------------------------------- results


def show(title: str, figures: Figures) -> None:
    print(f"\n{title}: images/s, median (min to max); core-ms an image; peak memory in MB")
    for name, rate in figures.images_per_s.items():
        cost = figures.core_ms_per_image[name].median
        print(f"  {name:<36}{rate!s:<28}{cost:>8.2f}{figures.peak_mb[name]:>8.0f}")
    for name, ratio in figures.times_as_fast_as.items():
        print(f"  fer-batch is {ratio} times as fast as {name}")
    print("stages alone: images/s, and core-ms an image of fer-batch, S3 server, PostgreSQL")
    for name, stage in as_stages(figures).items():
        own, s3, postgres = (stage[f"{part}_core_ms_per_image"] for part in PARTS)
        print(f"  {name:<8}{stage['images_per_s']:>12,.0f}{own:>10.3f}{s3:>10.3f}{postgres:>10.3f}")
    print(
        f"stage limit {figures.stage_limit} images/s on {usable_cores()} cores; "
        f"fer-batch reaches {figures.share_of_stage_limit:.2f} of it"
    )


PARTS = ("own", "s3", "postgres")


def as_stages(figures: Figures) -> dict[str, dict[str, float]]:
    """Medians of each stage over the rounds."""
    found = {}
    for name, costs in figures.stages.items():
        found[name] = {
            "images_per_s": Spread.of([cost.images / cost.seconds for cost in costs]).median,
            **{
                f"{part}_core_ms_per_image": Spread.of(
                    [1000 * getattr(cost, f"{part}_core_s") / cost.images for cost in costs]
                ).median
                for part in PARTS
            },
        }
    return found


def as_json(figures: Figures) -> dict[str, Any]:
    return {
        "images_per_s": as_plain(figures.images_per_s),
        "times_as_fast_as": as_plain(figures.times_as_fast_as),
        "core_ms_per_image": as_plain(figures.core_ms_per_image),
        "peak_mb": figures.peak_mb,
        "ready_after_s": figures.ready_after_s,
        "stages": as_stages(figures),
        **as_plain({"stage_limit_images_per_s": figures.stage_limit}),
        "share_of_stage_limit": round(figures.share_of_stage_limit, 4),
    }


def makers_of(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """The contestants of each facility, with what they are made from."""
    return {
        CROPS: {
            "naive": (contestants.naive, (CROPS, sizes.naive)),
            "careful": (contestants.careful, (CROPS, sizes.crops)),
            OURS: (contestants.ours, (CROPS,)),
            COLD: (contestants.ours_cold, (CROPS,)),
        },
        FRAMES: {
            "loop": (contestants.loop, (FRAMES, sizes.loop)),
            OURS: (contestants.ours, (FRAMES,)),
            COLD: (contestants.ours_cold, (FRAMES,)),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="at least 5")
    parser.add_argument("--only", choices=["crops", "frames"], help="one kind of images")
    options = parser.parse_args()
    is_quick: bool = options.quick
    sizes = QUICK if is_quick else FULL
    rounds = sizes.rounds if is_quick else max(options.rounds, 5)
    described = machine()
    log.configure("console", "warning")
    print("drawing the day", flush=True)
    days = []
    if options.only != "frames":
        days.append(crops_day(sizes.crops))
    if options.only != "crops":
        days.append(frames_day(sizes.frames))
    makers = makers_of(sizes)
    found: dict[str, Figures] = {}
    print("starting the servers", flush=True)
    with servers.running(days) as stack:
        for day in days:
            print(f"{day.name}: {len(day.images)} images", flush=True)
            found[day.image_kind] = measure(stack, day.facility_id, makers[day.facility_id], rounds)
    for kind, figures in found.items():
        show(kind, figures)
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": described,
        "rounds": rounds,
        "images": {
            day.image_kind: {
                "count": len(day.images),
                "mean_bytes": round(sum(len(i.data) for i in day.images) / len(day.images)),
            }
            for day in days
        },
        "images_of_slow_contestants": {"naive": sizes.naive, "loop": sizes.loop},
        **{kind: as_json(figures) for kind, figures in found.items()},
    }
    name = f"day-{options.only}" if options.only else "day"
    write_json(result_path(f"{name}.json", is_quick=is_quick), result)
    chart.draw(result, result_path(f"{name}.png", is_quick=is_quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
