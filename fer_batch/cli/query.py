"""Named queries: the questions of sql/queries, as a table, CSV, Parquet or JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter

from fer_batch.cli.common import Json, load_settings, print_json, show
from fer_batch.errors import ConfigurationError

if TYPE_CHECKING:
    from fer_batch.export.named_queries import NamedQuery, Result

GROUP = Group("Results", sort_key=2)


def register(app: App) -> None:
    """Add `query`."""
    app.command(query, group=GROUP)


def query(
    name: Annotated[str | None, Parameter(help="The name of a query. Default: list them.")] = None,
    /,
    *,
    csv: Annotated[
        bool, Parameter(help="Write CSV that a spreadsheet opens, to stdout or --output.")
    ] = False,
    parquet: Annotated[bool, Parameter(help="Write Parquet to --output.")] = False,
    output: Annotated[
        Path | None, Parameter(help="The file for --csv or --parquet, replaced as a whole.")
    ] = None,
    json: Json = False,
    **parameters: Annotated[
        str, Parameter(help="A parameter of the query, such as --facility north-mall.")
    ],
) -> None:
    """Answer a question about the results: run a query of sql/queries.

    Without a name, list the questions with their parameters. A query only reads, and is canceled
    after FER_STATEMENT_TIMEOUT_S. Rates that are not published are empty.
    """
    from fer_batch.export import named_queries

    if name is None:
        _check_formats(csv, parquet, json, output, is_list=True)
        _list_queries(list(named_queries.load_queries().values()), json)
        return
    chosen = named_queries.find_query(name)
    values = named_queries.check_values(chosen, parameters)
    _check_formats(csv, parquet, json, output)
    if parquet:
        from fer_batch.export import parquet as module

        module.check_installed()
    from fer_batch.database import schema

    with schema.open_engine(load_settings()) as engine:
        result = named_queries.run_query(engine, chosen, values)
    if csv or parquet:
        _write(_encode(chosen, result, csv), output)
    elif json:
        print_json(result.rows)
    else:
        show(chosen.question, result.rows, as_json=False)


def _list_queries(queries: list[NamedQuery], as_json: bool) -> None:
    rows = [
        {
            "name": each.name,
            "question": each.question,
            "parameters": [parameter.describe_option() for parameter in each.parameters],
        }
        for each in queries
    ]
    show("Queries", rows, as_json)


def _check_formats(
    csv: bool, parquet: bool, json: bool, output: Path | None, *, is_list: bool = False
) -> None:
    """Raise ConfigurationError for options that contradict each other."""
    if csv + parquet + json > 1:
        raise ConfigurationError(
            "more than one format is given", "Choose one of --csv, --parquet and --json"
        )
    if is_list and (csv or parquet or output is not None):
        raise ConfigurationError("no query is named", "`fer-batch query` lists them")
    if parquet and output is None:
        raise ConfigurationError("--parquet has no file", "Name it: --output FILE")
    if output is not None and not (csv or parquet):
        raise ConfigurationError("--output has no format", "Add --csv or --parquet")


def _encode(query: NamedQuery, result: Result, as_csv: bool) -> bytes:
    from fer_batch.export import parquet, spreadsheet

    if as_csv:
        return spreadsheet.encode(list(result.types), result.rows)
    metadata = {"fer_batch.query": query.name, "fer_batch.question": query.question}
    return parquet.encode(result.list_plain_rows(), result.types, metadata)


def _write(content: bytes, output: Path | None) -> None:
    """Write a file as a whole, or to stdout. Raises OSError with the file name."""
    from fer_batch import files

    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with files.replacing(output) as temporary:
        temporary.write_bytes(content)
