"""What is asked of full tables, timed: summaries, queries of analysts, planning, writing, dropping.

Each is the project's own code or statement, run as the nightly job or an analyst runs it. How the
tables were filled is many_rows.py's business, what is shown and kept that of tables.py.
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
from benchmarks.servers import core_s_of
from fer_batch import (
    checks,
    database,
    ledger,
    planning,
    resources,
    results,
    retention,
    satisfaction,
)
from fer_batch.records import Batch, Box, FaceScore, Image, ImageScore, Outcome, Shard
from fer_batch.registry import Facility
from fer_batch.settings import Settings

QUERIES = sorted((resources.sql_dir() / "queries").glob("*.sql"))
UPSERTED = "upserted"
"""The facility whose results are written over and over."""
PLANNED_DAY = LAST_DAY + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much there is, and how often each thing is timed."""

    rows: int
    days: int
    facilities: int
    upserted: int
    planned_facilities: int
    planned_images: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured, and the bound that it is held to."""

    name: str
    unit: str
    spread: Spread
    target: float | None = None
    wanted: Literal["below", "at least"] = "below"
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps to the bound; None without one."""
        if self.target is None:
            return None
        median = self.spread.median
        return median < self.target if self.wanted == "below" else median >= self.target


class Measured:
    """The measurements, on one filled database. `postgres` is the server's first process."""

    def __init__(
        self, url: str, postgres: psutil.Process, scale: Scale, sizes: Sequence[Size]
    ) -> None:
        self._url = url
        self._engine = database.engine(url)
        self._postgres = postgres
        self._scale = scale
        self._sizes = sizes
        self._facilities = many_rows.register(self._engine, sizes)
        self.days = many_rows.days_before(LAST_DAY, scale.days)

    def close(self) -> None:
        self._engine.dispose()

    def fill(self) -> dict[str, Any]:
        """Fill the tables; returns what that made of them."""
        began = time.perf_counter()
        many_rows.fill(self._engine, self._sizes, self.days)
        seconds = time.perf_counter() - began
        found = {table: self._stored(table, self.days) for table in PARTITIONED}
        return {"filled_in_s": round(seconds, 1), "tables": found}

    def summaries(self) -> Iterator[Figure]:
        """A summary of the largest facility's day, and one of all facilities of a day."""
        one, every = self._watch(), self._watch()
        for day in self._some_days():
            self._summarise({LARGEST: self._facilities[LARGEST]}, day, one)
            self._summarise(self._facilities, day, every)
        notes = {"images": self._sizes[0].images}
        yield one.figure("facility-day summary", 0.5, notes)
        yield every.figure("nightly summary", 10, {"facilities": len(self._facilities)})

    def _summarise(self, facilities: dict[str, Facility], day: date, watch: _Stopwatch) -> None:
        """Write the summaries of a day, whose former ones are taken away before."""
        known = {"ids": list(facilities), "day": day}
        gone = "DELETE FROM fer.satisfaction_summary WHERE facility_id = ANY (:ids) AND "
        gone += "capture_day = :day RETURNING facility_id, faces, happy, sad, verdict"
        with database.transaction(self._engine) as connection:
            before = {tuple(row) for row in connection.execute(sa.text(gone), known)}
        with watch, database.transaction(self._engine) as connection:
            batches = [Batch(name, day) for name in facilities]
            written = satisfaction.write_summaries(connection, batches, VERSION, facilities, RUN)
        said = ("facility_id", "faces", "happy", "sad", "verdict")
        if {tuple(row[name] for name in said) for row in written} != before:
            raise RuntimeError("the summaries say something else than the rows that were made")

    def checks(self) -> Iterator[Figure]:
        """All checks of a night, as the job asks them."""
        watch = self._watch()
        for day in self._some_days():
            batches = [Batch(name, day) for name in self._facilities]
            with watch:
                findings = checks.run(self._engine, batches, VERSION, RUN)
        yield watch.figure("checks of a night", None, {"findings": len(findings)})

    def queries(self) -> Iterator[Figure]:
        """Every query of analysts, as it stands, with the partitions that it reads."""
        for file in QUERIES:
            sql = file.read_text(encoding="utf-8")
            watch = self._watch()
            for _ in range(self._scale.rounds):
                with watch:
                    rows = len(self._ask(sql))
            plan = self._ask(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")[0][0][0]["Plan"]
            notes = {"rows": rows, "partitions_read": _partitions(plan)}
            yield watch.figure(f"query {file.stem}", 1, notes)

    def _ask(self, sql: str) -> Sequence[Any]:
        with self._engine.connect() as connection:
            asking = connection.execution_options(no_parameters=True)
            return asking.exec_driver_sql(sql).all()

    def writing(self) -> Iterator[Figure]:
        """Results of a facility's new images, and the same written again over those, chunk by
        chunk as scoring does. Rows are those of `image_result`; each has a face beside it, which
        is not counted.
        """
        count = self._scale.upserted
        size = Size(many_rows.facility_of(UPSERTED, 0), count)
        day = PLANNED_DAY + timedelta(days=1)
        many_rows.register(self._engine, [*self._sizes, size])
        many_rows.list_day(self._engine, [size], day)
        yield self._written(size, day, [0], "results, written first", None)
        again = list(range(1, self._scale.rounds + 1))
        yield self._written(size, day, again, "results, written over existing ones", 20_000)

    def _written(
        self, size: Size, day: date, runs: list[int], name: str, target: float | None
    ) -> Figure:
        watch, wal = self._watch(), self._wal()
        for number in runs:
            self._write(size, day, number, watch)
        notes: dict[str, Any] = {
            "rows": size.images,
            "face_rows": size.images,
            "core_us_per_row": round(1e6 * watch.core_s / size.images, 1),
            "wal_bytes_per_row": round((self._wal() - wal) / size.images / len(runs)),
            "tables": {table: self._stored(table, [day]) for table in PARTITIONED},
        }
        rates = Spread.of([size.images / seconds for seconds in watch.seconds])
        return Figure(name, "rows/s", rates, target, "at least", notes)

    def _write(self, size: Size, day: date, number: int, watch: _Stopwatch) -> None:
        """Write the results of a day as run so-and-so."""
        run, step = f"write-{number}", Settings(_env_file=None).chunk_images
        with database.transaction(self._engine) as connection:
            began_at = ledger.begin_run(connection, run, VERSION)
        scores = [_score(image, number) for image in self._images(size, day)]
        written = 0
        with watch:
            for start in range(0, len(scores), step):
                with database.transaction(self._engine) as connection:
                    chunk = scores[start : start + step]
                    written += results.write_chunk(connection, chunk, VERSION, run, began_at)
        if written != size.images:
            raise RuntimeError(f"{written} of {size.images} images were written")

    def _images(self, size: Size, day: date) -> list[Image]:
        batch = Batch(size.facility.facility_id, day)
        asked = sa.text(
            "SELECT image_key, etag, size_bytes FROM fer.image"
            " WHERE facility_id = :facility_id AND capture_day = :day ORDER BY image_key"
        )
        with database.transaction(self._engine) as connection:
            rows = connection.execute(asked, {"facility_id": batch.facility_id, "day": day}).all()
        return [Image(batch, row.image_key, row.etag, row.size_bytes) for row in rows]

    def _wal(self) -> int:
        asked = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
        return int(self._ask(asked)[0][0])

    def planning(self) -> Iterator[Figure]:
        """The shards of a night of many facilities of very different sizes, none scored yet."""
        scale = self._scale
        sizes = many_rows.night(scale.planned_facilities, scale.planned_images)
        facilities = many_rows.register(self._engine, sizes)
        many_rows.list_day(self._engine, sizes, PLANNED_DAY)
        batches = [Batch(name, PLANNED_DAY) for name in facilities]
        settings = Settings(_env_file=None)
        watch = self._watch()
        for _ in range(scale.rounds):
            with watch, database.transaction(self._engine) as connection:
                shards = planning.plan(connection, batches, facilities, settings, VERSION)
        notes = {
            "facilities": len(sizes),
            "images": sum(shard.image_count for shard in shards),
            "images_of_largest": sizes[0].images,
            "images_of_smallest": sizes[-1].images,
        }
        yield watch.figure("planning a night", 10, notes)
        yield Figure("planning: tasks", "", Spread.of([len(shards)]), 65)
        loads = [_work(shard, facilities) for shard in shards]
        ratio = Spread.of([max(loads) / min(loads)])
        yield Figure("planning: most work / least work", "", ratio, 1.5)

    def dropping(self) -> Iterator[Figure]:
        """The oldest days, one after the other, as retention drops them."""
        watch = self._watch()
        for day in self.days[: self._scale.rounds]:
            with watch:
                retention.retain(self._url, day + timedelta(days=1))
        yield watch.figure("dropping a day", 1, {"tables_of_a_day": len(PARTITIONED)})

    def _watch(self) -> _Stopwatch:
        return _Stopwatch(self._postgres)

    def _some_days(self) -> list[date]:
        """As many days as there are rounds, spread over all that there are."""
        step = max(1, len(self.days) // self._scale.rounds)
        return self.days[::step][: self._scale.rounds]

    def _stored(self, table: str, days: Sequence[date]) -> dict[str, float]:
        """Rows of these days, and the bytes that each takes in the table and in its index."""
        asked = sa.text(
            f"SELECT count(*) FROM fer.{table} WHERE capture_day = ANY (:days)"  # noqa: S608
        )
        parts = sa.text(
            "SELECT sum(pg_table_size(c)), sum(pg_indexes_size(c))"
            " FROM unnest(CAST(:names AS regclass[])) AS c"
        )
        names = [f"fer.{many_rows.partition(table, day)}" for day in days]
        with database.transaction(self._engine) as connection:
            rows = connection.execute(asked, {"days": list(days)}).scalar_one()
            sizes = connection.execute(parts, {"names": names}).one()
        return {
            "rows": rows,
            "table_bytes_per_row": round(float(sizes[0]) / rows, 1),
            "index_bytes_per_row": round(float(sizes[1]) / rows, 1),
        }


class _Stopwatch:
    """Seconds that a block took by the clock, and of the cores, PostgreSQL's included.

    Where other work runs on the machine, the second says what the first would be without it.
    """

    def __init__(self, postgres: psutil.Process) -> None:
        self._postgres = postgres
        self.seconds: list[float] = []
        self._core_s: list[float] = []

    @property
    def core_s(self) -> float:
        return statistics.median(self._core_s)

    def figure(self, name: str, target_s: float | None, notes: dict[str, Any]) -> Figure:
        notes = notes | {"core_s": round(self.core_s, 3)}
        return Figure(name, "s", Spread.of(self.seconds), target_s, notes=notes)

    def __enter__(self) -> None:
        self._began = time.perf_counter(), self._now()

    def __exit__(self, *_: object) -> None:
        began, core_s = self._began
        self.seconds.append(time.perf_counter() - began)
        self._core_s.append(self._now() - core_s)

    def _now(self) -> float:
        return time.process_time() + core_s_of(self._postgres)


def _score(image: Image, number: int) -> ImageScore:
    p_happy = 0.5 + number % 5 / 20
    face = FaceScore(Box(0, 0, 48, 48), p_happy, 0.25, 0.75 - p_happy, False, 0.9)
    return ImageScore(image, Outcome.SCORED, "", 48, 48, (face,))


def _work(shard: Shard, facilities: dict[str, Facility]) -> int:
    """The work of a shard, in crops, as planning weighs it."""
    return sum(
        r.image_count * planning.WORK_OF_IMAGE[facilities[r.batch.facility_id].image_kind]
        for r in shard.ranges
    )


def _partitions(plan: dict[str, Any]) -> dict[str, int]:
    """How many partitions of each table a plan has read; those it was built without, or left
    out while it ran, are not counted."""
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
