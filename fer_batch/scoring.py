"""Score the images of a shard: fetch, decode, crop, classify, write.

One process, bounded everywhere: the reader fetches ahead by a fixed number of bytes, a window
of decoding jobs runs on a few threads, and one chunk is written while the next is made. So a
day of any size takes the same memory. What is finished is known to the ledger alone: each
chunk is one transaction, and a shard that is started again finds only what is left.

This module leaves to others who starts it (worker.py), what is listed (ledger.py) and how a
chunk is written (results.py).
"""

from __future__ import annotations

import gc
import itertools
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import sqlalchemy as sa

from fer_batch import choice, database, ledger, registry, results
from fer_batch.announce import Announcer
from fer_batch.classifier import Classifier
from fer_batch.errors import FerError, PermanentError, RetryableError, StorageUnavailableError
from fer_batch.faces import FaceFinder, ImageKind, Prepared, prepare
from fer_batch.failpoints import reach
from fer_batch.images import Limits, UndecodableImageError
from fer_batch.jobs import JOB, RESULT, ShardResult
from fer_batch.log import logger
from fer_batch.records import FaceScore, Image, ImageScore, KeyRange, Outcome, Shard
from fer_batch.registry import Facility
from fer_batch.settings import Settings
from fer_batch.storage import BucketReader, Fetched

log = logger(__name__)

PROGRESS_INTERVAL_S = 10.0
LOT_IMAGES, LOT_BYTES = 16, 64_000
"""Images that a thread decodes in one go. To hand over a crop costs more than to decode it; a
frame is a lot of its own."""
LOTS_PER_THREAD = 2
MANY_NOT_FETCHED, MANY_SHARE = 10, 0.2
"""So many images of a range of the capture day that could not be fetched, and this share of it, are
worth a retry, which fetches them alone; fewer wait for the next night."""

In = TypeVar("In")
Out = TypeVar("Out")


class Progress:
    """Says how far a shard is, at a steady pace, for the time of a block.

    A thread of its own speaks: whoever waits for a slow bucket or database hears of it too.
    """

    def __init__(self, shard: Shard, interval_s: float = PROGRESS_INTERVAL_S) -> None:
        self._log = log.bind(shard=shard.name)
        self._total = shard.image_count
        self._interval_s = interval_s
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._speaker = threading.Thread(target=self._speak, name="progress", daemon=True)
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> Progress:
        self._say("scoring")
        self._speaker.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._speaker.join()
        if error is None:
            self._say("scored")

    def add(self, scores: Iterable[ImageScore]) -> None:
        """Count a written chunk."""
        with self._lock:
            self.outcomes.update(score.outcome.value for score in scores)

    def _speak(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._say("scoring")

    def _say(self, event: str) -> None:
        with self._lock:
            outcomes = dict(sorted(self.outcomes.items()))
        done = sum(outcomes.values())
        rate = done / max(self.seconds, 1e-6)
        remaining = max(self._total - done, 0)
        self._log.info(
            event,
            images=done,
            of=self._total,
            images_per_s=round(rate, 1),
            remaining_s=round(remaining / rate) if rate > 0 else None,
            outcomes=outcomes,
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started


@dataclass(frozen=True, slots=True)
class Readied:
    """An image on its way to the CNN: its crops, or its score if it has none."""

    image: Image
    prepared: Prepared | None = None
    score: ImageScore | None = None

    def scored(self, faces: Iterator[FaceScore]) -> ImageScore:
        """The image's score; takes as many faces off the iterator as the image has crops."""
        if self.prepared is None:
            return self.score or ImageScore(self.image, Outcome.FETCH_FAILED)
        own = tuple(itertools.islice(faces, len(self.prepared.boxes)))
        return ImageScore(
            self.image,
            Outcome.SCORED if own else Outcome.NO_FACE,
            "" if own else "no face was found",
            self.prepared.width_px,
            self.prepared.height_px,
            own,
        )


class ShardScorer:
    """Everything that scoring needs, loaded once per process."""

    def __init__(
        self,
        engine: sa.Engine,
        settings: Settings,
        facilities: Mapping[str, Facility],
        classifier: Classifier,
        run_id: str,
        capture_day: date,
        rescore_before: datetime | None,
        announcer: Announcer,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._facilities = facilities
        self._classifier = classifier
        self._run_id = run_id
        self._capture_day = capture_day
        self._rescore_before = rescore_before
        self._announcer = announcer
        self._limits = Limits.of(settings)
        self._finders = threading.local()
        self._given_up: set[Image] = set()
        # For all ranges the same threads: each has its slot of the announcer and its finder.
        self._decoders = ThreadPoolExecutor(settings.threads, thread_name_prefix="decode")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def give_up(self, images: Sequence[Image]) -> None:
        """Write that these images end every process that decodes them, and pass over them."""
        self._given_up |= set(images)
        self.write(
            [
                ImageScore(
                    image, Outcome.KILLED_WORKER, "ended the process that decoded it each time"
                )
                for image in images
            ]
        )

    def score(self, shard: Shard) -> ShardResult:
        """Score what is left of a shard. One facility's trouble does not stop the next."""
        result = ShardResult()
        with Progress(shard) as progress:
            for key_range in shard.ranges:
                facility_id = key_range.batch.facility_id
                try:
                    self._score_range(key_range, progress)
                except FerError as error:
                    day = key_range.batch.capture_day.isoformat()
                    result.failures[f"{facility_id} on {day}"] = str(error)
                    result.is_retryable |= isinstance(error, RetryableError)
                    log.error(
                        "facility failed",
                        facility=facility_id,
                        day=day,
                        shard=shard.name,
                        error=str(error),
                    )
        result.outcomes = progress.outcomes
        result.seconds = progress.seconds
        return result

    def _score_range(self, key_range: KeyRange, progress: Progress) -> None:
        batch = key_range.batch
        facility = self._facilities.get(batch.facility_id)
        if facility is None:
            raise PermanentError(
                f"{batch.facility_id} is not in the facility registry any more",
                "Nothing of it is read; put it back, or start a new run",
            )
        if refusal := facility.refusal(batch.capture_day, datetime.now(UTC)):
            raise PermanentError(f"{batch.facility_id} may not be read: {refusal}")
        with BucketReader(self._settings, facility) as reader:
            prepared = in_window(
                self._decoders,
                lambda lot: [self._prepare(item, facility.image_kind) for item in lot],
                lots(reader.fetch_many(self._work(key_range))),
                size=LOTS_PER_THREAD * self._settings.threads,
            )
            images = itertools.chain.from_iterable(prepared)
            writing: Future[list[ImageScore]] | None = None
            not_fetched = 0
            for chunk in batched(images, self._settings.chunk_images):
                scores = self._classify(chunk)
                not_fetched += sum(s.outcome is Outcome.FETCH_FAILED for s in scores)
                if writing is not None:
                    progress.add(writing.result())
                writing = self._writer.submit(self.write, scores)
            if writing is not None:
                progress.add(writing.result())
        # Of the range as it was planned: a second try finds little more than what failed before.
        many = max(MANY_NOT_FETCHED, MANY_SHARE * key_range.image_count)
        if batch.capture_day == self._capture_day and not_fetched >= many:
            raise StorageUnavailableError(
                f"{not_fetched} of {key_range.image_count} images could not be fetched from "
                f"{reader.place}",
                "The others are written; a new try fetches these alone",
            )

    def _work(self, key_range: KeyRange) -> Iterator[Image]:
        """The images of the range that have no final result yet, page by page."""
        after_key: str | None = None
        while True:
            with database.translate_errors(), self._engine.connect() as connection:
                page = ledger.work(
                    connection,
                    key_range,
                    self._classifier.model_version,
                    limit=self._settings.chunk_images,
                    after_key=after_key,
                    rescore_before=self._rescore_before,
                )
            yield from (image for image in page if image not in self._given_up)
            if len(page) < self._settings.chunk_images:
                return
            after_key = page[-1].key

    def _prepare(self, fetched: Fetched, kind: ImageKind) -> Readied:
        """From an image's bytes to its crops, or to the outcome that stands in their place."""
        image = fetched.image
        reach("fetch.after")
        if fetched.data is None:
            outcome = fetched.outcome or Outcome.FETCH_FAILED
            return Readied(image, score=ImageScore(image, outcome, fetched.reason))
        try:
            reach("decode.before")
            prepared = self._decode(image, fetched.data, kind)
        except UndecodableImageError as error:
            return Readied(image, score=ImageScore(image, error.outcome, error.reason))
        reach("decode.after")
        return Readied(image, prepared)

    def _decode(self, image: Image, data: bytes, kind: ImageKind) -> Prepared:
        """The image's crops. Raises UndecodableImageError; any other error ends the process.

        So an error that nobody thought of costs one image and not the shard: the process dies
        with the image announced, as it does of a decoder that crashes.
        """
        finder = self._finder(kind)
        with self._announcer.decoding(image):
            reach("decode.during")
            try:
                return prepare(data, kind, self._limits, finder)
            except UndecodableImageError:
                raise
            except Exception:
                log.exception("decoding failed", facility=image.batch.facility_id, key=image.key)
                signal.raise_signal(signal.SIGABRT)
                raise

    def _finder(self, kind: ImageKind) -> FaceFinder | None:
        """This thread's face finder: they are not made to be shared."""
        if kind == "crops":
            return None
        if not hasattr(self._finders, "finder"):
            self._finders.finder = FaceFinder(self._settings)
        finder: FaceFinder = self._finders.finder
        return finder

    def _classify(self, chunk: list[Readied]) -> list[ImageScore]:
        """Put all faces of a chunk through the CNN at once."""
        prepared = [item.prepared for item in chunk if item.prepared is not None]
        faces: list[FaceScore] = []
        reach("classify.before")
        if prepared:
            faces = self._classifier.score_faces(
                np.concatenate([p.crops for p in prepared]),
                [box for p in prepared for box in p.boxes],
                [score for p in prepared for score in p.detector_scores],
            )
        reach("classify.after")
        remaining = iter(faces)
        return [item.scored(remaining) for item in chunk]

    def write(self, scores: list[ImageScore]) -> list[ImageScore]:
        """Write one chunk in one transaction; what others finished meanwhile stays theirs."""
        with database.transaction(self._engine) as connection:
            results.write_chunk(
                connection,
                scores,
                self._classifier.model_version,
                self._run_id,
                self._rescore_before,
            )
            reach("commit.before")
        reach("commit.after")
        return scores


def run_job(settings: Settings, text: str, slots: Path) -> int:
    """What a scoring process does: read a job, do it, print the result as one JSON line."""
    job = JOB.validate_json(text)
    cv2.setNumThreads(1)  # the decoding threads are ours; OpenCV's own would come on top
    classifier = Classifier(settings, choice.of_version(settings, job.model_version))
    scorer = ShardScorer(
        database.engine(settings),
        settings,
        registry.load(settings.facilities_file, settings),
        classifier,
        job.run_id,
        job.capture_day,
        job.rescore_before,
        Announcer(slots),
    )
    gc.freeze()  # what is loaded by now stays: no use in looking for garbage in it
    if job.condemned:
        scorer.give_up(job.condemned)
    for image in job.suspects:  # each alone, so that a death names it beyond doubt
        scorer.score(Shard(image.key, (KeyRange(image.batch, image.key, image.key, 1),)))
    result = scorer.score(job.shard)
    sys.stdout.write(RESULT.dump_json(result).decode() + "\n")
    return 0


def lots(items: Iterable[Fetched]) -> Iterator[list[Fetched]]:
    """The items in lists of `LOT_IMAGES`, or of fewer as soon as they have `LOT_BYTES`."""
    lot: list[Fetched] = []
    size_bytes = 0
    for item in items:
        lot.append(item)
        size_bytes += len(item.data or b"")
        if len(lot) >= LOT_IMAGES or size_bytes >= LOT_BYTES:
            yield lot
            lot, size_bytes = [], 0
    if lot:
        yield lot


def batched(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Lists of at most `size` items, in order."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def in_window(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In], size: int
) -> Iterator[Out]:
    """`map` over a pool with at most `size` items under way; results in order of the items."""
    window: deque[Future[Out]] = deque()
    for item in items:
        window.append(pool.submit(function, item))
        if len(window) >= size:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()
