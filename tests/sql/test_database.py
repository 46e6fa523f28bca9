"""The schema: how it comes into being, its partitions, its words, and who may read it."""

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

from fer_batch import database, resources
from fer_batch import tables as declared
from fer_batch.errors import DatabaseError, DatabaseUnavailableError
from fer_batch.records import Outcome
from fer_batch.settings import Settings

DAY = date(2026, 3, 1)


def has_schema(url: str) -> bool:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT to_regnamespace('fer') IS NOT NULL").fetchone()
    return bool(found and found[0])


@pytest.mark.parametrize("change", [{"password": "wrong"}, {"database": "no-such-database"}])
def test_refused_login_names_the_setting_and_hides_the_password(
    postgres_url: str, change: dict[str, str]
) -> None:
    url = sa.make_url(postgres_url).set(**change)
    engine = database.engine(url.render_as_string(hide_password=False))
    with pytest.raises(DatabaseError, match="FER_DATABASE_URL") as refused:
        database.check_migrated(engine)
    assert str(sa.make_url(postgres_url).password) not in str(refused.value)


def test_upgrade_makes_an_empty_database_usable(postgres_url: str) -> None:
    engine = database.engine(postgres_url)
    with pytest.raises(DatabaseError, match="fer-batch db upgrade"):
        database.check_migrated(engine)
    database.upgrade(Settings(_env_file=None, database_url=postgres_url))
    database.check_migrated(engine)
    engine.dispose()


def test_missing_tables_name_the_command(postgres_url: str) -> None:
    engine = database.engine(postgres_url)
    with (
        pytest.raises(DatabaseError, match="fer-batch db upgrade"),
        database.transaction(engine) as connection,
    ):
        database.ensure_partitions(connection, [DAY])
    engine.dispose()


def test_second_upgrade_keeps_everything(tables: Any) -> None:
    tables.fill(happy=20, sad=20)
    tables.summarise()
    before = tables.rows("SELECT * FROM fer.satisfaction_daily")
    database.upgrade(tables.url)
    assert tables.rows("SELECT * FROM fer.satisfaction_daily") == before


def test_upgrades_at_once_wait_for_each_other(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        revisions = set(pool.map(database.upgrade, [postgres_url] * 4))
    assert len(revisions) == 1


@pytest.fixture
def copied_sql(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of sql/ at another place, with a name that is awkward for configuration files."""
    copy = tmp_path / "50% off: %(here)s" / "sql"
    shutil.copytree(resources.sql_dir(), copy)
    monkeypatch.setattr(resources, "sql_dir", lambda: copy)
    for cached in (database.script, database.statement, database._revisions):
        cached.cache_clear()
    monkeypatch.chdir(tmp_path)
    return copy


def test_upgrade_runs_from_wherever_the_sql_lies(postgres_url: str, copied_sql: Path) -> None:
    database.upgrade(postgres_url)
    database.check_migrated(database.engine(postgres_url))


def test_failed_upgrade_leaves_nothing_behind(postgres_url: str, copied_sql: Path) -> None:
    (copied_sql / "views" / "9_broken.sql").write_text("CREATE VIEW fer.broken AS SELECT nothing")
    with pytest.raises(DatabaseError, match="nothing"):
        database.upgrade(postgres_url)
    assert not has_schema(postgres_url)


def test_newer_database_is_left_alone(tables: Any) -> None:
    tables.execute("UPDATE fer.schema_version SET version_num = '9999'")
    for call in (database.upgrade, lambda _: database.check_migrated(tables.engine)):
        with pytest.raises(DatabaseError, match=r"9999.*[Nn]ewer fer-batch"):
            call(tables.url)


def test_server_that_is_too_old_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_OLDEST_SERVER", (99,))
    with pytest.raises(DatabaseError, match="needs PostgreSQL 99"):
        database.upgrade(postgres_url)
    assert not has_schema(postgres_url)


def test_connection_cut_by_the_server_may_be_tried_again(tables: Any) -> None:
    with pytest.raises(DatabaseUnavailableError), database.transaction(tables.engine) as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
    database.check_migrated(tables.engine)  # the pool has let go of the dead connection


def test_statement_that_takes_too_long_is_ended(database_url: str) -> None:
    settings = Settings(_env_file=None, database_url=database_url, statement_timeout_s=0.05)
    engine = database.engine(settings)
    with (
        pytest.raises(DatabaseUnavailableError, match="FER_STATEMENT_TIMEOUT_S"),
        database.transaction(engine) as connection,
    ):
        connection.execute(sa.text("SELECT pg_sleep(60)"))
    engine.dispose()


def test_sessions_are_utc_and_read_committed_whatever_the_server_says(tables: Any) -> None:
    with tables.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        name = connection.execute(sa.text("SELECT quote_ident(current_database())")).scalar_one()
        for setting in (
            "timezone = 'Asia/Tokyo'",
            "default_transaction_isolation = 'serializable'",
        ):
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting}")
    tables.engine.dispose()
    assert tables.rows("SHOW timezone") == [("UTC",)]
    assert tables.rows("SHOW transaction_isolation") == [("read committed",)]


# Partitions


def partitions(tables: Any) -> list[str]:
    found = tables.rows(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE relkind = 'r' ORDER BY 1"
    )
    return [name for (name,) in found]


def test_partitions_are_created_once(tables: Any) -> None:
    with tables.transaction() as connection:
        assert database.ensure_partitions(connection, [DAY, DAY]) == 3
        assert database.ensure_partitions(connection, [DAY, DAY + timedelta(1)]) == 3
        assert database.ensure_partitions(connection, []) == 0
    assert partitions(tables) == [
        f"{name}_2026_03_0{day}"
        for name in ("face_result", "image", "image_result")
        for day in (1, 2)
    ]


def test_partitions_wanted_by_two_sessions_at_once_are_created_once(tables: Any) -> None:
    with ThreadPoolExecutor(1) as pool, tables.transaction() as first:

        def second() -> int:
            with database.transaction(tables.engine) as connection:
                return database.ensure_partitions(connection, [DAY])

        assert database.ensure_partitions(first, [DAY]) == 3
        waiting = pool.submit(second)
        while not tables.someone_waits():
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
            assert database.ensure_partitions(connection, [DAY + timedelta(1)]) == 3
            # and readers do not wait for it while it is not committed
            reader.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
            assert len(reader.execute(sa.text("SELECT * FROM fer.image")).all()) == 1


def test_each_day_goes_to_its_own_partition_and_a_question_reads_only_that(tables: Any) -> None:
    tables.list(["a.jpg"])
    tables.list(["b.jpg"], type(tables.batch)("north-mall", DAY + timedelta(1)))
    assert tables.rows("SELECT image_key FROM fer.image_2026_03_02") == [("b.jpg",)]
    question = {"from_key": "a", "to_key": "z", "after_key": "", "page_size": 10}
    question |= {"facility_id": "north-mall", "capture_day": DAY, "model_version": "a" * 64}
    plan = tables.rows("EXPLAIN " + database.script("work"), rescore_before=None, **question)
    text = "\n".join(line for (line,) in plan)
    assert "image_2026_03_01" in text
    assert "2026_03_02" not in text
    # The bounds of the page reach both tables, else each page reads one from the day's start.
    assert text.count("image_key >= ") == 2


def test_the_planner_hears_of_the_rows_of_a_night_and_only_once(tables: Any) -> None:
    looked = """
        SELECT reltuples::int, pg_stat_get_analyze_count(oid)
        FROM pg_class WHERE oid = 'fer.image_2026_03_01'::regclass"""
    tables.list([f"{n}.jpg" for n in range(300)])
    tables.list(["a.jpg"], type(tables.batch)("north-mall", DAY + timedelta(1)))
    # What a session has changed is counted with a delay of up to a second while it goes on.
    tables.engine.dispose()
    changed = "SELECT pg_stat_get_mod_since_analyze('fer.image_2026_03_01'::regclass)"
    while tables.rows(changed) != [(300,)]:
        time.sleep(0.02)
    database.analyse(tables.engine, [DAY])
    ((rows, times),) = tables.rows(looked)
    assert rows == 300
    database.analyse(tables.engine, [DAY])
    assert tables.rows(looked) == [(300, times)]
    other = tables.rows("SELECT reltuples FROM pg_class WHERE relname = 'image_2026_03_02'")
    assert other == [(-1,)]  # nobody asked about that day


# Words


def test_every_table_column_and_function_is_explained(tables: Any) -> None:
    tables.list(["a.jpg"])  # so that partitions are looked at, too
    missing = tables.rows(
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
    columns = tables.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'fer' AND table_name <> 'schema_version'"
    )
    assert len(columns) > 100
    for table, column, kind in columns:
        name = f"{table}.{column}"
        assert (kind == "boolean") == column.startswith(("is_", "has_")), name
        assert (kind == "timestamp with time zone") == column.endswith("_at"), name
        assert (kind == "date") == column.endswith(("_day", "_until")), name
        assert "timestamp without" not in kind, name
        if column.endswith(("_share", "_share_low", "_share_high")):
            assert kind == "double precision", name
        if column.startswith("p_"):
            assert kind == "real", name
    keys = tables.rows(
        "SELECT DISTINCT collation_name FROM information_schema.columns"
        " WHERE table_schema = 'fer' AND column_name IN"
        " ('facility_id', 'image_key', 'member', 'model_version')"
    )
    assert keys == [("C",)]


def test_declared_tables_are_those_of_the_migrations(tables: Any) -> None:
    def shape(columns: Any) -> list[tuple[str, str, bool, bool]]:
        dialect = tables.engine.dialect
        return [
            (c.name, c.type.compile(dialect=dialect), c.nullable, c.primary_key) for c in columns
        ]

    for table in declared.METADATA.tables.values():
        found = sa.Table(table.name, sa.MetaData(), autoload_with=tables.engine, schema="fer")
        assert shape(table.columns) == shape(found.columns), table.name


def test_closed_lists_are_those_of_the_code(tables: Any) -> None:
    allowed = tables.rows(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'fer.image_result'::regclass AND conname = 'image_result_outcome_check'"
    )
    for outcome in Outcome:
        assert f"'{outcome.value}'" in allowed[0][0]
    assert allowed[0][0].count("::text") == len(Outcome)
    final = tables.rows(
        "SELECT o, fer.is_final(o, 'e', 'e', now(), now(), NULL)"
        " FROM unnest(CAST(:all AS text[])) AS o",
        all=[o.value for o in Outcome],
    )
    assert {outcome for outcome, is_final in final if not is_final} == {"changed", "fetch_failed"}


# Analysts


def test_analysts_read_everything_and_write_nothing(tables: Any) -> None:
    role = resources.sql_dir() / "roles" / "analyst.sql"
    for _ in range(2):
        with tables.transaction() as connection:
            database.run_script(connection, role)
    tables.fill(happy=20, sad=20)  # a partition that did not exist when rights were given
    tables.execute("CREATE VIEW fer.later AS SELECT 1 AS one")
    with tables.engine.connect() as connection:
        connection.execute(sa.text("GRANT fer_analyst TO CURRENT_USER"))
        connection.execute(sa.text("SET ROLE fer_analyst"))
        for name in ("satisfaction_daily", "facility", "image", "face_result", "later"):
            connection.execute(
                sa.select(sa.literal_column("*")).select_from(sa.table(name, schema="fer"))
            )
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            connection.execute(sa.text("DELETE FROM fer.image"))
    rights = tables.rows(
        "SELECT relname, privilege, has_table_privilege('fer_analyst', c.oid, privilege) AS has"
        " FROM pg_class AS c,"
        " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege"
        " WHERE relnamespace = 'fer'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
    )
    assert len({row.relname for row in rights}) > 15
    # A partition is read through its table; of a CNN all but the bytes, see below.
    whole = {row.relname for row in rights if (row.privilege, row.has) == ("SELECT", True)}
    unread = {row.relname for row in rights} - whole
    assert unread == {"cnn"}
    assert not [row for row in rights if row.privilege != "SELECT" and row.has]


def test_analysts_read_of_a_cnn_everything_but_its_bytes(tables: Any) -> None:
    role = resources.sql_dir() / "roles" / "analyst.sql"
    with tables.transaction() as connection:
        database.run_script(connection, role)
    with tables.engine.connect() as connection:
        connection.execute(sa.text("GRANT fer_analyst TO CURRENT_USER"))
        connection.execute(sa.text("SET ROLE fer_analyst"))
        connection.execute(sa.text("SELECT cnn_sha256, card, registered_at FROM fer.cnn"))
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            connection.execute(sa.text("SELECT artefact FROM fer.cnn"))


def test_an_upgrade_keeps_the_bytes_of_cnns_from_analysts_who_were_there_before(
    postgres_url: str,
) -> None:
    """The role and its default privileges are of a database at the first migration."""
    engine = database.engine(postgres_url)
    first = resources.sql_dir() / "migrations" / "versions" / "0001_first.sql"
    with database.transaction(engine) as connection:
        connection.execute(sa.text("CREATE SCHEMA fer"))
        connection.execute(sa.text("CREATE TABLE fer.schema_version (version_num text)"))
        connection.execute(sa.text("INSERT INTO fer.schema_version VALUES ('0001')"))
        database.run_script(connection, first)
        role = (resources.sql_dir() / "roles" / "analyst.sql").read_text()
        as_it_was = "".join(line for line in role.splitlines(True) if "fer.cnn" not in line)
        connection.execution_options(no_parameters=True).exec_driver_sql(as_it_was)
    database.upgrade(postgres_url)
    with engine.connect() as connection:
        connection.execute(sa.text("GRANT fer_analyst TO CURRENT_USER"))
        connection.execute(sa.text("SET ROLE fer_analyst"))
        connection.execute(sa.text("SELECT card FROM fer.cnn"))
        connection.execute(sa.text("SELECT promoted_by FROM fer.cnn_promotion"))
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            connection.execute(sa.text("SELECT artefact FROM fer.cnn"))
    engine.dispose()
