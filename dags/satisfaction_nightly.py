"""
### Did people leave with a happy expression?

For one **capture day** and each facility, the run lists the images in S3, scores those without a
result, writes the summary, checks the data, writes the report and sends the digests. There is one
DAG for each time zone of the facility registry; it runs every night at 03:00 local time and
processes the day before. `satisfaction_nightly` has no schedule; trigger it for any day and any
facilities.

| parameter | meaning |
| --- | --- |
| `capture_day` | the day, as YYYY-MM-DD; empty: the day before the run's local date |
| `facilities` | facility ids, one per line; empty: all facilities, or all of the DAG's time zone |
| `lookback_days` | number of earlier days that are listed again for late images; 0 in a backfill |
| `model_version` | the active model version or its first characters; empty: the active one |
| `rescore` | score finished images again; a summary that changes gets a new revision |

**What a retry or a clear does.** The tables record the progress: an image that has its final result
is not fetched again, whichever task is cleared and however often. A cleared `score` continues where
it stopped. A cleared `summarize` writes a new revision only if the numbers changed.

**Why a run is red.** A shard failed (the summary of its facility has `is_complete` false), or a
data check found an error. The log of `check_data` names each finding. A failure of one facility
does not affect the summaries of the others. The next night picks up late images of the last days.

**When a run is late.** A run that takes 6 hours longer than the average successful run misses its
deadline: Airflow marks it, and people are told once. After 8 hours Airflow ends it.

**Who is told.** A run that fails or is late, and a run that opens findings, send one message to the
mail addresses of `FER_INCIDENT_TO` and the chats of `FER_INCIDENT_CHATS`, and call the function of
`FER_INCIDENT_CALLBACK`.

**Which day a run processes.** Click the run in the grid: the list of its task instances shows the
capture day in the column *Map Index*. So does the list of a task's instances in all runs. In a log,
the line `running fer-batch` has `--capture-day`; `sync_facilities` and `export` are about all days.
A parameter with an unknown name fails the run.

**A facility is missing.** If the entry of a facility in the registry is invalid, nothing of it is
read. `check_data` is red with the finding `invalid_in_registry`; the other facilities are
processed. A facility without a valid time zone belongs to no scheduled DAG: Airflow shows it as an
import error of `invalid_facilities.py`.

**Backfill**: `airflow backfill create --dag-id satisfaction_nightly_europe_berlin --from-date
2026-11-01T00:00+01:00 --to-date 2026-11-08T00:00+01:00` creates a run for each night between the
two times; each run processes the day before its night. Write the offset from UTC. The runs stay
queued while the DAG is paused.

**After the summaries.** Each `summarize` emits an event of the asset `satisfaction_daily`. Its
extra names the facility days that were summarized. A DAG with
`schedule=[Asset("satisfaction_daily")]` starts after it.

**Digests** by mail and to chats go to the subscriptions of `docs/notify.md`, by the run of the last
time zone of their facilities. A retry or a clear of `notify` sends only what has not been sent.

**Requirements**: the Connections `fer_postgres` and `fer_s3` (or the `FER_…` settings in the
worker's environment), once single images were erased `fer_erasure`, for digests `fer_smtp` and
`fer_chat_<name>`, the pool `fer_scoring`, and `FER_PYTHON` if fer-batch is installed in a separate
environment.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import fer_command
import fer_deadline
import fer_incidents
import fer_registry
from airflow.sdk import (
    DAG,
    Asset,
    BaseXCom,
    CronTriggerTimetable,
    Metadata,
    Param,
    TriggerRule,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException
from fer_environment import Secrets

try:
    from fer_airflow_page.link import ReportLink
except ImportError:  # the page in Airflow's UI is not installed
    REPORT_LINKS = []
else:
    REPORT_LINKS = [ReportLink()]

POOL = "fer_scoring"
LOCAL_HOUR = "0 3 * * *"
SATISFACTION_DAILY = Asset("satisfaction_daily")  # a URI would load every provider
MAX_PARTITIONS = 5_000
"""An asset event names at most so many facility days, which takes about half a megabyte."""

END = r"$(?!\n)"
"""The end of a text in the patterns of JSON Schema; in Python, $ alone ignores a final newline."""

PARAMS = {
    "capture_day": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Capture day",
        description="The day whose images are processed, as YYYY-MM-DD; it must have begun. Empty: "
        "the day before the run's local date.",
    ),
    "facilities": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "pattern": f"^[a-z0-9][a-z0-9_-]{{0,62}}{END}"},
        title="Facilities",
        description="Facility ids of the registry, one per line. Empty: all facilities, or all of "
        "the DAG's time zone.",
    ),
    "lookback_days": Param(
        3,
        type="integer",
        minimum=0,
        maximum=31,
        title="Lookback days",
        description="Number of earlier days that are listed again for late images, 0 to 31. A "
        "backfill lists none.",
    ),
    "model_version": Param(
        None,
        type=["null", "string"],
        pattern=f"^[0-9a-f]{{6,64}}{END}",
        title="Model version",
        description="The active model version or its first 6 characters or more; the run fails if "
        "another one is active. Empty: the active one.",
    ),
    "rescore": Param(
        False,
        type=["null", "boolean"],  # without null, the form marks a switch as required
        title="Rescore",
        description="Score images again that have a final result, also those of the lookback days.",
    ),
}

CAPTURE_DAY = "{{ get_capture_day(params, logical_date | default(none), dag_run) }}"

DEFAULT_ARGS = {
    "owner": "fer-batch",
    "retries": 5,  # ten minutes in total: a database or server may be restarting
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": fer_command.RETRY_POLICY,
    "execution_timeout": timedelta(minutes=20),
    # Airflow's lists of task instances show it in the column Map Index, also for unmapped tasks.
    "map_index_template": CAPTURE_DAY,
}


def build_arguments(time_zone: str | None) -> list[str]:
    """Return the arguments that select the batches of this run, the same for every command."""
    context = get_current_context()
    fer_command.check_conf(context)
    params = context["params"]
    arguments = [
        f"--capture-day={fer_command.derive_capture_day(context, time_zone).isoformat()}",
        f"--lookback-days={fer_command.derive_lookback_days(context)}",
    ]
    if time_zone:
        arguments.append(f"--time-zone={time_zone}")
    arguments += [f"--facility={facility}" for facility in params["facilities"] or ()]
    if params["model_version"]:
        arguments.append(f"--model-version={params['model_version']}")
    if params["rescore"]:
        arguments.append("--rescore")
    return [*arguments, f"--run-id={context['dag'].dag_id}/{context['run_id']}"]


def build_event_extra(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the extra of the asset event: which facility days were summarized, the newest first.

    It has no figure, because whoever may see assets may read it: not even whether a rate was
    published. `is_truncated` tells that there are more than `MAX_PARTITIONS`.
    """
    ordered = sorted(summaries, key=lambda row: row["facility_id"])
    ordered.sort(key=lambda row: row["capture_day"], reverse=True)
    names = ("facility_id", "capture_day", "revision", "is_complete")
    return {
        "partitions": [{name: row[name] for name in names} for row in ordered[:MAX_PARTITIONS]],
        "is_truncated": len(ordered) > MAX_PARTITIONS,
    }


def write_docs(example_zone: str) -> str:
    """Return the docs of a DAG, with an example of a backfill in this time zone."""
    docs = (__doc__ or "").replace(make_dag_id("Europe/Berlin"), make_dag_id(example_zone))
    for day in (1, 8):
        berlin, here = (
            datetime(2026, 11, day, tzinfo=ZoneInfo(zone)).isoformat(timespec="minutes")
            for zone in ("Europe/Berlin", example_zone)
        )
        docs = docs.replace(berlin, here)
    return docs


def build_dag(dag_id: str, time_zone: str | None, example_zone: str) -> DAG:
    """Build the nightly DAG of a time zone's facilities, or, if it is None, of any facility.

    Its docs have an example for `example_zone`.
    """

    def get_capture_day(params: Any, logical_date: datetime | None, dag_run: Any) -> str:
        context = {"params": params, "logical_date": logical_date, "dag_run": dag_run}
        return fer_command.derive_capture_day(context, time_zone).isoformat()

    dag = fer_deadline.DagWithDeadline(
        dag_id,
        description=f"Happy expressions by facility{f', {time_zone}' if time_zone else ''}",
        doc_md=write_docs(example_zone),
        schedule=CronTriggerTimetable(LOCAL_HOUR, timezone=time_zone) if time_zone else None,
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=4,
        dagrun_timeout=timedelta(hours=8),
        deadline=fer_deadline.build_deadline(time_zone),
        on_failure_callback=partial(fer_incidents.tell_failed_run, time_zone=time_zone),
        on_success_callback=partial(fer_incidents.tell_new_findings, time_zone=time_zone),
        default_args=DEFAULT_ARGS,
        params=PARAMS,
        user_defined_macros={"get_capture_day": get_capture_day},
        tags=["fer-batch", "satisfaction"],
    )
    with dag:
        add_tasks(time_zone)
    return dag


def add_tasks(time_zone: str | None) -> None:
    """Add the tasks of the nightly job, in their order, to the DAG of the surrounding `with`."""

    @task(doc_md="Write the facility registry to the table `facility`.")
    def sync_facilities() -> Any:
        fer_command.check_conf(get_current_context())
        try:
            return fer_command.run_command("facilities", "sync", "--json")
        except fer_command.FindingsError:
            # An invalid facility, which the log names. In the runs to which it belongs, check_data
            # fails; the others go on.
            return None

    @task(
        doc_md="List each facility's images in S3 into the table `image`.",
        execution_timeout=timedelta(hours=2),
    )
    def list_images() -> Any:
        return fer_command.run_command(
            "list-images",
            *build_arguments(time_zone),
            "--json",
            secrets=[Secrets.IMAGES, Secrets.ERASURES],
        )

    @task(doc_md="Split the images without a result into shards of equal work.")
    def plan_shards() -> Any:
        return fer_command.run_command(
            "plan-shards", *build_arguments(time_zone), "--json", secrets=[Secrets.ERASURES]
        )

    @task(
        doc_md="Fetch, decode, crop and classify the images of one shard; write their rows.",
        pool=POOL,
        map_index_template=f"{CAPTURE_DAY} · {{{{ shard_name }}}}",
        execution_timeout=timedelta(hours=2),
    )
    def score(shard: dict[str, Any]) -> Any:
        get_current_context()["shard_name"] = shard["name"]
        return fer_command.run_command(
            "score",
            *build_arguments(time_zone),
            "--shard=-",
            "--json",
            stdin=json.dumps(shard),
            secrets=[Secrets.IMAGES],
            facilities={part["batch"]["facility_id"] for part in shard["ranges"]},
        )

    @task(
        doc_md="Write the summary of each facility and day, even if a shard failed.",
        trigger_rule=TriggerRule.ALL_DONE,
        outlets=[SATISFACTION_DAILY],
    )
    def summarize() -> Any:
        summaries = fer_command.run_command("summarize", *build_arguments(time_zone), "--json")
        yield Metadata(SATISFACTION_DAILY, extra=build_event_extra(summaries or []))
        return summaries

    @task(
        doc_md="Run the data checks in `sql/checks` and store their findings: the returned rows.",
        trigger_rule=TriggerRule.ALL_DONE,
    )
    def check_data() -> Any:
        try:
            return fer_command.run_command("check-data", *build_arguments(time_zone), "--json")
        except fer_command.FindingsError as error:  # the message about the run names them
            get_current_context()["ti"].xcom_push(BaseXCom.XCOM_RETURN_KEY, error.output)
            raise

    @task(doc_md="Write the report of the day.", trigger_rule=TriggerRule.ALL_DONE)
    def report() -> Any:
        return fer_command.run_command(
            "report", *build_arguments(time_zone), "--json", secrets=[Secrets.REPORT]
        )

    @task(
        doc_md="Send the digests that are due, by mail and to chats; skipped in a backfill.",
        trigger_rule=TriggerRule.ALL_DONE,
    )
    def notify() -> Any:
        if get_current_context()["dag_run"].run_type == "backfill":
            raise AirflowSkipException("nobody wants a mail for each day of a backfill")
        return fer_command.run_command(
            "notify", *build_arguments(time_zone), "--json", secrets=[Secrets.DIGESTS]
        )

    @task(
        doc_md="Export the published figures as Parquet files; skipped if no place is set.",
        trigger_rule=TriggerRule.ALL_DONE,
    )
    def export() -> Any:
        exported = fer_command.run_command("export", "--if-set", "--json", secrets=[Secrets.EXPORT])
        if not exported:
            raise AirflowSkipException("neither FER_EXPORT_DIR nor FER_EXPORT_URL is set")
        return exported

    @task(
        doc_md="Fails if an earlier task failed: the state of a run is that of its last tasks.",
        trigger_rule=TriggerRule.ONE_FAILED,
        retries=0,
    )
    def watcher() -> None:
        raise fer_command.PermanentFailureError("a task of this run failed; see the grid view")

    synced, listed, shards = sync_facilities(), list_images(), plan_shards()
    scored = score.expand(shard=shards)
    summarized, checked, reported = summarize(), check_data(), report()
    exported, notified = export(), notify()
    reported.operator.operator_extra_links = REPORT_LINKS
    synced >> listed >> shards
    scored >> summarized >> checked >> reported >> notified
    summarized >> exported
    [synced, listed, shards, scored, summarized, checked, reported, exported, notified] >> watcher()


def make_dag_id(time_zone: str) -> str:
    """Return the DAG id of a time zone: `satisfaction_nightly_europe_berlin`."""
    # Etc/GMT+5 and Etc/GMT-5 differ only in the sign; other names contain hyphens too.
    name = re.sub("gmt-(?=[0-9])", "gmt_minus_", time_zone.lower()).replace("+", "_plus_")
    return "satisfaction_nightly_" + re.sub("[^a-z0-9]+", "_", name)


ZONES = fer_registry.list_time_zones(fer_registry.read_registry())
DAGS = [
    build_dag("satisfaction_nightly", None, [*ZONES, "Europe/Berlin"][0]),
    *(build_dag(make_dag_id(zone), zone, zone) for zone in ZONES),
]
for dag in DAGS:
    globals()[dag.dag_id] = dag  # the DAG processor looks for DAGs in the module's globals
