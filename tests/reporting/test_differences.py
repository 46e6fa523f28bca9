"""Facilities side by side: compared if each has an audit of its own, else not comparable."""

from __future__ import annotations

from typing import Any

import pytest

from fer_batch.digests import content
from fer_batch.reporting import loading, report
from fer_batch.reporting.differences import SHOWN, describe_differences
from tests.reporting.builders import (
    DAY,
    build_facility,
    build_report,
    build_rows,
    build_summary,
    build_week,
    get_text,
    render,
)

LOCAL: dict[str, Any] = {"method": "local"}


def build(name: str, rate: float, half: float = 0.03, **week: Any) -> loading.FacilityRows:
    ends: dict[str, Any] = {
        "happy_rate": rate,
        "happy_rate_low": rate - half,
        "happy_rate_high": rate + half,
    }
    return build_rows(
        build_summary(**(ends | LOCAL)),
        facility=build_facility(name.lower(), name=name),
        periods=[build_week(**(ends | LOCAL | week))],
    )


def test_only_facilities_with_an_audit_of_their_own_are_compared() -> None:
    best, equal, other = build("Zoo", 0.4), build("Arena", 0.3), build("Mall", 0.31)
    without = build_rows(build_summary(), facility=build_facility("cafe", name="Cafe"))
    lines = describe_differences([best, without, equal, other]).lines
    week = "week Mon 23 to Sun 29 Nov"
    assert lines == [
        f"Arena and Mall: no clear difference (-5 to 3 points, {week}).",
        f"Arena is about 10 points below Zoo (very likely 6 to 14, {week}).",
        f"Mall is about 9 points below Zoo (very likely 5 to 13, {week}).",
    ]
    # Not the same week: the same day is compared.
    late = build("Late", 0.3, last_day=DAY.replace(day=22))
    (line,) = describe_differences([best, late]).lines
    assert line.endswith("(very likely 6 to 14, Sun 29 Nov).")
    html = get_text(render(best, without, equal))
    assert "Arena is about 10 points below Zoo" in html
    assert html.count("; not comparable") == 1, "the facility without an audit"
    assert "The others are not comparable" in html
    assert "facilities are not ranked" in html
    audited = build_summary(**LOCAL, audit_id=1, audit_labels=1200)
    assert "Corrected by 1,200 labeled faces of the facility (method local)." in get_text(
        render(build_rows(audited))
    )


def test_facilities_without_audits_are_not_comparable_anywhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [build_rows(build_summary(), facility=build_facility(name)) for name in ("b", "a")]
    html = get_text(render(*rows))
    assert html.count("; not comparable") == 2
    assert "fewer than two facilities have an audit of their own" in html
    assert (
        "not comparable" not in get_text(render(rows[0])).split("How to read")[0].split("ranked")[0]
    )

    page = build_report(*rows)
    digest = content.build_digest(page, loading.ReportRows(DAY, rows), "day")
    assert all(line.rate.endswith(", not comparable") for line in digest.groups[0].facilities)
    (section,) = [
        each for each in digest.sections if each.title == "Differences between facilities"
    ]
    assert "The others are not comparable" in section.lines[0].text

    own: dict[str, Any] = {"facility_name": "B", "called_happy_rate": 0.3}
    report.print_summaries([build_summary(facility_id=name, **own) for name in ("b", "a")])
    assert "Not comparable: B, B." in capsys.readouterr().out.replace("\n", " ")


def test_a_digest_compares_its_own_facilities_only() -> None:
    rows = loading.ReportRows(DAY, [build("Zoo", 0.4), build("Arena", 0.3), build("Mall", 0.2)])
    page, own = content.select(build_report(*rows.facilities), rows, {"zoo", "mall"})
    (section,) = [
        each
        for each in content.build_digest(page, own, "week").sections
        if each.title == "Differences between facilities"
    ]
    (line,) = section.lines
    assert line.text.startswith("Mall is about 20 points below Zoo")


def test_of_many_pairs_only_clear_ones_are_listed() -> None:
    names = [f"Shop {number}" for number in range(8)]
    many = [build(name, 0.5 if number == 0 else 0.3) for number, name in enumerate(names)]
    found = describe_differences(many)
    assert len(found.lines) == 7 < SHOWN
    assert all("points above" in line for line in found.lines)
    assert found.more.startswith("21 more pairs: `fer-batch query how_do_facilities_differ`")
