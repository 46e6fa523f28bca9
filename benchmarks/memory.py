"""What memory a scoring process takes, and whether more images take more of it.

Two days of crops, one ten times the size of the other, each scored as one shard by one process,
started as a task starts it. Its resident memory is looked at twice a second; its peak is the
kernel's own (VmHWM).
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
import sqlalchemy as sa
from matplotlib.figure import Figure

from benchmarks import servers
from benchmarks.again import repeated_day
from benchmarks.drawn import DAY
from benchmarks.measuring import RESULTS_DIR, machine, result_path, write_json
from fer_batch import database, log, nightly
from fer_batch.demo.day import DemoFacility

SIZES, QUICK_SIZES = (20_000, 200_000), (400, 2_000)
PEAK_MB, GROWTH_MB = 600, 20
"""The bounds: on the peak, and on what the larger day may take over the smaller one."""
INTERVAL_S = 0.5
CHART = RESULTS_DIR.parents[1] / "docs" / "images" / "memory.png"

Sample = tuple[float, int, float]
"""Seconds since the start, images done, resident memory in MB."""


class Watch(threading.Thread):
    """Looks at the scoring process that this process starts, for as long as it lives."""

    def __init__(self, engine: sa.Engine, facility_id: str) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.peak_mb = 0.0
        self._engine = engine
        self._facility_id = facility_id
        self._is_over = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self._is_over.wait(INTERVAL_S):
            for process in psutil.Process().children():
                try:
                    if "worker" not in process.cmdline():
                        continue
                    resident_mb = process.memory_info().rss / 1e6
                    self.peak_mb = max(self.peak_mb, resident_mb, _peak_mb(process.pid))
                except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
                    continue
                self.samples.append((time.monotonic() - began, self._done(), resident_mb))

    def end(self) -> None:
        self._is_over.set()
        self.join()

    def _done(self) -> int:
        with self._engine.connect() as connection:
            return int(
                connection.execute(
                    sa.text("select count(*) from fer.image_result where facility_id = :facility"),
                    {"facility": self._facility_id},
                ).scalar_one()
            )


@contextmanager
def watched(engine: sa.Engine, facility_id: str) -> Iterator[Watch]:
    watch = Watch(engine, facility_id)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()


def _peak_mb(pid: int) -> float:
    """The most that was ever resident, as the kernel counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def score(stack: servers.Servers, day: DemoFacility) -> Watch:
    """One facility's day in one scoring process. Raises RuntimeError if not all of it is done."""
    settings = stack.settings().model_copy(
        update={"shard_images": len(day.images), "score_deadline_s": 6 * 3600.0}
    )
    selection = nightly.Selection(f"bench-{uuid.uuid4()}", DAY, facility_ids=(day.facility_id,))
    run = nightly.Run(settings, selection)
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    with watched(database.engine(settings), day.facility_id) as watch:
        result = run.score(shard)
    if result.outcomes != {"scored": len(day.images)}:
        raise RuntimeError(f"not every image was scored: {result.outcomes}")
    print(
        f"  {len(day.images):,} images: {result.seconds:.0f} s, peak {watch.peak_mb:.0f} MB",
        flush=True,
    )
    return watch


def draw(curves: dict[int, list[Sample]], path: Path, title: str) -> None:
    """Write a PNG: resident memory over images done, the share of the day as its scale."""
    mpl.use("Agg")
    figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for (size, samples), colour in zip(curves.items(), ("#d08c3c", "#2f6f9f"), strict=True):
        done, resident = [s[1] for s in samples], [s[2] for s in samples]
        axes.plot(done, resident, color=colour, label=f"a day of {size:,} images")
    axes.axhline(PEAK_MB, color="black", linestyle=":", linewidth=1)
    axes.annotate(f"limit {PEAK_MB} MB", (0, PEAK_MB), va="bottom", fontsize=8)
    axes.set_ylim(0, PEAK_MB * 1.1)
    axes.set_xlabel("images done")
    axes.set_ylabel("resident MB")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(fontsize=8, frameon=False, loc="center right")
    axes.set_title(title, fontsize=9, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"written to {path}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    parser.add_argument("--images", type=int, nargs=2, help="two sizes instead of the usual ones")
    options = parser.parse_args()
    is_quick: bool = options.quick or options.images is not None
    sizes = tuple(sorted(options.images or (QUICK_SIZES if options.quick else SIZES)))
    described = machine()
    log.configure("console", "warning")
    days = []
    for size in sizes:
        day = repeated_day(size)
        days.append(DemoFacility(f"crops-{size}", day.name, "UTC", "crops", day.images))
    print(f"starting the servers, uploading {sum(sizes):,} images", flush=True)
    with servers.running(days) as stack:
        watches = {len(day.images): score(stack, day) for day in days}
    peaks = {size: round(watch.peak_mb, 1) for size, watch in watches.items()}
    small, large = sizes
    growth_mb = round(peaks[large] - peaks[small], 1)
    is_kept = peaks[large] <= PEAK_MB and growth_mb <= GROWTH_MB
    print(
        f"\npeak {peaks[large]:.0f} MB, at most {PEAK_MB}; from {small:,} to {large:,} images "
        f"{growth_mb:+.1f} MB, at most {GROWTH_MB}: {'kept' if is_kept else 'NOT KEPT'}"
    )
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": described,
        "peak_mb": {str(size): peak for size, peak in peaks.items()},
        "growth_mb": growth_mb,
        "limits_mb": {"peak": PEAK_MB, "growth": GROWTH_MB},
        "samples_s_images_mb": {
            str(size): [[round(s, 1), done, round(mb, 1)] for s, done, mb in watch.samples]
            for size, watch in watches.items()
        },
    }
    path = result_path("memory.json", is_quick=is_quick)
    write_json(path, result)
    draw(
        {size: watch.samples for size, watch in watches.items()},
        path.with_suffix(".png") if is_quick else CHART,
        f"One scoring process, {described['cpu']}, {described['cores']} cores",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
