"""Write the reference in query.md anew, from the comments in the database and the query files.

    FER_DATABASE_URL=postgresql://… python docs/generate_query.py

The database must be migrated; only its comments are read. A test fails while the file in the
repository is not what this writes.
"""

from __future__ import annotations

import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import sqlalchemy as sa

from fer_batch import checks, database, resources, settings

FILE = Path(__file__).with_name("query.md")
MARKS = ("<!-- generated: {} -->", "<!-- end of {} -->")


def generated(engine: sa.Engine) -> dict[str, str]:
    """The generated parts of the page, by name."""
    return {"queries": _queries(), "checks": _checks(), "tables": _tables(engine)}


def with_parts(page: str, parts: dict[str, str]) -> str:
    """The page with its generated parts replaced. Raises ValueError if one has no place."""
    for name, text in parts.items():
        begin, end = (mark.format(name) for mark in MARKS)
        before, found_begin, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"{FILE} has no place for {name}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def _queries() -> str:
    files = sorted((resources.sql_dir() / "queries").glob("*.sql"))
    rows = [(file.read_text(encoding="utf-8").splitlines()[0], file.name) for file in files]
    return "\n".join(f"- {first.removeprefix('-- ')} `{name}`" for first, name in rows)


def _checks() -> str:
    rows = [f"| `{c.name}` | {c.severity} | {c.meaning} |" for c in checks.all_checks()]
    return "\n".join(["| check | severity | a row means |", "|---|---|---|", *rows])


def _tables(engine: sa.Engine) -> str:
    parts = []
    columns = database.describe(engine)
    for (kind, name, meaning), group in groupby(
        columns, key=itemgetter("kind", "relation", "meaning")
    ):
        rows = [
            f"| `{c['column_name']}` | {c['column_type']} | {_cell(c['column_meaning'])} |"
            for c in group
        ]
        head = [f"### {kind.capitalize()} `{name}`", "", meaning, ""]
        parts.append("\n".join([*head, "| column | type | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    loaded = database.engine(settings.load())
    database.check_migrated(loaded)
    FILE.write_text(
        with_parts(FILE.read_text(encoding="utf-8"), generated(loaded)), encoding="utf-8"
    )
    sys.stdout.write(f"{FILE} is up to date\n")
