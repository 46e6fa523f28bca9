"""Times work on full tables: summaries, queries of analysts, planning, writing, dropping.

Each is the project's own code or statement, run as the nightly job or an analyst runs it. Filling
the tables is left to many_rows.py, printing and storing the results to tables.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

import psutil
import sqlalchemy as sa

from benchmarks import many_rows
from benchmarks.many_rows import LARGEST, LAST_DAY, PARTITIONED, RUN, VERSION, Size
from benchmarks.measuring import Spread
from benchmarks.servers import measure_process_core_s
from fer_batch import resources
from fer_batch.database import connections, ledger, results
from fer_batch.deletion import retention
from fer_batch.facilities.registry import Facility
from fer_batch.pipeline import checks, planning
from fer_batch.records import (
    Batch,
    Box,
    CalledClass,
    CallingRule,
    FaceScore,
    Image,
    ImageScore,
    Shard,
)
from fer_batch.satisfaction import revisions
from fer_batch.settings import Settings

QUERIES = sorted((resources.find_sql_dir() / "queries").glob("*.sql"))
UPSERTED = "upserted"
"""The facility whose results are overwritten repeatedly."""
PLANNED_DAY = LAST_DAY + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Scale:
    """The amount of data, and the number of rounds."""

    rows: int
    days: int
    facilities: int
    upserted: int
    planned_facilities: int
    planned_images: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement and its target."""

    name: str
    unit: str
    spread: Spread
    target: float | None = None
    comparison: Literal["below", "at least"] = "below"
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.target is None:
            return None
        median = self.spread.median
        return median < self.target if self.comparison == "below" else median >= self.target


class TableBenchmark:
    """The measurements on one filled database. `postgres` is the root process of its server."""

    def __init__(
        self, url: str, postgres: psutil.Process, scale: Scale, sizes: Sequence[Size]
    ) -> None:
        self._engine = connections.create_engine(url)
        self._postgres = postgres
        self._scale = scale
        self._sizes = sizes
        self._facilities = many_rows.register(self._engine, sizes)
        self.days = many_rows.list_days(LAST_DAY, scale.days)

    def close(self) -> None:
        self._engine.dispose()

    def fill(self) -> dict[str, Any]:
        """Fill the tables; returns the duration and the sizes of the tables."""
        began = time.perf_counter()
        many_rows.fill(self._engine, self._sizes, self.days)
        seconds = time.perf_counter() - began
        storage = {table: self._measure_storage(table, self.days) for table in PARTITIONED}
        return {"filled_in_s": round(seconds, 1), "tables": storage}

    def measure_summaries(self) -> Iterator[Figure]:
        """A summary of the largest facility's day, and one of all facilities of a day."""
        largest, every = self._create_stopwatch(), self._create_stopwatch()
        for day in self._sample_days():
            self._summarize({LARGEST: self._facilities[LARGEST]}, day, largest)
            self._summarize(self._facilities, day, every)
        notes = {"images": self._sizes[0].images}
        yield largest.build_figure("facility-day summary", 0.5, notes)
        yield every.build_figure("nightly summary", 10, {"facilities": len(self._facilities)})

    def _summarize(self, facilities: dict[str, Facility], day: date, watch: _Stopwatch) -> None:
        """Time writing the summaries of a day, after its present ones are deleted.

        Raises RuntimeError if the new summaries differ from the deleted ones.
        """
        params = {"ids": list(facilities), "day": day}
        delete = "DELETE FROM fer.satisfaction_summary WHERE facility_id = ANY (:ids) AND "
        delete += (
            "capture_day = :day RETURNING facility_id, faces, called_happy, called_sad, verdict"
        )
        with connections.transaction(self._engine) as connection:
            before = {tuple(row) for row in connection.execute(sa.text(delete), params)}
        with watch, connections.transaction(self._engine) as connection:
            batches = [Batch(name, day) for name in facilities]
            written = revisions.write_summaries(connection, batches, VERSION, facilities, RUN)
        columns = ("facility_id", "faces", "called_happy", "called_sad", "verdict")
        if {tuple(row[name] for name in columns) for row in written} != before:
            raise RuntimeError("the summaries differ from those that were generated")

    def measure_checks(self) -> Iterator[Figure]:
        """All data checks of a night, as the job runs them."""
        watch = self._create_stopwatch()
        for day in self._sample_days():
            batches = [Batch(name, day) for name in self._facilities]
            with watch:
                findings = checks.check_data(
                    self._engine, batches, VERSION, RUN, Settings(_env_file=None)
                )
        yield watch.build_figure("checks of a night", None, {"findings": len(findings)})

    def measure_queries(self) -> Iterator[Figure]:
        """Every query of analysts, unchanged, with the number of partitions that it reads."""
        for file in QUERIES:
            sql = file.read_text(encoding="utf-8")
            watch = self._create_stopwatch()
            for _ in range(self._scale.rounds):
                with watch:
                    rows = len(self._query(sql))
            plan = self._query(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")[0][0][0]["Plan"]
            notes = {"rows": rows, "partitions_read": _count_partitions_read(plan)}
            yield watch.build_figure(f"query {file.stem}", 1, notes)

    def _query(self, sql: str) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execution_options(no_parameters=True).exec_driver_sql(sql).all()

    def measure_writing(self) -> Iterator[Figure]:
        """Writing the results of new images, and overwriting them, in chunks as scoring does.

        Rows are those of `image_result`; each has one row of `face_result`, which is not counted.
        """
        count = self._scale.upserted
        size = Size(many_rows.make_facility(UPSERTED, 0), count)
        day = PLANNED_DAY + timedelta(days=1)
        many_rows.register(self._engine, [*self._sizes, size])
        many_rows.list_day(self._engine, [size], day)
        yield self._measure_write(size, day, [0], "results, written first", None)
        again = list(range(1, self._scale.rounds + 1))
        yield self._measure_write(size, day, again, "results, written over existing ones", 20_000)

    def _measure_write(
        self, size: Size, day: date, runs: list[int], name: str, target: float | None
    ) -> Figure:
        watch, wal = self._create_stopwatch(), self._get_wal_position()
        for number in runs:
            self._write_results(size, day, number, watch)
        notes: dict[str, Any] = {
            "rows": size.images,
            "face_rows": size.images,
            "core_us_per_row": round(1e6 * watch.core_s / size.images, 1),
            "wal_bytes_per_row": round((self._get_wal_position() - wal) / size.images / len(runs)),
            "tables": {table: self._measure_storage(table, [day]) for table in PARTITIONED},
        }
        rates = Spread.from_values([size.images / seconds for seconds in watch.seconds])
        return Figure(name, "rows/s", rates, target, "at least", notes)

    def _write_results(self, size: Size, day: date, number: int, watch: _Stopwatch) -> None:
        """Write the results of a day as run `number`, and time it."""
        run, step = f"write-{number}", Settings(_env_file=None).chunk_images
        with connections.transaction(self._engine) as connection:
            began_at = ledger.begin_run(connection, run, VERSION)
        scores = [_make_score(image, number) for image in self._load_images(size, day)]
        written = 0
        with watch:
            for start in range(0, len(scores), step):
                with connections.transaction(self._engine) as connection:
                    chunk = scores[start : start + step]
                    written += results.write_chunk(connection, chunk, VERSION, run, began_at)
        if written != size.images:
            raise RuntimeError(f"{written} of {size.images} images were written")

    def _load_images(self, size: Size, day: date) -> list[Image]:
        batch = Batch(size.facility.facility_id, day)
        select = sa.text(
            "SELECT image_key, etag, size_bytes FROM fer.image"
            " WHERE facility_id = :facility_id AND capture_day = :day ORDER BY image_key"
        )
        with connections.transaction(self._engine) as connection:
            rows = connection.execute(select, {"facility_id": batch.facility_id, "day": day}).all()
        return [Image(batch, row.image_key, row.etag, row.size_bytes) for row in rows]

    def _get_wal_position(self) -> int:
        sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
        return int(self._query(sql)[0][0])

    def measure_planning(self) -> Iterator[Figure]:
        """Planning the shards of a night of many facilities of very different sizes, unscored."""
        scale = self._scale
        sizes = many_rows.distribute_images(scale.planned_facilities, scale.planned_images)
        facilities = many_rows.register(self._engine, sizes)
        many_rows.list_day(self._engine, sizes, PLANNED_DAY)
        batches = [Batch(name, PLANNED_DAY) for name in facilities]
        settings = Settings(_env_file=None)
        watch = self._create_stopwatch()
        for _ in range(scale.rounds):
            with watch, connections.transaction(self._engine) as connection:
                shards = planning.plan_shards(connection, batches, facilities, settings, VERSION)
        notes = {
            "facilities": len(sizes),
            "images": sum(shard.image_count for shard in shards),
            "images_of_largest": sizes[0].images,
            "images_of_smallest": sizes[-1].images,
        }
        yield watch.build_figure("planning a night", 10, notes)
        yield Figure("planning: tasks", "", Spread.from_values([len(shards)]), 65)
        loads = [_compute_work(shard, facilities) for shard in shards]
        ratio = Spread.from_values([max(loads) / min(loads)])
        yield Figure("planning: most work / least work", "", ratio, 1.5)

    def measure_dropping(self) -> Iterator[Figure]:
        """Dropping the oldest days, one after the other, as retention does."""
        watch = self._create_stopwatch()
        for day in self.days[: self._scale.rounds]:
            with watch:
                retention.retain(self._engine, day + timedelta(days=1))
        yield watch.build_figure("dropping a day", 1, {"tables_of_a_day": len(PARTITIONED)})

    def _create_stopwatch(self) -> _Stopwatch:
        return _Stopwatch(self._postgres)

    def _sample_days(self) -> list[date]:
        """As many days as rounds, evenly spread over all days."""
        step = max(1, len(self.days) // self._scale.rounds)
        return self.days[::step][: self._scale.rounds]

    def _measure_storage(self, table: str, days: Sequence[date]) -> dict[str, float]:
        """The rows of these days, and the bytes per row of the table and of its indexes."""
        count = sa.text(
            f"SELECT count(*) FROM fer.{table} WHERE capture_day = ANY (:days)"  # noqa: S608
        )
        parts = sa.text(
            "SELECT sum(pg_table_size(c)), sum(pg_indexes_size(c))"
            " FROM unnest(CAST(:names AS regclass[])) AS c"
        )
        names = [f"fer.{many_rows.name_partition(table, day)}" for day in days]
        with connections.transaction(self._engine) as connection:
            rows = connection.execute(count, {"days": list(days)}).scalar_one()
            sizes = connection.execute(parts, {"names": names}).one()
        return {
            "rows": rows,
            "table_bytes_per_row": round(float(sizes[0]) / rows, 1),
            "index_bytes_per_row": round(float(sizes[1]) / rows, 1),
        }


class _Stopwatch:
    """Elapsed seconds and core-seconds of blocks, PostgreSQL's core-seconds included.

    Core-seconds are less affected by other load on the machine.
    """

    def __init__(self, postgres: psutil.Process) -> None:
        self._postgres = postgres
        self.seconds: list[float] = []
        self._core_s: list[float] = []

    @property
    def core_s(self) -> float:
        return statistics.median(self._core_s)

    def build_figure(self, name: str, target_s: float | None, notes: dict[str, Any]) -> Figure:
        notes = notes | {"core_s": round(self.core_s, 3)}
        return Figure(name, "s", Spread.from_values(self.seconds), target_s, notes=notes)

    def __enter__(self) -> None:
        self._began = time.perf_counter(), self._read_core_s()

    def __exit__(self, *_: object) -> None:
        began, core_s = self._began
        self.seconds.append(time.perf_counter() - began)
        self._core_s.append(self._read_core_s() - core_s)

    def _read_core_s(self) -> float:
        return time.process_time() + measure_process_core_s(self._postgres)


def _make_score(image: Image, number: int) -> ImageScore:
    p_happy = 0.5 + number % 5 / 20
    face = FaceScore(Box(0, 0, 48, 48), p_happy, 0.25, 0.75 - p_happy, 0.1, CalledClass.HAPPY, 0.9)
    return ImageScore.from_faces(image, 48, 48, (face,), CallingRule(0.5, 0.4))


def _compute_work(shard: Shard, facilities: dict[str, Facility]) -> int:
    """The work of a shard, in units of a crop, as planning weighs it."""
    return sum(
        r.image_count * planning.WORK_PER_IMAGE[facilities[r.batch.facility_id].image_kind]
        for r in shard.ranges
    )


def _count_partitions_read(plan: dict[str, Any]) -> dict[str, int]:
    """The number of partitions of each table that a plan read; pruned partitions, at plan time or
    at run time, are not counted."""
    read: dict[str, set[str]] = {}
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        relation = node.get("Relation Name", "")
        table = relation[: -len("_2026_01_01")]
        if table in PARTITIONED and node["Actual Loops"] > 0:
            read.setdefault(table, set()).add(relation)
    return {table: len(relations) for table, relations in sorted(read.items())}
