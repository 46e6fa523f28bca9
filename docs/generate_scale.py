"""Write the tables of scale.md anew, from the results of the benchmarks.

    python docs/generate_scale.py

It calculates from `benchmarks/results/` alone and measures nothing. A test fails while the file
in the repository is not what this writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("scale.md")
RESULTS = FILE.parents[1] / "benchmarks" / "results"
BEGIN, END = "<!-- generated: {} -->", "<!-- end of {} -->"

NIGHTS = ((100, 1_000), (1_000, 5_000), (10_000, 5_000), (10_000, 50_000))
"""Facilities, and images of each."""
WINDOW_H = 4
TASKS_AT_MOST = 64
USD_PER_GET, USD_PER_LIST = 0.4e-6, 5e-6
"""List prices of S3 Standard in us-east-1; each provider has its own."""
KEYS_OF_PAGE = 1000


def generated() -> dict[str, str]:
    """The generated parts of the page, by name."""
    day, tables, packed, memory = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("day", "tables", "packed", "memory")
    )
    return {
        "costs": _costs(day, tables, memory),
        "nights": _nights(day, tables),
        "packs": _packs(packed),
    }


def with_parts(page: str, parts: dict[str, str]) -> str:
    """The page with its generated parts replaced. Raises ValueError if one has no place."""
    for name, text in parts.items():
        before, found_begin, rest = page.partition(BEGIN.format(name))
        _, found_end, after = rest.partition(END.format(name))
        if not (found_begin and found_end):
            raise ValueError(f"{FILE} has no place for {name}")
        page = f"{before}{found_begin}\n\n{text}\n\n{found_end}{after}"
    return page


def _core_ms(day: dict[str, Any], kind: str) -> float:
    """Of an image, from its listing to its commit, S3 server and PostgreSQL included."""
    return float(day[kind]["core_ms_per_image"]["fer-batch"]["median"])


def _bytes(tables: dict[str, Any], *names: str) -> float:
    """Of a row in each of these tables, its indexes included."""
    return float(
        sum(
            tables["tables"][name][f"{part}_bytes_per_row"]
            for name in names
            for part in ("table", "index")
        )
    )


def _costs(day: dict[str, Any], tables: dict[str, Any], memory: dict[str, Any]) -> str:
    ours = {kind: day[kind]["images_per_s"]["fer-batch"]["median"] for kind in ("crops", "frames")}
    written = tables["figures"]["results, written over existing ones"]
    rows = [
        (
            "a crop, S3 server and PostgreSQL included",
            f"{_core_ms(day, 'crops'):.2f} core-ms",
            "day",
        ),
        ("a frame of 640×480, likewise", f"{_core_ms(day, 'frames'):.1f} core-ms", "day"),
        ("crops, all on these cores", f"{ours['crops']:,.0f} images/s", "day"),
        ("frames, all on these cores", f"{ours['frames']:,.0f} images/s", "day"),
        ("a scoring process, at most", f"{max(memory['peak_mb'].values()):.0f} MB", "memory"),
        ("a row of `image`, indexes included", f"{_bytes(tables, 'image'):.0f} bytes", "tables"),
        ("a row of `image_result`", f"{_bytes(tables, 'image_result'):.0f} bytes", "tables"),
        ("a row of `face_result`", f"{_bytes(tables, 'face_result'):.0f} bytes", "tables"),
        (
            "writing results with a face each over existing ones, one connection",
            f"{written['measured']['median']:,.0f} {written['unit']}",
            "tables",
        ),
    ]
    lines = [f"| {what} | {figure} | `python -m benchmarks.{by}` |" for what, figure, by in rows]
    machine = day["machine"]
    return "\n".join(
        [
            f"On {machine['cores']} cores ({machine['cpu']}) and {machine['memory_gib']} GiB:",
            "",
            "| what | measured | by |",
            "| --- | --- | --- |",
            *lines,
        ]
    )


def _nights(day: dict[str, Any], tables: dict[str, Any]) -> str:
    lines = []
    for facilities, per_facility in NIGHTS:
        images = facilities * per_facility
        core_h = images * _core_ms(day, "crops") / 3.6e6
        lists = facilities + images / KEYS_OF_PAGE
        usd = images * USD_PER_GET + lists * USD_PER_LIST
        size = images * _bytes(tables, "image", "image_result", "face_result")
        cells = (
            f"{facilities:,} × {per_facility:,}",
            f"{images / 1e6:,.1f}",
            f"{core_h:,.1f}",
            f"{core_h / WINDOW_H:,.1f}",
            f"{images / TASKS_AT_MOST:,.0f}",
            f"{(images + lists) / 1e6:,.1f}",
            f"{usd:,.2f}",
            f"{size / 1e9:,.2f}",
            f"{size * 400 / 1e12:,.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "| facilities × crops | million images | core-hours | cores for "
            f"{WINDOW_H} hours | images a task | million requests | USD for them | GB written | "
            "TB after 400 days |",
            "| --- " * 9 + "|",
            *lines,
        ]
    )


def _packs(packed: dict[str, Any]) -> str:
    lines = [
        f"| {name} | {rate['median']:,.0f} | {packed['core_ms_per_crop'][name]['median']:.3f} "
        f"| {packed['requests'][name]:,} |"
        for name, rate in packed["crops_per_s"].items()
    ]
    return "\n".join(
        [
            f"| {packed['crops']:,} crops | crops/s | core-ms a crop | requests |",
            "| --- | --- | --- | --- |",
            *lines,
        ]
    )


if __name__ == "__main__":
    FILE.write_text(with_parts(FILE.read_text(encoding="utf-8"), generated()), encoding="utf-8")
    sys.stdout.write(f"{FILE} is up to date\n")
