"""The queries of sql/queries by name, with their parameters and their rows.

A file is plain SQL that every client runs as it is. Its first line is the question; lines that
begin with `-- parameter` or `-- required parameter` may follow:

    -- parameter days: number 1 to 400, how many days; 28 if not given
    -- required parameter key: text, the key of an image

The statement reads a parameter as `current_setting('fer.days', true)`, which is null or empty if it
was not given. So an analyst in psql writes `SET fer.days = 7`, and this module does the same in
its transaction. Printing the rows is left to the command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal, get_args

import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database import connections
from fer_batch.errors import ConfigurationError, DatabaseError
from fer_batch.phrases import suggest

Kind = Literal["facility", "date", "number", "text"]

_PARAMETER = re.compile(
    r"-- (required )?parameter ([a-z_]+): ([a-z]+)(?: ([0-9]+) to ([0-9]+))?, (.+)"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SET = sa.text("SELECT set_config('fer.' || :name, :value, true)")
_READ_ONLY = sa.text("SET TRANSACTION READ ONLY")
_FACILITIES = sa.text("SELECT facility_id FROM fer.facility_public ORDER BY facility_id")

_TYPES = {16: "bool", 20: "int64", 21: "int64", 23: "int64", 700: "double", 701: "double"} | {
    1082: "date32",
    1114: "timestamp[us]",
    1184: "timestamp[us, UTC]",
    1700: "double",
}
"""The type in a Parquet file by PostgreSQL's OID of a type; all others are text."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter. `least` and `most` limit a number."""

    name: str
    kind: Kind
    meaning: str
    is_required: bool = False
    least: int | None = None
    most: int | None = None

    def describe_option(self) -> str:
        """The option as a usage line has it; in brackets if it may be left out."""
        value = {
            "facility": "ID",
            "date": "YYYY-MM-DD",
            "number": f"{self.least}..{self.most}",
            "text": "TEXT",
        }[self.kind]
        option = f"--{_to_option(self.name)} {value}"
        return option if self.is_required else f"[{option}]"

    def describe_format(self) -> str:
        """How a value is written."""
        return {
            "facility": "a facility id, such as north-mall",
            "date": "a day as YYYY-MM-DD, such as 2026-11-28",
            "number": f"a whole number from {self.least} to {self.most}",
            "text": "a text",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A file: its name, the question that it answers, its parameters, and its statement."""

    name: str
    question: str
    parameters: tuple[Parameter, ...]
    sql: str


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of a query; `types` has the type of each column in a Parquet file, by name.

    Decimals are int or float, so that they are numbers in every format.
    """

    types: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]

    def list_plain_rows(self) -> list[dict[str, Any]]:
        """The rows with values of these types; JSON is text."""
        return [
            {name: _to_plain(row[name], kind) for name, kind in self.types.items()}
            for row in self.rows
        ]


def load_queries() -> dict[str, NamedQuery]:
    """All queries by name. Raises DatabaseError for a file with a malformed head."""
    files = sorted((resources.find_sql_dir() / "queries").glob("*.sql"))
    return {file.stem: parse(file.stem, file.read_text(encoding="utf-8")) for file in files}


def parse(name: str, sql: str) -> NamedQuery:
    """The query in a file. Raises DatabaseError if its head is malformed."""
    first, *rest = sql.splitlines()
    parameters = []
    for line in rest:
        if not line.startswith(("-- parameter", "-- required")):
            break
        match = _PARAMETER.fullmatch(line)
        has_range = match is not None and match[4] is not None
        if (
            match is None
            or match[3] not in get_args(Kind)
            or has_range is not (match[3] == "number")
        ):
            raise DatabaseError(
                f"the query {name} has a malformed line: {line}",
                "Write `-- parameter NAME: KIND, meaning`, with the range after `number`",
            )
        kind: Any = match[3]
        limits = (int(match[4]), int(match[5])) if has_range else (None, None)
        parameters.append(Parameter(match[2], kind, match[6], match[1] is not None, *limits))
    if not first.startswith("-- ") or "?" not in first:
        raise DatabaseError(f"the query {name} has no question", "Write it in the first line")
    return NamedQuery(name, first.removeprefix("-- "), tuple(parameters), sql)


def find_query(name: str) -> NamedQuery:
    """The query of a name. Raises ConfigurationError that suggests similar ones."""
    queries = load_queries()
    if name not in queries:
        near = suggest(name.lower().replace("-", "_"), queries, cutoff=0.5)
        hint = f"Did you mean {near}? " if near else ""
        raise ConfigurationError(
            f"there is no query {name!r}", f"{hint}`fer-batch query` lists all of them"
        )
    return queries[name]


def check_values(query: NamedQuery, values: Mapping[str, str]) -> dict[str, str]:
    """The values of the parameters by name, checked; hyphens in names count as underscores.

    Raises ConfigurationError for a parameter that the query does not have, for a required one that
    is missing, and for a value of another type, whose format it names. That a facility exists is
    left to `run_query`.
    """
    by_name = {parameter.name: parameter for parameter in query.parameters}
    checked = {}
    for given, value in values.items():
        name = given.replace("-", "_")
        if name not in by_name:
            near = suggest(name, by_name, 1)
            known = ", ".join(f"--{_to_option(each)}" for each in by_name) or "none"
            hint = f"Did you mean --{_to_option(near)}? " if near else ""
            raise ConfigurationError(
                f"the query {query.name} has no parameter --{_to_option(name)}",
                f"{hint}Its parameters: {known}",
            )
        _check_value(by_name[name], value)
        checked[name] = value
    for parameter in query.parameters:
        if parameter.is_required and parameter.name not in checked:
            raise ConfigurationError(
                f"the query {query.name} needs --{_to_option(parameter.name)}, {parameter.meaning}",
                f"Write {parameter.describe_format()}",
            )
    return checked


def run_query(engine: sa.Engine, query: NamedQuery, values: Mapping[str, str]) -> Result:
    """Run a query with values that `check_values` returned, in a read-only transaction.

    It is canceled after `statement_timeout_s`. Raises ConfigurationError for an unknown facility,
    and what `connections.translate_errors` raises.
    """
    with connections.transaction(engine) as connection:
        connection.execute(_READ_ONLY)
        _check_facilities(connection, query, values)
        # An empty value is none: another query of the session may have set the parameter.
        for parameter in query.parameters:
            params = {"name": parameter.name, "value": values.get(parameter.name, "")}
            connection.execute(_SET, params)
        as_it_is = connection.execution_options(no_parameters=True)
        found = as_it_is.exec_driver_sql(query.sql)
        described: Any = found.cursor.description
        types = {column[0]: _TYPES.get(column[1], "string") for column in described}
        rows = [
            {name: _to_number(value) for name, value in row.items()} for row in found.mappings()
        ]
        return Result(types, rows)


def _check_value(parameter: Parameter, value: str) -> None:
    is_valid = True
    if parameter.kind == "date":
        try:
            is_valid = bool(_DATE.fullmatch(value)) and bool(date.fromisoformat(value))
        except ValueError:
            is_valid = False
    elif parameter.kind == "number":
        is_valid = (
            bool(_NUMBER.fullmatch(value))
            and parameter.least is not None
            and parameter.most is not None
            and parameter.least <= int(value) <= parameter.most
        )
    elif not value or "\0" in value:
        is_valid = False
    if not is_valid:
        raise ConfigurationError(
            f"--{_to_option(parameter.name)} {value!r} is not valid",
            f"Write {parameter.describe_format()}",
        )


def _check_facilities(
    connection: sa.Connection, query: NamedQuery, values: Mapping[str, str]
) -> None:
    given = [values[p.name] for p in query.parameters if p.kind == "facility" and p.name in values]
    if not given:
        return
    known = connection.execute(_FACILITIES).scalars().all()
    for facility_id in given:
        if facility_id not in known:
            near = suggest(facility_id.lower(), known)
            hint = f"Did you mean {near}?" if near else "`fer-batch facilities list`"
            raise ConfigurationError(f"unknown facility {facility_id!r}", hint)


def _to_option(name: str) -> str:
    return name.replace("_", "-")


def _to_number(value: Any) -> Any:
    if not isinstance(value, Decimal):
        return value
    return float(value) if value.as_tuple().exponent else int(value)


def _to_plain(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "double":
        return float(value)
    if kind == "string" and isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value) if kind == "string" else value
