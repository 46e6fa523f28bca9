"""`make bench-tables`: the tables after months of many facilities, and what is asked of them.

PostgreSQL is the local stack's, with its own settings, made for the benchmark and removed after
it. `many_rows` fills it; then the project's own code and statements are timed, each several times:
summaries, the queries of analysts, writing over existing results, planning a night, dropping a
day. What is measured is put beside what is wanted.
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
from benchmarks.measuring import as_plain, machine, result_path, write_json
from benchmarks.servers import root_process
from benchmarks.table_figures import Figure, Measured, Scale
from fer_batch import database, log
from fer_batch.stack.files import PASSABLE
from fer_batch.stack.postgres import PostgresServer

DISK = "/var/tmp"  # noqa: S108  where the other benchmarks put their servers
BYTES_OF_FACE = 750
"""About what a face takes in all three tables, with its part of the image: for a look at the disk
beforehand."""

FULL = Scale(20_000_000, 90, 200, 100_000, 1_000, 200_000, 5)
QUICK = Scale(30_000, 6, 8, 2_000, 50, 5_000, 1)


@contextmanager
def own_database() -> Iterator[tuple[str, psutil.Process]]:
    """A migrated database for the time of a block: its URL, and its server's first process."""
    with tempfile.TemporaryDirectory(prefix="fer-batch-bench-", dir=DISK) as name:
        folder = Path(name)
        folder.chmod(PASSABLE)  # PostgreSQL runs as another user where root starts it
        server = PostgresServer(folder / "postgres")
        server.start()
        try:
            server.ensure_database("fer")
            database.upgrade(server.url("fer"))
            yield server.url("fer"), root_process("postgres", folder)
        finally:
            server.stop()


# ---------------------------------------------------------------- results


def show(figure: Figure) -> None:
    verdict = {None: "", True: "met", False: "NOT MET"}[figure.is_met]
    bound = "" if figure.target is None else f"{figure.wanted} {figure.target:,g} {figure.unit}"
    notes = {k: v for k, v in figure.notes.items() if k != "tables"}
    said = ", ".join(f"{k} {v}" for k, v in notes.items())
    print(f"  {figure.name:<46}{figure.spread!s:<30}{bound:<24}{verdict:<9}{said}", flush=True)


def as_json(figure: Figure) -> dict[str, Any]:
    bound = {"target": figure.target, "wanted": figure.wanted, "is_met": figure.is_met}
    return {
        "unit": figure.unit,
        **as_plain({"measured": figure.spread}),
        **(bound if figure.target is not None else {}),
        **figure.notes,
    }


def measure(url: str, postgres: psutil.Process, scale: Scale) -> dict[str, Any]:
    """Fill the database and measure everything; the result as JSON takes it."""
    sizes = many_rows.sizes(scale.facilities, scale.rows / scale.days)
    measured = Measured(url, postgres, scale, sizes)
    parts: list[Callable[[], Iterator[Figure]]] = [
        measured.summaries,
        measured.checks,
        measured.queries,
        measured.planning,
        measured.writing,
        measured.dropping,
    ]
    figures = []
    try:
        print("filling", flush=True)
        filled = measured.fill()
        print(json.dumps(filled, indent=1))
        print("median (min to max) of each, what is wanted, and whether that is met", flush=True)
        for part in parts:
            for figure in part():
                show(figure)
                figures.append(figure)
    finally:
        measured.close()
    return {**filled, "figures": {figure.name: as_json(figure) for figure in figures}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    parser.add_argument("--rows", type=int, default=FULL.rows, help="faces in all")
    parser.add_argument("--days", type=int, default=FULL.days, help="capture days")
    parser.add_argument("--facilities", type=int, default=FULL.facilities)
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="at least 5")
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
        print(f"{DISK} has {free / 1e9:.0f} GB left, which is too little", file=sys.stderr)
        return 1
    described = machine()
    log.configure("console", "warning")
    with own_database() as (url, postgres):
        found = measure(url, postgres, scale)
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": described,
        "rounds": scale.rounds,
        "days": scale.days,
        "facilities": scale.facilities,
        **found,
    }
    is_full = scale == replace(FULL, rounds=scale.rounds)
    name = "tables.json" if is_full or is_quick else f"tables-{scale.rows}.json"
    write_json(result_path(name, is_quick=is_quick), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
