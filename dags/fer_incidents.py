"""Tells people of runs that failed or opened findings; fer_deadline.py tells of late ones.

The callbacks of the DAGs collect what is known about a run, and pass it to `fer-batch incident`,
which sends mails and posts to chats, and to the function of `FER_INCIDENT_CALLBACK`: a dotted path
in a module next to the DAGs or in an installed package. The function takes a dictionary, as
`describe_run` returns it, with the `subject` and the `text` of the message. Airflow 3.3 calls the
callbacks of a run in the DAG processor, once per run, and ends them after
`[dag_processor] dag_file_processor_timeout` (50 s); Airflow's database is reached through its API
only. Whatever fails here is logged and changes nothing for the run.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import fer_command
from airflow.sdk import BaseXCom
from airflow.sdk.configuration import conf
from fer_environment import Secrets

log = logging.getLogger("fer_batch")

LIMIT_S = 35.0
"""How long sending may take: with the start of the DAG processor's process less than its limit."""
RECIPIENTS = ("FER_INCIDENT_TO", "FER_INCIDENT_CHATS", "FER_ENV_FILE")
"""Without one of them in the environment, nobody is to be told; the last may set the others."""
WATCHER = "watcher"
"""The task that fails only because another one did."""


def tell_failed_run(context: Mapping[str, Any], time_zone: str | None = None) -> None:
    """Tell of a run that failed: the callback `on_failure_callback` of a DAG."""
    tell(describe_run("failed run", context, time_zone))


def tell_new_findings(context: Mapping[str, Any], time_zone: str | None = None) -> None:
    """Tell of findings that a successful run opened: the callback `on_success_callback`.

    A backfill tells of none, because its days are past.
    """
    if _read_run_type(context) == "backfill":
        return
    incident = describe_run("new findings", context, time_zone)
    if incident["findings"]:
        tell(incident)


def tell(incident: dict[str, Any]) -> None:
    """Tell everybody who is set, by mail, in chats and by the user's function; never raises."""
    log.error("%s: %s, %s", incident["kind"], incident["dag_id"], incident["run_id"])
    path = os.environ.get("FER_INCIDENT_CALLBACK")
    if not path and not any(os.environ.get(name) for name in RECIPIENTS):
        return
    message = _send(incident)
    if path:
        try:
            module, _, name = path.rpartition(".")
            getattr(importlib.import_module(module), name)({**incident, **message})
        except Exception:
            log.exception("FER_INCIDENT_CALLBACK=%s failed", path)


def _send(incident: dict[str, Any]) -> dict[str, Any]:
    """Send mails and post to chats; return subject, text and tasks as they may be told."""
    # The errors of tasks are told only as the command returns them: without keys of images.
    tasks = [{"name": task["name"], "error": ""} for task in incident.get("tasks", ())]
    message = {"subject": "", "text": "", "tasks": tasks}
    try:
        sent = fer_command.run_command(
            "incident",
            "-",
            "--json",
            stdin=json.dumps(incident),
            secrets=[Secrets.DIGESTS],
            facilities=(),
            limit_s=LIMIT_S,
        )
    except fer_command.FindingsError as error:
        log.error("somebody was not told of run %s: %s", incident["run_id"], error)
        sent = error.output
    except Exception as error:
        log.error("the message about run %s was not sent: %s", incident["run_id"], error)
        sent = None
    if not isinstance(sent, dict):
        return message
    return {name: sent.get(name, value) for name, value in message.items()}


def describe_run(kind: str, context: Mapping[str, Any], time_zone: str | None) -> dict[str, Any]:
    """Return what is known about a run, in values of JSON.

    `kind`, `dag_id`, `run_id`, `capture_day` (None if it is not known), `reason` (Airflow's word),
    `link` (empty without a setting of Airflow), `tasks` that failed with their last error, and
    `findings` that were opened, without their details. What Airflow does not tell is empty.
    """
    run_id = context["run_id"]
    incident = {
        **build_incident(kind, context["dag"].dag_id, run_id),
        "reason": str(context.get("reason") or ""),
    }
    if "capture_day" in context["dag"].params:  # maintenance has none
        incident["capture_day"] = find_capture_day(run_id, context, time_zone)
    for name, read in (("tasks", _list_failed_tasks), ("findings", _list_new_findings)):
        try:
            incident[name] = read(context)
        except Exception as error:  # the message without it is better than none
            log.warning("the %s of run %s could not be read: %r", name, run_id, error)
    return incident


def build_incident(kind: str, dag_id: str, run_id: str) -> dict[str, Any]:
    """Return an incident with all the keys of `describe_run`, and what every caller knows."""
    return {
        "kind": kind,
        "dag_id": dag_id,
        "run_id": run_id,
        "capture_day": None,
        "reason": "",
        "link": _build_link(dag_id, run_id),
        "tasks": [],
        "findings": [],
    }


def find_capture_day(run_id: str, context: Any, time_zone: str | None) -> str | None:
    """Return a run's capture day, None if Airflow knows neither its parameters nor its date."""
    try:
        return fer_command.derive_capture_day(context, time_zone).isoformat()
    except Exception as error:
        log.info("the capture day of run %s is not known: %r", run_id, error)
        return None


def _build_link(dag_id: str, run_id: str) -> str:
    """Return the address of a run in Airflow's UI; empty if `[api] base_url` is not set."""
    base = conf.get("api", "base_url", fallback="") or ""
    return f"{base.rstrip('/')}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}" if base else ""


def _read_run_type(context: Mapping[str, Any]) -> str:
    return str(getattr(context.get("dag_run"), "run_type", "") or "")


def _list_failed_tasks(context: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the tasks that failed, each with the last error that it logged."""
    ti, run_id = context.get("ti"), context["run_id"]
    if ti is None:
        return []
    states = ti.get_task_states(dag_id=context["dag"].dag_id, run_ids=[run_id]).get(run_id, {})
    failed = sorted(name for name, state in states.items() if state == "failed")
    mapped = {task.task_id for task in context["dag"].tasks if task.is_mapped}
    found = []
    for name in failed:
        if name == WATCHER:
            continue
        task_id, _, index = name.rpartition("_")
        is_mapped = task_id in mapped and index.isdigit()
        error = ti.xcom_pull(
            task_ids=task_id if is_mapped else name,
            key=fer_command.ERROR_KEY,
            map_indexes=int(index) if is_mapped else -1,
        )
        if name == "check_data" and not error:
            error = "the data checks found errors"
        label = f"{task_id} [{index}]" if is_mapped else name
        found.append({"name": label, "error": str(error or "")})
    return found


def _list_new_findings(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the new findings that `report` lists; without it, the errors of `check_data`."""
    ti = context.get("ti")
    if ti is None:
        return []
    reported = ti.xcom_pull(task_ids="report", key=BaseXCom.XCOM_RETURN_KEY, map_indexes=-1)
    if isinstance(reported, dict) and "new_findings" in reported:
        return _select_untold(reported["new_findings"], context.get("dag_run"))
    checked = ti.xcom_pull(task_ids="check_data", key=BaseXCom.XCOM_RETURN_KEY, map_indexes=-1)
    return _without_details(checked if isinstance(checked, list) else ())


def _select_untold(findings: Sequence[Mapping[str, Any]], dag_run: Any) -> list[dict[str, Any]]:
    """Return the findings that no earlier message about the run has told.

    A run that ended and is cleared starts again; what it had opened before was told when it ended.
    """
    is_cleared = getattr(dag_run, "clear_number", 0) and dag_run.start_date is not None
    return [
        {name: value for name, value in each.items() if name != "opened_at"}
        for each in findings
        if not is_cleared or datetime.fromisoformat(each["opened_at"]) >= dag_run.start_date
    ]


def _without_details(checked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the errors among the findings of `check_data`, without details that name images."""
    return [
        {
            "facility_id": each["facility_id"],
            "check": each["check"],
            "subject": each.get("subject") or "",
            "severity": each["severity"],
            "meaning": each["meaning"],
            "first_day": each["capture_day"],
            "last_day": each["capture_day"],
        }
        for each in checked
        if each.get("severity") == "error"
    ]
