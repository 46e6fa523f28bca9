"""`make bench-tables`: queries and writes on tables with months of data of many facilities.

PostgreSQL is that of the local stack, with its settings; it is created for the benchmark and
removed afterwards. `many_rows` fills it; then the project's own code and statements are timed, each
several times: summaries, the queries of analysts, overwriting results, planning a night, dropping a
day. Each measurement is compared with its target.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import many_rows
from benchmarks.measuring import build_result_path, convert_spreads, describe_machine, write_json
from benchmarks.servers import find_root_process
from benchmarks.table_figures import Figure, Scale, TableBenchmark
from fer_batch import log
from fer_batch.database import schema
from fer_batch.local.stack.files import TRAVERSABLE
from fer_batch.local.stack.postgres import PostgresServer

DISK = "/var/tmp"  # noqa: S108  where the other benchmarks put their servers
BYTES_OF_FACE = 750
"""Approximate bytes of a face in all three tables, including its share of the image; used to check
the free disk space beforehand."""

FULL = Scale(20_000_000, 90, 200, 100_000, 1_000, 200_000, 5)
QUICK = Scale(30_000, 6, 8, 2_000, 50, 5_000, 1)


@contextmanager
def temporary_database() -> Iterator[tuple[str, psutil.Process]]:
    """A migrated database within the block: its URL, and the root process of its server."""
    with tempfile.TemporaryDirectory(prefix="fer-batch-bench-", dir=DISK) as name:
        folder = Path(name)
        folder.chmod(TRAVERSABLE)  # PostgreSQL runs as another user where root starts it
        server = PostgresServer(folder / "postgres")
        server.start()
        try:
            server.ensure_database("fer")
            schema.upgrade(server.build_url("fer"))
            yield server.build_url("fer"), find_root_process("postgres", folder)
        finally:
            server.stop()


# ---------------------------------------------------------------- results


def show(figure: Figure) -> None:
    verdict = {None: "", True: "met", False: "NOT MET"}[figure.is_met]
    bound = "" if figure.target is None else f"{figure.comparison} {figure.target:,g} {figure.unit}"
    notes = {k: v for k, v in figure.notes.items() if k != "tables"}
    note_text = ", ".join(f"{k} {v}" for k, v in notes.items())
    print(f"  {figure.name:<46}{figure.spread!s:<30}{bound:<24}{verdict:<9}{note_text}", flush=True)


def convert_figure(figure: Figure) -> dict[str, Any]:
    bound = {"target": figure.target, "wanted": figure.comparison, "is_met": figure.is_met}
    return {
        "unit": figure.unit,
        **convert_spreads({"measured": figure.spread}),
        **(bound if figure.target is not None else {}),
        **figure.notes,
    }


def measure(url: str, postgres: psutil.Process, scale: Scale) -> dict[str, Any]:
    """Fill the database and measure everything; returns JSON-compatible values."""
    sizes = many_rows.distribute_faces(scale.facilities, scale.rows / scale.days)
    benchmark = TableBenchmark(url, postgres, scale, sizes)
    parts: list[Callable[[], Iterator[Figure]]] = [
        benchmark.measure_summaries,
        benchmark.measure_checks,
        benchmark.measure_queries,
        benchmark.measure_planning,
        benchmark.measure_writing,
        benchmark.measure_dropping,
    ]
    figures = []
    try:
        print("filling", flush=True)
        filled = benchmark.fill()
        print(json.dumps(filled, indent=1))
        print("median (min to max), target, and whether the target is met", flush=True)
        for part in parts:
            for figure in part():
                show(figure)
                figures.append(figure)
    finally:
        benchmark.close()
    return {**filled, "figures": {figure.name: convert_figure(figure) for figure in figures}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument("--rows", type=int, default=FULL.rows, help="total number of faces")
    parser.add_argument("--days", type=int, default=FULL.days, help="capture days")
    parser.add_argument("--facilities", type=int, default=FULL.facilities)
    parser.add_argument(
        "--rounds", type=int, default=FULL.rounds, help="at least 5 (default %(default)s)"
    )
    options = parser.parse_args()
    is_quick: bool = options.quick
    scale = (
        QUICK
        if is_quick
        else replace(
            FULL,
            rows=options.rows,
            days=max(options.days, 5),
            facilities=options.facilities,
            rounds=max(options.rounds, 5),
        )
    )
    free = shutil.disk_usage(DISK).free
    if free < 1.5 * scale.rows * BYTES_OF_FACE:
        print(f"{DISK} has only {free / 1e9:.0f} GB of free space", file=sys.stderr)
        return 1
    machine_facts = describe_machine()
    log.configure("console", "warning")
    with temporary_database() as (url, postgres):
        measured = measure(url, postgres, scale)
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": machine_facts,
        "rounds": scale.rounds,
        "days": scale.days,
        "facilities": scale.facilities,
        **measured,
    }
    is_full = scale == replace(FULL, rounds=scale.rounds)
    name = "tables.json" if is_full or is_quick else f"tables-{scale.rows}.json"
    write_json(build_result_path(name, is_quick=is_quick), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
