"""Each step of the nightly job has the same verb in the DAG task, the command and the method."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from fer_batch.cli import app
from fer_batch.pipeline.nightly import Run

VERBS = ["sync", "list", "plan", "score", "summarize", "check", "report", "notify", "export"]


def find_commands(dag_file: Path) -> dict[str, str]:
    """The arguments of the command that each task of the DAG runs, by task name."""
    commands: dict[str, str] = {}
    for task in ast.walk(ast.parse(dag_file.read_text())):
        if isinstance(task, ast.FunctionDef) and task.decorator_list:
            for call in ast.walk(task):
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".run_command"):
                    arguments = [a.value for a in call.args if isinstance(a, ast.Constant)]
                    commands[task.name] = " ".join(str(w) for w in arguments if w != "--json")
    return commands


def get_verb(name: str) -> str:
    return name.partition("_")[0]


def test_every_step_has_one_verb(repo_root: Path) -> None:
    by_task = find_commands(repo_root / "dags" / "satisfaction_nightly.py")
    assert [get_verb(task) for task in by_task] == VERBS
    for task, command in by_task.items():
        assert get_verb(task) in re.split("[ -]", command)
    methods = {get_verb(name) for name in vars(Run)}
    assert set(VERBS) <= methods


def test_every_task_runs_a_command_that_exists(repo_root: Path) -> None:
    for command in find_commands(repo_root / "dags" / "satisfaction_nightly.py").values():
        found = app
        for word in command.split():
            if not word.startswith("--"):
                assert word in found, command
                found = found[word]
