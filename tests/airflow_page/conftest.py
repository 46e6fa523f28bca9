"""A fixture that runs code with Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run_airflow(tmp_path: Path) -> Callable[..., Any]:
    """Runs code that imports Airflow in a separate process; returns the JSON that it prints last.

    The arguments are the code, its argument and environment variables.
    """

    def run(code: str, argument: str = "", **environment: str) -> Any:
        ended = subprocess.run(
            [sys.executable, "-c", code, argument],
            stdout=subprocess.PIPE, text=True, check=True,
            env={**os.environ, "AIRFLOW_HOME": str(tmp_path), **environment},
        )  # fmt: skip
        return json.loads(ended.stdout.splitlines()[-1])

    return run
