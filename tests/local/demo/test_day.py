"""The day of the demo: its images have the expected outcomes, and differences are reported."""

from __future__ import annotations

import tomllib
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.facilities import registry
from fer_batch.imaging.decoding import ImageLimits
from fer_batch.imaging.faces import FaceDetector, extract_faces
from fer_batch.local.demo import day as days
from fer_batch.local.demo import fer2013_day, photographs
from fer_batch.records import Batch, Emotion, FetchedImage, Image, ImageScore, Outcome
from fer_batch.settings import Settings
from tests.support import pictures


@pytest.fixture(scope="module")
def demo_day() -> list[days.DemoFacility]:
    return days.draw_day()


def outcome(
    image: days.DemoImage, kind: Any, settings: Settings, detector: FaceDetector
) -> Outcome:
    listed = Image(Batch("demo", date(2026, 11, 26)), image.name, "etag", len(image.data))
    extracted = extract_faces(
        FetchedImage(listed, image.data), kind, ImageLimits.from_settings(settings), detector
    )
    if isinstance(extracted, ImageScore):
        return extracted.outcome
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


def test_the_day_has_three_time_zones_and_both_kinds_of_images(
    demo_day: list[days.DemoFacility], tmp_path: Path
) -> None:
    assert len({facility.time_zone for facility in demo_day}) == 3
    assert Counter(f.image_kind for f in demo_day) == {"crops": 2, "frames": 1}
    file = tmp_path / "facilities.toml"
    file.write_text(days.format_registry(demo_day))
    loaded = registry.load_registry(file)
    assert list(loaded) == [facility.facility_id for facility in demo_day]
    for facility in demo_day:
        assert loaded[facility.facility_id].build_prefix(date(2026, 11, 20)) == (
            f"{facility.facility_id}/2026-11-20/"
        )


def summary(facility: days.DemoFacility, **changes: Any) -> dict[str, Any]:
    outcomes = facility.outcomes or Counter()
    return {
        "images_scored": outcomes["scored"],
        "not_scored": {name: n for name, n in outcomes.items() if name != "scored"},
        "happy_share": facility.true_share,
        "is_complete": True,
    } | changes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"happy_share": 0.85 + 0.099}, None),
        ({"happy_share": 0.85 - 0.101}, "happy share"),
        ({"happy_share": None}, "happy share"),
        ({"images_scored": 299}, "299 images are scored"),
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
        {"image_key": "f/2026-11-20/00001.jpg", "emotion": "Happy", "is_uncertain": False},
        {"image_key": "f/2026-11-20/00002.png", "emotion": "Sad", "is_uncertain": True},
        {"image_key": "f/2026-11-20/00003.jpg", "emotion": "Happy", "is_uncertain": False},
    ]
    assert fer2013_day.measure_agreement(labels, rows) == {
        "images": 4,
        "with a result": 3,
        "accuracy": 0.5,
        "recall Happy": 0.5,
        "recall Sad": 0.5,
        "Happy called Sad": 0,
        "Sad called Happy": 1,
        "uncertain share": 0.3333,
        "accuracy of the others": 0.5,
    }
