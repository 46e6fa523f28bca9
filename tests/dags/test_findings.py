"""The findings that make `check_data` fail are kept for the message about the run."""

from __future__ import annotations

import importlib
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.context import set_current_context

COMMAND = """
import json, sys
if "check-data" in sys.argv:
    print(json.dumps([{"check": "listing_failed"}]))
    print(json.dumps({"event": "finding", "level": "error"}), file=sys.stderr)
    sys.exit(3)
"""


@pytest.fixture
def dag(
    fer_command: ModuleType, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.syspath_prepend(str(repo_root / "dags"))
    (registry := tmp_path / "facilities.toml").write_text('[facility.a]\ntime_zone = "UTC"\n')
    monkeypatch.setenv("FER_FACILITIES_FILE", str(registry))
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    monkeypatch.setattr("fer_settings.compute_time_limit", dict)
    return importlib.import_module("satisfaction_nightly").DAGS[0]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace fer-batch."""
    (script := tmp_path / "command").write_text(textwrap.dedent(COMMAND))
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    interpreter.chmod(0o755)
    # An empty FER_PYTHON counts as unset: then Airflow's own interpreter is used.
    monkeypatch.setenv("FER_PYTHON", "")
    monkeypatch.setattr(sys, "executable", str(interpreter))


@pytest.mark.usefixtures("command")
def test_the_findings_of_the_data_checks_are_kept_if_they_are_errors(
    fer_command: ModuleType, dag: Any
) -> None:
    kept: dict[str, Any] = {}
    night = datetime(2026, 11, 21, tzinfo=UTC)
    context = {
        "dag": dag,
        "dag_run": SimpleNamespace(conf={}, run_type="scheduled", run_after=night),
        "logical_date": night,
        "params": {name: param.value for name, param in dag.params.items()},
        "run_id": "night",
        "ti": SimpleNamespace(xcom_push=lambda key, value: kept.update({key: value})),
    }
    with set_current_context(context), pytest.raises(fer_command.FindingsError):
        dag.get_task("check_data").python_callable()
    assert kept["return_value"] == [{"check": "listing_failed"}]
