"""The report: its content, suppressed figures, escaping, and that it is self-contained."""

from __future__ import annotations

import re
import resource
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fer_batch.reporting import report

DAY = date(2026, 11, 20)


def build_summary(facility_id: str = "north-mall", **changes: Any) -> dict[str, Any]:
    return {
        "facility_id": facility_id,
        "facility_name": facility_id.title(),
        "capture_day": DAY,
        "model_version": "ab" * 32,
        "target_share": 0.8,
        "images": 1_250,
        "images_pending": 0,
        "not_scored": {"empty": 2, "unreadable": 1},
        "faces": 1_247,
        "happy": 1_000,
        "sad": 200,
        "uncertain": 47,
        "neither": 31,
        "happy_share": 0.8333,
        "happy_share_low": 0.8112,
        "happy_share_high": 0.8533,
        "verdict": "satisfied",
        "is_complete": True,
        "is_below_expected": False,
    } | changes


def build_suppressed(facility_id: str = "quiet-shop") -> dict[str, Any]:
    return build_summary(
        facility_id,
        faces=23,
        happy=17,
        sad=4,
        uncertain=2,
        neither=1,
        happy_share=None,
        happy_share_low=None,
        happy_share_high=None,
        verdict="suppressed",
    )


def build_data(*days: dict[str, Any], **more: Any) -> report.ReportData:
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


def test_a_row_has_counts_share_with_interval_and_verdict() -> None:
    text = re.sub(r"\s+", " ", Tags(report.render_html(build_data(build_summary()))).text)
    for expected in (
        "North-Mall 1,250 1,247 1,000 200 47 31 2 empty, 1 unreadable",
        "0.833 (0.811 to 0.853)",
        "satisfied",
        "ab" * 6,
    ):
        assert expected in text


def test_the_file_needs_no_other_file_or_host() -> None:
    tags = Tags(report.render_html(build_data(build_summary())))
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags.elements}
    for tag, attributes in tags.elements:
        for name in ("href", "src", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, value)


def test_a_suppressed_row_has_no_share_and_no_counts() -> None:
    html = report.render_html(build_data(build_suppressed()))
    text = re.sub(r"\s+", " ", Tags(html).text)
    assert "Quiet-Shop 1,250 23 – – – – 2 empty, 1 unreadable – 0.80 suppressed" in text
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
    text = re.sub(r"\s+", " ", Tags(html).text)
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


def test_the_console_table_shows_the_true_share(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.print_summaries([build_summary(), build_suppressed()], {"north-mall": 0.85})
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert "0.850" in lines[0]
    assert "suppressed" in lines[1]
    assert "17" not in lines[1]
