"""The tables of all kinds of data: who deletes what, and when."""

from __future__ import annotations

import re
from pathlib import Path

from fer_batch.settings import Settings

PERIODS = re.compile("(retention|file)_days$")


def read_table(repo_root: Path) -> str:
    """The rows of the table in the section Retention."""
    page = (repo_root / "docs" / "privacy.md").read_text(encoding="utf-8")
    section = page.partition("\n## Retention\n")[2].partition("\n### ")[0]
    return "\n".join(line for line in section.splitlines() if line.startswith("| "))


def test_each_period_is_listed_with_its_default(repo_root: Path) -> None:
    table, defaults = read_table(repo_root), Settings(_env_file=None)
    periods = [name for name in Settings.model_fields if PERIODS.search(name)]
    assert len(periods) == 7
    for name in periods:
        assert f"`FER_{name.upper()}`, {getattr(defaults, name)}" in table


def test_each_table_of_the_database_is_listed(repo_root: Path) -> None:
    created: set[str] = set()
    for file in (repo_root / "sql" / "migrations" / "versions").glob("*.sql"):
        created.update(re.findall(r"CREATE TABLE fer\.(\w+)", file.read_text(encoding="utf-8")))
    listed = set(re.findall(r"`(\w+)`", read_table(repo_root)))
    assert created | {"schema_version"} <= listed


def test_the_impact_assessment_has_each_period(repo_root: Path) -> None:
    form = (repo_root / "docs" / "templates" / "impact-assessment.md").read_text(encoding="utf-8")
    defaults = Settings(_env_file=None)
    for name in filter(PERIODS.search, Settings.model_fields):
        assert f"changed: {getattr(defaults, name)}] days | `FER_{name.upper()}` |" in form
