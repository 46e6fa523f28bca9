"""Regenerate the tables of scale.md from the results of the benchmarks.

    python docs/generate_scale.py

It calculates from `benchmarks/results/` alone and measures nothing. A test fails if the page in the
repository differs from the output of this script.
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
"""Facilities, and images per facility."""
WINDOW_H = 4
MAX_TASKS = 64
USD_PER_GET, USD_PER_LIST = 0.4e-6, 5e-6
"""List prices of S3 Standard in us-east-1; other providers differ."""
KEYS_PER_PAGE = 1000
LISTINGS = 4
"""Of a day: by its own night and by the three nights whose lookback includes it."""
SHOWN_FUNCTIONS = 8
OPERATIONS = {
    "checks of a night": "data checks of a night",
    "planning: tasks": "planning a night: number of tasks",
    "planning: most work / least work": "planning a night: work of the largest task / the smallest",
    "results, written first": "writing new results",
    "results, written over existing ones": "overwriting results",
}
"""Operations with another name on the page than in the results."""
LAYOUTS = {
    "one crop an object": "one crop per object",
    "a thousand crops an object": "a thousand crops per object",
}


def load_result(name: str) -> dict[str, Any]:
    """The last full run of a benchmark."""
    read: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def render_parts() -> dict[str, str]:
    """The generated parts of the page, by name."""
    day, again, tables, packed, memory, model, before, after = map(load_result, RESULTS_USED)
    return {
        "costs": _render_costs(day, tables, memory),
        "ratios": _render_ratios(day, again, model),
        "profile": _render_profile(before["crops"], after["crops"]),
        "large": _render_large(tables),
        "nights": _render_nights(day, tables),
        "packs": _render_packs(packed),
    }


def replace_parts(page: str, parts: dict[str, str]) -> str:
    """The page with its generated parts replaced. Raises ValueError if a marker is missing."""
    for name, text in parts.items():
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, after = rest.partition(END.format(name))
        if not (begin and end):
            raise ValueError(f"{FILE} has no markers for {name}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def _get_core_ms(day: dict[str, Any], kind: str) -> float:
    """Per image, from listing to commit, including S3 server and PostgreSQL."""
    return float(day[kind]["core_ms_per_image"]["fer-batch"]["median"])


def _sum_bytes(tables: dict[str, Any], *names: str) -> float:
    """Per row, summed over these tables, including indexes."""
    return float(
        sum(
            tables["tables"][name][f"{part}_bytes_per_row"]
            for name in names
            for part in ("table", "index")
        )
    )


def _render_costs(day: dict[str, Any], tables: dict[str, Any], memory: dict[str, Any]) -> str:
    ours = {kind: day[kind]["images_per_s"]["fer-batch"]["median"] for kind in ("crops", "frames")}
    written = tables["figures"]["results, written over existing ones"]
    rows = [
        (
            "a crop, including S3 server and PostgreSQL",
            f"{_get_core_ms(day, 'crops'):.2f} core-ms",
            "day",
        ),
        (
            "a frame of 640×480, including S3 server and PostgreSQL",
            f"{_get_core_ms(day, 'frames'):.1f} core-ms",
            "day",
        ),
        ("crops, including S3 server and PostgreSQL", f"{ours['crops']:,.0f} images/s", "day"),
        ("frames, including S3 server and PostgreSQL", f"{ours['frames']:,.0f} images/s", "day"),
        (
            "a scoring process with its decoders, peak memory",
            f"{max(memory['peak_mb'].values()):.0f} MB",
            "memory",
        ),
        (
            "a row of `image`, including indexes",
            f"{_sum_bytes(tables, 'image'):.0f} bytes",
            "tables",
        ),
        (
            "a row of `image_result`, including indexes",
            f"{_sum_bytes(tables, 'image_result'):.0f} bytes",
            "tables",
        ),
        (
            "a row of `face_result`, including indexes",
            f"{_sum_bytes(tables, 'face_result'):.0f} bytes",
            "tables",
        ),
        (
            "overwriting results of images with one face, over one connection",
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
            "| quantity | measured | command |",
            "| --- | --- | --- |",
            *lines,
        ]
    )


def _render_ratios(day: dict[str, Any], again: dict[str, Any], model: dict[str, Any]) -> str:
    crops, frames = day["crops"], day["frames"]
    faces = model["times_as_fast_as"]
    rows = [
        ("crops, speedup over *naive*", crops["times_as_fast_as"]["naive"], "day"),
        ("crops, speedup over *careful*", crops["times_as_fast_as"]["careful"], "day"),
        ("crops, fraction of the stage limit", crops["share_of_stage_limit"], "day"),
        ("frames, speedup over *loop*", frames["times_as_fast_as"]["loop"], "day"),
        ("frames, fraction of the stage limit", frames["share_of_stage_limit"], "day"),
        *(
            (f"the CNN alone, speedup over {name}", spread, "model")
            for name, spread in faces.items()
        ),
        (
            f"a second run over {again['images']:,} finished crops: time as a share of the first",
            again["second_by_first"],
            "again",
        ),
    ]
    lines = [
        f"| {what} | {_format_spread(value)} | `python -m benchmarks.{by}` |"
        for what, value, by in rows
    ]
    return "\n".join(["| ratio | median (min to max) | command |", "| --- | --- | --- |", *lines])


def _format_spread(value: dict[str, Any] | float) -> str:
    """Median and range of the rounds; a ratio of medians has no range."""
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})"


def _render_profile(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The most expensive functions before the change; they and the total before and after it."""
    key = "python_core_ms_per_image"
    # Outside of fer-batch's functions a thread of the pool waits or starts.
    names = [name for name in before[key] if not name.startswith("elsewhere")][:SHOWN_FUNCTIONS]
    rows = [(f"`{name}`", before[key][name], after[key].get(name, 0.0)) for name in names]
    rows.append(("the whole process", before["core_ms_per_image"], after["core_ms_per_image"]))
    lines = [f"| {name} | {first:.3f} | {second:.3f} |" for name, first, second in rows]
    return "\n".join(
        [
            "| function | core-ms per crop, before | core-ms per crop, after |",
            "| --- | --- | --- |",
            *lines,
        ]
    )


def _render_large(tables: dict[str, Any]) -> str:
    lines = []
    for name, figure in tables["figures"].items():
        if not name.startswith("query "):
            unit = figure["unit"]
            target = f"{figure['wanted']} {figure['target']:,}" if figure.get("target") else ""
            median = figure["measured"]["median"]
            shown = f"{median:,.0f}" if median >= 1000 else f"{median:.3g}"
            operation = OPERATIONS.get(name, name)
            lines.append(f"| {operation} | {shown} {unit} | {target} |".replace("  ", " "))
    queries = [f for name, f in tables["figures"].items() if name.startswith("query ")]
    slowest = max(figure["measured"]["median"] for figure in queries)
    lines.append(f"| slowest analyst query that was measured | {slowest:.3g} s | below 1 |")
    return "\n".join(["| operation | median | target |", "| --- | --- | --- |", *lines])


def _render_nights(day: dict[str, Any], tables: dict[str, Any]) -> str:
    lines = []
    for facilities, per_facility in NIGHTS:
        images = facilities * per_facility
        core_h = images * _get_core_ms(day, "crops") / 3.6e6
        lists = LISTINGS * (facilities + images / KEYS_PER_PAGE)
        usd = images * USD_PER_GET + lists * USD_PER_LIST
        size = images * _sum_bytes(tables, "image", "image_result", "face_result")
        cells = (
            f"{facilities:,} × {per_facility:,}",
            f"{images / 1e6:,.1f}",
            f"{core_h:,.1f}",
            f"{core_h / WINDOW_H:,.1f}",
            f"{images / MAX_TASKS:,.0f}",
            f"{(images + lists) / 1e6:,.1f}",
            f"{usd:,.2f}",
            f"{size / 1e9:,.2f}",
            f"{size * 400 / 1e12:,.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "| facilities × crops | million images | core-hours | cores to finish in "
            f"{WINDOW_H} hours | images per task | million requests | USD for requests | "
            "GB written | TB after 400 days |",
            "| --- " * 9 + "|",
            *lines,
        ]
    )


def _render_packs(packed: dict[str, Any]) -> str:
    lines = [
        f"| {LAYOUTS.get(name, name)} | {rate['median']:,.0f} "
        f"| {packed['core_ms_per_crop'][name]['median']:.3f} | {packed['requests'][name]:,} |"
        for name, rate in packed["crops_per_s"].items()
    ]
    return "\n".join(
        [
            f"| {packed['crops']:,} crops | crops/s | core-ms per crop | requests |",
            "| --- | --- | --- | --- |",
            *lines,
        ]
    )


if __name__ == "__main__":
    FILE.write_text(
        replace_parts(FILE.read_text(encoding="utf-8"), render_parts()), encoding="utf-8"
    )
    sys.stdout.write(f"{FILE} is up to date\n")
