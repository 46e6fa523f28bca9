"""Each stage of scoring alone, on the same images, with the core-seconds that it costs.

The stages are fer-batch's own functions, one after the other in this process: list, fetch,
decode, find (frames only), CNN, write. Each is given what the one before it made, and has as many
threads as in scoring. The stage limit is what the cores could do if nothing else cost anything.
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
from fer_batch import database, results
from fer_batch.classifier import Classifier
from fer_batch.faces import FaceFinder, FoundFace, crop_face, whole_image
from fer_batch.images import DecodedImage, Limits, Pixels, quiet_decoders, read_image
from fer_batch.ledger import work
from fer_batch.records import FaceScore, Image, ImageScore, KeyRange, Outcome
from fer_batch.storage import BucketReader, Fetched

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage took for some images: by the clock, and of the cores in three processes."""

    images: int
    seconds: float
    own_core_s: float
    s3_core_s: float
    postgres_core_s: float

    @property
    def core_s(self) -> float:
        return self.own_core_s + self.s3_core_s + self.postgres_core_s


class Stages:
    """The stages of one facility's day. Everything is loaded before the first is measured."""

    def __init__(self, servers: Servers, facility_id: str) -> None:
        cv2.setNumThreads(1)
        self._servers = servers
        self._settings = servers.settings()
        self._run = open_run(self._settings, facility_id)
        self._facility = self._run.facilities[facility_id]
        self._classifier = Classifier(self._settings, self._run.cnn)
        self._threads = ThreadPoolExecutor(self._settings.threads)
        self._finders = threading.local()
        self._limits = Limits.of(self._settings)
        self._run.sync_facilities()
        self._run.begin()

    def measure(self) -> dict[str, Cost]:
        """All stages once, on empty tables."""
        self._servers.forget()
        self._run.begin()
        self._costs: dict[str, tuple[float, float, float, float]] = {}
        self._timed("list", self._run.list_images)
        images = self._images()
        fetched = self._timed("fetch", lambda: self._fetch(images))
        with quiet_decoders():
            decoded = self._timed("decode", lambda: self._decode(fetched))
        if self._facility.image_kind == "frames":
            found = self._timed("find", lambda: self._on_all_cores(self._find, decoded))
        else:
            found = self._timed("crop", lambda: [_whole(one) for one in decoded])
        scores = self._timed("CNN", lambda: self._classify(fetched, decoded, found))
        self._timed("write", lambda: self._write(scores))
        return {name: Cost(len(images), *cost) for name, cost in self._costs.items()}

    def _timed(self, name: str, function: Callable[[], Out]) -> Out:
        before, began, own = self._servers.core_s(), time.perf_counter(), time.process_time()
        made = function()
        seconds, own_s = time.perf_counter() - began, time.process_time() - own
        took = self._servers.core_s() - before
        self._costs[name] = (seconds, own_s, took.s3, took.postgres)
        return made

    def _images(self) -> list[Image]:
        (batch,) = self._run.batches
        everything = KeyRange(batch, "", "\U0010ffff", 0)
        with self._run.engine.connect() as connection:
            return list(work(connection, everything, self._run.model_version, limit=10_000_000))

    def _fetch(self, images: list[Image]) -> list[Fetched]:
        with BucketReader(self._settings, self._facility) as reader:
            return list(reader.fetch_many(images))

    def _decode(self, fetched: list[Fetched]) -> list[DecodedImage]:
        if self._facility.image_kind == "crops":
            return [read_image(one.data or b"", self._limits, is_grey=True) for one in fetched]
        return self._on_all_cores(
            lambda one: read_image(one.data or b"", self._limits, is_grey=False), fetched
        )

    def _on_all_cores(self, function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
        """As scoring does it: a core that works beside a busy one may be slower than one alone.

        For frames only. A crop is decoded in less time than it takes to hand it to a thread.
        """
        return list(self._threads.map(function, items))

    def _find(self, image: DecodedImage) -> tuple[list[FoundFace], list[Pixels]]:
        if not hasattr(self._finders, "finder"):
            self._finders.finder = FaceFinder(self._settings)
        faces = self._finders.finder.find(image.pixels)
        return faces, [crop_face(image.pixels, face.box) for face in faces]

    def _classify(
        self,
        fetched: list[Fetched],
        decoded: list[DecodedImage],
        found: list[tuple[list[FoundFace], list[Pixels]]],
    ) -> list[ImageScore]:
        """Chunk by chunk, as scoring does."""
        scores = []
        size = self._settings.chunk_images
        for start in range(0, len(fetched), size):
            chunk = list(zip(fetched, decoded, found, strict=True))[start : start + size]
            faces = self._faces([part for _, _, part in chunk])
            for one, image, (boxes, _) in chunk:
                own, faces = faces[: len(boxes)], faces[len(boxes) :]
                outcome = Outcome.SCORED if own else Outcome.NO_FACE
                scores.append(
                    ImageScore(one.image, outcome, "", image.width_px, image.height_px, tuple(own))
                )
        return scores

    def _faces(self, found: list[tuple[list[FoundFace], list[Pixels]]]) -> list[FaceScore]:
        crops = [crop for _, some in found for crop in some]
        boxes = [face for faces, _ in found for face in faces]
        if not crops:
            return []
        return self._classifier.score_faces(
            np.stack(crops), [f.box for f in boxes], [f.detector_score for f in boxes]
        )

    def _write(self, scores: list[ImageScore]) -> None:
        size = self._settings.chunk_images
        for start in range(0, len(scores), size):
            with database.transaction(self._run.engine) as connection:
                results.write_chunk(
                    connection,
                    scores[start : start + size],
                    self._run.model_version,
                    self._run.selection.run_id,
                )


def _whole(image: DecodedImage) -> tuple[list[FoundFace], list[Pixels]]:
    box, crop = whole_image(image.pixels)
    return [FoundFace(box, 1.0)], [crop]
