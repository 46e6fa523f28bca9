"""Which browser the tests and the pictures of the docs use."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import BrowserType

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser(chromium: BrowserType) -> str | None:
    """The path of playwright's own Chromium if it was installed, or that of the machine's."""
    own = chromium.executable_path
    return own if Path(own).exists() else next(filter(None, map(shutil.which, NAMES)), None)
