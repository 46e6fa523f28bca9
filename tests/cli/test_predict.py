"""`fer-batch predict` with output for people and for scripts."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.fixtures.command import Command
from tests.fixtures.night import encode_crop
from tests.fixtures.servers import S3
from tests.support import pictures

PREDICTION = r"^Prediction: p_happy [01]\.\d{3}, p_sad [01]\.\d{3}, p_neither [01]\.\d{3}$"


@pytest.fixture
def happy(fer: Command) -> str:
    (fer.folder / "happy.png").write_bytes(encode_crop(True))
    return "happy.png"


def test_a_file(fer: Command, happy: str) -> None:
    ended = fer("predict", happy)
    assert (ended.code, ended.err) == (0, "")
    assert re.search(PREDICTION, ended.out, re.MULTILINE)
    assert "Image Emotion is: Happy\n" in ended.out
    assert "whole image is the face" in ended.out  # it is 48×48 and has no face


def test_no_files_are_left_and_no_telemetry_is_sent(fer: Command, happy: str) -> None:
    """ONNX Runtime would create a folder for its telemetry."""
    fer("predict", happy)
    assert [path.name for path in fer.folder.iterdir()] == [happy]


def test_a_face_that_is_neither_has_a_forced_choice(fer: Command) -> None:
    gray = np.full((48, 48, 3), 127, np.uint8)
    (fer.folder / "gray.png").write_bytes(pictures.encode(gray, ".png"))
    ended = fer("predict", "gray.png", "--crop")
    assert "Image Emotion is: Sad (looks neither)\n" in ended.out


def test_a_crop_is_not_searched_for_faces(fer: Command, happy: str) -> None:
    said = fer("predict", happy, "--crop").out
    assert "as a crop" in said
    assert "no face was found" not in said


def test_a_folder(fer: Command) -> None:
    (fer.folder / "day").mkdir()
    for name, data in (("a.png", encode_crop(True)), ("b.png", encode_crop(False)), ("c.jpg", b"")):
        (fer.folder / "day" / name).write_bytes(data)
    ended = fer("predict", "day", "--crop")
    assert ended.code == 0
    assert re.findall(r"Image Emotion is: (\w+)", ended.out) == ["Happy", "Sad"]
    assert "day/c.jpg: not scored, empty" in ended.out


def test_json(fer: Command, happy: str) -> None:
    (fer.folder / "sad.png").write_bytes(encode_crop(False))
    ended = fer("predict", ".", "--crop", "--json")
    assert ended.code == 0
    assert [(p["source"], p["emotion"], p["called_class"], p["outcome"]) for p in ended.json] == [
        (happy, "Happy", "happy", "scored"),
        ("sad.png", "Sad", "sad", "scored"),
    ]
    assert ended.json[0]["p_happy"] > 0.9
    assert ended.json[0]["faces"][0]["box"] == {"x": 0, "y": 0, "width": 48, "height": 48}


def test_the_annotated_picture(fer: Command, happy: str) -> None:
    ended = fer("predict", happy, "--annotate", "marked.png")
    assert ended.code == 0
    assert "Annotated image: marked.png\n" in ended.out
    marked = cv2.imdecode(
        np.frombuffer((fer.folder / "marked.png").read_bytes(), np.uint8), cv2.IMREAD_COLOR
    )
    assert marked is not None
    assert max(marked.shape) == 480


def test_annotated_pictures_of_a_folder(fer: Command, happy: str) -> None:
    (fer.folder / "wall.png").write_bytes(pictures.encode(pictures.draw_scene(320, 240)))
    marked = fer.folder.parent / "marked pictures"
    ended = fer("predict", ".", "--annotate", str(marked), "--json")
    assert ended.code == 0
    where = {row["source"]: row["annotated"] for row in ended.json}
    assert where == {happy: str(marked / happy), "wall.png": None}
    assert (marked / happy).read_bytes().startswith(b"\x89PNG")


def test_an_annotated_picture_that_cannot_be_written(fer: Command, happy: str) -> None:
    ended = fer("predict", happy, "--annotate", "no/such/folder/marked.png")
    assert ended.code == 2
    assert "there is no folder no/such/folder" in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_picture_that_cannot_be_scored_is_a_finding(fer: Command, form: list[str]) -> None:
    (fer.folder / "page.jpg").write_bytes(b"<!DOCTYPE html><html></html>")
    ended = fer("predict", "page.jpg", *form)
    assert (ended.code, ended.err) == (3, "")
    assert "unsupported" in ended.out
    if form:
        assert ended.json[0]["emotion"] is None


@pytest.mark.parametrize("source", ["nowhere.png", "ftp://host/a.png", "s3://", "s3:///key"])
def test_an_invalid_source(fer: Command, source: str) -> None:
    ended = fer("predict", source, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert re.search(r"Check|Give", ended.err)


def test_what_is_not_in_s3_is_an_error(fer: Command, s3: S3) -> None:
    missing = fer("predict", f"s3://{s3.bucket}/night/", **s3.settings_env)
    assert missing.code == 2
    assert "there is no object" in missing.err
    wrong = fer("predict", "s3://no-such-bucket/a.png", **s3.settings_env)
    assert wrong.code == 2
    assert "no-such-bucket" in wrong.err


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Write nothing to stderr of the test."""


@pytest.fixture
def address(fer: Command, happy: str) -> Iterator[str]:
    handler = partial(_Quiet, directory=str(fer.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{happy}"
        server.shutdown()


def test_a_private_address_is_accessed_only_if_allowed(fer: Command, address: str) -> None:
    refused = fer("predict", address.replace("http", "HTTP"))
    assert refused.code == 3
    assert "private" in refused.out
    assert "Prediction" not in refused.out
    allowed = fer("predict", address, "--allow-private-addresses")
    assert allowed.code == 0
    assert "Image Emotion is: Happy" in allowed.out


def test_an_altered_cnn_is_not_opened(fer: Command, happy: str) -> None:
    artifact = Path(fer.env["FER_MODEL_CARD"]).with_suffix(".onnx")
    artifact.write_bytes(artifact.read_bytes() + b"\0")
    ended = fer("predict", happy)
    assert (ended.code, ended.out) == (2, "")
    assert "SHA-256" in ended.err
    assert str(artifact) in ended.err


@pytest.mark.parametrize("name", ["monalisa_518x799.jpg", "monalisa_197x197.jpg"])
def test_the_mona_lisa_by_the_shipped_cnn(fer: Command, shared_dir: Path, name: str) -> None:
    picture = shared_dir / "data" / "photos" / name
    ended = fer("predict", str(picture), "--annotate", "marked.png", FER_MODEL_CARD=None)
    assert ended.code == 0
    assert "1 face\n" in ended.out
    assert re.search(PREDICTION, ended.out, re.MULTILINE)
    assert "Image Emotion is: Happy (looks neither)\n" in ended.out
    assert (fer.folder / "marked.png").read_bytes().startswith(b"\x89PNG")


def test_a_frame_without_a_face(fer: Command) -> None:
    (fer.folder / "wall.jpg").write_bytes(pictures.encode(pictures.draw_scene(320, 240)))
    ended = fer("predict", "wall.jpg", "--annotate", "marked.png")
    assert ended.code == 3
    assert "not scored, no_face" in ended.out
    assert not (fer.folder / "marked.png").exists()
