"""The satisfaction report of a day: a self-contained HTML file, and a console table.

Both show the same cells, formatted from the rows of `satisfaction_daily`. For suppressed rows
neither shows a share or the counts per expression. Computing figures and verdicts is left to the
package `satisfaction`.
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
from fer_batch.satisfaction import figures, revisions
from fer_batch.settings import Settings
from fer_batch.testing.failpoints import failpoint

_TEMPLATES = Path(__file__).parent / "templates"
_NO_VALUE = "–"
_COLORS = {"satisfied": "#1b7f4d", "not satisfied": "#b3412e", "inconclusive": "#7a6a2f"}


@dataclass(frozen=True, slots=True)
class ReportData:
    """The content of a report.

    `days` are rows of `satisfaction_daily` as dictionaries, newest day first; `skipped` are
    batches without a summary, with the keys `facility_id`, `capture_day`, `status`, `reason`;
    `findings` are the findings of pipeline/checks.py.
    """

    capture_day: date
    days: Sequence[Mapping[str, Any]]
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
        earlier=[
            (row, format_cells(row)) for row in data.days if row["capture_day"] < data.capture_day
        ],
        versions=sorted({row["model_version"] for row in data.days}),
        chart=draw_chart(today),
        min_faces=figures.MIN_FACES,
    )


def format_cells(summary: Mapping[str, Any]) -> dict[str, str]:
    """A row of `satisfaction_daily` as the cells of a table row: text by column name."""
    is_suppressed = summary["verdict"] == "suppressed"
    counts = {
        name: _NO_VALUE if is_suppressed else f"{summary[name]:,}"
        for name in ("happy", "sad", "uncertain", "neither")
    }
    not_scored = ", ".join(f"{n} {reason}" for reason, n in sorted(summary["not_scored"].items()))
    if summary["images_pending"]:
        not_scored = ", ".join(filter(None, (not_scored, f"{summary['images_pending']} pending")))
    return {
        "facility": str(summary.get("facility_name") or summary["facility_id"]),
        "images": f"{summary['images']:,}",
        "faces": f"{summary['faces']:,}",
        "Happy": counts["happy"],
        "Sad": counts["sad"],
        "uncertain": counts["uncertain"],
        "neither": counts["neither"],
        "not scored": not_scored or "none",
        "happy share": _format_share(summary),
        "verdict": summary["verdict"],
        "complete": "yes" if summary["is_complete"] else "no",
    }


def _format_share(summary: Mapping[str, Any]) -> str:
    if summary["happy_share"] is None:
        return _NO_VALUE
    low, high = summary["happy_share_low"], summary["happy_share_high"]
    return f"{summary['happy_share']:.3f} ({low:.3f} to {high:.3f})"


def draw_chart(summaries: Sequence[Mapping[str, Any]]) -> str:
    """The happy share of each facility with its interval, as an SVG element.

    Returns an empty string if no summary has a share.
    """
    from matplotlib.figure import Figure

    shown = [s for s in summaries if s["happy_share"] is not None][::-1]
    if not shown:
        return ""
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(shown):
        color = _COLORS[row["verdict"]]
        axes.plot(
            [row["happy_share_low"], row["happy_share_high"]],
            [position, position],
            color=color,
            linewidth=3,
            solid_capstyle="butt",
        )
        axes.plot(row["happy_share"], position, "o", color=color, markersize=8)
        axes.plot(row["target_share"], position, "|", color="black", markersize=18)
    names = [str(row.get("facility_name") or row["facility_id"]) for row in shown]
    axes.set_yticks(range(len(shown)), [name.replace("$", r"\$") for name in names])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("happy share (point) with interval (bar) and target (vertical mark)")
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def print_summaries(
    summaries: Sequence[Mapping[str, Any]], true_shares: Mapping[str, float] | None = None
) -> None:
    """Print a console table of summaries.

    `true_shares` adds a column with the true happy share of each facility id, which is known for
    synthetic images.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not summaries:
        Console().print("no summaries")
        return
    right_aligned = {"images", "faces", "Happy", "Sad", "uncertain", "neither", "true share"}
    table = Table()
    rows = []
    for summary in summaries:
        row = {"day": str(summary["capture_day"]), **format_cells(summary)}
        if true_shares is not None:
            share = true_shares.get(summary["facility_id"])
            row["true share"] = _NO_VALUE if share is None else f"{share:.3f}"
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
