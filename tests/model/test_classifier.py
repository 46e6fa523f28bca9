"""The classifier: rejected cards and artifacts, the model version, and probabilities of crops."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
    Scores,
    build_manifest,
    find_shipped_card,
    hash_manifest,
    load_artifact,
    open_artifact,
    parse_registered,
    score_faces,
)
from fer_batch.records import Box, CalledClass, CallingRule, Emotion
from fer_batch.settings import Settings
from tests.support.models import (
    CONFUSION,
    VOTE_CALIBRATION,
    build_tiny_onnx,
    write_tiny_cnn,
)

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
        ({"calling_rule": {"happy_from": 0.5}}, "calling_rule.sad_from"),
        ({"calling_rule": {"happy_from": 1.5, "sad_from": 0.4}}, "calling_rule.happy_from"),
        ({"calling_rule": {"happy_from": "0.5", "sad_from": 0.4}}, "calling_rule.happy_from"),
        ({"vote_calibration": VOTE_CALIBRATION | {"intercepts": [1.0]}}, "intercepts"),
        ({"vote_calibration": VOTE_CALIBRATION | {"weights": [[1.0] * 6] * 2}}, "weights"),
        ({"vote_calibration": VOTE_CALIBRATION | {"intercepts": [math.inf, 0]}}, "intercepts"),
        ({"vote_calibration": VOTE_CALIBRATION | {"features": "p"}}, "features"),
        ({"confusions": {"PublicTest": {"plurality": {"48": [[1, 2], [3, 4]]}}}}, "48"),
        ({"confusions": {"PublicTest": {"plurality": {"48": [[1, 2, -3]] * 3}}}}, "48"),
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


def test_a_card_without_a_calibration_has_the_majority_rule(tmp_path: Path) -> None:
    """So has the card of an earlier version, whose `uncertain_below` is an additional key."""
    path = write_tiny_cnn(tmp_path, confusions=None, uncertain_below=0.46)
    card = load_artifact(path).card
    assert (card.vote_calibration, card.rule) == (None, CallingRule(0.5, 0.5))
    assert card.confusion is None
    assert card.model_dump(mode="json") == json.loads(path.read_text())


@pytest.mark.parametrize("is_registered", [False, True])
def test_the_keys_of_a_card_are_read_and_written_unchanged(
    tmp_path: Path, is_registered: bool
) -> None:
    rule = {"happy_from": 0.5, "sad_from": 0.38}
    path = write_tiny_cnn(tmp_path, vote_calibration=VOTE_CALIBRATION, calling_rule=rule)
    cnn = load_artifact(path)
    if is_registered:  # the card comes from a JSON column, with lists
        cnn = parse_registered(cnn.card.model_dump(mode="json"), cnn.artifact)
        assert Card.model_validate(cnn.card.model_dump(mode="json")) == cnn.card
    assert cnn.card.rule == CallingRule(0.5, 0.38)
    assert cnn.card.confusion is not None
    assert cnn.card.confusion.tolist() == CONFUSION
    written = cnn.card.model_dump(mode="json")
    assert written.pop("vote_calibration").items() >= VOTE_CALIBRATION.items()
    assert json.loads(path.read_text()).items() >= written.items()


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
        )
    ]
    other_cnns: tuple[tuple[bytes | None, dict[str, Any]], ...] = (
        (build_tiny_onnx() + b"\x3a\0", {}),
        (None, {"calling_rule": {"happy_from": 0.51, "sad_from": 0.5}}),
        (None, {"calling_rule": {"happy_from": 0.5, "sad_from": 0.38}}),
        (None, {"vote_calibration": VOTE_CALIBRATION}),
        (None, {"vote_calibration": VOTE_CALIBRATION | {"intercepts": [0.5, -0.4999]}}),
    )
    versions += [
        load_active_version(build_settings(write_tiny_cnn(other_dir, content, **changes)))
        for content, changes in other_cnns
    ]
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
        load_active_version(
            build_settings(write_tiny_cnn(renamed, name="other", metrics={}, confusions=None))
        )
        == first
    )
    as_default = {"happy_from": 0.5, "sad_from": 0.5}
    assert (
        load_active_version(build_settings(write_tiny_cnn(renamed, calling_rule=as_default)))
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
    scores = load_classifier(tiny).classify(crops)
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
    assert scores.probabilities.dtype == scores.happy_margins.dtype == np.dtype(np.float32)
    assert np.abs(scores.probabilities - expected).max() < 1e-5
    assert np.abs(scores.happy_margins - (expected[:, 0] - expected[:, 1])).max() < 1e-5


def test_a_calibration_changes_the_probabilities_and_not_the_emotion(tmp_path: Path) -> None:
    """The CNN finds this gray face more Sad than Happy; the calibration to votes does not."""
    crops = np.full((1, 48, 48), 124, np.uint8)
    ((plain,), (calibrated,)) = (
        score_faces(cnn.classify(crops), [DetectedFace(Box(0, 0, 48, 48))], cnn.rule)
        for cnn in (
            load_classifier(write_tiny_cnn(tmp_path)),
            load_classifier(write_tiny_cnn(tmp_path, vote_calibration=VOTE_CALIBRATION)),
        )
    )
    assert plain.p_sad > plain.p_happy
    assert calibrated.p_happy > calibrated.p_sad
    assert calibrated.called_class is CalledClass.HAPPY
    assert plain.emotion is calibrated.emotion is Emotion.SAD
    assert plain.happy_margin == calibrated.happy_margin == plain.p_happy - plain.p_sad


@pytest.mark.parametrize(
    "count", [0, 1, 2, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 3 * BATCH_SIZE + 7]
)
def test_any_number_of_crops_is_classified(tiny: Path, count: int) -> None:
    scores = load_classifier(tiny).classify(generate_noise(count))
    probabilities = scores.probabilities
    assert (probabilities.shape, scores.happy_margins.shape) == ((count, 3), (count,))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@pytest.mark.parametrize("card", ["tiny", "shipped"])
def test_batch_composition_and_order_do_not_change_a_probability(tmp_path: Path, card: str) -> None:
    classifier = load_classifier(write_tiny_cnn(tmp_path) if card == "tiny" else SHIPPED)
    crops = generate_noise(BATCH_SIZE + 30)
    crops[::3] //= 9  # some dark, some bright: the scale must not depend on the batch

    def classify(crops: Pixels) -> npt.NDArray[np.float32]:
        scores = classifier.classify(crops)
        return np.column_stack([scores.probabilities, scores.happy_margins])

    together = classify(crops)
    alone = np.concatenate([classify(crops[i : i + 1]) for i in range(len(crops))])
    reversed_back = classify(np.ascontiguousarray(crops[::-1]))[::-1]
    assert np.abs(together - alone).max() <= 1e-4
    assert np.abs(together - reversed_back).max() <= 1e-4


@pytest.mark.parametrize(
    "crops", [np.zeros((1, 48, 48)), np.zeros((1, 64, 64), np.uint8), np.zeros((48, 48), np.uint8)]
)
def test_crops_of_another_shape_or_dtype_are_rejected(tiny: Path, crops: Any) -> None:
    with pytest.raises(ValueError, match="N×48×48"):
        load_classifier(tiny).classify(crops)


def test_scores_have_box_emotion_called_class_and_detector_score(tiny: Path) -> None:
    boxes = [Box(1, 2, 3, 4), Box(5, 6, 7, 8), Box(9, 10, 11, 12)]
    crops = np.stack([np.full((48, 48), gray, np.uint8) for gray in (250, 5, 127)])
    faces = [DetectedFace(*pair) for pair in zip(boxes, [0.9, None, 0.8], strict=True)]
    cnn = load_classifier(tiny)
    happy, sad, gray = score_faces(cnn.classify(crops), faces, cnn.rule)
    assert (happy.emotion, happy.called_class) == (Emotion.HAPPY, CalledClass.HAPPY)
    assert (sad.emotion, sad.called_class) == (Emotion.SAD, CalledClass.SAD)
    assert (gray.emotion, gray.called_class) == (Emotion.SAD, CalledClass.NEITHER)
    assert [happy.box, sad.box, gray.box] == boxes
    assert [happy.detector_score, sad.detector_score] == [0.9, None]


SHARE = st.floats(0, 1, width=32)


@given(
    rows=st.lists(st.tuples(SHARE, SHARE, st.floats(-1, 1, width=32)), max_size=5),
    happy_from=SHARE,
    sad_from=SHARE,
)
def test_the_called_class_of_a_face_follows_the_rule(
    rows: list[tuple[float, float, float]], happy_from: float, sad_from: float
) -> None:
    table = np.array(rows, np.float32).reshape(-1, 3)
    scores = Scores(np.column_stack([table[:, :2], 1 - table[:, :2].sum(axis=1)]), table[:, 2])
    faces = [DetectedFace(Box(0, 0, 48, 48))] * len(rows)
    scored = score_faces(scores, faces, CallingRule(happy_from, sad_from))
    for (p_happy, p_sad, margin), face in zip(rows, scored, strict=True):
        assert (face.called_class is CalledClass.HAPPY) == (p_happy >= happy_from)
        assert (face.called_class is CalledClass.SAD) == (
            p_happy < happy_from and p_sad >= sad_from
        )
        assert face.emotion is (Emotion.HAPPY if margin >= 0 else Emotion.SAD)


# ---------------------------------------------------------------- the shipped CNN


def test_the_shipped_card_and_artifact_match() -> None:
    card = load_artifact(SHIPPED).card
    assert isinstance(card, Card)
    assert card.artefact_bytes == SHIPPED.with_name(card.artefact).stat().st_size
    probabilities = load_classifier(SHIPPED).classify(generate_noise(10)).probabilities
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
