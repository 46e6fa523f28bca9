"""The satisfaction report of a day: HTML files for people, and a table on the console.

What the HTML files show is decided in pages.py. The console has the rows of `satisfaction_daily`,
in whole percents and without counts by class. The sentences are those of wording.py. Computing
figures and verdicts is left to the package `satisfaction`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from fer_batch import console
from fer_batch.database import connections
from fer_batch.facilities.registry import Facility
from fer_batch.reporting import formatting, loading, pages, rendering, store, wording
from fer_batch.reporting.differences import COMPARABLE, is_comparable
from fer_batch.satisfaction.figures import is_published
from fer_batch.settings import Settings


def write_report(engine: sa.Engine, settings: Settings, capture_day: date) -> Path:
    """Write the report of a capture day about all facilities; returns the path of its main file.

    The runs of several time zones each write the whole report, one after another: the last one has
    read what all of them have stored.
    Raises DatabaseError, StorageError, ConfigurationError and OSError.
    """
    with connections.transaction(engine) as connection:
        connections.lock(connection, "report")
        report = pages.build_report(loading.load_rows(connection, capture_day))
        files = rendering.render_report(report)
        return store.publish(settings, capture_day, files, rendering.render_index)


def to_rows(daily: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of `revisions.load_daily` as dictionaries, newest day first; NULL becomes None."""
    ordered = daily.sort_values(["capture_day", "facility_name"], ascending=[False, True])
    plain = ordered.astype(object).where(ordered.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def format_cells(summary: Mapping[str, Any]) -> dict[str, str]:
    """A row of `satisfaction_daily` as the cells of a table row: text by column name."""
    not_scored = ", ".join(f"{n} {reason}" for reason, n in sorted(summary["not_scored"].items()))
    if summary["images_pending"]:
        not_scored = ", ".join(filter(None, (not_scored, f"{summary['images_pending']} pending")))
    return {
        "facility": str(summary.get("facility_name") or summary["facility_id"]),
        "images": f"{summary['images']:,}",
        "faces": f"{summary['faces']:,}" if is_published(summary["method"]) else console.NO_VALUE,
        "happy": formatting.format_rate(summary, "happy_rate"),
        "target": _format_percent(summary["target_rate"]),
        "verdict": wording.name_verdict(summary),
        "sad": formatting.format_rate(summary, "sad_rate"),
        "not scored": not_scored or "none",
        "complete": "yes" if summary["is_complete"] else "no",
    }


def _format_percent(share: float | None) -> str:
    return console.NO_VALUE if share is None else f"{formatting.format_percent(share)} %"


def print_summaries(
    summaries: Sequence[Mapping[str, Any]],
    true_rates: Mapping[str, float] | None = None,
    facilities: Mapping[str, Facility] | None = None,
) -> None:
    """Print a console table of summaries, and a sentence about each facility if it is one day.

    `facilities` tells the closed weekdays and what is published by week, if the summaries lack
    `is_closed` and `publish_period`. `true_rates` adds a
    column with the true happy rate of each facility id, which is known for synthetic images.
    """
    if not summaries:
        sys.stdout.write("no summaries\n")
        return
    summaries = [_add_columns(summary, facilities or {}) for summary in summaries]
    rows = []
    for summary in summaries:
        row = {"day": str(summary["capture_day"])}
        for name, cell in format_cells(summary).items():
            if name == "happy" and true_rates is not None:  # the truth next to the estimate
                rate = true_rates.get(summary["facility_id"])
                row["true happy"] = _format_percent(rate)
            row[name] = cell
        rows.append(row)
    days = {row["day"] for row in rows}
    if len(days) > 1:
        console.print_table("Summaries", rows)
        return
    console.print_table(f"Capture day {days.pop()}", [_without(row, "day") for row in rows])
    sys.stdout.write("\n")
    for summary, row in zip(summaries, rows, strict=True):
        console.print_text(f"{row['facility']}: {wording.describe_rate(summary)}")
    names = [
        row["facility"]
        for summary, row in zip(summaries, rows, strict=True)
        if summary["happy_rate"] is not None and not is_comparable(summary)
    ]
    if names and len(rows) > 1:
        console.print_text(f"{COMPARABLE} Not comparable: {', '.join(names)}.")


def _add_columns(
    summary: Mapping[str, Any], facilities: Mapping[str, Facility]
) -> Mapping[str, Any]:
    facility = facilities.get(summary["facility_id"])
    if facility is None:
        return summary
    is_closed = not summary["images"] and facility.is_closed(summary["capture_day"])
    return {**summary, "is_closed": is_closed, "publish_period": facility.publish_period}


def _without(row: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: cell for key, cell in row.items() if key != name}
