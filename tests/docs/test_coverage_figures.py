"""README.md, docs/statistics.md and docs/audit.md state the figures of the coverage benchmarks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.coverage_faces import print_table
from benchmarks.coverage_tables import get_coverages, print_tables

Cells = Sequence[dict[str, Any]]
FACES_ALONE = "elsewhere, card alone"
AUDITED = "elsewhere, card and 200 local labels"


@pytest.fixture(scope="module")
def load(repo_root: Path) -> Callable[[str], dict[str, Any]]:
    """A result of a benchmark."""
    folder = repo_root / "benchmarks" / "results"
    return lambda name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def read(repo_root: Path) -> Callable[[str], str]:
    """A page as one line, with single spaces."""
    return lambda name: " ".join((repo_root / name).read_text(encoding="utf-8").split())


def test_tables_of_the_statistics_are_those_of_the_benchmarks(
    load: Callable[[str], dict[str, Any]], repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_tables(load("coverage"))
    print_table(load("coverage_faces")["results"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (repo_root / "docs" / "statistics.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 60
    assert [row for row in rows if row not in page] == []


def test_pages_state_the_coverage_that_was_simulated(
    load: Callable[[str], dict[str, Any]], read: Callable[[str], str]
) -> None:
    results, faces = load("coverage"), load("coverage_faces")
    stated = {
        "README.md": list_in_readme(results),
        "docs/statistics.md": list_in_statistics(results),
        "docs/audit.md": list_in_audit(results, faces),
    }
    missing = {
        name: absent
        for name, texts in stated.items()
        if (absent := [text for text in texts if text not in read(name)])
    }
    assert missing == {}


def test_the_gain_of_labels_is_that_of_the_simulation(
    load: Callable[[str], dict[str, Any]], read: Callable[[str], str]
) -> None:
    """Each cell of the table of audit.md is the range of the three facilities of statistics.md."""
    rows = re.findall(
        r"^\|(?: [^|]+ \|) (none|[\d,]+) \| [^|]+ \| ([\d.]+) / ([\d.]+) / ([\d.]+) \|",
        (read("docs/statistics.md")).replace("| | ", "|\n| "),
        re.MULTILINE,
    )
    assert len(rows) == 15
    for labels in dict.fromkeys(row[0] for row in rows):
        columns = zip(*(row[1:] for row in rows if row[0] == labels), strict=True)
        points = [sorted({round(100 * float(width)) for width in column}) for column in columns]
        ranges = [f"{p[0]} to {p[-1]}" if len(p) > 1 else f"{p[0]}" for p in points]
        assert f"| {labels} | {' | '.join(ranges)} |" in read("docs/audit.md")


def list_in_readme(results: dict[str, Cells]) -> Iterator[str]:
    by_situation = {
        name: [cell for cell in results["cells"] if cell["situation"] == name]
        for name in {cell["situation"] for cell in results["cells"]}
    }
    neutral = [cell for cell in by_situation[FACES_ALONE] if cell["true_rates"][2] == 0.7]
    four_weeks = {
        labels: [
            cell
            for cell in select_audits(results, labels)
            if (cell["facility"], cell["sessions"]) == ("20 px", 1680)
        ]
        for labels in (0, 200)
    }
    for name, cells in {
        "as in FER2013": by_situation["card alone, which fits"],
        "of 20 pixels, with other people's labels": by_situation[FACES_ALONE],
        "the same, only mixes with 70 % neutral faces": neutral,
        "the same, all mixes, and 200 of the faces audited": by_situation[AUDITED],
        "of 20 pixels, four weeks of 8,400 faces": four_weeks[0],
        "the same, and 200 of the faces audited": four_weeks[200],
    }.items():
        coverages = get_coverages(cells, "happy_rate")
        yield f"| {name} | {percent(coverages.min())} | {percent(float(np.median(coverages)))} |"
    yield f"at least {round_down(find_lowest_audited(results))} of the simulated periods"


def list_in_statistics(results: dict[str, Cells]) -> Iterator[str]:
    judged = [cell for cell in results["cells"] if cell["is_judged"]]
    for figure in ("happy_rate", "sad_rate"):
        yield f"at least {round_down(get_coverages(judged, figure).min())}"
    yield f"at least {round_down(find_lowest_audited(results))} of the replicates"
    for figure in ("happy change", "sad change"):
        kinds = [get_coverages(judged, f"{figure}, {kind}") for kind in ("equal", "larger")]
        yield f"at least {round_down(min(kind.min() for kind in kinds))}"
    without = select_audits(results, 0)
    happy, sad = (get_coverages(without, name).min() for name in ("happy_rate", "sad_rate"))
    yield f"as few as {100 * happy:.0f} % for the happy rate and {100 * sad:.0f} % for the sad rate"


def list_in_audit(results: dict[str, Cells], faces: dict[str, Any]) -> Iterator[str]:
    happy = get_coverages(
        [cell for cell in results["audits"] if cell["labels"] >= 200], "happy_rate"
    )
    yield f"with 200 or more labels in at least {round_down(happy.min())}"
    alone = get_coverages(select_audits(results, 0), "happy_rate").min()
    yield f"in as few as {100 * alone:.0f} % of the simulated periods"
    rows = [row for row in faces["results"] if row["raters"] == "one voter"]
    lowest = min(row[span]["happy_rate"]["coverage"] for row in rows for span in ("day", "week"))
    yield f"at least {round_down(lowest)} of the intervals contained the truth"
    for raters, text in (
        ("one voter", "the interval of a week missed the sad rate in {}"),
        ("two voters, a third settles", "with two in {}"),
    ):
        [row] = [r for r in faces["results"] if (r["raters"], r["labels"]) == (raters, 1000)]
        yield text.format(percent(1 - row["week"]["sad_rate"]["coverage"]))
    kappa = faces["kappa_of_two_voters"]
    yield f"reach {kappa['kappa']:.2f} ({kappa['low']:.2f} to {kappa['high']:.2f}"


def select_audits(results: dict[str, Cells], labels: int) -> Cells:
    return [cell for cell in results["audits"] if cell["labels"] == labels]


def find_lowest_audited(results: dict[str, Cells]) -> float:
    audited = [cell for cell in results["audits"] if cell["labels"] >= 200]
    return min(float(get_coverages(audited, name).min()) for name in ("happy_rate", "sad_rate"))


def round_down(share: float) -> str:
    """A percentage that is not larger than the share, for "at least"."""
    return f"{math.floor(1000 * share + 1e-6) / 10:.1f} %"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
