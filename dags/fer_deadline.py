"""The deadline of a DAG run: when it is missed, somebody hears of it.

A run should end `FER_DEADLINE_HOURS` (6) later than the DAG's latest successful runs took on
average; before the first success there is no deadline. If it does not, Airflow marks the run and
calls `FER_DEADLINE_CALLBACK`, once, in a process of its executor. That is the dotted path of a
function that takes Airflow's `context`, in a module beside the DAGs or in an installed package;
without it, `missed` below writes the run into the log. Nothing is ended by it: how long a run may
take at all is the DAG's `dagrun_timeout`.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback

log = logging.getLogger("fer_batch")

DEADLINE_HOURS = 6.0


def deadline() -> DeadlineAlert:
    """The deadline of the nightly job's runs, as the environment sets it."""
    hours = float(os.environ.get("FER_DEADLINE_HOURS") or DEADLINE_HOURS)
    return DeadlineAlert(
        name=f"{hours:g} h longer than usual",
        # Airflow 3.3 fails to clear a run whose deadline counts from DAGRUN_QUEUED_AT (its issue
        # 70368); a run by hand may have no logical date, and that of a backfill is long past.
        reference=DeadlineReference.AVERAGE_RUNTIME(max_runs=14, min_runs=1),
        interval=timedelta(hours=hours),
        callback=SyncCallback(os.environ.get("FER_DEADLINE_CALLBACK") or missed),
    )


def missed(context: dict[str, Any]) -> None:
    """Say in the log that a run is late."""
    run = context["dag_run"]
    log.error(
        "run %s of %s has not succeeded by %s; look for the task that failed, runs or waits",
        run["dag_run_id"],
        run["dag_id"],
        context["deadline"]["deadline_time"],
    )
