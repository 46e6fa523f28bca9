"""A day of images, real `fer-batch run` processes over it, and the tables that a day must leave.

Each run is a separate process, which starts a child for scoring. The expected tables are not
written down: they are those of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.fixtures.night import encode_crop, format_facility
from tests.fixtures.servers import fresh_database, switch_login
from tests.support.command import build_environment
from tests.support.fork_server import ForkedPopen, ForkServer
from tests.support.models import write_tiny_cnn
from tests.support.repository import REPO_ROOT

DAY = date(2026, 3, 2)
Tables = dict[str, list[str]]


@dataclass
class Process:
    """A started run: a process group whose first process is the command."""

    popen: ForkedPopen
    lines: list[dict[str, Any]] = field(default_factory=list)

    def wait_until(self, event: str) -> None:
        """Read the log up to an event. The test fails if the run ends before."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(_parse_line(line))
            if self.lines[-1]["event"] == event:
                if self.lines[-1].get("signal") == "SIGSTOP":
                    wait_until_stopped(self.lines[-1]["pid"])
                return
        pytest.fail(f"the run ended before {event!r}: {self.lines}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the run."""
        os.killpg(self.popen.pid, number)

    def wait(self) -> int:
        """Wait until all processes have ended, and return the exit code of the command."""
        assert self.popen.stderr is not None
        self.lines += [_parse_line(line) for line in self.popen.stderr]
        return self.popen.wait()

    @property
    def errors(self) -> str:
        return "\n".join(
            f"{line['event']} {line.get('error', '')}"
            for line in self.lines
            if line.get("level") == "error"
        )

    def has_reached(self, point: str) -> bool:
        """Whether one of the processes has reached the armed failpoint."""
        return any(line["event"] == "failpoint" and line["point"] == point for line in self.lines)


def wait_until_stopped(pid: int) -> None:
    """Wait until the process is stopped. It logs before it stops, and a SIGCONT that comes between
    the two would be lost."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()


def _parse_line(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) and "event" in entry else {"event": line.rstrip()}


@dataclass(frozen=True)
class Job:
    """`fer-batch run` for the day, with a given database."""

    server: ForkServer
    url: str
    env: dict[str, str]
    folder: Path
    started: list[Process] = field(default_factory=list)

    def start(
        self, failpoint: str = "", *arguments: str, run_id: str = "night", **changes: str
    ) -> Process:
        command = ["run", "--capture-day", DAY.isoformat(), "--run-id", run_id, *arguments]
        env = {**self.env, "FER_DATABASE_URL": self.url, "FER_FAILPOINT": failpoint, **changes}
        popen = ForkedPopen(
            self.server,
            command,
            cwd=REPO_ROOT,
            env=build_environment(env),
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
        return process.wait(), process

    def finish(self) -> None:
        """Run once more, undisturbed, and successfully."""
        code, process = self.run()
        assert code == 0, process.lines

    def close(self) -> None:
        for process in self.started:
            if process.popen.poll() is None:
                process.send(signal.SIGKILL)
                process.wait()

    def read_tables(self) -> Tables:
        return read_tables(self.url)

    def count_rows(self, table: str) -> int:
        with psycopg.connect(self.url) as connection:
            name = sql.Identifier("fer", table)
            row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
        assert row is not None
        return int(row[0])

    def count_incomplete_summaries(self) -> int:
        """The number of summaries that are marked as incomplete and have pending images."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "select count(*) from fer.satisfaction_summary"
                " where not is_complete and images_pending > 0"
            ).fetchone()
        assert row is not None
        return int(row[0])


_FINAL: Mapping[str, LiteralString] = {
    "satisfaction_summary": "where is_complete",
    "finding": "where exists (select from fer.finding_day where finding_id = finding.finding_id)",
}
"""The rows that count: not what a disturbed run published or found and the next one completed."""


def read_tables(url: str) -> Tables:
    """Every row of every table and of the daily view as text, without times, run ids and revision
    numbers.

    Incomplete summaries are left out: a disturbed run publishes them as preliminary figures, and
    the next run adds a complete one. So are findings that no day shows any more: what a disturbed
    run truly found, such as images without an outcome, stays in the history, closed by the next
    run. Of partitions only the names are listed; their rows are part of their parent tables.
    """
    with psycopg.connect(switch_login(url)) as connection:
        contents: Tables = {
            "partitions": _read_texts(
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
            " and column_name not in ('run_id', 'revision', 'finding_id')"
            " and not exists (select from pg_inherits"
            "   where inhrelid = format('fer.%I', table_name)::regclass)"
            " group by table_name"
        ).fetchall()
        for table, names in columns:
            row = sql.SQL(", ").join(map(sql.Identifier, names))
            query = sql.SQL("select {} row({})::text from {} {} order by 1").format(
                sql.SQL("distinct" if table == "run" else ""),
                row,
                sql.Identifier("fer", table),
                sql.SQL(_FINAL.get(table, "")),
            )
            contents[table] = _read_texts(connection, query)
    return contents


def _read_texts(connection: psycopg.Connection, query: Any) -> list[str]:
    return [text for (text,) in connection.execute(query).fetchall()]


@pytest.fixture(scope="session")
def day_env(
    seaweed_server: Any, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Settings for a day in a bucket: two facilities have 150 images in total, one has none."""
    folder, bucket = tmp_path_factory.mktemp("day"), f"faults-{secrets.token_hex(8)}"
    s3_client.create_bucket(Bucket=bucket)
    images = {f"large/{DAY}/{n:03}.png": encode_crop(n % 3 > 0, number=n) for n in range(105)}
    images |= {f"small/{DAY}/{n:03}.png": encode_crop(n % 3 == 0, number=n) for n in range(40)}
    images |= {f"small/{DAY}/bad-{n}.png": b"\x89PNG\r\n\x1a\n" + b"?" * n for n in range(4)}
    images[f"small/{DAY}/bad-empty.png"] = b""
    for key, data in images.items():
        s3_client.put_object(Bucket=bucket, Key=key, Body=data)
    registry = folder / "facilities.toml"
    registry.write_text("\n".join(format_facility(name) for name in ("large", "small", "none")))
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
def job_on_database(
    server: ForkServer, url: str, env: dict[str, str], folder: Path
) -> Iterator[Job]:
    job = Job(server, url, {**env, "FER_REPORT_DIR": str(folder / "reports")}, folder)
    try:
        yield job
    finally:
        job.close()


@pytest.fixture
def job(
    fork_server: ForkServer, database_url: str, day_env: dict[str, str], tmp_path: Path
) -> Iterator[Job]:
    """The day with a new migrated database."""
    with job_on_database(fork_server, database_url, day_env, tmp_path) as job:
        yield job


@pytest.fixture(scope="session")
def undisturbed(
    fork_server: ForkServer,
    postgres_server: Any,
    migrated_template: str,
    day_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Tables:
    """The tables after an undisturbed run."""
    with (
        fresh_database(postgres_server, migrated_template) as url,
        job_on_database(fork_server, url, day_env, tmp_path_factory.mktemp("undisturbed")) as job,
    ):
        job.finish()
        contents = job.read_tables()
    assert len(contents["image"]) == len(contents["image_result"]) == 150
    assert len(contents["face_result"]) == 145
    assert len(contents["satisfaction_summary"]) == 3
    return contents
