"""The CNN: its card, the version of the model that it makes, and probabilities for crops.

The CNN is an ONNX file, pinned by the SHA-256 in the card beside it and refused before it is
opened if that does not match. It knows the seven expressions of FER2013; here they become
p_happy, p_sad and p_neither. Everything that decides a result stands in the manifest, and the
manifest's hash names the model version; both are known without loading the CNN. Which crops
there are is decided in faces.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_batch.errors import ModelError
from fer_batch.faces import CROP_PX, CROPPING, DETECTION, YUNET_SHA256, read_detector
from fer_batch.fer2013 import CLASSES, HAPPY, SAD
from fer_batch.images import Pixels
from fer_batch.records import Box, FaceScore
from fer_batch.resources import artefacts_dir
from fer_batch.settings import Settings

DEFAULT_CARD = "fer48.json"
"""The card that is used where no setting names another."""

BATCH = 64
"""Crops that go through the CNN at once: as fast as any larger number, and a bound on memory."""

Probabilities = npt.NDArray[np.float32]
"""N×3: p_happy, p_sad, p_neither. Rows sum to 1."""

_RESTORE = "Restore the artefact and its card together, or name another card in FER_MODEL_CARD"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class CardInput(_Part):
    """What the CNN takes: uint8 crops; normalising them is part of the graph."""

    name: Literal["crops"]
    dtype: Literal["uint8"]
    shape: tuple[Literal["N"], Literal[48], Literal[48]] = Field(strict=False)


class CardOutput(_Part):
    """What the CNN gives: one probability for each class of FER2013, in its order."""

    name: Literal["probabilities"]
    classes: tuple[str, ...] = Field(strict=False)


class Card(BaseModel):
    """The card of a CNN. Further keys (recipe, data, metrics, …) inform and decide nothing."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    format: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    artefact: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")]
    artefact_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    artefact_bytes: Annotated[int, Field(gt=0)]
    input: CardInput
    output: CardOutput
    uncertain_below: Annotated[float, Field(ge=0, le=1)]


def card_in_use(settings: Settings) -> Path:
    """The card that the setting names, else the one that ships."""
    return settings.model_card or artefacts_dir() / DEFAULT_CARD


def load_card(path: Path) -> Card:
    """Read a card and check the artefact beside it by its hash, without opening it as a model.

    Raises ModelError for a card that is missing or wrong and for another artefact than it names.
    """
    return load_artefact(path)[0]


def load_artefact(path: Path) -> tuple[Card, bytes]:
    """The card, and its artefact as the very bytes that were hashed. Raises as `load_card` does."""
    try:
        card = Card.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"the card {path} cannot be read: {error.strerror}", _RESTORE) from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'card'}: {e['msg']}"
            for e in error.errors()
        )
        raise ModelError(f"the card {path} is wrong: {wrong}", _RESTORE) from None
    if card.output.classes != CLASSES:
        raise ModelError(
            f"the card {path} names the classes {', '.join(card.output.classes)}, "
            f"expected {', '.join(CLASSES)}",
            "Use a CNN made by `fer-batch train`",
        )
    artefact = path.with_name(card.artefact)
    try:
        content = artefact.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the artefact {artefact} cannot be read: {error.strerror}", _RESTORE
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != card.artefact_sha256:
        raise ModelError(
            f"{artefact} has SHA-256 {found}, its card says {card.artefact_sha256}; "
            "it was not opened",
            _RESTORE,
        )
    return card, content


# ---------------------------------------------------------------- model version


def manifest_of(card: Card, settings: Settings) -> dict[str, Any]:
    """Everything that decides a result, as plain JSON. Loads no model.

    Raises ModelError if the detector that a setting names cannot be read.
    """
    own_detector = settings.detector_file
    return {
        "format": 1,
        "cnn": {
            "sha256": card.artefact_sha256,
            "p_happy": "happy",
            "p_sad": "sad",
            "p_neither": "sum of the others",
            "uncertain_below": card.uncertain_below,
        },
        "detector": {
            "sha256": read_detector(own_detector)[1] if own_detector else YUNET_SHA256,
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


def version_of(manifest: dict[str, Any]) -> str:
    """The SHA-256 (64 hexadecimal digits) of the manifest as canonical JSON: sorted keys, no
    blanks, ASCII."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def version_in_use(settings: Settings) -> str:
    """The model version of these settings. Raises ModelError as `load_card` does."""
    return version_of(manifest_of(load_card(card_in_use(settings)), settings))


# ---------------------------------------------------------------- classification


class Classifier:
    """The CNN of these settings, loaded into ONNX Runtime with `settings.threads` threads.

    `model_version` and `manifest` say what it is, `card` where it comes from. Raises ModelError
    for a card or artefact that does not fit.
    """

    def __init__(self, settings: Settings) -> None:
        path = card_in_use(settings)
        self.card, artefact = load_artefact(path)
        self.manifest = manifest_of(self.card, settings)
        self.model_version = version_of(self.manifest)
        self._network = open_artefact(artefact, self.card.artefact, settings.threads)

    def classify(self, crops: Pixels) -> Probabilities:
        """Crops uint8 N×48×48 to probabilities float32 N×3; neither the number of crops nor
        their company changes a probability by more than 1e-4. N may be 0."""
        if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX):
            raise ValueError(f"crops must be uint8 N×48×48, not {crops.dtype} {crops.shape}")
        return _three_of(self._network(crops))

    def score_faces(
        self,
        crops: Pixels,
        boxes: Sequence[Box],
        detector_scores: Sequence[float | None] | None = None,
    ) -> list[FaceScore]:
        """Crops uint8 N×48×48 with their N boxes to N scores, in order."""
        return score_faces(self.classify(crops), boxes, self.card.uncertain_below, detector_scores)


def score_faces(
    probabilities: Probabilities,
    boxes: Sequence[Box],
    uncertain_below: float,
    detector_scores: Sequence[float | None] | None = None,
) -> list[FaceScore]:
    """Rows of probabilities as faces: uncertain where the larger of p_happy and p_sad is under
    the threshold."""
    is_uncertain = probabilities[:, :2].max(axis=1) < np.float32(uncertain_below)
    return [
        FaceScore(box, p_happy, p_sad, p_neither, uncertain, detector_score)
        for box, (p_happy, p_sad, p_neither), uncertain, detector_score in zip(
            boxes,
            probabilities.tolist(),
            is_uncertain.tolist(),
            detector_scores if detector_scores is not None else [None] * len(boxes),
            strict=True,
        )
    ]


def _three_of(seven: npt.NDArray[np.float32]) -> Probabilities:
    """p_happy, p_sad and the sum of the other five, each within 0 and 1."""
    happy, sad = seven[:, HAPPY], seven[:, SAD]
    neither = seven.sum(axis=1) - happy - sad
    three: Probabilities = np.stack([happy, sad, neither], axis=1)
    return three.clip(0, 1)


_TRIAL = np.linspace(0, 255, 2 * CROP_PX**2).astype(np.uint8).reshape(2, CROP_PX, CROP_PX)


def open_artefact(
    content: bytes, name: str, threads: int
) -> Callable[[Pixels], npt.NDArray[np.float32]]:
    """An artefact as a function: crops uint8 N×48×48 to the seven probabilities float32 N×7.

    It is tried first. Raises ModelError unless it does what every card promises; `name` is what
    the error calls it.
    """
    import onnxruntime as ort  # takes a third of a second: only who scores pays for it

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads sleep: the cores are wanted by the decoding threads in the meantime.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    todo = "Use a CNN made by `fer-batch train`"

    def network(crops: Pixels) -> npt.NDArray[np.float32]:
        parts = [
            np.asarray(
                session.run(["probabilities"], {"crops": crops[start : start + BATCH]})[0],
                np.float32,
            )
            for start in range(0, len(crops), BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(CLASSES)), np.float32)

    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = [(i.name, i.type, *i.shape[1:]) for i in session.get_inputs()]
        if inputs != [("crops", "tensor(uint8)", CROP_PX, CROP_PX)]:
            raise ModelError(f"{name} takes {inputs}, expected uint8 crops of N×48×48", todo)
        trial = network(_TRIAL)
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's own errors share no better base
        raise ModelError(
            f"{name} cannot be run by ONNX Runtime {ort.__version__}: {type(error).__name__}", todo
        ) from error
    is_right = trial.shape == (2, len(CLASSES)) and np.isfinite(trial).all() and trial.min() >= 0
    if not is_right or np.abs(trial.sum(axis=1) - 1).max() > 1e-3:
        raise ModelError(f"{name} gives no probabilities of the seven expressions", todo)
    return network
