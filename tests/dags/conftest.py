"""The adapter is imported as Airflow does it: from the DAG folder, with an AIRFLOW_HOME."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture(scope="session")
def fer_command(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    patch = pytest.MonkeyPatch()
    patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    sys.path.insert(0, str(DAGS))
    try:
        return importlib.import_module("fer_command")
    finally:
        sys.path.remove(str(DAGS))
        patch.undo()
