"""Compare two CNNs on the images of one capture day: what each calls the faces, and how often they
agree.

The images are read from the bucket again, under the same permission as in a nightly run and
without erased images, and cropped once; both CNNs get the same crops. Nothing is stored. Which CNNs
are compared is decided in model/active_model.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_batch.concurrency import group_chunks, map_in_order
from fer_batch.database import connections, erased_keys, schema
from fer_batch.database.erased_keys import ErasedKeys, ErasureSecret
from fer_batch.deletion import retention
from fer_batch.errors import PermanentError
from fer_batch.facilities.capture_days import check_has_begun
from fer_batch.facilities.registry import Facility
from fer_batch.imaging.faces import ExtractedFaces
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.model.classifier import Classifier, Cnn
from fer_batch.model.probabilities import CALLED_CLASSES, Probabilities, call_classes
from fer_batch.pipeline.day_listing import DayListing
from fer_batch.pipeline.scoring import MICRO_BATCHES_PER_THREAD, group_micro_batches
from fer_batch.records import Batch, FetchedImage, Image
from fer_batch.satisfaction.figures import MIN_FACES
from fer_batch.settings import Settings
from fer_batch.storage.reader import BucketReader

_CHUNK_IMAGES = 256
"""Images whose crops are held in memory at once, and after which erasures are looked up again."""


def compare_cnns(
    settings: Settings, first: Cnn, second: Cnn, facility: Facility, day: date, now_utc: datetime
) -> dict[str, Any]:
    """Score the day's images with both CNNs; returns plain values.

    `images` is how many images were read, `faces` how many faces they have. `agreement` is the
    share of faces with the same called class from both, `mean_abs_difference` the mean of
    |Δp_happy|; None without faces. `cnns` has a dictionary for each: `name`, `model_version`,
    `faces`, the counts `called_happy`, `called_sad` and `called_neither`, and `called_happy_rate`
    and `called_sad_rate`, the uncorrected shares of all faces; counts and rates are None for fewer
    than 30 faces, as in a summary. Raises PermanentError where the facility may
    not be read or its erased images cannot be recognized, ConfigurationError where the day was
    permanently deleted or has not begun, ModelError for a CNN that does not match its card, and the
    errors of S3 and the database.
    """
    check_has_begun([facility], day, now_utc)
    if denial_reason := facility.get_denial_reason(day, now_utc, settings.strict_registry_from):
        raise PermanentError(f"{facility.facility_id} may not be read: {denial_reason}")
    batch = Batch(facility.facility_id, day)
    _load_erased(settings, batch)  # what may not be read needs no CNN and no listing
    classifiers = Classifier(settings, first), Classifier(settings, second)
    results: tuple[list[Probabilities], list[Probabilities]] = ([], [])
    images = 0
    with (
        BucketReader(settings, facility) as reader,
        Decoders(settings) as decoders,
        ThreadPoolExecutor(settings.threads) as threads,
    ):
        fetched = _fetch_images(settings, facility, reader, batch)
        extracted = map_in_order(
            threads,
            lambda images: decoders.extract(images, facility.image_kind),
            group_micro_batches(fetched),
            size=MICRO_BATCHES_PER_THREAD * settings.threads,
        )
        crops = (
            item.crops for items in extracted for item in items if isinstance(item, ExtractedFaces)
        )
        for chunk in group_chunks(crops, _CHUNK_IMAGES):
            images += len(chunk)
            faces = np.concatenate(chunk)
            for classifier, rows in zip(classifiers, results, strict=True):
                rows.append(classifier.classify(faces).probabilities)
    empty = [np.empty((0, 3), np.float32)]
    p_first, p_second = (np.concatenate(rows or empty) for rows in results)
    called = [
        call_classes(p, classifier.rule)
        for classifier, p in zip(classifiers, (p_first, p_second), strict=True)
    ]
    has_faces = len(p_first) > 0
    return {
        "facility_id": facility.facility_id,
        "capture_day": day,
        "images": images,
        "faces": len(p_first),
        "agreement": float((called[0] == called[1]).mean()) if has_faces else None,
        "mean_abs_difference": (
            float(np.abs(p_first[:, 0] - p_second[:, 0]).mean()) if has_faces else None
        ),
        "cnns": [
            _summarize_cnn(classifier, called_by_it)
            for classifier, called_by_it in zip(classifiers, called, strict=True)
        ],
    }


def format_comparison(comparison: dict[str, Any]) -> str:
    """The agreement of the two CNNs, as one line for people."""
    if not comparison["faces"]:
        return "No face was found."
    return (
        f"Of {comparison['faces']} faces, {comparison['agreement']:.1%} are called the same; "
        f"p_happy differs by {comparison['mean_abs_difference']:.4f} on average."
    )


def _load_erased(settings: Settings, batch: Batch) -> ErasedKeys:
    """The keys of erased images.

    Raises ConfigurationError if the day was erased, or if no database is set, which knows that;
    ErasureSecretError if images of the facility were erased with another secret.
    """
    with schema.open_engine(settings) as engine, connections.transaction(engine) as connection:
        retention.filter_deleted(connection, [batch], batch.capture_day)
        secret = ErasureSecret(settings.erasure_secret)
        return erased_keys.load_erased_keys(connection, batch, secret)


def _fetch_images(
    settings: Settings, facility: Facility, reader: BucketReader, batch: Batch
) -> Iterator[FetchedImage]:
    """The images that can be read and were not erased."""
    for fetched in reader.fetch_many(_list_images(settings, facility, reader, batch)):
        if isinstance(fetched, FetchedImage):
            yield fetched


def _list_images(
    settings: Settings, facility: Facility, reader: BucketReader, batch: Batch
) -> Iterator[Image]:
    listing = DayListing(reader, facility, batch.capture_day).list()
    for chunk in group_chunks(listing, _CHUNK_IMAGES):
        erased = _load_erased(settings, batch)  # again: one may have been erased meanwhile
        yield from (listed.build_image(batch) for listed in chunk if listed.key not in erased)


def _summarize_cnn(classifier: Classifier, called: NDArray[np.intp]) -> dict[str, Any]:
    faces = len(called)
    figures: dict[str, Any] = {
        f"called_{called_class}": int((called == index).sum())
        for index, called_class in enumerate(CALLED_CLASSES)
    }
    for name in ("called_happy", "called_sad"):
        figures[f"{name}_rate"] = figures[name] / max(faces, 1)
    if faces < MIN_FACES:
        figures = dict.fromkeys(figures)
    return {
        "name": classifier.card.name,
        "model_version": classifier.model_version[:12],
        "faces": faces,
        **figures,
    }
