"""Where the files that are no Python live: the SQL, the shipped CNN.

They travel inside the wheel; in a checkout `sql/` stands at the top.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def sql_dir() -> Path:
    """The folder with migrations, views, checks and queries."""
    packaged = _PACKAGE / "sql"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "sql"


def artefacts_dir() -> Path:
    """The folder with the CNNs that ship with fer-batch, each an `.onnx` and its card."""
    return _PACKAGE / "artefacts"
