"""Name templates: what was written into a name is read from it, and nothing else is."""

import time
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fer_batch.facilities.name_template import (
    MAX_FROM_NOON,
    NO_CAPTURE_INFO,
    build_name_reader,
    check_name_template,
)

DAY = date(2026, 10, 31)
ZONES = ["Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago"]
ZONES += ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTANTS = st.integers(6 * 10**14, 22 * 10**14).map(lambda us: EPOCH + timedelta(microseconds=us))
CAMERAS = st.text(st.characters(codec="utf-8", categories=["L", "N", "Zs"]), min_size=1)
CAMERAS = CAMERAS.map(lambda name: name[:100])
# The text of {captured_at:…}, and how exact it is.
SPECS = {
    "%H%M": timedelta(minutes=1),
    "%H%M%S": timedelta(seconds=1),
    "%H.%M.%S,%f": timedelta(microseconds=1),
    "%Y%m%dT%H%M%S": timedelta(seconds=1),
    "%d.%m.%Y %H:%M:%S.%f": timedelta(microseconds=1),
    "%Y-%m-%d/%H/%M%S%z": timedelta(seconds=1),
    "%Y%m%d%H%M%S%f%z": timedelta(microseconds=1),
    "epoch": timedelta(seconds=1),
    "epoch_ms": timedelta(milliseconds=1),
}
# Templates, and a name for each.
SHAPES = {
    "{captured_at:SPEC}": "{when}",
    "{camera}/{captured_at:SPEC}-{*}.jpg": "{camera}/{when}-{rest}.jpg",
    "{camera}_{captured_at:SPEC}{*}": "{camera}_{when}{rest}",
    "{captured_at:SPEC}_{camera}.jpg": "{when}_{camera}.jpg",
    "{*}/{camera}={captured_at:SPEC}{*}": "{rest}/{camera}={when}{rest}",
    "{*}-{camera}_{captured_at:SPEC}{*}.{*}": "{rest}-{camera}_{when}{rest}.{rest}",
    "{{%H}} {*}{captured_at:SPEC}": "{{%H}} {rest}{when}",
}


def parse(template, name, *, day=DAY, zone="Europe/Berlin", clock="local"):
    return build_name_reader(check_name_template(template), day, zone, clock)(name)


def write_time(spec, captured_at, zone):
    """The time as a camera writes it, by the clock of the zone."""
    if spec == "epoch":
        return str(int(captured_at.timestamp()))
    if spec == "epoch_ms":
        return str((captured_at - EPOCH) // timedelta(milliseconds=1))
    return captured_at.astimezone(zone).strftime(spec)


@given(
    INSTANTS,
    st.sampled_from(ZONES),
    st.sampled_from(["local", "UTC"]),
    st.sampled_from(sorted(SPECS)),
    st.sampled_from(sorted(SHAPES)),
    CAMERAS,
    st.text("xyz/", max_size=5).map("x{}".format),
)
def test_a_written_name_is_read_again(captured_at, zone, clock, spec, shape, camera, rest):
    clock_zone = UTC if clock == "UTC" else ZoneInfo(zone)
    local = captured_at.astimezone(clock_zone)
    when = write_time(spec, captured_at, clock_zone)
    name = SHAPES[shape].format(when=when, camera=camera, rest=rest)

    day = captured_at.astimezone(ZoneInfo(zone)).date()
    midnights = [datetime.combine(d, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
                 for d in (day, day + timedelta(days=1))]  # fmt: skip
    # Where the clock is set back, a time of day in UTC occurs twice on the local day.
    assume(midnights[1] - midnights[0] == timedelta(days=1))

    info = parse(shape.replace("SPEC", spec), name, day=day, zone=zone, clock=clock)

    is_wall_clock = "epoch" not in spec and "%z" not in spec
    if is_wall_clock:  # which cannot tell the second occurrence of a time from the first
        captured_at = local.replace(fold=0).astimezone(UTC)
    expected = captured_at - (captured_at - EPOCH) % SPECS[spec]
    assert info.camera == (camera if "{camera}" in shape else None)
    assert info.captured_at_utc == expected
    assert info.captured_at_utc.tzinfo is UTC


@pytest.mark.parametrize(
    ("template", "name", "camera", "captured_at"),
    [
        ("{camera}/{captured_at:%H%M%S}-{*}.jpg", "door/142501-7.jpg", "door", "13:25:01"),
        ("{camera}_{captured_at:%Y%m%dT%H%M%S}{*}", "a_b_20261031T142501", "a_b", "13:25:01"),
        ("{captured_at:epoch}_{camera}.jpg", "1793453101_door.jpg", "door", "13:25:01"),
        ("{captured_at:epoch_ms}", "1793453101250", None, "13:25:01.250"),
        ("{captured_at:%H}/{camera}/{captured_at:%M%S}", "14/door/2501", "door", "13:25:01"),
        ("{captured_at:%H%M}", "1425", None, "13:25:00"),
        # A fraction has up to nine digits, of which six are kept.
        ("{captured_at:%H%M%S.%f}", "142501.5", None, "13:25:01.500"),
        ("{captured_at:%H%M%S.%f}", "142501.123456789", None, "13:25:01.123456"),
        # An offset from UTC takes precedence over the clock.
        ("{captured_at:%H%M%S%z}", "142501Z", None, "14:25:01"),
        ("{captured_at:%H%M%S%z}", "142501+0530", None, "08:55:01"),
        ("{captured_at:%H%M%S%z}", "142501-03:00", None, "17:25:01"),
        ("{captured_at:%H%M%S%z}", "142501+09", None, "05:25:01"),
        # {*} matches as little as possible, but never a part of a number.
        ("{*}_{captured_at:%H%M%S}_{*}", "x_142501_235959_", None, "13:25:01"),
        ("{*}{captured_at:%H%M%S}{*}", "20261031142501-142501.jpg", None, "13:25:01"),
        ("{*}{captured_at:%H%M%S}{*}", "142501", None, "13:25:01"),
        ("{*}/{camera}_{captured_at:%H%M%S}", "a/b/door_142501", "door", "13:25:01"),
        ("{*}/{camera}/{captured_at:%H%M%S}{*}", "a\nb/door/142501.jpg", "door", "13:25:01"),
        ("{*}-{camera}_{captured_at:%H%M%S}", "a-b/c-door_142501", "door", "13:25:01"),
        ("{camera}.{captured_at:%H%M%S}", "caf\u00e9 \U0001f600 \\N%s.142501",
         "caf\u00e9 \U0001f600 \\N%s", "13:25:01"),
    ],
)  # fmt: skip
def test_names_of_cameras(template, name, camera, captured_at):
    expected = datetime.fromisoformat(f"2026-10-31T{captured_at}+00:00")

    assert parse(template, name) == (camera, expected)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{camera}/{captured_at:%H%M%S}", "142501"),
        ("{camera}/{captured_at:%H%M%S}", "/142501"),
        ("{camera}/{captured_at:%H%M%S}", "a/b/142501"),
        ("{camera}/{captured_at:%H%M%S}", "door/142501.jpg"),
        ("{camera}/{captured_at:%H%M%S}", "door/142501\n"),
        ("{camera}/{captured_at:%H%M%S}", "door/\u0661\u0662\u0663\u0664\u0665\u0666"),
        ("{camera}/{captured_at:%H%M%S}", "x" * 101 + "/142501"),
        ("{camera}/{captured_at:%H%M%S}", "do\nor/142501"),
        ("{camera}/{captured_at:%H%M%S}", "do\x00or/142501"),
        ("{camera}/{captured_at:%H%M%S}", "do\x85or/142501"),
        ("{camera}/{captured_at:%H%M%S}", "do\u202eor/142501"),
        ("{captured_at:%H%M%S}{*}", "20261031142501.jpg"),
        ("{captured_at:epoch}", "-1793453101"),
        ("{captured_at:epoch}", "179345310100000"),
        ("{captured_at:%H%M%S.%f}", "142501."),
        ("{captured_at:%H%M%S%z}", "142501+2500"),
        ("{captured_at:%H%M%S%z}", "142501"),
    ],
)
def test_a_name_that_does_not_match_has_neither(template, name):
    assert parse(template, name) == NO_CAPTURE_INFO


@pytest.mark.parametrize(
    "when", ["2026-10-31 25:00", "2026-10-31 23:60", "2026-02-29 12:00", "0000-01-01 12:00",
             "0001-01-01 00:00", "9999-12-31 23:59", "2026-10-29 10:59", "2026-11-02 12:01",
             "2025-10-31 12:00"],
)  # fmt: skip
def test_a_time_that_cannot_be_true_is_none(when):
    template = "{camera}/{captured_at:%Y-%m-%d %H:%M}"

    assert parse(template, f"door/{when}", zone="Pacific/Kiritimati") == ("door", None)


@pytest.mark.parametrize("when", ["2026-10-29 12:00", "2026-11-02 12:00", "2026-11-01 03:00"])
def test_a_time_near_the_capture_day_counts(when):
    captured_at = parse("{captured_at:%Y-%m-%d %H:%M}", when).captured_at_utc

    assert captured_at.astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%d %H:%M") == when


def test_without_a_date_the_time_is_on_the_capture_day_of_the_key():
    # A night that is filed under the day before stands at the beginning of that day.
    assert parse("{captured_at:%H%M}", "0030").captured_at_utc == datetime(
        2026, 10, 30, 23, 30, tzinfo=UTC
    )
    assert parse("{captured_at:%H%M}", "0030", clock="UTC").captured_at_utc == datetime(
        2026, 10, 31, 0, 30, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("zone", "template", "name", "captured_at"),
    [
        # Half past midnight in Berlin is 23:30 in UTC, on the day before.
        ("Europe/Berlin", "{captured_at:%H%M}", "2330", "2026-10-30T23:30"),
        ("Europe/Berlin", "{captured_at:%H%M}", "2230", "2026-10-31T22:30"),
        # Half past eight in the evening in New York is 0:30 in UTC, on the day after.
        ("America/New_York", "{captured_at:%H%M}", "0030", "2026-11-01T00:30"),
        ("America/New_York", "{captured_at:%H%M}", "0400", "2026-10-31T04:00"),
        ("Pacific/Kiritimati", "{captured_at:%H%M}", "1000", "2026-10-30T10:00"),
        ("Europe/Berlin", "{captured_at:%H%M%z}", "2330Z", "2026-10-30T23:30"),
        ("Europe/Berlin", "{captured_at:%H%M%z}", "0030+0100", "2026-10-30T23:30"),
    ],
)
def test_a_time_in_utc_without_a_date_is_on_the_local_day(zone, template, name, captured_at):
    expected = datetime.fromisoformat(f"{captured_at}:00+00:00")

    assert parse(template, name, zone=zone, clock="UTC").captured_at_utc == expected


@pytest.mark.parametrize(
    ("zone", "day", "when", "captured_at"),
    [
        # The clock is set back at 3:00: 2:30 occurs twice, and the first occurrence is taken.
        ("Europe/Berlin", date(2026, 10, 25), "0159", "2026-10-24T23:59"),
        ("Europe/Berlin", date(2026, 10, 25), "0230", "2026-10-25T00:30"),
        ("Europe/Berlin", date(2026, 10, 25), "0300", "2026-10-25T02:00"),
        # The clock is set forward at 2:00: 2:30 does not exist, and is what 3:30 is.
        ("Europe/Berlin", date(2026, 3, 29), "0159", "2026-03-29T00:59"),
        ("Europe/Berlin", date(2026, 3, 29), "0230", "2026-03-29T01:30"),
        ("Europe/Berlin", date(2026, 3, 29), "0330", "2026-03-29T01:30"),
        # By half an hour.
        ("Australia/Lord_Howe", date(2026, 4, 5), "0145", "2026-04-04T14:45"),
        # The whole day does not exist.
        ("Pacific/Apia", date(2011, 12, 30), "1200", "2011-12-30T22:00"),
    ],
)
def test_times_when_the_clock_changes(zone, day, when, captured_at):
    expected = datetime.fromisoformat(f"{captured_at}:00+00:00")

    assert parse("{captured_at:%H%M}", when, day=day, zone=zone).captured_at_utc == expected
    utc = parse("{captured_at:%H%M}", when, day=day, zone=zone, clock="UTC").captured_at_utc
    assert utc.strftime("%H%M") == when


TEMPLATES = st.sampled_from([s.replace("SPEC", spec) for s in SHAPES for spec in SPECS])
AWKWARD = st.text("0123456789_-./:TZ+ax\n\x00\u202e", max_size=60)


@given(TEMPLATES, AWKWARD | st.text(max_size=60), st.dates(date(2, 1, 1), date(9998, 12, 31)))
def test_no_key_is_an_error(template, name, day):
    info = parse(template, name, day=day)

    if info.camera is not None:
        assert 1 <= len(info.camera) <= 100
        assert not set(info.camera) & set("/\n\x00\u202e")
        assert info.camera in name
    if info.captured_at_utc is not None:
        noon = datetime.combine(
            day, datetime.min.time().replace(hour=12), ZoneInfo("Europe/Berlin")
        )
        assert abs(info.captured_at_utc - noon) <= MAX_FROM_NOON


@pytest.mark.parametrize(
    "template",
    [
        "{*}_{camera}_{captured_at:%H%M%S}.jpg",
        "{*}a{*}a{*}a{*}_{camera}_{captured_at:%H%M%S}.jpg",
        "{*}{captured_at:%H%M%S.%f}_{*}_{*}_{*}_{camera}_{*}.jpg",
        "{*}{captured_at:epoch_ms}{*}/{camera}/{*}x",
        "{camera}_{captured_at:%H%M%S%z}{*}_{*}/",
    ],
)
def test_the_time_per_key_grows_linearly(template):
    parser = build_name_reader(check_name_template(template), DAY, "Europe/Berlin", "local")
    names = ["_", "a", "_a", "0", "_1", "a/", "000000_", "/_a_000000.jp", "1.1_"]
    began = time.process_time()

    for name in names:
        assert parser(name * (100_000 // len(name))).camera is None

    assert time.process_time() - began < 10  # quadratic time would take minutes


def test_without_a_template_nothing_is_known():
    parser = build_name_reader(None, DAY, "Europe/Berlin", "local")

    assert parser("door/142501.jpg") == NO_CAPTURE_INFO


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "capture time"),
        ("{camera}.jpg", "capture time, such as"),
        ("{captured_at}", "how the time is written, such as"),
        ("{captured_at:HHMMSS}", "how the time is written, such as"),
        ("{captured_at:%H%M} {captured_at}", "how the time is written, such as"),
        ("{captured_at:%Y%m%d}", "the hour and the minute"),
        ("{captured_at:%H%S}", "the hour and the minute"),
        ("{captured_at:%m%d%H%M}", "all of %Y, %m and %d, or none"),
        ("{captured_at:%H%M%f}", "together with %S"),
        ("{captured_at:%H%M%p}", "may use only .*, not %p"),
        ("{captured_at:%s}", "epoch or epoch_ms, not %s"),
        ("{captured_at:%H%M%}", "not %$"),
        ("{captured_at:%H%M%%}", "not %%"),
        ("{captured_at:%H%M{camera}}", "field within"),
        ("{captured_at:%H%M%H}", "only once"),
        ("{captured_at:%H%M}_{captured_at:%H%M}", "only once"),
        ("{captured_at:epoch}_{captured_at:%H%M}", "beside epoch"),
        ("{captured_at:epoch}_{captured_at:epoch_ms}", "beside epoch"),
        ("{camera}/{camera}_{captured_at:%H%M}", "{camera} only once"),
        ("{camera}{captured_at:%H%M}", "separate {camera}"),
        ("{captured_at:%H%M}{camera}", "separate {camera}"),
        ("{*}{camera}_{captured_at:%H%M}", "separate {camera}"),
        ("{*}{*}{captured_at:%H%M}", "twice in a row"),
        ("{captured_at:%H%M%S%f}0{*}", "separate %f from the digits"),
        ("{captured_at:epoch}7", "separate epoch from the digits"),
        ("{captured_at:%z%H%M}", "separate %z from the digits"),
        ("{name}_{captured_at:%H%M}", "only the fields"),
        ("{*:x}_{captured_at:%H%M}", "only the fields"),
        ("{camera!r}_{captured_at:%H%M}", "only the fields"),
        ("{camera.__class__}_{captured_at:%H%M}", "only the fields"),
        ("{}_{captured_at:%H%M}", "only the fields"),
        ("{captured_at!s:%H%M}", "only the fields"),
        ("{camera/{captured_at:%H%M}", "is not a valid template"),
        ("{captured_at:%H%M}}", "is not a valid template"),
        ("{captured_at:%H%M}\n", "control characters"),
        ("{captured_at:%H\x00%M}", "control characters"),
        ("{captured_at:%H%M}" + "x" * 200, "at most 200 characters"),
    ],
)
def test_an_invalid_template_is_rejected(template, problem):
    with pytest.raises(ValueError, match=problem):
        check_name_template(template)
