"""The SQL statements of a module, from the `.sql` file of the same name beside it.

A file holds one or more blocks. Each begins with a line `-- name: <name>`; comments that explain
the statement follow, then the statement, which ends with a semicolon. `:name` in it is a
parameter. Statements of one line, and those of SQLAlchemy Core, are in the Python module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_statements(module_file: str) -> Mapping[str, sa.TextClause]:
    """The statements beside a module, by name; `module_file` is the module's `__file__`.

    The header stays in the text, so that pg_stat_activity and the server's log show which
    statement runs. A COPY is sent through the driver: its SQL is the attribute `text`. Raises
    ValueError if the file has text before the first header, or two blocks of one name.
    """
    file = Path(module_file).with_suffix(".sql")
    before, *parts = _HEADER.split(file.read_text(encoding="utf-8"))
    names, bodies = parts[::2], parts[1::2]
    if before.strip() or len(set(names)) < len(names):
        raise ValueError(f"{file} is not a list of blocks with different names")
    return {
        name: sa.text(f"-- name: {name}{body.rstrip().removesuffix(';')}")
        for name, body in zip(names, bodies, strict=True)
    }
