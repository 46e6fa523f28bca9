"""Airflow of the local stack: its components, started directly, on the stack's own PostgreSQL.

Configuration and secrets stand in `airflow.cfg` (mode 600) in Airflow's home; the components'
environment carries the settings of fer-batch without its secrets, which come as the two
Connections `fer_s3` and `fer_postgres`. Asking Airflow to do something is `airflow_api`'s part.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from fer_batch.stack.airflow_api import AirflowApi, AirflowUnavailableError
from fer_batch.stack.files import StackError, kept_secret, own_folder, write_private
from fer_batch.stack.postgres import PostgresServer
from fer_batch.stack.processes import Server, deferred_signals, free_port
from fer_batch.stack.seaweed import SeaweedServer

DATABASE = "airflow"
USER = "admin"
POOL = "fer_scoring"
POOL_SLOTS = min(2, os.cpu_count() or 1)
POOL_THREADS = max(1, min(4, (os.cpu_count() or 1) // POOL_SLOTS))
"""Threads of a scoring process, unless FER_THREADS says otherwise: slots × threads are no more than
the cores."""
PARALLELISM = 4
"""Tasks at once: two that score, and small ones beside them; a start costs a second of a core."""


@dataclass(frozen=True, slots=True)
class Component:
    """A process of Airflow: its subcommand with options, and what its environment has besides."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


COMPONENTS = {
    "api-server": Component(("api-server", "--workers", "1")),
    # Logs are read from the folder that all components share; the ports that would serve them
    # listen on every address.
    "scheduler": Component(("scheduler", "--skip-serve-logs")),
    "triggerer": Component(("triggerer", "--skip-serve-logs")),
    "dag-processor": Component(("dag-processor",)),
}
LOCAL_SETTINGS = """\
import os
import sys

from fer_batch.worker import die_with_parent

__all__ = []

if "scheduler" in sys.argv:
    os.register_at_fork(after_in_child=lambda: die_with_parent(os.getppid()))
"""
"""Airflow's hook for code of one's own, read as a component starts: the executor's workers end with
a scheduler that was killed. They ignore SIGTERM, and after their first task only root can see whose
they are, so nothing else would find them."""
START_S = 180.0
SECRET_WORDS = ("DATABASE_URL", "CREDENTIALS", "ACCESS_KEY", "SESSION_TOKEN")
Progress = Callable[[str], None]


def quiet(_: str) -> None:
    """Report no progress."""


class AirflowStack:
    """The Airflow whose home, secrets and logs lie in one folder.

    `config` holds options of airflow.cfg by section that come in addition or instead.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        seaweed: SeaweedServer,
        dags_folder: Path,
        components: Mapping[str, Component] = COMPONENTS,
        config: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.dags_folder = dags_folder.absolute()
        self._postgres = postgres
        self._seaweed = seaweed
        self._components = components
        self._config = config or {}
        self._servers = {
            name: Server(f"Airflow {name}", f"{self.folder}:{name}", self.folder / f"{name}.log")
            for name in components
        }
        self._port_file = self.folder / "port"

    @property
    def url(self) -> str:
        """Where the UI is. Raises StackError if Airflow was never started here."""
        if not self._port_file.exists():
            raise StackError(f"no Airflow was ever started in {self.folder}")
        return f"http://127.0.0.1:{self._port_file.read_text()}"

    @property
    def password(self) -> str:
        """The password of the user `admin`."""
        return kept_secret(self.folder / "password", 12)

    def api(self) -> AirflowApi:
        return AirflowApi(self.url, USER, self.password)

    def status(self) -> dict[str, bool]:
        """Whether each component's process runs."""
        return {name: server.is_running() for name, server in self._servers.items()}

    def is_running(self) -> bool:
        return any(self.status().values())

    def start(self, settings: Mapping[str, str], on_progress: Progress = quiet) -> None:
        """Start what does not run yet and wait until all components are healthy.

        `settings` are the FER_… settings for the tasks; secrets among them are left out. Raises
        StackError, with the end of the log, if a component does not start. PostgreSQL and the S3
        server must run.
        """
        if importlib.util.find_spec("airflow") is None:
            raise StackError("Airflow is not installed here", "Install fer-batch[airflow,local]")
        began = datetime.now(UTC)
        own_folder(self.folder)
        env = self._environment(settings)
        if all(self.status().values()) and self._is_same(env):
            self._wait_healthy(on_progress, datetime.fromtimestamp(0, UTC))
            return
        self.stop()
        with deferred_signals():
            self._configure(env)
        try:
            self._migrate(env, on_progress)
            for name, server in self._servers.items():
                component = self._components[name]
                command = [sys.executable, "-m", "airflow", *component.command]
                if name == "api-server":
                    command += ["--host", "127.0.0.1", "--port", self._port_file.read_text()]
                server.start(command, {**env, **component.env}, self.folder)
            self._wait_healthy(on_progress, began)
            self.api().set_pool(POOL, POOL_SLOTS, "Scoring processes at once")
            Thread(target=self._warm_up, daemon=True).start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all components, running tasks included. Nothing to do is no error."""
        with deferred_signals():
            for server in self._servers.values():
                server.ask_to_end()
            for server in self._servers.values():
                server.stop(wait_s=10)

    def _warm_up(self) -> None:
        """Ask for the API of the tasks: building it takes the server seconds of a core at its
        first request, which would otherwise be that of the first task."""
        with suppress(AirflowUnavailableError):
            self.api().tasks_health()

    def _migrate(self, env: Mapping[str, str], on_progress: Progress) -> None:
        done = self.folder / "migrated"
        version = importlib.metadata.version("apache-airflow-core")
        made = self._postgres.ensure_database(DATABASE, owner=DATABASE)
        if not made and done.exists() and done.read_text() == version:
            return
        on_progress("making Airflow's tables")
        server = Server("airflow db migrate", f"{self.folder}:migrate", self.folder / "migrate.log")
        try:
            server.start([sys.executable, "-m", "airflow", "db", "migrate"], env, self.folder)
            if (code := server.wait(START_S)) != 0:
                raise server.error(f"ended with exit code {code}")
        finally:
            server.stop(wait_s=0)
        write_private(done, version)

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """What the components and so the tasks see. Ours replaces every FER_… and AIRFLOW…."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FER_", "AIRFLOW", "AWS_", "PYTHON"))
        }
        open_settings = {
            name: value
            for name, value in settings.items()
            if name.startswith("FER_") and not any(word in name for word in SECRET_WORDS)
        }
        database = urlsplit(settings["FER_DATABASE_URL"])
        s3 = {
            "conn_type": "aws",
            "login": self._seaweed.access_key_id,
            "password": self._seaweed.secret_access_key,
            "extra": {"endpoint_url": self._seaweed.endpoint, "region_name": "us-east-1"},
        }
        postgres = {
            "conn_type": "postgres",
            "host": database.hostname,
            "port": database.port,
            "login": database.username,
            "password": database.password,
            "schema": database.path.removeprefix("/"),
        }
        return {
            **without_proxy(kept),
            **open_settings,
            "FER_PYTHON": sys.executable,
            "SPT_NOENV": "1",  # else Airflow's process titles would overwrite the servers' marks
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW_CONN_FER_S3": json.dumps(s3),
            "AIRFLOW_CONN_FER_POSTGRES": json.dumps(postgres),
        }

    def _configure(self, env: Mapping[str, str]) -> None:
        """Write airflow.cfg and the password, and note what they were made from."""
        kept = int(self._port_file.read_text()) if self._port_file.exists() else None
        port = free_port(kept)
        write_private(self._port_file, str(port))
        write_private(self.folder / "passwords.json", json.dumps({USER: self.password}))
        self._postgres.ensure_role(DATABASE)
        config = ConfigParser(interpolation=None)
        config.read_dict(
            {
                section: {name: str(value).replace("%", "%%") for name, value in options.items()}
                for section, options in self._sections(port).items()
            }
        )
        text = io.StringIO()
        config.write(text)
        write_private(self.folder / "airflow.cfg", text.getvalue())
        hooks = own_folder(self.folder / "config")
        write_private(hooks / "airflow_local_settings.py", LOCAL_SETTINGS)
        write_private(self.folder / "configured", self._digest(env))

    def _sections(self, port: int) -> dict[str, dict[str, object]]:
        """What airflow.cfg says, by section."""
        database = self._postgres.url(DATABASE, role=DATABASE)
        sections: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": self.dags_folder,
                "executor": "LocalExecutor",
                "parallelism": PARALLELISM,
                "load_examples": False,
                "fernet_key": self._fernet_key(),
                "execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
                "simple_auth_manager_users": f"{USER}:admin",
                "simple_auth_manager_passwords_file": self.folder / "passwords.json",
                "dags_are_paused_at_creation": True,
            },
            "database": {
                "sql_alchemy_conn": database.replace("postgresql:", "postgresql+psycopg2:"),
                "load_default_connections": False,
            },
            "api": {
                "base_url": f"http://127.0.0.1:{port}",
                "host": "127.0.0.1",
                "port": port,
                "workers": 1,
                "secret_key": kept_secret(self.folder / "api_secret_key"),
            },
            "api_auth": {"jwt_secret": kept_secret(self.folder / "jwt_secret", 48)},
            "logging": {"base_log_folder": self.folder / "logs"},
            "dag_processor": {
                "refresh_interval": 30,
                "min_file_process_interval": 30,
                "parsing_processes": 1,
                "dag_processor_log_target": "stdout",
            },
            # A task whose processes died with the stack is noticed and tried again this soon.
            "scheduler": {"task_instance_heartbeat_timeout": 60},
            "usage_data_collection": {"enabled": False},
        }
        for section, options in self._config.items():
            sections[section] = {**sections.get(section, {}), **options}
        return sections

    def _fernet_key(self) -> str:
        """A key in Fernet's form, which insists on its padding."""
        return base64.urlsafe_b64encode(
            hashlib.sha256(kept_secret(self.folder / "fernet_secret", 32).encode()).digest()
        ).decode()

    def _is_same(self, env: Mapping[str, str]) -> bool:
        noted = self.folder / "configured"
        return noted.exists() and noted.read_text() == self._digest(env)

    def _digest(self, env: Mapping[str, str]) -> str:
        ours = {k: v for k, v in env.items() if k.startswith(("FER_", "AIRFLOW"))}
        given = [ours, str(self.dags_folder), self._config]
        text = json.dumps(given, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _wait_healthy(self, on_progress: Progress, since: datetime) -> None:
        """Wait until every component has sent a heartbeat since then."""
        api = self.api()
        end = time.monotonic() + START_S
        waiting_for: set[str] = set()
        while True:
            for server in self._servers.values():
                server.check_alive()
            missing = _not_healthy(api, since)
            if missing != waiting_for:
                on_progress(f"waiting for {', '.join(sorted(missing))}" if missing else "healthy")
                waiting_for = missing
            if not missing:
                return
            if time.monotonic() > end:
                raise self._servers[min(missing)].error(f"was not healthy after {START_S:.0f} s")
            time.sleep(0.2)


def _not_healthy(api: AirflowApi, since: datetime) -> set[str]:
    """The components without a heartbeat since then."""
    try:
        health = api.health()
    except AirflowUnavailableError:
        return {"api-server"}
    missing = set()
    for name in ("scheduler", "triggerer", "dag_processor"):
        beat = (health.get(name) or {}).get(f"latest_{name}_heartbeat")
        if beat is None or datetime.fromisoformat(beat) < since:
            missing.add(name.replace("_", "-"))
    return missing


def without_proxy(env: Mapping[str, str]) -> dict[str, str]:
    """The environment with this machine taken out of what goes through a proxy."""
    local = "127.0.0.1,localhost"
    names = {
        name: f"{env[name]},{local}" if env.get(name) else local
        for name in ("NO_PROXY", "no_proxy")
    }
    return {**env, **names}
