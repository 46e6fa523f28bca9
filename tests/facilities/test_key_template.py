"""Properties of key templates: no two days and no two facilities share a key."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.facilities.key_template import (
    DEFAULT_TEMPLATE,
    check_template,
    expand_template,
    find_overlaps,
)

DAYS = st.dates()
IDS = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,20}\Z")
LITERALS = st.text("abz09/-_. %é{}", max_size=6).map(
    lambda text: text.replace("{", "{{").replace("}", "}}")
)
DATES = st.sampled_from(
    ["{capture_day}", "{capture_day:%Y%m%d}", "{capture_day:%d.%m.%Y}", "{capture_day:%Y/%j}"]
)


@st.composite
def templates(draw):
    parts = [
        draw(LITERALS),
        draw(st.sampled_from(["", "{facility_id}"])),
        draw(LITERALS),
        draw(DATES),
        draw(st.sampled_from(["", "{facility_id}"])),
        draw(LITERALS),
        draw(st.sampled_from(["/", "_", "T", "."])),
    ]
    return check_template("".join(parts))


@given(templates(), IDS, DAYS, DAYS)
def test_two_days_never_share_a_prefix(template, facility_id, a, b):
    first, second = (
        expand_template(template, facility_id, a),
        expand_template(template, facility_id, b),
    )

    assert first.startswith(second) == (a == b)


@given(templates(), IDS, DAYS, st.integers(0, 60), st.sampled_from(["", "{capture_day}/"]))
def test_overlapping_facilities_are_reported(template, facility_id, day, length, rest):
    # A second facility whose prefix starts like one of the first and may continue with a date.
    prefix = expand_template(template, facility_id, day)
    beginning = (prefix[:length] if rest else prefix).replace("{", "{{").replace("}", "}}")
    other = beginning + rest
    other_prefix = expand_template(other, "other", day)

    if other_prefix.startswith(prefix) or prefix.startswith(other_prefix):
        assert list(find_overlaps({facility_id: template, "x" + facility_id: other}))


@given(st.lists(IDS, unique=True, max_size=8))
def test_the_default_template_keeps_facilities_apart(ids):
    assert list(find_overlaps(dict.fromkeys(ids, DEFAULT_TEMPLATE))) == []


def test_every_overlapping_pair_is_reported():
    overlaps = find_overlaps(
        {
            "mall": "{facility_id}/{capture_day}/",
            "twin": "mall/{capture_day:%Y-%m-%d}/",
            "deep": "mall/{capture_day:%Y-%m-%d}/{facility_id}/",
            "apart": "{capture_day}/{facility_id}/",
            "year": "mall/2026-{capture_day:%m-%d}/{capture_day:%Y}/",
        }
    )

    assert {frozenset(pair) for pair in overlaps} == {
        frozenset(pair)
        for pair in [
            ("mall", "twin"),
            ("mall", "deep"),
            ("twin", "deep"),
            ("mall", "year"),
            ("twin", "year"),
        ]
    }


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{facility_id}/", "complete capture day"),
        ("{facility_id}/{capture_day:%Y-%m}/", "complete capture day"),
        ("{facility_id}/{capture_day:%m-%d}/", "complete capture day"),
        ("{facility_id}/{capture_day:%y-%m-%d}/", "%Y, %m, %d, %j"),
        ("{facility_id}/{capture_day:%-d.%m.%Y}/", "%Y, %m, %d, %j"),
        ("{facility_id}/{capture_day:%Y%m%d%%}/", "%Y, %m, %d, %j"),
        ("{facility_id}/{capture_day:%Y%m%d%}/", "%Y, %m, %d, %j"),
        ("{facility_id}/{capture_day:%Y%m%d{facility_id}}/", "%Y, %m, %d, %j"),
        ("{facility_id}/{capture_day:%Y-%m-%d}", "end with a literal"),
        ("{capture_day:%Y-%m-%d}/{facility_id}", "end with a literal"),
        ("{facility_id}/{capture_day:%Y-%m-%d}/0", "end with a literal"),
        ("{facility}/{capture_day}/", "only the fields"),
        ("{facility_id.__class__}/{capture_day}/", "only the fields"),
        ("{capture_day.year}/{capture_day}/", "only the fields"),
        ("{facility_id!r}/{capture_day}/", "only the fields"),
        ("{facility_id:>99}/{capture_day}/", "only the fields"),
        ("{}/{capture_day}/", "only the fields"),
        ("{facility_id/{capture_day}/", "is not a valid template"),
        ("{facility_id}/{capture_day}/}", "is not a valid template"),
        ("{facility_id}\n/{capture_day}/", "control characters"),
        ("{facility_id}/{capture_day:%Y\x00%m%d}/", "control characters"),
        ("{facility_id}/{capture_day}/" + "é" * 220 + "/", "at most 512 bytes"),
    ],
)
def test_an_invalid_template_is_rejected(template, problem):
    with pytest.raises(ValueError, match=problem):
        check_template(template)


@pytest.mark.parametrize(
    ("template", "prefix"),
    [
        (DEFAULT_TEMPLATE, "mall/2026-03-09/"),
        ("{facility_id}/{capture_day}/", "mall/2026-03-09/"),
        ("in/{capture_day:%Y/%m/%d}/{facility_id}/", "in/2026/03/09/mall/"),
        ("{facility_id}/{capture_day:%Y}/{capture_day:%j}/", "mall/2026/068/"),
        ("{facility_id}/IMG_{capture_day:%Y%m%d}T", "mall/IMG_20260309T"),
        ("{{x}}//100%/{facility_id}/{capture_day}/", "{x}//100%/mall/2026-03-09/"),
    ],
)
def test_a_template_is_expanded_to_a_prefix(template, prefix):
    assert expand_template(check_template(template), "mall", date(2026, 3, 9)) == prefix
