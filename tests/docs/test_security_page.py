"""Every line of the threat model names tests that exist, and no topic is missing."""

from __future__ import annotations

import re
from pathlib import Path

TOPICS = (
    "image", "key", "archive", "registry", "analyst", "inspector", "login", "backup", "S3 key",
    "decoder", "worker", "edit DAGs", "mail", "chat", "container", "package index",
)  # fmt: skip
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def read_rows(repo_root: Path) -> list[list[str]]:
    """The cells of each line of the threat model, without the heads of the tables."""
    page = (repo_root / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == 4 and row[0] not in ("attack", "---")]


def test_every_line_names_tests_that_exist(repo_root: Path) -> None:
    rows = read_rows(repo_root)
    assert len(rows) > 50
    for *_, tests in rows:
        named = TEST.findall(tests)
        assert named, tests
        assert TEST.sub("", tests).strip(" ,") == ""
        for file, name in named:
            code = (repo_root / file).read_text(encoding="utf-8")
            assert re.search(rf"^ *def {name}\(", code, re.MULTILINE), f"{file}::{name}"


def test_every_line_says_what_the_attack_is_and_what_stops_it(repo_root: Path) -> None:
    rows = read_rows(repo_root)
    assert all(cell.strip() for row in rows for cell in row)
    threats = " ".join(row[0] for row in rows)
    assert [topic for topic in TOPICS if topic.lower() not in threats.lower()] == []
