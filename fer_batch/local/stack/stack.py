"""The local stack: starts and stops PostgreSQL, the S3 server and Airflow together.

A started stack is ready to use: the database is migrated, the bucket exists, the settings are
written to a file. Each server has its own module. What the demo does with them is left to `demo`.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from fer_batch.local.stack.airflow import POOL_THREADS, AirflowStack, Progress, ignore_progress
from fer_batch.local.stack.files import (
    TRAVERSABLE,
    StackError,
    ensure_private_directory,
    get_default_stack_dir,
    load_or_create_secret,
    open_lock,
    write_private,
)
from fer_batch.local.stack.postgres import OWNER, RETAINER, WRITER, PostgresServer
from fer_batch.local.stack.processes import defer_signals
from fer_batch.local.stack.seaweed import SeaweedServer
from fer_batch.resources import find_dags_dir, find_example_registry
from fer_batch.settings import Settings

DATABASE = "fer"
BUCKET = "fer-images"
LOCK = "fer-batch.lock"
"""The lock file: one process at a time changes a stack. It also marks a directory as a stack."""
LOCK_S = 600.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server of the stack; `address` is empty if it was never started."""

    name: str
    is_running: bool
    address: str


class Stack:
    """The local stack in one directory, by default a directory in /var/tmp.

    The facility registry is `facilities.toml` in that directory; a new stack has the example that
    ships. Reports are written to `reports` in that directory.
    """

    def __init__(self, stack_dir: Path | None = None) -> None:
        self.folder = (stack_dir or get_default_stack_dir()).absolute()
        self.postgres = PostgresServer(self.folder / "postgres")
        self.seaweed = SeaweedServer(self.folder / "s3")
        self.airflow = AirflowStack(
            self.folder / "airflow", self.postgres, self.seaweed, find_dags_dir()
        )
        self.report_dir = self.folder / "reports"
        self._stays_up = self.folder / "stays-up"

    @property
    def facilities_file(self) -> Path:
        """The facility registry that the stack's tasks read."""
        return self.folder / "facilities.toml"

    def write_registry(self, text: str) -> None:
        """Write the facility registry of the stack."""
        ensure_private_directory(self.folder, TRAVERSABLE, LOCK)
        write_private(self.facilities_file, text)

    def up(self, *, with_airflow: bool, on_progress: Progress = ignore_progress) -> None:
        """Start the servers that do not run yet, and leave all running.

        Raises StackError if a server does not start. In that case, and on SIGINT, SIGTERM or
        SIGHUP, the servers that this call has started are stopped.
        """
        self._start(with_airflow=with_airflow, with_triggerer=True, on_progress=on_progress)
        self._stays_up.touch()

    def down(self, on_progress: Progress = ignore_progress) -> None:
        """Stop all servers, Airflow's tasks included. Data and secrets remain."""
        if not self.folder.exists():
            return
        ensure_private_directory(self.folder, TRAVERSABLE, LOCK)
        with self._locked(on_progress):
            self._stays_up.unlink(missing_ok=True)
            self._stop(on_progress)

    def delete(self, on_progress: Progress = ignore_progress) -> None:
        """Stop all servers and delete the directory with all its data."""
        self.down(on_progress)
        if not self.folder.exists():
            return
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:  # last, so that an interrupted deletion can be repeated
                path.unlink()
        shutil.rmtree(self.folder)

    @contextmanager
    def running(
        self,
        *,
        with_airflow: bool,
        with_triggerer: bool = True,
        on_progress: Progress = ignore_progress,
    ) -> Iterator[None]:
        """Run the stack during a block and stop it afterwards, also after an error.

        A stack that was started with `up`, or that another process still uses, keeps running.
        """
        ensure_private_directory(self.folder, TRAVERSABLE, LOCK)
        with open_lock(self.folder / "users") as users, exit_on_signals():
            fcntl.flock(users, fcntl.LOCK_SH)
            try:
                self._start(
                    with_airflow=with_airflow,
                    with_triggerer=with_triggerer,
                    on_progress=on_progress,
                )
                yield
            finally:
                with defer_signals():
                    self._leave(users.fileno(), on_progress)

    def get_status(self) -> list[ServerStatus]:
        """Return each server, whether it runs, and its address."""
        airflow = _get_or_empty(lambda: self.airflow.url)
        return [
            ServerStatus(
                "PostgreSQL",
                self.postgres.is_running(),
                _get_or_empty(lambda: f"127.0.0.1:{self.postgres.port}"),
            ),
            ServerStatus(
                "S3", self.seaweed.is_running(), _get_or_empty(lambda: self.seaweed.endpoint)
            ),
            *(
                ServerStatus(f"Airflow {name}", runs, airflow if name == "api-server" else "")
                for name, runs in self.airflow.get_status().items()
            ),
        ]

    def build_env(self, *, as_admin: bool = False) -> dict[str, str]:
        """Return the FER_… settings for using this stack, secrets included.

        The login of the database is that of the nightly job, or the administrator's, who may
        upgrade the schema, grant roles and erase. Raises StackError if the stack was never
        started.
        """
        return {
            "FER_DATABASE_URL": self.postgres.build_url(DATABASE, OWNER if as_admin else WRITER),
            "FER_S3_ENDPOINT": self.seaweed.endpoint,
            "FER_S3_BUCKET": BUCKET,
            "FER_S3_REGION": "us-east-1",
            "FER_S3_PATH_STYLE": "true",
            "FER_S3_ACCESS_KEY_ID": self.seaweed.access_key_id,
            "FER_S3_SECRET_ACCESS_KEY": self.seaweed.secret_access_key,
            # Created once: with another one, images that were erased could not be recognized.
            "FER_ERASURE_SECRET": load_or_create_secret(self.folder / "erasure_secret", 32),
            "FER_ERASURE_LOG": str(self.folder / "erasures.jsonl"),
            "FER_FACILITIES_FILE": str(self.facilities_file),
            "FER_REPORT_DIR": str(self.report_dir),
            "FER_STACK_DIR": str(self.folder),
            # Small enough that even a day of the demo has several shards.
            "FER_SHARD_IMAGES": "2000",
        }

    def format_exports(self, *, as_admin: bool = False) -> str:
        """Return the settings as `export` lines for a shell."""
        env = self.build_env(as_admin=as_admin)
        return "".join(f"export {n}={shlex.quote(value)}\n" for n, value in env.items())

    def build_settings(self, **others: Any) -> Settings:
        """Return the settings as an object; `others` are additional settings by name."""
        values = {
            name.removeprefix("FER_").lower(): value for name, value in self.build_env().items()
        }
        return Settings(**{**values, **others})

    def _start(self, *, with_airflow: bool, with_triggerer: bool, on_progress: Progress) -> None:
        ensure_private_directory(self.folder, TRAVERSABLE, LOCK)
        with self._locked(on_progress), exit_on_signals():
            was_running = {server: server.is_running() for server in self._list_servers()}
            if not any(was_running.values()):  # the marker is stale, as after a reboot
                self._stays_up.unlink(missing_ok=True)
            try:
                on_progress("starting PostgreSQL and the S3 server")
                self.postgres.start()
                self.seaweed.start()
                self._prepare()
                if with_airflow:
                    on_progress("starting Airflow")
                    self.airflow.start(
                        self._build_task_settings(), on_progress, with_triggerer=with_triggerer
                    )
            except BaseException:
                with defer_signals():
                    for server in self._list_servers():
                        if not was_running[server]:
                            server.stop()
                raise

    def _prepare(self) -> None:
        """Create the database, its tables and roles, the bucket, the registry and the settings."""
        from fer_batch.database import roles
        from fer_batch.deletion import conversion
        from fer_batch.storage.writer import ensure_bucket

        self.postgres.ensure_database(DATABASE)
        if not self.facilities_file.exists():
            self.write_registry(find_example_registry().read_text(encoding="utf-8"))
        ensure_private_directory(self.report_dir)
        write_private(self.folder / "env", self.format_exports())
        admin_url = self.postgres.build_url(DATABASE)
        conversion.upgrade(self.build_settings(database_url=admin_url))
        roles.repair(admin_url)
        roles.grant(admin_url, WRITER, "writer")
        roles.grant(admin_url, RETAINER, "retainer")
        settings = self.build_settings()
        ensure_bucket(settings, BUCKET, settings.retention_days)

    def _build_task_settings(self) -> dict[str, str]:
        """Return the settings of Airflow's tasks: the stack's, then those of this environment."""
        inherited = {k: v for k, v in os.environ.items() if k.startswith("FER_")}
        inherited.pop("FER_ENV_FILE", None)
        maintenance = {"FER_MAINTENANCE_DATABASE_URL": self.postgres.build_url(DATABASE, RETAINER)}
        return {"FER_THREADS": str(POOL_THREADS), **inherited, **self.build_env(), **maintenance}

    def _stop(self, on_progress: Progress) -> None:
        on_progress("stopping")
        with defer_signals():
            for server in self._list_servers():
                server.stop()

    def _list_servers(self) -> tuple[AirflowStack, SeaweedServer, PostgresServer]:
        return self.airflow, self.seaweed, self.postgres

    def _leave(self, users: int, on_progress: Progress) -> None:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        with self._locked(on_progress):
            if not self._stays_up.exists():
                self._stop(on_progress)

    @contextmanager
    def _locked(self, on_progress: Progress) -> Iterator[None]:
        """Hold the lock: one process at a time starts or stops servers."""
        end = time.monotonic() + LOCK_S
        is_reported = False
        with open_lock(self.folder / LOCK) as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not is_reported:
                        on_progress(
                            "waiting for another fer-batch process that starts or stops the stack"
                        )
                        is_reported = True
                    if time.monotonic() > end:
                        raise StackError(
                            f"{self.folder} has been locked for {LOCK_S:.0f} s by another process",
                            "Wait for the other fer-batch process, or end it",
                        ) from None
                    time.sleep(0.1)
            yield


def _get_or_empty(get_address: Callable[[], str]) -> str:
    try:
        return get_address()
    except StackError:
        return ""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise SystemExit in the block on SIGTERM and SIGHUP, so that it can stop the servers.

    By default these signals end Python at once, and the servers would keep running.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = [(n, signal.signal(n, end)) for n in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
