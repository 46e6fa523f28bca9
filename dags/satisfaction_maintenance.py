"""
### Delete what is older than its period

Once a day, the run deletes permanently what has expired: rows per image and face, summaries,
findings, records of runs, reports, exported files, and temporary files that killed processes left.
Each kind has a setting for its period; the section *Retention* of `docs/privacy.md` lists them all.

| parameter | meaning |
| --- | --- |
| `dry_run` | show what would be deleted, and delete nothing |
| `after_pause` | the clock is right, although nothing was read or deleted for more than 31 days |

**What was deleted.** The log of `maintain` has a line for each kind of data: the day before which
it was deleted, and how much. So does its return value.

**When it runs.** At 01:00 in the time zone whose nightly run follows the longest pause: the nightly
runs of the day before have ended, nobody works with the tables, and the next nightly run starts two
hours later. It may also run at any other time, beside nightly runs. When the DAG is unpaused, a
first run begins at once.

**Why a run is red.** A kind of data could not be deleted; the error says which and why. The other
kinds were deleted. If a transaction that stays open keeps a day from being dropped, the error names
its session; no day is ever dropped in part. The next run continues. If the clocks of the worker and
of the database differ by more than a day, nothing is deleted. Nor is it if the newest
images and the last run are more than 31 days old: the clock may be ahead. If it is right, trigger
one run with `after_pause`.

**What a retry or a clear does.** It deletes what is left. Without a run, nothing is deleted.

**Who is told.** A run that fails sends a message, as the nightly runs do.

**Requirements**: the Connection `fer_postgres_maintenance` (or `FER_MAINTENANCE_DATABASE_URL` in
the worker's environment), with a login that has the role `fer_retainer`; for reports and exports
in S3 the credentials `report` and `export`, which must also be allowed to delete. Airflow's own
history is deleted by `airflow db clean`, which is no task: see `docs/deploy.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import fer_command
import fer_incidents
import fer_registry
from airflow.sdk import DAG, CronTriggerTimetable, Param, get_current_context, task
from fer_environment import Secrets

LOCAL_HOUR = "0 1 * * *"
"""Two hours before the nightly runs of a time zone."""

PARAMS = {
    "dry_run": Param(
        False,
        type=["null", "boolean"],  # without null, the form marks a switch as required
        title="Dry run",
        description="Show what would be deleted, and delete nothing.",
    ),
    "after_pause": Param(
        False,
        type=["null", "boolean"],
        title="After a pause",
        description="Confirm that the clock is right, although the newest images and the last run "
        "are more than 31 days old.",
    ),
}


def find_quiet_zone(time_zones: Sequence[str]) -> str:
    """Return the time zone whose nightly run follows the longest pause; UTC if there is none."""
    day = datetime(2026, 1, 1, tzinfo=UTC)
    offsets = {
        zone: day.astimezone(ZoneInfo(zone)).utcoffset() or timedelta() for zone in time_zones
    }
    # The nights go from east to west; the last one of a day is followed by the first of the next.
    ordered = sorted(time_zones, key=lambda zone: (-offsets[zone], zone))
    if not ordered:
        return "UTC"

    def measure_pause(index: int) -> timedelta:
        pause = offsets[ordered[index - 1]] - offsets[ordered[index]]
        return pause if index else pause + timedelta(days=1)

    return ordered[max(range(len(ordered)), key=measure_pause)]


def list_time_zones() -> list[str]:
    """Return the time zones of the registry; none if the nightly DAGs show what is wrong with it.

    What has expired is deleted also while no night can run.
    """
    try:
        return fer_registry.list_time_zones(fer_registry.read_registry())
    except fer_registry.RegistryError:
        return []


with DAG(
    "satisfaction_maintenance",
    description="Deletes what is older than its period",
    doc_md=__doc__,
    schedule=CronTriggerTimetable(LOCAL_HOUR, timezone=find_quiet_zone(list_time_zones())),
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=8),
    on_failure_callback=fer_incidents.tell_failed_run,
    default_args={
        "owner": "fer-batch",
        "retries": 5,
        "retry_delay": timedelta(seconds=20),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
        "retry_policy": fer_command.RETRY_POLICY,
        "execution_timeout": timedelta(hours=2),
    },
    params=PARAMS,
    tags=["fer-batch", "satisfaction"],
) as dag:

    @task(doc_md="Delete what has expired, or show it.")
    def maintain() -> Any:
        context = get_current_context()
        fer_command.check_conf(context)
        params = context["params"]
        deleted = fer_command.run_command(
            "maintain",
            "--dry-run" if params["dry_run"] else "--yes",
            *(["--after-pause"] if params["after_pause"] else []),
            "--json",
            secrets=[Secrets.MAINTENANCE, Secrets.REPORT, Secrets.EXPORT],
        )
        for row in deleted:
            fer_command.log.info(
                "%(kind)s: %(count)s %(unit)s before %(before)s, by %(setting)s", row
            )
        return deleted

    maintain()
