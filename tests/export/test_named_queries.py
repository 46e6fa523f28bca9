"""Named queries: names, parameters, and what a query may do."""

from __future__ import annotations

from typing import Any

import pytest

from fer_batch.database import connections, schema
from fer_batch.errors import ConfigurationError, DatabaseError, FerError
from fer_batch.export import named_queries
from fer_batch.export.named_queries import NamedQuery, check_values, find_query, parse, run_query
from tests.fixtures.servers import READER, build_settings

QUERY = parse(
    "which_days",
    "-- Which days?\n"
    "-- parameter facility: facility, only this one\n"
    "-- parameter from_day: date, the first day\n"
    "-- parameter days: number 1 to 400, how many days\n"
    "SELECT 1",
)


def test_every_file_is_a_question_with_documented_parameters() -> None:
    queries = named_queries.load_queries()
    assert len(queries) >= 20
    for query in queries.values():
        set_in_sql = {
            part.partition("'")[0] for part in query.sql.split("current_setting('fer.")[1:]
        }
        assert {parameter.name for parameter in query.parameters} == set_in_sql, query.name


@pytest.mark.parametrize(
    "sql",
    [
        *("SELECT 1", "-- No question\nSELECT 1", "-- Q?\n-- parameter day: day, it\nSELECT 1"),
        *("-- Q?\n-- parameter n: number, it\nSELECT 1", "-- Q?\n-- parameter day\nSELECT 1"),
        "-- Q?\n-- parameter day: date 1 to 3, it\nSELECT 1",
    ],
)
def test_a_malformed_head_is_an_error(sql: str) -> None:
    with pytest.raises(DatabaseError, match="the query broken has"):
        parse("broken", sql)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("which_days_were_revise", "which_days_were_revised"),
        ("Which-Days-Were-Revised", "which_days_were_revised"),
        ("xyz", "`fer-batch query` lists all of them"),
        ("../views/1_satisfaction_daily", "`fer-batch query` lists all of them"),
    ],
)
def test_an_unknown_name_suggests_similar_ones(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no query") as unknown:
        find_query(name)
    assert suggestion in str(unknown.value)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        *(
            ("days", value, "a whole number from 1 to 400")
            for value in ("0", "401", "x", "1.5", "")
        ),
        ("days", "-1", "a whole number from 1 to 400"),
        ("days", "٣", "a whole number from 1 to 400"),
        *(("from_day", value, "YYYY-MM-DD") for value in ("2026-02-30", "1.2.2026", "20260201")),
        ("facility", "", "a facility id"),
        ("facilty", "a", "Did you mean --facility?"),
        ("verdict", "a", "Its parameters: --facility, --from-day, --days"),
    ],
)
def test_a_wrong_value_names_the_format(name: str, value: str, what: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        check_values(QUERY, {name: value})
    assert what in str(wrong.value)


def test_right_values_are_passed_on_and_required_ones_asked_for() -> None:
    values = {"facility": "a", "from-day": "2026-02-28", "days": "400"}
    assert check_values(QUERY, values) == {
        "facility": "a",
        "from_day": "2026-02-28",
        "days": "400",
    }
    image = find_query("what_is_the_outcome_of_an_image")
    with pytest.raises(ConfigurationError, match="needs --key, its key in S3"):
        check_values(image, {"facility": "a", "day": "2026-03-01"})


def make_query(sql: str, *parameters: named_queries.Parameter) -> NamedQuery:
    return NamedQuery("made", "Made?", parameters, sql)


def test_a_query_cannot_write_and_is_canceled_in_time(tables: Any) -> None:
    with pytest.raises(FerError, match="read-only"):
        run_query(tables.engine, make_query("DELETE FROM fer.facility"), {})
    quick = connections.create_engine(build_settings(tables.url, statement_timeout_s=0.1))
    with pytest.raises(Exception, match="timeout"):
        run_query(quick, make_query("SELECT pg_sleep(60)"), {})
    quick.dispose()


def test_a_value_is_data_and_is_forgotten_after_the_query(tables: Any) -> None:
    query = make_query(
        "SELECT current_setting('fer.key', true) AS key",
        named_queries.Parameter("key", "text", "a key"),
    )
    value = "'; DROP TABLE fer.facility; -- %s :x"
    assert run_query(tables.engine, query, {"key": value}).rows == [{"key": value}]
    assert run_query(tables.engine, query, {}).rows == [{"key": ""}]


def test_an_unknown_facility_suggests_similar_ones(tables: Any) -> None:
    query = find_query("which_days_were_revised")
    with pytest.raises(ConfigurationError, match=r"'north-mal'. Did you mean north-mall\?"):
        run_query(tables.engine, query, {"facility": "north-mal"})
    assert run_query(tables.engine, query, {"facility": "north-mall"}).rows == []


def test_the_types_are_those_of_the_columns_also_without_rows(tables: Any) -> None:
    result = run_query(tables.engine, find_query("how_do_groups_compare"), {})
    assert result.types["facilities"] == "int64"
    assert result.types["facility_group"] == "string"
    revised = run_query(tables.engine, find_query("which_days_were_revised"), {})
    assert (revised.rows, revised.types["created_at"]) == ([], "timestamp[us, UTC]")
    assert revised.types["happy_rate_change"] == "double"
    assert revised.types["capture_day"] == "date32"


def test_a_login_that_sees_only_what_is_published_can_ask(tables: Any) -> None:
    viewer = tables.connect(READER)
    schema.check_migrated(viewer)
    (group,) = run_query(viewer, find_query("how_do_groups_compare"), {}).rows
    assert (group["facilities"], group["without_rate"]) == (1, 1)
    with pytest.raises(DatabaseError, match="permission denied"):
        run_query(viewer, find_query("which_days_were_revised"), {})
    viewer.dispose()
