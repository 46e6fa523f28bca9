"""The report: its content, suppressed figures, escaping, and that it is self-contained."""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fer_batch.reporting import report, wording

DAY = date(2026, 11, 20)


NOTHING = {f"{name}_rate{end}": None for name in ("happy", "sad") for end in ("", "_low", "_high")}


def build_summary(facility_id: str = "north-mall", **changes: Any) -> dict[str, Any]:
    return {
        "facility_id": facility_id,
        "facility_name": facility_id.title(),
        "capture_day": DAY,
        "model_version": "ab" * 32,
        "method": "benchmark",
        "target_rate": 0.3,
        "images": 1_250,
        "images_pending": 0,
        "not_scored": {"empty": 2, "unreadable": 1},
        "faces": 1_247,
        "faces_needed": None,
        "happy_rate": 0.4333,
        "happy_rate_low": 0.3112,
        "happy_rate_high": 0.5533,
        "sad_rate": 0.0701,
        "sad_rate_low": 0.0,
        "sad_rate_high": 0.1849,
        "neither_rate": 0.4966,
        "called_happy_rate": 0.3917,
        "called_sad_rate": 0.1313,
        "verdict": "satisfied",
        "is_complete": True,
        "is_below_expected": False,
    } | changes


def build_suppressed(facility_id: str = "quiet-shop") -> dict[str, Any]:
    return build_summary(
        facility_id,
        faces=23,
        method="suppressed",
        verdict="suppressed",
        **NOTHING,
    )


def build_week(facility_id: str = "north-mall", **changes: Any) -> dict[str, Any]:
    ends = {"period": "week", "first_day": date(2026, 11, 9), "last_day": date(2026, 11, 15)}
    return build_summary(facility_id, **(ends | changes))


def get_text(html: str) -> str:
    return re.sub(r"\s+", " ", Tags(html).text)


def build_data(*days: Mapping[str, Any], **more: Any) -> report.ReportData:
    made_at = datetime(2026, 11, 21, 3, 5, tzinfo=UTC)
    return report.ReportData(DAY, days, made_at=made_at, **more)


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_row_has_rates_with_intervals_target_and_verdict() -> None:
    text = get_text(report.render_html(build_data(build_summary())))
    for expected in (
        "North-Mall 1,250 1,247 43 % (31 to 55) 7 % (0 to 18) 30 % 2 empty, 1 unreadable satisfied",
        "North-Mall: About 43 of 100 faces showed a happy expression; the true figure is very "
        "likely between 31 and 55. On this day the happy rate was very likely above the target of "
        "30 %.",
        "ab" * 6,
    ):
        assert expected in text


def test_a_facility_without_a_target_has_a_dash() -> None:
    html = report.render_html(build_data(build_summary(target_rate=None, verdict="no target")))
    assert "7 % (0 to 18) – 2 empty, 1 unreadable no target" in get_text(html)
    assert "the target of" not in get_text(html)


def test_the_verdict_comes_from_the_shortest_conclusive_period() -> None:
    data = build_data(
        build_summary(verdict="inconclusive", faces_needed=4_321),
        build_suppressed(),
        periods=[build_week(), build_week("quiet-shop", verdict="not satisfied")],
    )
    text = get_text(report.render_html(data))
    week = "In the week from 2026-11-09 to 2026-11-15"
    assert f"{week} the happy rate was very likely above the target of 30 %." in text
    assert f"{week} the happy rate was very likely below the target of 30 %." in text
    assert f"by week. {week}: About 43 of 100 faces showed a happy expression" in text
    alone = get_text(report.render_html(build_data(*data.days)))
    assert "About 4,400 faces instead of 1,247 would settle it" in alone


def test_a_change_that_is_hardly_chance_is_mentioned() -> None:
    change = {
        "facility_id": "north-mall",
        "comparison": "week before",
        "happy_change": -0.2,
        "happy_change_low": -0.31,
        "happy_change_high": -0.09,
        "happy_q_value": 0.01,
    }
    for own, is_shown in (
        (change, True),
        (change | {"happy_q_value": 0.2}, False),
        (change | {"facility_id": "another"}, False),
    ):
        text = get_text(report.render_html(build_data(build_summary(), changes=[own])))
        assert ("It fell by about 20 points" in text) is is_shown


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "raw", "verdict": "no verdict"}, "were called happy by the program"),
        ({"method": "wilson", "target_rate": None, **NOTHING}, "by another method"),
        ({"method": "suppressed", "verdict": "pending", **NOTHING}, "Not all images have arrived"),
    ],
)
def test_other_methods_have_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in get_text(report.render_html(build_data(build_summary(**changes))))


def test_neither_report_nor_console_has_counts_by_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor rates with decimals, from which they could be computed, nor the uncorrected rates."""
    counts: dict[str, Any] = {"called_happy": 488, "called_sad": 164, "called_neither": 595}
    summary = build_summary(**counts, totals={"blocks": {"counts": [488, 164, 595]}})
    html = report.render_html(build_data(summary))
    figure = html[html.index("<svg") : html.index("</svg>")]
    report.print_summaries([summary])
    for text in (get_text(html.replace(figure, "")), capsys.readouterr().out):
        assert not re.search(r"488|164|595|43\.3|0\.43|39 %|13 %", text)


def test_the_report_states_what_the_range_covers_and_claims_no_feeling() -> None:
    text = get_text(report.render_html(build_data(build_summary())))
    assert wording.COVERED in text
    assert wording.NOT_COVERED in text
    assert "does not state what a person felt" in text
    assert not re.search(
        r"\b(mood|satisfied customers?|happy (customers?|people|visitors?))\b", text
    )


def test_the_file_needs_no_other_file_or_host() -> None:
    tags = Tags(report.render_html(build_data(build_summary())))
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags.elements}
    for tag, attributes in tags.elements:
        for name in ("href", "src", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, value)


def test_a_suppressed_row_has_no_rate() -> None:
    html = report.render_html(build_data(build_suppressed()))
    text = get_text(html)
    assert "Quiet-Shop 1,250 23 – – 30 % 2 empty, 1 unreadable suppressed" in text
    assert "No rate is published" in text
    assert "<svg" not in html


def test_hostile_names_and_findings_are_escaped() -> None:
    attack = '<script>alert("x")</script>'
    html = report.render_html(
        build_data(
            build_summary(facility_name=attack),
            findings=[
                {"severity": "error", "facility_id": "a", "capture_day": DAY, "finding": attack}
            ],
            skipped=[
                {"facility_id": attack, "capture_day": DAY, "status": "failed", "reason": attack}
            ],
        )
    )
    assert "script" not in {tag for tag, _ in Tags(html).elements}
    assert Tags(html).text.count(attack) >= 4


def test_a_name_with_formula_syntax_is_drawn() -> None:
    assert "<svg" in report.draw_chart([build_summary(facility_name=r"Shop $\frac{")])


def test_incomplete_and_skipped_batches_are_reported() -> None:
    html = report.render_html(
        build_data(
            build_summary(is_complete=False, images_pending=12, is_below_expected=True),
            skipped=[
                {
                    "facility_id": "b",
                    "capture_day": DAY,
                    "status": "no_permission",
                    "reason": "ended",
                }
            ],
        )
    )
    text = get_text(html)
    assert "not complete" in text
    assert "12 pending" in text
    assert "fewer images than expected" in text
    assert "b, 2026-11-20: no permission, ended" in text


def test_a_report_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "day.html"
    report.write_file(path, "first")
    report.write_file(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_report_on_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as full:
            report.write_file(tmp_path / "day.html", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.value.filename == str(tmp_path / "day.html")
    assert list(tmp_path.iterdir()) == []


def test_the_console_table_shows_the_drawn_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.print_summaries([build_summary(), build_suppressed()], {"north-mall": 0.452})
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "│" in line]
    assert "43 % (31 to 55)" in lines[0]
    assert "45 %" in lines[0]
    assert "suppressed" in lines[1]
    assert "North-Mall: About 43 of 100 faces showed a happy expression" in out
    assert "Quiet-Shop: No rate is published" in out
