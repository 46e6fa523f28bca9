"""Tables as full as months of many facilities leave them, made by the database itself.

The sizes of the facilities follow a power law. A day is one transaction into partitions that were
emptied in it, so that nothing of it needs to be logged; the rows are those that listing, scoring
and summaries write, and the same on every machine. What is measured on them is in tables.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg.sql
import sqlalchemy as sa

from benchmarks.measuring import usable_cores
from fer_batch import database, ledger, results, satisfaction, tables
from fer_batch.registry import Facility, Permission

SEED = 4
VERSION = "a" * 64
RUN = "many-rows"
LAST_DAY = date(2026, 3, 31)
PARTITIONED = ("image", "image_result", "face_result")
LARGEST = "north-mall"
"""The id of the largest facility, which is the one that sql/queries names."""
FACES_OF_FRAME = 2.5
BROKEN_SHARE = 1 / 500
_REVISED = 10
"""One summary in so many has an earlier revision."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many images a facility has on a day, and of which kind."""

    facility: Facility
    images: int

    @property
    def has_frames(self) -> bool:
        return self.facility.image_kind == "frames"


def sizes(facilities: int, faces: float) -> list[Size]:
    """Facilities whose days hold at least so many faces together, the largest first.

    Every fourth, beginning with the largest, uploads crops, the others frames, which show 2.5
    faces on average.
    """
    found = []
    for n, share in enumerate(shares(facilities)):
        facility = facility_of(LARGEST if n == 0 else f"facility-{n:03}", n)
        per_image = 1 if facility.image_kind == "crops" else FACES_OF_FRAME
        found.append(Size(facility, math.ceil(faces * share / per_image / (1 - BROKEN_SHARE)) + 1))
    return found


def night(facilities: int, images: int) -> list[Size]:
    """Facilities with exactly so many images together, sizes and kinds as above."""
    counts = [int(images * share) for share in shares(facilities)]
    counts[0] += images - sum(counts)
    return [Size(facility_of(f"shop-{n:04}", n), count) for n, count in enumerate(counts)]


def shares(facilities: int) -> list[float]:
    """What each facility has of all, by a power law: the n-th largest n^-0.9 of the largest.

    The largest of 200 has an eighth of all, the median a 500th.
    """
    weights = np.arange(1, facilities + 1) ** -0.9
    return list(map(float, weights / weights.sum()))


def facility_of(facility_id: str, number: int) -> Facility:
    """A facility with a permission; every fourth number has crops."""
    permission = Permission(
        purpose="Benchmark",
        lawful_basis="Nobody's faces: the rows are made up",
        approved_by="Nobody",
        valid_until=date(2030, 1, 1),
    )
    return Facility(
        facility_id=facility_id,
        name=facility_id,
        time_zone="UTC",
        image_kind="frames" if number % 4 else "crops",
        target_share=0.75,
        permission=permission,
    )


@cache
def statement(name: str) -> sa.TextClause:
    file = Path(__file__).parent / "sql" / f"{name}.sql"
    return sa.text(file.read_text(encoding="utf-8"))


def days_before(last: date, count: int) -> list[date]:
    """So many days that end with the last, oldest first."""
    return [last - timedelta(days=n) for n in reversed(range(count))]


def listed_at(day: date) -> datetime:
    """When the images of a day were listed and scored: the night after."""
    return datetime.combine(day + timedelta(days=1), time(2), UTC)


def register(engine: sa.Engine, found: Sequence[Size]) -> dict[str, Facility]:
    """Write facilities and model version down; returns the facilities by id."""
    facilities = {size.facility.facility_id: size.facility for size in found}
    with database.transaction(engine) as connection:
        ledger.sync_facilities(connection, facilities)
        results.register_model_version(connection, VERSION, {"format": 1}, {"name": "benchmark"})
        ledger.begin_run(connection, RUN, VERSION)
    return facilities


def fill(engine: sa.Engine, found: Sequence[Size], days: Sequence[date]) -> None:
    """Fill every day with images, results, faces and summaries, as many at once as there are cores.

    The days may hold nothing yet.
    """
    with database.transaction(engine) as connection:
        database.ensure_partitions(connection, days)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for number, _ in enumerate(pool.map(lambda day: _fill_day(engine, found, day), days), 1):
            print(f"\r  {number} of {len(days)} days", end="", flush=True)
    print()
    with database.transaction(engine) as connection:
        for table in (*PARTITIONED, "batch", "satisfaction_summary"):
            # The days themselves were analysed when they were filled.
            execute(connection, "ANALYZE ONLY {}", table)


def list_day(engine: sa.Engine, found: Sequence[Size], day: date) -> None:
    """Write the listing of a day whose images nobody has scored yet."""
    with database.transaction(engine) as connection:
        database.ensure_partitions(connection, [day])
        _run(connection, "fill_images", _question(found, day))
        _run(connection, "fill_batches", _question(found, day))


def partition(table: str, day: date) -> str:
    return f"{table}_{day:%Y_%m_%d}"


def execute(connection: sa.Connection, order: str, *names: str) -> None:
    """Run an order over tables of schema `fer`, whose names take the place of `{}`."""
    quoted = (psycopg.sql.Identifier("fer", name) for name in names)
    listed = psycopg.sql.SQL(", ").join(quoted)
    database.driver_connection(connection).execute(psycopg.sql.SQL(order).format(listed))  # type: ignore[arg-type]


def _fill_day(engine: sa.Engine, found: Sequence[Size], day: date) -> None:
    leaves = [partition(table, day) for table in PARTITIONED]
    question = _question(found, day)
    with database.transaction(engine) as connection:
        # New files, which need no log up to the commit (wal_level is minimal).
        execute(connection, "TRUNCATE {}", *leaves)
        connection.execute(sa.select(sa.func.setseed((SEED + day.toordinal()) % 1000 / 1000)))
        for name in ("fill_images", "fill_faces", "fill_results", "fill_batches"):
            _run(connection, name, question)
        execute(connection, "ANALYZE {}", *leaves)
        counts = connection.execute(statement("count_day"), question).mappings().all()
        connection.execute(sa.insert(tables.satisfaction_summary), _summaries(counts, day))


def _run(connection: sa.Connection, name: str, question: Mapping[str, object]) -> None:
    text = statement(name)
    connection.execute(text, {key: question[key] for key in text.compile().params})


def _question(found: Sequence[Size], day: date) -> dict[str, object]:
    # In the order of the key, so that the index grows at its end.
    ordered = sorted(found, key=lambda size: size.facility.facility_id)
    return {
        "day": day,
        "facility_ids": [size.facility.facility_id for size in ordered],
        "counts": [size.images for size in ordered],
        "are_frames": [size.has_frames for size in ordered],
        "listed_at": listed_at(day),
        "model_version": VERSION,
        "run_id": RUN,
    }


def _summaries(counts: Sequence[Mapping[str, object]], day: date) -> list[dict[str, object]]:
    frame = pd.DataFrame(counts).assign(target_share=0.75)
    rows = satisfaction.summarise(frame).to_dict("records")
    written = []
    for n, row in enumerate(rows):
        clean = {k: None if isinstance(v, float) and pd.isna(v) else v for k, v in row.items()}
        clean |= {
            "model_version": VERSION,
            "time_zone": "UTC",
            "is_complete": True,
            "is_below_expected": False,
            "run_id": RUN,
            "created_at": listed_at(day),
            "revision": 1,
        }
        written.append(clean)
        if n % _REVISED == day.toordinal() % _REVISED:
            written.append(clean | {"revision": 2})
    return written
