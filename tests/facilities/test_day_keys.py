"""The keys of a day: each image is found on exactly one local day, whatever the layout."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.facilities.registry import Facility

ZONES = ["Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati", "UTC",
         "Pacific/Pago_Pago", "Australia/Lord_Howe"]  # fmt: skip
INSTANTS = st.integers(1_100_000_000, 2_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
# The fields of a facility, and how its keys are written: by the instant in UTC or local time.
LAYOUTS = {
    "default": ({"name_template": "{captured_at:%H%M%S}.jpg"}, "{id}/{local:%Y-%m-%d/%H%M%S}.jpg"),
    "camera first": (
        {
            "key_template": "{camera}/{capture_day:%Y/%m/%d}/",
            "name_template": "{captured_at:%H%M%S}.jpg",
        },
        "cam/{local:%Y/%m/%d/%H%M%S}.jpg",
    ),
    "UTC names, local day": (
        {"name_template": "{captured_at:%H%M%S}.jpg", "name_clock": "UTC"},
        "{id}/{local:%Y-%m-%d}/{utc:%H%M%S}.jpg",
    ),
    "UTC day": (
        {
            "key_template": "{capture_day:%Y/%m/%d}/{facility_id}/",
            "day_clock": "UTC",
            "name_template": "{captured_at:%H%M%S}.jpg",
            "name_clock": "UTC",
        },
        "{utc:%Y/%m/%d}/{id}/{utc:%H%M%S}.jpg",
    ),
    "UTC day with dates in the names": (
        {
            "key_template": "a/{capture_day:%Y/%b/%d}/",
            "day_clock": "UTC",
            "name_template": "{captured_at:%Y%m%dT%H%M%SZ}",
            "name_clock": "UTC",
        },
        "a/{utc:%Y/%b/%d/%Y%m%dT%H%M%SZ}",
    ),
    "epoch": (
        {"key_template": "{facility_id}/", "name_template": "{captured_at:epoch}{*}.jpg"},
        "{id}/{seconds}_7.jpg",
    ),
    "epoch in ms below a camera": (
        {"key_template": "in/{camera}/", "name_template": "{captured_at:epoch_ms}.jpg"},
        "in/cam/{seconds}999.jpg",
    ),
}


def build(**fields):
    fields = {"facility_id": "mall", "name": "M", "time_zone": "Europe/Berlin", **fields}
    return Facility(image_kind="crops", **fields)


@given(INSTANTS, st.sampled_from(ZONES), st.sampled_from(sorted(LAYOUTS)))
def test_an_image_belongs_to_its_local_day_only(captured_at, zone, layout):
    fields, form = LAYOUTS[layout]
    facility = build(time_zone=zone, **fields)
    local = captured_at.astimezone(ZoneInfo(zone))
    key = form.format(id="mall", local=local, utc=captured_at, seconds=int(captured_at.timestamp()))
    found = []
    for n in (-2, -1, 0, 1, 2):
        keys = facility.build_day_keys(local.date() + timedelta(days=n))
        listed = [p for p in keys.prefixes if key.startswith(p.build("cam"))]
        assert len(listed) <= 1
        if listed and keys.is_of_day(key):
            found.append((n, keys.parse(key)))

    ((n, info),) = found
    assert n == 0
    assert info.camera == ("cam" if "{camera}" in str(fields) else None)
    # The second occurrence of a local time is taken as the first.
    assert captured_at - info.captured_at_utc.replace(microsecond=0) in (
        timedelta(0), timedelta(hours=1), timedelta(minutes=30)
    )  # fmt: skip


def test_a_day_by_the_utc_clock_has_the_prefixes_of_two_dates():
    facility = build(
        time_zone="America/New_York",
        day_clock="UTC",
        name_template="{captured_at:%H%M}.jpg",
        name_clock="UTC",
    )
    keys = facility.build_day_keys(date(2026, 11, 28))

    assert [p.build() for p in keys.prefixes] == ["mall/2026-11-28/", "mall/2026-11-29/"]
    assert keys.is_of_day("mall/2026-11-28/0500.jpg")
    assert not keys.is_of_day("mall/2026-11-28/0459.jpg")
    assert keys.is_of_day("mall/2026-11-29/0459.jpg")
    assert not keys.is_of_day("mall/2026-11-29/0500.jpg")
    # Without a readable time, the date in the key is all that is known.
    assert keys.is_of_day("mall/2026-11-28/x.jpg")
    assert not keys.is_of_day("mall/2026-11-29/x.jpg")


def test_keys_by_epoch_are_listed_by_their_first_digits():
    facility = build(key_template="{facility_id}/", name_template="{captured_at:epoch}.jpg")
    keys = facility.build_day_keys(date(2026, 11, 28))
    prefixes = [p.build() for p in keys.prefixes]

    assert len(prefixes) == 9
    assert (prefixes[0], prefixes[-1]) == ("mall/179582", "mall/179590")
    assert not keys.is_of_day("mall/179585.jpg")


@pytest.mark.parametrize(
    ("pattern", "key", "is_match"),
    [
        ("*.jpg", "a/b.jpg", True),
        ("*.jpg", "a/b.JPG", True),
        ("*.jpg", "b.jpg.json", False),
        ("IMG_*", "cam/IMG_1.jpg", True),
        ("IMG_*", "IMG_1/x.jpg", False),
        ("cam-a/*", "cam-a/b/c.jpg", True),
        ("cam-a/*", "x/cam-a/c.jpg", False),
        ("*/thumbs/*", "thumbs/c.jpg", True),
        ("*/thumbs/*", "x/y/thumbs/c.jpg", True),
        ("*/thumbs/*", "thumbs.jpg", False),
        ("*/@eaDir/*", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", True),
        ("[0-9]*.jpg", "x/7.jpg", True),
        ("mall/*", "x.jpg", False),
    ],
)
def test_patterns(pattern, key, is_match):
    day = date(2026, 11, 28)
    key = f"mall/2026-11-28/{key}"
    assert build(include=pattern).build_day_keys(day).is_selected(key) == is_match
    assert build(exclude=[pattern, "*.txt"]).build_day_keys(day).is_selected(key) != is_match


def test_exclude_wins_over_include():
    keys = build(include=["*.jpg", "*.png"], exclude="*_thumb.*").build_day_keys(date(2026, 11, 28))
    names = ("a.jpg", "b.png", "c.json", "a_thumb.jpg")
    assert [keys.is_selected(f"mall/2026-11-28/{name}") for name in names] == [
        True,
        True,
        False,
        False,
    ]


def test_an_image_outside_of_the_prefixes_has_no_capture_info():
    keys = build(name_template="{camera}/{captured_at:%H%M}").build_day_keys(date(2026, 11, 28))
    assert keys.parse("mall/2026-11-28/door/0930").camera == "door"
    assert keys.parse("mall/2026-11-27/door/0930") == (None, None)
    assert keys.parse("mall/2026-11-28") == (None, None)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"key_template": "{facility_id}/"}, "complete capture day"),
        (
            {"key_template": "{facility_id}/", "name_template": "{*}_{captured_at:epoch}.jpg"},
            "complete capture day",
        ),
        (
            {"key_template": ["a/{capture_day}/", "a/{capture_day}/b/"]},
            "would list the same images twice",
        ),
        (
            {"key_template": ["{facility_id}/{capture_day}/", "mall/{capture_day}/"]},
            "would list the same images twice",
        ),
        (
            {
                "key_template": "{camera}/{capture_day}/",
                "name_template": "{camera}_{captured_at:%H%M}",
            },
            "only one of key_template and name_template",
        ),
        ({"day_clock": "UTC"}, "needs a name_template"),
        ({"key_template": []}, "1 to 50 templates"),
        ({"include": [""]}, "at least 1 character"),
    ],
)
def test_fields_that_do_not_fit_are_rejected(fields, problem):
    with pytest.raises(ValueError, match=problem):
        build(**fields)
