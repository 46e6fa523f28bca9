"""docs/scale.md and README.md state the figures of benchmarks/results/."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path


def test_tables_match_the_results(repo_root: Path) -> None:
    script = runpy.run_path(str(repo_root / "docs" / "generate_scale.py"))
    page = (repo_root / "docs" / "scale.md").read_text(encoding="utf-8")
    parts = script["render_parts"]()
    assert "| 10,000 × 5,000 | 50.0 |" in parts["nights"]
    assert script["replace_parts"](page, parts) == page, "run docs/generate_scale.py"


def test_readme_states_the_results(repo_root: Path) -> None:
    load_result = runpy.run_path(str(repo_root / "docs" / "generate_scale.py"))["load_result"]
    readme = " ".join((repo_root / "README.md").read_text(encoding="utf-8").split())

    def list_stated_figures() -> Iterator[str]:
        day = load_result("day")
        ours = {
            kind: day[kind]["images_per_s"]["fer-batch"]["median"] for kind in ("crops", "frames")
        }
        naive = day["crops"]["times_as_fast_as"]["naive"]["median"]
        yield f"{ours['crops']:,.0f} crops or {ours['frames']:,.0f} frames"
        yield f"{naive:.0f} times a loop"
        yield f"{load_result('model')['faces_per_s']['fer-batch']['median']:,.0f} faces a second"
        yield f"takes {max(load_result('memory')['peak_mb'].values()):.0f} MB"

    assert [figure for figure in list_stated_figures() if figure not in readme] == []
