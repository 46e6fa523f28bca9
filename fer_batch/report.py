"""The day's satisfaction for people: one HTML file that needs nothing else, and a console table.

Both show the same cells, made from the rows of `satisfaction_daily`. Where too few faces count,
neither shows a share or how the faces divide. Counting and judging are satisfaction.py's work.
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

from fer_batch import database, satisfaction
from fer_batch.database import statement
from fer_batch.failpoints import reach
from fer_batch.records import Batch
from fer_batch.settings import Settings

_TEMPLATES = Path(__file__).parent / "templates"
_NOTHING = "–"
_COLOURS = {"satisfied": "#1b7f4d", "not satisfied": "#b3412e", "inconclusive": "#7a6a2f"}


@dataclass(frozen=True, slots=True)
class ReportData:
    """What a report shows.

    `days` are rows of `satisfaction_daily` as dictionaries, newest day first; `skipped` are
    batches without a summary, as `facility_id`, `capture_day`, `status`, `reason`; `findings`
    are those of checks.py.
    """

    capture_day: date
    days: Sequence[Mapping[str, Any]]
    findings: Sequence[Mapping[str, Any]] = ()
    skipped: Sequence[Mapping[str, Any]] = ()
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def write_day(
    engine: sa.Engine,
    settings: Settings,
    batches: Sequence[Batch],
    findings: Sequence[Mapping[str, Any]],
    name: str,
) -> Path:
    """Write the report of the batches into `report_dir` as `<name>.html`; its path.

    `findings` are those of checks.py for the same batches.
    The newest day of the batches is the report's day; the days before it follow.
    """
    ids = sorted({batch.facility_id for batch in batches})
    days = sorted({batch.capture_day for batch in batches})
    with database.translate_errors(), engine.connect() as connection:
        daily = satisfaction.daily(connection, ids, days[0], days[-1])
        data = ReportData(
            capture_day=days[-1],
            days=as_rows(daily),
            findings=findings,
            skipped=_skipped(connection, ids, days),
        )
    path = settings.report_dir / f"{name}.html"
    write(path, render(data))
    return path


def as_rows(daily: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of `satisfaction.daily` as dictionaries, newest day first; None for no value."""
    ordered = daily.sort_values(["capture_day", "facility_name"], ascending=[False, True])
    plain = ordered.astype(object).where(ordered.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def _skipped(
    connection: sa.Connection, facility_ids: list[str], days: list[date]
) -> list[dict[str, Any]]:
    question = {"facility_ids": facility_ids, "capture_days": days}
    return [dict(row) for row in connection.execute(statement("skipped"), question).mappings()]


def write(path: Path, html: str) -> None:
    """Put the file there whole or not at all. Raises OSError, which names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(html, encoding="utf-8")
        reach("report.during")
        unfinished.replace(path)
    except OSError as error:  # a full disk, whose error names no file
        unfinished.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def render(data: ReportData) -> str:
    """The report as one HTML document without any reference to another file or host."""
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
        today=[(row, cells(row)) for row in today],
        earlier=[(row, cells(row)) for row in data.days if row["capture_day"] < data.capture_day],
        versions=sorted({row["model_version"] for row in data.days}),
        chart=chart(today),
        min_faces=satisfaction.MIN_FACES,
    )


def cells(summary: Mapping[str, Any]) -> dict[str, str]:
    """A summary as the texts of a table's row, by column."""
    is_suppressed = summary["verdict"] == "suppressed"
    counts = {
        name: _NOTHING if is_suppressed else f"{summary[name]:,}"
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
        "happy share": _share(summary),
        "verdict": summary["verdict"],
        "complete": "yes" if summary["is_complete"] else "no",
    }


def _share(summary: Mapping[str, Any]) -> str:
    if summary["happy_share"] is None:
        return _NOTHING
    low, high = summary["happy_share_low"], summary["happy_share_high"]
    return f"{summary['happy_share']:.3f} ({low:.3f} to {high:.3f})"


def chart(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Happy share with its interval per facility, as an SVG element; empty without any share."""
    from matplotlib.figure import Figure

    shown = [s for s in summaries if s["happy_share"] is not None][::-1]
    if not shown:
        return ""
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        colour = _COLOURS[row["verdict"]]
        axes.plot(
            [row["happy_share_low"], row["happy_share_high"]],
            [place, place],
            color=colour,
            linewidth=3,
            solid_capstyle="butt",
        )
        axes.plot(row["happy_share"], place, "o", color=colour, markersize=8)
        axes.plot(row["target_share"], place, "|", color="black", markersize=18)
    names = [str(row.get("facility_name") or row["facility_id"]) for row in shown]
    axes.set_yticks(range(len(shown)), [name.replace("$", r"\$") for name in names])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("happy share (point), its interval (bar), the target (upright mark)")
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]


def print_summaries(
    summaries: Sequence[Mapping[str, Any]], true_shares: Mapping[str, float] | None = None
) -> None:
    """A console table of summaries; with the share that was drawn, where it is known."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not summaries:
        Console().print("no summaries")
        return
    right = {"images", "faces", "Happy", "Sad", "uncertain", "neither", "true share"}
    table = Table()
    rows = []
    for summary in summaries:
        row = {"day": str(summary["capture_day"]), **cells(summary)}
        if true_shares is not None:
            share = true_shares.get(summary["facility_id"])
            row["true share"] = _NOTHING if share is None else f"{share:.3f}"
        rows.append(row)
    if len({row["day"] for row in rows}) == 1:
        table.title = f"Capture day {rows[0]['day']}"
        for row in rows:
            del row["day"]
    for name in rows[0]:
        table.add_column(name, justify="right" if name in right else "left")
    for row in rows:
        table.add_row(*(Text(text) for text in row.values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(table)
