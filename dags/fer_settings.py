"""The settings of a `fer-batch` command that a task runs.

They come from the worker's environment (fer_environment.py says which variables), from Airflow's
Connections (fer_connections.py says what they mean), from the registry and from the task's time
limit. Running the command is left to fer_command.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import fer_connections
import fer_environment
import fer_registry
from airflow.sdk import get_current_context
from fer_environment import Secrets

log = logging.getLogger("fer_batch")


def build_environment(
    secrets: Collection[Secrets],
    facilities: Collection[str] | None,
    limit_s: float | None = None,
) -> dict[str, str]:
    """Return the whole environment of a command that needs these secrets.

    It may use the keys that read images of `facilities`, or of all. `limit_s` is the time that it
    may take; None: what is left of the task's. Raises InvalidConnectionError.
    """
    credentials = [str(name) for name in (Secrets.REPORT, Secrets.EXPORT) if name in secrets]
    if Secrets.IMAGES in secrets:
        credentials += _list_credentials(facilities)
    return {
        **fer_environment.select_variables(os.environ, secrets, credentials),
        **read_connections(secrets, credentials),
        **(compute_time_limit() if limit_s is None else {"FER_TIME_LEFT_S": f"{limit_s:.1f}"}),
        "FER_FACILITIES_FILE": str(fer_registry.find_registry_file()),
        "FER_LOG_FORMAT": "json",
    }


def read_connections(
    secrets: Collection[Secrets], credentials: Collection[str] = ()
) -> dict[str, str]:
    """Return the settings of the Connections that a command with these secrets may use.

    They are `fer_postgres`, or for maintenance `fer_postgres_maintenance`, `fer_s3` (its keys only
    for images), `fer_s3_<credentials>`, `fer_erasure` (its password), `fer_smtp` and
    `fer_chat_<name>`. If a Connection does not exist, the environment keeps the setting. Raises
    InvalidConnectionError for one that cannot be used, and for a maintenance without a login.
    """
    settings: dict[str, str] = {}
    if Secrets.MAINTENANCE in secrets:
        settings["FER_DATABASE_URL"] = _read_maintenance_url()
    elif database := _get_connection("fer_postgres"):
        settings["FER_DATABASE_URL"] = fer_connections.build_database_url(database)
    if s3 := _get_connection("fer_s3"):
        settings |= fer_connections.read_s3_settings(s3)
        if Secrets.IMAGES in secrets:
            settings |= fer_connections.read_s3_keys(s3, "FER_S3_")
    for name in credentials:
        if keys := _get_connection(f"fer_s3_{name}"):
            prefix = f"FER_S3_CREDENTIALS__{name.upper()}__"
            settings |= fer_connections.read_s3_keys(keys, prefix)
    if Secrets.DIGESTS in secrets:
        settings |= _read_notifiers()
    if Secrets.ERASURES in secrets and (erasure := _get_connection("fer_erasure")):
        settings["FER_ERASURE_SECRET"] = str(erasure.password or "")
    return settings


def _read_maintenance_url() -> str:
    """Return the URL of the login that may delete what has expired; never that of the nights."""
    if database := _get_connection("fer_postgres_maintenance"):
        return fer_connections.build_database_url(database)
    if url := os.environ.get(fer_environment.MAINTENANCE_URL):
        return url
    raise fer_connections.InvalidConnectionError(
        "maintenance has no login of the database. Create the Connection fer_postgres_maintenance, "
        f"or set {fer_environment.MAINTENANCE_URL} for the workers, with a login that has the role "
        "fer_retainer"
    )


def _read_notifiers() -> dict[str, str]:
    """Return the settings of the Connections `fer_smtp` and `fer_chat_<name>`."""
    settings: dict[str, str] = {}
    if smtp := _get_connection("fer_smtp"):
        settings |= fer_connections.read_smtp_settings(smtp)
    of_incidents = os.environ.get("FER_INCIDENT_CHATS", "").lower().split(",")
    names = {name.strip() for name in of_incidents if name.strip()}
    for name in sorted(names.union(fer_registry.list_chats())):
        if chat := _get_connection(f"fer_chat_{name}"):
            settings[f"FER_CHAT_URLS__{name.upper()}"] = fer_connections.read_chat_url(chat)
    return settings


def compute_time_limit() -> dict[str, str]:
    """Return the time left of the task's `execution_timeout` as a setting; {} if it has none.

    fer-batch limits its own timeouts to it.
    """
    context = get_current_context()
    limit: timedelta | None = context["task"].execution_timeout
    if limit is None:
        return {}
    began = context["ti"].start_date or datetime.now(UTC)
    left = limit - (datetime.now(UTC) - began)
    return {"FER_TIME_LEFT_S": f"{max(left.total_seconds(), 1.0):.1f}"}


def _list_credentials(facilities: Collection[str] | None) -> list[str]:
    """Return the names of credentials in the registry; none if the command will report a fault."""
    try:
        return fer_registry.list_credentials(fer_registry.read_registry(), facilities)
    except fer_registry.RegistryError:
        return []


def _get_connection(name: str) -> Any | None:
    """Return the Connection, None if there is none."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        fer_connections.check_unreadable(name, os.environ)
        return None
    except PermissionError:  # Airflow 3.3 lets the callback of a deadline read no Connection
        log.warning("Airflow denies the Connection %s here: the settings FER_… count", name)
        return None
