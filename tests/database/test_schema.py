"""The schema: its upgrade, partitions, comments and names, and the role of analysts."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database import connections, ledger, schema
from fer_batch.database import tables as declared
from fer_batch.errors import DatabaseError, DatabaseUnavailableError
from fer_batch.records import Outcome
from fer_batch.settings import Settings

DAY = date(2026, 3, 1)


def has_schema(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regnamespace('fer') IS NOT NULL").fetchone()
    return bool(row and row[0])


@pytest.mark.parametrize("change", [{"password": "wrong"}, {"database": "no-such-database"}])
def test_rejected_login_names_the_setting_and_hides_the_password(
    postgres_url: str, change: dict[str, Any]
) -> None:
    url = sa.make_url(postgres_url).set(**change)
    engine = connections.create_engine(url.render_as_string(hide_password=False))
    with pytest.raises(DatabaseError, match="FER_DATABASE_URL") as rejected:
        schema.check_migrated(engine)
    assert str(sa.make_url(postgres_url).password) not in str(rejected.value)


def test_upgrade_makes_an_empty_database_usable(postgres_url: str) -> None:
    engine = connections.create_engine(postgres_url)
    with pytest.raises(DatabaseError, match="fer-batch db upgrade"):
        schema.check_migrated(engine)
    schema.upgrade(Settings(_env_file=None, database_url=postgres_url))
    schema.check_migrated(engine)
    engine.dispose()


def test_missing_tables_name_the_command(postgres_url: str) -> None:
    engine = connections.create_engine(postgres_url)
    with (
        pytest.raises(DatabaseError, match="fer-batch db upgrade"),
        connections.transaction(engine) as connection,
    ):
        schema.ensure_partitions(connection, [DAY])
    engine.dispose()


def test_second_upgrade_keeps_everything(tables: Any) -> None:
    tables.fill(happy=20, sad=20)
    tables.summarize()
    before = tables.query("SELECT * FROM fer.satisfaction_daily")
    schema.upgrade(tables.admin_url)
    assert tables.query("SELECT * FROM fer.satisfaction_daily") == before


def test_concurrent_upgrades_wait_for_each_other(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        revisions = set(pool.map(schema.upgrade, [postgres_url] * 4))
    assert len(revisions) == 1


@pytest.fixture
def copied_sql(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of sql/ in a directory whose name needs escaping in configuration files."""
    copy = tmp_path / "50% off: %(here)s" / "sql"
    shutil.copytree(resources.find_sql_dir(), copy)
    monkeypatch.setattr(resources, "find_sql_dir", lambda: copy)
    schema._list_revisions.cache_clear()
    monkeypatch.chdir(tmp_path)
    return copy


def test_upgrade_works_from_any_directory(postgres_url: str, copied_sql: Path) -> None:
    schema.upgrade(postgres_url)
    schema.check_migrated(connections.create_engine(postgres_url))


def test_failed_upgrade_leaves_nothing_behind(postgres_url: str, copied_sql: Path) -> None:
    (copied_sql / "views" / "9_broken.sql").write_text("CREATE VIEW fer.broken AS SELECT nothing")
    with pytest.raises(DatabaseError, match="nothing"):
        schema.upgrade(postgres_url)
    assert not has_schema(postgres_url)


def test_newer_database_is_not_changed(tables: Any) -> None:
    tables.execute("UPDATE fer.schema_version SET version_num = '9999'")
    for call in (schema.upgrade, lambda _: schema.check_migrated(tables.engine)):
        with pytest.raises(DatabaseError, match=r"9999.*[Nn]ewer fer-batch"):
            call(tables.admin_url)


def test_old_server_is_rejected(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_OLDEST_SERVER", (99,))
    with pytest.raises(DatabaseError, match="needs PostgreSQL 99"):
        schema.upgrade(postgres_url)
    assert not has_schema(postgres_url)


def test_connection_closed_by_the_server_is_a_transient_error(tables: Any) -> None:
    with (
        pytest.raises(DatabaseUnavailableError),
        connections.transaction(tables.engine) as connection,
    ):
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
    schema.check_migrated(tables.engine)  # the pool has dropped the closed connection


def test_slow_statement_is_canceled(database_url: str) -> None:
    settings = Settings(_env_file=None, database_url=database_url, statement_timeout_s=0.05)
    engine = connections.create_engine(settings)
    with (
        pytest.raises(DatabaseUnavailableError, match="FER_STATEMENT_TIMEOUT_S"),
        connections.transaction(engine) as connection,
    ):
        connection.execute(sa.text("SELECT pg_sleep(60)"))
    engine.dispose()


def test_sessions_are_utc_and_read_committed_whatever_the_server_default(tables: Any) -> None:
    with tables.admin.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        name = connection.execute(sa.text("SELECT quote_ident(current_database())")).scalar_one()
        for setting in (
            "timezone = 'Asia/Tokyo'",
            "default_transaction_isolation = 'serializable'",
        ):
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting}")
    tables.dispose()
    assert tables.query("SHOW timezone") == [("UTC",)]
    assert tables.query("SHOW transaction_isolation") == [("read committed",)]


# Partitions


def partitions(tables: Any) -> list[str]:
    rows = tables.query(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE relkind = 'r' ORDER BY 1"
    )
    return [name for (name,) in rows]


def test_partitions_are_created_once(tables: Any) -> None:
    with tables.transaction() as connection:
        assert schema.ensure_partitions(connection, [DAY, DAY]) == 3
        assert schema.ensure_partitions(connection, [DAY, DAY + timedelta(1)]) == 3
        assert schema.ensure_partitions(connection, []) == 0
    assert partitions(tables) == [
        f"{name}_2026_03_0{day}"
        for name in ("face_result", "image", "image_result")
        for day in (1, 2)
    ]


def test_concurrent_sessions_create_partitions_once(tables: Any) -> None:
    with ThreadPoolExecutor(1) as pool, tables.transaction() as first:

        def second() -> int:
            with connections.transaction(tables.engine) as connection:
                return schema.ensure_partitions(connection, [DAY])

        assert schema.ensure_partitions(first, [DAY]) == 3
        waiting = pool.submit(second)
        while not tables.is_anyone_waiting():
            assert not waiting.done()
        first.commit()
        assert waiting.result(30) == 0
    assert len(partitions(tables)) == 3


def test_new_partition_does_not_wait_for_readers(tables: Any) -> None:
    tables.list(["a.jpg"])
    with tables.engine.connect() as reader:
        reader.execute(sa.text("SELECT * FROM fer.image")).all()
        with tables.transaction() as connection:
            connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
            assert schema.ensure_partitions(connection, [DAY + timedelta(1)]) == 3
            # readers do not wait for it either while it is not committed
            reader.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
            assert len(reader.execute(sa.text("SELECT * FROM fer.image")).all()) == 1


def test_each_day_has_its_own_partition_and_a_query_reads_only_that(tables: Any) -> None:
    tables.list(["a.jpg"])
    tables.list(["b.jpg"], type(tables.batch)("north-mall", DAY + timedelta(1)))
    assert tables.query("SELECT image_key FROM fer.image_2026_03_02") == [("b.jpg",)]
    params = {"from_key": "a", "to_key": "z", "after_key": "", "page_size": 10}
    params |= {"facility_id": "north-mall", "capture_day": DAY, "model_version": "a" * 64}
    statement = ledger._STATEMENTS["list_unfinished"].text
    plan = tables.query(f"EXPLAIN {statement}", rescore_before=None, **params)
    text = "\n".join(line for (line,) in plan)
    assert "image_2026_03_01" in text
    assert "2026_03_02" not in text
    # The bounds of the page apply to both tables; otherwise each page would read one of them from
    # the start of the day.
    assert text.count("image_key >= ") == 2


def test_new_rows_are_analyzed_once(tables: Any) -> None:
    statistics = """
        SELECT reltuples::int, pg_stat_get_analyze_count(oid)
        FROM pg_class WHERE oid = 'fer.image_2026_03_01'::regclass"""
    tables.list([f"{n}.jpg" for n in range(300)])
    tables.list(["a.jpg"], type(tables.batch)("north-mall", DAY + timedelta(1)))
    # Changes of an open session are counted with a delay of up to a second.
    tables.engine.dispose()
    changed = "SELECT pg_stat_get_mod_since_analyze('fer.image_2026_03_01'::regclass)"
    while tables.query(changed) != [(300,)]:
        time.sleep(0.02)
    schema.analyze(tables.engine, [DAY])
    ((rows, times),) = tables.query(statistics)
    assert rows == 300
    schema.analyze(tables.engine, [DAY])
    assert tables.query(statistics) == [(300, times)]
    other = tables.query("SELECT reltuples FROM pg_class WHERE relname = 'image_2026_03_02'")
    assert other == [(-1,)]  # that day was not to be analyzed


# Comments and names


def test_every_table_column_and_function_has_a_comment(tables: Any) -> None:
    tables.list(["a.jpg"])  # so that partitions are checked, too
    missing = tables.query(
        """
        SELECT c.relname, a.attname
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'fer'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND coalesce(col_description(c.oid, a.attnum), '') = ''
        UNION ALL
        SELECT c.relname, '' FROM pg_class AS c
        WHERE c.relnamespace = 'fer'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND coalesce(obj_description(c.oid), '') = ''
        UNION ALL
        SELECT p.proname, '()' FROM pg_proc AS p
        WHERE p.pronamespace = 'fer'::regnamespace AND coalesce(obj_description(p.oid), '') = ''
        """
    )
    assert missing == []


def test_names_follow_the_rules(tables: Any) -> None:
    columns = tables.query(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'fer' AND table_name <> 'schema_version'"
    )
    assert len(columns) > 100
    for table, column, kind in columns:
        name = f"{table}.{column}"
        assert (kind == "boolean") == column.startswith(("is_", "has_")), name
        assert (kind == "timestamp with time zone") == column.endswith(("_at", "_at_utc")), name
        assert (kind == "date") == column.endswith(("_day", "_until")), name
        assert "timestamp without" not in kind, name
        if column.endswith(("_rate", "_rate_low", "_rate_high", "_change", "_value")):
            assert kind == "double precision", name
        if column.startswith("p_"):
            assert kind == "real", name
    keys = tables.query(
        "SELECT DISTINCT collation_name FROM information_schema.columns"
        " WHERE table_schema = 'fer' AND column_name IN"
        " ('facility_id', 'image_key', 'member', 'model_version')"
    )
    assert keys == [("C",)]


def test_declared_tables_match_the_migrations(tables: Any) -> None:
    def shape(columns: Any) -> list[tuple[str, str, bool, bool]]:
        dialect = tables.engine.dialect
        return [
            (c.name, c.type.compile(dialect=dialect), c.nullable, c.primary_key) for c in columns
        ]

    for table in declared.METADATA.tables.values():
        migrated = sa.Table(table.name, sa.MetaData(), autoload_with=tables.engine, schema="fer")
        assert shape(table.columns) == shape(migrated.columns), table.name


def test_outcomes_match_the_code(tables: Any) -> None:
    allowed = tables.query(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'fer.image_result'::regclass AND conname = 'image_result_outcome_check'"
    )
    for outcome in Outcome:
        assert f"'{outcome.value}'" in allowed[0][0]
    assert allowed[0][0].count("::text") == len(Outcome)
    final = tables.query(
        "SELECT o, fer.is_final(o, 'e', 'e', now(), now(), NULL)"
        " FROM unnest(CAST(:all AS text[])) AS o",
        all=[o.value for o in Outcome],
    )
    assert {outcome for outcome, is_final in final if not is_final} == {"changed", "fetch_failed"}
