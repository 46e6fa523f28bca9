"""A day scored by two Celery workers compared with one process: each image once, equal rows.

Everything is started for the benchmark and removed afterwards: PostgreSQL and the S3 server of the
local stack, Redis, Airflow with the CeleryExecutor, and two workers that run one task at a time
each. The DAG scores a day of crops of several facilities of different sizes; then `fer-batch run`
scores it into a second database, in one process and with other shards. The benchmark fails if the
rows differ or if an image was scored twice or not at all.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from benchmarks.drawn import DAY, build_crops_day
from benchmarks.measuring import QUIET, build_result_path, describe_machine, write_json
from benchmarks.redis_server import RedisServer
from fer_batch import log
from fer_batch.database import connections, schema
from fer_batch.errors import FerError, PermanentError
from fer_batch.local.demo.day import DemoFacility, format_registry, list_objects
from fer_batch.local.stack import Stack
from fer_batch.local.stack.airflow import (
    COMPONENTS,
    POOL_SLOTS,
    POOL_THREADS,
    AirflowStack,
    Component,
)
from fer_batch.local.stack.airflow_api import RunState
from fer_batch.local.stack.files import TRAVERSABLE
from fer_batch.settings import Settings
from fer_batch.storage.writer import upload_many

DAG_ID = "satisfaction_nightly"
WORKERS = ("worker-one", "worker-two")
SINGLE = "fer_single"
DAGS = Path(__file__).parents[1] / "dags"
TABLES = ("image", "image_result", "face_result", "satisfaction_summary")
DEADLINE_S = 3600


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images of each facility, and images per shard of the DAG."""

    facilities: tuple[int, ...]
    shard_images: int


FULL = Sizes((12_000, 4_000, 2_000, 1_000, 500, 300, 150, 50), 1_500)
QUICK = Sizes((120, 60, 20), 50)


@dataclass(slots=True)
class Share:
    """The work of one worker."""

    score_tasks: int = 0
    images: int = 0
    busy_s: float = 0.0
    other_tasks: int = 0


class ClusterStack(Stack):
    """The local stack with Airflow's CeleryExecutor."""

    def __init__(self, folder: Path, redis: RedisServer, shard_images: int) -> None:
        super().__init__(folder)
        self._shard_images = shard_images
        self.airflow = AirflowStack(
            self.folder / "airflow",
            self.postgres,
            self.seaweed,
            DAGS,
            {**COMPONENTS, **{name: _create_worker(name) for name in WORKERS}},
            {
                "core": {"executor": "CeleryExecutor", "hostname_callable": "getpass.getuser"},
                "celery": {
                    "broker_url": redis.url,
                    "worker_concurrency": max(1, POOL_SLOTS // len(WORKERS)),
                    "sync_parallelism": 1,
                },
            },
        )

    def build_env(self, *, as_admin: bool = False) -> dict[str, str]:
        env = super().build_env(as_admin=as_admin)
        return {**env, "FER_SHARD_IMAGES": str(self._shard_images)}


def _create_worker(name: str) -> Component:
    """A Celery worker with a distinct name; on two machines the host names would suffice.

    A task instance stores the result of `hostname_callable`: here the login name, which the
    environment of each worker sets.
    """
    command = ("celery", "worker", "--skip-serve-logs", "--celery-hostname", name)
    return Component(command, {"LOGNAME": name})


@contextmanager
def running(days: Sequence[DemoFacility], shard_images: int) -> Iterator[tuple[ClusterStack, str]]:
    """Redis, the stack and its workers with the images of the day; yields the Redis version too."""
    with tempfile.TemporaryDirectory(prefix="fer-batch-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(TRAVERSABLE)  # PostgreSQL runs as another user where root starts it
        redis = RedisServer(folder / "redis")
        stack = ClusterStack(folder / "stack", redis, shard_images)
        stack.write_registry(format_registry(days))
        try:
            version = redis.start()
            print_progress(f"Redis {version}")
            with stack.running(with_airflow=True, on_progress=print_progress):
                settings = stack.build_settings()
                for day in days:
                    upload_many(settings, settings.s3_bucket, list_objects(day, DAY))
                yield stack, version
        finally:
            redis.stop()


def split_facilities(sizes: Sequence[int]) -> list[DemoFacility]:
    """A day of crops, split into facilities of these sizes."""
    whole = build_crops_day(sum(sizes))
    ends = [0, *accumulate(sizes)]
    return [
        replace(whole, facility_id=f"facility-{n}", name=f"F{n}", images=whole.images[start:end])
        for n, (start, end) in enumerate(pairwise(ends), start=1)
    ]


# ---------------------------------------------------------------- the two runs


def run_on_workers(stack: ClusterStack) -> dict[str, Any]:
    """Run the DAG for the day; returns its duration and the share of each worker."""
    api = stack.airflow.create_client()
    api.unpause(DAG_ID, DEADLINE_S)
    began = time.monotonic()
    run_id = api.trigger_dag_run(DAG_ID, {"capture_day": DAY.isoformat(), "lookback_days": 0})
    last = ""

    def show(state: RunState) -> None:
        nonlocal last
        scored = Counter(str(t.state) for t in state.tasks if t.task_id == "score")
        if (line := f"{state.state}, score: {dict(scored)}") != last:
            print_progress(last := line)

    state = api.wait_for_run(DAG_ID, run_id, show, DEADLINE_S)
    whole_s = time.monotonic() - began
    if state.state != "success":
        raise PermanentError(
            f"the run ended as {state.state}: {_get_failure_log(stack, run_id, state)}"
        )
    path = f"dags/{DAG_ID}/dagRuns/{quote(run_id)}/taskInstances"
    instances = api.call("GET", f"{path}?limit=100")["task_instances"]
    shares = {name: Share() for name in WORKERS}
    spans: list[datetime] = []
    for instance in (i for i in instances if i["state"] == "success"):
        share = shares[instance["hostname"]]
        if instance["task_id"] != "score":
            share.other_tasks += 1
            continue
        query = f"map_index={instance['map_index']}&deserialize=true"
        answer = api.call("GET", f"{path}/score/xcomEntries/return_value?{query}")["value"]
        share.score_tasks += 1
        share.images += sum(row["images"] for row in answer)
        share.busy_s += instance["duration"]
        spans += [datetime.fromisoformat(instance[f"{end}_date"]) for end in ("start", "end")]
    scoring_s = (max(spans) - min(spans)).total_seconds()
    images = sum(share.images for share in shares.values())
    return {
        "whole_run_s": round(whole_s, 1),
        "scoring_s": round(scoring_s, 1),
        "images": images,
        "images_per_s_while_scoring": round(images / scoring_s, 1),
        "tries": max(instance["try_number"] for instance in instances),
        "workers": {
            name: asdict(share)
            | {"busy_s": round(share.busy_s, 1), "share": round(share.images / max(images, 1), 3)}
            for name, share in shares.items()
        },
    }


def _get_failure_log(stack: ClusterStack, run_id: str, state: RunState) -> str:
    """The log of the first task that failed."""
    failed = [t for t in state.tasks if t.state == "failed" and t.task_id != "watcher"]
    return (
        stack.airflow.create_client().get_task_log(DAG_ID, run_id, failed[0])
        if failed
        else "no task failed"
    )


def run_single_process(stack: ClusterStack) -> tuple[Settings, float]:
    """Run `fer-batch run` for the same day into another database, with the default shards and
    threads; returns its settings and the seconds."""
    stack.postgres.ensure_database(SINGLE)
    url = stack.postgres.build_url(SINGLE)
    schema.upgrade(stack.build_settings(database_url=url))
    env = {name: v for name, v in stack.build_env().items() if name != "FER_SHARD_IMAGES"}
    report_dir = str(stack.folder / "reports-of-single")
    env |= {"FER_DATABASE_URL": url, "FER_REPORT_DIR": report_dir, "FER_LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "fer_batch", "run", f"--capture-day={DAY}", "--json"]
    began = time.monotonic()
    subprocess.run(
        command, env={**os.environ, **QUIET, **env}, check=True, stdout=subprocess.DEVNULL
    )
    return stack.build_settings(database_url=url), time.monotonic() - began


# ---------------------------------------------------------------- checks


def check(stack: ClusterStack, single: Settings, done: Mapping[str, Any], images: int) -> list[str]:
    """The problems as texts; empty if each image was scored once and the rows are equal."""
    problems = []
    written = _count_writes(stack.build_settings())
    expected = {
        "images scored, by the tasks": (done["images"], images),
        "rows of image_result": (len(_load_rows(stack.build_settings(), "image_result")), images),
        "rows of image_result ever inserted": (written["inserted"], images),
        "rows of image_result ever updated or deleted": (written["changed"], 0),
        "tries of any task": (done["tries"], 1),
    }
    for name, (actual, expected_count) in expected.items():
        if actual != expected_count:
            problems.append(f"{name}: {actual}, expected {expected_count}")
    for table in TABLES:
        ours, other = (
            Counter(_load_rows(settings, table)) for settings in (stack.build_settings(), single)
        )
        if not ours or ours != other:
            only = [sum((ours - other).values()), sum((other - ours).values())]
            problems.append(f"{table}: {ours.total()} rows, only in one of the databases {only}")
            problems += [str(row) for side in (ours - other, other - ours) for row in [*side][:1]]
    return problems


def _load_rows(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    """The rows of a table without the columns in which two runs must differ: run ids and times."""
    with connections.create_engine(settings).connect() as connection:
        columns = connection.scalars(
            sa.text(
                "select column_name from information_schema.columns"
                " where table_schema = 'fer' and table_name = :table"
                " and column_name not like '%run_id' and data_type not like 'timestamp%'"
                " order by ordinal_position"
            ),
            {"table": table},
        ).all()
        rows = sa.table(table, *(sa.column(name) for name in columns), schema="fer")
        return [tuple(map(_make_hashable, row)) for row in connection.execute(rows.select())]


def _make_hashable(value: Any) -> Any:
    return str(value) if isinstance(value, dict | list) else value


def _count_writes(settings: Settings) -> dict[str, int]:
    """PostgreSQL's counts of inserted and changed rows of all partitions, including those of
    aborted transactions."""
    with connections.create_engine(settings).connect() as connection:
        row = connection.execute(
            sa.text(
                "select coalesce(sum(n_tup_ins), 0) as inserted,"
                " coalesce(sum(n_tup_upd + n_tup_del), 0) as changed"
                " from pg_stat_all_tables"
                " where relid in (select relid from pg_partition_tree('fer.image_result'))"
            )
        ).one()
    return {name: int(count) for name, count in row._mapping.items()}


# ---------------------------------------------------------------- results


def print_progress(text: str) -> None:
    print(f"  {text}", flush=True)


def show(done: Mapping[str, Any], single_s: float) -> None:
    print(
        f"\n{done['images']:,} images; DAG run {done['whole_run_s']} s, of which scoring "
        f"{done['scoring_s']} s ({done['images_per_s_while_scoring']:,} images/s); "
        f"`fer-batch run` {single_s:.1f} s"
    )
    for name, share in done["workers"].items():
        print(
            f"  {name}: {share['share']:.1%} of the images, {share['score_tasks']} shards in "
            f"{share['busy_s']} s, {share['other_tasks']} other tasks"
        )
    print("each image was scored once; the rows equal those of the single run")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    is_quick = parser.parse_args().quick
    log.configure(level="warning")
    sizes = QUICK if is_quick else FULL
    machine_facts = describe_machine()
    print_progress("drawing the day")
    days = split_facilities(sizes.facilities)
    try:
        with running(days, sizes.shard_images) as (stack, redis_version):
            done = run_on_workers(stack)
            print_progress("the same day by `fer-batch run`")
            single, single_s = run_single_process(stack)
            problems = check(stack, single, done, sum(sizes.facilities))
    except FerError as error:
        problems = [str(error)]
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    show(done, single_s)
    versions = {name: importlib.metadata.version(name) for name in ("apache-airflow", "celery")}
    result = {
        "machine": machine_facts,
        **versions,
        "redis": redis_version,
        "sizes": asdict(sizes),
        "worker_concurrency": max(1, POOL_SLOTS // len(WORKERS)),
        "threads": POOL_THREADS,
        "pool_slots": POOL_SLOTS,
        "celery": done,
        "single_run_s": round(single_s, 1),
        "tables_compared": list(TABLES),
    }
    write_json(build_result_path("cluster.json", is_quick=is_quick), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
