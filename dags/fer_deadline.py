"""The deadline of a DAG run: when it is missed, somebody hears of it.

Airflow asks this of each run: has it ended `FER_DEADLINE_HOURS` (6) after it was queued? If not, it
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
        name=f"ends within {hours:g} h",
        # When it was queued: a run by hand may have no logical date.
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=hours),
        callback=SyncCallback(os.environ.get("FER_DEADLINE_CALLBACK") or missed),
    )


def missed(context: dict[str, Any]) -> None:
    """Say in the log that a run is late."""
    run = context["dag_run"]
    log.error(
        "run %s of %s has not ended by %s; look for the task that runs or waits, and for the pool",
        run["dag_run_id"],
        run["dag_id"],
        context["deadline"]["deadline_time"],
    )
