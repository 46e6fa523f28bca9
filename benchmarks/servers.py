"""PostgreSQL and the S3 server of the local stack for a benchmark, and their processor time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks.contestants import ADMIN_URL, TABLES
from benchmarks.drawn import DAY
from fer_batch.database import connections
from fer_batch.local.demo.day import DemoFacility, format_registry, list_objects
from fer_batch.local.stack import Stack
from fer_batch.local.stack.files import TRAVERSABLE
from fer_batch.settings import Settings
from fer_batch.storage.writer import upload_many


@dataclass(frozen=True, slots=True)
class CoreSeconds:
    """Processor time (user and system) summed over all cores."""

    s3: float
    postgres: float

    def __sub__(self, other: CoreSeconds) -> CoreSeconds:
        return CoreSeconds(self.s3 - other.s3, self.postgres - other.postgres)


class Servers:
    """A running stack that belongs to the benchmark, with a day of images in its bucket."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._admin_url = stack.build_env(as_admin=True)["FER_DATABASE_URL"]
        self._engine = connections.create_engine(self._admin_url)
        self._roots = {name: find_root_process(name, stack.folder) for name in ("weed", "postgres")}

    def build_environment(self) -> dict[str, str]:
        """Environment variables for a process that uses the servers; shard size is the default."""
        env = {name: v for name, v in self._stack.build_env().items() if name != "FER_SHARD_IMAGES"}
        return env | {"FER_LOG_LEVEL": "warning", ADMIN_URL: self._admin_url}

    def build_settings(self) -> Settings:
        env = self.build_environment()
        ours = {k.removeprefix("FER_").lower(): v for k, v in env.items() if k.startswith("FER_")}
        return Settings(_env_file=None, **ours)  # type: ignore[arg-type]

    def measure_core_s(self) -> CoreSeconds:
        """The processor time since the servers were started."""
        return CoreSeconds(
            measure_process_core_s(self._roots["weed"]),
            measure_process_core_s(self._roots["postgres"]),
        )

    def empty_tables(self) -> None:
        """Empty all tables, so that the next round has to list and score everything."""
        with connections.transaction(self._engine) as connection:
            for table in TABLES:
                connection.execute(sa.text(f"drop table if exists {table}"))
            self._truncate(connection, "image", "image_result", "face_result", "batch", "run")

    def empty_results(self) -> None:
        """Empty only the tables of results; the listing is kept."""
        with connections.transaction(self._engine) as connection:
            self._truncate(connection, "image_result", "face_result")

    @staticmethod
    def _truncate(connection: sa.Connection, *tables: str) -> None:
        names = ", ".join(f"fer.{table}" for table in tables)
        connection.execute(sa.text(f"truncate {names} cascade"))


@contextmanager
def running(days: Sequence[DemoFacility]) -> Iterator[Servers]:
    """New servers with the images of these days within the block; they are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="fer-batch-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(TRAVERSABLE)  # PostgreSQL runs as another user where root starts it
        stack = Stack(folder / "stack")
        stack.write_registry(format_registry(days))
        with stack.running(with_airflow=False):
            settings = stack.build_settings()
            for day in days:
                upload_many(settings, settings.s3_bucket, list_objects(day, DAY))
            yield Servers(stack)


def find_root_process(name: str, folder: Path) -> psutil.Process:
    """The oldest process with this name of the stack in this folder."""
    processes = [
        process
        for process in psutil.process_iter(["name", "cmdline", "create_time"])
        if process.info["name"] == name
        and any(str(folder) in part for part in process.info["cmdline"] or ())
    ]
    return min(processes, key=lambda process: float(process.info["create_time"]))


def measure_process_core_s(root: psutil.Process) -> float:
    """The processor time of a process, its living children, and its children that ended."""
    own = root.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in root.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:  # ended: its parent's times include it
            continue
        total += times.user + times.system
    return float(total)
