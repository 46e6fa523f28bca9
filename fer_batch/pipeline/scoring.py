"""Score the images of a shard: fetch, decode, crop, classify, write.

One process with bounded memory: the reader prefetches a fixed number of bytes, a bounded number of
micro-batches is decoded on a few threads, and one chunk is written while the next is computed. So
a day of any size takes the same memory. Only the ledger records what is finished: each chunk is
one transaction, and a shard that is started again finds only what is left.

Starting and watching this process is left to supervisor.py, listing to the ledger (ledger.py),
writing a chunk to results.py.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import sqlalchemy as sa

from fer_batch.concurrency import group_chunks, map_in_order
from fer_batch.database import connections, ledger, results
from fer_batch.errors import (
    FerError,
    RetryableError,
    StorageUnavailableError,
    explain_exception,
)
from fer_batch.facilities.loading import Registry, load_registry
from fer_batch.imaging.faces import ExtractedFaces, ImageKind
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.log import get_logger
from fer_batch.model import active_model
from fer_batch.model.classifier import Classifier, score_faces
from fer_batch.pipeline.in_flight import InFlightRegister
from fer_batch.pipeline.jobs import JOB, RESULT, ShardResult
from fer_batch.pipeline.progress import Progress
from fer_batch.records import (
    Batch,
    FaceScore,
    FetchedImage,
    Image,
    ImageScore,
    KeyRange,
    Outcome,
    Shard,
)
from fer_batch.settings import Settings
from fer_batch.storage.fetching import ASKED_AFTER_REFUSALS
from fer_batch.storage.reader import BucketReader
from fer_batch.testing.failpoints import failpoint

log = get_logger(__name__)

Fetched = TypeVar("Fetched", bound=FetchedImage | ImageScore)

MICRO_BATCH_IMAGES, MICRO_BATCH_BYTES = 64, 64_000
"""Images that a thread sends to its decoder at once. Handing over a crop costs more than decoding
it; a frame is a micro-batch alone."""
MICRO_BATCHES_PER_THREAD = 2
RETRY_MIN_IMAGES, RETRY_MIN_SHARE = 10, 0.2
"""If at least this many images of a key range of the capture day, and at least this share of it,
could not be fetched, the shard is retried and fetches them alone; fewer wait for the next night."""


class ShardScorer:
    """Scores shards with two thread pools, for decoding and for writing; `with` ends them.

    After an error, waiting images are not decoded any more; a chunk that is being written is
    finished. `engine`, `classifier`, `decoders` and `in_flight` are not closed here.
    """

    def __init__(
        self,
        engine: sa.Engine,
        settings: Settings,
        registry: Registry,
        classifier: Classifier,
        decoders: Decoders,
        run_id: str,
        capture_day: date,
        rescore_before: datetime | None,
        in_flight: InFlightRegister,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._registry = registry
        self._classifier = classifier
        self._decoders = decoders
        self._run_id = run_id
        self._capture_day = capture_day
        self._rescore_before = rescore_before
        self._in_flight = in_flight
        self._quarantined: set[Image] = set()
        # The same threads for all ranges: each has its slot of the register and its decoder.
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="decode")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def __enter__(self) -> ShardScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._writer.shutdown()

    def quarantine(self, images: Sequence[Image]) -> None:
        """Write the outcome `decoder_crashed` for these images and never decode them.

        The ETag of an image is empty if the in-flight register had no room for it.
        """
        for image in images:
            listed = self._list_unfinished(KeyRange(image.batch, image.key, image.key, 1))
            self._quarantined |= {i for i in [*listed] if image in (i, replace(i, etag=""))}
        reason = "ended the process that decoded it each time"
        self._write([ImageScore(i, Outcome.DECODER_CRASHED, reason) for i in self._quarantined])

    def score(self, shard: Shard) -> ShardResult:
        """Score what is left of a shard. A facility's failure does not stop the next facility."""
        result = ShardResult()
        with Progress(shard) as progress:
            for number, key_range in enumerate(shard.ranges):
                self._in_flight.begin_range(number)
                facility_id = key_range.batch.facility_id
                day = key_range.batch.capture_day.isoformat()
                try:
                    self._score_range(key_range, progress)
                except Exception as error:
                    reason = explain_exception(error)
                    result.failures[f"{facility_id} on {day}"] = reason
                    result.is_retryable |= isinstance(error, RetryableError)
                    log.error(
                        "facility failed",
                        facility=facility_id,
                        day=day,
                        shard=shard.name,
                        error=reason,
                        exc_info=not isinstance(error, FerError),
                    )
        result.outcomes = progress.outcomes
        result.seconds = progress.seconds
        return result

    def _score_range(self, key_range: KeyRange, progress: Progress) -> None:
        facility = self._registry.get_permitted(
            key_range.batch, self._settings.strict_registry_from
        )
        with BucketReader(self._settings, facility) as reader:
            extracted = map_in_order(
                self._threads,
                lambda items: self._extract(items, facility.image_kind),
                group_micro_batches(
                    reader.fetch_many(
                        self._list_unfinished(key_range),
                        lambda: self._sample_images(key_range.batch),
                    )
                ),
                size=MICRO_BATCHES_PER_THREAD * self._settings.threads,
            )
            images = itertools.chain.from_iterable(extracted)
            writing: Future[list[ImageScore]] | None = None
            not_fetched = 0
            for chunk in group_chunks(images, self._settings.chunk_images):
                scores = self._classify(chunk)
                not_fetched += sum(s.outcome is Outcome.FETCH_FAILED for s in scores)
                if writing is not None:
                    progress.add(writing.result())
                writing = self._writer.submit(self._write, scores)
            if writing is not None:
                progress.add(writing.result())
        # Relative to the planned range: a retry finds little more than what failed before.
        threshold = max(RETRY_MIN_IMAGES, RETRY_MIN_SHARE * key_range.image_count)
        if key_range.batch.capture_day == self._capture_day and not_fetched >= threshold:
            raise StorageUnavailableError(
                f"{not_fetched} of {key_range.image_count} images could not be fetched from "
                f"{reader.location}",
                "The others are written; a retry fetches these alone",
            )

    def _list_unfinished(self, key_range: KeyRange) -> Iterator[Image]:
        """The images of the range that have no final result yet, page by page."""
        after_key: str | None = None
        while True:
            with connections.translate_errors(), self._engine.connect() as connection:
                page = ledger.list_unfinished(
                    connection,
                    key_range,
                    self._classifier.model_version,
                    limit=self._settings.chunk_images,
                    after_key=after_key,
                    rescore_before=self._rescore_before,
                )
            yield from (image for image in page if image not in self._quarantined)
            if len(page) < self._settings.chunk_images:
                return
            after_key = page[-1].key

    def _sample_images(self, batch: Batch) -> Sequence[Image]:
        """Images of the batch that are asked for before its location is blamed for a failure."""
        with connections.translate_errors(), self._engine.connect() as connection:
            return ledger.sample_images(connection, batch, 2 * ASKED_AFTER_REFUSALS)

    def _extract(
        self, items: Sequence[FetchedImage | ImageScore], kind: ImageKind
    ) -> list[ExtractedFaces | ImageScore]:
        """Have the images of a micro-batch decoded and their faces cropped."""
        for _ in items:
            failpoint("fetch.after")
        fetched = [item for item in items if isinstance(item, FetchedImage)]
        for _ in fetched:
            failpoint("decode.before")
        with self._in_flight.track(*(item.image for item in fetched)):
            for _ in fetched:
                failpoint("decode.during")
            extracted = iter(self._decoders.extract(fetched, kind))
        for _ in fetched:
            failpoint("decode.after")
        return [item if isinstance(item, ImageScore) else next(extracted) for item in items]

    def _classify(self, chunk: list[ExtractedFaces | ImageScore]) -> list[ImageScore]:
        """Classify all faces of a chunk at once; images that already have a score keep it."""
        extracted = [item for item in chunk if isinstance(item, ExtractedFaces)]
        scores: list[FaceScore] = []
        failpoint("classify.before")
        if extracted:
            scores = score_faces(
                self._classifier.classify(np.concatenate([item.crops for item in extracted])),
                [face for item in extracted for face in item.faces],
                self._classifier.rule,
            )
        failpoint("classify.after")
        remaining = iter(scores)
        return [
            item
            if isinstance(item, ImageScore)
            else ImageScore.from_faces(
                item.image,
                item.width_px,
                item.height_px,
                tuple(itertools.islice(remaining, len(item.faces))),
                self._classifier.rule,
            )
            for item in chunk
        ]

    def _write(self, scores: list[ImageScore]) -> list[ImageScore]:
        """Write one chunk in one transaction; results that another process finished are kept."""
        with connections.transaction(self._engine) as connection:
            results.write_chunk(
                connection,
                scores,
                self._classifier.model_version,
                self._run_id,
                self._rescore_before,
            )
            failpoint("commit.before")
        failpoint("commit.after")
        return scores


def run_job(settings: Settings, text: str, register: Path) -> None:
    """The work of a scoring process: read a job, do it, print the result as one JSON line.

    `register` is the file of the in-flight register.
    """
    job = JOB.validate_json(text)
    # The decoders first: their process starts while this one loads the CNN.
    with (
        Decoders(settings) as decoders,
        ShardScorer(
            connections.create_engine(settings),
            settings,
            load_registry(settings.facilities_file, settings),
            Classifier(settings, active_model.load_version(settings, job.model_version)),
            decoders,
            job.run_id,
            job.capture_day,
            job.rescore_before,
            InFlightRegister(register),
        ) as scorer,
    ):
        gc.freeze()  # what is loaded by now stays loaded: the collector need not visit it
        if job.quarantined:
            scorer.quarantine(job.quarantined)
        for image in job.suspects:  # each alone, so that a crash can be attributed to it
            scorer.score(Shard(image.key, (KeyRange(image.batch, image.key, image.key, 1),)))
        result = scorer.score(job.shard)
    sys.stdout.write(RESULT.dump_json(result).decode() + "\n")


def group_micro_batches(items: Iterable[Fetched]) -> Iterator[list[Fetched]]:
    """Group items into lists of `MICRO_BATCH_IMAGES`, or fewer at `MICRO_BATCH_BYTES`."""
    micro_batch: list[Fetched] = []
    size_bytes = 0
    for item in items:
        micro_batch.append(item)
        if isinstance(item, FetchedImage):
            size_bytes += len(item.data)
        if len(micro_batch) >= MICRO_BATCH_IMAGES or size_bytes >= MICRO_BATCH_BYTES:
            yield micro_batch
            micro_batch, size_bytes = [], 0
    if micro_batch:
        yield micro_batch
