"""The result as metrics of Prometheus, in the text format of node_exporter's textfile collector.

No metric counts faces or images. docker/prometheus-rules.yaml has the alert rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time

from fer_batch.freshness.checking import Report

PREFIX = "fer_batch_freshness_"
HELP = {
    "checked_timestamp_seconds": "When fer-batch freshness ran last",
    "database_up": "1: the summaries could be read",
    "problem": "1: something is missing or cannot run; 0: all that was checked is right",
    "facilities": "Facilities of the registry that the database knows",
    "day_missing": "1: the facility has no summary of the newest day that is due",
    "day_expected": "0: none is due, because images may not be read or all days are closed",
    "newest_day_timestamp_seconds": "Begin (UTC date) of the newest day that has a summary",
    "airflow_checked": "1: Airflow is checked; 0: its URL and login are not set",
    "airflow_up": "1: Airflow's API answered all requests",
    "component_healthy": "1: this component of Airflow is healthy",
    "import_errors": "DAG files of fer-batch that Airflow cannot import",
    "dag_ready": "1: the DAG exists, is not paused, and the last maintenance has not failed",
}
"""The metrics, without their prefix. All are gauges."""

Sample = tuple[str, Mapping[str, str], float]


def format_report(report: Report) -> str:
    """The metrics of a report."""
    return _format([*_list_samples(report)])


def format_failure(now: datetime) -> str:
    """The metrics if the summaries could not be read."""
    return _format(
        [
            ("checked_timestamp_seconds", {}, now.timestamp()),
            ("database_up", {}, 0),
            ("problem", {}, 1),
        ]
    )


def _list_samples(report: Report) -> Iterator[Sample]:
    yield "checked_timestamp_seconds", {}, report.checked_at.timestamp()
    yield "database_up", {}, 1
    yield "problem", {}, not report.is_fresh
    yield "facilities", {}, len(report.facilities)
    for each in report.facilities:
        labels = {"facility_id": each.facility_id, "time_zone": each.time_zone}
        yield "day_missing", labels, each.state == "missing"
        yield "day_expected", labels, each.state != "not expected"
        if each.newest_day is not None:
            begin = datetime.combine(each.newest_day, time(), UTC)
            yield "newest_day_timestamp_seconds", labels, begin.timestamp()
    is_checked = not any(check.state == "not checked" for check in report.checks)
    yield "airflow_checked", {}, is_checked
    if not is_checked:
        return
    is_up = not any(check.kind == "airflow" for check in report.checks)
    yield "airflow_up", {}, is_up
    if not is_up:
        return
    for check in report.checks:
        if check.kind == "component":
            yield "component_healthy", {"component": check.subject}, check.state == "ok"
        elif check.kind == "dag":
            yield "dag_ready", {"dag_id": check.subject}, check.state == "ok"
    errors = [c for c in report.checks if c.kind == "import error" and c.state == "problem"]
    yield "import_errors", {}, len(errors)


def _format(samples: list[Sample]) -> str:
    lines = []
    for name, text in HELP.items():
        own = [(labels, value) for found, labels, value in samples if found == name]
        if own:
            lines += [f"# HELP {PREFIX}{name} {text}.", f"# TYPE {PREFIX}{name} gauge"]
        lines += [f"{PREFIX}{name}{_format_labels(label)} {value:.15g}" for label, value in own]
    return "\n".join(lines) + "\n"


def _format_labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
