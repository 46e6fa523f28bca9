"""The little of Airflow's REST API that the demo and the tests need.

Works with any Airflow 3 that has the simple auth manager; starting one is `airflow`'s part.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from fer_batch.errors import RetryableError
from fer_batch.stack.files import StackError

FINISHED_RUN = frozenset({"success", "failed"})
FINISHED_TASK = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
PAGE = 100
TIMEOUT_S = 60
"""The first requests after a start wait until the server has built what answers them."""
# The API is on this machine: a proxy for the outside world would only be in the way.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AirflowUnavailableError(RetryableError):
    """Airflow's API does not answer, or not yet."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task instance. `name` is what a person reads: the name of its map index, if it has one.

    `state` is None before the scheduler has looked at it.
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


class AirflowApi:
    """A client for one Airflow, logged in at the first call."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self._login = {"username": user, "password": password}
        self._token: str | None = None

    def health(self) -> dict[str, dict[str, str | None]]:
        """What Airflow says of its components: a status and the time of the latest heartbeat."""
        answer: dict[str, dict[str, str | None]] = self._send("GET", "/api/v2/monitor/health", None)
        return answer

    def tasks_health(self) -> str:
        """What the API that the tasks use says of itself: `healthy`."""
        return str(self._send("GET", "/execution/health", None)["status"])

    def unpause(self, dag_id: str, deadline_s: float = 60) -> None:
        """Let a DAG run. One that the DAG processor has not read yet is waited for.

        Raises StackError if there is none at the end; the message names the import errors.
        """
        end = time.monotonic() + deadline_s
        while True:
            try:
                self.call("PATCH", f"dags/{quote(dag_id)}", {"is_paused": False})
                return
            except NotFoundError as error:
                problems = self.import_errors()
                if problems or time.monotonic() > end:
                    raise StackError(f"Airflow has no DAG {dag_id}", "\n".join(problems)) from error
                time.sleep(0.5)

    def import_errors(self) -> list[str]:
        """What kept DAG files from being read, each as `file: error`."""
        found = self.call("GET", "importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace']}" for error in found]

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Make a pool, or give an existing one so many slots."""
        pool = {"slots": slots, "description": description, "include_deferred": False}
        try:
            self.call("PATCH", f"pools/{quote(name)}", {"pool": name, **pool})
        except NotFoundError:
            self.call("POST", "pools", {"name": name, **pool})

    def trigger_dag_run(
        self, dag_id: str, conf: dict[str, Any], logical_date: datetime | None = None
    ) -> str:
        """Start a run with these parameters; returns its run id."""
        body = {"conf": conf, "logical_date": logical_date and logical_date.isoformat()}
        return str(self.call("POST", f"dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> RunState:
        """Where a run and its tasks stand now."""
        path = f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
        state = str(self.call("GET", path)["state"])
        found: list[TaskState] = []
        while True:
            query = urlencode({"limit": PAGE, "offset": len(found)})
            page = self.call("GET", f"{path}/taskInstances?{query}")
            found += [_task_state(instance) for instance in page["task_instances"]]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return RunState(dag_id, run_id, state, tuple(found))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        on_progress: Callable[[RunState], None],
        deadline_s: float = 900,
    ) -> RunState:
        """Wait until a run ends, reporting every change. Raises StackError when time is over."""
        end = time.monotonic() + deadline_s
        last: RunState | None = None
        while True:
            state = self.run_state(dag_id, run_id)
            if state != last:
                on_progress(state)
                last = state
            if state.is_finished:
                return state
            if time.monotonic() > end:
                raise StackError(
                    f"run {run_id} of {dag_id} is still {state.state} after {deadline_s:.0f} s",
                    f"Look at it on {self.url}",
                )
            time.sleep(0.5)

    def task_log(self, dag_id: str, run_id: str, task: TaskState) -> str:
        """The log of a task's latest try, one line per event."""
        path = (
            f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task.task_id)}"
            f"/logs/{task.try_number}?map_index={task.map_index}"
        )
        content = self.call("GET", path)["content"]
        return "\n".join(_line(entry) for entry in content)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request to /api/v2; returns the answer's JSON, None if it is empty.

        Raises NotFoundError, AirflowUnavailableError, or StackError with Airflow's own words.
        """
        if self._token is None:
            self._token = self._send("POST", "/auth/token", self._login)["access_token"]
        return self._send(method, f"/api/v2/{path}", body)

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            self.url + path, data=data, headers=headers, method=method
        )
        try:
            with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            what = f"Airflow refuses {method} {path}: {error.code} {said}"
            if error.code == 404:
                raise NotFoundError(what) from None
            if error.code >= 500:
                raise AirflowUnavailableError(what) from None
            raise StackError(what) from None
        except OSError as error:
            raise AirflowUnavailableError(
                f"Airflow does not answer on {self.url}: {error}"
            ) from error
        return json.loads(text) if text else None


class NotFoundError(StackError):
    """Airflow has no such thing."""


def _line(entry: dict[str, Any] | str) -> str:
    """An entry of a log as text; an exception as its type and what it says."""
    if isinstance(entry, str):
        return entry
    raised = [
        f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()
    ]
    return "\n".join([str(entry.get("event", entry)), *raised])


def _task_state(instance: dict[str, Any]) -> TaskState:
    return TaskState(
        task_id=instance["task_id"],
        map_index=instance["map_index"],
        name=instance["rendered_map_index"] or instance["task_id"],
        state=instance["state"],
        try_number=instance["try_number"],
        duration_s=instance["duration"],
    )
