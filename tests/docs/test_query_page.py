"""The reference in docs/query.md matches the comments in the database."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any


def test_reference_is_up_to_date(tables: Any, repo_root: Path) -> None:
    script = runpy.run_path(str(repo_root / "docs" / "generate_query.py"))
    page = (repo_root / "docs" / "query.md").read_text(encoding="utf-8")
    parts = script["render_parts"](tables.engine)
    assert "| `happy_rate` | double precision |" in parts["tables"]
    assert script["replace_parts"](page, parts) == page, "run docs/generate_query.py"
