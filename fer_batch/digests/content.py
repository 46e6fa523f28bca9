"""What a digest says: the first screen of the report, about some facilities only.

Figures, verdicts, changes and things to do are those of the report. `select` leaves only the
facilities of one subscription, so nothing of another one is in a count or a total. The same
sections become text and HTML in rendering.py.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from fer_batch.phrases import join_names
from fer_batch.reporting import formatting, pages, wording
from fer_batch.reporting.differences import (
    COMPARABLE,
    NOT_COMPARABLE,
    describe_differences,
    is_comparable,
)
from fer_batch.reporting.loading import FacilityRows, ReportRows
from fer_batch.reporting.pages import FacilityPage, GroupPage, ReportPage, Status
from fer_batch.reporting.totals import Total, build_totals
from fer_batch.satisfaction.figures import is_published

Every = Literal["day", "week"]

STATUS_WORDS: Mapping[Status, str] = {
    "below": "below target",
    "above": "above target",
    "unclear": wording.NOT_CLEAR,
    "no target": "no target",
    "no rate": wording.NO_RATE,
}
SHOWN_LINES = 20
SHOWN_FACILITIES = 150
"""Mail services cut off a long mail; the report has every facility."""
SUBJECT_CHARACTERS = 150
NAMED_GROUPS = 3
"""A subject names so many groups; of more, it has the number of facilities."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a section; `who` is the facility or facilities that it is about, or empty."""

    text: str
    who: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its lines."""

    title: str
    lines: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class FacilityLine:
    """A facility in the table of its group."""

    name: str
    status: str
    rate: str
    change: str


@dataclass(frozen=True, slots=True)
class GroupTable:
    """A group with its totals and its facilities; `more` are not shown."""

    title: str
    totals: Sequence[str]
    facilities: Sequence[FacilityLine]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest, without its recipient. All texts are single lines without control characters."""

    subject: str
    title: str
    sections: Sequence[Section]
    groups: Sequence[GroupTable]
    link: str
    made_at: str


@dataclass(frozen=True, slots=True)
class MissedNight:
    """A capture day whose nightly run has not finished, for some facilities or for all."""

    day: date
    facility_ids: frozenset[str]


def select(
    report: ReportPage, rows: ReportRows, ids: Collection[str], *, is_all: bool = False
) -> tuple[ReportPage, ReportRows]:
    """The part of a report, and of the rows that it was made from, about these facilities only.

    A group of which the digest has only some facilities gets a total of these. `is_all`: the
    subscription is about every facility, so it is told of findings about unknown ones too.
    """
    own = [each for each in rows.facilities if each.facility["facility_id"] in ids]
    groups = []
    for group in report.groups:
        members = [page for page in group.facilities if page.facility_id in ids]
        if members and len(members) < len(group.facilities):
            of_group = [each for each in own if (each.facility["group_name"] or "") == group.name]
            totals = build_totals({group.name: of_group}, rows)
            part = GroupPage(
                group.name, members, totals[group.name, "day"], totals[group.name, "week"]
            )
            groups.append(part)
        elif members:
            groups.append(group)
    part_of_report = replace(
        report,
        groups=groups,
        differences=describe_differences(own),
        unknown=report.unknown if is_all else (),
    )
    return part_of_report, replace(rows, facilities=own)


def build_digest(
    report: ReportPage,
    rows: ReportRows,
    every: Every,
    missed: Sequence[MissedNight] = (),
    link: str = "",
) -> Digest:
    """The digest of a report and its rows, which `select` has limited to a subscription.

    A weekly digest has the figures of the newest week instead of the newest day. `missed` are the
    nights since the last digest that did not finish; `link` is the address of the report.
    """
    if every == "week":
        report = _show_weeks(report, rows)
    shown = report.facilities
    by_status = pages.count_statuses(shown)
    sections = [
        Section("Nightly runs", _list_missed(missed, rows.facilities)),
        Section("Against the target", _list_statuses(by_status)),
        Section("What to do next", _list_actions(report)),
        Section("Since last week", _list_changes(shown)),
        Section("Differences between facilities", _list_differences(report)),
        Section("What could not be measured", _list_missing(report)),
        Section("Open findings", list_open_findings(report)),
    ]
    when = _name_time(report, rows, every)
    return Digest(
        subject=_write_subject(report, when, missed),
        title=clean(f"Happy expressions, {when}"),
        sections=[
            Section(section.title, [_clean_entry(entry) for entry in section.lines])
            for section in sections
            if section.lines
        ],
        groups=_list_groups(report, every),
        link=link,
        made_at=report.made_at,
    )


def clean(text: str) -> str:
    """A text as one line: line breaks, control characters and changes of direction are spaces.

    A name then cannot add a header to a mail, a line to a text, or reverse what follows it.
    """
    spaced = (
        " "
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        or "\u202a" <= char <= "\u202e"
        or "\u2066" <= char <= "\u2069"
        else char
        for char in text
    )
    return "".join(spaced).strip()


def list_open_findings(report: ReportPage) -> list[Entry]:
    """The findings of the facilities that are not closed, one line each."""
    found = [Entry(line, page.name) for page in report.facilities for line in page.open_findings]
    return _shorten(found, "in the report")


def _clean_entry(entry: Entry) -> Entry:
    return Entry(clean(entry.text), clean(entry.who))


def _show_weeks(report: ReportPage, rows: ReportRows) -> ReportPage:
    """The same facilities with the figure, status and change of their newest week."""
    by_id = {each.facility["facility_id"]: each for each in rows.facilities}
    groups = [
        replace(
            group,
            facilities=[_show_week(page, by_id[page.facility_id]) for page in group.facilities],
        )
        for group in report.groups
    ]
    return replace(report, groups=groups)


def _show_week(page: FacilityPage, each: FacilityRows) -> FacilityPage:
    rated = [row for row in each.periods if is_published(row["method"])]
    main = next((row for row in rated if row["period"] == "week"), None)
    status: Status = "no rate" if main is None else pages.find_status(rated)
    return replace(
        page,
        main=main,
        verdict=pages.name_verdict(status, main),
        main_period="" if main is None else wording.name_days(main),
        is_comparable=is_comparable(main),
        status=status,
        change=pages.find_change(replace(each, as_of=None)),
    )


def _list_missed(missed: Sequence[MissedNight], facilities: Sequence[FacilityRows]) -> list[Entry]:
    """A line for each row of days with the same missing facilities and the same state."""
    by_id = {each.facility["facility_id"]: each for each in facilities}
    runs: list[tuple[date, date, frozenset[str], str]] = []
    for night in sorted(missed, key=lambda night: night.day):
        read = sum(night.day in by_id[i].days for i in night.facility_ids)
        if read == len(night.facility_ids):
            state = "A later run has processed it."
        elif read:
            state = f"A later run has processed it for {read} of {len(night.facility_ids)}."
        else:
            state = "It has not been processed."
        if runs and runs[-1][1:] == (night.day - timedelta(days=1), night.facility_ids, state):
            runs[-1] = (runs[-1][0], night.day, night.facility_ids, state)
        else:
            runs.append((night.day, night.day, night.facility_ids, state))
    lines = []
    for first, last, ids, state in runs:
        days = formatting.format_day(last) if first == last else formatting.format_days(first, last)
        who = "" if len(ids) == len(facilities) else _join([by_id[i].facility["name"] for i in ids])
        lines.append(Entry(f"The nightly run of {days} did not finish. {state}", who))
    return lines


def _list_statuses(by_status: Mapping[Status, Sequence[FacilityPage]]) -> list[Entry]:
    return [
        Entry(f"{len(found)} {STATUS_WORDS[status]}: {_join([page.name for page in found])}")
        for status in STATUS_WORDS
        if (found := by_status[status])
    ]


def _list_actions(report: ReportPage) -> list[Entry]:
    todo = pages.list_all_actions(report.facilities)
    lines = [
        Entry(entry["sentence"], _join([page.name for page in entry["pages"]])) for entry in todo
    ]
    nothing = "Nothing: no camera, permission or figure needs attention."
    if any(page.findings or page.open_findings for page in report.facilities):
        nothing = "Nothing new. What the data checks found is acknowledged or over."
    return _shorten(lines, "in the report") or [Entry(nothing)]


def _list_changes(shown: Sequence[FacilityPage]) -> list[Entry]:
    lines = [
        Entry(f"{page.change.text}.", page.name)
        for page in shown
        if page.change.kind in ("rose", "fell")
    ]
    lines = _shorten(lines, "in the table")
    for kind, words in (
        ("none", "No clear change"),
        ("unknown", "No comparable figures of last week"),
    ):
        if names := [page.name for page in shown if page.change.kind == kind]:
            lines.append(Entry(f"{words}: {_join(names)}."))
    return lines


def _list_differences(report: ReportPage) -> list[Entry]:
    if len(report.facilities) < 2:
        return []
    lines = [Entry(line) for line in report.differences.lines]
    if report.differences.more:
        lines.append(Entry(report.differences.more))
    if not all(page.is_comparable for page in report.facilities):
        lines.append(Entry(COMPARABLE))
    return lines


def _list_missing(report: ReportPage) -> list[Entry]:
    lines = [Entry(page.missing, page.name) for page in report.facilities if page.missing]
    lines = _shorten(lines, "in the report")
    lines += [Entry(line) for line in report.unknown]
    return lines or [Entry("Every facility that was open has been measured.")]


def _list_groups(report: ReportPage, every: Every) -> list[GroupTable]:
    tables, room = [], SHOWN_FACILITIES
    for group in report.groups:
        title = group.name or ("Without a group" if report.has_groups else "Facilities")
        totals = []
        if group.name or not report.has_groups:
            totals = [_describe_total("newest week", group.week)]
            if every == "day":
                totals.insert(0, _describe_total("newest days", group.day))
        is_alone = len(report.facilities) == 1
        lines = [_build_line(page, is_alone=is_alone) for page in group.facilities[:room]]
        room -= len(lines)
        more = len(group.facilities) - len(lines)
        tables.append(GroupTable(clean(title), list(filter(None, totals)), lines, more))
    return tables


def _describe_total(what: str, total: Total) -> str:
    figure = total.figure
    if figure.rate is None:
        return f"All faces together, {what}: {figure.reason}." if figure.facilities > 1 else ""
    rate = {"rate": figure.rate.rate, "rate_low": figure.rate.low, "rate_high": figure.rate.high}
    return (
        f"All faces together, {what}: {formatting.format_interval(rate, 'rate')} of "
        f"{figure.faces:,} faces in {figure.facilities} facilities. {total.change}"
    ).strip()


def _build_line(page: FacilityPage, *, is_alone: bool) -> FacilityLine:
    status, rate = page.verdict, page.missing or wording.NO_RATE
    if page.main is not None:
        if page.main["target_rate"] is not None:
            status += f" of {formatting.format_percent(page.main['target_rate'])}\u00a0%"
        rate = f"{formatting.format_interval(page.main)}, {page.main_period}"
        if not page.is_comparable and not is_alone:
            rate += f", {NOT_COMPARABLE}"
    return FacilityLine(clean(page.name), status, clean(rate), page.change.text)


def _name_time(report: ReportPage, rows: ReportRows, every: Every) -> str:
    """The day or the week that the digest is about, such as `Sat 28 Nov`."""
    weeks = Counter(
        page.main_period for page in report.facilities if every == "week" and page.main is not None
    )
    if weeks:
        return weeks.most_common(1)[0][0]
    return formatting.format_day(rows.capture_day)


def _write_subject(report: ReportPage, when: str, missed: Sequence[MissedNight]) -> str:
    """The subject of the mail: who, when, above or below target, changes, missed nights."""
    shown = report.facilities
    by_status = pages.count_statuses(shown)
    if len(shown) == 1:
        scope, parts = shown[0].name, [shown[0].verdict]
    else:
        scope = _name_scope(report.groups)
        parts = [
            f"{len(found)} {STATUS_WORDS[status]}"
            for status in STATUS_WORDS
            if (found := by_status[status])
        ]
    changes = Counter(page.change.kind for page in shown)
    for kind in ("fell", "rose"):
        if changes[kind]:
            parts.append(kind if len(shown) == 1 else f"{changes[kind]} {kind}")
    if missed:
        parts.append("a nightly run did not finish")
    end = f", {when}: {', '.join(parts)}"
    room = max(20, SUBJECT_CHARACTERS - len(end))
    scope = clean(scope)
    return clean((scope if len(scope) <= room else f"{scope[: room - 1]}…") + end)


def _name_scope(groups: Sequence[GroupPage]) -> str:
    names = [group.name for group in groups if group.name]
    if len(names) < len(groups) or len(names) > NAMED_GROUPS:
        return f"{sum(len(group.facilities) for group in groups)} facilities"
    return _join(names)


def _join(names: Sequence[str]) -> str:
    return join_names(names, SHOWN_LINES)


def _shorten(lines: list[Entry], where: str) -> list[Entry]:
    more = len(lines) - SHOWN_LINES
    return [*lines[:SHOWN_LINES], Entry(f"And {more:,} more {where}.")] if more > 0 else lines
