"""Predictions for single pictures: a file, a folder, an http(s) address, an object in S3.

The same steps as at night, from bytes to probabilities, but nothing is written anywhere. A
picture is taken as a frame and its faces are found; or, where that is asked for, the whole
picture is the face. What a person or a script reads of it is made here as well; printing it is
left to the command, marking faces in a picture to annotation.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from fer_batch import choice, downloads
from fer_batch.classifier import Classifier
from fer_batch.errors import ConfigurationError
from fer_batch.faces import FaceFinder, ImageKind, Prepared, prepare
from fer_batch.images import (
    Limits,
    UndecodableImageError,
    check_bytes,
    quiet_decoders,
)
from fer_batch.records import Batch, Emotion, FaceScore, Image, Outcome
from fer_batch.settings import Settings

DOWNLOAD_TIMEOUT_S = 30.0
CROP_LIKE_PX = 100
"""A picture no larger than this in which no face is found is taken as a crop."""
_AT_ONCE = 16
"""Objects fetched, and held in memory, at once."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of one source, or the outcome that stands in their place and why."""

    source: str
    data: bytes = b""
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one picture. `kind` is how it was taken: its faces found, or as a crop."""

    source: str
    outcome: Outcome
    reason: str = ""
    kind: ImageKind | None = None
    note: str = ""
    width_px: int | None = None
    height_px: int | None = None
    faces: tuple[FaceScore, ...] = ()

    @property
    def probabilities(self) -> tuple[float, float, float] | None:
        """p_happy, p_sad and p_neither of the image: the means over its faces."""
        if not self.faces:
            return None
        rows = np.array([(f.p_happy, f.p_sad, f.p_neither) for f in self.faces])
        p_happy, p_sad, p_neither = rows.mean(axis=0).tolist()
        return p_happy, p_sad, p_neither

    @property
    def emotion(self) -> Emotion | None:
        """The larger of the image's p_happy and p_sad."""
        if (means := self.probabilities) is None:
            return None
        return Emotion.HAPPY if means[0] >= means[1] else Emotion.SAD

    @property
    def is_uncertain(self) -> bool:
        """Whether every face of the image is uncertain."""
        return all(face.is_uncertain for face in self.faces)


# ---------------------------------------------------------------- sources


def pictures(
    source: str, settings: Settings, *, is_private_allowed: bool = False
) -> Iterator[Picture]:
    """The pictures of a source: a file; the files of a folder, with those of its subfolders, by
    name; an http(s) address; `s3://bucket/key`, or all keys under `s3://bucket/prefix/`.

    Raises ConfigurationError for a source that does not exist or is of no such kind, and what
    S3 raises. A single file or answer that fails is a picture with an outcome.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)
    if scheme is None:
        return _files(Path(source), Limits.of(settings))
    kind = scheme[1].lower()
    if kind == "s3":
        return _objects(source, settings)
    if kind in ("http", "https"):
        return _download(source, settings, is_private_allowed)
    raise ConfigurationError(
        f"{kind}:// is no source of pictures",
        "Give a file, a folder, an http(s) address or s3://bucket/key",
    )


def is_of_several(source: str) -> bool:
    """Whether a source may hold several pictures: a folder, or a prefix of keys."""
    if source.lower().startswith("s3://"):
        _, _, key = source[len("s3://") :].partition("/")
        return not key or key.endswith("/")
    return "://" not in source and Path(source).is_dir()


def _files(path: Path, limits: Limits) -> Iterator[Picture]:
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        )
        if not found:
            raise ConfigurationError(
                f"there is no file in the folder {printable(str(path))}", "Check the path"
            )
    elif path.is_file():
        found = [path]
    else:
        raise ConfigurationError(
            f"there is no file or folder {printable(str(path))}", "Check the path"
        )
    return (_file(file, limits) for file in found)


def _file(path: Path, limits: Limits) -> Picture:
    try:
        check_bytes(path.stat().st_size, limits)
        return Picture(str(path), path.read_bytes())
    except UndecodableImageError as error:
        return Picture(str(path), outcome=error.outcome, reason=error.reason)
    except OSError as error:
        return Picture(
            str(path), outcome=Outcome.FETCH_FAILED, reason=error.strerror or type(error).__name__
        )


def _download(url: str, settings: Settings, is_private_allowed: bool) -> Iterator[Picture]:
    try:
        data = downloads.download(
            url,
            max_bytes=settings.max_image_bytes,
            timeout_s=DOWNLOAD_TIMEOUT_S,
            is_allowed=(lambda _: True) if is_private_allowed else downloads.is_public,
        )
    except UndecodableImageError as error:
        yield Picture(url, outcome=error.outcome, reason=error.reason)
    else:
        yield Picture(url, data)


def _objects(source: str, settings: Settings) -> Iterator[Picture]:
    from fer_batch.storage import BucketReader  # boto3 and obstore: only where S3 is read

    bucket, _, key = source[len("s3://") :].partition("/")
    if not bucket:
        raise ConfigurationError(f"{printable(source)} names no bucket", "Give s3://bucket/key")
    is_folder = is_of_several(source)
    batch = Batch("", date.min)  # the reader wants one; these belong to no facility
    with BucketReader(settings, bucket=bucket) as reader:
        images = sorted(
            (
                Image(batch, found.key, found.etag, found.size_bytes)
                for found in reader.list(key)
                if (is_folder or found.key == key) and not found.is_folder_marker
            ),
            key=lambda image: image.key.encode(),
        )
        if not images:
            raise ConfigurationError(
                f"there is no object {printable(source)}",
                "Check bucket and key; a prefix ends with /",
            )
        for start in range(0, len(images), _AT_ONCE):
            fetched = reader.fetch_many(images[start : start + _AT_ONCE])
            for answer in sorted(fetched, key=lambda f: f.image.key.encode()):
                name = f"s3://{bucket}/{answer.image.key}"
                yield Picture(name, answer.data or b"", answer.outcome, answer.reason)


# ---------------------------------------------------------------- predicting


class Predictor:
    """The CNN and the face finder of these settings. Raises ModelError if either is wrong."""

    def __init__(self, settings: Settings, *, is_crop: bool = False) -> None:
        self._limits = Limits.of(settings)
        self._classifier = Classifier(settings, choice.in_use(settings).cnn)
        self._kind: ImageKind = "crops" if is_crop else "frames"
        self._finder = None if is_crop else FaceFinder(settings)

    def predict(self, picture: Picture) -> Prediction:
        """What is seen in the picture; one that cannot be read is a prediction with an outcome."""
        if picture.outcome is not None:
            return Prediction(picture.source, picture.outcome, picture.reason)
        try:
            with quiet_decoders():
                prepared, kind, note = self._prepare(picture.data)
        except UndecodableImageError as error:
            return Prediction(picture.source, error.outcome, error.reason)
        faces = self._classifier.score_faces(
            prepared.crops, prepared.boxes, prepared.detector_scores
        )
        return Prediction(
            picture.source,
            Outcome.SCORED if faces else Outcome.NO_FACE,
            "" if faces else "no face was found",
            kind,
            note,
            prepared.width_px,
            prepared.height_px,
            tuple(faces),
        )

    def _prepare(self, data: bytes) -> tuple[Prepared, ImageKind, str]:
        """The picture's crops, how it was taken, and a word on that if it was not as asked."""
        prepared = prepare(data, self._kind, self._limits, self._finder)
        if prepared.boxes or max(prepared.width_px, prepared.height_px) > CROP_LIKE_PX:
            return prepared, self._kind, ""
        as_crop = prepare(data, "crops", self._limits, None)
        note = f"no face was found; at most {CROP_LIKE_PX} px, so the whole picture is the face"
        return as_crop, "crops", note


# ---------------------------------------------------------------- showing


def as_text(prediction: Prediction) -> str:
    """What a person reads: probabilities, emotion, and a line for each face of several."""
    source = printable(prediction.source)
    means = prediction.probabilities
    if means is None or prediction.emotion is None:
        return f"{source}: not scored, {prediction.outcome}: {prediction.reason}"
    count = len(prediction.faces)
    taken = "as a crop" if prediction.kind == "crops" else f"{count} face{'s'[: count != 1]}"
    lines = [f"{source}: {prediction.width_px}×{prediction.height_px} pixels, {taken}"]
    if prediction.note:
        lines.append(f"({prediction.note})")
    lines += [
        f"Prediction: {_pair(means[0], means[1])}",
        f"p_neither: {means[2]:.4f}",
        f"Image Emotion is: {prediction.emotion}{_doubt(prediction.is_uncertain)}",
    ]
    if count > 1:
        lines += [
            f"  face {number} at ({face.box.x}, {face.box.y}), {face.box.width}×{face.box.height}: "
            f"{_pair(face.p_happy, face.p_sad)} p_neither {face.p_neither:.4f} "
            f"{face.emotion}{_doubt(face.is_uncertain)}"
            for number, face in enumerate(prediction.faces, start=1)
        ]
    return "\n".join(lines)


def as_json(prediction: Prediction, annotated: Path | None = None) -> dict[str, Any]:
    """What a script reads: plain values, null where the picture was not scored.

    `annotated` is the file that its annotated picture went to, if any.
    """
    means = prediction.probabilities
    return {
        "source": _encodable(prediction.source),
        "outcome": prediction.outcome.value,
        "reason": prediction.reason,
        "taken_as": prediction.kind,
        "note": prediction.note,
        "width_px": prediction.width_px,
        "height_px": prediction.height_px,
        "p_happy": means and means[0],
        "p_sad": means and means[1],
        "p_neither": means and means[2],
        "emotion": prediction.emotion,
        "is_uncertain": prediction.is_uncertain if means else None,
        "faces": [asdict(face) | {"emotion": face.emotion.value} for face in prediction.faces],
        "annotated": annotated and _encodable(str(annotated)),
    }


def printable(text: str) -> str:
    """A name as one line of text that can be printed, whatever it holds."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in _encodable(text)
    )


def _encodable(text: str) -> str:
    """File names that are not UTF-8 hold half characters, which no output takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _pair(p_happy: float, p_sad: float) -> str:
    return f"[[{p_happy:.4f} {p_sad:.4f}]]"


def _doubt(is_uncertain: bool) -> str:
    return " (uncertain)" if is_uncertain else ""
