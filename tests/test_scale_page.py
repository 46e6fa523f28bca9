"""docs/scale.md calculates from the results that the benchmarks left."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_tables_are_those_of_the_results(repo_root: Path) -> None:
    script = runpy.run_path(str(repo_root / "docs" / "generate_scale.py"))
    page = (repo_root / "docs" / "scale.md").read_text(encoding="utf-8")
    parts = script["generated"]()
    assert "| 10,000 × 5,000 | 50.0 |" in parts["nights"]
    assert script["with_parts"](page, parts) == page, "run docs/generate_scale.py"
