"""The report files in a browser: they fit, anybody can read them, and nothing in them runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.browser.conftest import find_overflow, find_violations

FILES = ("2026-11-29.html", "2026-11-28.html", "2026-11-28.europe.html", "index.html")
"""A whole report, one that is split, a part of it, and the index."""


@pytest.mark.parametrize("name", FILES)
def test_it_fits_and_axe_finds_nothing_serious(
    context: BrowserContext, reports: Path, name: str
) -> None:
    page = context.new_page()
    blocked: list[str] = []
    page.on("console", lambda message: blocked.append(message.text))
    page.goto((reports / name).as_uri())
    assert blocked == []  # by its own policy
    assert page.evaluate("document.scripts.length") == 0
    assert find_overflow(page) <= 0
    assert find_violations(page) == []


def test_every_link_leads_to_a_file_or_a_section(browser: Browser, reports: Path) -> None:
    page = browser.new_page()
    for name in FILES:
        page.goto((reports / name).as_uri())
        for href in page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))"):
            file, _, section = href.partition("#")
            assert (reports / (file or name)).is_file(), href
            if section:
                target = (reports / (file or name)).read_text()
                assert f'id="{section}"' in target, href


def test_a_script_in_a_report_does_not_run(browser: Browser, reports: Path, tmp_path: Path) -> None:
    html = (reports / FILES[0]).read_text()
    added = "<script>document.title = 'ran'</script><p style='color: red' onclick='1'>x</p>"
    (file := tmp_path / FILES[0]).write_text(html.replace("<main>", f"<main>{added}"))
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.title() != "ran"
    assert page.eval_on_selector("main > p", "each => getComputedStyle(each).color") != (
        "rgb(255, 0, 0)"
    )


def test_it_is_printed_on_pages_of_paper(browser: Browser, reports: Path) -> None:
    page = browser.new_page()
    page.goto((reports / FILES[0]).as_uri())
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.eval_on_selector("body", "each => getComputedStyle(each).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
