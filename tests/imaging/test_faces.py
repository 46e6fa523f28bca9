"""Every box gives a crop, nothing of a face is lost, and the faces of photographs are detected."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.errors import ModelError
from fer_batch.imaging import faces
from fer_batch.imaging.decoding import ImageLimits, Pixels
from fer_batch.imaging.faces import (
    YUNET_SHA256,
    DecodedImage,
    DetectedFace,
    FaceDetector,
    ImageKind,
    crop_face,
    crop_square,
    crop_whole_image,
    extract_faces,
    find_shipped_detector,
    read_detector,
)
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.records import Box, Outcome
from fer_batch.settings import Settings
from tests.support import pictures

SETTINGS = Settings(_env_file=None)
LIMITS = ImageLimits.from_settings(SETTINGS)


@pytest.fixture(scope="module")
def photos(shared_dir: Path) -> Path:
    return shared_dir / "data" / "photos"


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(SETTINGS)


@pytest.fixture(scope="module")
def astronaut(photos: Path) -> Pixels:
    return pictures.read_photo(photos / "skimage_astronaut.png")


# ---------------------------------------------------------------- cropping

sides = st.integers(1, 90)
places = st.integers(-200, 200)


@given(sides, sides, st.booleans(), places, places, st.integers(0, 300), st.integers(0, 300))
def test_any_box_gives_a_crop(
    width: int, height: int, is_gray: bool, x: int, y: int, box_width: int, box_height: int
) -> None:
    shape = (height, width) if is_gray else (height, width, 3)
    pixels = np.full(shape, 77, np.uint8)
    crop = crop_face(pixels, Box(x, y, box_width, box_height))
    assert crop.shape == (48, 48)
    assert crop.dtype == np.uint8
    assert (crop == 77).all()  # only pixels of the image, wherever the box lies


@pytest.mark.parametrize("shape", [(16, 2_000_000), (2_000_000, 16)])
def test_an_image_of_any_aspect_ratio_is_cropped_in_little_memory(shape: tuple[int, int]) -> None:
    box, crop = crop_whole_image(np.zeros(shape, np.uint8))
    assert box == Box(0, 0, shape[1], shape[0])
    assert crop.shape == (48, 48)


def test_a_crop_of_the_right_size_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    assert np.array_equal(crop_whole_image(pixels)[1], pixels)


def test_the_crop_is_a_square_around_the_center_of_the_box() -> None:
    pixels = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    # 48 wide and 96 high around x = 100: columns 52 to 148, two of them for each pixel of the crop.
    crop = crop_face(pixels, Box(76, 50, 48, 96))
    assert np.abs(crop.astype(int) - np.arange(52, 148, 2)).max() <= 1
    assert np.array_equal(crop, crop_face(pixels, Box(52, 50, 96, 96)))


def test_a_square_of_another_side_keeps_color_and_shows_the_same_part() -> None:
    pixels = pictures.draw_scene(200, 160)
    box = Box(76, 50, 30, 60)  # the square around it begins at x = 61
    assert np.array_equal(crop_square(pixels, box, 60), pixels[50:110, 61:121])
    large = crop_square(pixels, box, 480)
    assert large.shape == (480, 480, 3)
    smaller = cv2.resize(large, (60, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(smaller.astype(int) - pixels[50:110, 61:121]).mean() < 3
    outside = crop_square(pixels, Box(-20, 0, 40, 40), 80)  # replicates the edge on the left
    assert np.array_equal(outside[:, 0], outside[:, 38])


def test_the_edge_is_replicated_outside_the_image() -> None:
    pixels = np.tile(np.arange(96, dtype=np.uint8), (96, 1))
    crop = crop_face(pixels, Box(-48, 0, 96, 96))
    assert (crop[:, :24] <= 1).all()
    assert np.abs(crop[:, 24:].astype(int) - np.arange(0, 48, 2)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(60, 40), (40, 60), (100, 30), (33, 47)])
def test_the_whole_of_an_image_that_is_not_square_is_in_the_crop(width: int, height: int) -> None:
    pixels = np.full((height, width), 100, np.uint8)
    pixels[:, :3] = pixels[:, -3:] = 0
    pixels[:3] = pixels[-3:] = 255
    _, crop = crop_whole_image(pixels)
    down, across = crop[:, 24], crop[24]
    assert down[24] == 100
    assert (down[0], down[-1]) == (255, 255)  # the crop contains a part of each edge
    assert (across[0], across[-1]) == (0, 0)


def test_color_is_converted_to_gray_by_luminance() -> None:
    green = np.zeros((60, 60, 3), np.uint8)
    green[:] = (0, 255, 0)
    assert (crop_whole_image(green)[1] == 150).all()


# ---------------------------------------------------------------- detection


def test_photographs_have_the_faces_of_the_manifest(photos: Path) -> None:
    manifest = json.loads((photos / "manifest.json").read_text())
    counts = {}
    # Some of the faces are 17 pixels high, which is the smallest that YuNet detects.
    detector = FaceDetector(Settings(_env_file=None, min_face_px=10))
    for entry in manifest:
        pixels = pictures.read_photo(photos / entry["file"])
        counts[entry["file"]] = len(detector.detect(pixels))
    assert counts == {entry["file"]: entry["faces"] for entry in manifest}


def test_small_faces_are_not_counted(photos: Path) -> None:
    pixels = pictures.read_photo(photos / "intel_classroom_011.jpg")
    counts = []
    for min_face_px in (10, 20, 24, 25, 60):
        detected = FaceDetector(Settings(_env_file=None, min_face_px=min_face_px)).detect(pixels)
        assert all(max(f.box.width, f.box.height) >= min_face_px for f in detected)
        counts.append(len(detected))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 4
    assert counts[-1] == 0


@pytest.mark.parametrize("side", [300, 700, 1300, 2600, 4000])
def test_a_face_is_detected_at_any_size_of_the_frame(
    detector: FaceDetector, astronaut: Pixels, side: int
) -> None:
    pixels = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_CUBIC)
    best = max(detector.detect(np.asarray(pixels, np.uint8)), key=lambda f: f.detector_score or 0)
    scale = side / 512
    assert best.box.x / scale == pytest.approx(178, abs=15)
    assert best.box.y / scale == pytest.approx(66, abs=15)
    assert best.box.height / scale == pytest.approx(113, rel=0.15)
    assert 0.75 < (best.detector_score or 0) <= 1


@pytest.mark.parametrize("corner", [(0, 0), (1188, 600), (1240, 1190), (2400, 1900)])
def test_a_small_face_in_a_large_frame_is_detected_once(
    detector: FaceDetector, astronaut: Pixels, corner: tuple[int, int]
) -> None:
    """Also where the tiles of a large frame meet."""
    frame = np.full((2000, 2600, 3), 90, np.uint8)
    small = cv2.resize(astronaut[20:220, 120:320], (100, 100), interpolation=cv2.INTER_AREA)
    x, y = corner
    frame[y : y + 100, x : x + 100] = small[: 2000 - y, : 2600 - x]
    (face,) = detector.detect(frame)
    assert face.box.x == pytest.approx(x + 30, abs=8)
    assert face.box.y == pytest.approx(y + 24, abs=8)


def test_boxes_lie_within_the_frame(detector: FaceDetector, astronaut: Pixels) -> None:
    for left in (150, 190, 210):
        pixels = np.ascontiguousarray(astronaut[80:300, left:400])
        for face in detector.detect(pixels):
            box = face.box
            assert box.x >= 0
            assert box.y >= 0
            assert box.x + box.width <= pixels.shape[1]
            assert box.y + box.height <= pixels.shape[0]


def test_faces_are_ordered_from_left_to_right_and_deterministic(
    photos: Path, detector: FaceDetector
) -> None:
    pixels = pictures.read_photo(photos / "intel_face-demographics-walking-and-pause_010.jpg")
    faces = detector.detect(pixels)
    detector.detect(np.zeros((300, 900, 3), np.uint8))  # an earlier frame changes nothing
    assert detector.detect(pixels) == faces
    assert [f.box.x for f in faces] == sorted(f.box.x for f in faces)


@pytest.mark.parametrize("gray", [0, 90, 128, 255])
@pytest.mark.parametrize("long", [16, 320, 480, 640, 3000])
@pytest.mark.parametrize("short", [1, 4, 16, 24, 32, 40])
def test_a_uniform_gray_frame_of_any_shape_has_no_face(
    detector: FaceDetector, short: int, long: int, gray: int
) -> None:
    """In narrow frames, OpenCV reads uninitialized memory unless they are padded."""
    assert detector.detect(np.full((short, long, 3), gray, np.uint8)) == []
    assert detector.detect(np.full((long, short, 3), gray, np.uint8)) == []


@given(st.integers(1, 20_000), st.integers(0, 640))
def test_tiles_cover_everything_and_overlap_enough(length: int, overlap: int) -> None:
    tiles = list(faces.split_into_tiles(length, overlap))
    assert tiles[0][0] == 0
    assert tiles[-1][1] == length
    assert all(0 < end - start <= 1280 for start, end in tiles)
    assert all(later[0] + overlap <= earlier[1] for earlier, later in itertools.pairwise(tiles))


# ---------------------------------------------------------------- the detector's file


def test_the_detector_is_shipped_with_its_license() -> None:
    content, sha256 = read_detector(None)
    assert (sha256, len(content)) == (YUNET_SHA256, 232_589)
    license_text = find_shipped_detector().with_name("LICENSE.txt").read_text()
    assert "MIT License" in license_text
    assert "The above copyright notice and this permission notice shall be included" in license_text


def test_an_altered_detector_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = bytearray(find_shipped_detector().read_bytes())
    altered[1000] ^= 1
    path = tmp_path / "yunet.onnx"
    path.write_bytes(altered)
    monkeypatch.setattr(faces, "find_shipped_detector", lambda: path)
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match="expected 8f2383e4"):
        FaceDetector(SETTINGS)


def test_a_custom_detector_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.onnx"
    path.write_bytes(find_shipped_detector().read_bytes())
    monkeypatch.setattr(faces, "find_shipped_detector", lambda: pytest.fail("it was read"))
    FaceDetector(Settings(_env_file=None, detector_file=path))


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_file_that_is_not_a_detector_is_an_error_with_a_hint(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="FER_DETECTOR_FILE"):
        FaceDetector(Settings(_env_file=None, detector_file=path))


# ---------------------------------------------------------------- from bytes to crops


def extract(data: bytes, kind: ImageKind, detector: FaceDetector | None) -> DecodedImage:
    return extract_faces(data, kind, LIMITS, detector)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_a_crop_is_one_face_without_a_detector(extension: str) -> None:
    extracted = extract(pictures.encode(pictures.draw_scene(60, 50), extension), "crops", None)
    assert (extracted.width_px, extracted.height_px) == (60, 50)
    assert extracted.faces == (DetectedFace(Box(0, 0, 60, 50), None),)
    assert extracted.crops.shape == (1, 48, 48)
    assert extracted.crops.dtype == np.uint8


def test_a_frame_gives_one_crop_for_each_face(photos: Path, detector: FaceDetector) -> None:
    data = (photos / "intel_face-demographics-walking-and-pause_010.jpg").read_bytes()
    extracted = extract(data, "frames", detector)
    assert len(extracted.faces) == len(extracted.crops) == 3
    assert all(face.detector_score for face in extracted.faces)
    pixels = pictures.read_photo(photos / "intel_face-demographics-walking-and-pause_010.jpg")
    for face, crop in zip(extracted.faces, extracted.crops, strict=True):
        assert np.array_equal(crop, crop_face(pixels, face.box))


def test_a_rotated_frame_is_made_upright_before_detection(
    detector: FaceDetector, astronaut: Pixels
) -> None:
    on_its_side = np.ascontiguousarray(np.rot90(astronaut))
    data = pictures.encode_oriented(on_its_side, "JPEG", 6)
    (turned,) = extract(data, "frames", detector).faces
    (expected,) = detector.detect(astronaut)
    assert abs(turned.box.x - expected.box.x) <= 3
    assert abs(turned.box.y - expected.box.y) <= 3


def test_a_frame_without_a_face_has_no_crop(detector: FaceDetector) -> None:
    extracted = extract(pictures.encode(pictures.draw_scene(320, 240)), "frames", detector)
    assert extracted.faces == ()
    assert extracted.crops.shape == (0, 48, 48)


def test_an_image_that_cannot_be_decoded_has_an_outcome(detector: FaceDetector) -> None:
    with pytest.raises(UndecodableImageError) as raised:
        extract(b"<html>", "frames", detector)
    assert raised.value.outcome is Outcome.UNSUPPORTED
    assert raised.value.reason
