"""Predictions: every kind of source, every image format, and the output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.local.demo.drawing import draw_face
from fer_batch.local.demo.heads import Mouth
from fer_batch.predict.names import escape_text
from fer_batch.predict.prediction import (
    CROP_LIKE_PX,
    Prediction,
    Predictor,
    format_text,
    read_images,
    to_json,
)
from fer_batch.records import (
    Batch,
    Box,
    CalledClass,
    CallingRule,
    Emotion,
    FaceScore,
    Image,
    ImageScore,
    Outcome,
)
from fer_batch.settings import Settings
from tests.support import pictures as drawn
from tests.support.models import write_tiny_cnn

if TYPE_CHECKING:
    from tests.fixtures.servers import S3


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with the tiny CNN: bright is Happy, dark is Sad."""
    card = write_tiny_cnn(tmp_path_factory.mktemp("cnn"))
    return Settings(_env_file=None, model_card=card, threads=1)


@pytest.fixture(scope="module")
def photos(shared_dir: Path) -> Path:
    return shared_dir / "data" / "photos"


_started: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def started_decoders() -> Iterator[None]:
    """The decoders of the tests of this module, by settings."""
    with ExitStack() as stack:
        _started["stack"] = stack
        yield
    _started.clear()


def start_decoders(settings: Settings) -> Decoders:
    name = settings.model_dump_json()
    if name not in _started:
        _started[name] = _started["stack"].enter_context(Decoders(settings))
    started: Decoders = _started[name]
    return started


def predict(source: str | Path, settings: Settings, *, is_crop: bool = False) -> list[Prediction]:
    predictor = Predictor(settings, start_decoders(settings), is_crop=is_crop)
    return [predictor.predict(image) for image in read_images(str(source), settings)]


def flat(gray: int, width: int = 48, height: int = 48) -> bytes:
    return drawn.encode(np.full((height, width), gray, np.uint8), ".png")


# ---------------------------------------------------------------- sources


def test_a_folder_is_read_with_its_subfolders_in_order_of_names(
    tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "dark.png").write_bytes(flat(5))
    (tmp_path / "a.png").write_bytes(flat(250))
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    (tmp_path / ".DS_Store").write_bytes(b"hidden")
    predictions = predict(tmp_path, settings, is_crop=True)
    scores = [p.score for p in predictions]
    assert [(Path(score.image.key).name, score.outcome, score.emotion) for score in scores] == [
        ("a.png", Outcome.SCORED, Emotion.HAPPY),
        ("dark.png", Outcome.SCORED, Emotion.SAD),
        ("empty.jpg", Outcome.EMPTY, None),
        ("page.jpg", Outcome.UNSUPPORTED, None),
    ]


def test_many_images_are_all_predicted_in_order(tmp_path: Path, settings: Settings) -> None:
    grays = [(37 * n) % 256 for n in range(40)]
    for number, gray in enumerate(grays):
        (tmp_path / f"{number:03}.png").write_bytes(flat(gray) if number % 7 else b"")
    predictions = predict(tmp_path, settings, is_crop=True)
    expected = [(Emotion.HAPPY if g > 127 else Emotion.SAD) if n % 7 else None
                for n, g in enumerate(grays)]  # fmt: skip
    assert [p.score.emotion for p in predictions] == expected


def test_a_file_over_the_limit_is_not_read(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(settings.max_image_bytes + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    (score,) = read_images(str(path), settings)
    assert isinstance(score, ImageScore)
    assert score.outcome is Outcome.TOO_LARGE


def test_a_file_that_cannot_be_read_has_an_outcome(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(flat(1))

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root could read any file
    (score,) = read_images(str(tmp_path), settings)
    assert isinstance(score, ImageScore)
    assert (score.outcome, score.reason) == (Outcome.FETCH_FAILED, "Permission denied")


def test_a_folder_without_a_file_is_an_error(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="no file in the folder"):
        list(read_images(str(tmp_path), settings))


def test_objects_in_s3(s3: S3, settings: Settings) -> None:
    with_s3 = settings.model_copy(
        update={
            "s3_endpoint": s3.endpoint,
            "s3_access_key_id": s3.access_key_id,
            "s3_secret_access_key": Settings(
                _env_file=None, s3_secret_access_key=s3.secret_access_key
            ).s3_secret_access_key,
        }
    )
    keys = ["day/b ü.png", "day/a.png", "day/sub/c%2F.png", "other.png", "day.png"]
    for number, key in enumerate(keys):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=flat(10 + 50 * number))
    s3.client.put_object(Bucket=s3.bucket, Key="day/empty.png", Body=b"")

    def sources(source: str) -> list[str]:
        return [item.image.key for item in read_images(source, with_s3)]

    at = f"s3://{s3.bucket}/"
    assert sources(at + "day.png") == [at + "day.png"]
    assert sources(at + "day/") == [
        at + "day/a.png", at + "day/b ü.png", at + "day/empty.png", at + "day/sub/c%2F.png",
    ]  # fmt: skip
    assert len(sources(f"s3://{s3.bucket}")) == 6
    with pytest.raises(ConfigurationError, match="no object"):
        sources(at + "da")
    predictions = predict(at + "day/", with_s3, is_crop=True)
    assert [p.score.outcome for p in predictions] == ["scored", "scored", "empty", "scored"]
    assert [p.score.emotion for p in predictions] == [Emotion.SAD, Emotion.SAD, None, Emotion.SAD]


# ---------------------------------------------------------------- frames and crops


def test_each_face_of_a_frame_is_predicted(photos: Path, settings: Settings) -> None:
    (prediction,) = predict(photos / "intel_face-demographics-walking-and-pause_010.jpg", settings)
    assert prediction.kind == "frames"
    assert (prediction.score.width_px, prediction.score.height_px) == (480, 270)
    assert len(prediction.score.faces) == 3
    assert all(face.detector_score for face in prediction.score.faces)
    means = np.mean([(f.p_happy, f.p_sad, f.p_neither) for f in prediction.score.faces], axis=0)
    assert prediction.probabilities == pytest.approx(means)


@pytest.mark.parametrize(
    ("side", "outcome", "kind"),
    [(48, "scored", "crops"), (CROP_LIKE_PX, "scored", "crops"),
     (CROP_LIKE_PX + 1, "no_face", "frames")],
)  # fmt: skip
def test_a_small_image_without_a_face_is_treated_as_a_crop_with_a_note(
    tmp_path: Path, settings: Settings, side: int, outcome: str, kind: str
) -> None:
    path = tmp_path / "small.png"
    path.write_bytes(flat(240, side, side))
    (prediction,) = predict(path, settings)
    assert (prediction.score.outcome, prediction.kind) == (outcome, kind)
    assert ("whole image" in format_text(prediction)) == (kind == "crops")
    assert bool(to_json(prediction)["note"]) == (kind == "crops")


def test_a_small_image_with_a_face_is_treated_as_a_frame(photos: Path, settings: Settings,
                                                   tmp_path: Path) -> None:  # fmt: skip
    pixels = drawn.read_photo(photos / "monalisa_197x197.jpg")
    path = tmp_path / "small.png"
    path.write_bytes(drawn.encode(np.asarray(cv2.resize(pixels, (96, 96)), np.uint8), ".png"))
    (prediction,) = predict(path, settings)
    assert prediction.kind == "frames"
    assert prediction.note == ""
    assert prediction.score.faces[0].box.width < 96


def test_an_image_gets_the_same_score_alone_and_with_others(
    tmp_path: Path, settings: Settings
) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.png").write_bytes(flat(12 * number))
    together = predict(tmp_path, settings, is_crop=True)
    for path, prediction in zip(sorted(tmp_path.iterdir()), together, strict=True):
        (alone,) = predict(path, settings, is_crop=True)
        assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-4)


def test_decoders_print_nothing_about_damaged_images(
    tmp_path: Path, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.jpg").write_bytes(drawn.truncate_jpeg())
    (prediction,) = predict(tmp_path, settings)
    assert (prediction.score.outcome, prediction.score.reason) == (
        "unreadable",
        "JPEG ends early: its lower part is lost",
    )
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- formats


def encode_variants(face: drawn.Pixels) -> dict[str, bytes]:
    """The same face (H×W×3) in every supported format."""
    gray = np.asarray(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), np.uint8)
    wide = (face.astype(np.uint16) << 8) | face
    see_through = np.dstack([face, np.full(face.shape[:2], 255, np.uint8)])
    turned = np.asarray(cv2.rotate(face, cv2.ROTATE_90_COUNTERCLOCKWISE), np.uint8)
    larger = np.asarray(cv2.resize(face, None, fx=9, fy=9, interpolation=cv2.INTER_CUBIC), np.uint8)
    return {
        "gray": drawn.encode(gray, ".png"),
        "16 bits": cv2.imencode(".png", wide)[1].tobytes(),
        "16 bits and gray": cv2.imencode(".png", (gray.astype(np.uint16) << 8) | gray)[1].tobytes(),
        "alpha": drawn.encode(np.asarray(see_through, np.uint8), ".png"),
        "palette": drawn.encode_by_pillow(face, "PNG", "P", colors=256),
        "jpeg": drawn.encode(face, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98),
        "progressive jpeg": drawn.encode_by_pillow(face, "JPEG", quality=98, progressive=True),
        "cmyk jpeg": drawn.encode_by_pillow(face, "JPEG", "CMYK", quality=98),
        "webp": drawn.encode_by_pillow(face, "WEBP", lossless=True),
        "turned jpeg": drawn.encode_oriented(turned, "JPEG", 6),
        "turned png": drawn.encode_oriented(turned, "PNG", 6),
        "turned webp": drawn.encode_oriented(turned, "WEBP", 6),
        "larger": drawn.encode(larger, ".png"),
    }


@pytest.mark.parametrize("mouth", ["smile", "droop"])
def test_a_face_gets_the_same_emotion_in_every_format(tmp_path: Path, mouth: Mouth) -> None:
    shipped = Settings(_env_file=None, threads=1)
    face = np.asarray(draw_face(np.random.default_rng(1), mouth, 96), np.uint8)
    (tmp_path / "0 plain").write_bytes(drawn.encode(face, ".png"))
    for name, data in encode_variants(face).items():
        (tmp_path / f"1 {name}").write_bytes(data)
    plain, *others = predict(tmp_path, shipped, is_crop=True)
    assert plain.score.emotion is (Emotion.HAPPY if mouth == "smile" else Emotion.SAD)
    assert len(others) == 13
    for prediction in others:
        assert prediction.score.emotion is plain.score.emotion, prediction.score.image.key
        # A palette of 256 colors and a JPEG lose a little.
        assert prediction.probabilities == pytest.approx(plain.probabilities, abs=0.1), (
            prediction.score.image.key
        )


def test_a_photograph_with_an_orientation_is_made_upright(
    photos: Path, tmp_path: Path, settings: Settings
) -> None:
    pixels = drawn.read_photo(photos / "monalisa_518x799.jpg")
    turned = np.asarray(cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE), np.uint8)
    (tmp_path / "a.jpg").write_bytes(drawn.encode_oriented(turned, "JPEG", 6))
    (prediction,) = predict(tmp_path / "a.jpg", settings)
    (upright,) = predict(photos / "monalisa_518x799.jpg", settings)
    assert (prediction.score.width_px, prediction.score.height_px) == (518, 799)
    box, expected = prediction.score.faces[0].box, upright.score.faces[0].box
    assert (box.x, box.y) == pytest.approx((expected.x, expected.y), abs=4)


# ---------------------------------------------------------------- output


def scored(*faces: FaceScore, source: str = "a.jpg") -> Prediction:
    rule = CallingRule(0.5, 0.4)
    return Prediction(ImageScore.from_faces(image(source), 640, 480, faces, rule), "frames")


def image(source: str) -> Image:
    return Image(Batch("", date.min), source, "", 1)


HAPPY = FaceScore(Box(1, 2, 30, 40), 0.9, 0.05, 0.05, 0.75, CalledClass.HAPPY, 0.93)
NEUTRAL = FaceScore(Box(100, 20, 50, 60), 0.1, 0.3, 0.6, -0.25, CalledClass.NEITHER, 0.8)


def test_the_text_of_one_face() -> None:
    assert format_text(scored(HAPPY)) == (
        "a.jpg: 640×480 pixels, 1 face\n"
        "Prediction: p_happy 0.900, p_sad 0.050, p_neither 0.050\n"
        "Image Emotion is: Happy"
    )
    assert format_text(scored(NEUTRAL)).endswith("Image Emotion is: Sad (looks neither)")


def test_the_text_of_several_faces_has_the_mean_and_each() -> None:
    assert format_text(scored(HAPPY, NEUTRAL)) == (
        "a.jpg: 640×480 pixels, 2 faces\n"
        "Prediction: p_happy 0.500, p_sad 0.175, p_neither 0.325\n"
        "Image Emotion is: Happy\n"
        "  face 1 at (1, 2), 30×40: Happy, p_happy 0.900, p_sad 0.050, p_neither 0.050\n"
        "  face 2 at (100, 20), 50×60: Sad (looks neither), p_happy 0.100, p_sad 0.300, "
        "p_neither 0.600"
    )


def test_the_called_class_of_an_image_is_that_of_its_mean_probabilities() -> None:
    assert scored(HAPPY, NEUTRAL).score.called_class is CalledClass.HAPPY
    several = scored(HAPPY, NEUTRAL, NEUTRAL)
    assert several.score.called_class is CalledClass.NEITHER
    # The mean margin decides the forced choice: 0.75 - 0.25 - 0.25.
    assert "Image Emotion is: Happy (looks neither)\n" in format_text(several)


def test_the_text_of_an_image_that_was_not_scored() -> None:
    prediction = Prediction(ImageScore(image("a.jpg"), Outcome.UNREADABLE, "JPEG ends early"))
    assert format_text(prediction) == "a.jpg: not scored, unreadable: JPEG ends early"


def test_json_holds_plain_values(settings: Settings, tmp_path: Path) -> None:
    text = json.dumps(to_json(scored(HAPPY, NEUTRAL)), ensure_ascii=False)
    read = json.loads(text)
    assert read["emotion"] == "Happy"
    assert read["called_class"] == "happy"
    assert math.isclose(read["p_happy"], 0.5)
    assert read["faces"][1] == {
        "box": {"x": 100, "y": 20, "width": 50, "height": 60},
        "p_happy": 0.1,
        "p_sad": 0.3,
        "p_neither": 0.6,
        "happy_margin": -0.25,
        "called_class": "neither",
        "detector_score": 0.8,
        "emotion": "Sad",
    }
    nothing = json.loads(
        json.dumps(to_json(Prediction(ImageScore(image("a"), Outcome.NO_FACE, "none"))))
    )
    assert (nothing["p_happy"], nothing["emotion"], nothing["called_class"]) == (None, None, None)


@pytest.mark.parametrize("name", ["a\x1b[31mred.jpg", "a\nb.jpg", "a\udcff.jpg", "ü 笑.jpg"])
def test_any_name_can_be_printed(name: str) -> None:
    text = format_text(scored(HAPPY, source=name))
    assert len(text.splitlines()) == 3
    assert text.encode() == text.encode("utf-8", "strict")
    assert "\x1b" not in text
    json.dumps(to_json(scored(HAPPY, source=name)), ensure_ascii=False).encode()
    assert escape_text("ü 笑.jpg") == "ü 笑.jpg"
