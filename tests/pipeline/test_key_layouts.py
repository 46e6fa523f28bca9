"""Odd layouts of keys on a real S3 server: what is listed, surveyed, left out, and found late."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fer_batch.pipeline import late_images, listing
from fer_batch.pipeline.day_survey import survey_days, survey_empty_facilities
from fer_batch.records import Batch
from fer_batch.storage.reader import BucketReader
from tests.fixtures.night import DAY as NIGHT
from tests.fixtures.night import Night, encode_crop, format_facility
from tests.fixtures.s3 import DAY, NOW, build_facility

# Facilities that share one bucket: their fields, keys of the day, and other keys.
FACILITIES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "cameras": (
        {
            "key_template": "cameras/cam-{camera}/{capture_day:%Y/%m/%d}/",
            "name_template": "{captured_at:%H%M%S}.jpg",
        },
        ["cameras/cam-a/2026/03/09/091500.jpg", "cameras/cam-b c/2026/03/09/091500.jpg"],
        ["cameras/cam-a/2026/03/10/091500.jpg", "cameras/door/2026/03/09/091500.jpg"],
    ),
    "several": (
        {"key_template": ["new/{capture_day:%Y/%-m/%-d}/", "old/{capture_day:%y%m%d}_"]},
        ["new/2026/3/9/a.jpg", "old/260309_a.jpg"],
        ["new/2026/3/19/a.jpg", "old/260308_a.jpg"],
    ),
    "months": (
        {"key_template": "months/{capture_day:%Y/%b/%d}/"},
        ["months/2026/Mar/09/a.jpg", "months/2026/mar/09/b.jpg"],
        ["months/2026/March/09/c.jpg"],
    ),
    "utc": (
        {
            "key_template": "utc/{capture_day:%Y-%m-%d}/",
            "day_clock": "UTC",
            "name_template": "{captured_at:%H%M%S}.jpg",
            "name_clock": "UTC",
        },
        ["utc/2026-03-08/230000.jpg", "utc/2026-03-09/225959.jpg"],
        ["utc/2026-03-08/225959.jpg", "utc/2026-03-09/230000.jpg"],
    ),
    "epochs": (
        {"key_template": "epochs/{camera}/", "name_template": "{captured_at:epoch}.jpg"},
        ["epochs/door/1773010800.jpg", "epochs/till/1773097199.jpg"],
        ["epochs/door/1773010799.jpg", "epochs/till/1773097200.jpg", "epochs/door/readme.txt"],
    ),
}


def test_each_layout_finds_the_images_of_its_local_day(lists: Any, put: Any) -> None:
    for _, keys, others in FACILITIES.values():
        put(*keys, *others)
    listings = lists(*(build_facility(name, **f[0]) for name, f in FACILITIES.items()))
    assert [(each.status, each.images) for each in listings] == [("listed", 2)] * len(FACILITIES)
    found = lists.query("select facility_id, image_key, camera, captured_at_utc from fer.image")
    assert sorted((name, key) for name, key, *_ in found) == sorted(
        (name, key) for name, (_, keys, _) in FACILITIES.items() for key in keys
    )
    cameras = {key: (camera, at) for _, key, camera, at in found}
    morning = datetime(2026, 3, 9, 8, 15, tzinfo=UTC)
    assert cameras["cameras/cam-b c/2026/03/09/091500.jpg"] == ("b c", morning)
    assert cameras["utc/2026-03-08/230000.jpg"][1] == datetime(2026, 3, 8, 23, tzinfo=UTC)
    assert cameras["epochs/till/1773097199.jpg"][0] == "till"


def test_each_camera_with_images_needs_its_ready_marker(lists: Any, put: Any) -> None:
    mall = build_facility("mall", key_template="{camera}/{capture_day}/", ready_marker="_SUCCESS")
    assert lists(mall)[0].status == "not_ready"
    put("a/2026-03-09/1.jpg", "a/2026-03-09/_SUCCESS", "b/2026-03-09/1.jpg", "c/2026-03-08/1.jpg")
    (listed,) = lists(mall)
    assert (listed.status, listed.reason) == ("not_ready", "there is no b/2026-03-09/_SUCCESS yet")
    put("b/2026-03-09/_SUCCESS")
    (listed,) = lists(mall)
    assert (listed.status, listed.images) == ("listed", 2)


# Patterns


def test_excluded_objects_are_not_counted_anywhere(lists: Any, put: Any) -> None:
    day = "mall/2026-03-09"
    put(*(f"{day}/{name}" for name in ("a.jpg", "a.json", "b.JPG", "thumbs/a.jpg", "a_thumb.jpg")))
    patterns = {"include": ["*.jpg"], "exclude": ["*_thumb.*", "*/thumbs/*"]}
    (listed,) = lists(build_facility("mall", **patterns))
    assert (listed.images, listed.bytes, listed.excluded) == (2, 8, 3)
    assert [key for _, key, _ in lists.query_images()] == [f"{day}/a.jpg", f"{day}/b.JPG"]
    assert lists.query("select images_listed, objects_excluded from fer.batch") == [(2, 3)]


def test_a_new_pattern_also_applies_to_images_that_were_listed_before(lists: Any, put: Any) -> None:
    day = "mall/2026-03-09"
    put(*(f"{day}/{name}" for name in ("a.jpg", "a.json", "b.jpg")))
    (listed,) = lists(build_facility("mall"))
    assert (listed.images, listed.excluded) == (3, 0)
    (listed,) = lists(build_facility("mall", exclude="*.json"))
    assert (listed.images, listed.new_images, listed.excluded) == (2, 0, 1)
    assert [key for _, key, _ in lists.query_images()] == [f"{day}/a.jpg", f"{day}/b.jpg"]


INDIA, UTC_ZONE = {"time_zone": "Asia/Kolkata"}, {"time_zone": "UTC"}


@pytest.mark.parametrize(
    ("layout", "key", "wrong", "right", "day"),
    [  # 23:30 on the 8th in UTC is 05:00 on the 9th in India
        ("utc", "utc/2026-03-08/233000.jpg", UTC_ZONE, INDIA, DAY),
        ("utc", "utc/2026-03-08/233000.jpg", INDIA, UTC_ZONE, DAY - timedelta(1)),
        ("epochs", "epochs/door/1773012600.jpg", UTC_ZONE, INDIA, DAY),
        ("epochs", "epochs/door/1773012600.jpg", INDIA, UTC_ZONE, DAY - timedelta(1)),
        ("utc", "utc/2026-03-08/233000.jpg", {}, {"day_clock": "local"}, DAY - timedelta(1)),
        ("utc", "utc/2026-03-08/233000.jpg", {}, {"name_clock": "local"}, DAY - timedelta(1)),
    ],
)
def test_a_corrected_clock_moves_an_image_to_its_day(
    lists: Any, put: Any, layout: str, key: str, wrong: Any, right: Any, day: date
) -> None:
    put(key)
    fields, *_ = FACILITIES[layout]
    for correction in (wrong, right):
        facility = build_facility(layout, **fields | correction)
        lists(facility, days=[DAY, DAY - timedelta(1)])
    assert lists.query("select capture_day, image_key from fer.image") == [(day, key)]


def test_images_of_a_former_layout_are_kept(lists: Any, put: Any) -> None:
    put("utc/2026-03-09/120000.jpg", "new/2026-03-09/120000.jpg")
    fields, *_ = FACILITIES["utc"]
    lists(build_facility("utc", **fields))
    lists(build_facility("utc", **fields | {"key_template": "new/{capture_day}/"}))
    assert len(lists.query_images()) == 2


def test_a_template_that_swaps_day_and_month_discards_nothing(lists: Any, put: Any) -> None:
    put("swap/2026-03-09/120000.jpg")
    for order in ("%Y-%m-%d", "%Y-%d-%m"):
        template = f"swap/{{capture_day:{order}}}/"
        (listed,) = lists(build_facility("swap", key_template=template))
    assert (listed.images, listed.excluded) == (0, 0)
    assert len(lists.query_images()) == 1


# What lies near a prefix


def survey(settings: Any, **fields: Any) -> Any:
    facility = build_facility("Mall".lower(), **fields)
    with BucketReader(settings, facility) as reader:
        return survey_days(reader, facility, DAY + timedelta(1), DAY)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Kolkata/{capture_day}/", "nothing lies below 'Kolkata/', but 'kolkata/' is there"),
        ("kolkatta/{capture_day}/", "nothing lies below 'kolkatta/', but 'kolkata/' is there"),
        (
            "kolkata/{capture_day:%Y/%m/%d}/",
            "nothing lies below 'kolkata/2026/'; below 'kolkata/' there is 'kolkata/2025-01-01/', "
            "'kolkata/2025-01-02/', 'kolkata/2025-01-03/', the last of 4 names",
        ),
        ("kolkata/{capture_day}/img/", "nothing lies below 'kolkata/2026-03-09/'; below"),
        ("{camera}/{capture_day:%Y/%m/%d}/", "nothing lies below 'kolkata/2026/'"),
        ("cams/{camera}/{capture_day:%Y/%m}/{capture_day:%d}/", "'cams/a/2024/'"),
        ("paris/{capture_day}/", "nothing lies below 'paris/'; in the bucket there is 'cams/'"),
    ],
)
def test_a_survey_says_what_lies_near_a_wrong_prefix(
    s3_settings: Any, put: Any, template: str, text: str
) -> None:
    put(*(f"kolkata/2025-01-0{n}/a.jpg" for n in (1, 2, 3)), "kolkata/0/b", "cams/a/2024/05/06/x")
    found = survey(s3_settings, key_template=template)
    assert found.is_suspicious
    assert text in str(found)
    assert str(found).startswith("no image from 2026-03-04 to 2026-03-10: ")


@pytest.mark.parametrize(
    ("template", "key", "text"),
    [
        (
            "{capture_day:%Y/%b/%d}/",
            "2026/NOV/01/a.jpg",
            "nothing lies below '2026/Mar/'; below '2026/' there is '2026/NOV/'",
        ),
        (
            "{capture_day:%Y/%b/%d}/",
            "2026/MAR/01/a.jpg",
            "nothing lies below '2026/MAR/09/'; below '2026/MAR/' there is '2026/MAR/01/'",
        ),
        (
            "x/{capture_day:%B-%d-%Y}/",
            "x/a.jpg",
            "nothing lies below 'x/March-09-2026/'; below 'x/' there is 'x/a.jpg'",
        ),
    ],
)
def test_a_survey_says_once_what_lies_near_spellings_of_one_prefix(
    s3_settings: Any, put: Any, template: str, key: str, text: str
) -> None:
    put(key)
    found = survey(s3_settings, key_template=template)
    assert (found.nearby, found.is_misspelled) == (text, False)


def test_a_survey_counts_the_last_days(s3_settings: Any, put: Any) -> None:
    assert not survey(s3_settings).is_suspicious
    assert "the bucket is empty" in str(survey(s3_settings))
    put("mall/2026-03-09/a.jpg", "mall/2026-03-09/b.jpg", "mall/2026-03-04/c.jpg")
    put("mall/2026-03-09/d.json", "mall/2026-03-03/e.jpg")
    found = survey(s3_settings, exclude="*.json")
    assert str(found).startswith("images: 2026-03-10 0, 2026-03-09 2 and 1 excluded, 2026-03-08 0,")
    assert [day.images for day in found.days] == [0, 2, 0, 0, 0, 0, 1]
    assert "include and exclude leave out all 4 objects" in str(survey(s3_settings, include="x"))


def test_only_facilities_without_any_image_are_surveyed(s3_settings: Any, put: Any) -> None:
    put("a/2026-03-08/a.jpg", "B/2026-03-09/b.jpg")
    facilities = {name: build_facility(name) for name in ("a", "b")}
    batches = [Batch(name, DAY - timedelta(n)) for n in (0, 1) for name in facilities]
    previews = listing.preview_images(s3_settings, facilities, batches, NOW)
    surveys = survey_empty_facilities(s3_settings, facilities, previews)
    assert list(surveys) == ["b"]
    assert "nothing lies below 'b/', but 'B/' is there" in str(surveys["b"])


# Late images


def test_images_after_the_lookback_are_counted(lists: Any, put: Any) -> None:
    mall = build_facility("mall", exclude="*.json", valid_until=date(2099, 1, 1))
    put("mall/2026-03-09/a.jpg", "mall/2026-03-08/old.jpg")
    lists(mall)

    def count() -> int:
        late_images.find_late_images(
            lists.engine, lists.settings, {"mall": mall}, DAY + timedelta(3), datetime.now(UTC)
        )
        ((late,),) = lists.query("select images_late from fer.batch")
        return int(late)

    assert count() == 0
    put("mall/2026-03-09/a.jpg", data=b"other content")
    put("mall/2026-03-09/b.jpg", "mall/2026-03-09/b.json", "mall/2026-03-08/new.jpg")
    assert count() == 2
    lists(mall)
    assert count() == 0


def test_a_nightly_run_reports_images_after_its_lookback(night: Night) -> None:
    night.write_registry(format_facility("a", more='empty_days = "allowed"\n'))
    old = NIGHT - timedelta(days=4)
    for day in (old, NIGHT):
        night.fill("a", happy=1, sad=0, day=day)
    night.run("old", capture_day=old)
    night.put(f"a/{old}/late.png", encode_crop(is_happy=True, number=9))
    findings = night.run("new", lookback_days=2)
    assert [(f["check"], f["capture_day"]) for f in findings] == [("images_after_lookback", NIGHT)]
    assert findings[0]["finding"].startswith(f"1 images of {old}; run this day again")
    night.run("again", capture_day=old)
    assert night.run("newer", lookback_days=2) == []
