"""Annotated pictures: where the marks are drawn, and where the files go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fer_batch.annotation import AnnotatedPictures, annotate
from fer_batch.errors import ConfigurationError
from fer_batch.predict import Picture, Prediction
from fer_batch.records import Box, FaceScore, Outcome
from fer_batch.settings import Settings
from tests.support import pictures as drawn

GREY = 40
HAPPY = FaceScore(Box(1, 2, 30, 40), 0.9, 0.05, 0.05, False, 0.93)
SAD = FaceScore(Box(300, 200, 100, 120), 0.1, 0.85, 0.05, False)


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None)


def flat(width: int = 640, height: int = 480) -> bytes:
    return drawn.encoded(np.full((height, width, 3), GREY, np.uint8), ".png")


def scored(*faces: FaceScore, source: str = "a.jpg") -> Prediction:
    return Prediction(source, Outcome.SCORED, kind="frames", faces=faces)


def read(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_marks_are_drawn_where_the_faces_are(settings: Settings) -> None:
    marked = read(annotate(flat(), scored(HAPPY, SAD), settings))
    assert marked.shape == (480, 640, 3)
    changed = (marked != GREY).any(axis=2)
    assert changed[200, 300:400].all()
    assert changed[200:320, 300].all()
    assert not changed[230:310, 310:390].any()
    assert not changed[400:].any()


def test_the_colours_say_the_emotion(settings: Settings) -> None:
    unsure = FaceScore(SAD.box, 0.1, 0.2, 0.7, True)
    colours = {
        tuple(read(annotate(flat(), scored(face), settings))[200, 350].tolist())
        for face in (SAD, FaceScore(SAD.box, 0.9, 0.05, 0.05, False), unsure)
    }
    assert len(colours) == 3


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(0, 0, 640, 480), (640, 480)),
        (Box(620, 0, 20, 20), (640, 480)),
        (Box(0, 460, 20, 20), (640, 480)),
        (Box(0, 0, 3000, 60), (3000, 60)),
        (Box(0, 0, 16, 700), (16, 700)),
        (Box(0, 0, 16, 16), (16, 16)),
    ],
)
def test_a_face_at_any_edge_has_its_plate_in_the_picture(
    settings: Settings, box: Box, size: tuple[int, int]
) -> None:
    marked = read(annotate(flat(*size), scored(FaceScore(box, 0, 1, 0, False)), settings))
    filled = (marked == (245, 170, 90)).all(axis=2)
    assert filled.sum() > 100  # more than a line: the plate


def test_plates_of_faces_side_by_side_are_all_to_be_seen(settings: Settings) -> None:
    faces = [FaceScore(Box(100 + 34 * n, 200, 30, 36), 0.9, 0.1, 0, False) for n in range(2)]
    one = (read(annotate(flat(), scored(faces[0]), settings)) == (90, 210, 90)).all(axis=2)
    two = (read(annotate(flat(), scored(*faces), settings)) == (90, 210, 90)).all(axis=2)
    assert two.sum() > 1.9 * one.sum()


def test_a_small_picture_is_enlarged_so_that_its_mark_can_be_read(settings: Settings) -> None:
    face = FaceScore(Box(0, 0, 48, 48), 0.9, 0.05, 0.05, False)
    assert read(annotate(flat(48, 48), scored(face), settings)).shape == (480, 480, 3)
    assert read(annotate(flat(480, 270), scored(face), settings)).shape == (540, 960, 3)


# ---------------------------------------------------------------- files


def write(target: Path, source: str, found: list[str], settings: Settings) -> list[Path | None]:
    places = AnnotatedPictures(target, source, settings)
    return [places.write(Picture(name, flat()), scored(HAPPY, source=name)) for name in found]


def test_a_picture_becomes_the_file_that_is_named(tmp_path: Path, settings: Settings) -> None:
    for name, signature in (("a.png", b"\x89PNG"), ("a.JPG", b"\xff\xd8\xff")):
        assert write(tmp_path / name, "b.jpg", ["b.jpg"], settings) == [tmp_path / name]
        assert (tmp_path / name).read_bytes().startswith(signature)


@pytest.mark.parametrize("name", ["a", "a.webp", "missing/a.png"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, settings: Settings, name: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"neither a folder|no folder"):
        AnnotatedPictures(tmp_path / name, "b.jpg", settings)


def test_a_folder_becomes_a_folder_with_the_same_places(tmp_path: Path, settings: Settings) -> None:
    source = tmp_path / "day"
    source.mkdir()
    names = ["a.jpg", "a.png", "sub/a.webp", "without"]
    written = write(tmp_path / "marked", str(source), [f"{source}/{n}" for n in names], settings)
    expected = ["a.png", "a.png.png", "sub/a.png", "without.png"]
    assert written == [tmp_path / "marked" / name for name in expected]
    assert all(path.is_file() for path in written if path)


def test_one_picture_goes_into_a_folder_that_exists(tmp_path: Path, settings: Settings) -> None:
    for source, name in (
        ("x/b.jpg", "b.png"),
        ("https://host.example/p/c%20d.webp?size=1", "c d.png"),
        ("https://host.example", "picture.png"),
        ("s3://bucket/day/e.jpg", "e.png"),
    ):
        assert write(tmp_path, source, [source], settings) == [tmp_path / name]


def test_no_key_leads_out_of_the_folder(tmp_path: Path, settings: Settings) -> None:
    target = tmp_path / "in" / "marked"
    keys = ["../../a.jpg", "//b.jpg", "./c.jpg", "x/../../../../d.jpg", ".."]
    written = write(target, "s3://bucket/day/", [f"s3://bucket/day/{k}" for k in keys], settings)
    assert all(path is not None and path.resolve().is_relative_to(target) for path in written)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_a_picture_without_a_face_is_left_out(tmp_path: Path, settings: Settings) -> None:
    places = AnnotatedPictures(tmp_path / "a.png", "b.jpg", settings)
    assert places.write(Picture("b.jpg", flat()), Prediction("b.jpg", Outcome.NO_FACE)) is None
    assert not (tmp_path / "a.png").exists()


def test_no_picture_is_written_over(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "day" / "sub").mkdir(parents=True)
    picture = tmp_path / "day" / "a.png"
    picture.write_bytes(flat())
    with pytest.raises(ConfigurationError, match="the picture itself"):
        write(picture, str(picture), [str(picture)], settings)
    with pytest.raises(ConfigurationError, match="the picture itself"):
        write(picture.parent, str(picture), [str(picture)], settings)
    (tmp_path / "day" / "b.png").write_bytes(b"another picture")
    with pytest.raises(ConfigurationError, match="there already"):
        write(picture.parent, "b.jpg", ["b.jpg"], settings)
    assert (tmp_path / "day" / "b.png").read_bytes() == b"another picture"
    for target in (picture.parent, picture.parent / "sub", picture.parent / "new"):
        with pytest.raises(ConfigurationError, match="the folder that is read"):
            write(target, str(picture.parent), [], settings)
    assert picture.read_bytes() == flat()


@pytest.mark.parametrize("name", ["marked.png", "marked.jpg", "there"])
def test_one_file_is_no_place_for_several_pictures(
    tmp_path: Path, settings: Settings, name: str
) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "there").touch()
    for source in (str(tmp_path / "day"), "s3://bucket/day/", "s3://bucket"):
        with pytest.raises(ConfigurationError, match="several pictures") as caught:
            write(tmp_path / name, source, [], settings)
        assert "folder" in caught.value.todo
