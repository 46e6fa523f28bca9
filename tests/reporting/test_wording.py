"""The sentences about a rate, a target and a change: what they claim, and what they never claim."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.reporting import formatting, wording

RATED = {"happy_rate": 0.264, "happy_rate_low": 0.131, "happy_rate_high": 0.406}
UNRATED = dict.fromkeys(RATED)
SUPPRESSED = {"method": "suppressed", "verdict": "suppressed", **UNRATED}


def build(**changes: Any) -> dict[str, Any]:
    """A summary of a day that is published and inconclusive."""
    return {
        "period": "day",
        "first_day": date(2026, 3, 2),
        "last_day": date(2026, 3, 2),
        "capture_day": date(2026, 3, 2),
        "images": 310,
        "images_pending": 0,
        "not_scored": {},
        "method": "benchmark",
        "audit_id": None,
        "audit_labels": None,
        "verdict": "inconclusive",
        "target_rate": 0.3,
        "faces": 300,
        "faces_needed": 1_234,
        "is_complete": True,
        **RATED,
    } | changes


def build_week(**changes: Any) -> dict[str, Any]:
    ends = {"period": "week", "last_day": date(2026, 3, 8), "faces": 2_100, "faces_needed": None}
    return build(**(ends | changes))


def build_four_weeks(**changes: Any) -> dict[str, Any]:
    ends = {"period": "four weeks", "last_day": date(2026, 3, 29), "faces": 8_400}
    return build(**(ends | changes))


# The rate


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "About 26 of 100 faces showed a happy expression; the true figure is very likely "
            "between 13 and 41.",
        ),
        (
            {"method": "local"},
            "About 26 of 100 faces showed a happy expression; the true figure is very likely "
            "between 13 and 41.",
        ),
        (
            {"method": "raw", "verdict": "no verdict"},
            "About 26 of 100 faces were called happy by the program. Its errors are unknown, so "
            "the true figure may be far from that.",
        ),
        (
            SUPPRESSED | {"faces": 4},
            "Too few faces or visits on Mon 2 Mar to publish a rate.",
        ),
        (
            SUPPRESSED | {"publish_period": "week"},
            "It publishes by week, and single days have no rate (Mon 2 Mar).",
        ),
        (SUPPRESSED | {"images": 0, "faces": 0}, "No image arrived on Mon 2 Mar."),
        (SUPPRESSED | {"faces": 0}, "No face was found in the 310 images of Mon 2 Mar."),
        (SUPPRESSED | {"images": 0, "is_closed": True}, "The facility was closed."),
        (
            SUPPRESSED | {"is_complete": False, "images_pending": 12},
            "Mon 2 Mar is not complete: 12 images of 310 could not be read yet.",
        ),
        (
            SUPPRESSED | {"is_complete": False, "not_scored": {"refused": 90, "no_face": 9}},
            "Mon 2 Mar is not complete: 90 images of 310 could not be read.",
        ),
        (
            SUPPRESSED | {"is_complete": False, "images": 0, "faces": 0},
            "Mon 2 Mar is not complete: its images have to be listed again after the day is over.",
        ),
        (
            SUPPRESSED | {"verdict": "pending", "is_complete": False, "publish_period": "week"},
            "Mon 2 Mar is not complete: its images have to be listed again after the day is over.",
        ),
        (
            {"method": "wilson", "verdict": "satisfied", **UNRATED},
            "An earlier version of fer-batch counted this day by another method.",
        ),
    ],
)
def test_a_rate_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert wording.describe_rate(build(**changes)) == sentence


def test_a_rate_in_a_cell() -> None:
    assert formatting.format_rate(build(), "happy_rate") == "26 % (13 to 41)"
    assert formatting.format_rate(build(**UNRATED), "happy_rate") == "–"


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_rates_are_shown_in_whole_percents_only(ends: list[float]) -> None:
    low, rate, high = sorted(ends)
    row = build(happy_rate=rate, happy_rate_low=low, happy_rate_high=high)
    for text in (wording.describe_rate(row), formatting.format_rate(row, "happy_rate")):
        numbers = [int(number) for number in re.findall(r"\d+", text.replace("of 100", ""))]
        assert numbers == [round(100 * each) for each in (rate, low, high)]
        assert "." not in text.rstrip(".")


# The target


@pytest.mark.parametrize(
    ("periods", "sentence"),
    [
        ([], ""),
        ([build(verdict="no target", target_rate=None)], ""),
        ([build(verdict="no verdict", method="raw")], ""),
        ([build(verdict="suppressed"), build_week(verdict="suppressed")], ""),
        ([build(verdict="pending")], ""),
        ([build(method="wilson", verdict="satisfied", target_rate=None, **UNRATED)], ""),
        (
            [build(verdict="satisfied"), build_week(verdict="not satisfied")],
            "On Mon 2 Mar the happy rate was very likely above the target of 30 %.",
        ),
        (
            [build(verdict="not satisfied")],
            "On Mon 2 Mar the happy rate was very likely below the target of 30 %.",
        ),
        (
            [build(), build_week(verdict="not satisfied"), build_four_weeks(verdict="satisfied")],
            "In the week from Mon 2 to Sun 8 Mar the happy rate was very likely below the "
            "target of 30 %.",
        ),
        (
            [build(), build_week(), build_four_weeks(verdict="satisfied")],
            "In the four weeks from Mon 2 to Sun 29 Mar the happy rate was very likely above "
            "the target of 30 %.",
        ),
        (
            [build(verdict="suppressed"), build_week(verdict="satisfied")],
            "In the week from Mon 2 to Sun 8 Mar the happy rate was very likely above the "
            "target of 30 %.",
        ),
        (
            [build()],
            "Whether the target of 30 % was met is open. About 1,300 faces instead of 300 would "
            "settle it at this rate, or an audit of the facility's own faces "
            "(fer-batch audit sample).",
        ),
        (
            [build(), build_week(faces_needed=98_765)],
            "Whether the target of 30 % was met is open. About 99,000 faces instead of 2,100 would "
            "settle it at this rate, or an audit of the facility's own faces "
            "(fer-batch audit sample).",
        ),
        (
            [build(), build_week()],
            "Whether the target of 30 % was met is open. More faces alone would not settle it; an "
            "audit of the facility's own faces would narrow the range (fer-batch audit sample).",
        ),
        (
            [build(), build_week(audit_id=3, audit_labels=200)],
            "Whether the target of 30 % was met is open. More faces alone would not settle it; a "
            "larger audit of the facility's own faces would narrow the range (fer-batch audit "
            "sample).",
        ),
    ],
)
def test_the_verdict_is_that_of_the_shortest_conclusive_period(
    periods: list[dict[str, Any]], sentence: str
) -> None:
    assert wording.describe_verdict(periods) == sentence


# A change


def build_change(**changes: Any) -> dict[str, Any]:
    return {
        "period": "week",
        "capture_day": date(2026, 3, 8),
        "happy_change": 0.124,
        "happy_change_low": 0.034,
        "happy_change_high": 0.216,
        "happy_q_value": 0.02,
    } | changes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "rose by about 12 points against the week before (very likely 3 to 22)"),
        ({"happy_change": 0.014}, "rose by about 1 point against the week before"),
        (
            {
                "period": "day",
                "happy_change": -0.124,
                "happy_change_low": -0.216,
                "happy_change_high": -0.034,
            },
            "fell by about 12 points against the Sunday before (very likely 3 to 22)",
        ),
    ],
)
def test_a_change_against_last_week(changes: dict[str, Any], sentence: str) -> None:
    assert wording.describe_week_change(build_change(**changes)).startswith(sentence)


@pytest.mark.parametrize(
    ("days", "text"),
    [
        ((date(2026, 3, 2), date(2026, 3, 8)), "Mon 2 to Sun 8 Mar"),
        ((date(2026, 3, 30), date(2026, 4, 5)), "Mon 30 Mar to Sun 5 Apr"),
        ((date(2025, 12, 29), date(2026, 1, 4)), "Mon 29 Dec to Sun 4 Jan"),
    ],
)
def test_days_have_weekday_names(days: tuple[date, date], text: str) -> None:
    assert formatting.format_days(*days) == text
    assert formatting.format_long_day(days[0]).startswith("Monday, ")


# Findings


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ("50 % of 8 images were not scored: 4 no_face", "50 % of 8 images were not scored: 4 no "
         "face found"),
        ("5 of 9 images were not scored: 3 no_face, 2 empty", "5 of 9 images were not scored: 3 no "
         "face found, 2 empty file"),
        ("9 of 9 images are decoder_crashed: look at them", "9 of 9 images: could not be decoded: "
         "look at them"),
        ("9 of 9 images are refused (403): allow it", "9 of 9 images: the storage refused it "
         "(403): allow it"),
        ("3 of 9 keys, first a/4 empty/no_face.jpg", "3 of 9 keys, first a/4 empty/no_face.jpg"),
    ],
)  # fmt: skip
def test_findings_have_words_instead_of_ids(details: str, words: str) -> None:
    found = {"capture_day": date(2026, 3, 2), "meaning": "many images", "finding": details}
    assert wording.describe_finding(found) == f"Mon 2 Mar: Many images ({words})"


def test_a_finding_without_details() -> None:
    found = {"capture_day": date(2026, 3, 2), "meaning": "odd", "finding": ""}
    assert wording.describe_finding(found) == "Mon 2 Mar: Odd"


# What is never claimed


def list_sentences() -> list[str]:
    rows = [
        build(method=method, verdict=verdict, **rates)
        for method in ("benchmark", "local", "raw", "suppressed", "wilson")
        for verdict in ("satisfied", "not satisfied", "inconclusive", "pending", "suppressed")
        for rates in (RATED, UNRATED)
    ]
    return [
        *(wording.describe_rate(row) for row in rows),
        *(wording.describe_verdict([row]) for row in rows),
        wording.describe_week_change(build_change()),
    ]


def test_nothing_claims_more_than_that_an_expression_was_seen() -> None:
    claims = re.compile(
        r"\b(feel|feels|felt|feeling|feelings|mood|emotion|content|pleased|unhappy|satisfaction"
        r"|customers?|visitors?|people|persons?)\b|\bwere happy\b|\bis happy\b"
    )
    assert [text for text in list_sentences() if claims.search(text)] == []
    assert "an expression is not a feeling" in wording.NOT_COVERED


@pytest.mark.parametrize("text", ["few visits", "repeated pictures", "errors of the program"])
def test_what_the_range_covers_is_named(text: str) -> None:
    assert text in wording.COVERED


def test_what_the_range_does_not_cover_is_named() -> None:
    assert "the detector finds happy faces more often than sad ones" in wording.NOT_COVERED
