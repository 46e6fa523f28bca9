"""The day of the demo: its images have the expected outcomes, and differences are reported."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.facilities.loading import load_registry
from fer_batch.imaging.decoding import ImageLimits
from fer_batch.imaging.faces import FaceDetector, extract_faces
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.local.demo import day as days
from fer_batch.local.demo import fer2013_day, photographs, shops
from fer_batch.local.demo.visits import Mix
from fer_batch.records import CalledClass, Emotion, Outcome
from fer_batch.settings import Settings
from tests.support import pictures

DAY = date(2026, 11, 22)


@pytest.fixture(scope="module")
def demo_day() -> list[days.DemoFacility]:
    return [shops.draw_facility(shop, 0) for shop in shops.SHOPS]


def outcome(
    image: days.DemoImage, kind: Any, settings: Settings, detector: FaceDetector
) -> Outcome:
    limits = ImageLimits.from_settings(settings)
    try:
        extracted = extract_faces(image.data, kind, limits, detector)
    except UndecodableImageError as error:
        return error.outcome
    return Outcome.SCORED if extracted.faces else Outcome.NO_FACE


def test_every_image_gets_its_expected_outcome(
    demo_day: list[days.DemoFacility],
) -> None:
    settings = Settings(_env_file=None)
    detector = FaceDetector(settings)
    for facility in demo_day:
        for image in facility.images:
            found = outcome(image, facility.image_kind, settings, detector)
            assert found == image.outcome, (facility.facility_id, image.name)


def test_the_day_has_four_time_zones_and_both_kinds_of_images(
    demo_day: list[days.DemoFacility], tmp_path: Path
) -> None:
    assert len({facility.time_zone for facility in demo_day}) == 4
    assert Counter(f.image_kind for f in demo_day) == {"crops": 3, "frames": 1}
    file = tmp_path / "facilities.toml"
    file.write_text(days.format_registry(demo_day))
    loaded = load_registry(file).facilities
    assert list(loaded) == [facility.facility_id for facility in demo_day]
    for facility in demo_day:
        entry = loaded[facility.facility_id]
        assert [p.build() for p in entry.build_day_keys(DAY).prefixes] == [
            f"{facility.facility_id}/2026-11-22/"
        ]
        assert entry.target_rate == facility.target_rate
        assert entry.publish_period == facility.publish_period
    assert [f.facility_id for f in demo_day if f.publish_period == "week"] == ["pier-kiosk"]
    assert [f.facility_id for f in demo_day if f.target_rate is None] == ["pier-kiosk"]


def test_every_key_says_camera_and_local_time(
    demo_day: list[days.DemoFacility], tmp_path: Path
) -> None:
    file = tmp_path / "facilities.toml"
    file.write_text(days.format_registry(demo_day))
    loaded = load_registry(file).facilities
    for facility in demo_day:
        parse = loaded[facility.facility_id].build_name_parser(DAY)
        zone = ZoneInfo(facility.time_zone)
        keys = [key for key, _ in days.list_objects(facility, DAY)]
        assert len(set(keys)) == len(keys) == len(facility.images)
        for key in keys:
            captured = parse(key)
            assert captured.camera is not None
            assert captured.captured_at_utc is not None
            local = captured.captured_at_utc.astimezone(zone)
            assert local.date() == DAY
            assert f"{captured.camera}_{local:%H%M%S}." in key


def test_most_faces_are_neutral(demo_day: list[days.DemoFacility]) -> None:
    for facility in demo_day:
        assert facility.faces is not None
        assert facility.mix is not None
        neither = facility.faces[CalledClass.NEITHER] / facility.faces.total()
        assert 0.45 <= neither <= 0.8
        assert 0.5 <= 1 - facility.mix.happy - facility.mix.sad <= 0.75


def test_the_frozen_camera_delivers_one_picture_many_times(
    demo_day: list[days.DemoFacility],
) -> None:
    for facility in demo_day:
        scored = [image for image in facility.images if image.outcome == Outcome.SCORED]
        pictures_by_content = Counter(image.data for image in scored)
        repeated = [n for n in pictures_by_content.values() if n > 1]
        is_frozen = facility.facility_id == "lotus-mall"
        assert repeated == ([shops.FROZEN_COPIES + 1] if is_frozen else [])
        if is_frozen:
            frozen, _ = pictures_by_content.most_common(1)[0]
            names = [image.name for image in scored if image.data == frozen]
            assert {re.sub("_[0-9]{6}.jpg", "", name) for name in names} == {"food-court"}


def test_earlier_days_are_different_and_smaller(demo_day: list[days.DemoFacility]) -> None:
    earlier = shops.draw_facility(shops.SHOPS[0], 1)
    assert len(earlier.images) < 0.7 * len(demo_day[0].images)
    scored = {i.data for i in earlier.images if i.outcome == Outcome.SCORED}
    assert not scored & {image.data for image in demo_day[0].images}
    again = shops.draw_facility(shops.SHOPS[0], 1)
    assert again == earlier


def summary(facility: days.DemoFacility, **changes: Any) -> dict[str, Any]:
    outcomes = facility.outcomes or Counter()
    true = facility.true_rates or Mix(0.5, 0.1)
    return {
        "images_scored": outcomes["scored"],
        "not_scored": {name: n for name, n in outcomes.items() if name != "scored"},
        "happy_rate_low": true.happy - 0.1,
        "happy_rate_high": true.happy + 0.1,
        "sad_rate_low": true.sad,
        "sad_rate_high": true.sad + 0.1,
        "is_complete": True,
    } | changes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"images_scored": 1}, "1 images are scored"),
        ({"not_scored": {"empty": 2, "unreadable": 3}}, "3 images are unreadable"),
        ({"is_complete": False}, "not complete"),
    ],
)
def test_each_difference_is_reported(
    demo_day: list[days.DemoFacility], changes: dict[str, Any], problem: str | None
) -> None:
    problems = days.compare_summary(demo_day[0], summary(demo_day[0], **changes))
    if problem is None:
        assert problems == []
    else:
        assert any(problem in line for line in problems)


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"happy_rate_low": 0.31}, ["the happy rate is 0.310 to 0.400, expected 0.300"]),
        ({"happy_rate_high": 0.29}, ["the happy rate is 0.200 to 0.290, expected 0.300"]),
        ({"sad_rate_low": 0.11}, ["the sad rate is 0.110 to 0.200, expected 0.100"]),
        ({"happy_rate_low": None, "happy_rate_high": None}, []),
    ],
)
def test_an_interval_without_the_drawn_rate_is_reported(
    changes: dict[str, Any], problems: list[str]
) -> None:
    faces = Counter({CalledClass.HAPPY: 30, CalledClass.SAD: 10, CalledClass.NEITHER: 60})
    facility = days.DemoFacility("cafe", "Café", "UTC", "crops", [], faces)
    found = days.compare_rates(facility, summary(facility, **changes))
    assert found == [f"cafe: {problem}" for problem in problems]
    assert days.compare_rates(facility, None) == []
    assert days.compare_rates(replace(facility, faces=None), summary(facility, **changes)) == []


def test_a_facility_without_a_summary_is_a_problem(demo_day: list[days.DemoFacility]) -> None:
    assert days.compare_summary(demo_day[0], None) == ["harbour-cafe: there is no summary"]


def test_folders_become_facilities(tmp_path: Path) -> None:
    photo = pictures.encode(pictures.draw_scene(320, 240), ".jpg")
    crop = pictures.encode(pictures.draw_scene(48, 48), ".png")
    for name, data in [
        ("Café Süd/monday/a.jpg", photo),
        ("Café Süd/b.jpg", b"not an image"),
        ("crops/1.png", crop),
        ("loose.jpg", photo),
        ("manifest.json", b'[{"file": "loose.jpg", "faces": 2}]'),
        (".hidden", b""),
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found = photographs.load_photographs_day(tmp_path)
    assert [(f.facility_id, f.image_kind, [i.name for i in f.images]) for f in found] == [
        ("photographs", "frames", ["loose.jpg"]),
        ("cafe-sud", "frames", ["b.jpg", "monday/a.jpg"]),
        ("crops", "crops", ["1.png"]),
    ]
    assert all(facility.outcomes is None for facility in found)
    tomllib.loads(days.format_registry(found))
    assert photographs.read_manifest(tmp_path) == {"loose.jpg": 2}
    rows = [{"image_key": "photographs/2026-11-20/loose.jpg", "face_count": 1}]
    assert list(photographs.compare_faces({"loose.jpg": 2}, rows)) == [
        {"photograph": "loose.jpg", "faces": 2, "detected": 1, "is_same": False}
    ]


def test_folders_with_the_same_facility_id_are_refused(tmp_path: Path) -> None:
    for name in ("a b", "a-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="a-b"):
        photographs.load_photographs_day(tmp_path)


def test_labels_and_results_are_compared_row_by_row() -> None:
    labels = {1: Emotion.HAPPY, 2: Emotion.SAD, 3: Emotion.SAD, 4: Emotion.HAPPY}
    rows = [
        {"image_key": "f/2026-11-20/00001.jpg", "emotion": "Happy", "called_class": "happy"},
        {"image_key": "f/2026-11-20/00002.png", "emotion": "Sad", "called_class": "neither"},
        {"image_key": "f/2026-11-20/00003.jpg", "emotion": "Happy", "called_class": "happy"},
    ]
    assert fer2013_day.measure_agreement(labels, rows) == {
        "images": 4,
        "with a result": 3,
        "accuracy": 0.5,
        "recall Happy": 0.5,
        "recall Sad": 0.5,
        "Happy called Sad": 0,
        "Sad called Happy": 1,
        "called neither": 0.3333,
        "accuracy of the others": 0.5,
    }
