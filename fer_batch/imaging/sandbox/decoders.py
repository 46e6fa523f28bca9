"""Send images to confined decoders, one for each thread, and check what comes back.

This side holds the secrets and decodes nothing. A decoder that dies, takes too long or gives an
answer that is none costs one image: it is ended, and its images are sent again, each alone to a new
decoder. An image that then ends its decoder again gets the outcome `decoder_crashed`. Each facility
has decoders of its own, so that an image that takes over its decoder cannot change the results of
another facility.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from fer_batch.errors import ModelError, SandboxError, ScoringProcessError
from fer_batch.imaging.decoding import ImageLimits, Pixels, UndecodableImageError
from fer_batch.imaging.faces import DecodedImage, ExtractedFaces, ImageKind
from fer_batch.imaging.sandbox import control
from fer_batch.imaging.sandbox.confinement import Layer, describe_missing
from fer_batch.imaging.sandbox.memory import MemoryBudget
from fer_batch.imaging.sandbox.messages import (
    ANSWER,
    GRANTED,
    InvalidAnswerError,
    Item,
    Kind,
    Task,
    compute_largest_body,
    format_request,
    parse_answer,
)
from fer_batch.log import get_logger
from fer_batch.records import FetchedImage, ImageScore, Outcome
from fer_batch.settings import Settings

log = get_logger(__name__)

IMAGE_DEADLINE_S = 60.0
"""Time for one request, without waiting for memory. A frame takes less than a second."""
START_DEADLINE_S = 120.0
"""Time in which the server has loaded OpenCV, also on a machine that is overloaded."""
MAX_CRASHES = 2
"""An image that ends its decoder so often while it is alone is not decoded any more."""
SERVER_MODULE = "fer_batch.imaging.sandbox.server"
# Libraries of linear algebra start threads when they are loaded, which would not survive a fork.
_BOOT = (
    "import importlib, json, os, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "os.environ['OPENBLAS_NUM_THREADS'] = os.environ['OMP_NUM_THREADS'] = '1'; "
    "importlib.import_module(sys.argv[1]).main(int(sys.argv[3]))"
)
_PIPE_BYTES = 1 << 20
_TASKS = {"crops": Task.CROPS, "frames": Task.FRAMES}


class DecoderFailedError(Exception):
    """A decoder died, took too long or gave an invalid answer. `str` is what happened."""

    def __init__(self, what: str, *, is_late: bool = False) -> None:
        super().__init__(what)
        self.is_late = is_late


class Decoders:
    """Decodes images in processes without rights; `with` ends them. Safe to use from threads.

    The server process starts at once and loads OpenCV while the caller does something else; the
    first image waits for it. Raises ModelError for a wrong detector file and, with
    `FER_SANDBOX=require`, SandboxError where a layer of the confinement is missing, both with the
    first image.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits = ImageLimits.from_settings(settings)
        self._min_face_px = settings.min_face_px
        self._is_required = settings.sandbox == "require"
        self._budget = MemoryBudget(settings.compute_decode_memory())
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
        self._decoders: set[_Decoder] = set()
        self._is_reported = False
        self._server = _Server(self._configuration)

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

    def _get_decoder(self, facility_id: str) -> _Decoder:
        decoder: _Decoder | None = getattr(self._local, "decoder", None)
        if decoder is not None and decoder.facility_id != facility_id:
            self._drop_decoder()
            decoder = None
        if decoder is None:
            decoder = self._local.decoder = self._start_decoder(facility_id)
        return decoder

    def _drop_decoder(self) -> None:
        decoder: _Decoder | None = getattr(self._local, "decoder", None)
        if decoder is not None:
            self._local.decoder = None
            self._end_decoder(decoder)

    def _start_decoder(self, facility_id: str) -> _Decoder:
        with self._lock:
            try:
                decoder = self._server.start_decoder(facility_id)
            except (OSError, DecoderFailedError):  # the server was killed: start it once more
                self._server.close()
                self._server = _Server(self._configuration)
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

    def _end_decoder(self, decoder: _Decoder) -> None:
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
        f"decoding it took longer than {IMAGE_DEADLINE_S:g} s"
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


class _Server:
    """The server process, and the socket to it."""

    def __init__(self, configuration: control.Configuration) -> None:
        text = configuration.to_json()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-c", _BOOT, SERVER_MODULE),
                    json.dumps([os.path.abspath(path) for path in sys.path]),  # noqa: PTH100
                    str(theirs.fileno()),
                ],
                env={},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libjpeg and libpng print about each damaged image
            )
        self._control.settimeout(START_DEADLINE_S)
        self._is_ready = False
        self._control.sendall(control.LENGTH.pack(len(text)) + text)

    def start_decoder(self, facility_id: str) -> _Decoder:
        """Fork a decoder. Raises DecoderFailedError or OSError if the server is gone."""
        self._await_ready()
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        try:
            command = control.COMMAND.pack(control.START, 0)
            socket.send_fds(self._control, [command], [requests_read, answers_write])
            (process,) = control.REPLY.unpack(self._receive(control.REPLY.size))
        except BaseException:
            os.close(requests_write)
            os.close(answers_read)
            raise
        finally:
            os.close(requests_read)
            os.close(answers_write)
        return _Decoder(process, facility_id, requests_write, answers_read)

    def end_decoder(self, decoder: _Decoder) -> None:
        self._control.sendall(control.COMMAND.pack(control.END, decoder.process))
        self._receive(control.REPLY.size)

    def close(self) -> None:
        """End the server; it ends its decoders."""
        self._control.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_ready(self) -> None:
        if self._is_ready:
            return
        (length,) = control.LENGTH.unpack(self._receive(control.LENGTH.size))
        if problems := json.loads(self._receive(length)):
            raise ModelError(problems[0])
        self._is_ready = True

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._control.recv(size - len(data))
            if not part:
                raise DecoderFailedError("the server of the decoders has ended")
            data += part
        return data


class _Decoder:
    """One decoder: its two pipes, and the layers of its confinement."""

    def __init__(self, process: int, facility_id: str, requests: int, answers: int) -> None:
        self.process = process
        self.facility_id = facility_id
        self._requests, self._answers = requests, answers
        for descriptor in (requests, answers):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError, AttributeError):  # Linux, within the user's limit
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(answers, select.POLLIN)
        self._writable.register(requests, select.POLLOUT)
        self._deadline = time.monotonic() + START_DEADLINE_S
        try:
            kind, layers = self._read_header()
        except DecoderFailedError:
            self.close()
            raise
        if kind != Kind.READY:
            self.close()
            raise DecoderFailedError("did not start")
        self.layers = Layer(layers)

    def close(self) -> None:
        os.close(self._requests)
        os.close(self._answers)

    def ask(
        self, task: Task, images: Sequence[bytes], largest: int, budget: MemoryBudget
    ) -> bytearray:
        """Send a request and return the body of the answer, of at most `largest` bytes.

        Raises DecoderFailedError if the decoder dies, lies or is late.
        """
        self._deadline = time.monotonic() + IMAGE_DEADLINE_S
        for part in format_request(task, images):
            self._write(part)
        taken = 0
        try:
            while True:
                kind, number = self._read_header()
                budget.give_back(taken)
                taken = 0
                if kind == Kind.DONE and number <= largest:
                    return self._read(number)
                if kind != Kind.NEEDS or number > budget.total_bytes:
                    raise DecoderFailedError("gave an invalid answer")
                budget.take(number)
                taken = number
                self._deadline = time.monotonic() + IMAGE_DEADLINE_S
                self._write(GRANTED)
        finally:
            budget.give_back(taken)

    def _read_header(self) -> tuple[int, int]:
        kind, number = ANSWER.unpack(self._read(ANSWER.size))
        return kind, number

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                count = os.readv(self._answers, [rest])
            except BlockingIOError:
                self._wait(self._readable)
                continue
            if count == 0:
                raise DecoderFailedError("died")
            rest = rest[count:]
        return data

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                self._wait(self._writable)
            except BrokenPipeError:
                raise DecoderFailedError("died") from None

    def _wait(self, poll: select.poll) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(1000 * left_s):
            raise DecoderFailedError("took too long", is_late=True)
