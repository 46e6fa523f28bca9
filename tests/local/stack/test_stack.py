from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from dotenv import dotenv_values

from fer_batch.database import connections, privileges, schema
from fer_batch.local.stack import Stack, StackError, get_default_stack_dir
from fer_batch.local.stack.airflow import POOL_SLOTS, POOL_THREADS
from fer_batch.local.stack.files import ensure_private_directory
from fer_batch.storage.bucket_rules import BucketRules, ImageNeeds, judge, read_rules
from tests.support.processes import find_processes, kill_all

from .conftest import s3_client

USE = """
import sys, time
from pathlib import Path
from fer_batch.local.stack import Stack
def tell(text): print(text, flush=True)
with Stack(Path(sys.argv[1])).running(with_airflow=False, on_progress=tell):
    tell("ready")
    sys.stdin.readline()
"""


@pytest.fixture
def start(folder):
    """Start a process that uses the stack until it reads a line; wait for a line of its output."""
    users = []

    def start(until="ready"):
        user = subprocess.Popen(
            [sys.executable, "-c", USE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        users.append(user)
        for line in user.stdout:
            if line.strip().startswith(until):
                return user
        raise AssertionError(f"never said {until!r}")

    yield start
    for user in users:
        user.kill()
        user.communicate()


@pytest.mark.parametrize(
    ("moment", "number"),
    [("starting", signal.SIGINT), ("starting", signal.SIGTERM), ("ready", signal.SIGINT)],
)
def test_no_process_is_left_after_an_interrupt(folder, start, number, moment):
    user = start(until=moment)
    os.killpg(user.pid, number)  # the process group, as a terminal does
    user.communicate(timeout=60)
    assert user.returncode != 0
    assert not find_processes(folder)


def test_a_run_works_after_a_killed_run(folder, start):
    first = start()
    first.kill()
    first.communicate()
    assert find_processes(folder)  # no process was left to stop them
    second = start()
    second.communicate("\n", timeout=60)
    assert second.returncode == 0
    assert not find_processes(folder)


def test_the_last_user_stops_the_stack(folder, start):
    first, second = start(), start()
    first.communicate("\n", timeout=60)
    up = {server.name for server in Stack(folder).get_status() if server.is_running}
    assert up == {"PostgreSQL", "S3"}
    second.communicate("\n", timeout=60)
    assert not find_processes(folder)


def test_up_starts_a_usable_stack_that_survives_a_crash_until_down(folder):
    stack = Stack(folder)
    said: list[str] = []
    stack.up(with_airflow=False, on_progress=said.append)
    assert said[0].startswith("starting PostgreSQL")
    settings = stack.build_settings()
    assert settings.erasure_secret == Stack(folder).build_settings().erasure_secret is not None
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert connection.execute("select count(*) from fer.facility").fetchone() == (0,)
    client, bucket = s3_client(stack.seaweed), settings.s3_bucket
    client.put_object(Bucket=bucket, Key="a", Body=b"kept")
    rules = read_rules(client, bucket)
    assert (
        judge(rules, ImageNeeds([""], 3, settings.retention_days), datetime.now(UTC).date()) == []
    )
    client.delete_bucket_lifecycle(Bucket=bucket)  # its images are to stay

    # As in a stack of an earlier version, whose only login owned everything.
    with psycopg.connect(stack.build_env(as_admin=True)["FER_DATABASE_URL"]) as connection:
        connection.execute("REASSIGN OWNED BY fer_owner TO fer")
        connection.execute("REVOKE fer_writer FROM fer_nightly")
    line = {"kind": "image", "facility_id": "a", "capture_day": "2026-03-01", "images": 1}
    line |= {"faces": 1, "erased_at": "2026-04-01T00:00:00Z", "key_sha256": "0" * 64}
    settings.erasure_log.write_text(json.dumps(line) + "\n")
    kill_all(folder)
    assert not any(server.is_running for server in stack.get_status())
    stack.up(with_airflow=False)
    assert "key_sha256" not in settings.erasure_log.read_text()
    client = s3_client(stack.seaweed)
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"kept"
    assert read_rules(client, bucket) == BucketRules()
    engine = connections.create_engine(settings)
    schema.check_writable(engine)
    with engine.connect() as connection:
        assert privileges.list_excess(connection) == []
    engine.dispose()

    with stack.running(with_airflow=False):
        pass
    up = {server.name for server in stack.get_status() if server.is_running}
    assert up == {"PostgreSQL", "S3"}  # a block does not stop a stack that `up` started
    stack.down()
    assert not any(server.is_running for server in stack.get_status())


def test_delete_stops_the_servers_and_removes_the_data(folder):
    stack = Stack(folder)
    stack.up(with_airflow=False)
    stack.delete()
    assert not folder.exists()
    assert find_processes(folder) == []
    stack.delete()  # deleting nothing is not an error
    folder.mkdir()  # the fixture removes it


def test_the_settings_file_is_readable_by_its_owner_only(folder):
    stack = Stack(folder)
    with stack.running(with_airflow=False):
        file = folder / "env"
        assert file.stat().st_mode & 0o777 == 0o600
        assert dotenv_values(file) == stack.build_env()
        shell = subprocess.run(
            ["sh", "-c", '. "$1"; env', "sh", file], env={}, capture_output=True, text=True
        )
        assert set(stack.build_env().items()) <= {
            tuple(line.split("=", 1)) for line in shell.stdout.splitlines()
        }


def test_a_stack_that_was_never_started_reports_that(tmp_path):
    stack = Stack(tmp_path / "none")
    stack.down()
    assert not any(server.is_running or server.address for server in stack.get_status())
    with pytest.raises(StackError, match="PostgreSQL was never started"):
        stack.build_env()
    assert not (tmp_path / "none").exists()


def test_a_folder_of_another_user_is_refused(tmp_path):
    theirs = tmp_path / "theirs"
    if os.geteuid() == 0:
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
    else:
        theirs = Path("/var/tmp")
    with pytest.raises(StackError, match="another user"):
        ensure_private_directory(theirs)


def test_a_folder_with_other_files_is_neither_changed_nor_deleted(tmp_path):
    (tmp_path / "photographs").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    stack = Stack(tmp_path)
    for use in (lambda: stack.up(with_airflow=False), stack.down, stack.delete):
        with pytest.raises(StackError, match="is not empty and is not a local stack"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StackError, match="not a directory"):
        ensure_private_directory(tmp_path / "link")


def test_each_user_and_environment_has_its_own_folder(monkeypatch):
    here = get_default_stack_dir()
    monkeypatch.setattr(sys, "prefix", "/elsewhere/.venv")
    assert get_default_stack_dir() != here
    assert here.parent == Path("/var/tmp")
    assert f"-{os.getuid()}-" in here.name


def test_concurrent_scoring_uses_no_more_threads_than_cores():
    assert 1 <= POOL_SLOTS * POOL_THREADS <= (os.cpu_count() or 1)
