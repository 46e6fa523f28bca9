"""`fer-batch freshness`: whether the nightly job has run, for a monitor outside Airflow."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from fer_batch import files
from fer_batch.cli.common import Json, load_settings, print_json
from fer_batch.cli.nightly import GROUP
from fer_batch.console import print_table
from fer_batch.errors import EXIT_FINDINGS, ConfigurationError, FerError

if TYPE_CHECKING:
    from fer_batch.freshness.checking import Report

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


def register(app: App) -> None:
    """Add `freshness`."""
    app.command(freshness, group=GROUP)


def freshness(
    *,
    by: Annotated[
        str,
        Parameter(
            help="The local time of a facility, as HH:MM, by which yesterday's summary is due. The "
            "nightly run begins at 03:00."
        ),
    ] = "06:00",
    prometheus: Annotated[
        Path | None,
        Parameter(help="Also write metrics for Prometheus to this file, such as freshness.prom."),
    ] = None,
    json: Json = False,
) -> int:
    """Check whether each facility has the summary that is due, and whether Airflow can run.

    Run it outside Airflow, such as by cron; a login that is a member of fer_reader suffices. Due is
    the newest day on which the facility is open and its images may be read. With FER_AIRFLOW_URL,
    FER_AIRFLOW_USER and FER_AIRFLOW_PASSWORD, a paused or missing DAG, an import error and a silent
    scheduler are found too. The exit code is 3 if something is wrong, 2 or 75 if it could not be
    checked.
    """
    from fer_batch.freshness import checking, metrics

    due = _read_time(by)
    now = datetime.now(UTC)
    try:
        report = checking.check_freshness(load_settings(), now, due)
    except FerError:
        if prometheus is not None:
            _write(prometheus, metrics.format_failure(now))
        raise
    if prometheus is not None:
        _write(prometheus, metrics.format_report(report))
    if json:
        print_json({**asdict(report), "is_fresh": report.is_fresh})
    else:
        _print(report)
    return 0 if report.is_fresh else EXIT_FINDINGS


def _read_time(text: str) -> time:
    if (match := _TIME.fullmatch(text)) is None:
        raise ConfigurationError(f"--by {text!r} is not a time", "Write HH:MM, such as 06:00")
    return time(int(match[1]), int(match[2]))


def _write(path: Path, text: str) -> None:
    """Replace the file as a whole, readable by every user: the collector is another one."""
    with files.replacing(path, 0o644) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _print(report: Report) -> None:
    if not report.facilities:
        sys.stdout.write("The database has no facility: no run has copied the registry yet.\n")
    rows = [
        {
            "facility": each.facility_id,
            "time zone": each.time_zone,
            "expected day": each.expected_day or "",
            "newest day": each.newest_day or "",
            "state": each.state,
            "detail": each.detail,
        }
        for each in report.facilities
    ]
    print_table("Summaries", rows)
    print_table("Airflow", [asdict(check) for check in report.checks])
