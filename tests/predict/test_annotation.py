"""Annotated images: where the marks are drawn, and where the files are written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.predict.annotation import AnnotationWriter, annotate
from fer_batch.records import Batch, Box, CallingRule, FaceScore, FetchedImage, Image
from fer_batch.settings import Settings
from tests.support import pictures as drawn

GRAY = 40


def build_face(box: Box, p_happy: float, p_sad: float) -> FaceScore:
    called = CallingRule(0.5, 0.4).call(p_happy, p_sad)
    return FaceScore(box, p_happy, p_sad, 1 - p_happy - p_sad, p_happy - p_sad, called)


HAPPY = build_face(Box(1, 2, 30, 40), 0.9, 0.05)
SAD = build_face(Box(300, 200, 100, 120), 0.1, 0.85)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(Settings(_env_file=None)) as started:
        yield started


def draw_flat(width: int = 640, height: int = 480) -> Pixels:
    return np.full((height, width, 3), GRAY, np.uint8)


def flat() -> bytes:
    return drawn.encode(draw_flat(), ".png")


def fetched(source: str) -> FetchedImage:
    return FetchedImage(Image(Batch("", date.min), source, "", 1), flat())


def read(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_marks_are_drawn_where_the_faces_are() -> None:
    marked = read(annotate(draw_flat(), [HAPPY, SAD]))
    assert marked.shape == (480, 640, 3)
    changed = (marked != GRAY).any(axis=2)
    assert changed[200, 300:400].all()
    assert changed[200:320, 300].all()
    assert not changed[230:310, 310:390].any()
    assert not changed[400:].any()


def test_the_colors_show_the_called_class() -> None:
    colors = [
        tuple(read(annotate(draw_flat(), [build_face(SAD.box, *pair)]))[200, 350].tolist())
        for pair in ((0.9, 0.05), (0.1, 0.85), (0.1, 0.2))
    ]
    assert colors == [(90, 210, 90), (245, 170, 90), (205, 205, 205)]


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
def test_a_face_at_any_edge_has_its_label_inside_the_image(box: Box, size: tuple[int, int]) -> None:
    marked = read(annotate(draw_flat(*size), [build_face(box, 0, 1)]))
    filled = (marked == (245, 170, 90)).all(axis=2)
    assert filled.sum() > 100  # more than a line: the label


def test_labels_of_adjacent_faces_are_all_visible() -> None:
    faces = [build_face(Box(100 + 34 * n, 200, 30, 36), 0.9, 0.1) for n in range(2)]
    one = (read(annotate(draw_flat(), faces[:1])) == (90, 210, 90)).all(axis=2)
    two = (read(annotate(draw_flat(), faces)) == (90, 210, 90)).all(axis=2)
    assert two.sum() > 1.9 * one.sum()


def test_a_small_image_is_enlarged_so_that_its_label_is_legible() -> None:
    face = build_face(Box(0, 0, 48, 48), 0.9, 0.05)
    assert read(annotate(draw_flat(48, 48), [face])).shape == (480, 480, 3)
    assert read(annotate(draw_flat(480, 270), [face])).shape == (540, 960, 3)


# ---------------------------------------------------------------- files


def write(target: Path, source: str, names: list[str], decoders: Decoders) -> list[Path | None]:
    writer = AnnotationWriter(target, source, decoders)
    return [writer.write(fetched(name), [HAPPY]) for name in names]


def test_one_image_is_written_to_the_named_file(tmp_path: Path, decoders: Decoders) -> None:
    for name, signature in (("a.png", b"\x89PNG"), ("a.JPG", b"\xff\xd8\xff")):
        assert write(tmp_path / name, "b.jpg", ["b.jpg"], decoders) == [tmp_path / name]
        assert (tmp_path / name).read_bytes().startswith(signature)


@pytest.mark.parametrize("name", ["a", "a.webp", "missing/a.png"])
def test_an_invalid_target_is_rejected_before_anything_is_read(
    tmp_path: Path, decoders: Decoders, name: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"neither a folder|no folder"):
        AnnotationWriter(tmp_path / name, "b.jpg", decoders)


def test_a_folder_is_written_with_the_same_relative_paths(
    tmp_path: Path, decoders: Decoders
) -> None:
    source = tmp_path / "day"
    source.mkdir()
    names = ["a.jpg", "a.png", "sub/a.webp", "without"]
    written = write(tmp_path / "marked", str(source), [f"{source}/{n}" for n in names], decoders)
    expected = ["a.png", "a.png.png", "sub/a.png", "without.png"]
    assert written == [tmp_path / "marked" / name for name in expected]
    assert all(path.is_file() for path in written if path)


def test_one_image_is_written_into_an_existing_folder(tmp_path: Path, decoders: Decoders) -> None:
    for source, name in (
        ("x/b.jpg", "b.png"),
        ("https://host.example/p/c%20d.webp?size=1", "c d.png"),
        ("https://host.example", "image.png"),
        ("s3://bucket/day/e.jpg", "e.png"),
    ):
        assert write(tmp_path, source, [source], decoders) == [tmp_path / name]


def test_no_key_leads_out_of_the_folder(tmp_path: Path, decoders: Decoders) -> None:
    target = tmp_path / "in" / "marked"
    keys = ["../../a.jpg", "//b.jpg", "./c.jpg", "x/../../../../d.jpg", ".."]
    written = write(target, "s3://bucket/day/", [f"s3://bucket/day/{k}" for k in keys], decoders)
    assert all(path is not None and path.resolve().is_relative_to(target) for path in written)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_an_image_without_a_face_is_not_written(tmp_path: Path, decoders: Decoders) -> None:
    writer = AnnotationWriter(tmp_path / "a.png", "b.jpg", decoders)
    assert writer.write(fetched("b.jpg"), []) is None
    assert not (tmp_path / "a.png").exists()


def test_no_image_is_overwritten(tmp_path: Path, decoders: Decoders) -> None:
    (tmp_path / "day" / "sub").mkdir(parents=True)
    image = tmp_path / "day" / "a.png"
    image.write_bytes(flat())
    with pytest.raises(ConfigurationError, match="the image itself"):
        write(image, str(image), [str(image)], decoders)
    with pytest.raises(ConfigurationError, match="the image itself"):
        write(image.parent, str(image), [str(image)], decoders)
    (tmp_path / "day" / "b.png").write_bytes(b"another image")
    with pytest.raises(ConfigurationError, match="already exists"):
        write(image.parent, "b.jpg", ["b.jpg"], decoders)
    assert (tmp_path / "day" / "b.png").read_bytes() == b"another image"
    for target in (image.parent, image.parent / "sub", image.parent / "new"):
        with pytest.raises(ConfigurationError, match="in the folder that is read"):
            write(target, str(image.parent), [], decoders)
    assert image.read_bytes() == flat()


@pytest.mark.parametrize("name", ["marked.png", "marked.jpg", "there"])
def test_several_images_need_a_folder(tmp_path: Path, decoders: Decoders, name: str) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "there").touch()
    for source in (str(tmp_path / "day"), "s3://bucket/day/", "s3://bucket"):
        with pytest.raises(ConfigurationError, match="several images") as caught:
            write(tmp_path / name, source, [], decoders)
        assert "folder" in caught.value.hint
