"""The task `export` is skipped where no place is set, and returns what was exported otherwise."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException


def test_the_task_does_something_only_where_a_place_is_set(
    fer_command: ModuleType, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repo_root / "dags"))
    (registry := tmp_path / "facilities.toml").write_text('[facility.a]\ntime_zone = "UTC"\n')
    monkeypatch.setenv("FER_FACILITIES_FILE", str(registry))
    dag = importlib.import_module("satisfaction_nightly").DAGS[0]
    task = dag.get_task("export").python_callable
    called: list[tuple[str, ...]] = []
    exported: list[dict[str, Any]] = []

    def run_command(*arguments: str, secrets: list[str]) -> Any:
        assert secrets == ["export"]
        called.append(arguments)
        return exported

    monkeypatch.setattr(fer_command, "run_command", run_command)
    with pytest.raises(AirflowSkipException, match="FER_EXPORT_DIR"):
        task()
    exported.append({"place": "/bi", "written": 3})
    assert task() == exported
    assert called == [("export", "--if-set", "--json")] * 2
    assert dag.get_task("export").upstream_task_ids == {"summarize"}
