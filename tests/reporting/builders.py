"""Rows of a report as `loading.load_rows` reads them, and the text of its HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

from fer_batch.findings.history import StoredFinding
from fer_batch.reporting import loading, pages, rendering

DAY = date(2026, 11, 29)  # a Sunday
CONFUSION = [[784, 11, 84], [14, 364, 216], [93, 344, 1679]]
NO_RATE: dict[str, Any] = {
    "method": "suppressed",
    "verdict": "suppressed",
    **{f"{name}_rate{end}": None for name in ("happy", "sad") for end in ("", "_low", "_high")},
}


def build_facility(facility_id: str = "north-mall", **changes: Any) -> dict[str, Any]:
    return {
        "facility_id": facility_id,
        "name": facility_id.replace("-", " ").title(),
        "group_name": None,
        "time_zone": "Europe/Berlin",
        "has_times": True,
        "closed_weekdays": [],
        "publish_period": "day",
        "permission_valid_until": date(2030, 1, 1),
    } | changes


def build_summary(day: date = DAY, **changes: Any) -> dict[str, Any]:
    counts = {"clusters": 100, "counts": [100, 20, 180], "products": [[150, 0, 0]] * 3}
    return {
        "period": "day",
        "first_day": day,
        "capture_day": day,
        "last_day": day,
        "verdict": "satisfied",
        "method": "benchmark",
        "audit_id": None,
        "audit_labels": None,
        "model_version": "ab" * 32,
        "happy_rate": 0.4333,
        "happy_rate_low": 0.3112,
        "happy_rate_high": 0.5533,
        "target_rate": 0.3,
        "sad_rate": 0.0701,
        "sad_rate_low": 0.0,
        "sad_rate_high": 0.1849,
        "images": 310,
        "images_pending": 0,
        "not_scored": {},
        "faces": 300,
        "faces_needed": None,
        "session_rule": "gap",
        "design_effect": 1.5,
        "is_complete": True,
        "is_below_expected": False,
        "hours": None,
        "cameras": None,
        "totals": {"gap": counts},
    } | changes


def build_week(**changes: Any) -> dict[str, Any]:
    return build_summary(DAY, period="week", first_day=DAY - timedelta(6)) | changes


def build_change(period: str = "week", **changes: Any) -> dict[str, Any]:
    return {
        "period": period,
        "capture_day": DAY,
        "comparison": "period before" if period == "week" else "week before",
        "happy_change": -0.2,
        "happy_change_low": -0.31,
        "happy_change_high": -0.09,
        "happy_q_value": 0.01,
    } | changes


def build_finding(check: str, finding: str = "details", **changes: Any) -> dict[str, Any]:
    return {
        "facility_id": "north-mall",
        "capture_day": DAY,
        "check_name": check,
        "severity": "warning",
        "meaning": "something is odd",
        "finding": finding,
    } | changes


def build_open_finding(check: str, details: str = "details", **changes: Any) -> StoredFinding:
    values: dict[str, Any] = dict.fromkeys(
        f"{what}_{name}" for what in ("acknowledged", "closed") for name in ("at", "by", "comment")
    )
    values |= {
        "finding_id": 1,
        "facility_id": "north-mall",
        "check": check,
        "subject": "",
        "severity": "warning",
        "meaning": "something is odd",
        "details": details,
        "state": "open",
        "first_day": DAY - timedelta(2),
        "last_day": DAY,
        "days": 2,
        "opened_at": datetime(2026, 11, 28, 3, tzinfo=UTC),
    }
    return StoredFinding(**(values | changes))


def build_acknowledged_finding(check: str, **changes: Any) -> StoredFinding:
    acknowledged: dict[str, Any] = {
        "state": "acknowledged",
        "acknowledged_at": datetime(2026, 11, 29, 9, tzinfo=UTC),
        "acknowledged_by": "Ada",
        "acknowledged_comment": "a new one is ordered",
    }
    return build_open_finding(check, **(acknowledged | changes))


def build_rows(
    *days: Mapping[str, Any], facility: Mapping[str, Any] | None = None, **others: Any
) -> loading.FacilityRows:
    """The rows of a facility; the days are its daily summaries."""
    own = facility or build_facility()
    ordered = sorted(days, key=lambda row: row["capture_day"])
    as_of = loading.find_as_of(own, [dict(row) for row in ordered])
    return loading.FacilityRows(own, {row["capture_day"]: row for row in ordered}, as_of, **others)


def build_report(*facilities: loading.FacilityRows, **others: Any) -> pages.ReportPage:
    import numpy as np

    rows = loading.ReportRows(
        DAY,
        facilities,
        {"ab" * 32: np.array(CONFUSION, dtype=np.float64)},
        made_at=datetime(2026, 11, 30, 3, 5, tzinfo=UTC),
        **others,
    )
    return pages.build_report(rows)


def build_page(*days: Mapping[str, Any], **others: Any) -> pages.FacilityPage:
    return build_report(build_rows(*days, **others)).facilities[0]


def render(*facilities: loading.FacilityRows, **others: Any) -> str:
    files = rendering.render_report(build_report(*facilities, **others))
    assert list(files) == ["2026-11-29.html"]
    return files["2026-11-29.html"]


def get_text(html: str) -> str:
    return re.sub(r"\s+", " ", Tags(html).text)


class Tags(HTMLParser):
    """The elements of a document with their attributes, and its text without the style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def find(self, tag: str) -> Sequence[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
