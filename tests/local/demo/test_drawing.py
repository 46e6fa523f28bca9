"""Synthetic faces: reproducible by their seed, detected, and classified as intended."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from fer_batch.imaging.faces import DetectedFace, FaceDetector
from fer_batch.local.demo.drawing import FRAME_HEIGHT_PX, FRAME_WIDTH_PX, draw_face
from fer_batch.local.demo.heads import Mouth
from fer_batch.model.classifier import (
    Classifier,
    find_shipped_card,
    load_artifact,
    score_faces,
)
from fer_batch.records import Box, CalledClass, Emotion
from fer_batch.settings import Settings
from tests.support.pictures import draw_frame

MOUTHS: tuple[Mouth, ...] = ("smile", "droop", "level")
FACES = 60


def build_rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def choose_mouths(rng: np.random.Generator, faces: int) -> list[Mouth]:
    return [MOUTHS[index] for index in rng.integers(0, len(MOUTHS), faces)]


def call_drawn_faces(mouth: Mouth) -> tuple[list[CalledClass], list[Emotion]]:
    """What the shipped CNN calls FACES drawn crops, and its forced choices."""
    classifier = Classifier(Settings(threads=1), load_artifact(find_shipped_card()))
    crops = [
        cv2.cvtColor(draw_face(build_rng(n, len(mouth)), mouth), cv2.COLOR_BGR2GRAY)
        for n in range(FACES)
    ]
    scores = classifier.classify(np.asarray(crops, np.uint8))
    faces = score_faces(scores, [DetectedFace(Box(0, 0, 48, 48))] * FACES, classifier.rule)
    return [face.called_class for face in faces], [face.emotion for face in faces]


@pytest.mark.parametrize("mouth", MOUTHS)
@pytest.mark.parametrize("size_px", [48, 192])
def test_a_face_depends_only_on_its_seed(mouth: Mouth, size_px: int) -> None:
    face = draw_face(build_rng(1), mouth, size_px)
    assert (face.shape, face.dtype) == ((size_px, size_px, 3), np.dtype(np.uint8))
    assert face.std() > 10
    assert np.array_equal(face, draw_face(build_rng(1), mouth, size_px))
    assert not np.array_equal(face, draw_face(build_rng(2), mouth, size_px))


def test_faces_of_one_seed_differ_only_in_their_mouths() -> None:
    smile, droop, level = (draw_face(build_rng(3), mouth).astype(int) for mouth in MOUTHS)
    for one, other in itertools.combinations((smile, droop, level), 2):
        difference = np.abs(one - other).mean(axis=2)
        assert difference[26:44, 10:38].mean() > 3 * difference[:6].mean()


def test_a_frame_depends_only_on_its_seed() -> None:
    frame, boxes = draw_frame(build_rng(4), ["smile", "droop"])
    assert (frame.shape, frame.dtype) == ((FRAME_HEIGHT_PX, FRAME_WIDTH_PX, 3), np.dtype(np.uint8))
    again, same_boxes = draw_frame(build_rng(4), ["smile", "droop"])
    assert np.array_equal(frame, again)
    assert boxes == same_boxes
    assert not np.array_equal(frame, draw_frame(build_rng(5), ["smile", "droop"])[0])


@pytest.mark.parametrize("faces", [0, 1, 2, 3, 4, 5])
def test_the_faces_of_a_frame_are_inside_it_and_do_not_overlap(faces: int) -> None:
    for seed in range(10):
        _, boxes = draw_frame(build_rng(seed), ["level"] * faces)
        assert len(boxes) == faces
        for box in boxes:
            assert 0 <= box.x <= FRAME_WIDTH_PX - box.width
            assert 0 <= box.y <= FRAME_HEIGHT_PX - box.height
        for one, other in itertools.combinations(boxes, 2):
            assert abs(one.x - other.x) >= min(one.width, other.width)


def test_more_faces_than_a_frame_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 5 faces, not 6"):
        draw_frame(build_rng(1), ["smile"] * 6)


def test_the_detector_finds_the_drawn_faces_and_no_others() -> None:
    detector = FaceDetector(Settings(threads=1))
    drawn = detected = false_positives = 0
    for seed in range(25):
        rng = build_rng(6, seed)
        frame, boxes = draw_frame(rng, choose_mouths(rng, seed % 5))
        hits = [any(is_same(face.box, box) for box in boxes) for face in detector.detect(frame)]
        drawn += len(boxes)
        detected += sum(hits)
        false_positives += hits.count(False)
    assert detected >= 0.95 * drawn
    assert false_positives == 0


def is_same(detected: Box, drawn: Box) -> bool:
    dx = detected.x + detected.width / 2 - drawn.x - drawn.width / 2
    dy = detected.y + detected.height / 2 - drawn.y - drawn.height / 2
    return max(abs(dx), abs(dy)) < 0.35 * drawn.width


@pytest.mark.parametrize(
    ("mouth", "called_class", "emotion"),
    [
        ("smile", CalledClass.HAPPY, Emotion.HAPPY),
        ("droop", CalledClass.SAD, Emotion.SAD),
    ],
)
def test_the_shipped_cnn_recognizes_smiles_and_drooping_mouths(
    mouth: Mouth, called_class: CalledClass, emotion: Emotion
) -> None:
    called, emotions = call_drawn_faces(mouth)
    assert emotions.count(emotion) >= 0.95 * FACES
    assert called.count(called_class) >= 0.95 * FACES


def test_the_shipped_cnn_calls_level_mouths_neither() -> None:
    called, _ = call_drawn_faces("level")
    assert called.count(CalledClass.NEITHER) >= 0.9 * FACES
