"""The HTML files: self-contained, escaped, without what is not published, split if large."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from fer_batch.reporting import formatting, pages, rendering, store, wording
from tests.reporting.builders import (
    DAY,
    NO_RATE,
    Tags,
    build_acknowledged_finding,
    build_change,
    build_facility,
    build_finding,
    build_open_finding,
    build_report,
    build_rows,
    build_summary,
    build_week,
    get_text,
    render,
)

MANY = {"9": [30, 10, 60, 50], "10": [2, 1, 1, 3], "11": [50, 10, 60, 40]}


def build_month(name: str = "north-mall", group: str | None = None, **changes: Any) -> Any:
    rng = np.random.default_rng(len(name))
    days = []
    for age in range(28):
        rate = float(rng.uniform(0.3, 0.6))
        rates = {"happy_rate": rate, "happy_rate_low": rate - 0.1, "happy_rate_high": rate + 0.1}
        days.append(build_summary(DAY - timedelta(age), hours=MANY, **rates, **changes))
    facility = build_facility(name, group_name=group)
    return build_rows(*days, facility=facility, periods=[build_week()], changes=[build_change()])


def test_the_first_screen_answers_the_four_questions() -> None:
    text = get_text(
        render(
            build_month("north-mall"),
            build_rows(build_summary(verdict="not satisfied"), facility=build_facility("kiosk")),
            build_rows(
                build_summary(**NO_RATE | {"faces": 12}),
                facility=build_facility("tiny"),
                open_findings=[build_open_finding("frozen_camera", subject="till")],
            ),
        )
    )
    first = text[: text.index("All facilities All faces")]
    for expected in (
        "Happy expressions, Sunday, 29 November 2026",
        "1 above target 1 below target 0 not clear 1 without rate",
        "Below target: Kiosk",
        "North Mall fell by about 20 points against the week before (very likely 9 to 31).",
        "No comparable figures of last week: Kiosk, Tiny.",
        "What could not be measured Tiny: Too few faces or visits on Sun 29 Nov to publish a rate.",
        "What to do next Tiny: Camera till repeats the same picture. Restart it.",
    ):
        assert expected in first


def test_without_any_rate_no_empty_chart_is_drawn() -> None:
    html = render(build_rows(build_summary(**NO_RATE), facility=build_facility("tiny")))
    assert "<svg" not in html
    assert "No day or week of them has a rate." in get_text(html)


def test_a_phone_has_labels_in_place_of_the_header() -> None:
    row = render(build_month()).partition("<tbody>")[2].partition("</tr>")[0]
    assert re.findall(r'class="label">([^<]+)<', row) == [
        "Happy, of 100 faces",
        "Since last week",
        "Last 28 days, Mon 2 to Sun 29 Nov",
    ]


def test_a_section_has_the_figures_of_each_day() -> None:
    html = render(build_month())
    text = get_text(html)
    assert "North Mall: above target On Sun 29 Nov: About" in text
    assert html.count("<svg") == 3
    row = build_month().days[DAY]
    low, high = (formatting.format_percent(row[f"happy_rate_{end}"]) for end in ("low", "high"))
    assert f"({low} to {high})300 Sat 28 Nov" in text
    assert "Weekday and hour" in text
    assert "10:00 few" not in text.replace("10:00few", "10:00 few") or "few" in text
    labels = [svg.get("aria-label") for svg in Tags(html).find("svg")]
    assert all(labels)


def test_neither_counts_by_class_nor_suppressed_cells_are_in_the_file() -> None:
    counts: dict[str, Any] = {"called_happy": 488, "called_sad": 164, "called_neither": 595}
    html = render(build_month(**counts, called_happy_rate=0.3917))
    assert not re.search(r"\b(488|164|595)\b|0\.39|39\.", get_text(html))
    cells = dict(re.findall(r'<th scope="row">(\d+:00)((?:<td[^>]*>[^<]*)+)', html))
    # 10:00 has few faces; 9:00 is hidden with it, else it would follow from the day's total.
    for hour, is_shown in (("9:00", False), ("10:00", False), ("11:00", True)):
        assert ("few" in cells[hour]) is not is_shown
        assert bool(re.search(r">\d", cells[hour])) is is_shown


def test_the_file_needs_no_other_file_host_script_or_style_attribute() -> None:
    html = render(build_month(), build_month("old-town"))
    tags = Tags(html)
    assert not {"script", "link", "img", "iframe", "object", "form"} & {t for t, _ in tags.elements}
    for tag, attributes in tags.elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or store.FILE_NAME.fullmatch(value), tag
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = tags.find("meta")[1]["content"]
    assert policy
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "prefers-color-scheme:dark" in style[1]
    assert "@media print" in style[1]


def test_all_links_have_a_target() -> None:
    tags = Tags(render(build_month(), build_month("old-town")))
    ids = [attributes["id"] for _, attributes in tags.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    fragments = {a["href"] for a in tags.find("a") if (a["href"] or "").startswith("#")}
    assert fragments == {"#north-mall", "#old-town"}


@pytest.mark.parametrize(
    "name", ['<script>alert("x")</script>', "渋谷 100 %", "{{ 7*7 }}", "a'b\"c"]
)
def test_names_and_findings_are_escaped(name: str) -> None:
    facility = build_facility("a", name=name, group_name=name)
    html = render(
        build_rows(
            build_summary(),
            facility=facility,
            findings=[build_finding("x", name, meaning=name)],
            open_findings=[
                build_acknowledged_finding(
                    "x",
                    details=name,
                    meaning=name,
                    acknowledged_by=name,
                    acknowledged_comment=name,
                )
            ],
            batches=[{"capture_day": DAY, "status": "failed", "reason": name}],
        ),
        unknown=[build_finding("invalid_in_registry", name, facility_id="b")],
    )
    tags = Tags(html)
    assert "script" not in {tag for tag, _ in tags.elements}
    assert tags.text.count(name) >= 5


def test_the_report_states_what_the_range_covers_and_claims_no_feeling() -> None:
    text = get_text(render(build_month()))
    assert wording.COVERED in text
    assert wording.NOT_COVERED in text
    assert "does not state what a person felt" in text
    assert "facilities are not ranked" in text
    assert not re.search(
        r"\b(mood|satisfied customers?|happy (customers?|people|visitors?))\b", text
    )


def test_facilities_are_in_alphabetical_order_whatever_their_rate() -> None:
    rows = [build_rows(build_summary(), facility=build_facility(n)) for n in ("a", "b", "c")]
    html = render(*rows)
    table = html[html.index('<table class="all">') :]
    assert re.findall(r'<a href="#(\w)">', table[: table.index("</table>")]) == ["a", "b", "c"]


def test_an_empty_report_says_so() -> None:
    text = get_text(render())
    assert "0 facilities" in text


def test_the_index_lists_the_days() -> None:
    html = rendering.render_index([date(2026, 12, 1), date(2026, 11, 30)])
    assert [a["href"] for a in Tags(html).find("a")] == ["2026-12-01.html", "2026-11-30.html"]
    text = get_text(html)
    assert "December 2026 Tuesday, 1 December 2026" in text
    assert "No report has been written yet." in get_text(rendering.render_index([]))


GROUPS = ("Nord/Süd", "Nord Sud", "東", None)


def build_many(count: int) -> pages.ReportPage:
    return build_report(*(build_month(f"shop-{n:04d}", GROUPS[n % 4]) for n in range(count)))


@pytest.fixture
def split_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(rendering, "MAX_FACILITIES", 3)
    return rendering.render_report(build_many(16))


def test_a_large_report_is_split_by_group(split_files: dict[str, str]) -> None:
    parts = ("group", "group-2", "group-3", "group-4", "nord-sud", "nord-sud-2", "nord-sud-3")
    assert sorted(split_files) == sorted(
        ["2026-11-29.html", *(f"2026-11-29.{part}.html" for part in (*parts, "nord-sud-4"))]
    )
    assert all(store.FILE_NAME.fullmatch(name) for name in split_files)
    assert "section class" not in split_files["2026-11-29.html"]
    part = get_text(split_files["2026-11-29.nord-sud.html"])
    assert part.strip().startswith("Happy expressions on Sunday, 29 November 2026: Nord")


def test_links_between_the_files_of_a_split_report_work(split_files: dict[str, str]) -> None:
    ids = {
        f"{name}#{anchor}"
        for name, html in split_files.items()
        for anchor in re.findall(r' id="([^"]+)"', html)
    }
    assert len(ids) == 16
    linked = set()
    for name, html in split_files.items():
        for target in re.findall(r' href="([^"]+)"', html):
            if target.startswith("#"):
                assert name + target in ids
            elif "#" in target:
                linked.add(target)
            else:
                assert target in {"index.html", *split_files}
    assert linked == ids  # the file of the day leads to every facility


def test_no_file_of_a_thousand_facilities_exceeds_3_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed from the bytes of a section and of a row of the table of all facilities."""
    few, many = (
        len(next(iter(rendering.render_report(build_many(count)).values())).encode())
        for count in (4, 16)
    )
    assert (many - few) / 12 * rendering.MAX_FACILITIES < 3_000_000
    monkeypatch.setattr(rendering, "MAX_FACILITIES", 3)
    few, many = (
        len(rendering.render_report(build_many(count))["2026-11-29.html"].encode())
        for count in (4, 16)
    )
    assert (many - few) / 12 * 1000 < 3_000_000
