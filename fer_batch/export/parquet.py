"""Writes Parquet with pyarrow, which the extra `export` installs.

Which columns a file has is left to the callers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from fer_batch.errors import ConfigurationError


def check_installed() -> None:
    """Raise ConfigurationError if pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "pyarrow is not installed, which writes Parquet",
            "Install fer-batch with the extra `export`; see docs/deploy.md",
        ) from None


def encode(
    rows: Sequence[Mapping[str, Any]],
    types: Mapping[str, str],
    metadata: Mapping[str, str],
    meanings: Mapping[str, str] | None = None,
) -> bytes:
    """A Parquet file with these rows, the same bytes for the same arguments.

    `types` holds the columns with their types: `string`, `bool`, `int64`, `double`, `date32`,
    `timestamp[us]` or `timestamp[us, UTC]`. `metadata` is stored in the file, and `meanings` in the
    metadata of the columns, as `description`. Raises ConfigurationError without pyarrow.
    """
    check_installed()
    import pyarrow as pa
    from pyarrow import parquet

    by_name = {
        "string": pa.string(),
        "bool": pa.bool_(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "date32": pa.date32(),
        "timestamp[us]": pa.timestamp("us"),
        "timestamp[us, UTC]": pa.timestamp("us", tz="UTC"),
    }
    meanings = meanings or {}
    fields = [
        pa.field(
            name,
            by_name[kind],
            metadata={"description": meanings[name]} if name in meanings else None,
        )
        for name, kind in types.items()
    ]
    schema = pa.schema(fields, metadata=dict(metadata))
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    output = BytesIO()
    parquet.write_table(table, output)  # Snappy, which every reader knows
    return output.getvalue()
