"""Migration 0006, camera and capture time, of a database that is filled already.

The upgrade goes on from migration 0011 and its views, as that of an earlier version would.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch.database import connections, ledger, schema
from fer_batch.pipeline.capture_times import BackfilledFacility, backfill_times
from fer_batch.records import Batch, ListedImage
from tests.fixtures.servers import migrate_to, switch_login
from tests.fixtures.tables import VERSION, Tables

VIEWS_0011 = Path(__file__).parent / "views_0011.sql"
DAYS = [date(2026, 3, 1), date(2026, 3, 2)]
TEMPLATE = "{camera}/{captured_at:%H%M%S}.jpg"

# Two listed days of one facility at revision 0005, with one image that is scored.
FILL = """
INSERT INTO fer.facility (facility_id, name, time_zone, image_kind, key_template)
VALUES ('north-mall', 'North Mall', 'Europe/Berlin', 'crops',
    '{facility_id}/{capture_day:%Y-%m-%d}/');
SELECT fer.ensure_partitions(ARRAY['2026-03-01', '2026-03-02']::date[]);

INSERT INTO fer.batch (facility_id, capture_day, status, images_listed, bytes_listed, listed_at,
    attempted_at, run_id)
SELECT 'north-mall', day, 'listed', 3, 3, day + 1, day + 1, 'run-1'
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day;

INSERT INTO fer.image (facility_id, capture_day, image_key, etag, size_bytes, first_seen_at,
    listed_at)
SELECT 'north-mall', day, format('north-mall/%s/%s', day, name), '1', 1, day + 1, day + 1
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day
CROSS JOIN unnest(ARRAY['door/101500.jpg', 'door/101530.jpg', 'old.jpg']) AS name;

INSERT INTO fer.image_result (facility_id, capture_day, image_key, model_version, etag, outcome,
    face_count, size_bytes, run_id, scored_at)
SELECT facility_id, capture_day, image_key, repeat('a', 64), '1', 'no_face', 0, 1, 'run-1',
    capture_day + 2
FROM fer.image WHERE image_key LIKE '%old.jpg';
"""
IMAGES = """
    SELECT capture_day, image_key, etag, size_bytes, first_seen_at, listed_at
    FROM fer.image ORDER BY 1, 2"""


def read(engine: sa.Engine, sql: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(sql))]


@pytest.fixture
def filled(postgres_url: str) -> Iterator[sa.Engine]:
    engine = connections.create_engine(postgres_url)
    with connections.transaction(engine) as connection:
        migrate_to(connection, "0005")
        connection.execution_options(no_parameters=True).exec_driver_sql(FILL)
        migrate_to(connection, "0011")
        schema.run_script(connection, VIEWS_0011)
    yield engine
    engine.dispose()


@pytest.fixture
def before(filled: sa.Engine, postgres_url: str) -> list[tuple[Any, ...]]:
    """The images before the upgrade."""
    images = read(filled, IMAGES)
    assert len(images) == 6
    schema.upgrade(postgres_url)
    return images


def test_stored_images_stay_and_have_no_times_yet(
    filled: sa.Engine, before: list[tuple[Any, ...]]
) -> None:
    assert read(filled, IMAGES) == before
    assert read(filled, "SELECT DISTINCT camera, captured_at_utc FROM fer.image") == [(None, None)]
    assert read(filled, "SELECT name_template, name_clock FROM fer.facility") == [(None, "local")]
    work = "SELECT image_key FROM fer.unfinished_image('north-mall', '2026-03-02', :version)"
    with filled.connect() as connection:
        keys = connection.execute(sa.text(work), {"version": VERSION}).scalars().all()
    assert sorted(keys) == [f"north-mall/2026-03-02/door/{t}.jpg" for t in (101500, 101530)]


def test_times_are_backfilled_and_listed(filled: sa.Engine, before: list[tuple[Any, ...]]) -> None:
    facility = Tables.build_facility("north-mall", name_template=TEMPLATE)
    facilities = {"north-mall": facility}
    with connections.transaction(filled) as connection:
        ledger.sync_facilities(connection, facilities)
    assert backfill_times(filled, facilities, first_day=DAYS[1]) == [
        BackfilledFacility("north-mall", 1, 3, 2, 1, 2)
    ]
    key = "north-mall/2026-03-01/door/101500.jpg"
    parse_name = facility.build_name_parser(DAYS[0])
    with connections.transaction(filled) as connection:
        listed = ledger.merge_listing(
            connection, Batch("north-mall", DAYS[0]), [ListedImage(key, "1", 1)], parse_name
        )
    assert listed == (1, 0)
    assert read(filled, IMAGES) == before
    assert read(
        filled, "SELECT camera, captured_at_utc FROM fer.image WHERE camera <> '' ORDER BY 2"
    ) == [
        ("door", datetime(2026, 3, 1, 9, 15, tzinfo=UTC)),
        ("door", datetime(2026, 3, 2, 9, 15, tzinfo=UTC)),
        ("door", datetime(2026, 3, 2, 9, 15, 30, tzinfo=UTC)),
    ]


@pytest.mark.usefixtures("before")
def test_every_partition_has_the_columns_and_their_check(filled: sa.Engine) -> None:
    with connections.transaction(filled) as connection:
        schema.ensure_partitions(connection, [date(2026, 3, 3)])
    columns = """
        SELECT table_name, column_name, data_type FROM information_schema.columns
        WHERE table_schema = 'fer' AND table_name ~ '^image(_[0-9_]+)?$'
            AND column_name IN ('camera', 'captured_at_utc')"""
    assert len(read(filled, columns)) == 8
    for change in (
        "UPDATE fer.image SET camera = ''",
        "UPDATE fer.image SET camera = repeat('x', 101)",
        "UPDATE fer.facility SET name_clock = 'utc'",
    ):
        with (
            pytest.raises(sa.exc.IntegrityError, match="check constraint"),
            filled.begin() as connection,
        ):
            connection.execute(sa.text(change))


@pytest.mark.usefixtures("before")
def test_the_views_equal_those_of_a_new_database(filled: sa.Engine, database_url: str) -> None:
    new = connections.create_engine(switch_login(database_url))
    definitions = """
        SELECT viewname, definition FROM pg_views WHERE schemaname = 'fer' ORDER BY 1"""
    assert read(filled, definitions) == read(new, definitions) != []
    for name, _ in read(filled, definitions):
        read(filled, f"SELECT * FROM fer.{name}")  # noqa: S608
    new.dispose()
