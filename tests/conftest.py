"""Real servers for the tests: one PostgreSQL and one S3 server, a fresh database and bucket each.

The servers start when the first test asks for them, are shared by all workers of a session, and
end with it. No test sees the developer's settings, and none talks to anything but 127.0.0.1.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import psutil
import psycopg
import pytest
from botocore.config import Config

from fer_batch.settings import Settings
from fer_batch.stack.files import PASSABLE, own_folder
from fer_batch.stack.postgres import ADMIN, PostgresServer
from fer_batch.stack.seaweed import SeaweedServer
from tests.support.processes import kill_all

hypothesis.settings.register_profile("no deadline", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("no deadline")

REPO_ROOT = Path(__file__).resolve().parent.parent
SERVERS = "FER_TEST_SERVERS"
"""Environment variable by which a session tells its workers the folder of the servers."""
TEMPLATE = "migrated"
ON_AIRFLOW = ("tests/end_to_end/test_airflow.py", "tests/end_to_end/test_broken_night.py")
KILLS = "tests/faults/test_kill_anywhere.py"
LONGEST = (*ON_AIRFLOW, KILLS, "tests/test_wheel.py", "tests/faults/", "tests/hostile/")
LONG_RUNS = ("FER_FAULT_SEEDS", "FER_FUZZ_IMAGES", "FER_FUZZ_SECONDS", "FER_MANY_KEYS")
"""Environment variables by which `make test-faults` asks for more than `make test`."""


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that:
    # tests of what an interrupt ends would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    is_worker = hasattr(config, "workerinput")
    for name in list(os.environ):
        is_asked = name == SERVERS or name in LONG_RUNS
        if name.startswith(("FER_", "AWS_", "PG", "AIRFLOW_")) and not is_asked:
            del os.environ[name]
    os.environ |= {
        "FER_ENV_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # For clients that are not Python's: whatever is not local ends at a closed port.
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    sys.addaudithook(only_local)
    if not is_worker:
        _sweep()
        os.environ[SERVERS] = f"{_prefix()}{os.getpid()}"
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)


def _end(number: int, frame: Any) -> None:
    """End as after Ctrl-C, with the servers stopped, when CI ends the run.

    Ctrl-C reaches the workers too; this signal does not, and they would end their tests first.
    """
    for worker in psutil.Process().children():
        worker.send_signal(signal.SIGINT)
    signal.default_int_handler(number, frame)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no worker is left with it at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay on one worker, with its fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(KILLS):
                return nodeid  # each is long, and they share nothing
            return "airflow" if nodeid.startswith(ON_AIRFLOW) else nodeid.partition("::")[0]

    return ByFile(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and SERVERS in os.environ:
        _remove(Path(os.environ.pop(SERVERS)))


def only_local(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: refuse connections and names outside of this machine, as without a network."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
        if not host.startswith("127.") and host not in ("::1", "localhost", ""):
            raise ConnectionRefusedError(f"tests may only talk to 127.0.0.1, not to {host}")
    elif event == "socket.getaddrinfo" and args[0] is not None:
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
        if host not in ("", "localhost") and not _is_address(host):
            raise socket.gaierror(socket.EAI_NONAME, f"tests may not resolve {host}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _prefix() -> str:
    return f"/var/tmp/fer-batch-test-{os.getuid()}-"


def _sweep() -> None:
    """Remove what sessions left that were killed."""
    for folder in Path("/var/tmp").glob(f"{Path(_prefix()).name}*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        SeaweedServer(folder / "s3").kill()  # its sockets in /tmp as well
        kill_all(folder)
        shutil.rmtree(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One worker of the session at a time."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_dir(repo_root: Path) -> Path:
    """The folder with FER2013 and the photographs, which are no part of the project."""
    folder = repo_root.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder


@pytest.fixture(scope="session")
def servers_dir() -> Path:
    return own_folder(Path(os.environ[SERVERS]), PASSABLE)


@pytest.fixture(scope="session")
def postgres_server(servers_dir: Path) -> PostgresServer:
    """The session's PostgreSQL."""
    server = PostgresServer(servers_dir / "postgres", durable=False)
    with locked(servers_dir):
        server.start()
    return server


@pytest.fixture(scope="session")
def seaweed_server(servers_dir: Path) -> SeaweedServer:
    """The session's S3 server."""
    server = SeaweedServer(servers_dir / "s3")
    with locked(servers_dir):
        server.start()
    return server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer, servers_dir: Path) -> str:
    """Name of a migrated database that the others are copied from."""
    from fer_batch import database

    done = servers_dir / "migrated"
    with locked(servers_dir):
        if not done.exists():
            postgres_server.drop_database(TEMPLATE)
            postgres_server.ensure_database(TEMPLATE)
            database.upgrade(settings_for(postgres_server.url(TEMPLATE)))
            with psycopg.connect(postgres_server.url("postgres", ADMIN)) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                    [TEMPLATE],
                )
            done.touch()
    return TEMPLATE


@contextmanager
def fresh_database(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(8)}"
    server.ensure_database(name, template=template)
    try:
        yield server.url(name)
    finally:
        server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of an empty database of the test's own."""
    with fresh_database(postgres_server, "template1") as url:
        yield url


@pytest.fixture
def database_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database of the test's own."""
    with fresh_database(postgres_server, migrated_template) as url:
        yield url


@dataclass(frozen=True)
class S3:
    """A bucket of the test's own, a client for it, and the settings that lead to it."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    bucket: str
    client: Any

    @property
    def settings_env(self) -> dict[str, str]:
        return {
            "FER_S3_ENDPOINT": self.endpoint,
            "FER_S3_BUCKET": self.bucket,
            "FER_S3_REGION": "us-east-1",
            "FER_S3_PATH_STYLE": "true",
            "FER_S3_ACCESS_KEY_ID": self.access_key_id,
            "FER_S3_SECRET_ACCESS_KEY": self.secret_access_key,
        }


@pytest.fixture(scope="session")
def s3_client(seaweed_server: SeaweedServer) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=seaweed_server.endpoint,
        aws_access_key_id=seaweed_server.access_key_id,
        aws_secret_access_key=seaweed_server.secret_access_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture
def s3(seaweed_server: SeaweedServer, s3_client: Any) -> Iterator[S3]:
    """A fresh bucket on the S3 server."""
    bucket = f"test-{secrets.token_hex(8)}"
    s3_client.create_bucket(Bucket=bucket)
    yield S3(
        endpoint=seaweed_server.endpoint,
        access_key_id=seaweed_server.access_key_id,
        secret_access_key=seaweed_server.secret_access_key,
        bucket=bucket,
        client=s3_client,
    )
    s3_client.delete_bucket(Bucket=bucket)  # with all that is in it: SeaweedFS allows that


def settings_for(database_url: str, **others: Any) -> Settings:
    return Settings(_env_file=None, database_url=database_url, **others)


@pytest.fixture
def stack_settings(database_url: str, s3: S3, tmp_path: Path) -> Settings:
    """Settings for a migrated database and a fresh bucket; reports go to the test's folder."""
    return settings_for(
        database_url,
        s3_endpoint=s3.endpoint,
        s3_bucket=s3.bucket,
        s3_access_key_id=s3.access_key_id,
        s3_secret_access_key=s3.secret_access_key,
        facilities_file=tmp_path / "facilities.toml",
        report_dir=tmp_path / "reports",
        threads=1,
    )
