"""docs/scale.md calculates from the results that the benchmarks left."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path


def test_tables_are_those_of_the_results(repo_root: Path) -> None:
    script = runpy.run_path(str(repo_root / "docs" / "generate_scale.py"))
    page = (repo_root / "docs" / "scale.md").read_text(encoding="utf-8")
    parts = script["generated"]()
    assert "| 10,000 × 5,000 | 50.0 |" in parts["nights"]
    assert script["with_parts"](page, parts) == page, "run docs/generate_scale.py"


def test_the_readme_states_what_was_measured(repo_root: Path) -> None:
    result = runpy.run_path(str(repo_root / "docs" / "generate_scale.py"))["result"]
    readme = " ".join((repo_root / "README.md").read_text(encoding="utf-8").split())

    def stated() -> Iterator[str]:
        day = result("day")
        ours = {
            kind: day[kind]["images_per_s"]["fer-batch"]["median"] for kind in ("crops", "frames")
        }
        naive = day["crops"]["times_as_fast_as"]["naive"]["median"]
        yield f"{ours['crops']:,.0f} crops or {ours['frames']:,.0f} frames"
        yield f"{naive:.0f} times a loop"
        yield f"{result('model')['faces_per_s']['fer-batch']['median']:,.0f} faces a second"
        yield f"takes {max(result('memory')['peak_mb'].values()):.0f} MB"

    assert [figure for figure in stated() if figure not in readme] == []
