"""Two days of results to delete, and what the tables hold of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fer_batch.deletion.erasure_log import LoggedErasure
from fer_batch.pipeline import checks
from fer_batch.records import Batch
from fer_batch.settings import Settings
from tests.fixtures.servers import SECRET

DAY = date(2026, 3, 1)
NEXT = DAY + timedelta(1)
PER_IMAGE = ("image", "image_result", "face_result")


def count_rows(tables: Any, batch: Batch) -> tuple[int, ...]:
    """Number of rows of a batch in each table per image."""
    where = "WHERE facility_id = :facility_id AND capture_day = :capture_day"
    return tuple(
        tables.query(
            f"SELECT count(*) FROM fer.{table} {where}",  # noqa: S608
            facility_id=batch.facility_id,
            capture_day=batch.capture_day,
        )[0][0]
        for table in PER_IMAGE
    )


def list_partitions(tables: Any) -> list[str]:
    """The partitions, attached or not."""
    rows = tables.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'fer'::regnamespace"
        " AND relkind = 'r' AND relname ~ '_[0-9]{4}_[0-9]{2}_[0-9]{2}$' ORDER BY 1"
    )
    return [name for (name,) in rows]


def list_summaries(tables: Any) -> list[Any]:
    """The summaries of days, in all revisions."""
    summaries = "SELECT * FROM fer.satisfaction_summary WHERE period = 'day' ORDER BY 1, 2, 3"
    return list(tables.query(summaries))


def read_newest(tables: Any, batch: Batch) -> Any:
    return tables.query(
        "SELECT * FROM fer.satisfaction_summary"
        " WHERE facility_id = :facility_id AND capture_day = :capture_day AND period = 'day'"
        " ORDER BY revision DESC",
        facility_id=batch.facility_id,
        capture_day=batch.capture_day,
    )[0]


def build_line(**others: Any) -> LoggedErasure:
    """A line of the erasure log, of an image by default."""
    values = {
        "kind": "image",
        "facility_id": "north-mall",
        "capture_day": DAY,
        "key_hmac": SECRET.hash_key("some.jpg"),
        "secret_check": SECRET.check,
        "images": 1,
        "faces": 1,
        "erased_at": datetime(2026, 4, 1, tzinfo=UTC),
    }
    return LoggedErasure(**{**values, **others})


def check(tables: Any, *batches: Batch) -> list[dict[str, Any]]:
    return checks.check_data(
        tables.engine, batches, tables.version, "run-1", Settings(_env_file=None)
    )


@pytest.fixture
def two_days(tables: Any) -> tuple[Batch, Batch]:
    """Two days of 40 and 50 scored images, with their summaries."""
    old, new = Batch("north-mall", DAY), Batch("north-mall", NEXT)
    tables.fill(30, 10, old)
    tables.fill(20, 30, new)
    tables.summarize(old, new)
    return old, new
