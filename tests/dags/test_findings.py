"""The findings of `check_data` reach the report, so that the checks run once a night."""

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
    sys.exit(int(sys.argv[0].rpartition("-")[2]))
print(json.dumps({"arguments": sys.argv[1:], "stdin": sys.stdin.read()}))
"""


class TaskInstance:
    """A task instance that keeps XComs in memory."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[f"check_data/{key}"] = value

    def xcom_pull(self, task_id: str, *, map_indexes: int, key: str = "return_value") -> Any:
        assert map_indexes == -1  # of a task that is not mapped
        return self.xcoms.get(f"{task_id}/{key}")


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
def set_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace fer-batch, whose `check-data` then ends with this exit code."""

    def write(code: int) -> None:
        (script := tmp_path / f"command-{code}").write_text(textwrap.dedent(COMMAND))
        interpreter = tmp_path / "python"
        interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
        interpreter.chmod(0o755)
        # An empty FER_PYTHON counts as unset: then Airflow's own interpreter is used.
        monkeypatch.setenv("FER_PYTHON", "")
        monkeypatch.setattr(sys, "executable", str(interpreter))

    return write


@pytest.mark.parametrize("code", [0, 3, 75])
def test_the_report_gets_the_findings_of_the_data_checks(
    fer_command: ModuleType, dag: Any, set_exit_code: Any, code: int
) -> None:
    set_exit_code(code)
    ti = TaskInstance()
    night = datetime(2026, 11, 21, tzinfo=UTC)
    context = {
        "dag": dag,
        "dag_run": SimpleNamespace(conf={}, run_type="scheduled", run_after=night),
        "logical_date": night,
        "params": {name: param.value for name, param in dag.params.items()},
        "run_id": "night",
        "ti": ti,
    }
    with set_current_context(context):
        try:
            ti.xcom_push("return_value", dag.get_task("check_data").python_callable())
        except (fer_command.FindingsError, fer_command.RetryableFailureError):
            assert code != 0
        given = dag.get_task("report").python_callable()
    if code == 75:  # there are none: the command runs the checks itself
        assert (given["stdin"], "--findings=-" in given["arguments"]) == ("", False)
    else:
        assert given["stdin"] == '[{"check": "listing_failed"}]'
        assert "--findings=-" in given["arguments"]
