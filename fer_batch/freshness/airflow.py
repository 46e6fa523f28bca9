"""Asks Airflow's REST API whether the nightly DAGs and the maintenance can run.

Checked are the scheduler, the DAG processor and Airflow's database, import errors of the DAG files
of fer-batch, the DAG of each time zone, and that of the maintenance. A night that fails is noticed
by its summary, a maintenance that fails by its last run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlencode

from fer_batch.airflow_client import AirflowClient, NotFoundError
from fer_batch.errors import ConfigurationError, FerError
from fer_batch.resources import find_dags_dir
from fer_batch.settings import Settings

COMPONENTS = ("metadatabase", "scheduler", "dag_processor")
"""The parts of Airflow without which no night runs."""
MAINTENANCE_DAG_ID = "satisfaction_maintenance"
TIMEOUT_S = 20.0

Kind = Literal["airflow", "component", "import error", "dag"]
State = Literal["ok", "problem", "not checked"]


@dataclass(frozen=True, slots=True)
class Check:
    """A check of Airflow; `subject` is the component, the file or the DAG."""

    kind: Kind
    subject: str
    state: State
    detail: str = ""


def create_client(settings: Settings) -> AirflowClient | None:
    """A client for the Airflow of the settings; None if none is set.

    Raises ConfigurationError if a part of the settings is missing.
    """
    password = settings.airflow_password
    parts = {
        "FER_AIRFLOW_URL": settings.airflow_url,
        "FER_AIRFLOW_USER": settings.airflow_user,
        "FER_AIRFLOW_PASSWORD": password,
    }
    missing = [name for name, value in parts.items() if value is None]
    if len(missing) == len(parts):
        return None
    url, user = settings.airflow_url, settings.airflow_user
    if url is None or user is None or password is None:
        raise ConfigurationError(
            f"Airflow is not checked: {' and '.join(missing)} is not set",
            "Set all three of FER_AIRFLOW_URL, FER_AIRFLOW_USER and FER_AIRFLOW_PASSWORD, or none",
        )
    if not re.match(r"https?://[^/\s]", url):
        raise ConfigurationError(
            "FER_AIRFLOW_URL is not a web address", "Set it as https://airflow.example.com"
        )
    return AirflowClient(url, user, password.get_secret_value(), timeout_s=TIMEOUT_S)


def check_airflow(client: AirflowClient, time_zones: Collection[str]) -> list[Check]:
    """Check Airflow, the DAGs of these time zones and the maintenance.

    If Airflow does not answer, that is a problem.
    """
    try:
        return [
            *_check_components(client),
            *_check_files(client),
            *(_check_dag(client, make_dag_id(zone)) for zone in sorted(time_zones)),
            _check_maintenance(client),
        ]
    except FerError as error:
        return [Check("airflow", client.url, "problem", str(error))]
    except (KeyError, TypeError, AttributeError):
        detail = "it does not answer as Airflow 3 does; FER_AIRFLOW_URL may be wrong"
        return [Check("airflow", client.url, "problem", detail)]


def make_dag_id(time_zone: str) -> str:
    """The id of the DAG of a time zone, as dags/satisfaction_nightly.py makes it."""
    # Etc/GMT+5 and Etc/GMT-5 differ only in the sign; other names contain hyphens too.
    name = re.sub("gmt-(?=[0-9])", "gmt_minus_", time_zone.lower()).replace("+", "_plus_")
    return "satisfaction_nightly_" + re.sub("[^a-z0-9]+", "_", name)


def _check_components(client: AirflowClient) -> Iterator[Check]:
    health = client.get_health()
    for name in COMPONENTS:
        part = health[name]
        status = part.get("status")
        if status == "healthy":
            yield Check("component", name, "ok")
            continue
        beat = part.get(f"latest_{name}_heartbeat")
        last = "" if name == "metadatabase" else f", last heartbeat: {beat or 'never'}"
        yield Check("component", name, "problem", f"{status or 'does not run'}{last}")


def _check_files(client: AirflowClient) -> Iterator[Check]:
    ours = {file.name for file in find_dags_dir().glob("*.py")}
    is_found = False
    for file, trace in client.list_import_errors():
        if file.rpartition("/")[2] in ours:
            is_found = True
            lines = trace.strip().splitlines()
            yield Check("import error", file, "problem", lines[-1] if lines else "")
    if not is_found:
        yield Check("import error", "DAG files", "ok")


def _check_dag(client: AirflowClient, dag_id: str) -> Check:
    try:
        dag = client.call("GET", f"dags/{quote(dag_id)}")
    except NotFoundError:
        return Check(
            "dag", dag_id, "problem", "Airflow has no such DAG, or the user may not see it"
        )
    if dag["is_stale"]:
        return Check("dag", dag_id, "problem", "its file does not define it any more")
    if dag["is_paused"]:
        return Check("dag", dag_id, "problem", "it is paused")
    return Check("dag", dag_id, "ok")


def _check_maintenance(client: AirflowClient) -> Check:
    check = _check_dag(client, MAINTENANCE_DAG_ID)
    if check.state == "problem":
        return check
    query = urlencode(
        {"state": ["success", "failed"], "order_by": "-run_after", "limit": 1}, doseq=True
    )
    runs = client.call("GET", f"dags/{MAINTENANCE_DAG_ID}/dagRuns?{query}")["dag_runs"]
    if runs and runs[0]["state"] == "failed":
        detail = f"its last run has failed: {runs[0]['dag_run_id']}"
        return Check("dag", MAINTENANCE_DAG_ID, "problem", detail)
    return check
