"""The process that forks decoders, and the decoders themselves.

The server is started with an empty environment and holds nothing but OpenCV and the face detector.
It never sees a byte of an image: each request starts or ends a decoder, which is a fork of it. The
server has one thread, so that a fork is safe, and ends its decoders and itself when the other side
of its socket is closed. Decoders end when their pipe is closed, or when the server ends.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import cv2
import numpy as np

from fer_batch.errors import FerError
from fer_batch.imaging.decoding import ImageLimits, decode_image, estimate_memory
from fer_batch.imaging.faces import DecodedImage, FaceDetector, ImageKind, extract_faces
from fer_batch.imaging.headers import Header, UndecodableImageError
from fer_batch.imaging.sandbox import confinement
from fer_batch.imaging.sandbox.control import COMMAND, LENGTH, REPLY, START, Configuration
from fer_batch.imaging.sandbox.messages import (
    ANSWER,
    GRANTED,
    REQUEST,
    SIZE_BYTES,
    SMALL_BYTES,
    Item,
    Kind,
    Task,
    format_body,
    unpack_sizes,
)
from fer_batch.records import Outcome

Reserve = Callable[[Header], None]
FREE_BYTES = 32_000_000
"""Memory that a decoder takes for an image without asking."""


def main(descriptor: int) -> None:
    """Serve the socket until its other side is closed. Never returns in a decoder."""
    os.environ.clear()  # of what Python and the start itself have added
    for number in (signal.SIGINT, signal.SIGTERM):  # the other side decides when to end
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as control:
        try:
            decoding = _load(Configuration.from_json(_receive_text(control)))
        except FerError as error:
            _send_text(control, json.dumps([str(error)]).encode())
            return
        _send_text(control, b"[]")
        gc.freeze()  # what is loaded stays, and its pages stay shared with the decoders
        _serve(control, decoding)


def _load(configuration: Configuration) -> Decoding:
    cv2.setNumThreads(1)
    decoding = Decoding(configuration, FaceDetector(configuration))
    decoding.warm_up()
    return decoding


def _receive_text(control: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(control.recv(LENGTH.size, socket.MSG_WAITALL))
    return control.recv(length, socket.MSG_WAITALL)


def _send_text(control: socket.socket, text: bytes) -> None:
    control.sendall(LENGTH.pack(len(text)) + text)


def _serve(control: socket.socket, decoding: Decoding) -> None:
    decoders: set[int] = set()
    try:
        while True:
            command, descriptors, _, _ = socket.recv_fds(control, COMMAND.size, 2)
            if len(command) < COMMAND.size:
                return
            action, process = COMMAND.unpack(command)
            if action == START:
                reply = os.fork()
                if reply == 0:
                    _become_decoder(decoding, *descriptors)
                decoders.add(reply)
                for descriptor in descriptors:
                    os.close(descriptor)
            else:
                if process in decoders:
                    decoders.remove(process)
                    _end(process)
                reply = 0
            control.sendall(REPLY.pack(reply))
    finally:
        for process in decoders:
            _end(process)


def _end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


# ---------------------------------------------------------------- in a decoder


def _become_decoder(decoding: Decoding, requests: int, answers: int) -> NoReturn:
    """Give up all rights, then answer requests. A failure of any kind ends the process."""
    try:
        layers = confinement.confine({requests, answers}, decoding.configuration.memory_bytes)
        pipes = _Pipes(requests, answers)
        pipes.write([ANSWER.pack(Kind.READY, layers)])
        while True:
            task, count = REQUEST.unpack(pipes.read(REQUEST.size))
            items = decoding.decode_all(Task(task), pipes.read_images(count), pipes)
            parts = format_body(Task(task), items)
            size = sum(map(len, parts))
            pipes.write([ANSWER.pack(Kind.DONE, size), *parts], size)
    except BaseException:
        os._exit(1)  # also at the end of the pipe
    os._exit(0)


class _Pipes:
    """The two pipes of a decoder."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises EOFError at the end of the pipe."""
        data = os.read(self._requests, size) if size else b""
        if len(data) == size:
            return data
        parts = [data]
        while size := size - len(parts[-1]):
            if not parts[-1]:
                raise EOFError
            parts.append(os.read(self._requests, size))
        return b"".join(parts)

    def read_images(self, count: int) -> list[bytes]:
        """The images of a request, after its header."""
        sizes = unpack_sizes(self.read(count * SIZE_BYTES))
        if sum(sizes) > SMALL_BYTES:
            return [self.read(size) for size in sizes]
        data = self.read(sum(sizes))
        ends = itertools.accumulate(sizes)
        return [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def write(self, parts: Sequence[bytes | memoryview], size: int = 0) -> None:
        for part in [b"".join(parts)] if size <= SMALL_BYTES else parts:
            data = memoryview(part)
            while data:
                data = data[os.write(self._answers, data) :]


class Decoding:
    """The work of a decoder on one image after the other."""

    def __init__(self, configuration: Configuration, detector: FaceDetector) -> None:
        self.configuration = configuration
        self._limits = ImageLimits(
            configuration.max_bytes, configuration.max_pixels, configuration.min_px
        )
        self._detector = detector

    def decode_all(self, task: Task, images: Iterable[bytes], pipes: _Pipes | None) -> list[Item]:
        """What became of each image. Waits for memory that one needs beyond `FREE_BYTES`."""

        def reserve(header: Header) -> None:
            self._reserve(header, pipes)

        decode = self._decode_pixels if task is Task.PIXELS else self._extract
        kind: ImageKind = "crops" if task is Task.CROPS else "frames"
        items: list[Item] = []
        for data in images:
            try:
                items.append(decode(data, kind, reserve))
            except UndecodableImageError as error:
                items.append(error)
        return items

    def _extract(self, data: bytes, kind: ImageKind, reserve: Reserve) -> DecodedImage:
        return extract_faces(data, kind, self._limits, self._detector, reserve)

    def _decode_pixels(self, data: bytes, _: ImageKind, reserve: Reserve) -> DecodedImage:
        pixels = np.ascontiguousarray(decode_image(data, self._limits, reserve=reserve))
        return DecodedImage(pixels.shape[1], pixels.shape[0], (), pixels)

    def _reserve(self, header: Header, pipes: _Pipes | None) -> None:
        needed = estimate_memory(header)
        limit = self.configuration.memory_bytes
        if needed > limit:
            raise UndecodableImageError(
                Outcome.TOO_LARGE,
                f"{header.format} of {header.width_px:,}×{header.height_px:,} pixels: decoding "
                f"takes {needed / 1e6:,.0f} MB; the limit is {limit / 1e6:,.0f} MB",
            )
        if needed > FREE_BYTES and pipes is not None:
            pipes.write([ANSWER.pack(Kind.NEEDS, needed)])
            if pipes.read(len(GRANTED)) != GRANTED:
                raise EOFError

    def warm_up(self) -> None:
        """Decode an image of each format: what a library loads at its first use is then loaded."""
        pixels: Any = np.zeros((64, 64, 3), np.uint8)
        for extension in (".jpg", ".png", ".webp"):
            data = cv2.imencode(extension, pixels)[1].tobytes()
            for task in Task:
                self.decode_all(task, [data], None)
