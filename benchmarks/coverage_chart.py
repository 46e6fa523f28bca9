"""The chart of `benchmarks.coverage`: each cell as a dot at its coverage."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

CORRECTED, RAW = "#2f6f9f", "#d08c3c"
PANELS = (("happy_rate", "raw happy", "happy rate"), ("sad_rate", "raw sad", "sad rate"))


def draw_chart(cells: Sequence[Mapping[str, Any]], path: Path, *, is_quick: bool) -> None:
    """Write a PNG with a column for each rate and a row for each audit situation."""
    mpl.use("Agg")
    situations = [
        (name, list(group))
        for name, group in itertools.groupby(cells, lambda cell: cell["situation"])
    ]
    figure = Figure(figsize=(11, 2.3 * len(situations) + 0.8), dpi=110, layout="constrained")
    axes = figure.subplots(len(situations), len(PANELS), sharex=True, sharey=True, squeeze=False)
    for row, (name, group) in zip(axes, situations, strict=True):
        for column, (corrected, raw, title) in zip(row, PANELS, strict=True):
            _draw_panel(column, group, corrected, raw)
            column.set_title(f"{title}: {name}", fontsize=9, loc="left")
    for column in axes[-1]:
        column.set_xlabel("share of 95 % intervals that contain the truth", fontsize=9)
    axes[0][0].invert_yaxis()  # all panels share it
    axes[0][0].legend(fontsize=8, frameon=False, loc="lower left")
    figure.suptitle(
        "each dot is a cell; rows of a panel: faces / sessions / correlation within a session"
        + (" (quick run: figures are not meaningful)" if is_quick else ""),
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"written to {path}")


def _draw_panel(axes: Axes, cells: Sequence[Mapping[str, Any]], corrected: str, raw: str) -> None:
    sizes: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        size = f"{cell['faces']:,} / {cell['sessions']} / {cell['correlation']:g}"
        sizes.setdefault(size, []).append(cell["figures"])
    for offset, name, color, label in (
        (0.16, raw, RAW, "uncorrected"),
        (-0.16, corrected, CORRECTED, "corrected"),
    ):
        points = [
            (figures[name]["coverage"], position + offset)
            for position, group in enumerate(sizes.values())
            for figures in group
        ]
        coverages, positions = zip(*points, strict=True)
        axes.scatter(coverages, positions, s=16, color=color, label=label, alpha=0.75, linewidths=0)
    axes.axvline(0.95, color="black", linestyle=":", linewidth=1)
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(sizes)), list(sizes), fontsize=8)
