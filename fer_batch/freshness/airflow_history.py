"""Whether `airflow db clean` is overdue: runs of fer-batch's DAGs that it should have deleted.

Tasks may not use Airflow's database, so somebody runs the command on the scheduler's host. The
history names keys of images: the first and last of each shard.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from fer_batch.airflow_client import PAGE, AirflowClient, AirflowError

DAG_PREFIX = "satisfaction_"
SLACK_DAYS = 30
"""The command need not run more often than once a month."""


def describe_overdue(client: AirflowClient, retention_days: int, today: date) -> str:
    """What to run if the history of fer-batch's DAGs is too old; empty: it is not.

    Raises AirflowError and AirflowUnavailableError.
    """
    query = {
        "dag_id_prefix_pattern": DAG_PREFIX,
        "start_date_lt": f"{today - timedelta(days=retention_days + SLACK_DAYS)}T00:00:00Z",
        "order_by": "start_date",
        "limit": PAGE,
    }
    answer = client.call("GET", f"dags/~/dagRuns?{urlencode(query)}")
    try:
        oldest = _find_oldest(answer["dag_runs"])
    except (KeyError, TypeError, AttributeError):
        raise AirflowError(
            f"{client.url} does not answer as Airflow 3 does", "Correct FER_AIRFLOW_URL"
        ) from None
    if oldest is None:
        return ""
    return (
        f"Airflow's history goes back to {oldest}, but FER_AIRFLOW_RETENTION_DAYS is "
        f"{retention_days}. Run on the scheduler's host: airflow db clean --skip-archive --yes "
        f"--clean-before-timestamp {today - timedelta(days=retention_days)} (it cleans all DAGs: "
        "docs/deploy.md limits it to those of fer-batch)"
    )


def _find_oldest(runs: list[dict[str, Any]]) -> str | None:
    """The day of the oldest run that `airflow db clean` would delete; None if there is none.

    `runs` are old ones, oldest first. The command keeps the newest run of a DAG that nobody
    triggered, however old: as long as that could be the newest one here, it does not count.
    """
    ours = [run for run in runs if run["dag_id"].startswith(DAG_PREFIX)]
    newest = {run["dag_id"]: run["dag_run_id"] for run in ours if run["run_type"] != "manual"}
    for run in ours:
        if newest.get(run["dag_id"]) != run["dag_run_id"]:
            return str(run["start_date"])[:10]
    return None
