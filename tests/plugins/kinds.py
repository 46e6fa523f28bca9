"""The kind of a test, which follows from its fixtures and imports and is never set by hand.

A test has a mark for each costly thing that it needs (`server`, `airflow`, `training`, `fuzz`,
`wheel`, `demo`), and is `unit` if it needs none. A file whose imports alone give its tests a kind
that `-m` deselects is not imported: importing TensorFlow takes longer than all unit tests of a
package.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

from tests.support.repository import REPO_ROOT

FIXTURES = {
    "servers_dir": "server",  # PostgreSQL, the S3 server and Airflow run from this directory
    "moto": "server",
    "scripted": "server",
    "scripted_tls": "server",
    "chat_server": "server",
    "smtp_server": "server",
    "airflow": "airflow",
    "parse_dags": "airflow",
    "imported_dags": "airflow",
    "airflow_page": "airflow",
    "run_airflow": "airflow",
    "installed": "wheel",
    "page_wheel": "wheel",
    "demo_day": "demo",
}
"""Kinds by the name of a fixture that a test uses, itself or through other fixtures."""
PACKAGES = {
    "airflow": "airflow",
    "keras": "training",
    "playwright": "browser",
    "tensorflow": "training",
    "tf2onnx": "training",
    "tests.support.hostile_images": "fuzz",
}
"""Kinds by the name of a package or module that a test imports, itself or through others."""
TRAINING = REPO_ROOT / "fer_batch" / "training"
KINDS = {
    "unit": "needs none of the others",
    "server": "needs PostgreSQL, an S3 server or another server",
    "airflow": "imports or runs Airflow",
    "training": "imports TensorFlow",
    "fuzz": "decodes many damaged images",
    "browser": "opens pages in Chromium; run by `make test-browser` only",
    "wheel": "builds and installs the wheel",
    "demo": "draws the whole day of the demo",
}


def pytest_configure(config: pytest.Config) -> None:
    for kind, meaning in KINDS.items():
        config.addinivalue_line("markers", f"{kind}: {meaning} (set by tests/plugins/kinds.py)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a file of tests if `-m` deselects everything that has its kinds."""
    selected = config.getoption("markexpr")
    if not selected or collection_path.suffix != ".py":
        return None
    kinds = kinds_of_file(collection_path)

    def has(name: str, /, **_: str | int | bool | None) -> bool:
        return name in kinds

    return bool(kinds) and not Expression.compile(selected).evaluate(has)


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects by these marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for kind in sorted(kinds_of_test(item)) or ["unit"]:
            item.add_marker(kind)


def kinds_of_test(item: pytest.Item) -> set[str]:
    """The kinds that a test has by its fixtures, its file's imports and those in its body."""
    used = getattr(item, "fixturenames", ())
    kinds = {FIXTURES[name] for name in used if name in FIXTURES}
    name = getattr(item, "originalname", item.name)
    return kinds | kinds_of_file(item.path) | _kinds_of_functions(item.path).get(name, set())


def kinds_of_file(path: Path) -> set[str]:
    """The kinds that all tests of a file have, by what importing it imports."""
    modules = imported_modules(path)
    names = modules | {module.partition(".")[0] for module in modules}
    return {PACKAGES[name] for name in names if name in PACKAGES}


@functools.cache
def imported_modules(path: Path) -> frozenset[str]:
    """Names of all modules that are imported with a file, directly or through the project's own."""
    modules: set[str] = set()
    waiting = [path]
    seen = {path}
    while waiting:
        direct = _direct_imports(waiting.pop())
        modules |= direct
        new = {file for name in direct for file in _project_files(name)} - seen
        seen |= new
        waiting += new
    return frozenset(modules)


@functools.cache
def _kinds_of_functions(path: Path) -> dict[str, set[str]]:
    """Kinds by the name of a test of the file whose body imports such a package."""
    kinds: dict[str, set[str]] = {}
    for function in _parse(path).body:
        if isinstance(function, ast.FunctionDef):
            roots = {name.partition(".")[0] for name in _imports(function, is_body=True)}
            kinds[function.name] = {PACKAGES[root] for root in roots if root in PACKAGES}
    return kinds


@functools.cache
def _direct_imports(path: Path) -> frozenset[str]:
    # Functions of the training package import TensorFlow when they are called.
    return frozenset(_imports(_parse(path), is_body=path.parent == TRAINING))


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _imports(tree: ast.AST, *, is_body: bool = False) -> Iterator[str]:
    """Modules, and names in them that may be modules, that running the code imports.

    What a function imports when it is called does not count, unless the tree is its body; nor what
    only type checkers import.
    """
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif is_body or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(node, is_body=is_body)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements right below a statement. Expressions import nothing."""
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        yield from getattr(tree, field, ())


def _project_files(name: str) -> Iterator[Path]:
    """The files of tests/ and of the training package that the import of a module runs.

    No other part of fer_batch imports one of `PACKAGES`, as the import contract in pyproject.toml
    says, nor the training package before it is used.
    """
    if name.startswith(("tests.", "fer_batch.training")):
        path = REPO_ROOT.joinpath(*name.split("."))
        yield from (p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file())
