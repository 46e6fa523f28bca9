"""The pages name the law, their links lead somewhere, and they claim no more than is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fer_batch.settings import Settings

PAGES = ("README.md", "docs/privacy.md")
TEMPLATES = ("notice", "impact-assessment", "processor-agreement")
CLAIMS = re.compile(
    r"\bcompliant\b|\bcompl(?:y|ies) with\b|\bconforms?\b|\bcertified\b|\banonym|\bGDPR[- ]proof\b"
    r"|\bguarantees? (?:privacy|compliance)"
    r"|how (?:happy|satisfied) (?:people|customers|visitors) (?:are|were)\b"
    r"|\b(?:mood|feelings?) of (?:people|customers|visitors)\b",
    re.IGNORECASE,
)
"""Words that would claim compliance, anonymity, or that feelings are known."""


def read(path: Path) -> str:
    """A page with single spaces."""
    return " ".join(path.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", PAGES)
def test_the_law_is_named(repo_root: Path, name: str) -> None:
    page = read(repo_root / name)
    for fact in (
        *("(EU) 2024/1689", "(EU) 2026/1744", "Article 5(1)(f)", "Article 50(3)", "Annex III"),
        *("2 August 2026", "2 December 2027", "nightly batch too"),
    ):
        assert fact in page, fact
    assert re.search("[Nn]o conformity is claimed", page)


def test_the_privacy_page_has_the_dates_recital_and_articles(repo_root: Path) -> None:
    page = read(repo_root / "docs" / "privacy.md")
    assert "prohibited | Article 5(1)(f) | 2 February 2025 |" in page
    assert "exposed to it | Article 50(3) | 2 August 2026 |" in page
    assert re.search(r"high-risk system.* Annex III, 1\(c\) \| 2 December 2027 \|", page)
    assert "Recital 18 counts satisfaction among the emotions" in page
    assert "nightly batch too" in page
    for article in range(9, 16):
        (row,) = re.findall(rf"\| {article}, [^|]+\|([^|]+)\|([^|]+)\|", page)
        assert all(cell.strip() for cell in row), f"Article {article}"
    assert "](" in row[0]


def test_the_pages_state_from_when_on_incomplete_entries_are_refused(repo_root: Path) -> None:
    day = Settings.model_fields["strict_registry_from"].default
    for name in ("docs/privacy.md", "docs/registry.md", "docs/operate.md", "CHANGELOG.md"):
        assert re.search(
            rf"FER_STRICT_REGISTRY_FROM`( on)? \({day:%-d %B %Y}\)|{day:%-d %B %Y} "
            r"\(`FER_STRICT_REGISTRY_FROM`\)",
            read(repo_root / name),
        ), name


def list_pages(repo_root: Path) -> list[Path]:
    return [repo_root / "README.md", *(repo_root / "docs").rglob("*.md")]


def test_no_page_claims_more(repo_root: Path) -> None:
    found = [
        f"{page.name}: {match[0]}"
        for page in list_pages(repo_root)
        for match in CLAIMS.finditer(read(page))
    ]
    assert found == []


def test_templates_are_forms_and_no_advice(repo_root: Path) -> None:
    folder = repo_root / "docs" / "templates"
    for name in TEMPLATES:
        text = read(folder / f"{name}.md")
        assert "Not legal advice" in text
        assert re.search(r"\[[A-Z][A-Z ,:]+", text), f"{name} has no gap to fill in"
        assert re.search("a happy (or a sad )?expression was seen", text)
        assert "a sad " in text  # both rates are published
        assert f"({name}.md)" in read(folder / "README.md")
        assert f"(templates/{name}.md)" in read(repo_root / "docs" / "privacy.md")


def make_anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def test_links_lead_somewhere(repo_root: Path) -> None:
    others = [*repo_root.glob("*.md"), repo_root / "benchmarks" / "README.md"]
    for page in {*list_pages(repo_root), *others}:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            target = (page.parent / name) if name else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                headings = re.findall(
                    r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE
                )
                assert anchor in map(make_anchor, headings), f"{page.name}: {link}"
