"""What a report says of each facility and group, from the rows of `loading`.

Here it is decided which figure is shown, which facilities are above or below their target, and
which count as changed or not measured. The totals of groups are left to totals.py, what to do next
to actions.py, the charts to charts.py, and the markup to the templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from fer_batch.reporting import actions, charts, wording
from fer_batch.reporting.actions import Action
from fer_batch.reporting.differences import Differences, describe_differences, is_comparable
from fer_batch.reporting.formatting import WEEKDAYS, format_days, format_percent
from fer_batch.reporting.loading import DAYS, FacilityRows, ReportRows, Row, is_closed
from fer_batch.reporting.totals import Total, build_totals
from fer_batch.satisfaction.change import MAX_Q_VALUE
from fer_batch.satisfaction.figures import is_published
from fer_batch.satisfaction.patterns import Patterns, compute_patterns

Status = Literal["above", "below", "unclear", "no target", "no rate"]
STATUSES: tuple[Status, ...] = ("above", "below", "unclear", "no target", "no rate")
HEAT_LEVELS = 5
SHOWN_REVISIONS = 10
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Change:
    """The change since last week: `rose`, `fell`, `none` (no clear change) or `unknown`."""

    kind: Literal["rose", "fell", "none", "unknown"]
    text: str


@dataclass(frozen=True, slots=True)
class DayCell:
    """A day of the trend: its summary, if there is one, and a note such as `closed`."""

    day: date
    row: Row | None
    note: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Weekdays and hours with a rate: lines of cells, each the text and the level 0 to 5."""

    days: str
    weekdays: Sequence[str]
    lines: Sequence[tuple[str, Sequence[tuple[str, int]]]]


@dataclass(frozen=True, slots=True)
class FacilityPage:
    """What the report shows of a facility. `main` is the summary whose rate is shown.

    `is_comparable`: it may be compared with the rates of other comparable facilities.
    """

    facility_id: str
    name: str
    group: str | None
    as_of: date | None
    main: Row | None
    main_period: str
    is_comparable: bool
    status: Status
    verdict: str
    sentence: str
    change: Change
    missing: str
    spark: charts.DayChart
    trend: charts.DayChart
    days: Sequence[DayCell]
    heat_map: HeatMap | None
    revisions: Sequence[str]
    open_findings: Sequence[str]
    findings: Sequence[str]
    not_scored: Sequence[str]
    actions: Sequence[Action]


@dataclass(frozen=True, slots=True)
class GroupPage:
    """A group of facilities, or all that have none (`name` is then empty)."""

    name: str
    facilities: Sequence[FacilityPage]
    day: Total
    week: Total

    def count(self, status: Status) -> int:
        return sum(page.status == status for page in self.facilities)


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A whole report."""

    capture_day: date
    groups: Sequence[GroupPage]
    differences: Differences
    top: float
    unknown: Sequence[str]
    made_at: str
    versions: Sequence[str]

    @property
    def facilities(self) -> list[FacilityPage]:
        return [page for group in self.groups for page in group.facilities]

    @property
    def has_groups(self) -> bool:
        return any(group.name for group in self.groups)


def build_report(rows: ReportRows) -> ReportPage:
    """The content of the report of a capture day."""
    ends = [
        row["happy_rate_high"]
        for each in rows.facilities
        for row in each.days.values()
        if row["happy_rate"] is not None
    ]
    ends += [
        each.as_of["target_rate"]
        for each in rows.facilities
        if each.as_of is not None and each.as_of["target_rate"] is not None
    ]
    top = charts.find_top(ends)
    by_group: dict[str, list[FacilityRows]] = {}
    for each in rows.facilities:
        by_group.setdefault(each.facility["group_name"] or "", []).append(each)
    names = sorted(by_group, key=lambda name: (not name, name.casefold()))
    totals = build_totals(by_group, rows)
    versions = {each.as_of["model_version"] for each in rows.facilities if each.as_of is not None}
    return ReportPage(
        rows.capture_day,
        [
            GroupPage(
                name,
                [build_facility(each, rows, top) for each in by_group[name]],
                totals[name, "day"],
                totals[name, "week"],
            )
            for name in names
        ],
        describe_differences(rows.facilities),
        top,
        [
            f"{row['facility_id']}: {row['meaning']}{wording.format_details(row)}"
            for row in rows.unknown
        ],
        f"{rows.made_at:%Y-%m-%d %H:%M} UTC",
        sorted(version[:12] for version in versions),
    )


def build_facility(each: FacilityRows, rows: ReportRows, top: float) -> FacilityPage:
    """What the report shows of one facility."""
    facility, as_of = each.facility, each.as_of
    judged = [row for row in (as_of, *each.periods) if row is not None]
    rated = [row for row in judged if is_published(row["method"])]
    main = find_main(rated)
    status = find_status(rated)
    days = _list_days(each, rows.capture_day)
    points = [_to_point(cell.row) for cell in days]
    closed = [cell.note == "closed" for cell in days]
    missing = describe_missing(each, rows.capture_day, main)
    return FacilityPage(
        facility_id=facility["facility_id"],
        name=facility["name"],
        group=facility["group_name"],
        as_of=None if as_of is None else as_of["capture_day"],
        main=main,
        main_period="" if main is None else wording.name_days(main),
        is_comparable=is_comparable(main),
        status=status,
        verdict=name_verdict(status, main),
        sentence=_describe(rated, main),
        change=find_change(each),
        missing=missing,
        spark=charts.draw_spark(points, closed, top),
        trend=charts.draw_trend(points, closed, main["target_rate"] if main else None, top),
        days=days,
        heat_map=_build_heat_map(each, rows.capture_day),
        revisions=[wording.describe_revision(row) for row in each.revisions][:SHOWN_REVISIONS],
        open_findings=[wording.describe_open_finding(found) for found in each.open_findings],
        findings=[wording.describe_finding(row) for row in each.findings],
        not_scored=wording.list_not_scored(as_of) if as_of is not None else [],
        actions=actions.list_actions(each, rows, rated),
    )


def find_main(rated: Sequence[Row]) -> Row | None:
    """The summary that is shown: the shortest period that tells whether the target was met.

    `rated` are the published summaries of a facility, the shortest period first. If none tells, it
    is the first.
    """
    conclusive = (row for row in rated if row["verdict"] in wording.CONCLUSIVE)
    return next(conclusive, rated[0] if rated else None)


def find_status(rated: Sequence[Row]) -> Status:
    """Above or below the target by the shortest period that tells, else not clear."""
    main = find_main(rated)
    if main is None:
        return "no rate"
    if main["verdict"] in wording.CONCLUSIVE:
        return "above" if main["verdict"] == "satisfied" else "below"
    is_open = any(row["verdict"] == "inconclusive" for row in rated)
    return "unclear" if is_open else "no target"


def name_verdict(status: Status, main: Row | None) -> str:
    """The verdict of a status and of the summary that is shown, in words."""
    if main is None:
        return wording.NO_RATE
    return wording.NOT_CLEAR if status == "unclear" else wording.name_verdict(main)


def _describe(rated: Sequence[Row], main: Row | None) -> str:
    if main is None:
        return ""
    rate = f"{wording.name_period(main)}: {wording.describe_rate(main)}"
    audit = ""
    if main["audit_labels"]:
        audit = (
            f"Corrected by {main['audit_labels']:,} labeled faces of the facility "
            f"(method {main['method']})."
        )
    return " ".join(filter(None, (rate, wording.describe_verdict(rated), audit)))


def find_change(each: FacilityRows) -> Change:
    """The change since last week: that of the newest week if it is clear, else that of the day."""
    ends = {
        "week": [row["last_day"] for row in each.periods if row["period"] == "week"],
        "day": [each.as_of["capture_day"]] if each.as_of is not None else [],
    }
    compared = [
        row
        for period in ("week", "day")
        for row in each.changes
        if row["period"] == period and row["capture_day"] in ends[period]
    ]
    for row in compared:
        q_value = row["happy_q_value"]
        if q_value is not None and q_value <= MAX_Q_VALUE:
            kind: Literal["rose", "fell"] = "rose" if row["happy_change"] > 0 else "fell"
            return Change(kind, wording.describe_week_change(row))
    if compared:
        return Change("none", "no clear change")
    return Change("unknown", "no comparable figures of last week")


def describe_missing(each: FacilityRows, capture_day: date, main: Row | None) -> str:
    """Why the facility has no rate of the capture day; empty if it has one or was closed."""
    facility, row = each.facility, each.days.get(capture_day)
    if is_closed(facility, capture_day, row):
        return ""
    if row is not None and is_published(row["method"]) and row["is_complete"]:
        return ""
    failed = next((b for b in each.batches if b["capture_day"] == capture_day), None)
    if failed is not None:
        return wording.describe_batch(failed)
    if row is None:
        return wording.describe_not_run(main, has_days=bool(each.days))
    if facility["publish_period"] == "week" and main is not None:
        return ""  # its week is shown
    return wording.describe_no_rate(row, facility["publish_period"], is_without_week=True)


def _list_days(each: FacilityRows, capture_day: date) -> list[DayCell]:
    """The days of the trend, oldest first."""
    failed = {row["capture_day"]: row for row in each.batches}
    cells = []
    for age in reversed(range(DAYS)):
        day = capture_day - timedelta(days=age)
        row = each.days.get(day)
        week = each.weeks.get(day)
        if each.facility["publish_period"] == "week" and week is not None:
            row, note = week, f"week {format_days(week['first_day'], day)}"
        elif is_closed(each.facility, day, row):
            note = "closed"
        elif row is None:
            note = "not read" if day in failed else "no data"
        elif not row["is_complete"]:
            note = "not complete"
        elif row["happy_rate"] is None:
            note = wording.name_reason(row, each.facility["publish_period"])
        else:
            note = ""
        cells.append(DayCell(day, row, note))
    return cells


def _to_point(row: Row | None) -> charts.Point | None:
    if row is None or row["happy_rate"] is None:
        return None
    return row["happy_rate"], row["happy_rate_low"], row["happy_rate_high"]


def _build_heat_map(each: FacilityRows, capture_day: date) -> HeatMap | None:
    if each.as_of is None or not each.facility["has_times"]:
        return None
    last_day = each.as_of["capture_day"]
    while last_day < capture_day and is_closed(
        each.facility, last_day + ONE_DAY, each.days.get(last_day + ONE_DAY)
    ):
        last_day += ONE_DAY  # a week may end with closed days
    patterns = compute_patterns(list(each.days.values()), last_day)
    return None if patterns is None else lay_out(patterns)


def lay_out(patterns: Patterns) -> HeatMap:
    """The patterns as lines of a table: all hours together, then each hour."""
    shown = [rate for rate in patterns.hours.values() if rate is not None]
    most = max([*patterns.weekdays.values(), *shown, 0.01])
    weekdays = sorted(patterns.weekdays)
    hours = sorted({hour for _, hour in patterns.hours})

    def format_cell(rate: float | None) -> tuple[str, int]:
        if rate is None:
            return "few", -1
        return format_percent(rate), min(HEAT_LEVELS, int(rate / most * HEAT_LEVELS + 0.5))

    lines = [("all day", [format_cell(patterns.weekdays[weekday]) for weekday in weekdays])]
    for hour in hours:
        cells = [
            format_cell(patterns.hours[weekday, hour])
            if (weekday, hour) in patterns.hours
            else ("", -1)
            for weekday in weekdays
        ]
        lines.append((f"{hour}:00", cells))
    return HeatMap(
        format_days(patterns.first_day, patterns.last_day),
        [WEEKDAYS[weekday][:3] for weekday in weekdays],
        lines,
    )


def count_statuses(pages: Iterable[FacilityPage]) -> Mapping[Status, list[FacilityPage]]:
    """The facilities of each status."""
    found: dict[Status, list[FacilityPage]] = {status: [] for status in STATUSES}
    for page in pages:
        found[page.status].append(page)
    return found


def list_all_actions(pages: Sequence[FacilityPage]) -> list[dict[str, Any]]:
    """What to do next over all facilities, the most urgent kind first.

    The sentences of a kind that many facilities have are replaced by one about all of them; each
    entry has `sentence` and `pages`, the facilities it is about.
    """
    return actions.merge([(page, action) for page in pages for action in page.actions])
