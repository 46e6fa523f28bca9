"""The local stack as one thing: PostgreSQL, the S3 server and Airflow, up and down together.

What it starts is ready to use: database migrated, bucket made, settings written to a file. Each
server is another module's business; so is what the demo does with them.
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

from fer_batch.settings import Settings
from fer_batch.stack.airflow import POOL_THREADS, AirflowStack, Progress, quiet
from fer_batch.stack.files import (
    PASSABLE,
    StackError,
    default_stack_dir,
    open_lock,
    own_folder,
    write_private,
)
from fer_batch.stack.postgres import PostgresServer
from fer_batch.stack.processes import deferred_signals
from fer_batch.stack.seaweed import SeaweedServer

DATABASE = "fer"
BUCKET = "fer-images"
LOCK = "fer-batch.lock"
"""The file by which one process at a time works on a stack, and a stack's folder is known."""
LOCK_S = 600.0
_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server of the stack; `where` is its address, empty if it was never started."""

    name: str
    is_running: bool
    where: str


class Stack:
    """The local stack in one folder; by default the one that FER_STACK_DIR or /var/tmp gives.

    The facility registry is `facilities.toml` in that folder if there is one, as after the demo,
    else the one of the settings. Reports go to `reports` in that folder.
    """

    def __init__(
        self,
        stack_dir: Path | None = None,
        *,
        facilities_file: Path | None = None,
        report_dir: Path | None = None,
        dags_folder: Path = _CHECKOUT / "dags",
    ) -> None:
        self.folder = (stack_dir or default_stack_dir()).absolute()
        self.postgres = PostgresServer(self.folder / "postgres")
        self.seaweed = SeaweedServer(self.folder / "s3")
        self.airflow = AirflowStack(
            self.folder / "airflow", self.postgres, self.seaweed, dags_folder
        )
        self._facilities_file = facilities_file
        self.report_dir = (report_dir or self.folder / "reports").absolute()
        self._stays_up = self.folder / "stays-up"

    @property
    def facilities_file(self) -> Path:
        """The facility registry that the stack's tasks read."""
        if self._facilities_file is not None:
            return self._facilities_file.absolute()
        own = self.folder / "facilities.toml"
        return own if own.exists() else _CHECKOUT / "config" / "facilities.toml"

    def write_registry(self, text: str) -> None:
        """Give the stack a facility registry of its own, in place of the project's."""
        own_folder(self.folder, PASSABLE, LOCK)
        write_private(self.folder / "facilities.toml", text)

    def up(self, *, with_airflow: bool, on_progress: Progress = quiet) -> None:
        """Start what does not run yet, and leave it running.

        Raises StackError if a server does not start; what this call had started is ended then,
        and also on Ctrl-C or a request to end.
        """
        self._start(with_airflow=with_airflow, on_progress=on_progress)
        self._stays_up.touch()

    def down(self, on_progress: Progress = quiet) -> None:
        """End everything that runs, Airflow's tasks included. Data and secrets stay."""
        if not self.folder.exists():
            return
        own_folder(self.folder, PASSABLE, LOCK)
        with self._locked(on_progress):
            self._stays_up.unlink(missing_ok=True)
            self._stop(on_progress)

    def delete(self, on_progress: Progress = quiet) -> None:
        """End everything that runs and remove the folder with all its data."""
        self.down(on_progress)
        if not self.folder.exists():
            return
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:  # by which a second try knows the folder, if this one is ended
                path.unlink()
        shutil.rmtree(self.folder)

    @contextmanager
    def running(self, *, with_airflow: bool, on_progress: Progress = quiet) -> Iterator[None]:
        """The stack for the time of a block; it is ended afterwards, whatever happens.

        A stack that is up anyhow stays up, and so does one that another process still uses.
        """
        own_folder(self.folder, PASSABLE, LOCK)
        with open_lock(self.folder / "users") as users, ending_on_signals():
            fcntl.flock(users, fcntl.LOCK_SH)
            try:
                self._start(with_airflow=with_airflow, on_progress=on_progress)
                yield
            finally:
                with deferred_signals():
                    self._leave(users.fileno(), on_progress)

    def status(self) -> list[ServerStatus]:
        """Every server and whether it runs."""
        airflow = _known(lambda: self.airflow.url)
        return [
            ServerStatus(
                "PostgreSQL",
                self.postgres.is_running(),
                _known(lambda: f"127.0.0.1:{self.postgres.port}"),
            ),
            ServerStatus("S3", self.seaweed.is_running(), _known(lambda: self.seaweed.endpoint)),
            *(
                ServerStatus(f"Airflow {name}", runs, airflow if name == "api-server" else "")
                for name, runs in self.airflow.status().items()
            ),
        ]

    def env(self) -> dict[str, str]:
        """The FER_… settings by which the command uses this stack, secrets included.

        Raises StackError if the stack was never up.
        """
        return {
            "FER_DATABASE_URL": self.postgres.url(DATABASE),
            "FER_S3_ENDPOINT": self.seaweed.endpoint,
            "FER_S3_BUCKET": BUCKET,
            "FER_S3_REGION": "us-east-1",
            "FER_S3_PATH_STYLE": "true",
            "FER_S3_ACCESS_KEY_ID": self.seaweed.access_key_id,
            "FER_S3_SECRET_ACCESS_KEY": self.seaweed.secret_access_key,
            "FER_FACILITIES_FILE": str(self.facilities_file),
            "FER_REPORT_DIR": str(self.report_dir),
            "FER_STACK_DIR": str(self.folder),
            # Small enough that even a day of the demo is cut into several shards.
            "FER_SHARD_IMAGES": "1000",
        }

    def exports(self) -> str:
        """The same as lines for a shell."""
        return "".join(f"export {n}={shlex.quote(value)}\n" for n, value in self.env().items())

    def settings(self, **others: Any) -> Settings:
        """The same as a Settings object; `others` are further settings by their name."""
        ours = {name.removeprefix("FER_").lower(): value for name, value in self.env().items()}
        return Settings(**{**ours, **others})

    def _start(self, *, with_airflow: bool, on_progress: Progress) -> None:
        own_folder(self.folder, PASSABLE, LOCK)
        with self._locked(on_progress), ending_on_signals():
            ran = {server: server.is_running() for server in self._servers()}
            if not any(ran.values()):  # whatever stayed up did not survive a restart of the machine
                self._stays_up.unlink(missing_ok=True)
            try:
                on_progress("starting PostgreSQL and the S3 server")
                self.postgres.start()
                self.seaweed.start()
                self._prepare()
                if with_airflow:
                    on_progress("starting Airflow")
                    self.airflow.start(self._task_settings(), on_progress)
            except BaseException:
                with deferred_signals():
                    for server in self._servers():
                        if not ran[server]:
                            server.stop()
                raise

    def _prepare(self) -> None:
        """Make the database, its tables, the bucket and the file of settings."""
        from fer_batch import database
        from fer_batch.uploading import ensure_bucket

        self.postgres.ensure_database(DATABASE)
        own_folder(self.report_dir)
        write_private(self.folder / "env", self.exports())
        database.upgrade(self.settings())
        ensure_bucket(self.settings(), BUCKET)

    def _task_settings(self) -> dict[str, str]:
        """Settings for Airflow's tasks: those of our environment, and the stack's before them."""
        given = {k: v for k, v in os.environ.items() if k.startswith("FER_")}
        given.pop("FER_ENV_FILE", None)
        return {"FER_THREADS": str(POOL_THREADS), **given, **self.env()}

    def _stop(self, on_progress: Progress) -> None:
        on_progress("stopping")
        with deferred_signals():
            for server in self._servers():
                server.stop()

    def _servers(self) -> tuple[AirflowStack, SeaweedServer, PostgresServer]:
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
        """One process at a time starts or stops servers."""
        end = time.monotonic() + LOCK_S
        is_told = False
        with open_lock(self.folder / LOCK) as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not is_told:
                        on_progress("waiting for another fer-batch that starts or stops the stack")
                        is_told = True
                    if time.monotonic() > end:
                        raise StackError(
                            f"{self.folder} stayed locked for {LOCK_S:.0f} s"
                        ) from None
                    time.sleep(0.1)
            yield


def _known(where: Callable[[], str]) -> str:
    try:
        return where()
    except StackError:
        return ""


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let a request to end (SIGTERM, SIGHUP) unwind the block as Ctrl-C does, instead of
    ending Python at once with the servers left behind."""
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
