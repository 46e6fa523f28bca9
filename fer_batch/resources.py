"""Paths of the files that are not Python modules: SQL, DAG files, example registry, shipped CNN.

They are part of the wheel. In a checkout, `sql/`, `dags/` and `config/` are at the top level.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def find_sql_dir() -> Path:
    """Return the directory with migrations, views, checks and queries."""
    return _find("sql")


def find_dags_dir() -> Path:
    """Return the directory with the DAG files of this version, `.airflowignore` included."""
    return _find("dags")


def find_example_registry() -> Path:
    """Return the facility registry that ships as an example; none of its permissions is valid."""
    return _find("config/facilities.toml")


def find_example_subscriptions() -> Path:
    """Return the file of subscriptions that ships as an example."""
    return _find("config/subscriptions.example.toml")


def find_artifacts_dir() -> Path:
    """Return the directory with the CNNs that ship, each an `.onnx` file and its card."""
    return _PACKAGE / "model" / "artifacts"


def _find(name: str) -> Path:
    """Return a path inside the installed package, or in the checkout around it."""
    packaged = _PACKAGE / name
    return packaged if packaged.exists() else _PACKAGE.parent / name
