"""Airflow of the local stack: its components, started directly, on the stack's own PostgreSQL.

Configuration and secrets are in `airflow.cfg` (mode 600) in Airflow's home. The environment of the
components has the settings of fer-batch without its secrets; those are in the Connections `fer_s3`,
`fer_erasure`, `fer_postgres` and `fer_postgres_maintenance`. The REST API is left to `airflow_api`.
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
from collections.abc import Callable, Collection, Mapping
from configparser import ConfigParser
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from fer_batch.airflow_client import AirflowUnavailableError
from fer_batch.concurrency import count_cpus
from fer_batch.local.stack.airflow_api import AirflowApi
from fer_batch.local.stack.files import (
    StackError,
    ensure_private_directory,
    load_or_create_secret,
    write_private,
)
from fer_batch.local.stack.postgres import PostgresServer
from fer_batch.local.stack.processes import Server, defer_signals, find_free_port
from fer_batch.local.stack.seaweed import SeaweedServer

DATABASE = "airflow"
USER = "admin"
POOL = "fer_scoring"
POOL_SLOTS = min(2, count_cpus())
POOL_THREADS = max(1, min(4, count_cpus() // POOL_SLOTS))
"""Threads of a scoring process without FER_THREADS: slots × threads never exceed the cores."""
PARALLELISM = 4
"""Concurrent tasks: two that score, and small ones; each start takes a second of one core."""


@dataclass(frozen=True, slots=True)
class Component:
    """A process of Airflow: its subcommand with options, and additional environment variables.

    A higher `niceness` (0 to 19) leaves the cores to the others.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    niceness: int = 0


TRIGGERER = "triggerer"
COMPONENTS = {
    "api-server": Component(("api-server",)),
    # All components share the log directory. The ports that would serve logs listen on every
    # address.
    "scheduler": Component(("scheduler", "--skip-serve-logs")),
    # It calls the function of a missed deadline. No task needs it, so nothing waits for it.
    TRIGGERER: Component(("triggerer", "--skip-serve-logs"), niceness=10),
    "dag-processor": Component(("dag-processor",)),
}
LOCAL_SETTINGS = """\
import os
import sys

from fer_batch.pipeline.processes import die_with_parent

__all__ = []

if "scheduler" in sys.argv:
    os.register_at_fork(after_in_child=lambda: die_with_parent(os.getppid()))
"""
"""Airflow imports this hook when a component starts. With it, the executor's workers end with a
scheduler that was killed. They ignore SIGTERM, and after their first task only root can see their
environment, so nothing else would find them."""
START_S = 180.0
SECRET_WORDS = ("DATABASE_URL", "CREDENTIALS", "ACCESS_KEY", "SESSION_TOKEN", "ERASURE_SECRET")
Progress = Callable[[str], None]


def ignore_progress(_: str) -> None:
    """Ignore a progress message."""


class AirflowStack:
    """An Airflow whose home, secrets and logs are in one directory.

    `config` has options of airflow.cfg by section, which add to the defaults or replace them.
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
        """The URL of the UI. Raises StackError if Airflow was never started in this directory."""
        if not self._port_file.exists():
            raise StackError(f"Airflow was never started in {self.folder}")
        return f"http://127.0.0.1:{self._port_file.read_text()}"

    @property
    def password(self) -> str:
        """The password of the user `admin`."""
        return load_or_create_secret(self.folder / "password", 12)

    def create_client(self) -> AirflowApi:
        """Return a client for the REST API."""
        return AirflowApi(self.url, USER, self.password)

    def get_status(self) -> dict[str, bool]:
        """Return whether the process of each component runs."""
        return {name: server.is_running() for name, server in self._servers.items()}

    def is_running(self) -> bool:
        return any(self.get_status().values())

    def start(
        self,
        settings: Mapping[str, str],
        on_progress: Progress = ignore_progress,
        *,
        with_triggerer: bool = True,
    ) -> None:
        """Start all components, unless they run already, and wait until all that tasks need are
        healthy.

        Without the triggerer nobody is told of a missed deadline, and less CPU time is used.
        `settings` are the FER_… settings of the tasks, from which secrets are removed. PostgreSQL
        and the S3 server must be running. Raises StackError, with the end of the log, if a
        component does not start.
        """
        if importlib.util.find_spec("airflow") is None:
            hint = "Install fer-batch with the extras `airflow` and `local`; see docs/deploy.md"
            raise StackError("Airflow is not installed", hint)
        began = datetime.now(UTC)
        ensure_private_directory(self.folder)
        env = self._build_environment(settings)
        needed = {name for name in self._servers if with_triggerer or name != TRIGGERER}
        running = {name for name, is_running in self.get_status().items() if is_running}
        if needed <= running and self._is_configured_by(env):
            self._wait_healthy(needed, on_progress, datetime.fromtimestamp(0, UTC))
            return
        self.stop()
        with defer_signals():
            self._configure(env)
        try:
            self._migrate(env, on_progress)
            for name in sorted(needed):  # the api-server, which takes longest, is first
                server, component = self._servers[name], self._components[name]
                command = ["nice", "-n", str(component.niceness)] if component.niceness else []
                command += [sys.executable, "-m", "airflow", *component.command]
                server.start(command, {**env, **component.env}, self.folder)
            self._wait_healthy(needed, on_progress, began)
            self.create_client().set_pool(POOL, POOL_SLOTS, "Concurrent scoring processes")
            Thread(target=self._warm_up, daemon=True).start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all components, running tasks included; does nothing if none runs."""
        with defer_signals():
            for server in self._servers.values():
                server.request_stop()
            for server in self._servers.values():
                server.stop(wait_s=10)

    def _warm_up(self) -> None:
        """Send a first request to the API of the tasks.

        The server builds that API on the first request, which takes seconds of a core. Otherwise
        the first task would wait for it.
        """
        with suppress(AirflowUnavailableError):
            self.create_client().get_tasks_health()

    def _migrate(self, env: Mapping[str, str], on_progress: Progress) -> None:
        marker = self.folder / "migrated"
        version = importlib.metadata.version("apache-airflow-core")
        is_new = self._postgres.ensure_database(DATABASE, owner=DATABASE)
        if not is_new and marker.exists() and marker.read_text() == version:
            return
        on_progress("creating Airflow's tables")
        server = Server("airflow db migrate", f"{self.folder}:migrate", self.folder / "migrate.log")
        try:
            server.start([sys.executable, "-m", "airflow", "db", "migrate"], env, self.folder)
            if (code := server.wait(START_S)) != 0:
                raise server.make_error(f"ended with exit code {code}")
        finally:
            server.stop(wait_s=0)
        write_private(marker, version)

    def _build_environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of components and tasks, with no inherited FER_… or AIRFLOW…."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FER_", "AIRFLOW", "AWS_", "PYTHON"))
        }
        public_settings = {
            name: value
            for name, value in settings.items()
            if name.startswith("FER_") and not any(word in name for word in SECRET_WORDS)
        }
        s3 = {
            "conn_type": "aws",
            "login": self._seaweed.access_key_id,
            "password": self._seaweed.secret_access_key,
            "extra": {"endpoint_url": self._seaweed.endpoint, "region_name": "us-east-1"},
        }
        secret = settings.get("FER_ERASURE_SECRET")
        erasure = {"conn_type": "generic", "password": secret}
        logins = {
            "AIRFLOW_CONN_FER_POSTGRES": settings["FER_DATABASE_URL"],
            "AIRFLOW_CONN_FER_POSTGRES_MAINTENANCE": settings.get("FER_MAINTENANCE_DATABASE_URL"),
        }
        return {
            **remove_proxy(inherited),
            **public_settings,
            "FER_PYTHON": sys.executable,
            "SPT_NOENV": "1",  # else Airflow's process titles overwrite the marks
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW_CONN_FER_S3": json.dumps(s3),
            **({"AIRFLOW_CONN_FER_ERASURE": json.dumps(erasure)} if secret else {}),
            **{name: _format_connection(url) for name, url in logins.items() if url},
        }

    def _configure(self, env: Mapping[str, str]) -> None:
        """Write airflow.cfg and the password, and store a digest of their inputs."""
        previous = int(self._port_file.read_text()) if self._port_file.exists() else None
        port = find_free_port(previous)
        write_private(self._port_file, str(port))
        write_private(self.folder / "passwords.json", json.dumps({USER: self.password}))
        self._postgres.ensure_role(DATABASE)
        config = ConfigParser(interpolation=None)
        config.read_dict(
            {
                section: {name: str(value).replace("%", "%%") for name, value in options.items()}
                for section, options in self._build_sections(port).items()
            }
        )
        text = io.StringIO()
        config.write(text)
        write_private(self.folder / "airflow.cfg", text.getvalue())
        hooks = ensure_private_directory(self.folder / "config")
        write_private(hooks / "airflow_local_settings.py", LOCAL_SETTINGS)
        write_private(self.folder / "configured", self._compute_digest(env))

    def _build_sections(self, port: int) -> dict[str, dict[str, object]]:
        """Return the options of airflow.cfg by section."""
        database = self._postgres.build_url(DATABASE, role=DATABASE)
        sections: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": self.dags_folder,
                "executor": "LocalExecutor",
                "parallelism": PARALLELISM,
                "load_examples": False,
                "fernet_key": self._derive_fernet_key(),
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
                "secret_key": load_or_create_secret(self.folder / "api_secret_key"),
            },
            "api_auth": {"jwt_secret": load_or_create_secret(self.folder / "jwt_secret", 48)},
            "logging": {"base_log_folder": self.folder / "logs"},
            "dag_processor": {
                "refresh_interval": 30,
                "min_file_process_interval": 30,
                "parsing_processes": 1,
                "dag_processor_log_target": "stdout",
            },
            "scheduler": {
                # A task whose processes died with the stack is detected after this, and retried.
                "task_instance_heartbeat_timeout": 60,
                # How soon the next task follows one that has ended. The default is 1 s.
                "scheduler_idle_sleep_time": 0.5,
            },
            "usage_data_collection": {"enabled": False},
        }
        for section, options in self._config.items():
            sections[section] = {**sections.get(section, {}), **options}
        return sections

    def _derive_fernet_key(self) -> str:
        """Return a key in Fernet's format: 32 bytes, URL-safe base64 with padding."""
        return base64.urlsafe_b64encode(
            hashlib.sha256(
                load_or_create_secret(self.folder / "fernet_secret", 32).encode()
            ).digest()
        ).decode()

    def _is_configured_by(self, env: Mapping[str, str]) -> bool:
        digest_file = self.folder / "configured"
        return digest_file.exists() and digest_file.read_text() == self._compute_digest(env)

    def _compute_digest(self, env: Mapping[str, str]) -> str:
        variables = {k: v for k, v in env.items() if k.startswith(("FER_", "AIRFLOW"))}
        inputs = [variables, str(self.dags_folder), self._config]
        text = json.dumps(inputs, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _wait_healthy(
        self, needed: Collection[str], on_progress: Progress, since: datetime
    ) -> None:
        """Wait until the components that tasks need have sent a heartbeat after `since`."""
        api = self.create_client()
        end = time.monotonic() + START_S
        waiting_for: set[str] = set()
        while True:
            for name in needed:
                self._servers[name].check_alive()
            missing = _find_unhealthy(api, since)
            if missing != waiting_for:
                on_progress(f"waiting for {', '.join(sorted(missing))}" if missing else "healthy")
                waiting_for = missing
            if not missing:
                return
            if time.monotonic() > end:
                raise self._servers[min(missing)].make_error(
                    f"was not healthy after {START_S:.0f} s"
                )
            time.sleep(0.2)


def _format_connection(database_url: str) -> str:
    """Return the URL of a database as a Connection in JSON."""
    parts = urlsplit(database_url)
    return json.dumps(
        {
            "conn_type": "postgres",
            "host": parts.hostname,
            "port": parts.port,
            "login": parts.username,
            "password": parts.password,
            "schema": parts.path.removeprefix("/"),
        }
    )


def _find_unhealthy(api: AirflowApi, since: datetime) -> set[str]:
    """Return the components that tasks need and that sent no heartbeat after `since`."""
    try:
        health = api.get_health()
    except AirflowUnavailableError:
        return {"api-server"}
    missing = set()
    for name in ("scheduler", "dag_processor"):
        beat = (health.get(name) or {}).get(f"latest_{name}_heartbeat")
        if beat is None or datetime.fromisoformat(beat) < since:
            missing.add(name.replace("_", "-"))
    return missing


def remove_proxy(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with this machine excluded from its proxies."""
    local = "127.0.0.1,localhost"
    names = {
        name: f"{env[name]},{local}" if env.get(name) else local
        for name in ("NO_PROXY", "no_proxy")
    }
    return {**env, **names}
