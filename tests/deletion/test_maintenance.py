"""Maintenance: each kind of data is deleted when it is older than its period, and nothing else."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch.database import schema
from fer_batch.deletion import maintenance, retention
from fer_batch.deletion.expired import Expired
from fer_batch.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    FerError,
    LockTimeoutError,
    PermanentError,
    RetryableError,
)
from fer_batch.pipeline import checks
from fer_batch.records import Batch
from fer_batch.satisfaction import comparisons, periods
from fer_batch.settings import Settings
from tests.deletion.conftest import list_partitions
from tests.fixtures.servers import RETAINER, build_settings
from tests.fixtures.tables import VERSION

TODAY = date(2026, 11, 30)
IMAGES, SUMMARIES, FINDINGS, RUNS = 400, 1095, 400, 400  # the default periods, in days
IMAGE_AGES = (*range(390, 405), 2)
"""How many days ago the generated days with rows per image were."""


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


@pytest.fixture
def settings(tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a maintenance on `TODAY`, the day after the last generated one."""
    inspect = f"SELECT true AS may_delete, date '{TODAY}' AS today"
    statements = {**maintenance._STATEMENTS, "inspect": sa.text(inspect)}
    monkeypatch.setattr(maintenance, "_STATEMENTS", statements)
    return build_settings(tables.retainer_url, report_dir=tmp_path / "reports")


@pytest.fixture
def years(tables: Any) -> Any:
    """Three years of a facility, until yesterday."""
    yesterday = Batch("north-mall", ago(1))
    tables.fill(30, 10, yesterday)
    tables.summarize(yesterday)
    days = [ago(age) for age in IMAGE_AGES]
    with tables.admin.begin() as connection:
        schema.ensure_partitions(connection, days)
        create = "CREATE TEMPORARY TABLE partition_day AS SELECT unnest(:days) AS capture_day"
        connection.execute(sa.text(create), {"days": days})
        schema.run_script(connection, Path(__file__).with_name("years.sql"))
    return tables


def by_kind(rows: list[Expired]) -> dict[str, int]:
    return {row.kind: row.count for row in rows if row.unit != "files"}


def count_all(tables: Any) -> dict[str, tuple[int, date]]:
    """The number of rows of each table and their oldest day."""
    of = {
        "image": "capture_day",
        "face_result": "capture_day",
        "satisfaction_summary": "first_day",
        "satisfaction_change": "capture_day",
        "batch": "capture_day",
        "run": "began_at::date",
        "finished_night": "capture_day",
        "digest_delivery": "capture_day",
        "checked_day": "capture_day",
        "finding": "last_day",
        "finding_day": "capture_day",
        "audit": "expiry_day",
    }
    return {
        table: tables.query(f"SELECT count(*), min({day}) FROM fer.{table}")[0]  # noqa: S608
        for table, day in of.items()
    }


def test_what_is_older_than_its_period_is_deleted_once(
    years: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = years
    before = count_all(tables)
    found, errors = maintenance.find(settings, TODAY)
    assert errors == []
    assert by_kind(found)["rows per image and face"] == sum(age > IMAGES for age in IMAGE_AGES)
    assert count_all(tables) == before  # a dry run
    assert tables.query("SELECT * FROM fer.retention") == []

    # A reader keeps the days of images; all other kinds are deleted.
    monkeypatch.setattr(retention, "PATIENCE_S", 0)
    with tables.engine.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM fer.image WHERE capture_day = '2026-11-29'"))
        deleted, errors = maintenance.delete(settings, TODAY)
    assert [type(error) for error in errors] == [LockTimeoutError]
    expected = by_kind(found)
    assert by_kind(deleted) == {k: n for k, n in expected.items() if "image" not in k}
    assert count_all(tables)["image"] == before["image"]

    deleted, errors = maintenance.delete(settings, TODAY)
    assert (by_kind(deleted), errors) == ({k: n * ("image" in k) for k, n in expected.items()}, [])
    assert "image" in deleted[-1].kind  # which may take hours: no other kind waits for it
    after = count_all(tables)
    oldest = {table: day for table, (_, day) in after.items()}
    assert oldest == {
        **{table: ago(IMAGES) for table in ("image", "face_result", "finding_day", "checked_day")},
        "satisfaction_summary": ago(SUMMARIES),
        "satisfaction_change": ago(SUMMARIES - 1),
        **{table: ago(RUNS) for table in ("batch", "run", "finished_night", "digest_delivery")},
        "finding": ago(FINDINGS),
        "audit": ago(SUMMARIES),
    }
    deleted, errors = maintenance.delete(settings, TODAY)
    assert (set(by_kind(deleted).values()), errors) == ({0}, [])
    assert count_all(tables) == after
    assert len(list_partitions(tables)) == 3 * (sum(age <= IMAGES for age in IMAGE_AGES) + 1)

    daily = "SELECT min(capture_day), count(*) FROM fer.satisfaction_daily"
    assert tables.query(daily) == [(ago(SUMMARIES), SUMMARIES)]
    weekly = "SELECT min(first_day) FROM fer.satisfaction_period"
    assert tables.query(weekly) == [(date(2023, 12, 4),)]  # the first Monday of these days
    batches = [Batch("north-mall", ago(age)) for age in (1, 2, IMAGES)]
    findings = checks.check_data(tables.engine, batches, VERSION, "run-1", settings)
    assert [each for each in findings if each["check"].startswith("summary")] == []


def test_a_period_with_a_deleted_day_is_never_written_again(
    tables: Any, settings: Settings
) -> None:
    """Its figure would lack that day. The periods and changes after it are written."""
    days = [Batch("north-mall", date(2026, 3, 2) + timedelta(n)) for n in range(14)]  # from Monday
    for batch in days:
        tables.fill(40, 20, batch)
    tables.summarize(*days)

    def write_periods() -> None:
        with tables.transaction() as connection:
            for write in (periods.write_period_summaries, comparisons.write_changes):
                write(connection, days, tables.facilities, "run-2")

    write_periods()
    ends = "SELECT capture_day FROM fer.satisfaction_summary WHERE period = 'week' ORDER BY 1"
    changes = (
        "SELECT period, capture_day, comparison FROM fer.satisfaction_change"
        " WHERE capture_day < '2026-03-06' OR period = 'week' ORDER BY 1, 2, 3"
    )
    assert tables.query(ends) == [(days[6].capture_day,), (days[13].capture_day,)]
    assert ("week", days[13].capture_day, "period before") in tables.query(changes)

    since = days[2].capture_day  # Wednesday
    age = (TODAY - since).days
    short = build_settings(
        tables.retainer_url,
        report_dir=settings.report_dir,
        retention_days=age,
        summary_retention_days=age,
    )
    assert maintenance.delete(short, TODAY, after_pause=True)[1] == []
    kept = [("day", days[3].capture_day, "period before")]
    for _ in range(2):
        assert tables.query(ends) == [(days[13].capture_day,)]
        assert tables.query(changes)[:1] == kept
        write_periods()
    assert tables.summarize(days[1]) == []
    assert tables.query("SELECT min(capture_day) FROM fer.satisfaction_summary") == [(since,)]


def test_a_wrong_clock_deletes_nothing_for_good(tables: Any, tmp_path: Path) -> None:
    tables.fill(1, 1)
    settings = build_settings(tables.retainer_url, report_dir=tmp_path)
    ((today,),) = tables.query("SELECT (now() AT TIME ZONE 'UTC')::date")
    for days in (-30, 30, 1000):
        for run in (maintenance.find, maintenance.delete):
            with pytest.raises(ConfigurationError, match=f"but {today} by that of the database"):
                run(settings, today + timedelta(days))
    # Nor does the login, whatever it sends.
    insert = sa.text("INSERT INTO fer.retention (kind, before_day) VALUES (:kind, :before)")
    for before in ("infinity", str(today + timedelta(2))):
        for kind in ("rows", "summaries"):
            with (
                pytest.raises(sa.exc.IntegrityError, match="retention_not_in_future"),
                tables.connect(RETAINER).begin() as connection,
            ):
                connection.execute(insert, {"kind": kind, "before": before})
    assert tables.query("SELECT * FROM fer.retention") == []
    assert tables.query("SELECT count(*) FROM fer.image") == [(2,)]


def set_clocks(monkeypatch: pytest.MonkeyPatch, today: date) -> date:
    """Set the clock of the database too, as on one host."""
    inspect = sa.text(f"SELECT true AS may_delete, date '{today}' AS today")
    statements = {**maintenance._STATEMENTS, "inspect": inspect}
    monkeypatch.setattr(maintenance, "_STATEMENTS", statements)
    return today


def test_a_clock_that_worker_and_database_share_deletes_nothing_either(
    tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((today,),) = tables.query("SELECT (now() AT TIME ZONE 'UTC')::date")
    settings = build_settings(tables.retainer_url, report_dir=tmp_path)
    last, closed = (Batch("north-mall", today - timedelta(days)) for days in (431, 1))
    tables.fill(1, 1, last)
    tables.list([], closed)  # nights go on, and find no image
    for ahead in (0, 1000):
        day = set_clocks(monkeypatch, today + timedelta(ahead))
        for run in (maintenance.find, maintenance.delete):
            with pytest.raises(ConfigurationError, match=f"it is {day} .* {last.capture_day}:"):
                run(settings, day)
    assert tables.query("SELECT * FROM fer.retention") == []
    assert tables.query("SELECT count(*) FROM fer.image") == [(2,)]

    day = set_clocks(monkeypatch, today)
    assert maintenance.delete(settings, day, after_pause=True)[1] == []
    assert tables.query("SELECT count(*) FROM fer.image") == [(0,)]
    assert maintenance.delete(settings, day)[1] == []  # it runs every day, without any image


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([LockTimeoutError("busy")], LockTimeoutError),
        ([LockTimeoutError("busy"), DatabaseUnavailableError("gone")], RetryableError),
        ([LockTimeoutError("busy"), DatabaseError("refused")], PermanentError),
    ],
)
def test_a_transient_error_is_retried_only_if_all_are(
    errors: list[FerError], kind: type[FerError]
) -> None:
    joined = maintenance.join_errors(errors)
    assert type(joined) is kind
    assert all(str(error) in str(joined) for error in errors)
