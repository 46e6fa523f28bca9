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
RESULTS_USED = (
    *("day", "again", "tables", "packed", "memory", "model"),
    *("profile_before", "profile"),
)
BEGIN, END = "<!-- generated: {} -->", "<!-- end of {} -->"

NIGHTS = ((100, 1_000), (1_000, 5_000), (10_000, 5_000), (10_000, 50_000))
"""Facilities, and images of each."""
WINDOW_H = 4
TASKS_AT_MOST = 64
USD_PER_GET, USD_PER_LIST = 0.4e-6, 5e-6
"""List prices of S3 Standard in us-east-1; each provider has its own."""
KEYS_OF_PAGE = 1000
LISTINGS = 4
"""Of a day: its own night's, and those of the three nights that look back."""
SHOWN_FUNCTIONS = 8


def result(name: str) -> dict[str, Any]:
    """The last full run of a benchmark."""
    read: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def generated() -> dict[str, str]:
    """The generated parts of the page, by name."""
    day, again, tables, packed, memory, model, before, now = map(result, RESULTS_USED)
    return {
        "costs": _costs(day, tables, memory),
        "ratios": _ratios(day, again, model),
        "profile": _profile(before["crops"], now["crops"]),
        "large": _large(tables),
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


def _ratios(day: dict[str, Any], again: dict[str, Any], model: dict[str, Any]) -> str:
    crops, frames = day["crops"], day["frames"]
    faces = model["times_as_fast_as"]
    rows = [
        ("crops, times *naive*", crops["times_as_fast_as"]["naive"], "day"),
        ("crops, times *careful*", crops["times_as_fast_as"]["careful"], "day"),
        ("crops, share of the stage limit", crops["share_of_stage_limit"], "day"),
        ("frames, times *loop*", frames["times_as_fast_as"]["loop"], "day"),
        ("frames, share of the stage limit", frames["share_of_stage_limit"], "day"),
        *((f"the CNN alone, times {name}", spread, "model") for name, spread in faces.items()),
        (
            f"a second run over {again['images']:,} finished crops, share of the first",
            again["second_by_first"],
            "again",
        ),
    ]
    lines = [
        f"| {what} | {_spread(value)} | `python -m benchmarks.{by}` |" for what, value, by in rows
    ]
    return "\n".join(["| ratio | median (min to max) | by |", "| --- | --- | --- |", *lines])


def _spread(value: dict[str, Any] | float) -> str:
    """Median and range of the rounds; a ratio of medians has no range."""
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})"


def _profile(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The functions that take the most now, and what they and all took before."""
    key = "python_core_ms_per_image"
    # What is not a function of ours waits in a pool's thread or starts it.
    names = [name for name in before[key] if not name.startswith("elsewhere")][:SHOWN_FUNCTIONS]
    rows = [(f"`{name}`", before[key][name], now[key].get(name, 0.0)) for name in names]
    rows.append(("the whole process", before["core_ms_per_image"], now["core_ms_per_image"]))
    lines = [f"| {name} | {was:.3f} | {is_now:.3f} |" for name, was, is_now in rows]
    return "\n".join(["| function | core-ms a crop, before | now |", "| --- | --- | --- |", *lines])


def _large(tables: dict[str, Any]) -> str:
    lines = []
    for name, figure in tables["figures"].items():
        if not name.startswith("query "):
            unit = figure["unit"]
            wanted = f"{figure['wanted']} {figure['target']:,}" if figure.get("target") else ""
            median = figure["measured"]["median"]
            shown = f"{median:,.0f}" if median >= 1000 else f"{median:.3g}"
            lines.append(f"| {name} | {shown} {unit} | {wanted} |".replace("  ", " "))
    queries = [f for name, f in tables["figures"].items() if name.startswith("query ")]
    slowest = max(figure["measured"]["median"] for figure in queries)
    lines.append(
        f"| the slowest of {len(queries)} queries for analysts | {slowest:.3g} s | below 1 |"
    )
    return "\n".join(["| what | median | wanted |", "| --- | --- | --- |", *lines])


def _nights(day: dict[str, Any], tables: dict[str, Any]) -> str:
    lines = []
    for facilities, per_facility in NIGHTS:
        images = facilities * per_facility
        core_h = images * _core_ms(day, "crops") / 3.6e6
        lists = LISTINGS * (facilities + images / KEYS_OF_PAGE)
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
