"""Take the pictures in docs/pictures from the data of `fer-batch demo --days 28`; `make pictures`.

The report and the mail are made again from the tables of the demo. The page is that of Airflow's
UI, on a database of its own. The labeling page shows synthetic faces of an audit in memory.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from urllib.parse import urljoin

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fer_batch.audit.labeling import Label  # noqa: E402
from fer_batch.database import connections  # noqa: E402
from fer_batch.digests.content import build_digest  # noqa: E402
from fer_batch.digests.rendering import render_html  # noqa: E402
from fer_batch.local.demo.sources import DRAWN  # noqa: E402
from fer_batch.local.stack import Stack, get_demo_stack_dir  # noqa: E402
from fer_batch.reporting import loading, pages, rendering  # noqa: E402
from fer_batch.settings import Settings  # noqa: E402
from tests.support import labeling  # noqa: E402
from tests.support.airflow_page import serve_reports  # noqa: E402
from tests.support.browsers import find_browser  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
MAX_BYTES = 150_000


def main() -> None:
    """Write the files, then take the pictures. Exits with a message if something is missing."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        folder = Path(home) / "reports"
        folder.mkdir()
        day = write_files(Stack(get_demo_stack_dir(Settings().stack_dir)), folder)
        path = find_browser(playwright.chromium)
        if path is None:
            sys.exit("there is no Chromium")
        browser = playwright.chromium.launch(executable_path=path)
        PICTURES.mkdir(exist_ok=True)
        report, mail = (folder / f"{day}.html").as_uri(), (folder / "mail.html").as_uri()
        take(browser, "report", report, 1280, 1080)
        take(browser, "report-phone", report, 375, 812, scheme="dark")
        take(browser, "report-facility", f"{report}#harbour-cafe", 1280, 560)
        take(browser, "mail", mail, 760, 980)
        with serve_reports(Path(home), folder) as site:
            url = f"http://127.0.0.1:{site['port']}"
            take(browser, "page", f"{url}/plugin/satisfaction", 1280, 720, site["tokens"]["viewer"])
        take_labeling(browser)
        browser.close()


def take_labeling(browser: Browser) -> None:
    """Take the pictures of the labeling page, in the middle of an audit."""
    audit = labeling.Page.build(200)
    audit.labels.labels = dict.fromkeys(audit.order[:57], Label.HAPPY)
    with audit.serve() as url:
        take(browser, "labeling", url, 900, 790, wait_for=labeling.SHOWN)
        take(browser, "labeling-phone", url, 375, 790, scheme="dark", wait_for=labeling.SHOWN)


def write_files(stack: Stack, folder: Path) -> date:
    """Write report, index and mail of the last day of the demo; returns that day."""
    chosen = stack.folder / "demo-days.json"
    if not chosen.exists() or DRAWN not in (days := json.loads(chosen.read_text())):
        sys.exit("run `fer-batch demo --days 28` first")
    day = date.fromisoformat(days[DRAWN])
    with stack.running(with_airflow=False):
        engine = connections.create_engine(stack.build_settings())
        with connections.transaction(engine) as connection:
            rows = loading.load_rows(connection, day)
        engine.dispose()
    report = pages.build_report(rows)
    files = rendering.render_report(report)
    files["index.html"] = rendering.render_index([day])
    files["mail.html"] = render_html(build_digest(report, rows, "day"), "area-managers")
    for name, html in files.items():
        (folder / name).write_text(html, encoding="utf-8")
    return day


def take(
    browser: Browser,
    name: str,
    url: str,
    width: int,
    height: int,
    token: str | None = None,
    scheme: str = "light",
    wait_for: str = "body",
) -> None:
    """Take a picture of what the window shows once it has an element `wait_for`.

    With a token, wait for the frame with the report.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    if token is not None:
        # For the whole site: the path of a cookie is the folder of its URL.
        site = urljoin(url, "/")
        context.add_cookies([{"name": "_token", "value": token, "url": site}])
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(wait_for)
    if token is not None:
        frame = page.wait_for_selector("iframe[title=Satisfaction]").content_frame()
        frame.click("li a")
        frame.wait_for_selector("h1")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = PICTURES / f"{name}.png"
    for colors in (256, 128, 64, 32):
        picture.quantize(colors).save(file, optimize=True)
        if file.stat().st_size < MAX_BYTES:
            break
    context.close()
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
