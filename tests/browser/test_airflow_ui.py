"""The page "Satisfaction" inside the frame of Airflow's UI."""

from __future__ import annotations

from playwright.sync_api import Browser, BrowserContext

from tests.browser.conftest import Site, find_overflow, find_violations, open_frame


def test_the_reports_fit_and_axe_finds_nothing_serious(context: BrowserContext, site: Site) -> None:
    frame = open_frame(context.new_page(), site)
    assert find_overflow(frame) <= 0
    assert find_violations(frame) == []
    frame.click("text=Sunday, 29 November 2026")
    frame.wait_for_url("**/2026-11-29.html")
    assert find_overflow(frame) <= 0
    assert find_violations(frame) == []


def test_links_work_inside_the_sandboxed_frame(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    blocked: list[str] = []
    frame = open_frame(page, site)
    page.on("console", lambda message: blocked.append(message.text))
    for link, address in (
        ("text=Saturday, 28 November 2026", "2026-11-28.html"),
        ("text=Harbour Cafe", "2026-11-28.europe.html#harbour-cafe"),
        ("text=All facilities", "2026-11-28.html"),
        ("text=All reports", "index.html"),
    ):
        frame.click(link)
        frame.wait_for_url(f"{site.url}/satisfaction/{address}")
    assert page.url.startswith(f"{site.url}/plugin/satisfaction")
    assert [text for text in blocked if "Content Security Policy" in text] == []
