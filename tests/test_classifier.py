"""The classifier: what it refuses, what decides the model version, and what it says of crops."""

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

from fer_batch.choice import version_in_use
from fer_batch.classifier import (
    BATCH,
    Card,
    Classifier,
    load_artefact,
    manifest_of,
    open_artefact,
    score_faces,
    shipped_card,
    version_of,
)
from fer_batch.errors import ModelError
from fer_batch.faces import YUNET_SHA256, shipped_detector
from fer_batch.images import Pixels
from fer_batch.records import Box, Emotion
from fer_batch.settings import Settings
from tests.support.models import tiny_onnx, write_tiny_cnn

SHIPPED = shipped_card()


def settings(card: Path | None = None, **others: Any) -> Settings:
    return Settings(_env_file=None, model_card=card, **({"threads": 1} | others))


def loaded(card: Path) -> Classifier:
    return Classifier(settings(), load_artefact(card))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_cnn(tmp_path)


def noise(count: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 48, 48), dtype=np.uint8)


# ---------------------------------------------------------------- what is refused


def test_an_altered_artefact_is_refused_before_it_is_opened(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = tiny.with_suffix(".onnx")
    expected = json.loads(tiny.read_text())["artefact_sha256"]
    altered = artefact.read_bytes() + b"\0"
    artefact.write_bytes(altered)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("it was opened")
    )
    for load in (lambda: load_artefact(tiny), lambda: loaded(tiny)):
        with pytest.raises(ModelError) as caught:
            load()
        assert expected in str(caught.value)
        assert hashlib.sha256(altered).hexdigest() in str(caught.value)
        assert "FER_MODEL_CARD" in caught.value.todo


def test_a_missing_card_or_artefact_says_so(tiny: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.json cannot be read"):
        load_artefact(tiny.with_name("none.json"))
    tiny.with_suffix(".onnx").unlink()
    with pytest.raises(ModelError, match=r"tiny\.onnx cannot be read"):
        load_artefact(tiny)


@pytest.mark.parametrize(
    ("changes", "named"),
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
def test_a_wrong_card_names_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=named):
        load_artefact(write_tiny_cnn(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_card_that_is_no_card_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is wrong"):
        load_artefact(path)


def test_further_keys_of_a_card_inform_and_are_kept(tmp_path: Path) -> None:
    card = load_artefact(write_tiny_cnn(tmp_path, recipe={"epochs": 3}, remark="a word")).card
    assert card.model_dump()["recipe"] == {"epochs": 3}
    assert card.model_dump()["remark"] == "a word"


@pytest.mark.parametrize(
    ("artefact", "word"),
    [
        (b"no ONNX at all", "cannot be run"),
        (tiny_onnx(crop_px=64), "expected uint8 crops"),
        (tiny_onnx(dtype=TensorProto.FLOAT), "expected uint8 crops"),
        (tiny_onnx(classes=8), "no probabilities"),
    ],
)
def test_an_artefact_that_does_not_do_what_its_card_says_is_refused(
    tmp_path: Path, artefact: bytes, word: str
) -> None:
    with pytest.raises(ModelError, match=word):
        loaded(write_tiny_cnn(tmp_path, artefact))


def test_weights_beside_the_artefact_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hash covers them: who changes them would change every answer of the same version."""
    monkeypatch.chdir(tmp_path)
    shipped = onnx.load_from_string(shipped_card().with_suffix(".onnx").read_bytes())
    onnx.save_model(shipped, "split.onnx", save_as_external_data=True, location="weights.bin")
    assert Path("weights.bin").stat().st_size > 400_000
    with pytest.raises(ModelError, match="cannot be run"):
        open_artefact(Path("split.onnx").read_bytes(), "split.onnx", 1)


# ---------------------------------------------------------------- model version


def test_the_version_names_everything_that_decides_a_result(tmp_path: Path, tiny: Path) -> None:
    own_detector = tmp_path / "yunet.onnx"
    own_detector.write_bytes(shipped_detector().read_bytes() + b"\0")
    others = tmp_path / "others"
    others.mkdir()
    versions = [
        version_in_use(settings(card, **changed))
        for card, changed in (
            (tiny, {}),
            (tiny, {"min_face_px": 25}),
            (tiny, {"max_image_bytes": 1}),
            (tiny, {"max_image_pixels": 1}),
            (tiny, {"min_image_px": 1}),
            (tiny, {"detector_file": own_detector}),
            (write_tiny_cnn(others, uncertain_below=0.71), {}),
        )
    ]
    versions.append(version_in_use(settings(write_tiny_cnn(others, tiny_onnx() + b"\x3a\0"))))
    assert len(set(versions)) == len(versions)
    assert all(len(v) == 64 and set(v) <= set("0123456789abcdef") for v in versions)


def test_the_version_names_nothing_else(tmp_path: Path, tiny: Path) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    same_detector = tmp_path / "yunet.onnx"
    same_detector.write_bytes(shipped_detector().read_bytes())
    first = version_in_use(settings(tiny))
    assert version_in_use(settings(tiny, threads=4, chunk_images=7, s3_bucket="other")) == first
    assert version_in_use(settings(tiny, detector_file=same_detector)) == first
    assert version_in_use(settings(write_tiny_cnn(renamed, name="other", metrics={}))) == first


def test_the_version_is_the_hash_of_the_manifest_as_canonical_json(tiny: Path) -> None:
    manifest = manifest_of(load_artefact(tiny).card, settings(tiny))
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    assert version_of(manifest) == hashlib.sha256(text.encode()).hexdigest()
    assert version_of(json.loads(text)) == version_of(manifest)  # as read back from the table
    assert manifest["detector"]["sha256"] == YUNET_SHA256
    assert manifest["cnn"]["sha256"] == load_artefact(tiny).card.artefact_sha256


def test_planning_knows_the_version_without_loading_the_cnn(tiny: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fer_batch import choice, settings;"
        f"s = settings.Settings(_env_file=None, model_card=Path({str(tiny)!r}));"
        "print(choice.version_in_use(s));"
        "assert not {'onnxruntime', 'tensorflow', 'pandas', 'sqlalchemy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == loaded(tiny).model_version


# ---------------------------------------------------------------- probabilities


def test_the_seven_expressions_become_three_probabilities(tiny: Path) -> None:
    crops = np.stack([np.full((48, 48), grey, np.uint8) for grey in (0, 128, 255)])
    found = loaded(tiny).classify(crops)
    means = np.array([0, 128, 255]) / 255
    logits = np.zeros((3, 7))
    logits[:, 3], logits[:, 4], logits[:, 6] = 8 * means, 8 - 8 * means, 1
    seven = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.stack([seven[:, 3], seven[:, 4], seven[:, [0, 1, 2, 5, 6]].sum(axis=1)], axis=1)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("count", [0, 1, 2, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 7])
def test_any_number_of_crops(tiny: Path, count: int) -> None:
    found = loaded(tiny).classify(noise(count))
    assert found.shape == (count, 3)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("card", ["tiny", "shipped"])
def test_company_and_order_change_no_probability(tmp_path: Path, card: str) -> None:
    classifier = loaded(write_tiny_cnn(tmp_path) if card == "tiny" else SHIPPED)
    crops = noise(BATCH + 30)
    crops[::3] //= 9  # some dark, some bright: what is in a batch must not set its scale
    together = classifier.classify(crops)
    alone = np.concatenate([classifier.classify(crops[i : i + 1]) for i in range(len(crops))])
    turned = classifier.classify(np.ascontiguousarray(crops[::-1]))[::-1]
    assert np.abs(together - alone).max() <= 1e-4
    assert np.abs(together - turned).max() <= 1e-4


@pytest.mark.parametrize(
    "crops", [np.zeros((1, 48, 48)), np.zeros((1, 64, 64), np.uint8), np.zeros((48, 48), np.uint8)]
)
def test_other_crops_are_a_mistake(tiny: Path, crops: Any) -> None:
    with pytest.raises(ValueError, match="N×48×48"):
        loaded(tiny).classify(crops)


def test_faces_carry_box_emotion_doubt_and_detector_score(tiny: Path) -> None:
    boxes = [Box(1, 2, 3, 4), Box(5, 6, 7, 8), Box(9, 10, 11, 12)]
    crops = np.stack([np.full((48, 48), grey, np.uint8) for grey in (250, 5, 127)])
    happy, sad, doubtful = loaded(tiny).score_faces(crops, boxes, [0.9, None, 0.8])
    assert (happy.emotion, happy.is_uncertain) == (Emotion.HAPPY, False)
    assert (sad.emotion, sad.is_uncertain) == (Emotion.SAD, False)
    assert doubtful.is_uncertain
    assert [happy.box, sad.box, doubtful.box] == boxes
    assert [happy.detector_score, sad.detector_score] == [0.9, None]


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), max_size=5),
    st.floats(0, 1, width=32),
)
def test_a_face_is_uncertain_exactly_under_the_threshold(
    pairs: list[tuple[float, float]], threshold: float
) -> None:
    rows = np.array([(a, b, 0) for a, b in pairs], np.float32).reshape(-1, 3)
    scores = score_faces(rows, [Box(0, 0, 48, 48)] * len(pairs), threshold)
    assert [s.is_uncertain for s in scores] == [max(pair) < threshold for pair in pairs]


# ---------------------------------------------------------------- the CNN that ships


def test_the_shipped_card_and_artefact_belong_together() -> None:
    card = load_artefact(SHIPPED).card
    assert isinstance(card, Card)
    assert card.artefact_bytes == SHIPPED.with_name(card.artefact).stat().st_size
    probabilities = loaded(SHIPPED).classify(noise(10))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
