"""The columns of the exported files, version 1 of their schema.

They are those of the views `satisfaction_daily` and `satisfaction_period`, with the meanings that
the comments in the database give; a test compares them. What differs: `first_day` and `last_day` of
a day are both its `capture_day`, `group_name` is added, and the counts of `not_scored` are columns,
because many BI tools cannot read a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fer_batch.records import Outcome

SCHEMA_VERSION = 1

Kind = Literal["text", "date", "timestamp", "rate", "number", "count", "yes or no"]

KINDS: Mapping[Kind, tuple[str, str]] = {
    "text": ("text", "string"),
    "date": ("date", "date32"),
    "timestamp": ("timestamp with time zone", "timestamp[us, UTC]"),
    "rate": ("double precision", "double"),
    "number": ("double precision", "double"),
    "count": ("bigint", "int64"),
    "yes or no": ("boolean", "bool"),
}
"""The type in PostgreSQL and that in the files (Arrow's names). `integer` is a count too."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the files. `meaning` is None if it is that of the column of the views."""

    name: str
    kind: Kind
    meaning: str | None = None

    @property
    def file_type(self) -> str:
        return KINDS[self.kind][1]


def _list_rates(*names: str) -> list[Column]:
    return [Column(f"{name}{end}", "rate") for name in names for end in ("", "_low", "_high")]


NOT_SCORED = (
    *(o.value for o in Outcome if o not in (Outcome.SCORED, Outcome.CHANGED, Outcome.FETCH_FAILED)),
    "erased",
)
"""The outcomes that `not_scored` counts: the final ones, and what was erased later."""


COLUMNS: tuple[Column, ...] = (
    Column("period", "text", "day, week (ISO week, Monday to Sunday) or four weeks"),
    Column("facility_id", "text"),
    Column("facility_name", "text"),
    Column("group_name", "text", "Group of the facility, such as an area or a brand; null: none"),
    Column("first_day", "date", "First day of the period; of a day, the day"),
    Column("last_day", "date", "Last day of the period; of a day, the day"),
    Column("verdict", "text"),
    *_list_rates("happy_rate"),
    Column("target_rate", "rate"),
    *_list_rates("sad_rate"),
    Column("neither_rate", "rate"),
    *_list_rates("called_happy_rate", "called_sad_rate"),
    Column("method", "text"),
    Column("is_complete", "yes or no"),
    Column("is_below_expected", "yes or no"),
    Column("images", "count"),
    Column("images_scored", "count"),
    Column("images_pending", "count"),
    Column(
        "images_not_scored",
        "count",
        "Images with a final outcome other than scored: the sum of the columns not_scored_…",
    ),
    *(
        Column(f"not_scored_{name}", "count", f"Images with the outcome {name}")
        for name in NOT_SCORED
    ),
    Column("faces_scored", "count"),
    Column("faces", "count"),
    Column("sessions", "count"),
    Column("sessions_effective", "number"),
    Column("faces_effective", "number"),
    Column("design_effect", "number"),
    Column("session_rule", "text"),
    Column("benchmark_weight", "number"),
    Column("faces_needed", "count"),
    Column("confidence", "number"),
    Column("time_zone", "text"),
    Column("model_version", "text"),
    Column("revision", "count", "Number of this summary of the period, from 1"),
    Column("run_id", "text"),
    Column("created_at", "timestamp"),
    Column("audit_id", "count"),
    Column("audit_labels", "count"),
    Column("reason", "text"),
    Column("is_comparable", "yes or no"),
)


def to_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file's row by column, from a row of the views with `not_scored` as a map."""
    counts = {f"not_scored_{name}": row["not_scored"].get(name, 0) for name in NOT_SCORED}
    derived = {**counts, "images_not_scored": sum(row["not_scored"].values())}
    return {c.name: derived[c.name] if c.name in derived else row[c.name] for c in COLUMNS}
