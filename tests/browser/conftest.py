"""A browser, reports in a folder, and Airflow's UI that shows them.

The browser is playwright's own, if it was installed, or the machine's Chromium. Playwright is
imported when it is used: pytest imports this file also where these tests are not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fer_batch.reporting import pages, rendering
from fer_batch.reporting.loading import FacilityRows
from tests.reporting.builders import (
    DAY,
    NO_RATE,
    build_change,
    build_facility,
    build_finding,
    build_report,
    build_rows,
    build_summary,
    build_week,
)
from tests.support.airflow_page import serve_reports

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Frame, Page

SIZES = {"phone": (375, 812), "desk": (1440, 900)}
MANY = {str(hour): [90, 20, 150, 40] for hour in range(9, 18)}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    from tests.support.browsers import NAMES, find_browser

    with sync_playwright() as playwright:
        path = find_browser(playwright.chromium)
        if path is None:
            pytest.skip(f"there is no browser: none of {', '.join(NAMES)} is on the PATH")
        running = playwright.chromium.launch(executable_path=path)
        yield running
        running.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark", "print")])
def context(request: pytest.FixtureRequest, browser: Browser) -> Iterator[BrowserContext]:
    """A window of each size and color scheme, and one whose pages look as they are printed."""
    size, scheme = request.param
    width, height = SIZES[size]
    opened = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    if scheme == "print":
        opened.on("page", lambda page: page.emulate_media(media="print"))
    yield opened
    opened.close()


@dataclass(frozen=True)
class Site:
    """Airflow's UI with the page, and the token of a viewer."""

    url: str
    token: str


def build_facilities() -> list[FacilityRows]:
    """Facilities of two groups with all that a report can show."""
    rng = np.random.default_rng(1)
    found = []
    for number, (name, group, verdict) in enumerate(
        [
            ("harbour-cafe", "Europe", "satisfied"),
            ("maple-clinic", "Overseas", "not satisfied"),
            ("lotus-mall", "Overseas", "inconclusive"),
            ("a-facility-with-averyverylongnamethatcannotbebroken", None, "no target"),
        ]
    ):
        days = []
        for age in range(28):
            rate = float(rng.uniform(0.3, 0.6))
            rates = {
                "happy_rate": rate,
                "happy_rate_low": rate - 0.1,
                "happy_rate_high": rate + 0.1,
            }
            target = {"target_rate": None if verdict == "no target" else 0.3}
            more = {"hours": MANY, "not_scored": {"empty": 12, "no_face": 3}}
            days.append(
                build_summary(DAY - timedelta(age), verdict=verdict, **rates, **target, **more)
            )
        facility = build_facility(name, group_name=group, closed_weekdays=["mon"])
        changes = [build_change()] if number == 0 else []
        found.append(
            build_rows(
                *days,
                facility=facility,
                periods=[build_week(verdict=verdict)],
                changes=changes,
                findings=[build_finding("frozen_camera", "camera till: one picture 41 times")],
            )
        )
    small = build_facility("pier-kiosk", group_name="Europe", publish_period="week")
    found.append(build_rows(build_summary(**NO_RATE | {"faces": 12}), facility=small))
    return found


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report, one that is split by group, and the index."""
    folder = tmp_path_factory.mktemp("airflow") / "reports"
    folder.mkdir()
    report = build_report(*build_facilities())
    files = rendering.render_report(report)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "MAX_FACILITIES", 3)
        split = pages.ReportPage(**{**get_fields(report), "capture_day": DAY - timedelta(1)})
        files |= rendering.render_report(split)
    files["index.html"] = rendering.render_index([DAY, DAY - timedelta(1)])
    for name, html in files.items():
        (folder / name).write_text(html)
    return folder


def get_fields(report: pages.ReportPage) -> dict[str, Any]:
    return {name: getattr(report, name) for name in pages.ReportPage.__dataclass_fields__}


@pytest.fixture(scope="session")
def site(reports: Path) -> Iterator[Site]:
    with serve_reports(reports.parent, reports) as started:
        yield Site(f"http://127.0.0.1:{started['port']}", started["tokens"]["viewer"])


def open_frame(page: Page, site: Site) -> Frame:
    """Open the page in Airflow's UI; returns the frame that shows the reports."""
    page.context.add_cookies([{"name": "_token", "value": site.token, "url": site.url}])
    page.goto(f"{site.url}/plugin/satisfaction")
    element = page.wait_for_selector("iframe[title=Satisfaction]").content_frame()
    assert element is not None
    element.wait_for_load_state()
    return element


def find_overflow(frame: Page | Frame) -> int:
    """By how many pixels the content is wider than its window."""
    return int(frame.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def find_violations(frame: Page | Frame) -> Sequence[str]:
    """What axe finds serious or critical, each with the first element."""
    from axe_playwright_python.base import AXE_SCRIPT

    frame.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    frame.evaluate(AXE_SCRIPT)
    found = frame.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['nodes'][0]['html']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
