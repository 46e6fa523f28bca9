"""An audit in memory with drawn faces, and the labeling page that shows them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

import cv2
import numpy as np
import uvicorn

from fer_batch.audit.crops import SIDE_PX, HiddenFace
from fer_batch.audit.labeling import AuditFace, Label
from fer_batch.audit.page.app import LabelingApp
from fer_batch.audit.page.server import build_config
from fer_batch.audit.page.session import LabelingSession
from fer_batch.errors import FerError
from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.faces import crop_square
from fer_batch.local.demo.drawing import draw_face
from fer_batch.local.demo.heads import Mouth
from fer_batch.records import Batch, Box, Image

TOKEN = "a-token-of-the-tests"
SHOWN = "[data-label=happy][aria-disabled=false]"
"""Selector of a button that is enabled while a face is shown."""
KEY = "mall/2026-11-20/{:04}.jpg"
MOUTHS: tuple[Mouth, ...] = ("smile", "droop", "level")


@dataclass
class LabelsInMemory:
    """A rater's labels. `error` is raised instead of storing one; `log` has what was stored."""

    faces: tuple[AuditFace, ...]
    labels: dict[int, Label] = field(default_factory=dict)
    error: Exception | None = None
    log: list[tuple[int, str]] = field(default_factory=list)

    def save(self, number: int, label: Label) -> None:
        if self.error is not None:
            raise self.error
        self.labels[number] = label
        self.log.append((number, label.value))

    def remove(self, number: int) -> None:
        del self.labels[number]
        self.log.append((number, ""))


@dataclass
class DrawnPictures:
    """Pictures that are drawn. `hidden` and `failing` are faces by number that are not shown.

    `unreadable` are faces of which only reading tells it, as with a changed object.
    """

    hidden: dict[int, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    failing: dict[int, FerError] = field(default_factory=dict)
    read_numbers: list[int] = field(default_factory=list)

    def find_obstacle(self, face: AuditFace) -> HiddenFace | None:
        reason = self.hidden.get(face.number)
        return HiddenFace(reason) if reason else None

    def read(self, face: AuditFace) -> bytes | HiddenFace:
        self.read_numbers.append(face.number)
        if face.number in self.failing:
            raise self.failing[face.number]
        reason = self.hidden.get(face.number) or self.unreadable.get(face.number)
        return HiddenFace(reason) if reason else draw_picture(face.number)


def draw_picture(number: int) -> bytes:
    """A drawn face as the page gets it."""
    face = draw_face(np.random.default_rng(number), MOUTHS[number % 3], size_px=160)
    return cv2.imencode(".png", crop_square(face, Box(0, 0, 160, 160), SIDE_PX))[1].tobytes()


def decode_picture(data: bytes) -> Pixels:
    """The pixels of a picture, blue-green-red."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels, np.uint8)


def build_faces(count: int) -> tuple[AuditFace, ...]:
    """Faces in an order that is not that of their numbers, which begin with 1."""
    batch = Batch("mall", date(2026, 11, 20))
    numbers = np.random.default_rng(1).permutation(count) + 1
    return tuple(
        AuditFace(int(n), Image(batch, KEY.format(n), "etag", 1300), 0, Box(0, 0, 48, 48), "crops")
        for n in numbers
    )


@dataclass
class Page:
    """The page of an audit in memory."""

    labels: LabelsInMemory
    pictures: DrawnPictures = field(default_factory=DrawnPictures)

    @classmethod
    def build(cls, faces: int) -> Page:
        return cls(LabelsInMemory(build_faces(faces)))

    @property
    def order(self) -> list[int]:
        """The numbers of the faces, as this rater sees them."""
        return [face.number for face in self.labels.faces]

    @cached_property
    def app(self) -> LabelingApp:
        session = LabelingSession(
            self.labels, self.pictures, "Labeling audit 3 of Harbour Café, as Anna"
        )
        return LabelingApp(session, TOKEN)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serve the page on a free port; yields its address."""
        server = uvicorn.Server(build_config(self.app.asgi))
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            with self.app:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}/{TOKEN}/"
        finally:
            server.should_exit = True
            thread.join()
            listening.close()
