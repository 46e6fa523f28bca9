"""The local stack's PostgreSQL and S3 server for a benchmark, and the processor time they take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks.contestants import TABLES
from benchmarks.drawn import DAY
from fer_batch import database
from fer_batch.demo.day import DemoFacility, keyed, registry_text
from fer_batch.settings import Settings
from fer_batch.stack import Stack
from fer_batch.stack.files import PASSABLE
from fer_batch.uploading import upload_many


@dataclass(frozen=True, slots=True)
class CoreSeconds:
    """Processor time, user and system, of all cores together."""

    s3: float
    postgres: float

    def __sub__(self, other: CoreSeconds) -> CoreSeconds:
        return CoreSeconds(self.s3 - other.s3, self.postgres - other.postgres)


class Servers:
    """A stack of the benchmark's own that is up, with a day of images in its bucket."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._engine = database.engine(self.settings())
        self._roots = {name: root_process(name, stack.folder) for name in ("weed", "postgres")}

    def environment(self) -> dict[str, str]:
        """Settings for a process that uses the servers; the size of shards is the default."""
        env = {name: v for name, v in self._stack.env().items() if name != "FER_SHARD_IMAGES"}
        return env | {"FER_LOG_LEVEL": "warning"}

    def settings(self) -> Settings:
        ours = {k.removeprefix("FER_").lower(): v for k, v in self.environment().items()}
        return Settings(_env_file=None, **ours)  # type: ignore[arg-type]

    def core_s(self) -> CoreSeconds:
        """Since the servers were started."""
        return CoreSeconds(core_s_of(self._roots["weed"]), core_s_of(self._roots["postgres"]))

    def forget(self) -> None:
        """Empty every table, so that the next round finds everything to do."""
        with database.transaction(self._engine) as connection:
            for table in TABLES:
                connection.execute(sa.text(f"drop table if exists {table}"))
            self._empty(connection, "image", "image_result", "face_result", "batch", "run")

    def forget_results(self) -> None:
        """Empty the results alone; what was listed stays."""
        with database.transaction(self._engine) as connection:
            self._empty(connection, "image_result", "face_result")

    @staticmethod
    def _empty(connection: sa.Connection, *tables: str) -> None:
        named = ", ".join(f"fer.{table}" for table in tables)
        connection.execute(sa.text(f"truncate {named} cascade"))


@contextmanager
def running(days: Sequence[DemoFacility]) -> Iterator[Servers]:
    """Fresh servers with these days' images, for the time of a block; nothing is left of them."""
    with tempfile.TemporaryDirectory(prefix="fer-batch-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(PASSABLE)  # PostgreSQL runs as another user where root starts it
        stack = Stack(folder / "stack")
        stack.write_registry(registry_text(days))
        with stack.running(with_airflow=False):
            settings = stack.settings()
            for day in days:
                upload_many(settings, settings.s3_bucket, keyed(day, DAY))
            yield Servers(stack)


def root_process(name: str, folder: Path) -> psutil.Process:
    """The oldest process of a server of the stack in this folder."""
    found = [
        process
        for process in psutil.process_iter(["name", "cmdline", "create_time"])
        if process.info["name"] == name
        and any(str(folder) in part for part in process.info["cmdline"] or ())
    ]
    return min(found, key=lambda process: float(process.info["create_time"]))


def core_s_of(root: psutil.Process) -> float:
    """Of a process, of its children that live, and of those that it has seen end."""
    own = root.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in root.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:  # counted by its parent from now on
            continue
        total += times.user + times.system
    return float(total)
