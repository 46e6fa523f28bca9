"""
### Did people leave with a happy expression?

For one **capture day** and each facility: list the images in S3, score what has no result yet,
write the summary, check the data, make the report. One DAG for each time zone of the facility
registry runs every night at 03:00 there and is about the day before;
`satisfaction_nightly` has no schedule and takes any day and any facilities.

| parameter | meaning |
| --- | --- |
| `capture_day` | the day, as YYYY-MM-DD; empty means the day before the run's local date |
| `facilities` | facility ids; empty means all (of the DAG's time zone) |
| `lookback_days` | days before it, looked at again for late images; none in a backfill |
| `model_version` | must be the one in use; its first characters do; empty means whichever is |
| `rescore` | score finished images once more; a summary that changes gets a new revision |

**What a retry or a clear does.** Progress is what the tables hold: an image that has its final
result is not fetched again, whichever task is cleared and however often. A cleared `score` goes
on where it stopped; a cleared `summarise` writes a new revision only if the numbers changed.

**When it is red.** A shard that failed (its facility's summary says so: `is_complete` is false),
or a data check with an error. The log of `check_data` names each finding. One facility's
trouble leaves the others' summaries as they are. Late images of the last days are picked up by
the next night.

**When it is late.** A run that takes 6 hours longer than the successful ones on average misses its
deadline: Airflow marks it and calls `FER_DEADLINE_CALLBACK` once. After 8 hours it is ended.

**Backfill**: `airflow backfill create --dag-id satisfaction_nightly_europe_berlin --from-date
2026-11-01T00:00 --to-date 2026-11-08T00:00` makes a run for each night between the two; each is
about the day before its night.

**What it needs**: the Connections `fer_postgres` and `fer_s3` (or the `FER_…` settings in the
worker's environment), the pool `fer_scoring`, and `FER_PYTHON` where fer-batch lives in an
environment of its own.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import fer_command
import fer_deadline
from airflow.sdk import (
    DAG,
    Asset,
    CronTriggerTimetable,
    Metadata,
    Param,
    TriggerRule,
    get_current_context,
    task,
)

POOL = "fer_scoring"
LOCAL_HOUR = "0 3 * * *"
SATISFACTION_DAILY = Asset("satisfaction_daily")  # a URI would load every provider

PARAMS = {
    "capture_day": Param(None, type=["null", "string"], format="date", title="Capture day"),
    "facilities": Param(
        [],
        type="array",
        items={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
        title="Facilities",
    ),
    "lookback_days": Param(3, type="integer", minimum=0, maximum=31, title="Lookback (days)"),
    "model_version": Param(
        None, type=["null", "string"], pattern="^[0-9a-f]{6,64}$", title="Model version"
    ),
    "rescore": Param(False, type="boolean", title="Score finished images once more"),
}

DEFAULT_ARGS = {
    "owner": "fer-batch",
    "retries": 5,  # together ten minutes: a database or a server that starts anew
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": fer_command.RETRY_POLICY,
    "execution_timeout": timedelta(minutes=20),
}


def selection(time_zone: str | None) -> list[str]:
    """The arguments that say which batches this run is about, the same for every command."""
    context = get_current_context()
    params = context["params"]
    arguments = [
        f"--run-id={context['dag'].dag_id}/{context['run_id']}",
        f"--capture-day={fer_command.capture_day(context, time_zone).isoformat()}",
        f"--lookback-days={fer_command.lookback_days(context)}",
    ]
    if time_zone:
        arguments.append(f"--time-zone={time_zone}")
    arguments += [f"--facility={facility}" for facility in params["facilities"]]
    if params["model_version"]:
        arguments.append(f"--model-version={params['model_version']}")
    if params["rescore"]:
        arguments.append("--rescore")
    return arguments


def satisfaction_nightly(dag_id: str, time_zone: str | None) -> DAG:
    """The nightly job over the facilities of a time zone, or over any when it is None."""
    dag = DAG(
        dag_id,
        description=f"Happy or Sad, facility by facility{f', {time_zone}' if time_zone else ''}",
        doc_md=__doc__,
        schedule=CronTriggerTimetable(LOCAL_HOUR, timezone=time_zone) if time_zone else None,
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=4,
        dagrun_timeout=timedelta(hours=8),
        deadline=fer_deadline.deadline(),
        default_args=DEFAULT_ARGS,
        params=PARAMS,
        tags=["fer-batch", "satisfaction"],
    )
    with dag:

        @task(doc_md="Write the facility registry to the table `facility`.")
        def sync_facilities() -> Any:
            return fer_command.run("facilities", "sync", "--json")

        @task(
            doc_md="List each facility's images in S3 into the table `image`.",
            execution_timeout=timedelta(hours=2),
        )
        def list_images() -> Any:
            return fer_command.run("list", *selection(time_zone), "--json")

        @task(doc_md="Cut the images without a result into shards of equal work.")
        def plan_shards() -> Any:
            return fer_command.run("shards", *selection(time_zone), "--json")

        @task(
            doc_md="Fetch, decode, crop and classify the images of one shard; write their rows.",
            pool=POOL,
            map_index_template="{{ shard_name }}",
            execution_timeout=timedelta(hours=2),
        )
        def score(shard: dict[str, Any]) -> Any:
            get_current_context()["shard_name"] = shard["name"]
            return fer_command.run(
                "score", *selection(time_zone), "--json", stdin=json.dumps(shard)
            )

        @task(
            doc_md="Write the summary of each facility and day, also when a shard failed.",
            trigger_rule=TriggerRule.ALL_DONE,
            outlets=[SATISFACTION_DAILY],
        )
        def summarise() -> Any:
            summaries = fer_command.run("summarize", *selection(time_zone), "--json")
            yield Metadata(SATISFACTION_DAILY, extra={"summaries": summaries})
            return summaries

        @task(
            doc_md="Run the SQL of `sql/checks`; a row returned is a finding.",
            trigger_rule=TriggerRule.ALL_DONE,
        )
        def check_data() -> Any:
            return fer_command.run("checks", *selection(time_zone), "--json")

        @task(doc_md="Write the report of the day.", trigger_rule=TriggerRule.ALL_DONE)
        def report() -> Any:
            return fer_command.run("report", *selection(time_zone), "--json")

        @task(
            doc_md="Red if anything before it failed: a run's state follows its leaves.",
            trigger_rule=TriggerRule.ONE_FAILED,
            retries=0,
        )
        def watcher() -> None:
            raise fer_command.PermanentFailureError("a task of this run failed; see the grid")

        synced, listed, shards = sync_facilities(), list_images(), plan_shards()
        scored = score.expand(shard=shards)
        summarised, checked, reported = summarise(), check_data(), report()
        synced >> listed >> shards
        scored >> summarised >> checked >> reported
        [synced, listed, shards, scored, summarised, checked, reported] >> watcher()
    return dag


def dag_id_of(time_zone: str) -> str:
    """The id of a time zone's DAG: `satisfaction_nightly_europe_berlin`."""
    # The sign is all that tells Etc/GMT+5 from Etc/GMT-5; other names have hyphens too.
    name = re.sub("gmt-(?=[0-9])", "gmt_minus_", time_zone.lower()).replace("+", "_plus_")
    return "satisfaction_nightly_" + re.sub("[^a-z0-9]+", "_", name)


DAGS = [
    satisfaction_nightly("satisfaction_nightly", None),
    *(satisfaction_nightly(dag_id_of(zone), zone) for zone in fer_command.time_zones()),
]
for dag in DAGS:
    globals()[dag.dag_id] = dag  # the DAG processor finds DAGs among a file's names
