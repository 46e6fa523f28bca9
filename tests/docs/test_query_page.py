"""The pages for analysts match the comments in the database, and their examples run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import psycopg

from tests.fixtures.servers import READER, switch_login


def test_reference_is_up_to_date(tables: Any, repo_root: Path) -> None:
    script = runpy.run_path(str(repo_root / "docs" / "generate_query.py"))
    parts = script["render_parts"](tables.engine)
    assert "| `happy_rate` | double precision |" in parts["tables"]
    for name, names in script["PAGES"].items():
        page = (repo_root / "docs" / name).read_text(encoding="utf-8")
        rendered = script["replace_parts"](page, {part: parts[part] for part in names})
        assert rendered == page, "run docs/generate_query.py"


def test_examples_run_as_an_analyst(tables: Any, repo_root: Path) -> None:
    pages = [(repo_root / "docs" / name).read_text("utf-8") for name in ("query.md", "analyze.md")]
    blocks = re.findall(r"```sql\n(.*?)```", "".join(pages), re.DOTALL)
    typed = re.findall(r"^fer[=-]> (.*)$", pages[0], re.MULTILINE)
    statements = [each for each in blocks if "read_parquet" not in each] + ["\n".join(typed)]
    assert len(statements) >= 2
    with psycopg.connect(switch_login(tables.url, READER)) as connection:
        for statement in statements:
            connection.execute(statement)
