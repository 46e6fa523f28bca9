"""The core-seconds of each stage of scoring, measured alone on the same images.

The stages are fer-batch's own functions, called one after the other in this process: list, fetch,
decode, find (frames only), CNN, write. Each gets the output of the previous stage and has as many
threads as in scoring. The stage limit is the rate of the cores if nothing else had a cost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from benchmarks.contestants import open_run
from benchmarks.servers import Servers
from fer_batch.database import connections, results
from fer_batch.database.ledger import list_unfinished
from fer_batch.imaging.decoding import ImageLimits, Pixels, decode_image, silence_decoders
from fer_batch.imaging.faces import DetectedFace, FaceDetector, crop_face, crop_whole_image
from fer_batch.model.classifier import Classifier, score_faces
from fer_batch.records import FaceScore, FetchedImage, Image, ImageScore, KeyRange
from fer_batch.storage.reader import BucketReader

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a stage: elapsed seconds, and the core-seconds of three processes."""

    images: int
    seconds: float
    own_core_s: float
    s3_core_s: float
    postgres_core_s: float

    @property
    def core_s(self) -> float:
        return self.own_core_s + self.s3_core_s + self.postgres_core_s


class Stages:
    """The stages of one facility's day. Everything is loaded before the first measurement."""

    def __init__(self, servers: Servers, facility_id: str) -> None:
        cv2.setNumThreads(1)
        self._servers = servers
        self._settings = servers.build_settings()
        self._run = open_run(self._settings, facility_id)
        self._facility = self._run.facilities[facility_id]
        self._classifier = Classifier(self._settings, self._run.cnn)
        self._threads = ThreadPoolExecutor(self._settings.threads)
        self._detectors = threading.local()
        self._limits = ImageLimits.from_settings(self._settings)
        self._run.sync_facilities()
        self._run.begin()

    def measure(self) -> dict[str, Cost]:
        """Run all stages once, on empty tables."""
        self._servers.empty_tables()
        self._run.begin()
        self._costs: dict[str, tuple[float, float, float, float]] = {}
        self._time_stage("list", self._run.list_images)
        images = self._list_images()
        fetched = self._time_stage("fetch", lambda: self._fetch(images))
        with silence_decoders():
            decoded = self._time_stage("decode", lambda: self._decode(fetched))
        if self._facility.image_kind == "frames":
            cropped = self._time_stage(
                "find", lambda: self._map_on_all_cores(self._detect, decoded)
            )
        else:
            cropped = self._time_stage("crop", lambda: [_crop_whole(p) for p in decoded])
        scores = self._time_stage("CNN", lambda: self._classify(fetched, decoded, cropped))
        self._time_stage("write", lambda: self._write(scores))
        return {name: Cost(len(images), *cost) for name, cost in self._costs.items()}

    def _time_stage(self, name: str, function: Callable[[], Out]) -> Out:
        before, began, own = (
            self._servers.measure_core_s(),
            time.perf_counter(),
            time.process_time(),
        )
        result = function()
        seconds, own_s = time.perf_counter() - began, time.process_time() - own
        of_servers = self._servers.measure_core_s() - before
        self._costs[name] = (seconds, own_s, of_servers.s3, of_servers.postgres)
        return result

    def _list_images(self) -> list[Image]:
        (batch,) = self._run.batches
        all_keys = KeyRange(batch, "", "\U0010ffff", 0)
        with self._run.engine.connect() as connection:
            return list(
                list_unfinished(connection, all_keys, self._run.model_version, limit=10_000_000)
            )

    def _fetch(self, images: list[Image]) -> list[FetchedImage]:
        with BucketReader(self._settings, self._facility) as reader:
            results = list(reader.fetch_many(images))
        return [result for result in results if isinstance(result, FetchedImage)]

    def _decode(self, fetched: list[FetchedImage]) -> list[Pixels]:
        if self._facility.image_kind == "crops":
            return [decode_image(image.data, self._limits, is_gray=True) for image in fetched]
        return self._map_on_all_cores(
            lambda image: decode_image(image.data, self._limits, is_gray=False), fetched
        )

    def _map_on_all_cores(self, function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
        """Map with as many threads as scoring has: a core can be slower while others are busy.

        For frames only: decoding a crop takes less time than passing it to a thread.
        """
        return list(self._threads.map(function, items))

    def _detect(self, pixels: Pixels) -> tuple[list[DetectedFace], list[Pixels]]:
        if not hasattr(self._detectors, "detector"):
            self._detectors.detector = FaceDetector(self._settings)
        faces = self._detectors.detector.detect(pixels)
        return faces, [crop_face(pixels, face.box) for face in faces]

    def _classify(
        self,
        fetched: list[FetchedImage],
        decoded: list[Pixels],
        cropped: list[tuple[list[DetectedFace], list[Pixels]]],
    ) -> list[ImageScore]:
        """Classify and assemble chunk by chunk, as scoring does."""
        scores = []
        size = self._settings.chunk_images
        for start in range(0, len(fetched), size):
            chunk = list(zip(fetched, decoded, cropped, strict=True))[start : start + size]
            faces = self._score_faces([part for _, _, part in chunk])
            for one, pixels, (detected, _) in chunk:
                own, faces = faces[: len(detected)], faces[len(detected) :]
                height, width = pixels.shape[:2]
                scores.append(
                    ImageScore.from_faces(
                        one.image, width, height, tuple(own), self._classifier.rule
                    )
                )
        return scores

    def _score_faces(
        self, cropped: list[tuple[list[DetectedFace], list[Pixels]]]
    ) -> list[FaceScore]:
        crops = [crop for _, face_crops in cropped for crop in face_crops]
        detected = [face for faces, _ in cropped for face in faces]
        if not crops:
            return []
        return score_faces(
            self._classifier.classify(np.stack(crops)),
            detected,
            self._classifier.rule,
        )

    def _write(self, scores: list[ImageScore]) -> None:
        size = self._settings.chunk_images
        for start in range(0, len(scores), size):
            with connections.transaction(self._run.engine) as connection:
                results.write_chunk(
                    connection,
                    scores[start : start + size],
                    self._run.model_version,
                    self._run.selection.run_id,
                )


def _crop_whole(pixels: Pixels) -> tuple[list[DetectedFace], list[Pixels]]:
    box, crop = crop_whole_image(pixels)
    return [DetectedFace(box, 1.0)], [crop]
