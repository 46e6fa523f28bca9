"""The exported Parquet files equal the published views, as three readers see them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fer_batch.database import connections
from fer_batch.deletion import erasure
from fer_batch.errors import ConfigurationError, EndpointUnreachableError, StorageError
from fer_batch.export import places, publishing
from fer_batch.export.columns import COLUMNS, KINDS, NOT_SCORED
from fer_batch.settings import Settings
from fer_batch.storage.folder import LocalFolder
from fer_batch.storage.object_folder import open_export_folder
from tests.export.conftest import DAYS, TOO_FEW, read_views
from tests.fixtures.servers import SECRET
from tests.satisfaction.conftest import draw_clusters

FILES = 2 * (2 + 2 + 1)
"""Of each facility: days of two months, weeks of two months, and four weeks that end in March."""
GLOB = "satisfaction/schema=1/**/*.parquet"


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def read_rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        ds.dataset(folder / "satisfaction" / "schema=1").to_table().to_pylist()
    )
    return rows


def read_marker(folder: Path) -> dict[str, Any]:
    marker: dict[str, Any] = json.loads((folder / publishing.MARKER).read_text())
    return marker


def test_the_files_have_the_rows_of_the_views(
    published: Any, export_to: Any, tables: Any, tmp_path: Path
) -> None:
    export_to(tmp_path)
    views = read_views(tables)
    rows = read_rows(tmp_path)
    assert len(rows) == len(views) == 2 * (28 + 4 + 1)
    for row in rows:
        view = views[row["period"], row["facility_id"], row["last_day"]]
        assert {c.name: row[c.name] for c in COLUMNS if c.name in view} == {
            c.name: view[c.name] for c in COLUMNS if c.name in view
        }
        assert row["group_name"] == ("north" if row["facility_id"] == "north-mall" else None)
        counts = {n: row[f"not_scored_{n}"] for n in NOT_SCORED}
        assert {n: count for n, count in counts.items() if count} == view["not_scored"]
        assert row["images_not_scored"] == sum(view["not_scored"].values())


def test_every_column_of_the_views_is_exported_with_its_type(tables: Any) -> None:
    """A column that is added to the views belongs into the files, as a new one at the end."""
    types = dict(
        tables.query(
            "SELECT DISTINCT column_name, CASE data_type WHEN 'integer' THEN 'bigint'"
            " ELSE data_type END FROM information_schema.columns WHERE table_schema = 'fer'"
            " AND table_name IN ('satisfaction_daily', 'satisfaction_period')"
        )
    )
    assert types.pop("not_scored") == "jsonb"
    types["last_day"] = types.pop("capture_day")
    own = {"group_name", "images_not_scored", *(f"not_scored_{name}" for name in NOT_SCORED)}
    assert {c.name: KINDS[c.kind][0] for c in COLUMNS if c.name not in own} == types
    assert all(publishing.describe_columns(tables.engine).values())


def test_no_count_by_class_and_no_suppressed_rate_leaves(
    published: Any, export_to: Any, tmp_path: Path
) -> None:
    export_to(tmp_path)
    names = {column.name for column in COLUMNS}
    assert not names & {"called_happy", "called_sad", "called_neither", "totals", "hours"}
    (few,) = (row for row in read_rows(tmp_path) if row["images"] == 20)
    assert (few["last_day"], few["verdict"]) == (TOO_FEW, "suppressed")
    assert [few[name] for name in names if "_rate" in name and name != "target_rate"] == [None] * 13


def test_duckdb_pandas_and_pyarrow_read_typed_columns(
    published: Any, export_to: Any, tmp_path: Path
) -> None:
    """With the types of dates, of times with a zone, and of an id that looks like a number."""
    export_to(tmp_path)
    root = tmp_path / "satisfaction" / "schema=1"

    for options in ("", ", hive_partitioning = true"):
        (row,) = duckdb.sql(
            "SELECT facility_id, last_day, happy_rate, is_complete, faces, created_at, period"  # noqa: S608
            f" FROM read_parquet('{tmp_path}/{GLOB}'{options})"
            " WHERE facility_id = '007' AND period = 'four weeks'"
        ).fetchall()
        assert (row[0], row[1], row[3], row[4]) == ("007", date(2026, 3, 1), True, 400)
        assert isinstance(row[2], float)
        assert row[5].tzinfo is not None
        # Folders that the reader does not need are skipped.
        assert duckdb.sql(
            f"SELECT count(*) FROM read_parquet('{tmp_path}/{GLOB}',"  # noqa: S608
            " hive_partitioning = true)"
            " WHERE facility = 'north-mall' AND span = 'week' AND month = '2026-02'"
        ).fetchall() == [(3,)]

    frame = pd.read_parquet(root)
    assert len(frame) == 66
    assert str(frame["created_at"].dtype) == "datetime64[us, UTC]"
    assert frame["happy_rate"].dtype == "float64"
    assert frame["is_complete"].dtype == "bool"
    assert set(frame["facility_id"]) == {"007", "north-mall"}
    assert set(map(type, frame["last_day"])) == {date}
    weeks = pd.read_parquet(root, filters=[("period", "==", "week")])
    trend = weeks.pivot(index="last_day", columns="facility_name", values="happy_rate")
    assert trend.shape == (4, 2)
    assert '=HYPERLINK("x") Ä, "B"' in set(frame["facility_name"])

    table = pq.read_table(root)
    assert table.schema.field("first_day").type == pa.date32()
    assert table.schema.field("created_at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("facility_id").type == pa.string()
    assert table.schema.field("faces").type == pa.int64()


def test_each_file_tells_its_schema_and_what_its_columns_mean(
    published: Any, export_to: Any, tmp_path: Path
) -> None:
    export_to(tmp_path)
    file = tmp_path / (
        "satisfaction/schema=1/span=four-weeks/facility=007/month=2026-03/satisfaction.parquet"
    )
    schema = pq.read_schema(file)
    assert schema.names == [column.name for column in COLUMNS]
    assert schema.metadata[b"fer_batch.schema"] == b"1"
    assert schema.metadata[b"fer_batch.period"] == b"four weeks"
    meaning = schema.field("happy_rate").metadata[b"description"].decode()
    assert meaning.startswith("Share (0 to 1) of all faces")


def test_what_did_not_change_is_not_written_again(
    published: Any, export_to: Any, tmp_path: Path
) -> None:
    first = export_to(tmp_path)
    assert (first.written, first.deleted, first.unchanged) == (FILES, 0, 0)
    before = read_files(tmp_path)
    again = export_to(tmp_path)
    assert (again.written, again.deleted, again.unchanged) == (0, 0, FILES)
    assert read_files(tmp_path) == before


def test_a_revision_of_an_old_day_replaces_its_months_only(
    published: Any, export_to: Any, tmp_path: Path
) -> None:
    export_to(tmp_path)
    published.write_day(draw_clusters(7, 900), DAYS[0])
    assert export_to(tmp_path).written == 1
    days = [
        r
        for r in read_rows(tmp_path)
        if (r["facility_id"], r["last_day"]) == ("north-mall", DAYS[0])
    ]
    assert [(r["period"], r["revision"], r["faces"]) for r in days] == [("day", 2, 900)]
    assert read_marker(tmp_path)["is_complete"]


def test_a_withdrawn_day_leaves_and_its_empty_months_with_their_folders(
    published: Any, export_to: Any, tables: Any, tmp_path: Path
) -> None:
    export_to(tmp_path)
    other = tmp_path / "satisfaction/schema=1/span=day/facility=007/_notes.txt"
    other.write_text("not ours")
    tables.execute(
        "DELETE FROM fer.satisfaction_summary WHERE facility_id = '007'"
        " AND (period <> 'day' OR capture_day < '2026-03-01')"
    )
    done = export_to(tmp_path)
    assert (done.written, done.deleted) == (0, 4)
    left = [r["last_day"] for r in read_rows(tmp_path) if r["facility_id"] == "007"]
    assert left == [date(2026, 3, 1)]
    assert other.exists()
    assert not (tmp_path / "satisfaction/schema=1/span=week/facility=007").exists()


def test_an_erased_day_of_long_ago_loses_its_rate_with_the_next_export(
    tables: Any, export_to: Any, tmp_path: Path
) -> None:
    tables.fill(100, 50)
    tables.summarize()
    export_to(tmp_path)
    assert read_rows(tmp_path)[0]["happy_rate"] is not None
    erasure.erase(
        tables.eraser, erasure.Target("north-mall", tables.batch.capture_day), None, SECRET
    )
    export_to(tmp_path)
    (row,) = (row for row in read_rows(tmp_path) if row["period"] == "day")
    assert (row["verdict"], row["happy_rate"], row["not_scored_erased"]) == (
        "suppressed",
        None,
        150,
    )


def test_another_name_or_group_reaches_every_file(
    published: Any, export_to: Any, tables: Any, tmp_path: Path
) -> None:
    export_to(tmp_path)
    tables.add("007", name="Bond", group="spies")
    assert export_to(tmp_path).written == FILES // 2
    rows = [row for row in read_rows(tmp_path) if row["facility_id"] == "007"]
    assert {(row["facility_name"], row["group_name"]) for row in rows} == {("Bond", "spies")}


def test_a_range_is_written_anew_and_the_rest_is_left_alone(
    published: Any, export_to: Any, tmp_path: Path
) -> None:
    march = export_to(tmp_path, first_day=date(2026, 3, 15), last_day=date(2026, 3, 31))
    assert march.written == 6  # of each facility: a day, a week, and four weeks
    assert {row["last_day"].month for row in read_rows(tmp_path)} == {3}
    one = export_to(tmp_path, facility_ids=["007"], last_day=date(2026, 2, 1))
    assert (one.written, one.deleted, one.unchanged) == (2, 0, 0)
    assert export_to(tmp_path, last_day=date(2026, 2, 28)).written == 4
    assert export_to(tmp_path).unchanged == FILES
    with pytest.raises(ConfigurationError, match=r"unknown facility: oo7.*Known: 007, north-mall"):
        export_to(tmp_path, facility_ids=["oo7"])


class Breaking(LocalFolder):
    """A folder that fails after some files, and asserts what a reader may see at any time."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path)
        self.left = after

    def write(self, name: str, content: str | bytes) -> None:
        if name.endswith(".parquet"):
            assert not read_marker(self.path)["is_complete"]
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device", name)
        super().write(name, content)


def test_an_export_that_fails_says_so_and_the_next_one_completes_it(
    published: Any, export_to: Any, tables: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(publishing, "CHUNK_FILES", 2)
    monkeypatch.setattr(publishing, "THREADS", 1)
    with pytest.raises(OSError, match="No space left"):
        publishing.export(tables.engine, [Breaking(tmp_path, after=5)])
    assert not read_marker(tmp_path)["is_complete"]
    assert len(read_rows(tmp_path)) > 0  # whole files
    # A range does not complete the other files.
    export_to(tmp_path, first_day=date(2026, 3, 1))
    assert not read_marker(tmp_path)["is_complete"]
    done = export_to(tmp_path)
    assert done.unchanged >= 4  # those of the chunks that were finished
    assert read_marker(tmp_path)["is_complete"]
    assert len(read_rows(tmp_path)) == 66


def test_a_file_that_was_deleted_or_a_damaged_marker_is_repaired(
    published: Any, export_to: Any, tmp_path: Path
) -> None:
    export_to(tmp_path)
    before = read_files(tmp_path)
    next(tmp_path.rglob("*.parquet")).unlink()
    assert export_to(tmp_path).written == 1
    (tmp_path / publishing.MARKER).write_text("{")
    assert export_to(tmp_path).written == FILES
    after = read_files(tmp_path)
    marker = publishing.MARKER
    assert {**after, marker: b""} == {**before, marker: b""}  # the same rows, the same bytes


@pytest.fixture
def bucket_settings(s3_settings: Settings) -> Settings:
    """Keys of their own; those that read images are wrong here."""
    keys = {
        "access_key_id": s3_settings.s3_access_key_id,
        "secret_access_key": s3_settings.s3_secret_access_key,
    }
    return Settings(
        _env_file=None,
        export_url=f"s3://{s3_settings.s3_bucket}/bi/",
        export_endpoint=s3_settings.s3_endpoint,
        s3_endpoint="http://127.0.0.1:9",
        s3_access_key_id="reads-images",
        s3_secret_access_key="wrong",
        s3_credentials={"export": keys},
    )


def test_a_bucket_gets_the_same_files_as_a_folder(
    published: Any, tables: Any, tmp_path: Path, bucket_settings: Settings, s3: Any
) -> None:
    settings = bucket_settings.model_copy(update={"export_dir": tmp_path})
    opened = places.open_places(settings)
    in_folder, in_bucket = publishing.export(tables.engine, opened)
    assert in_folder.written == in_bucket.written == FILES
    local = read_files(tmp_path)
    listed = s3.client.list_objects(Bucket=s3.bucket, Prefix="bi/")["Contents"]
    objects = {
        each["Key"].removeprefix("bi/"): s3.client.get_object(Bucket=s3.bucket, Key=each["Key"])[
            "Body"
        ].read()
        for each in listed
    }
    marker = publishing.MARKER
    assert {**objects, marker: b""} == {**local, marker: b""}
    assert json.loads(objects[marker])["is_complete"]

    tables.execute("DELETE FROM fer.satisfaction_summary WHERE period = 'four weeks'")
    published.write_day(draw_clusters(7, 900), DAYS[0])
    in_folder, in_bucket = publishing.export(tables.engine, opened)
    assert (in_bucket.written, in_bucket.deleted, in_bucket.unchanged) == (1, 2, FILES - 3)
    table = ds.dataset(
        f"{s3.bucket}/bi/satisfaction/schema=1", filesystem=_open_filesystem(bucket_settings)
    ).to_table()
    assert table.num_rows == 64


def _open_filesystem(settings: Settings) -> Any:
    from pyarrow import fs

    keys = settings.s3_credentials["export"]
    return fs.S3FileSystem(
        access_key=keys.access_key_id,
        secret_key=keys.secret_access_key.get_secret_value(),
        endpoint_override=settings.export_endpoint,
        region="us-east-1",
    )


def test_the_errors_of_a_bucket_name_the_settings_of_the_export(
    bucket_settings: Settings,
) -> None:
    with pytest.raises(ConfigurationError, match="FER_EXPORT_URL is"):
        open_export_folder(bucket_settings, "https://bucket/prefix")
    without = bucket_settings.model_copy(update={"s3_credentials": {}})
    with pytest.raises(ConfigurationError, match="FER_S3_CREDENTIALS__EXPORT__ACCESS_KEY_ID"):
        places.open_places(without)
    nowhere = bucket_settings.model_copy(
        update={"export_endpoint": "http://127.0.0.1:9", "s3_timeout_s": 1.0}
    )
    with pytest.raises(EndpointUnreachableError, match="FER_EXPORT_ENDPOINT"):
        open_export_folder(nowhere, "s3://b/fer").list("")
    with pytest.raises(StorageError, match="FER_EXPORT_URL"):
        open_export_folder(bucket_settings, "s3://no-such-bucket-of-ours/fer").list("")


def test_two_exports_at_once_take_turns(
    published: Any, export_to: Any, tables: Any, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        with tables.transaction() as connection:
            connections.lock(connection, "export")
            waiting = pool.submit(export_to, tmp_path)
            while not tables.is_anyone_waiting():
                assert not waiting.done()
            assert not (tmp_path / publishing.MARKER).exists()
        assert waiting.result().written == FILES
    assert datetime.fromisoformat(read_marker(tmp_path)["written_at"]) < datetime.now(UTC)


@pytest.mark.parametrize(("before", "deleted"), [(date(2026, 3, 1), 4), (date(2026, 2, 10), 0)])
def test_expired_months_are_not_written_again(
    published: Any, export_to: Any, tables: Any, tmp_path: Path, before: date, deleted: int
) -> None:
    """Of two facilities, the days and the weeks of February; a part of a month is left to the next
    export, which writes the file without the expired rows."""
    export_to(tmp_path)
    tables.execute("DELETE FROM fer.satisfaction_change")
    tables.execute("DELETE FROM fer.satisfaction_summary WHERE first_day < :day", day=before)
    place = LocalFolder(tmp_path)
    assert len(publishing.find_expired(place, before)) == deleted
    assert publishing.delete_expired(place, before, nullcontext) == deleted
    assert publishing.delete_expired(place, before, nullcontext) == 0
    marker = read_marker(tmp_path)
    assert marker["is_complete"]
    assert set(marker["files"]) == {n for n in read_files(tmp_path) if n.endswith(".parquet")}
    done = export_to(tmp_path)
    assert (done.deleted > 0, done.written > 0) == (True, deleted == 0)
    assert len(read_rows(tmp_path)) == len(read_views(tables))
    assert min(row["first_day"] for row in read_rows(tmp_path)) >= before
    assert export_to(tmp_path) == publishing.Exported(
        done.place, 0, 0, len(read_marker(tmp_path)["files"])
    )
