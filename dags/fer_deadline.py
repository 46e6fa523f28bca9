"""The deadline of a DAG run, and the alert when the run misses it.

A run should finish within the average duration of the DAG's latest successful runs plus
`FER_DEADLINE_HOURS` (6). Before the first success there is no deadline. If a run misses it, Airflow
marks the run and calls `FER_DEADLINE_CALLBACK` once, in a process of its executor. The variable is
the dotted path of a function that takes Airflow's `context`, in a module next to the DAGs or in an
installed package. By default, `tell_missed_deadline` below tells those who are told of failed runs.
A missed deadline does not end the run; the DAG's `dagrun_timeout` limits its duration.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime, timedelta
from typing import Any

import fer_incidents
from airflow.sdk import DAG, DeadlineAlert, DeadlineReference, SyncCallback

log = logging.getLogger("fer_batch")

DEADLINE_HOURS = 6.0


class DagWithDeadline(DAG):
    """A DAG whose runs have a deadline, except those of `airflow dags test`.

    Airflow 3.3 ends such a test run with a traceback: it looks up the deadline by an id that the
    DAG gets only when the DAG processor stores it.
    """

    deadline: Any

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Run the DAG in this process, without a deadline."""
        deadline, self.deadline = self.deadline, None
        try:
            return super().test(*args, **kwargs)
        finally:
            self.deadline = deadline


def build_deadline(time_zone: str | None) -> DeadlineAlert:
    """Return the deadline of the runs of a time zone's DAG, as the environment sets it."""
    hours = float(os.environ.get("FER_DEADLINE_HOURS") or DEADLINE_HOURS)
    path = os.environ.get("FER_DEADLINE_CALLBACK")
    return DeadlineAlert(
        name=f"{hours:g} h longer than usual",
        # Airflow 3.3 fails to clear a run whose deadline counts from DAGRUN_QUEUED_AT (its issue
        # 70368). A manual run may have no logical date, and that of a backfill is long past.
        reference=DeadlineReference.AVERAGE_RUNTIME(max_runs=14, min_runs=1),
        interval=timedelta(hours=hours),
        callback=SyncCallback(path)
        if path
        else SyncCallback(tell_missed_deadline, kwargs={"time_zone": time_zone}),
    )


def tell_missed_deadline(context: dict[str, Any], time_zone: str | None = None) -> None:
    """Log an error for a run that is late, and tell people of it.

    Airflow passes the run as its API describes it. Its tasks and findings are not known here.
    """
    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    log.error(
        "run %s of %s missed its deadline, %s; look for the task that failed, runs or waits",
        run_id,
        dag_id,
        context["deadline"]["deadline_time"],
    )
    incident = fer_incidents.build_incident("late run", dag_id, run_id)
    if moment := run.get("logical_date") or run.get("run_after"):
        known = {"params": run.get("conf") or {}, "logical_date": datetime.fromisoformat(moment)}
        incident["capture_day"] = fer_incidents.find_capture_day(run_id, known, time_zone)
    fer_incidents.tell(incident)
