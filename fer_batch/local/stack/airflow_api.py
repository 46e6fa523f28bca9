"""A client for the part of Airflow's REST API that the demo and the tests need.

Starting Airflow is left to `airflow`, the requests to `airflow_client`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from fer_batch.airflow_client import PAGE, AirflowClient, NotFoundError
from fer_batch.local.stack.files import StackError

FINISHED_RUN = frozenset({"success", "failed"})
FINISHED_TASK = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
TIMEOUT_S = 60
"""Long, because the first requests after a start wait until the server has built its app."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task instance. `name` is for display: the rendered map index, else the task id.

    `state` is None until the scheduler has processed it.
    """

    task_id: str
    map_index: int
    name: str
    state: str | None
    try_number: int
    duration_s: float | None

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED_TASK


@dataclass(frozen=True, slots=True)
class RunState:
    """A DAG run and its task instances; `state` is queued, running, success or failed."""

    dag_id: str
    run_id: str
    state: str
    tasks: tuple[TaskState, ...]

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED_RUN


class AirflowApi(AirflowClient):
    """A client for the Airflow of a local stack."""

    def __init__(self, url: str, user: str, password: str) -> None:
        # The API is on this machine, so a proxy for external addresses must not be used.
        super().__init__(url, user, password, timeout_s=TIMEOUT_S, proxies={})

    def get_tasks_health(self) -> str:
        """Return the status of the API that tasks use, such as `healthy`."""
        return str(self.send("GET", "/execution/health")["status"])

    def unpause(self, dag_id: str, deadline_s: float = 60) -> None:
        """Unpause a DAG, waiting until the DAG processor has parsed it.

        Raises StackError, with the import errors, if the DAG does not exist at the deadline.
        """
        end = time.monotonic() + deadline_s
        while True:
            try:
                self.call("PATCH", f"dags/{quote(dag_id)}", {"is_paused": False})
                return
            except NotFoundError as error:
                # One that names facilities without a DAG says nothing about this DAG.
                problems = [
                    f"{file}: {trace}"
                    for file, trace in self.list_import_errors()
                    if file != "invalid_facilities.py"
                ]
                if problems or time.monotonic() > end:
                    raise StackError(f"Airflow has no DAG {dag_id}", "\n".join(problems)) from error
                time.sleep(0.5)

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool, or set the number of slots of an existing one."""
        pool = {"slots": slots, "description": description, "include_deferred": False}
        try:
            self.call("PATCH", f"pools/{quote(name)}", {"pool": name, **pool})
        except NotFoundError:
            self.call("POST", "pools", {"name": name, **pool})

    def trigger_dag_run(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Trigger a run with these parameters; return its run id."""
        body = {"conf": conf, "logical_date": None}
        return str(self.call("POST", f"dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def get_run_state(self, dag_id: str, run_id: str) -> RunState:
        """Return the current state of a run and its task instances."""
        path = f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
        state = str(self.call("GET", path)["state"])
        tasks: list[TaskState] = []
        while True:
            query = urlencode({"limit": PAGE, "offset": len(tasks)})
            page = self.call("GET", f"{path}/taskInstances?{query}")
            tasks += [_parse_task(instance) for instance in page["task_instances"]]
            if not page["task_instances"] or len(tasks) >= page["total_entries"]:
                return RunState(dag_id, run_id, state, tuple(tasks))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        on_progress: Callable[[RunState], None],
        deadline_s: float = 900,
    ) -> RunState:
        """Wait until a run ends and report every change. Raises StackError at the deadline."""
        end = time.monotonic() + deadline_s
        last: RunState | None = None
        while True:
            state = self.get_run_state(dag_id, run_id)
            if state != last:
                on_progress(state)
                last = state
            if state.is_finished:
                return state
            if time.monotonic() > end:
                raise StackError(
                    f"run {run_id} of {dag_id} is still {state.state} after {deadline_s:.0f} s",
                    f"See {self.url}",
                )
            time.sleep(0.5)

    def get_result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task returned (its XCom `return_value`); None if it returned nothing."""
        path = (
            f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task_id)}"
            "/xcomEntries/return_value"
        )
        try:
            return self.call("GET", path)["value"]
        except NotFoundError:
            return None

    def get_task_log(self, dag_id: str, run_id: str, task: TaskState) -> str:
        """Return the log of a task's latest try, one line per event."""
        path = (
            f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task.task_id)}"
            f"/logs/{task.try_number}?map_index={task.map_index}"
        )
        content = self.call("GET", path)["content"]
        return "\n".join(_format_log_entry(entry) for entry in content)


def _format_log_entry(entry: dict[str, Any] | str) -> str:
    """Format a log entry as text; an exception as its type and message."""
    if isinstance(entry, str):
        return entry
    exceptions = [
        f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()
    ]
    return "\n".join([str(entry.get("event", entry)), *exceptions])


def _parse_task(instance: dict[str, Any]) -> TaskState:
    return TaskState(
        task_id=instance["task_id"],
        map_index=instance["map_index"],
        name=instance["rendered_map_index"] or instance["task_id"],
        state=instance["state"],
        try_number=instance["try_number"],
        duration_s=instance["duration"],
    )
