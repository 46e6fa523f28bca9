"""The satisfaction report of a day: a self-contained HTML file, and a console table.

Both show the same cells, formatted from the rows of `satisfaction_daily`: whole percents and
numbers of faces, no counts by class. The sentences are those of wording.py. Computing figures and
verdicts is left to the package `satisfaction`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import sqlalchemy as sa

from fer_batch.database import connections, tables
from fer_batch.records import Batch
from fer_batch.reporting import wording
from fer_batch.satisfaction import comparisons, figures, periods, revisions
from fer_batch.settings import Settings
from fer_batch.testing.failpoints import failpoint

_TEMPLATES = Path(__file__).parent / "templates"
_COLORS = {"satisfied": "#1b7f4d", "not satisfied": "#b3412e", "inconclusive": "#7a6a2f"}
_OTHER_COLOR = "#3c5a80"


@dataclass(frozen=True, slots=True)
class ReportData:
    """The content of a report.

    `days` are rows of `satisfaction_daily` as dictionaries, newest day first; `periods` are the
    newest rows of `satisfaction_period` whose last day is not after the capture day; `changes` are
    rows of `satisfaction_change` of the capture day; `skipped` are batches without a summary, with
    the keys `facility_id`, `capture_day`, `status`, `reason`;
    `findings` are the findings of pipeline/checks.py.
    """

    capture_day: date
    days: Sequence[Mapping[str, Any]]
    periods: Sequence[Mapping[str, Any]] = ()
    changes: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[Mapping[str, Any]] = ()
    skipped: Sequence[Mapping[str, Any]] = ()
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def write_report(
    engine: sa.Engine,
    settings: Settings,
    batches: Sequence[Batch],
    findings: Sequence[Mapping[str, Any]],
    name: str,
) -> Path:
    """Write the report of the batches to `<name>.html` in `report_dir`; returns its path.

    `findings` are the findings of pipeline/checks.py for the same batches. The day of the report is
    the newest day of the batches; their earlier days follow in a second table. Raises DatabaseError
    and OSError.
    """
    ids = sorted({batch.facility_id for batch in batches})
    days = sorted({batch.capture_day for batch in batches})
    with connections.translate_errors(), engine.connect() as connection:
        daily = revisions.load_daily(connection, ids, days[0], days[-1])
        data = ReportData(
            capture_day=days[-1],
            days=to_rows(daily),
            periods=periods.load_latest(connection, ids, days[-1]),
            changes=comparisons.load_changes(connection, ids, days[-1]),
            findings=findings,
            skipped=_load_skipped(connection, ids, days),
        )
    path = settings.report_dir / f"{name}.html"
    write_file(path, render_html(data))
    return path


def to_rows(daily: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of `revisions.load_daily` as dictionaries, newest day first; NULL becomes None."""
    ordered = daily.sort_values(["capture_day", "facility_name"], ascending=[False, True])
    plain = ordered.astype(object).where(ordered.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def _load_skipped(
    connection: sa.Connection, facility_ids: list[str], days: list[date]
) -> list[dict[str, Any]]:
    """The batches that the last attempt did not list, newest day first, with status and reason."""
    batch = tables.batch
    skipped = (
        sa.select(batch.c.facility_id, batch.c.capture_day, batch.c.status, batch.c.reason)
        .where(
            batch.c.facility_id.in_(facility_ids),
            batch.c.capture_day.in_(days),
            batch.c.status != "listed",
        )
        .order_by(batch.c.capture_day.desc(), batch.c.facility_id)
    )
    return [dict(row) for row in connection.execute(skipped).mappings()]


def write_file(path: Path, html: str) -> None:
    """Write a file atomically. Raises OSError with the file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(html, encoding="utf-8")
        failpoint("report.during")
        temporary.replace(path)
    except OSError as error:  # the error of a full disk does not name the file
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def render_html(data: ReportData) -> str:
    """The report as one HTML document without references to other files or hosts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    today = [row for row in data.days if row["capture_day"] == data.capture_day]
    return environment.get_template("report.html").render(
        data=data,
        today=[(row, format_cells(row)) for row in today],
        sentences=[(format_cells(row)["facility"], describe_facility(data, row)) for row in today],
        earlier=[
            (row, format_cells(row)) for row in data.days if row["capture_day"] < data.capture_day
        ],
        versions=sorted({row["model_version"] for row in data.days}),
        chart=draw_chart(today),
        wording=wording,
        min_faces=figures.MIN_FACES,
        min_sessions=figures.MIN_SESSIONS,
    )


def describe_facility(data: ReportData, summary: Mapping[str, Any]) -> str:
    """The sentences about a facility's day: its rate, its target, and a change if there is one."""
    own = [row for row in data.periods if row["facility_id"] == summary["facility_id"]]
    day = {**summary, "period": "day", "first_day": summary["capture_day"]}
    day["last_day"] = summary["capture_day"]
    sentences = [wording.describe_rate(summary)]
    if summary["happy_rate"] is None:
        # A week may say what the day may not.
        sentences += [
            f"{wording.name_period(row)}: {wording.describe_rate(row)}"
            for row in own
            if row["happy_rate"] is not None and row["period"] == "week"
        ]
    sentences.append(wording.describe_verdict([day, *own]))
    sentences += [
        wording.describe_change(row)
        for row in data.changes
        if row["facility_id"] == summary["facility_id"]
    ]
    return " ".join(filter(None, sentences))


def format_cells(summary: Mapping[str, Any]) -> dict[str, str]:
    """A row of `satisfaction_daily` as the cells of a table row: text by column name."""
    not_scored = ", ".join(f"{n} {reason}" for reason, n in sorted(summary["not_scored"].items()))
    if summary["images_pending"]:
        not_scored = ", ".join(filter(None, (not_scored, f"{summary['images_pending']} pending")))
    return {
        "facility": str(summary.get("facility_name") or summary["facility_id"]),
        "images": f"{summary['images']:,}",
        "faces": f"{summary['faces']:,}",
        "not scored": not_scored or "none",
        "happy": wording.format_rate(summary, "happy_rate"),
        "sad": wording.format_rate(summary, "sad_rate"),
        "target": _format_target(summary),
        "verdict": summary["verdict"],
        "complete": "yes" if summary["is_complete"] else "no",
    }


def _format_target(summary: Mapping[str, Any]) -> str:
    target = summary["target_rate"]
    return wording.NO_VALUE if target is None else f"{wording.format_percent(target)} %"


def draw_chart(summaries: Sequence[Mapping[str, Any]]) -> str:
    """The happy rate of each facility with its interval, as an SVG element.

    Returns an empty string if no summary has a rate.
    """
    from matplotlib.figure import Figure

    shown = [s for s in summaries if s["happy_rate"] is not None][::-1]
    if not shown:
        return ""
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(shown):
        color = _COLORS.get(row["verdict"], _OTHER_COLOR)
        axes.plot(
            [100 * row["happy_rate_low"], 100 * row["happy_rate_high"]],
            [position, position],
            color=color,
            linewidth=3,
            solid_capstyle="butt",
        )
        axes.plot(100 * row["happy_rate"], position, "o", color=color, markersize=8)
        if row["target_rate"] is not None:
            axes.plot(100 * row["target_rate"], position, "|", color="black", markersize=18)
    names = [str(row.get("facility_name") or row["facility_id"]) for row in shown]
    axes.set_yticks(range(len(shown)), [name.replace("$", r"\$") for name in names])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("faces of 100 with a happy expression: estimate, interval (bar), target (mark)")
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def print_summaries(
    summaries: Sequence[Mapping[str, Any]], true_rates: Mapping[str, float] | None = None
) -> None:
    """Print a console table of summaries, and a sentence about each facility if it is one day.

    `true_rates` adds a column with the true happy rate of each facility id, which is known for
    synthetic images.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not summaries:
        Console().print("no summaries")
        return
    right_aligned = {"images", "faces", "drawn happy", "target"}
    table = Table()
    rows = []
    for summary in summaries:
        row = {"day": str(summary["capture_day"])}
        for name, cell in format_cells(summary).items():
            if name == "happy" and true_rates is not None:  # the truth beside the estimate
                rate = true_rates.get(summary["facility_id"])
                row["drawn happy"] = (
                    wording.NO_VALUE if rate is None else f"{wording.format_percent(rate)} %"
                )
            row[name] = cell
        rows.append(row)
    if len({row["day"] for row in rows}) == 1:
        table.title = f"Capture day {rows[0]['day']}"
        for row in rows:
            del row["day"]
    for name in rows[0]:
        table.add_column(name, justify="right" if name in right_aligned else "left")
    for row in rows:
        table.add_row(*(Text(text) for text in row.values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(table)
    if "day" not in rows[0]:
        for summary, row in zip(summaries, rows, strict=True):
            console.print(Text(f"{row['facility']}: {wording.describe_rate(summary)}"))
