"""A day of images, a real `fer-batch run` over it that a test disturbs, and what it must leave.

Every run is a process of its own, with its scoring in the child that it starts. What a disturbed
day must look like in the end is not written down anywhere: it is what a run leaves that nobody
disturbed.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import REPO_ROOT, fresh_database
from tests.end_to_end.conftest import crop, facility
from tests.support.command import only_ours
from tests.support.models import write_tiny_cnn

DAY = date(2026, 3, 2)
Tables = dict[str, list[str]]


@dataclass
class Process:
    """A run under way: a group of processes, of which the first is the command."""

    popen: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def wait_until(self, event: str) -> None:
        """Read its log up to an event. Fails if it ends before."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(_entry(line))
            if self.lines[-1]["event"] == event:
                if self.lines[-1].get("signal") == "SIGSTOP":
                    _wait_until_stopped(self.lines[-1]["pid"])
                return
        pytest.fail(f"the run ended before {event!r}: {self.lines}")

    def send(self, number: signal.Signals) -> None:
        """To all of its processes at once."""
        os.killpg(self.popen.pid, number)

    def end(self) -> int:
        """Wait for its end and say how it ended; all of its processes are gone then."""
        assert self.popen.stderr is not None
        self.lines += [_entry(line) for line in self.popen.stderr]
        return self.popen.wait()

    @property
    def errors(self) -> str:
        return "\n".join(
            f"{line['event']} {line.get('error', '')}"
            for line in self.lines
            if line.get("level") == "error"
        )

    def passed(self, point: str) -> bool:
        """Whether one of its processes came to the failpoint that was armed."""
        return any(line["event"] == "failpoint" and line["point"] == point for line in self.lines)


def _wait_until_stopped(pid: int) -> None:
    """It speaks before it stops: woken up in between, it would stop for good."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) and "event" in entry else {"event": line.rstrip()}


@dataclass(frozen=True)
class Job:
    """`fer-batch run` for the day, on a database."""

    url: str
    env: dict[str, str]
    folder: Path
    started: list[Process] = field(default_factory=list)

    def start(
        self, failpoint: str = "", *arguments: str, run_id: str = "night", **changes: str
    ) -> Process:
        words = ["run", "--capture-day", DAY.isoformat(), "--run-id", run_id, *arguments]
        env = {**self.env, "FER_DATABASE_URL": self.url, "FER_FAILPOINT": failpoint, **changes}
        popen = subprocess.Popen(
            [sys.executable, "-m", "fer_batch", *words],
            cwd=REPO_ROOT,
            env=only_ours(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(Process(popen))
        return self.started[-1]

    def run(self, failpoint: str = "", run_id: str = "night") -> tuple[int, Process]:
        process = self.start(failpoint, run_id=run_id)
        return process.end(), process

    def finish(self) -> None:
        """The rerun that nobody disturbs."""
        code, process = self.run()
        assert code == 0, process.lines

    def close(self) -> None:
        for process in self.started:
            if process.popen.poll() is None:
                process.send(signal.SIGKILL)
                process.end()

    def tables(self) -> Tables:
        return tables(self.url)

    def count(self, table: str) -> int:
        with psycopg.connect(self.url) as connection:
            name = sql.Identifier("fer", table)
            found = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
        assert found is not None
        return int(found[0])

    def incomplete_summaries(self) -> int:
        """How many summaries there are that say of themselves that they are incomplete."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                "select count(*) from fer.satisfaction_summary"
                " where not is_complete and images_pending > 0"
            ).fetchone()
        assert found is not None
        return int(found[0])


def tables(url: str) -> Tables:
    """Every row of every table and of the view of the day as text, but for clocks, the names of
    runs, and the numbers of revisions.

    Summaries that say that they are incomplete are left out: a run publishes them for people who
    wait, and the next one puts a complete one beside them. Partitions are named; their rows are
    those of the tables that they are part of.
    """
    with psycopg.connect(url) as connection:
        found: Tables = {
            "partitions": _texts(
                connection, "select inhrelid::regclass::text from pg_inherits order by 1"
            )
        }
        columns = connection.execute(
            "select table_name, array_agg(column_name::text order by ordinal_position)"
            " from information_schema.columns c join information_schema.tables t"
            " using (table_schema, table_name)"
            " where table_schema = 'fer'"
            " and (table_type = 'BASE TABLE' or table_name = 'satisfaction_daily')"
            " and data_type <> 'timestamp with time zone'"
            " and column_name not in ('run_id', 'revision')"
            " and not exists (select from pg_inherits"
            "   where inhrelid = format('fer.%I', table_name)::regclass)"
            " group by table_name"
        ).fetchall()
        for table, names in columns:
            row = sql.SQL(", ").join(map(sql.Identifier, names))
            question = sql.SQL("select {} row({})::text from {} {} order by 1").format(
                sql.SQL("distinct" if table == "run" else ""),
                row,
                sql.Identifier("fer", table),
                sql.SQL("where is_complete" if table == "satisfaction_summary" else ""),
            )
            found[table] = _texts(connection, question)
    return found


def _texts(connection: psycopg.Connection, question: Any) -> list[str]:
    return [text for (text,) in connection.execute(question).fetchall()]


@pytest.fixture(scope="session")
def day_env(
    seaweed_server: Any, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Settings for a day in a bucket: two facilities with 150 images together, one with none."""
    folder, bucket = tmp_path_factory.mktemp("day"), f"faults-{secrets.token_hex(8)}"
    s3_client.create_bucket(Bucket=bucket)
    images = {f"large/{DAY}/{n:03}.png": crop(n % 3 > 0) for n in range(105)}
    images |= {f"small/{DAY}/{n:03}.png": crop(n % 3 == 0) for n in range(40)}
    images |= {f"small/{DAY}/bad-{n}.png": b"\x89PNG\r\n\x1a\n" + b"?" * n for n in range(4)}
    images[f"small/{DAY}/bad-empty.png"] = b""
    for key, data in images.items():
        s3_client.put_object(Bucket=bucket, Key=key, Body=data)
    registry = folder / "facilities.toml"
    registry.write_text("\n".join(facility(name) for name in ("large", "small", "none")))
    yield {
        "FER_ENV_FILE": os.devnull,
        "FER_LOG_FORMAT": "json",
        "FER_FACILITIES_FILE": str(registry),
        "FER_MODEL_CARD": str(write_tiny_cnn(folder)),
        "FER_S3_ENDPOINT": seaweed_server.endpoint,
        "FER_S3_BUCKET": bucket,
        "FER_S3_ACCESS_KEY_ID": seaweed_server.access_key_id,
        "FER_S3_SECRET_ACCESS_KEY": seaweed_server.secret_access_key,
        "FER_S3_CONCURRENCY": "4",
        "FER_CHUNK_IMAGES": "2",
        "FER_THREADS": "1",
    }
    s3_client.delete_bucket(Bucket=bucket)


@contextmanager
def job_on(url: str, env: dict[str, str], folder: Path) -> Iterator[Job]:
    job = Job(url, {**env, "FER_REPORT_DIR": str(folder / "reports")}, folder)
    try:
        yield job
    finally:
        job.close()


@pytest.fixture
def job(database_url: str, day_env: dict[str, str], tmp_path: Path) -> Iterator[Job]:
    """The day on a migrated database of the test's own."""
    with job_on(database_url, day_env, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(
    postgres_server: Any,
    migrated_template: str,
    day_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Tables:
    """The tables after a run that nobody disturbed."""
    with (
        fresh_database(postgres_server, migrated_template) as url,
        job_on(url, day_env, tmp_path_factory.mktemp("undisturbed")) as job,
    ):
        job.finish()
        found = job.tables()
    assert len(found["image"]) == len(found["image_result"]) == 150
    assert len(found["face_result"]) == 145
    assert len(found["satisfaction_summary"]) == 3
    return found
