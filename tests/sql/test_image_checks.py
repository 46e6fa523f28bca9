"""Checks of cameras, of days without images, and of objects that are no photographs."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fer_batch.records import Batch, Box, FaceScore, ImageScore, Outcome
from tests.sql.checking import find, run, write_healthy_day

# Cameras and names


def test_frozen_camera_is_named_and_counted_once(tables: Any) -> None:
    tables.add("north-mall", name_template="{camera}_{captured_at:%H%M%S}.jpg")
    prefix = f"north-mall/{tables.batch.capture_day}/"
    moving = {f"{prefix}door_10{n:02}00.jpg": f"picture {n}" for n in range(40)}
    frozen = {f"{prefix}till_11{n:02}00.jpg": "one picture" for n in range(9)}
    for copies, expected in ((9, {}), (10, {"frozen_camera"})):
        frozen |= {f"{prefix}till_12{n:02}00.jpg": "one picture" for n in range(copies - 9)}
        tables.list(moving | frozen)
        tables.write(*map(tables.build_score, tables.list_work()))
        (summary,) = tables.summarize()
        assert (summary["images_scored"], summary["faces"]) == (40 + copies, 41)
        assert find(tables).keys() == set(expected)
    assert [each["subject"] for each in run(tables)] == ["till"]
    assert find(tables)["frozen_camera"] == (
        f"camera till: one picture 10 times, first {prefix}till_110000.jpg"
    )


@pytest.mark.parametrize(
    ("posters", "jitter_px", "is_found"),
    [(30, 6, True), (16, 6, True), (15, 6, False), (30, 90, False)],
)
def test_face_that_never_moves_is_found_in_frames(
    tables: Any, posters: int, jitter_px: int, is_found: bool
) -> None:
    """In more than half of 30 frames, although its box moves by a few pixels."""
    tables.add("north-mall", image_kind="frames")
    tables.list([f"{n:03}.jpg" for n in range(30)])
    rng = random.Random(7)

    def build_faces(number: int) -> list[FaceScore]:
        visitor = Box(15 * number, 8 * number, 60, 60)
        poster = Box(
            400 + rng.randrange(jitter_px), 90 + rng.randrange(jitter_px), 70 + rng.randrange(4), 70
        )
        boxes = [visitor, poster] if number < posters else [visitor]
        return [tables.build_face(box=box) for box in boxes]

    work = tables.list_work()
    tables.write(*(tables.build_score(image, *build_faces(n)) for n, image in enumerate(work)))
    tables.summarize()
    findings = find(tables)
    assert ("face_that_never_moves" in findings) is is_found
    if is_found:
        assert findings["face_that_never_moves"].startswith("unknown camera: near (")
        assert findings["face_that_never_moves"].endswith(" of its 30 frames")


def test_names_without_time_are_counted(tables: Any) -> None:
    prefix = f"north-mall/{tables.batch.capture_day}/"
    keys = [f"{prefix}10{n:02}00.jpg" for n in range(30)] + [f"{prefix}hall.jpg"]
    tables.list(keys)
    assert "names_without_time" not in find(tables)
    tables.add("north-mall", name_template="{captured_at:%H%M%S}{*}")
    tables.list(keys)
    assert find(tables)["names_without_time"] == f"1 of 31 keys, first {prefix}hall.jpg"


# Days without images


def test_a_day_without_images_is_an_error_once_there_were_some(tables: Any) -> None:
    day = tables.batch.capture_day  # a Sunday
    write_healthy_day(tables)
    days = [Batch("north-mall", day + timedelta(n)) for n in range(1, 4)]
    for empty in days[:2]:
        tables.list([], empty)
    tables.list(
        [], days[2], attempted_at=datetime(day.year, day.month, day.day + 3, 12, tzinfo=UTC)
    )
    tables.summarize(*days)
    found = [f for f in run(tables, *days) if f["check"] == "day_without_images"]
    # The last day was not over when it was listed.
    assert [(f["severity"], f["capture_day"]) for f in found] == [
        ("error", each.capture_day) for each in days[:2]
    ]
    assert found[0]["finding"] == (
        "no image begins with {facility_id}/{capture_day:%Y-%m-%d}/; the newest image is of "
        "2026-03-01"
    )
    tables.add("north-mall", closed_weekdays=("mon",))
    assert [f["capture_day"] for f in run(tables, *days)] == [days[1].capture_day]
    tables.add("north-mall", empty_days="allowed")
    assert run(tables, *days) == []


def test_a_day_without_images_is_an_error_if_only_later_days_have_some(tables: Any) -> None:
    write_healthy_day(tables)
    day = tables.batch.capture_day
    before = Batch("north-mall", day - timedelta(1))  # a Saturday
    same_run = datetime(day.year, day.month, day.day + 2, tzinfo=UTC)
    tables.list([], before, attempted_at=same_run)
    tables.summarize(before)
    assert run(tables, before) == [], "before the cameras were installed"
    tables.list([], before, attempted_at=same_run + timedelta(1))
    assert find(tables, before) == {
        "day_without_images": "no image begins with {facility_id}/{capture_day:%Y-%m-%d}/; "
        "the newest image is of 2026-03-01"
    }
    tables.add("north-mall", closed_weekdays=("sat",))
    assert run(tables, before) == []
    tables.add("north-mall", empty_days="allowed")
    assert run(tables, before) == []


@pytest.mark.parametrize(
    "registry", [{}, {"empty_days": "allowed"}, {"key_template": ("North/{capture_day}/",)}]
)
def test_a_listing_that_finds_none_of_the_stored_images_is_an_error(
    tables: Any, registry: dict[str, Any]
) -> None:
    write_healthy_day(tables)
    facility = tables.add("north-mall", **registry)
    (before,) = tables.summarize()
    tables.list([])
    (summary,) = tables.summarize()
    (finding,) = run(tables, facility)
    assert (finding["check"], finding["severity"]) == ("images_not_listed", "error")
    template = registry.get("key_template", ["{facility_id}/{capture_day:%Y-%m-%d}/"])[0]
    assert finding["finding"] == (
        f"no image begins with {template}, but 100 images of the day are stored"
    )
    assert (before["is_complete"], summary["is_complete"]) == (True, False)
    assert (before["happy_rate"], before["faces"]) == (summary["happy_rate"], summary["faces"])
    tables.list([f"{n:06d}.jpg" for n in range(100)])
    (summary,) = tables.summarize()
    assert (run(tables), summary["is_complete"]) == ([], True)


def test_objects_that_are_gone_after_they_were_scored_are_no_empty_day(tables: Any) -> None:
    """The same run finds images of another day, so the prefix is right."""
    write_healthy_day(tables)
    later = Batch("north-mall", tables.batch.capture_day + timedelta(1))
    tables.fill(20, 20, later)
    (listed_at,) = tables.query("SELECT listed_at FROM fer.batch WHERE capture_day > '2026-03-01'")
    tables.list([], attempted_at=listed_at[0])
    summaries = tables.summarize(tables.batch, later)
    assert run(tables, tables.batch, later) == []
    assert [summary["is_complete"] for summary in summaries] == [True, True]


@pytest.mark.parametrize(("images", "is_found"), [(5, True), (4, False)])
def test_images_on_a_closed_day_are_found(tables: Any, images: int, is_found: bool) -> None:
    tables.add("north-mall", closed_weekdays=("sat", "sun"))
    tables.fill(images, 0)
    tables.fill(20, 0, monday := Batch("north-mall", tables.batch.capture_day + timedelta(1)))
    tables.summarize(tables.batch, monday)
    found = {"images_on_closed_day": "5 images; sun is in closed_weekdays"} if is_found else {}
    assert find(tables, tables.batch, monday) == found


def test_a_facility_that_never_had_an_image_is_a_finding(tables: Any) -> None:
    days = [Batch("north-mall", tables.batch.capture_day + timedelta(n)) for n in range(2)]
    for day in days:
        tables.list([], day)
    tables.summarize(*days)
    (finding,) = run(tables, *days)
    assert (finding["check"], finding["severity"]) == ("facility_without_images", "warning")
    assert finding["capture_day"] == days[1].capture_day
    assert finding["finding"] == "no image begins with {facility_id}/{capture_day:%Y-%m-%d}/"
    tables.fill(20, 20, Batch("north-mall", days[0].capture_day - timedelta(9)))
    assert [f["check"] for f in run(tables, *days)] == ["day_without_images"] * 2


# Objects that are no photographs


def judge(tables: Any, **counts: int) -> dict[str, str]:
    """The findings about a day with a number of files for each form of their names.

    Those whose form ends with jpg are scored, the others are not supported.
    """
    keys = [form.format(n) for form, count in counts.items() for n in range(count)]
    tables.list(keys)
    tables.write(
        *(
            tables.build_score(image)
            if image.key.lower().endswith("jpg")
            else ImageScore(image, Outcome.UNSUPPORTED, "not an image")
            for image in tables.list_work()
        )
    )
    tables.summarize()
    names = ("thumbnails", "unsupported_files")
    return {f["check"]: f["finding"] for f in run(tables, tables.batch) if f["check"] in names}


def test_sidecars_are_named_with_the_pattern_that_excludes_them(tables: Any) -> None:
    found = judge(tables, **{"a/{:03}.jpg": 60, "a/{:03}.json": 60, "a/{:03}_thumb.jpg": 60})
    assert found == {
        "unsupported_files": "60 of 180 images are *.json files; if they are no photographs, add "
        'exclude = ["*.json"] to the facility',
        "thumbnails": "60 of 180 images are named so; if they are copies, add "
        'exclude = ["*_thumb.*"] to the facility',
    }


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("thumbs/{}.jpg", "*/thumbs/*"),
        ("a/.thumbnails/{}.jpg", "*/.thumbnails/*"),
        ("a/@eaDir/{}.jpg/SYNOPHOTO_THUMB_M.jpg", "*/@eaDir/*"),
        ("a/{}-thumbnail.JPG", "*-thumbnail.*"),
        ("a/thumb_{}.jpg", "thumb_*"),
        ("a/thumbsup{}.jpg", None),
        ("small-mall/{}.jpg", None),
    ],
)
def test_thumbnails_are_told_by_their_names(tables: Any, form: str, pattern: str | None) -> None:
    found = judge(tables, **{"b/{}.jpg": 20, form: 5})
    assert found == {} if pattern is None else f'exclude = ["{pattern}"]' in found["thumbnails"]


def test_few_files_and_photographs_of_the_kind_suggest_no_pattern(tables: Any) -> None:
    assert judge(tables, **{"{}.jpg": 20, "{}.json": 2, "{}_thumb.jpg": 2}) == {}


def test_photographs_in_another_format_are_to_be_converted(tables: Any) -> None:
    tables.list([f"{n}.jpg" for n in range(20)])
    images = tables.list_work()
    tables.write(
        *(ImageScore(image, Outcome.UNSUPPORTED, "HEIC") for image in images[:8]),
        *(tables.build_score(image) for image in images[8:]),
    )
    tables.summarize()
    (finding,) = (f for f in run(tables, tables.batch) if f["check"] == "unsupported_files")
    assert finding["finding"].startswith("8 of 20 *.jpg files have another format than JPEG")
    assert "exclude" not in finding["finding"]


def test_a_folder_of_thumbnails_that_holds_all_images_is_no_finding(tables: Any) -> None:
    assert judge(tables, **{"thumbs/{}.jpg": 20}) == {}


def test_images_after_the_lookback_are_reported_on_the_day_of_the_run(tables: Any) -> None:
    write_healthy_day(tables)
    old = Batch("north-mall", tables.batch.capture_day - timedelta(5))
    tables.fill(20, 20, old)
    tables.execute("UPDATE fer.batch SET images_late = 7 WHERE capture_day = '2026-02-24'")
    (finding,) = run(tables, tables.batch)
    assert (finding["check"], finding["severity"]) == ("images_after_lookback", "warning")
    assert finding["capture_day"] == tables.batch.capture_day
    assert finding["finding"] == "7 images of 2026-02-24; run this day again with lookback_days 0"
    tables.list(["000000.jpg"], old)
    assert run(tables, tables.batch) == []
