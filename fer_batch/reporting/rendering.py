"""Fills in the templates: the file of a capture day, its parts, and the index.

A report of many facilities is split: the file of the day then has the first screen and the table of
all facilities, and each part the sections of one group. What is shown is decided in pages.py.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from fer_batch.reporting import charts, formatting, store, wording
from fer_batch.reporting.differences import COMPARABLE, NOT_COMPARABLE
from fer_batch.reporting.loading import DAYS
from fer_batch.reporting.pages import (
    FacilityPage,
    GroupPage,
    ReportPage,
    count_statuses,
    list_all_actions,
)
from fer_batch.satisfaction.figures import MIN_FACES, MIN_SESSIONS

MAX_FACILITIES = 150
"""A file has the sections of at most so many facilities."""

_TEMPLATES = Path(__file__).parent / "templates"


def render_report(report: ReportPage) -> dict[str, str]:
    """The HTML files of a report by name: the file of the day, and its parts if it is split."""
    main_name = store.make_day_name(report.capture_day)
    if len(report.facilities) <= MAX_FACILITIES:
        links = {page.facility_id: f"#{page.facility_id}" for page in report.facilities}
        return {main_name: _render_day(report, report.groups, links, report.facilities)}
    parts = split(report.groups)
    names = {part: store.make_part_name(report.capture_day, part) for part in parts}
    links = {
        page.facility_id: f"{names[part]}#{page.facility_id}"
        for part, group in parts.items()
        for page in group.facilities
    }
    files = {
        names[part]: _render_day(
            report,
            [group],
            {page.facility_id: f"#{page.facility_id}" for page in group.facilities},
            group.facilities,
            part=group.name or "without a group",
        )
        for part, group in parts.items()
    }
    return files | {main_name: _render_day(report, report.groups, links, [])}


def split(groups: Sequence[GroupPage]) -> dict[str, GroupPage]:
    """The groups by the part of the file name; a group of many facilities becomes several."""
    parts: dict[str, GroupPage] = {}
    for group in groups:
        for begin in range(0, len(group.facilities), MAX_FACILITIES):
            base = _make_slug(group.name) or "group"
            part, number = base, 2
            while part in parts:
                part, number = f"{base}-{number}", number + 1
            members = group.facilities[begin : begin + MAX_FACILITIES]
            parts[part] = GroupPage(group.name, members, group.day, group.week)
    return parts


def render_index(days: Sequence[date]) -> str:
    """The index of the days that have a report, newest first."""
    months: dict[str, list[tuple[str, str]]] = {}
    for day in days:
        month = f"{formatting.MONTHS[day.month - 1]} {day.year}"
        label = formatting.format_long_day(day)
        months.setdefault(month, []).append((store.make_day_name(day), label))
    return _render("index.html", months=list(months.items()))


def _render_day(
    report: ReportPage,
    groups: Sequence[GroupPage],
    links: Mapping[str, str],
    sections: Sequence[FacilityPage],
    part: str = "",
) -> str:
    facilities = [page for group in groups for page in group.facilities]
    first_day = report.capture_day - timedelta(days=DAYS - 1)
    ticks = (0.0, report.top / 2, report.top)
    return _render(
        "day.html",
        report=report,
        day=formatting.format_long_day(report.capture_day),
        part=part,
        main_name=store.make_day_name(report.capture_day),
        groups=groups,
        facilities=facilities,
        by_status=count_statuses(facilities),
        changed=[page for page in facilities if page.change.kind in ("rose", "fell")],
        unchanged=[page for page in facilities if page.change.kind == "none"],
        incomparable=[page for page in facilities if page.change.kind == "unknown"],
        missing=[page for page in facilities if page.missing],
        todo=list_all_actions(facilities),
        with_findings=[page for page in facilities if page.findings or page.open_findings],
        links=links,
        sections=sections,
        strip=f"Last {DAYS} days, {formatting.format_days(first_day, report.capture_day)}",
        mondays=_list_mondays(report.capture_day),
        heights=[
            (charts.place_rate(rate, report.top), f"{formatting.format_percent(rate)}")
            for rate in ticks
        ],
        format_day=formatting.format_day,
        format_interval=formatting.format_interval,
        wording=wording,
        comparable=COMPARABLE,
        not_comparable=NOT_COMPARABLE,
        min_faces=MIN_FACES,
        min_sessions=MIN_SESSIONS,
    )


def _list_mondays(capture_day: date) -> list[tuple[float, str]]:
    """The places and labels of the Mondays in a trend that ends with the capture day."""
    last = capture_day.toordinal()
    days = [date.fromordinal(last - age) for age in reversed(range(DAYS))]
    return [
        (charts.place_day(number, DAYS), formatting.format_day(day).partition(" ")[2])
        for number, day in enumerate(days)
        if day.weekday() == 0
    ]


def _make_slug(name: str) -> str:
    """A name as a part of a file name: ASCII letters, digits and hyphens."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:60]


def _render(template: str, **values: Any) -> str:
    style = _load_style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    html: str = (
        _load_environment().get_template(template).render(style=style, style_hash=digest, **values)
    )
    return html


@cache
def _load_style() -> str:
    return (_TEMPLATES / "style.css").read_text(encoding="utf-8")


@cache
def _load_environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
