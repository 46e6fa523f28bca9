"""Send images to confined decoders, one for each thread, and check what comes back.

This side holds the secrets and decodes nothing. A decoder that dies, takes too long or gives an
answer that is none costs one image: it is ended, and its images are sent again, each alone to a new
decoder. An image that then ends its decoder again gets the outcome `decoder_crashed`. Each facility
has decoders of its own, so that an image that takes over its decoder cannot change the results of
another facility.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from fer_batch.errors import SandboxError, ScoringProcessError
from fer_batch.imaging.decoding import ImageLimits, Pixels
from fer_batch.imaging.faces import DecodedImage, ExtractedFaces, ImageKind
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.imaging.sandbox import control, handles
from fer_batch.imaging.sandbox.confinement import describe_missing, protect_memory
from fer_batch.imaging.sandbox.handles import DecoderFailedError, DecoderHandle, Server
from fer_batch.imaging.sandbox.memory import MemoryBudget, compute_decode_memory
from fer_batch.imaging.sandbox.messages import (
    InvalidAnswerError,
    Item,
    Task,
    compute_largest_body,
    parse_answer,
)
from fer_batch.log import get_logger
from fer_batch.records import FetchedImage, ImageScore, Outcome
from fer_batch.settings import Settings

log = get_logger(__name__)

MAX_CRASHES = 2
"""An image that ends its decoder so often while it is alone is not decoded any more."""
_TASKS = {"crops": Task.CROPS, "frames": Task.FRAMES}


class Decoders:
    """Decodes images in processes without rights; `with` ends them. Safe to use from threads.

    The server process starts at once and loads OpenCV while the caller does something else; the
    first image waits for it. This process holds images, so from now on it writes no core file and
    cannot be traced. Raises ModelError for a wrong detector file and, with
    `FER_SANDBOX=require`, SandboxError where a layer of the confinement is missing, both with the
    first image.
    """

    def __init__(self, settings: Settings) -> None:
        protect_memory()
        self._limits = ImageLimits.from_settings(settings)
        self._min_face_px = settings.min_face_px
        self._is_required = settings.sandbox == "require"
        self._budget = MemoryBudget(compute_decode_memory(settings))
        self._configuration = control.Configuration(
            settings.max_image_bytes,
            settings.max_image_pixels,
            settings.min_image_px,
            settings.detector_file and settings.detector_file.absolute(),
            settings.min_face_px,
            self._budget.total_bytes,
        )
        self._local = threading.local()
        self._lock = threading.Lock()
        self._decoders: set[DecoderHandle] = set()
        self._is_reported = False
        self._server = Server(self._configuration)

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for decoder in self._decoders:
                decoder.close()
            self._decoders.clear()
            self._server.close()

    def extract(
        self, fetched: Sequence[FetchedImage], kind: ImageKind
    ) -> list[ExtractedFaces | ImageScore]:
        """Decode images of one facility and crop their faces, in their order.

        An image that cannot be decoded becomes its score.
        """
        items = self._ask_safely(_TASKS[kind], fetched)
        return [_make_result(image, item) for image, item in zip(fetched, items, strict=True)]

    def decode_pixels(self, fetched: FetchedImage) -> Pixels:
        """Decode an image to upright uint8 H×W×3 blue-green-red. Raises UndecodableImageError."""
        (item,) = self._ask_safely(Task.PIXELS, [fetched])
        if isinstance(item, UndecodableImageError):
            raise item
        return item.crops

    def find_missing(self) -> str:
        """What the kernel or the container lacks to confine a decoder; empty if nothing."""
        decoder = self._start_decoder("")
        self._end_decoder(decoder)
        return describe_missing(decoder.layers)

    # ------------------------------------------------------------ requests

    def _ask_safely(self, task: Task, fetched: Sequence[FetchedImage]) -> list[Item]:
        """Ask; if the decoder fails, ask again for each image alone."""
        if not fetched:
            return []
        try:
            return self._ask(task, fetched)
        except DecoderFailedError as error:
            _log_failure(fetched, error)
            if len(fetched) == 1 and error.is_late:
                return [_make_crashed(error)]
            tries = MAX_CRASHES - 1 if len(fetched) == 1 else MAX_CRASHES
        return [self._ask_alone(task, image, tries) for image in fetched]

    def _ask_alone(self, task: Task, image: FetchedImage, tries: int) -> Item:
        """Ask for one image, at most so often, each time in a new decoder."""
        for number in range(1, tries + 1):
            self._drop_decoder()
            try:
                return self._ask(task, [image])[0]
            except DecoderFailedError as error:
                _log_failure([image], error)
                if number == tries or error.is_late:
                    return _make_crashed(error)
        raise AssertionError("no try")

    def _ask(self, task: Task, fetched: Sequence[FetchedImage]) -> list[Item]:
        decoder = self._get_decoder(fetched[0].image.batch.facility_id)
        images = [each.data for each in fetched]
        largest = compute_largest_body(task, len(images), self._limits)
        try:
            body = decoder.ask(task, images, largest, self._budget)
            return parse_answer(task, len(images), body, self._limits, self._min_face_px)
        except InvalidAnswerError as error:
            self._drop_decoder()
            raise DecoderFailedError(f"gave an invalid answer: {error}") from error
        except DecoderFailedError:
            self._drop_decoder()
            raise

    # ------------------------------------------------------------ this thread's decoder

    def _get_decoder(self, facility_id: str) -> DecoderHandle:
        decoder: DecoderHandle | None = getattr(self._local, "decoder", None)
        if decoder is not None and decoder.facility_id != facility_id:
            self._drop_decoder()
            decoder = None
        if decoder is None:
            decoder = self._local.decoder = self._start_decoder(facility_id)
        return decoder

    def _drop_decoder(self) -> None:
        decoder: DecoderHandle | None = getattr(self._local, "decoder", None)
        if decoder is not None:
            self._local.decoder = None
            self._end_decoder(decoder)

    def _start_decoder(self, facility_id: str) -> DecoderHandle:
        with self._lock:
            try:
                decoder = self._server.start_decoder(facility_id)
            except (OSError, DecoderFailedError):  # the server was killed: start it once more
                self._server.close()
                self._server = Server(self._configuration)
                try:
                    decoder = self._server.start_decoder(facility_id)
                except (OSError, DecoderFailedError) as error:
                    raise ScoringProcessError(
                        f"no decoder can be started: {error}",
                        "Look for too little memory or too few processes; a retry continues",
                    ) from error
            self._decoders.add(decoder)
            missing = describe_missing(decoder.layers)
            if missing and self._is_required:
                raise SandboxError(
                    f"decoders cannot be confined; the kernel or the container lacks: {missing}",
                    "Permit it, or set FER_SANDBOX=prefer to decode without it",
                )
            if missing and not self._is_reported:
                self._is_reported = True
                log.warning("decoders are not fully confined", missing=missing)
        return decoder

    def _end_decoder(self, decoder: DecoderHandle) -> None:
        with self._lock:
            self._decoders.discard(decoder)
            decoder.close()
            with contextlib.suppress(OSError, DecoderFailedError):  # the server was killed
                self._server.end_decoder(decoder)


def _make_result(fetched: FetchedImage, item: Item) -> ExtractedFaces | ImageScore:
    if isinstance(item, DecodedImage):
        return ExtractedFaces(fetched.image, item.width_px, item.height_px, item.faces, item.crops)
    return ImageScore(fetched.image, item.outcome, item.reason)


def _make_crashed(error: DecoderFailedError) -> UndecodableImageError:
    reason = (
        f"decoding it took longer than {handles.IMAGE_DEADLINE_S:g} s"
        if error.is_late
        else "ended the process that decoded it each time"
    )
    return UndecodableImageError(Outcome.DECODER_CRASHED, reason)


def _log_failure(fetched: Sequence[FetchedImage], error: DecoderFailedError) -> None:
    batch = fetched[0].image.batch
    log.warning(
        "decoder ended",
        facility=batch.facility_id,
        day=batch.capture_day.isoformat(),
        keys=[each.image.key for each in fetched],
        reason=str(error),
    )
