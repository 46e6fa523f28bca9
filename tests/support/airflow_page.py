"""Airflow's API server with the page "Satisfaction", on SQLite and a folder of reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.repository import REPO_ROOT

SERVER = REPO_ROOT / "tests" / "airflow_page" / "page_server.py"


@contextmanager
def serve_reports(home: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Serve the folder; yields the `port`, and `tokens` by the names of users."""
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test " * 4,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "FER_REPORT_DIR": str(folder),
    }
    with subprocess.Popen(
        [sys.executable, str(SERVER)],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            started = next((line for line in server.stdout if line.startswith('{"port"')), "{}")
            yield json.loads(started)
        finally:
            server.kill()
