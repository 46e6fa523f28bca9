"""The classifier: rejected cards and artifacts, the model version, and probabilities of crops."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from fer_batch.errors import ModelError
from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.faces import YUNET_SHA256, DetectedFace, find_shipped_detector
from fer_batch.model.active_model import load_active_version
from fer_batch.model.classifier import (
    BATCH_SIZE,
    Card,
    Classifier,
    build_manifest,
    find_shipped_card,
    hash_manifest,
    load_artifact,
    open_artifact,
    score_faces,
)
from fer_batch.records import Box, Emotion
from fer_batch.settings import Settings
from tests.support.models import build_tiny_onnx, write_tiny_cnn

SHIPPED = find_shipped_card()


def build_settings(card: Path | None = None, **overrides: Any) -> Settings:
    return Settings(_env_file=None, model_card=card, **({"threads": 1} | overrides))


def load_classifier(card: Path) -> Classifier:
    return Classifier(build_settings(), load_artifact(card))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_cnn(tmp_path)


def generate_noise(count: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 48, 48), dtype=np.uint8)


# ---------------------------------------------------------------- rejected input


def test_an_altered_artifact_is_rejected_before_it_is_opened(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny.with_suffix(".onnx")
    expected = json.loads(tiny.read_text())["artefact_sha256"]
    altered = artifact.read_bytes() + b"\0"
    artifact.write_bytes(altered)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("it was opened")
    )
    for load in (lambda: load_artifact(tiny), lambda: load_classifier(tiny)):
        with pytest.raises(ModelError) as caught:
            load()
        assert expected in str(caught.value)
        assert hashlib.sha256(altered).hexdigest() in str(caught.value)
        assert "FER_MODEL_CARD" in caught.value.hint


def test_a_missing_card_or_artifact_is_reported(tiny: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.json cannot be read"):
        load_artifact(tiny.with_name("none.json"))
    tiny.with_suffix(".onnx").unlink()
    with pytest.raises(ModelError, match=r"tiny\.onnx cannot be read"):
        load_artifact(tiny)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": 2}, "format"),
        ({"artefact": "../other.onnx"}, "artefact"),
        ({"artefact": "/etc/passwd"}, "artefact"),
        ({"artefact_sha256": "abc"}, "artefact_sha256"),
        ({"uncertain_below": 1.5}, "uncertain_below"),
        ({"uncertain_below": "0.5"}, "uncertain_below"),
        ({"uncertain_below": None}, "uncertain_below"),
        ({"input": {"name": "crops", "dtype": "float32", "shape": ["N", 48, 48]}}, "input.dtype"),
        ({"input": {"name": "crops", "dtype": "uint8", "shape": ["N", 64, 64]}}, "input.shape"),
        ({"output": {"name": "logits", "classes": []}}, "output.name"),
        ({"output": {"name": "probabilities", "classes": ["happy", "sad"]}}, "classes"),
    ],
)
def test_an_invalid_card_is_rejected_with_the_field(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        load_artifact(write_tiny_cnn(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_file_that_is_not_a_card_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is invalid"):
        load_artifact(path)


def test_additional_keys_of_a_card_are_kept(tmp_path: Path) -> None:
    card = load_artifact(write_tiny_cnn(tmp_path, recipe={"epochs": 3}, remark="a word")).card
    assert card.model_dump()["recipe"] == {"epochs": 3}
    assert card.model_dump()["remark"] == "a word"


@pytest.mark.parametrize(
    ("artifact", "word"),
    [
        (b"no ONNX at all", "cannot be run"),
        (build_tiny_onnx(crop_px=64), "expected uint8 crops"),
        (build_tiny_onnx(dtype=TensorProto.FLOAT), "expected uint8 crops"),
        (build_tiny_onnx(classes=8), "no probabilities"),
    ],
)
def test_an_artifact_that_contradicts_its_card_is_rejected(
    tmp_path: Path, artifact: bytes, word: str
) -> None:
    with pytest.raises(ModelError, match=word):
        load_classifier(write_tiny_cnn(tmp_path, artifact))


def test_external_weights_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hash covers them: changing them would change the results of the same model version."""
    monkeypatch.chdir(tmp_path)
    shipped = onnx.load_from_string(find_shipped_card().with_suffix(".onnx").read_bytes())
    onnx.save_model(shipped, "split.onnx", save_as_external_data=True, location="weights.bin")
    assert Path("weights.bin").stat().st_size > 400_000
    with pytest.raises(ModelError, match="cannot be run"):
        open_artifact(Path("split.onnx").read_bytes(), "split.onnx", 1)


# ---------------------------------------------------------------- model version


def test_the_version_depends_on_everything_that_decides_a_result(
    tmp_path: Path, tiny: Path
) -> None:
    own_detector = tmp_path / "yunet.onnx"
    own_detector.write_bytes(find_shipped_detector().read_bytes() + b"\0")
    other_dir = tmp_path / "others"
    other_dir.mkdir()
    versions = [
        load_active_version(build_settings(card, **changed))
        for card, changed in (
            (tiny, {}),
            (tiny, {"min_face_px": 25}),
            (tiny, {"max_image_bytes": 1}),
            (tiny, {"max_image_pixels": 1}),
            (tiny, {"min_image_px": 1}),
            (tiny, {"detector_file": own_detector}),
            (write_tiny_cnn(other_dir, uncertain_below=0.71), {}),
        )
    ]
    versions.append(
        load_active_version(
            build_settings(write_tiny_cnn(other_dir, build_tiny_onnx() + b"\x3a\0"))
        )
    )
    assert len(set(versions)) == len(versions)
    assert all(len(v) == 64 and set(v) <= set("0123456789abcdef") for v in versions)


def test_the_version_depends_on_nothing_else(tmp_path: Path, tiny: Path) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    same_detector = tmp_path / "yunet.onnx"
    same_detector.write_bytes(find_shipped_detector().read_bytes())
    first = load_active_version(build_settings(tiny))
    assert (
        load_active_version(build_settings(tiny, threads=4, chunk_images=7, s3_bucket="other"))
        == first
    )
    assert load_active_version(build_settings(tiny, detector_file=same_detector)) == first
    assert (
        load_active_version(build_settings(write_tiny_cnn(renamed, name="other", metrics={})))
        == first
    )


def test_the_version_is_the_hash_of_the_manifest_as_canonical_json(tiny: Path) -> None:
    manifest = build_manifest(load_artifact(tiny).card, build_settings(tiny))
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    assert hash_manifest(manifest) == hashlib.sha256(text.encode()).hexdigest()
    assert hash_manifest(json.loads(text)) == hash_manifest(manifest)  # as read back from the table
    assert manifest["detector"]["sha256"] == YUNET_SHA256
    assert manifest["cnn"]["sha256"] == load_artifact(tiny).card.artefact_sha256


def test_the_version_is_known_without_loading_the_cnn(tiny: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fer_batch import settings;"
        "from fer_batch.model import active_model;"
        f"s = settings.Settings(_env_file=None, model_card=Path({str(tiny)!r}));"
        "print(active_model.load_active_version(s));"
        "assert not {'onnxruntime', 'tensorflow', 'pandas', 'sqlalchemy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == load_classifier(tiny).model_version


# ---------------------------------------------------------------- probabilities


def test_seven_classes_are_merged_into_three_probabilities(tiny: Path) -> None:
    crops = np.stack([np.full((48, 48), gray, np.uint8) for gray in (0, 128, 255)])
    probabilities = load_classifier(tiny).classify(crops)
    means = np.array([0, 128, 255]) / 255
    logits = np.zeros((3, 7))
    logits[:, 3], logits[:, 4], logits[:, 6] = 8 * means, 8 - 8 * means, 1
    class_probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.stack(
        [
            class_probabilities[:, 3],
            class_probabilities[:, 4],
            class_probabilities[:, [0, 1, 2, 5, 6]].sum(axis=1),
        ],
        axis=1,
    )
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities - expected).max() < 1e-5


@pytest.mark.parametrize(
    "count", [0, 1, 2, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 3 * BATCH_SIZE + 7]
)
def test_any_number_of_crops_is_classified(tiny: Path, count: int) -> None:
    probabilities = load_classifier(tiny).classify(generate_noise(count))
    assert probabilities.shape == (count, 3)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@pytest.mark.parametrize("card", ["tiny", "shipped"])
def test_batch_composition_and_order_do_not_change_a_probability(tmp_path: Path, card: str) -> None:
    classifier = load_classifier(write_tiny_cnn(tmp_path) if card == "tiny" else SHIPPED)
    crops = generate_noise(BATCH_SIZE + 30)
    crops[::3] //= 9  # some dark, some bright: the scale must not depend on the batch
    together = classifier.classify(crops)
    alone = np.concatenate([classifier.classify(crops[i : i + 1]) for i in range(len(crops))])
    reversed_back = classifier.classify(np.ascontiguousarray(crops[::-1]))[::-1]
    assert np.abs(together - alone).max() <= 1e-4
    assert np.abs(together - reversed_back).max() <= 1e-4


@pytest.mark.parametrize(
    "crops", [np.zeros((1, 48, 48)), np.zeros((1, 64, 64), np.uint8), np.zeros((48, 48), np.uint8)]
)
def test_crops_of_another_shape_or_dtype_are_rejected(tiny: Path, crops: Any) -> None:
    with pytest.raises(ValueError, match="N×48×48"):
        load_classifier(tiny).classify(crops)


def test_scores_have_box_emotion_uncertainty_and_detector_score(tiny: Path) -> None:
    boxes = [Box(1, 2, 3, 4), Box(5, 6, 7, 8), Box(9, 10, 11, 12)]
    crops = np.stack([np.full((48, 48), gray, np.uint8) for gray in (250, 5, 127)])
    faces = [DetectedFace(*pair) for pair in zip(boxes, [0.9, None, 0.8], strict=True)]
    cnn = load_classifier(tiny)
    happy, sad, uncertain_face = score_faces(cnn.classify(crops), faces, cnn.card.uncertain_below)
    assert (happy.emotion, happy.is_uncertain) == (Emotion.HAPPY, False)
    assert (sad.emotion, sad.is_uncertain) == (Emotion.SAD, False)
    assert uncertain_face.is_uncertain
    assert [happy.box, sad.box, uncertain_face.box] == boxes
    assert [happy.detector_score, sad.detector_score] == [0.9, None]


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), max_size=5),
    st.floats(0, 1, width=32),
)
def test_a_face_is_uncertain_exactly_below_the_threshold(
    pairs: list[tuple[float, float]], threshold: float
) -> None:
    rows = np.array([(a, b, 0) for a, b in pairs], np.float32).reshape(-1, 3)
    scores = score_faces(rows, [DetectedFace(Box(0, 0, 48, 48))] * len(pairs), threshold)
    assert [s.is_uncertain for s in scores] == [max(pair) < threshold for pair in pairs]


# ---------------------------------------------------------------- the shipped CNN


def test_the_shipped_card_and_artifact_match() -> None:
    card = load_artifact(SHIPPED).card
    assert isinstance(card, Card)
    assert card.artefact_bytes == SHIPPED.with_name(card.artefact).stat().st_size
    probabilities = load_classifier(SHIPPED).classify(generate_noise(10))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
