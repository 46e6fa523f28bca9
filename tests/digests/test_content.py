"""What a digest says, and that it says nothing of the facilities of others."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from html import unescape
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.digests import content, rendering
from fer_batch.digests.content import Digest, MissedNight
from fer_batch.findings.history import StoredFinding
from fer_batch.reporting import loading, pages, wording
from fer_batch.reporting import rendering as report_rendering
from tests.reporting.builders import (
    CONFUSION,
    DAY,
    NO_RATE,
    build_change,
    build_facility,
    build_rows,
    build_summary,
    build_week,
    get_text,
)


def build_report_rows(*facilities: loading.FacilityRows, **others: Any) -> loading.ReportRows:
    confusions = {"ab" * 32: np.array(CONFUSION, dtype=np.float64)}
    return loading.ReportRows(DAY, facilities, confusions, **others)


def build(
    *facilities: loading.FacilityRows, ids: Any = None, every: Any = "day", **others: Any
) -> Digest:
    rows = build_report_rows(*facilities)
    chosen = ids or [each.facility["facility_id"] for each in facilities]
    report, own = content.select(pages.build_report(rows), rows, chosen)
    return content.build_digest(report, own, every, **others)


def build_open(check: str, subject: str = "", **changes: Any) -> StoredFinding:
    values: dict[str, Any] = dict.fromkeys(field.name for field in fields(StoredFinding))
    values |= {
        "finding_id": 7,
        "facility_id": "north-mall",
        "check": check,
        "subject": subject,
        "severity": "warning",
        "meaning": "something is odd",
        "details": "40 images",
        "state": "open",
        "first_day": DAY,
        "last_day": DAY,
        "days": 1,
    }
    return StoredFinding(**values | changes)


def build_north(**facility: Any) -> loading.FacilityRows:
    return build_rows(
        build_summary(verdict="not satisfied", target_rate=0.6),
        facility=build_facility(**facility),
        changes=[build_change("day")],
        open_findings=[build_open("frozen_camera", "till")],
    )


def render_all(digest: Digest) -> dict[str, str]:
    return {
        "subject": digest.subject,
        "text": rendering.render_text(digest, "north"),
        "html": unescape(rendering.render_html(digest, "north")),
        "chat": rendering.render_chat(digest),
    }


def test_the_digest_has_the_first_screen_of_the_report() -> None:
    digest = build(
        build_north(),
        build_rows(build_summary(), facility=build_facility("pier")),
        link="https://airflow.example.com/satisfaction/2026-11-29.html",
    )
    assert digest.subject == "2 facilities, Sun 29 Nov: 1 below target, 1 above target, 1 fell"
    text = rendering.render_text(digest, "north")
    for line in (
        "- 1 below target: North Mall",
        "- North Mall: Camera till repeats the same picture. Restart it.",
        "- North Mall: fell by about 20 points against the Sunday before (very likely 9 to 31).",
        "- No comparable figures of last week: Pier.",
        "- Every facility that was open has been measured.",
        f"- North Mall: {wording.describe_open_finding(build_open('frozen_camera', 'till'))}",
        "Report: https://airflow.example.com/satisfaction/2026-11-29.html",
    ):
        assert f"{line}\n" in text
    rate = r"43\xa0% \(31\xa0to\xa055\), Sun 29 Nov, not comparable"
    assert re.search(rf"- North Mall: .*60\xa0%; {rate}; fell", text)


def test_text_and_html_say_the_same_and_the_report_says_it_too() -> None:
    facilities = [
        build_north(),
        build_rows(build_summary(**NO_RATE), facility=build_facility("pier")),
    ]
    digest = build(*facilities)
    report = pages.build_report(build_report_rows(*facilities))
    [page] = report_rendering.render_report(report).values()
    said = get_text(page).replace("\xa0", " ")
    html = get_text(rendering.render_html(digest, "north")).replace("\xa0", " ")
    for section in digest.sections:
        for entry in section.lines:
            assert entry.text in html
            is_own = section.title in ("Against the target", "Nightly runs")
            assert is_own or entry.text.removesuffix(".").replace("\xa0", " ") in said
        assert section.title == "Against the target" or section.title.split()[-1] in said
    for line in digest.groups[0].facilities:
        assert line.rate.replace("\xa0", " ") in html


def test_suppressed_figures_stay_suppressed() -> None:
    few = build_summary(**NO_RATE | {"faces": 12, "totals": {}})
    other = build_summary()
    digest = build(
        build_rows(few, facility=build_facility("kiosk")),
        build_rows(other, facility=build_facility("pier")),
    )
    kiosk = digest.groups[0].facilities[0]
    assert "%" not in kiosk.rate
    assert "Too few faces or visits" in kiosk.rate
    assert not any("%" in total for total in digest.groups[0].totals)


def test_a_weekly_digest_has_the_figures_of_the_week() -> None:
    week = build_week(happy_rate=0.2, happy_rate_low=0.15, happy_rate_high=0.25)
    facility = build_rows(
        build_summary(),
        periods=[week | {"verdict": "not satisfied"}],
        changes=[build_change("day", happy_change=0.3), build_change("week")],
    )
    daily, weekly = build(facility), build(facility, every="week")
    assert daily.subject.startswith("North Mall, Sun 29 Nov: above")
    assert weekly.subject == "North Mall, week Mon 23 to Sun 29 Nov: below target, fell"
    assert weekly.groups[0].facilities[0].rate.startswith("20\xa0% (15\xa0to\xa025), week")
    without = build(build_rows(build_summary()), every="week")
    assert without.groups[0].facilities[0].rate == "no rate"


def test_missed_nights_are_said_by_days_and_facilities() -> None:
    days = [DAY - timedelta(days=n) for n in (3, 2, 1)]
    mall = build_rows(build_summary(), build_summary(days[2]))
    pier = build_rows(
        build_summary(), build_summary(days[2]), facility=build_facility("pier", name="Pier")
    )
    everyone = frozenset({"north-mall", "pier"})
    missed = [
        *(MissedNight(day, everyone) for day in days),
        MissedNight(DAY, frozenset({"pier"})),
    ]
    digest = build(mall, pier, missed=missed)
    assert [(e.who, e.text) for e in digest.sections[0].lines] == [
        ("", "The nightly run of Thu 26 to Fri 27 Nov did not finish. It has not been processed."),
        ("", "The nightly run of Sat 28 Nov did not finish. A later run has processed it."),
        ("Pier", "The nightly run of Sun 29 Nov did not finish. A later run has processed it."),
    ]
    assert digest.subject.endswith(", a nightly run did not finish")


NAMES = [f"facility-{letter}" for letter in "abcdefgh"]


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from(["North", "South", None]), min_size=8, max_size=8),
    st.sets(st.sampled_from(NAMES), min_size=1, max_size=7),
    st.sampled_from(["day", "week"]),
)
def test_a_recipient_learns_nothing_of_other_facilities(
    groups: list[str | None], ids: set[str], every: str
) -> None:
    """The digest is the same, whatever the facilities of others are called and did."""

    def build_all(other: int) -> list[loading.FacilityRows]:
        made = []
        for name, group in zip(NAMES, groups, strict=True):
            is_own = name in ids
            day = build_summary(
                happy_rate=0.4 if is_own else 0.4 + other / 10,
                faces=300 if is_own else 301 + other,
                verdict="satisfied" if is_own or other else "not satisfied",
            )
            made.append(
                build_rows(
                    day,
                    facility=build_facility(
                        name,
                        name=f"Own {name}" if is_own else f"Secret {other} {name}",
                        group_name=group,
                    ),
                    periods=[build_week()],
                    open_findings=[build_open("frozen_camera")] * (1 if is_own else 2 * other),
                )
            )
        return made

    rendered = [render_all(build(*build_all(other), ids=ids, every=every)) for other in (0, 1)]
    for first, second in zip(rendered[0].values(), rendered[1].values(), strict=True):
        assert "Secret" not in first
        assert strip_time(first) == strip_time(second)
    for name in ids:
        assert f"Own {name}" in rendered[0]["text"]
    shown = {group for name, group in zip(NAMES, groups, strict=True) if name in ids}
    for group in ("North", "South"):
        assert (group in rendered[0]["html"]) is (group in shown)


def strip_time(text: str) -> str:
    return re.sub(r"Written \S+ \S+ UTC", "", text)


HOSTILE_NAMES = st.text(
    st.sampled_from("aé<>&\"'*_[]()\r\n\t\0\x0b\x85\u2028\u2029\u202e日:!@"),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(HOSTILE_NAMES, HOSTILE_NAMES)
def test_no_name_adds_a_line_or_markup(name: str, group: str) -> None:
    def count(one: str, other: str) -> tuple[int, list[str]]:
        rendered = render_all(build(build_north(name=one, group_name=other)))
        html = rendering.render_html(build(build_north(name=one, group_name=other)), "north")
        assert len(rendered["subject"].splitlines()) == 1
        lines = len(rendered["text"].splitlines()) + len(rendered["chat"].splitlines())
        return lines, re.findall(r"<[a-z0-9]+", html)

    assert count(f"a{name}", f"b{group}") == count("a", "b")


@pytest.mark.parametrize("facilities", [1, 400])
def test_a_subject_and_a_mail_have_a_limit(facilities: int) -> None:
    many = [
        build_rows(
            build_summary(), facility=build_facility(f"f{n}", name="N" * 200, group_name=f"G{n}")
        )
        for n in range(facilities)
    ]
    digest = build(*many)
    assert len(digest.subject) <= 200
    shown = sum(len(group.facilities) for group in digest.groups)
    assert shown == min(facilities, content.SHOWN_FACILITIES)
