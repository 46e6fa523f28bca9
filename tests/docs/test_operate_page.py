"""docs/operate.md explains each finding, as the messages to operators say."""

from __future__ import annotations

import re
from pathlib import Path

from fer_batch.pipeline.checks import load_checks

IN_REGISTRY = {
    "invalid_in_registry": "error",
    "incomplete_in_registry": "warning",
    "people_at_work_or_in_education": "warning",
}
"""The findings about the registry, which are no queries."""
SECTIONS = {
    "error": "### Permanent failures: red at once",
    "warning": "## Findings that are not errors",
}


def test_each_finding_has_a_row_where_its_severity_is(repo_root: Path) -> None:
    page = (repo_root / "docs" / "operate.md").read_text(encoding="utf-8")
    severities = {check.name: check.severity for check in load_checks()} | IN_REGISTRY
    explained = {
        severity: set(re.findall(r"`(\w+)`", " ".join(_list_first_cells(page, heading))))
        for severity, heading in SECTIONS.items()
    }
    assert len(severities) > 30
    missing = {name for name, severity in severities.items() if name not in explained[severity]}
    assert missing == set()


def _list_first_cells(page: str, heading: str) -> list[str]:
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, heading
    section = re.split(r"\n#+ ", rest, maxsplit=1)[0]
    return [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
