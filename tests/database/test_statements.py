"""The `.sql` file beside a module: its format, and that module and file name the same blocks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fer_batch
from fer_batch import resources
from fer_batch.database.statements import load_statements

PACKAGE = Path(fer_batch.__file__).parent
FILES = sorted(file for file in PACKAGE.rglob("*.sql") if file.parent != PACKAGE / "sql")


def used_names(module: Path) -> list[str]:
    """The blocks that a module gets with `_STATEMENTS["name"]`."""
    nodes = ast.walk(ast.parse(module.read_text(encoding="utf-8")))
    subscripts = [
        node.slice
        for node in nodes
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "_STATEMENTS"
    ]
    assert all(isinstance(name, ast.Constant) for name in subscripts), module
    return [str(name.value) for name in subscripts if isinstance(name, ast.Constant)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_block_is_used_and_each_used_block_exists(file: Path) -> None:
    module = file.with_suffix(".py")
    assert set(load_statements(str(module))) == set(used_names(module))


def test_each_module_that_loads_statements_has_a_file() -> None:
    modules = {module for module in PACKAGE.rglob("*.py") if used_names(module)}
    assert {module.with_suffix(".sql") for module in modules} == set(FILES)
    assert len(FILES) >= 8
    assert not (resources.find_sql_dir() / "statements").exists()


def test_blocks_are_found_with_their_comments_and_parameters(tmp_path: Path) -> None:
    (tmp_path / "module.sql").write_text(
        "-- name: one\n-- Why: it is so.\nSELECT :value AS value;\n\n"
        "-- name: two\nCOPY t FROM STDIN;\n"
    )
    statements = load_statements(str(tmp_path / "module.py"))
    assert list(statements) == ["one", "two"]
    assert list(statements["one"].compile().params) == ["value"]
    assert statements["two"].text == "-- name: two\nCOPY t FROM STDIN"


@pytest.mark.parametrize(
    "text", ["SELECT 1;\n", "-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n"]
)
def test_file_without_distinct_names_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "module.sql").write_text(text)
    with pytest.raises(ValueError, match=r"module\.sql"):
        load_statements(str(tmp_path / "module.py"))
