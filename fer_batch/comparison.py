"""Two CNNs on one day's images: what each says, and how far they agree. Nothing is stored.

The images are read from the bucket again, under the same permission as at night and without what
was erased, and cropped once; both CNNs see the same crops. Which CNNs, is decided in choice.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import date, datetime
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fer_batch import choice, erasure, retention
from fer_batch.classifier import Classifier, Cnn, Probabilities, is_certain
from fer_batch.errors import PermanentError
from fer_batch.faces import FaceFinder, prepare
from fer_batch.images import Limits, Pixels, UndecodableImageError, quiet_decoders
from fer_batch.records import Batch, Image
from fer_batch.registry import Facility
from fer_batch.satisfaction import summarise
from fer_batch.settings import Settings
from fer_batch.storage import BucketReader

_AT_ONCE = 256
"""Images whose crops are held in memory at once."""


def compare(
    settings: Settings, first: Cnn, second: Cnn, facility: Facility, day: date, now_utc: datetime
) -> dict[str, Any]:
    """`images` read, `faces` in them, `agreement` and `mean_abs_difference`, and `cnns`.

    `agreement` is the share of faces that both call the same, `mean_abs_difference` the mean of
    |Δp_happy|; None without faces. `cnns` has a row each: `name`, `model_version`, `faces`,
    `happy`, `sad`, `uncertain`, `happy_share` with its interval's ends; the counts and shares are
    None where fewer than 30 faces count, as in a summary. Raises PermanentError where the facility
    may not be read, ConfigurationError where the day was deleted for good, ModelError for a CNN
    that does not fit, and S3's and the database's errors.
    """
    if refusal := facility.refusal(day, now_utc):
        raise PermanentError(f"{facility.facility_id} may not be read: {refusal}")
    batch = Batch(facility.facility_id, day)
    erased = _erased(settings, batch)
    both = Classifier(settings, first), Classifier(settings, second)
    found: tuple[list[Probabilities], list[Probabilities]] = ([], [])
    images = 0
    with quiet_decoders(), BucketReader(settings, facility) as reader:
        crops = _crops(settings, facility, reader, batch, erased)
        while part := list(islice(crops, _AT_ONCE)):
            images += len(part)
            faces = np.concatenate(part)
            for classifier, rows in zip(both, found, strict=True):
                rows.append(classifier.classify(faces))
    empty = [np.empty((0, 3), np.float32)]
    p_first, p_second = (np.concatenate(rows or empty) for rows in found)
    says_happy = [p[:, 0] >= p[:, 1] for p in (p_first, p_second)]
    has_faces = len(p_first) > 0
    return {
        "facility_id": facility.facility_id,
        "capture_day": day,
        "images": images,
        "faces": len(p_first),
        "agreement": float((says_happy[0] == says_happy[1]).mean()) if has_faces else None,
        "mean_abs_difference": (
            float(np.abs(p_first[:, 0] - p_second[:, 0]).mean()) if has_faces else None
        ),
        "cnns": [
            _row(classifier, probabilities, facility)
            for classifier, probabilities in zip(both, (p_first, p_second), strict=True)
        ],
    }


def as_text(found: dict[str, Any]) -> str:
    """How far the two agree, as a line for people."""
    if not found["faces"]:
        return "No face was found."
    return (
        f"Of {found['faces']} faces, {found['agreement']:.1%} are called the same; "
        f"p_happy differs by {found['mean_abs_difference']:.4f} on average."
    )


def _erased(settings: Settings, batch: Batch) -> frozenset[bytes]:
    """What `erasure.erased_keys` says; nothing where no database knows of an erasure."""
    if settings.database_url is None:
        return frozenset()
    with choice.connected(settings) as connection:
        retention.without_deleted(connection, [batch], batch.capture_day)
        return erasure.erased_keys(connection, batch.facility_id)


def _crops(
    settings: Settings,
    facility: Facility,
    reader: BucketReader,
    batch: Batch,
    erased: frozenset[bytes],
) -> Iterator[Pixels]:
    """The crops of each image that can be read and was not erased."""
    prefix = facility.prefix(batch.capture_day)
    marker = prefix + facility.ready_marker if facility.ready_marker else None
    images = (
        Image(batch, found.key, found.etag, found.size_bytes)
        for found in reader.list(prefix)
        if found.key != marker
        and not found.is_folder_marker
        and hashlib.sha256(found.key.encode(errors="surrogatepass")).digest() not in erased
    )
    cv2.setNumThreads(settings.threads)
    limits = Limits.of(settings)
    finder = FaceFinder(settings) if facility.image_kind == "frames" else None
    for fetched in reader.fetch_many(images):
        if fetched.data is None:
            continue
        try:
            yield prepare(fetched.data, facility.image_kind, limits, finder).crops
        except UndecodableImageError:
            continue


def _row(
    classifier: Classifier, probabilities: Probabilities, facility: Facility
) -> dict[str, Any]:
    certain = is_certain(probabilities, classifier.card.uncertain_below)
    says_happy = probabilities[:, 0] >= probabilities[:, 1]
    counts = {
        "faces": len(probabilities),
        "happy": int((certain & says_happy).sum()),
        "sad": int((certain & ~says_happy).sum()),
        "uncertain": int((~certain).sum()),
        "neither": int((probabilities[:, 2] > probabilities[:, :2].max(axis=1)).sum()),
    }
    frame = pd.DataFrame([counts | {"target_share": facility.target_share}])
    (summary,) = summarise(frame).to_dict("records")
    is_suppressed = summary["verdict"] == "suppressed"
    shown = ("happy", "sad", "uncertain", "happy_share", "happy_share_low", "happy_share_high")
    return {
        "name": classifier.card.name,
        "model_version": classifier.model_version[:12],
        "faces": counts["faces"],
        **{name: None if is_suppressed else summary[name] for name in shown},
    }
