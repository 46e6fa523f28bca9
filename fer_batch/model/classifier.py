"""The CNN: its card, its model version, and the probabilities that it computes for crops.

The CNN is an ONNX file, pinned by the SHA-256 in the card beside it and rejected before it is
opened if the hash does not match. probabilities.py turns its seven class probabilities (the
expressions of FER2013) into p_happy, p_sad and p_neither. The manifest holds everything that
decides a result, and its hash is the model version; both are known without loading the CNN. Which
crops exist is decided in imaging/faces.py, which CNN is used in active_model.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from fer_batch.concurrency import count_cpus
from fer_batch.errors import ModelError
from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.faces import (
    CROP_PX,
    CROPPING,
    DETECTION,
    YUNET_SHA256,
    DetectedFace,
    read_detector,
)
from fer_batch.model.confusion import Confusion, read_confusion
from fer_batch.model.fer2013 import CLASSES, HAPPY, SAD
from fer_batch.model.probabilities import (
    MAJORITY_RULE,
    ClassProbabilities,
    Probabilities,
    VoteCalibration,
    estimate_probabilities,
)
from fer_batch.phrases import describe_validation_error
from fer_batch.records import CallingRule, FaceScore
from fer_batch.resources import find_artifacts_dir
from fer_batch.settings import Settings

DEFAULT_CARD = "fer48.json"
"""File name of the shipped card."""

BATCH_SIZE = 32
"""Crops in one inference call: larger batches are not faster, and the size bounds memory."""

_RESTORE_HINT = "Restore the artifact and its card together, or name another card in FER_MODEL_CARD"


class _CardPart(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class CardInput(_CardPart):
    """The input of the CNN: uint8 crops; normalization is part of the graph."""

    name: Literal["crops"]
    dtype: Literal["uint8"]
    shape: tuple[Literal["N"], Literal[48], Literal[48]] = Field(strict=False)


class CardOutput(_CardPart):
    """The output of the CNN: one probability per class of FER2013, in the order of the data set."""

    name: Literal["probabilities"]
    classes: tuple[str, ...] = Field(strict=False)


class CardRule(_CardPart):
    """The calling rule: from which p_happy a face is called happy, from which p_sad sad."""

    happy_from: Annotated[float, Field(ge=0, le=1)]
    sad_from: Annotated[float, Field(ge=0, le=1)]


class Card(BaseModel):
    """The card of a CNN. Further keys (recipe, data, metrics, …) are informative only.

    The spelling of the keys is fixed: they are part of registered model versions. A CNN that was
    trained without the FER+ votes has no calibration, no calling rule and no confusion matrix by
    votes.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    format: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    artefact: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")]
    artefact_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    artefact_bytes: Annotated[int, Field(gt=0)]
    input: CardInput
    output: CardOutput
    vote_calibration: VoteCalibration | None = None
    calling_rule: CardRule | None = None
    confusions: dict[str, dict[str, dict[str, Confusion]]] | None = None
    """By split, kind of truth (`plurality`, `kaggle`) and size of the crops in pixels."""

    @property
    def rule(self) -> CallingRule:
        """The calling rule of the card, or `MAJORITY_RULE`."""
        if self.calling_rule is None:
            return MAJORITY_RULE
        return CallingRule(self.calling_rule.happy_from, self.calling_rule.sad_from)

    @property
    def confusion(self) -> npt.NDArray[np.float64] | None:
        """The matrix with which rates are corrected, see `read_confusion`."""
        return read_confusion({"confusions": self.confusions})

    @model_serializer(mode="wrap")
    def _omit_absent_keys(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The keys that the card was read with: a default is not written."""
        keys = self.model_fields_set
        return {key: value for key, value in serialize(self).items() if key in keys}


class Cnn(NamedTuple):
    """A CNN with a verified hash: its card, and its artifact as the bytes that were hashed."""

    card: Card
    artifact: bytes

    @property
    def cnn_sha256(self) -> str:
        """The identity of the CNN: the SHA-256 (64 hexadecimal digits) of its part of the
        manifest, which holds the artifact's hash, the calibration and the calling rule."""
        return hash_manifest(_build_cnn_part(self.card))


def find_shipped_card() -> Path:
    """Path of the card of the shipped CNN."""
    return find_artifacts_dir() / DEFAULT_CARD


def load_artifact(path: Path) -> Cnn:
    """Read a card and the artifact beside it, and verify the artifact's hash.

    The artifact is not opened as a model. Raises ModelError for a missing or invalid card and for
    a missing artifact or one with another hash.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the card {path} cannot be read: {error.strerror}", _RESTORE_HINT
        ) from error
    card = _parse_card(text, f"the card {path}")
    artifact = path.with_name(card.artefact)
    try:
        content = artifact.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the artifact {artifact} cannot be read: {error.strerror}", _RESTORE_HINT
        ) from error
    return _verify_hash(card, content, str(artifact), _RESTORE_HINT)


def parse_registered(card: Mapping[str, Any], artifact: bytes) -> Cnn:
    """Validate a card and an artifact read from the database. Raises as `load_artifact` does."""
    name = f"the registered CNN {card.get('name', 'without a name')}"
    parsed = _parse_card(json.dumps(dict(card)).encode(), f"the card of {name}")
    return _verify_hash(
        parsed,
        artifact,
        name,
        "Promote another CNN, and register this one again from its files",
    )


def _parse_card(text: bytes, name: str) -> Card:
    """Validate the JSON text of a card; `name` identifies it in errors."""
    try:
        card = Card.model_validate_json(text)
    except ValidationError as error:
        problems = describe_validation_error(error, "card")
        raise ModelError(f"{name} is invalid: {problems}", _RESTORE_HINT) from None
    if card.output.classes != CLASSES:
        raise ModelError(
            f"{name} names the classes {', '.join(card.output.classes)}, "
            f"expected {', '.join(CLASSES)}",
            "Use a CNN made by `fer-batch train`",
        )
    return card


def _verify_hash(card: Card, content: bytes, name: str, hint: str) -> Cnn:
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card.artefact_sha256:
        raise ModelError(
            f"{name} has SHA-256 {sha256}, its card states {card.artefact_sha256}; "
            "it was not opened",
            hint,
        )
    return Cnn(card, content)


# ---------------------------------------------------------------- model version


def build_manifest(card: Card, settings: Settings) -> dict[str, Any]:
    """Everything that decides a result, as JSON-compatible values. Loads no model.

    The keys and values decide the model version: any change to them rescores all images. Raises
    ModelError if the detector file of the settings cannot be read.
    """
    configured_detector = settings.detector_file
    return {
        "format": 1,
        "cnn": _build_cnn_part(card),
        "detector": {
            "sha256": read_detector(configured_detector)[1]
            if configured_detector
            else YUNET_SHA256,
            "min_face_px": settings.min_face_px,
            **DETECTION,
        },
        "cropping": CROPPING,
        "limits": {
            "max_image_bytes": settings.max_image_bytes,
            "max_image_pixels": settings.max_image_pixels,
            "min_image_px": settings.min_image_px,
        },
    }


def _build_cnn_part(card: Card) -> dict[str, Any]:
    calibration = card.vote_calibration
    return {
        "sha256": card.artefact_sha256,
        "emotion": "the larger of happy and sad",
        "probabilities": "happy, sad, sum of the others"
        if calibration is None
        else calibration.model_dump(mode="json"),
        "calling_rule": {"happy_from": card.rule.happy_from, "sad_from": card.rule.sad_from},
    }


def hash_manifest(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 (64 hexadecimal digits) of the manifest as canonical JSON: sorted keys, no
    whitespace, ASCII."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# ---------------------------------------------------------------- classification


@dataclass(frozen=True, slots=True)
class Scores:
    """The results for N crops, before they are combined with their faces."""

    probabilities: Probabilities
    """float32 [N,3]"""
    happy_margins: npt.NDArray[np.float32]
    """[N], -1 to 1: the CNN's own probability of happy minus that of sad."""


class Classifier:
    """A CNN, loaded into ONNX Runtime with `settings.threads` threads.

    `model_version`, `manifest` and `card` describe it; `rule` calls its faces. Raises ModelError as
    `open_artifact` and `build_manifest` do.
    """

    def __init__(self, settings: Settings, cnn: Cnn) -> None:
        self.card, artifact = cnn
        self.rule = self.card.rule
        self.manifest = build_manifest(self.card, settings)
        self.model_version = hash_manifest(self.manifest)
        self._classify = open_artifact(artifact, self.card.artefact, settings.threads)

    def classify(self, crops: Pixels) -> Scores:
        """Crops uint8 [N,48,48] to their scores; N may be 0.

        The other crops of the call change a probability by at most 1e-4. Raises ValueError for
        crops of another dtype or shape.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX):
            raise ValueError(f"crops must be uint8 N×48×48, not {crops.dtype} {crops.shape}")
        class_probabilities = self._classify(crops)
        return Scores(
            estimate_probabilities(class_probabilities, self.card.vote_calibration),
            class_probabilities[:, HAPPY] - class_probabilities[:, SAD],
        )


def score_faces(
    scores: Scores, faces: Sequence[DetectedFace], rule: CallingRule
) -> list[FaceScore]:
    """Combine the scores of N crops with their N faces, in order."""
    return [
        FaceScore(
            face.box,
            p_happy,
            p_sad,
            p_neither,
            margin,
            rule.call(p_happy, p_sad),
            face.detector_score,
        )
        for face, (p_happy, p_sad, p_neither), margin in zip(
            faces, scores.probabilities.tolist(), scores.happy_margins.tolist(), strict=True
        )
    ]


_TRIAL_CROPS = np.linspace(0, 255, 2 * CROP_PX**2).astype(np.uint8).reshape(2, CROP_PX, CROP_PX)


def open_artifact(
    content: bytes, name: str, threads: int
) -> Callable[[Pixels], ClassProbabilities]:
    """Load an artifact as a function: crops uint8 [N,48,48] to class probabilities float32 [N,7].

    `threads` 0 means one per core. Two trial crops are classified first. Raises ModelError if the
    artifact cannot be run, has another input, or returns no probabilities; `name` identifies it in
    the error.
    """
    import onnxruntime as ort  # the import takes a third of a second; only scoring needs it

    options = ort.SessionOptions()
    # Threads that share a batch synchronize at every layer; one batch per thread avoids that.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # External weights are not covered by the artifact's hash, so ONNX Runtime must not load any:
    # the folder from which it would load them contains no files.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", "/dev/null"
    )
    pool = ThreadPoolExecutor(threads or count_cpus(), thread_name_prefix="classify")
    hint = "Use a CNN made by `fer-batch train`"

    def classify_batch(crops: Pixels) -> ClassProbabilities:
        return np.asarray(session.run(["probabilities"], {"crops": crops})[0], np.float32)

    def classify(crops: Pixels) -> ClassProbabilities:
        batches = [crops[start : start + BATCH_SIZE] for start in range(0, len(crops), BATCH_SIZE)]
        if not batches:
            return np.empty((0, len(CLASSES)), np.float32)
        return np.concatenate(list(pool.map(classify_batch, batches)))

    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = [(i.name, i.type, *i.shape[1:]) for i in session.get_inputs()]
        if inputs != [("crops", "tensor(uint8)", CROP_PX, CROP_PX)]:
            raise ModelError(f"{name} takes {inputs}, expected uint8 crops of N×48×48", hint)
        trial = classify(_TRIAL_CROPS)
    except ModelError:
        raise
    except Exception as error:  # the exceptions of ONNX Runtime share no narrower base class
        raise ModelError(
            f"{name} cannot be run by ONNX Runtime {ort.__version__}: {type(error).__name__}", hint
        ) from error
    is_valid = trial.shape == (2, len(CLASSES)) and np.isfinite(trial).all() and trial.min() >= 0
    if not is_valid or np.abs(trial.sum(axis=1) - 1).max() > 1e-3:
        raise ModelError(f"{name} returns no probabilities of the seven expressions", hint)
    return classify
