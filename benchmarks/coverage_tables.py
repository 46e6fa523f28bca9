"""The results of `benchmarks.coverage` as tables, and whether they meet the thresholds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_faces import Size
from fer_batch.satisfaction.intervals import Floats

MIN_COVERAGE = 0.93
GOOD_COVERAGE, MAX_BELOW_GOOD = 0.94, 0.05
MIN_DIFFERENCE, MIN_DIFFERENCE_MEDIAN = 0.90, 0.94
MAX_FALSE_DISCOVERIES = 0.07
MIN_AUDITED, FROM_LABELS = 0.91, 200
"""The least coverage in facilities that differ from the benchmark, from so many labels on."""


_DISCOVERED = ("changed_share", "found_of_changed")


def get_coverages(cells: Iterable[Mapping[str, Any]], figure: str) -> Floats:
    return np.array([cell["figures"][figure]["coverage"] for cell in cells])


def judge(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, bool]]:
    """Each threshold as a sentence, and whether it is met."""
    judged = [cell for cell in results["cells"] if cell["is_judged"]]
    for figure in ("happy_rate", "sad_rate"):
        coverages = get_coverages(judged, figure)
        lowest, below = coverages.min(), (coverages < GOOD_COVERAGE).mean()
        yield (
            f"{figure}: at least {MIN_COVERAGE} in every cell (lowest {lowest:.3f}, "
            f"median {np.median(coverages):.3f})",
            bool(lowest >= MIN_COVERAGE),
        )
        yield (
            f"{figure}: below {GOOD_COVERAGE} in at most {MAX_BELOW_GOOD:.0%} of the cells "
            f"({below:.1%})",
            bool(below <= MAX_BELOW_GOOD),
        )
    raw = get_coverages(judged, "raw happy")
    yield (
        f"the uncorrected happy rate fails somewhere (lowest {raw.min():.3f}, "
        f"median {np.median(raw):.3f})",
        bool(raw.min() < MIN_COVERAGE),
    )
    for figure in ("happy change", "sad change"):
        coverages = np.concatenate(
            [get_coverages(judged, f"{figure}, {kind}") for kind in ("equal", "larger")]
        )
        lowest, median = coverages.min(), np.median(coverages)
        yield (
            f"{figure}: at least {MIN_DIFFERENCE} in every cell, with a median of at least "
            f"{MIN_DIFFERENCE_MEDIAN} (lowest {lowest:.3f}, median {median:.3f})",
            bool(lowest >= MIN_DIFFERENCE and median >= MIN_DIFFERENCE_MEDIAN),
        )
    audited = [cell for cell in results["audits"] if cell["labels"] >= FROM_LABELS]
    for figure in ("happy_rate", "sad_rate"):
        coverages = get_coverages(audited, figure)
        yield (
            f"{figure}: at least {MIN_AUDITED} in shifted facilities with {FROM_LABELS} or more "
            f"labels (lowest {coverages.min():.3f}, median {np.median(coverages):.3f})",
            bool(coverages.min() >= MIN_AUDITED),
        )
    highest = max(night["false_discovery_rate"] for night in results["false_discoveries"])
    yield (
        f"false discovery rate of changes: at most {MAX_FALSE_DISCOVERIES} (highest {highest:.3f})",
        bool(highest <= MAX_FALSE_DISCOVERIES),
    )


def print_tables(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The Markdown tables of docs/statistics.md.

    Coverage is lowest / median (median width) over the six mixes, by situation and size.
    """
    figures = ("happy_rate", "sad_rate", "raw happy", "raw sad")
    for situation, cells in itertools.groupby(results["cells"], lambda cell: cell["situation"]):
        print(f"\n{situation}: coverage, lowest / median (width)\n")
        print("| faces / sessions / ρ | `happy_rate` | `sad_rate` | uncorrected happy | "
              "uncorrected sad |\n|---|---|---|---|---|")  # fmt: skip
        for (faces, sessions, correlation), group in itertools.groupby(
            cells, lambda cell: (cell["faces"], cell["sessions"], cell["correlation"])
        ):
            rows, texts = list(group), []
            for name in figures:
                coverages = get_coverages(rows, name)
                width = np.median([row["figures"][name]["width"] for row in rows])
                texts.append(f"{coverages.min():.3f} / {np.median(coverages):.3f} ({width:.2f})")
            print(f"| {Size(faces, sessions, correlation)} | {' | '.join(texts)} |")
    _print_discoveries(results["false_discoveries"])
    print("\ncoverage of the called happy rate by sessions and blocks; mean sessions\n")
    print("| shop | sessions | effective faces / faces | coverage |\n|---|---|---|---|")
    for shop in results["shops"]:
        print(f"| {shop['shop']} | {shop['sessions']:.0f} | "
              f"{shop['faces_effective_of_faces']:.2f} | {shop['coverage']:.3f} |")  # fmt: skip
    print_audits(results["audits"])


def _print_discoveries(nights: Sequence[Mapping[str, Any]]) -> None:
    print("\nfalse discovery rate over nights of 50 facilities\n")
    print("| situation | facilities with a change of the happy rate | false discovery rate | "
          "found of the real changes |\n|---|---|---|---|")  # fmt: skip
    for night in nights:
        changed = found = None
        if night["changed_share"]:
            changed, found = (f"{100 * night[name]:.0f} %" for name in _DISCOVERED)
        print(f"| {night['situation']} | {changed or 'none'} | "
              f"{night['false_discovery_rate']:.3f} | {found or '–'} |")  # fmt: skip


def print_audits(cells: Sequence[Mapping[str, Any]]) -> None:
    """What labels buy, as the Markdown table of docs/statistics.md.

    The coverage is that of all sizes and mixes, lowest / median; the widths are medians over the
    mixes, for the sizes with the sessions of a day, a week and four weeks.
    """
    sizes = {60: "day", 420: "week", 1_680: "four weeks"}
    widths = " / ".join(sizes.values())
    print("\n| facility | labels | `happy_rate`: coverage | width of a " + widths
          + " | `sad_rate`: coverage | width of a " + widths + " |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for (facility, labels), group in itertools.groupby(
        cells, lambda cell: (cell["facility"], cell["labels"])
    ):
        rows, texts = list(group), []
        for figure in ("happy_rate", "sad_rate"):
            coverages = get_coverages(rows, figure)
            texts.append(f"{coverages.min():.3f} / {np.median(coverages):.3f}")
            medians = [
                np.median(
                    [row["figures"][figure]["width"] for row in rows if row["sessions"] == sessions]
                )
                for sessions in sizes
            ]
            texts.append(" / ".join(f"{median:.2f}" for median in medians))
        print(f"| {facility} | {f'{labels:,}' if labels else 'none'} | " + " | ".join(texts) + " |")
