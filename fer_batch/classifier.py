"""The CNN: its card, the version of the model that it makes, and probabilities for crops.

The CNN is an ONNX file, pinned by the SHA-256 in the card beside it and refused before it is
opened if that does not match. It knows the seven expressions of FER2013; here they become
p_happy, p_sad and p_neither. Everything that decides a result stands in the manifest, and the
manifest's hash names the model version; both are known without loading the CNN. Which crops
there are is decided in faces.py, which CNN is used in choice.py.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

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
"""The card that ships."""

BATCH = 32
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


class Cnn(NamedTuple):
    """A CNN that may be opened: its card, and its artefact as the very bytes that were hashed."""

    card: Card
    artefact: bytes

    @property
    def cnn_sha256(self) -> str:
        """What names it: the SHA-256 of its part of the manifest, and so of artefact and
        threshold. 64 hexadecimal digits."""
        return version_of(_part_of_cnn(self.card))


def shipped_card() -> Path:
    """The card of the CNN that ships."""
    return artefacts_dir() / DEFAULT_CARD


def load_artefact(path: Path) -> Cnn:
    """Read a card and the artefact beside it, checked by its hash and not opened as a model.

    Raises ModelError for a card that is missing or wrong and for another artefact than it names.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the card {path} cannot be read: {error.strerror}", _RESTORE) from error
    card = _read_card(text, f"the card {path}")
    artefact = path.with_name(card.artefact)
    try:
        content = artefact.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the artefact {artefact} cannot be read: {error.strerror}", _RESTORE
        ) from error
    return _checked(card, content, str(artefact), _RESTORE)


def from_table(card: Mapping[str, Any], artefact: bytes) -> Cnn:
    """A card and an artefact as the database gives them. Raises as `load_artefact` does."""
    name = f"the registered CNN {card.get('name', 'without a name')}"
    found = _read_card(json.dumps(dict(card)).encode(), f"the card of {name}")
    return _checked(found, artefact, name, "Promote another, and register this one from its files")


def _read_card(text: bytes, what: str) -> Card:
    try:
        card = Card.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'card'}: {e['msg']}"
            for e in error.errors()
        )
        raise ModelError(f"{what} is wrong: {wrong}", _RESTORE) from None
    if card.output.classes != CLASSES:
        raise ModelError(
            f"{what} names the classes {', '.join(card.output.classes)}, "
            f"expected {', '.join(CLASSES)}",
            "Use a CNN made by `fer-batch train`",
        )
    return card


def _checked(card: Card, content: bytes, what: str, todo: str) -> Cnn:
    found = hashlib.sha256(content).hexdigest()
    if found != card.artefact_sha256:
        raise ModelError(
            f"{what} has SHA-256 {found}, its card says {card.artefact_sha256}; it was not opened",
            todo,
        )
    return Cnn(card, content)


# ---------------------------------------------------------------- model version


def manifest_of(card: Card, settings: Settings) -> dict[str, Any]:
    """Everything that decides a result, as plain JSON. Loads no model.

    Raises ModelError if the detector that a setting names cannot be read.
    """
    own_detector = settings.detector_file
    return {
        "format": 1,
        "cnn": _part_of_cnn(card),
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


def _part_of_cnn(card: Card) -> dict[str, Any]:
    return {
        "sha256": card.artefact_sha256,
        "p_happy": "happy",
        "p_sad": "sad",
        "p_neither": "sum of the others",
        "uncertain_below": card.uncertain_below,
    }


def version_of(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 (64 hexadecimal digits) of the manifest as canonical JSON: sorted keys, no
    blanks, ASCII."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# ---------------------------------------------------------------- classification


class Classifier:
    """A CNN, loaded into ONNX Runtime with `settings.threads` threads.

    `model_version` and `manifest` say what it is, `card` where it comes from. Raises ModelError
    for an artefact that does not do what every card promises.
    """

    def __init__(self, settings: Settings, cnn: Cnn) -> None:
        self.card, artefact = cnn
        self.manifest = manifest_of(self.card, settings)
        self.model_version = version_of(self.manifest)
        self._network = open_artefact(artefact, self.card.artefact, settings.threads)

    def classify(self, crops: Pixels) -> Probabilities:
        """Crops uint8 N×48×48 to probabilities float32 N×3; neither the number of crops nor
        their company changes a probability by more than 1e-4. N may be 0."""
        if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX):
            raise ValueError(f"crops must be uint8 N×48×48, not {crops.dtype} {crops.shape}")
        return three_of(self._network(crops))

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
    is_uncertain = ~is_certain(probabilities, uncertain_below)
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


def is_certain(probabilities: Probabilities, uncertain_below: float) -> npt.NDArray[np.bool_]:
    """[N]: the larger of p_happy and p_sad reaches the threshold."""
    larger = probabilities[:, :2].max(axis=1)
    certain: npt.NDArray[np.bool_] = larger >= np.float32(uncertain_below)
    return certain


def three_of(seven: npt.NDArray[np.float32]) -> Probabilities:
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
    # Threads that share a batch wait for each other at every layer; with a batch each they do not.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Weights beside the artefact are in no hash: where ONNX Runtime may look for them is nothing.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", "/dev/null"
    )
    pool = ThreadPoolExecutor(threads or os.cpu_count(), thread_name_prefix="classify")
    todo = "Use a CNN made by `fer-batch train`"

    def batch(crops: Pixels) -> npt.NDArray[np.float32]:
        return np.asarray(session.run(["probabilities"], {"crops": crops})[0], np.float32)

    def network(crops: Pixels) -> npt.NDArray[np.float32]:
        batches = [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]
        if not batches:
            return np.empty((0, len(CLASSES)), np.float32)
        return np.concatenate(list(pool.map(batch, batches)))

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
