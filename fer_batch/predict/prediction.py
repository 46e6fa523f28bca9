"""Predictions for single images: a file, a folder, an http(s) URL, an object in S3.

The same steps as in a nightly run, from bytes to probabilities, but nothing is written to tables.
What may be read in S3 is decided in objects.py.
An image is treated as a frame in which faces are detected, or, if requested, as a crop: the whole
image is the face. Formatting as text and JSON is done here as well; printing is left to the
command, marking faces in an image to annotation.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_batch.errors import ConfigurationError
from fer_batch.imaging.decoding import ImageLimits, check_bytes
from fer_batch.imaging.faces import ExtractedFaces, ImageKind
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.model import active_model
from fer_batch.model.classifier import Classifier, score_faces
from fer_batch.phrases import format_count
from fer_batch.predict import downloads, objects
from fer_batch.predict.names import escape_text, replace_surrogates
from fer_batch.records import (
    CalledClass,
    FetchedImage,
    Image,
    ImageScore,
    Outcome,
)
from fer_batch.settings import Settings

DOWNLOAD_TIMEOUT_S = 30.0
CROP_LIKE_PX = 100
"""An image whose sides have at most this and in which no face is detected is treated as a crop."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The score of one image. The key of `score.image` is the source.

    `kind` is how the image was treated, None where it was not decoded; `note` explains a difference
    from what was requested, and is empty otherwise.
    """

    score: ImageScore
    kind: ImageKind | None = None
    note: str = ""

    @property
    def probabilities(self) -> tuple[float, float, float] | None:
        """p_happy, p_sad and p_neither of the image: the means over its faces."""
        if not self.score.faces:
            return None
        rows = np.array([(f.p_happy, f.p_sad, f.p_neither) for f in self.score.faces])
        p_happy, p_sad, p_neither = rows.mean(axis=0).tolist()
        return p_happy, p_sad, p_neither


# ---------------------------------------------------------------- sources


def read_images(
    source: str, settings: Settings, *, is_private_allowed: bool = False
) -> Iterator[FetchedImage | ImageScore]:
    """The images of a source: a file; the files of a folder and its subfolders, ordered by name;
    an http(s) URL; `s3://bucket/key`, or all keys under `s3://bucket/prefix/`.

    Raises ConfigurationError for a source that does not exist or is not supported, PermanentError
    where a registered facility does not permit to read it (see objects.py), and the errors of S3
    and the database. A single file or response that fails is a score with an outcome.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)
    if scheme is None:
        return _read_files(Path(source), ImageLimits.from_settings(settings))
    kind = scheme[1].lower()
    if kind == "s3":
        return objects.read_objects(source, settings)
    if kind in ("http", "https"):
        objects.check_url(source, settings)
        return _download(source, settings, is_private_allowed)
    raise ConfigurationError(
        f"{kind}:// is not supported as a source of images",
        "Give a file, a folder, an http(s) URL or s3://bucket/key",
    )


def _make_image(source: str, size_bytes: int = 0) -> Image:
    return Image(objects.NO_BATCH, source, "", size_bytes)


def _read_files(path: Path, limits: ImageLimits) -> Iterator[FetchedImage | ImageScore]:
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        )
        if not files:
            raise ConfigurationError(
                f"there is no file in the folder {escape_text(str(path))}", "Check the path"
            )
    elif path.is_file():
        files = [path]
    else:
        raise ConfigurationError(
            f"there is no file or folder {escape_text(str(path))}", "Check the path"
        )
    return (_read_file(file, limits) for file in files)


def _read_file(path: Path, limits: ImageLimits) -> FetchedImage | ImageScore:
    try:
        size_bytes = path.stat().st_size
        check_bytes(size_bytes, limits)
        return FetchedImage(_make_image(str(path), size_bytes), path.read_bytes())
    except UndecodableImageError as error:
        return ImageScore(_make_image(str(path)), error.outcome, error.reason)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return ImageScore(_make_image(str(path)), Outcome.FETCH_FAILED, reason)


def _download(
    url: str, settings: Settings, is_private_allowed: bool
) -> Iterator[FetchedImage | ImageScore]:
    try:
        data = downloads.download(
            url,
            max_bytes=settings.max_image_bytes,
            timeout_s=DOWNLOAD_TIMEOUT_S,
            is_allowed=(lambda _: True) if is_private_allowed else downloads.is_public,
        )
    except UndecodableImageError as error:
        yield ImageScore(_make_image(url), error.outcome, error.reason)
    else:
        yield FetchedImage(_make_image(url, len(data)), data)


# ---------------------------------------------------------------- predicting


class Predictor:
    """The active CNN, which gets what `decoders` return. Raises ModelError if it is invalid."""

    def __init__(self, settings: Settings, decoders: Decoders, *, is_crop: bool = False) -> None:
        self._classifier = Classifier(settings, active_model.load_active(settings).cnn)
        self._decoders = decoders
        self._kind: ImageKind = "crops" if is_crop else "frames"

    def predict(self, fetched: FetchedImage | ImageScore) -> Prediction:
        """Score an image; one that could not be fetched or decoded keeps its outcome."""
        if isinstance(fetched, ImageScore):
            return Prediction(fetched)
        extracted, kind, note = self._extract(fetched)
        if isinstance(extracted, ImageScore):
            return Prediction(extracted)
        faces = score_faces(
            self._classifier.classify(extracted.crops),
            extracted.faces,
            self._classifier.rule,
        )
        score = ImageScore.from_faces(
            extracted.image,
            extracted.width_px,
            extracted.height_px,
            tuple(faces),
            self._classifier.rule,
        )
        return Prediction(score, kind, note)

    def _extract(self, fetched: FetchedImage) -> tuple[ExtractedFaces | ImageScore, ImageKind, str]:
        """The image's crops, how it was treated, and a note if that differs from the request."""
        (extracted,) = self._decoders.extract([fetched], self._kind)
        if (
            isinstance(extracted, ImageScore)
            or extracted.faces
            or max(extracted.width_px, extracted.height_px) > CROP_LIKE_PX
        ):
            return extracted, self._kind, ""
        (as_crop,) = self._decoders.extract([fetched], "crops")
        note = f"no face was found; at most {CROP_LIKE_PX} px, so the whole image is the face"
        return as_crop, "crops", note


# ---------------------------------------------------------------- formatting


def format_text(prediction: Prediction) -> str:
    """Format for people: probabilities, emotion, and a line for each face if there are several."""
    score = prediction.score
    source = escape_text(score.image.key)
    means = prediction.probabilities
    if means is None or score.emotion is None:
        return f"{source}: not scored, {score.outcome}: {score.reason}"
    count = len(score.faces)
    treated = "as a crop" if prediction.kind == "crops" else format_count(count, "face")
    lines = [f"{source}: {score.width_px}×{score.height_px} pixels, {treated}"]
    if prediction.note:
        lines.append(f"({prediction.note})")
    lines += [
        f"Prediction: {_format_probabilities(*means)}",
        f"Image Emotion is: {score.emotion}{_format_neither(score.called_class)}",
    ]
    if count > 1:
        lines += [
            f"  face {number} at ({face.box.x}, {face.box.y}), {face.box.width}×{face.box.height}: "
            f"{face.emotion}{_format_neither(face.called_class)}, "
            f"{_format_probabilities(face.p_happy, face.p_sad, face.p_neither)}"
            for number, face in enumerate(score.faces, start=1)
        ]
    return "\n".join(lines)


def to_json(prediction: Prediction, annotated: Path | None = None) -> dict[str, Any]:
    """Format for scripts: plain values, null where the image was not scored.

    `annotated` is the file of the annotated image, if there is one.
    """
    score = prediction.score
    means = prediction.probabilities
    return {
        "source": replace_surrogates(score.image.key),
        "outcome": score.outcome.value,
        "reason": score.reason,
        "taken_as": prediction.kind,
        "note": prediction.note,
        "width_px": score.width_px,
        "height_px": score.height_px,
        "p_happy": means and means[0],
        "p_sad": means and means[1],
        "p_neither": means and means[2],
        "emotion": score.emotion,
        "called_class": score.called_class,
        "faces": [asdict(face) | {"emotion": face.emotion.value} for face in score.faces],
        "annotated": annotated and replace_surrogates(str(annotated)),
    }


def _format_probabilities(p_happy: float, p_sad: float, p_neither: float) -> str:
    return f"p_happy {p_happy:.3f}, p_sad {p_sad:.3f}, p_neither {p_neither:.3f}"


def _format_neither(called_class: CalledClass | None) -> str:
    """Marks a forced choice between Happy and Sad for what people would call neither."""
    return " (looks neither)" if called_class is CalledClass.NEITHER else ""
