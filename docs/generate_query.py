"""Regenerate parts of query.md and columns.md from the query files and comments in the database.

    FER_DATABASE_URL=postgresql://… python docs/generate_query.py

The database must be migrated; only its comments are read. A test fails if the page in the
repository differs from the output of this script.
"""

from __future__ import annotations

import re
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import sqlalchemy as sa

from fer_batch import settings_sources
from fer_batch.database import connections, schema
from fer_batch.export import named_queries, publishing
from fer_batch.export.columns import COLUMNS
from fer_batch.pipeline import checks

PAGES = {"query.md": ("queries", "checks"), "columns.md": ("exported columns", "tables")}
"""The generated parts of each page."""
BEGIN, END = "<!-- generated: {} -->", "<!-- end of {} -->"


def render_parts(engine: sa.Engine) -> dict[str, str]:
    """The generated parts of the pages, by name."""
    return {
        "queries": _render_queries(),
        "checks": _render_checks(),
        "exported columns": _render_exported(engine),
        "tables": _render_tables(engine),
    }


def replace_parts(page: str, parts: dict[str, str]) -> str:
    """The page with its generated parts replaced. Raises ValueError if a marker is missing."""
    for name, text in parts.items():
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, after = rest.partition(END.format(name))
        if not (begin and end):
            raise ValueError(f"the page has no markers for {name}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def _render_queries() -> str:
    lines = ["| name | question | parameters | role |", "|---|---|---|---|"]
    for query in named_queries.load_queries().values():
        (role,) = re.findall("^-- Role: (\\w+)$", query.sql, re.MULTILINE)
        options = ", ".join(
            f"`--{parameter.name.replace('_', '-')}`: {parameter.meaning}"
            for parameter in query.parameters
        )
        question = _escape_cell(query.question)
        lines.append(f"| `{query.name}` | {question} | {options} | `{role}` |")
    return "\n".join(lines)


def _render_exported(engine: sa.Engine) -> str:
    meanings = publishing.describe_columns(engine)
    rows = [f"| `{c.name}` | {c.file_type} | {_escape_cell(meanings[c.name])} |" for c in COLUMNS]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


def _render_checks() -> str:
    rows = [f"| `{c.name}` | {c.severity} | {c.meaning} |" for c in checks.load_checks()]
    return "\n".join(["| check | severity | a row means |", "|---|---|---|", *rows])


def _render_tables(engine: sa.Engine) -> str:
    parts = []
    columns = schema.describe(engine)
    for (kind, name, meaning), group in groupby(
        columns, key=itemgetter("kind", "relation", "meaning")
    ):
        rows = [
            f"| `{c['column_name']}` | {c['column_type']} | {_escape_cell(c['column_meaning'])} |"
            for c in group
        ]
        head = [f"### {kind.capitalize()} `{name}`", "", meaning, ""]
        parts.append("\n".join([*head, "| column | type | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    database = connections.create_engine(settings_sources.load_settings())
    schema.check_migrated(database)
    rendered = render_parts(database)
    for page, names in PAGES.items():
        file = Path(__file__).with_name(page)
        parts = {name: rendered[name] for name in names}
        file.write_text(replace_parts(file.read_text(encoding="utf-8"), parts), encoding="utf-8")
        sys.stdout.write(f"{file} is up to date\n")
