"""The memory of a scoring process, and whether it grows with the number of images.

Two days of crops, one ten times as large as the other, are each scored as one shard by one process,
started as in an Airflow task. Its resident memory is sampled twice a second, with that of its
decoders, of which memory that they share counts once (PSS). The peak of the scoring process itself
is that of the kernel (VmHWM).
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
import sqlalchemy as sa
from matplotlib.figure import Figure

from benchmarks import servers
from benchmarks.again import build_repeated_day
from benchmarks.drawn import DAY
from benchmarks.measuring import RESULTS_DIR, build_result_path, describe_machine, write_json
from fer_batch import log
from fer_batch.database import connections
from fer_batch.local.demo.day import DemoFacility
from fer_batch.pipeline import nightly
from fer_batch.pipeline.selection import Selection

SIZES, QUICK_SIZES = (20_000, 200_000), (400, 2_000)
PEAK_MB, GROWTH_MB = 600, 20
"""Limits of the peak, and of its growth from the smaller to the larger day."""
INTERVAL_S = 0.5
CHART = RESULTS_DIR.parents[1] / "docs" / "images" / "memory.png"

Sample = tuple[float, int, float]
"""Seconds since the start, images done, memory in MB."""


class MemoryMonitor(threading.Thread):
    """Samples the memory of the scoring process that this process starts, and of its decoders."""

    def __init__(self, engine: sa.Engine, facility_id: str) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.peak_mb = 0.0
        self.decoders_mb = 0.0
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
                    decoders_mb = _measure_decoders_mb(process)
                    peak_mb = max(resident_mb, _read_peak_mb(process.pid))
                except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
                    continue
                self.peak_mb = max(self.peak_mb, peak_mb + decoders_mb)
                self.decoders_mb = max(self.decoders_mb, decoders_mb)
                seconds = time.monotonic() - began
                self.samples.append((seconds, self._count_done(), resident_mb + decoders_mb))

    def stop(self) -> None:
        self._is_over.set()
        self.join()

    def _count_done(self) -> int:
        with self._engine.connect() as connection:
            return int(
                connection.execute(
                    sa.text("select count(*) from fer.image_result where facility_id = :facility"),
                    {"facility": self._facility_id},
                ).scalar_one()
            )


@contextmanager
def monitored(engine: sa.Engine, facility_id: str) -> Iterator[MemoryMonitor]:
    monitor = MemoryMonitor(engine, facility_id)
    monitor.start()
    try:
        yield monitor
    finally:
        monitor.stop()


def _measure_decoders_mb(process: psutil.Process) -> float:
    """The memory of the decoders of a scoring process and of their server."""
    total = 0.0
    for decoder in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            total += decoder.memory_full_info().pss / 1e6
    return total


def _read_peak_mb(pid: int) -> float:
    """The peak resident memory of a process, from the kernel."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def score(stack: servers.Servers, day: DemoFacility) -> MemoryMonitor:
    """Score one facility's day in one process. Raises RuntimeError unless all images are scored."""
    settings = stack.build_settings().model_copy(
        update={"shard_images": len(day.images), "score_deadline_s": 6 * 3600.0}
    )
    selection = Selection(f"bench-{uuid.uuid4()}", DAY, facility_ids=(day.facility_id,))
    run = nightly.Run(settings, selection)
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    with monitored(connections.create_engine(settings), day.facility_id) as monitor:
        result = run.score_shard(shard)
    if result.outcomes != {"scored": len(day.images)}:
        raise RuntimeError(f"not every image was scored: {result.outcomes}")
    print(
        f"  {len(day.images):,} images: {result.seconds:.0f} s, peak {monitor.peak_mb:.0f} MB, "
        f"with at most {monitor.decoders_mb:.0f} MB of decoders",
        flush=True,
    )
    return monitor


def draw(curves: dict[int, list[Sample]], path: Path, title: str) -> None:
    """Write a PNG: resident memory against the number of scored images."""
    mpl.use("Agg")
    figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for (size, samples), color in zip(curves.items(), ("#d08c3c", "#2f6f9f"), strict=True):
        done, resident = [s[1] for s in samples], [s[2] for s in samples]
        axes.plot(done, resident, color=color, label=f"a day of {size:,} images")
    axes.axhline(PEAK_MB, color="black", linestyle=":", linewidth=1)
    axes.annotate(f"limit {PEAK_MB} MB", (0, PEAK_MB), va="bottom", fontsize=8)
    axes.set_ylim(0, PEAK_MB * 1.1)
    axes.set_xlabel("images scored")
    axes.set_ylabel("resident MB")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(fontsize=8, frameon=False, loc="center right")
    axes.set_title(title, fontsize=9, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"written to {path}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument("--images", type=int, nargs=2, help="two sizes instead of the defaults")
    options = parser.parse_args()
    is_quick: bool = options.quick or options.images is not None
    sizes = tuple(sorted(options.images or (QUICK_SIZES if options.quick else SIZES)))
    machine_facts = describe_machine()
    log.configure("console", "warning")
    days = []
    for size in sizes:
        day = build_repeated_day(size)
        days.append(DemoFacility(f"crops-{size}", day.name, "UTC", "crops", day.images))
    print(f"starting the servers, uploading {sum(sizes):,} images", flush=True)
    with servers.running(days) as stack:
        monitors = {len(day.images): score(stack, day) for day in days}
    peaks = {size: round(monitor.peak_mb, 1) for size, monitor in monitors.items()}
    small, large = sizes
    growth_mb = round(peaks[large] - peaks[small], 1)
    is_met = peaks[large] <= PEAK_MB and growth_mb <= GROWTH_MB
    print(
        f"\npeak {peaks[large]:.0f} MB, at most {PEAK_MB}; from {small:,} to {large:,} images "
        f"{growth_mb:+.1f} MB, at most {GROWTH_MB}: {'met' if is_met else 'NOT MET'}"
    )
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": machine_facts,
        "peak_mb": {str(size): peak for size, peak in peaks.items()},
        "growth_mb": growth_mb,
        "decoders_mb": {
            str(size): round(monitor.decoders_mb, 1) for size, monitor in monitors.items()
        },
        "limits_mb": {"peak": PEAK_MB, "growth": GROWTH_MB},
        "samples_s_images_mb": {
            str(size): [[round(s, 1), done, round(mb, 1)] for s, done, mb in monitor.samples]
            for size, monitor in monitors.items()
        },
    }
    path = build_result_path("memory.json", is_quick=is_quick)
    write_json(path, result)
    draw(
        {size: monitor.samples for size, monitor in monitors.items()},
        path.with_suffix(".png") if is_quick else CHART,
        f"One scoring process with its decoders, {machine_facts['cpu']}, "
        f"{machine_facts['cores']} cores",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
