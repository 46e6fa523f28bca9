"""Properties of key templates: no two days and no two facilities share a key."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.facilities.key_overlaps import find_overlaps, find_own_overlap
from fer_batch.facilities.key_template import (
    DEFAULT_TEMPLATE,
    KeyPrefix,
    check_template,
    check_templates,
    expand_template,
)

DAYS = st.dates()
IDS = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,20}\Z")
LITERALS = st.text("abz09/-_. %é{}", max_size=6).map(
    lambda text: text.replace("{", "{{").replace("}", "}}")
)
DATES = st.sampled_from(
    ["{capture_day}", "{capture_day:%Y%m%d}", "{capture_day:%d.%m.%Y}", "{capture_day:%Y/%j}",
     "{capture_day:%Y%b%d}", "{capture_day:%B-%d-%Y}"]
)  # fmt: skip
UNPADDED = st.sampled_from(
    ["_{capture_day:%Y/%-m/%-d}", "-{capture_day:%-d.%-m.%Y}", "/{capture_day:%-j %Y}",
     ".{capture_day:%-d %B %Y}"]
)  # fmt: skip
CAMERAS = st.text("abz09_-. %", min_size=1, max_size=6)


@st.composite
def templates(draw):
    parts = [
        draw(LITERALS),
        draw(st.sampled_from(["", "{facility_id}"])),
        draw(LITERALS),
        draw(DATES | UNPADDED),
        draw(st.sampled_from(["", "/{facility_id}", "-{facility_id}"])),
        draw(st.sampled_from(["/", "_x", "T", "."])),
        draw(LITERALS),
        draw(st.sampled_from(["/", "_", "T", "."])),
    ]
    if draw(st.booleans()):
        parts.insert(0, draw(st.sampled_from(["{camera}/", "c/{camera}_x/", "{camera}."])))
        parts[-1] = "/"
    return check_template("".join(parts))


def build(template, facility_id, day, camera="cam"):
    """The prefixes of a day as texts, for one camera."""
    return [prefix.build(camera) for prefix in expand_template(template, facility_id, day)]


@given(templates(), IDS, DAYS, DAYS, CAMERAS, CAMERAS)
def test_two_days_never_share_a_prefix(template, facility_id, a, b, camera, other_camera):
    first, second = (build(template, facility_id, day, c)
                     for day, c in ((a, camera), (b, other_camera)))  # fmt: skip
    is_one_camera = camera == other_camera or "{camera}" not in template

    shared = {(x, y) for x in first for y in second if x.startswith(y)}

    if a != b and not ("{camera}" in template and camera != other_camera):
        assert not shared
    if a == b and is_one_camera:
        assert shared == {(x, x) for x in first}


@given(templates(), IDS, DAYS, st.integers(0, 60), st.sampled_from(["", "{capture_day}/"]), CAMERAS)
def test_overlapping_facilities_are_reported(template, facility_id, day, length, rest, camera):
    # A second facility whose prefix starts like one of the first and may continue with a date.
    for prefix in build(template, facility_id, day, camera):
        beginning = (prefix[:length] if rest else prefix).replace("{", "{{").replace("}", "}}")
        other = beginning + rest
        (other_prefix,) = build(other, "other", day)

        if other_prefix.startswith(prefix) or prefix.startswith(other_prefix):
            assert list(find_overlaps({facility_id: [template], "x" + facility_id: [other]}))


@given(st.lists(IDS, unique=True, max_size=8))
def test_the_default_template_keeps_facilities_apart(ids):
    assert list(find_overlaps({facility_id: [DEFAULT_TEMPLATE] for facility_id in ids})) == []


@pytest.mark.parametrize(
    ("first", "second", "is_overlap"),
    [
        ("{camera}/{capture_day}/", "mall/{capture_day}/", True),
        ("{camera}/{capture_day}/", "in/mall/{capture_day}/", False),
        ("{camera}/{capture_day}/", "{capture_day}/mall/", False),
        ("{camera}/x/{capture_day}/", "mall/{camera}/{capture_day}/", True),
        ("cam-{camera}/{capture_day}/", "door-{camera}/{capture_day}/", False),
        ("{camera}_{capture_day}/", "a_b_{capture_day}/", True),
        ("{camera}_{capture_day}/", "a/b_{capture_day}/", False),
        ("a/{capture_day:%Y/%-m/%-d}/", "a/{capture_day:%Y/%m/%d}/", True),
        ("a/{capture_day:%Y/%b/%d}/", "a/{capture_day:%Y/%m/%d}/", False),
        ("a/{capture_day:%Y/%b/%d}/", "a/{capture_day:%Y}/NOV/{capture_day:%d/%m}/", True),
        ("a/{capture_day:%Y/%b/%d}/", "a/{capture_day:%Y/%B/%d}/", True),  # May
        ("a/b/", "a/{capture_day}/", False),
        ("a/", "a/{capture_day}/", True),
    ],
)
def test_overlaps_with_cameras_and_names(first, second, is_overlap):
    for one, other in ((first, second), (second, first)):
        assert bool(list(find_overlaps({"one": [one], "other": [other]}))) == is_overlap
        assert bool(find_own_overlap([one, other], "one")) == is_overlap
    assert (
        list(find_overlaps({"one": ["x/{capture_day}/", first], "two": [second]}))
        == ([("one", "two")] if is_overlap else [])
        or is_overlap
    )


def test_every_overlapping_pair_is_reported():
    overlaps = find_overlaps(
        {
            "mall": ["{facility_id}/{capture_day}/"],
            "twin": ["mall/{capture_day:%Y-%m-%d}/", "else/{capture_day}/"],
            "deep": ["mall/{capture_day:%Y-%m-%d}/{facility_id}/"],
            "apart": ["{capture_day}/{facility_id}/"],
            "year": ["mall/2026-{capture_day:%m-%d}/{capture_day:%Y}/"],
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
        ("{facility_id}/{capture_day:%Y-%m}/", "complete capture day"),
        ("{facility_id}/{capture_day:%m-%d}/", "complete capture day"),
        ("{facility_id}/{capture_day:%b-%d}/", "complete capture day"),
        ("{facility_id}/{capture_day:today}/", "complete capture day"),
        ("{facility_id}/{capture_day:%Y%m%d%%}/", "may use only %Y, %y, %m"),
        ("{facility_id}/{capture_day:%Y%m%d%}/", "may use only %Y, %y, %m"),
        ("{facility_id}/{capture_day:%Y%m%d%-Y}/", "may use only %Y, %y, %m"),
        ("{facility_id}/{capture_day:%Y%m%d{facility_id}}/", "may use only %Y, %y, %m"),
        ("{facility_id}/{capture_day:%Y%m%d/%H}/", "the time belongs to name_template"),
        # Numbers without a fixed width
        ("{facility_id}/{capture_day:%Y%-m%-d}/", "must separate %-m"),
        ("{facility_id}/{capture_day:%-d1.%m.%Y}/", "must separate %-d"),
        ("shop1{capture_day:%-d.%m.%Y}/", "must separate %-d"),
        ("{facility_id}{capture_day:%-d.%m.%Y}/", "must separate %-d"),
        # Cameras
        ("{camera}/{capture_day}/{camera}/", "{camera} only once"),
        ("{camera}{capture_day}/", "must separate {camera}"),
        ("{capture_day}{camera}/", "must separate {camera}"),
        ("{facility_id}{camera}/{capture_day}/", "must separate {camera}"),
        ("{camera}_{capture_day}_", "must have a / after {camera}"),
        # What a listing never finds
        ("cam-*/{capture_day}/", "wildcard \\*: a listing finds .* Write {camera}"),
        ("{facility_id}/{capture_day}/*", "wildcard"),
        ("cam?/{capture_day}/", "wildcard"),
        ("{facility_id}/{capture_day}/{*}.jpg", "is a field of name_template"),
        ("{facility_id}/{capture_day}_{captured_at:%H%M}/", "is a field of name_template"),
        ("{facility_id}/{capture_day}.jpg", "must end before the names of the images"),
        ("{facility_id}/{capture_day}/image.PNG", "must end before the names of the images"),
        ("{facility_id}/%Y/%m/%d/", "%Y outside of a field"),
        ("s3://bucket/{facility_id}/{capture_day}/", "not a URL"),
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
    assert build(check_template(template), "mall", date(2026, 3, 9)) == [prefix]


@pytest.mark.parametrize(
    ("template", "prefixes"),
    [
        ("{facility_id}/{capture_day:%Y/%-m/%-d}/", ["mall/2026/3/9/"]),
        ("{capture_day:%-d.%-m.%y} {facility_id}/", ["9.3.26 mall/"]),
        ("{facility_id}/{capture_day:%Y-%-j}/", ["mall/2026-68/"]),
        (
            "{facility_id}/{capture_day:%Y/%b/%d}/",
            ["mall/2026/Mar/09/", "mall/2026/mar/09/", "mall/2026/MAR/09/"],
        ),
        (
            "{capture_day:%-d %B %Y}/",
            ["9 March 2026/", "9 march 2026/", "9 MARCH 2026/"],
        ),
    ],
)
def test_dates_with_names_and_without_zeros(template, prefixes):
    assert build(check_template(template), "mall", date(2026, 3, 9)) == prefixes


def test_the_name_of_a_camera_comes_between_head_and_tail():
    template = check_template("in/{camera}_x/{facility_id}/{capture_day:%Y/%m/%d}/")
    (prefix,) = expand_template(template, "mall", date(2026, 3, 9))

    assert prefix == KeyPrefix("in/", "_x/mall/2026/03/09/")
    assert prefix.build("door") == "in/door_x/mall/2026/03/09/"
    assert prefix.example == "in/{camera}_x/mall/2026/03/09/"


def test_the_message_names_the_template_if_there_are_several():
    with pytest.raises(ValueError, match="'b/\\*/' must not contain the wildcard"):
        check_templates(("a/{capture_day}/", "b/*/"))
    with pytest.raises(ValueError, match="1 to 50 templates"):
        check_templates(())
