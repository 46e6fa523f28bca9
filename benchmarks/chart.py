"""The chart of `make bench`: the rate of each contestant, and the core time of each stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

KINDS = ("crops", "frames")
PARTS = {"own": "fer-batch", "s3": "S3 server", "postgres": "PostgreSQL"}
COLORS = {"own": "#2f6f9f", "s3": "#d08c3c", "postgres": "#6a9a5b"}
OURS, OTHER = "#2f6f9f", "#a9b4bd"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with a row per kind of images: rates on the left, stages on the right."""
    mpl.use("Agg")
    kinds = [kind for kind in KINDS if kind in result]
    figure = Figure(figsize=(11, 3.1 * len(kinds) + 0.7), dpi=110, layout="constrained")
    axes = figure.subplots(len(kinds), 2, squeeze=False)
    for row, kind in zip(axes, kinds, strict=True):
        _draw_rates(row[0], kind, result[kind])
        _draw_stages(row[1], result[kind])
    machine = result["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores, S3 server and PostgreSQL on them too"
        + (" (quick run: figures are not meaningful)" if result["is_quick"] else ""),
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"written to {path}")


def _draw_rates(axes: Axes, kind: str, figures: Mapping[str, Any]) -> None:
    rates = figures["images_per_s"]
    names = list(rates)[::-1]
    medians = [rates[name]["median"] for name in names]
    spans = [
        [rates[name]["median"] - rates[name]["min"] for name in names],
        [rates[name]["max"] - rates[name]["median"] for name in names],
    ]
    colors = [OURS if name.startswith("fer-batch") else OTHER for name in names]
    axes.barh(range(len(names)), medians, xerr=spans, color=colors, capsize=3)
    limit = figures["stage_limit_images_per_s"]["median"]
    axes.axvline(limit, color="black", linestyle=":", linewidth=1)
    axes.annotate(
        f"stage limit {limit:,.0f}", (limit, 1.01), xycoords=("data", "axes fraction"),
        ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    axes.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 3, max(limit, *medians) * 3)
    for position, median in enumerate(medians):
        text = f"{median:,.0f}" if median >= 10 else f"{median:.1f}"
        color = "white" if names[position].startswith("fer-batch") else "black"
        axes.annotate(text, (min(medians) / 2.7, position), va="center", fontsize=9, color=color)
    axes.set_title(f"{kind}: images/s, median and range", fontsize=9, loc="left", pad=14)


def _draw_stages(axes: Axes, figures: Mapping[str, Any]) -> None:
    stages = figures["stages"]
    names = list(stages)[::-1]
    left = [0.0] * len(names)
    for part, label in PARTS.items():
        widths = [stages[name][f"{part}_core_ms_per_image"] for name in names]
        axes.barh(range(len(names)), widths, left=left, color=COLORS[part], label=label)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlim(0, max(left) * 1.05)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title("single stages: core-ms per image", fontsize=9, loc="left", pad=14)
