"""Decoding in the scoring process itself: what the sandbox costs is the difference."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import cv2

from fer_batch.imaging.decoding import ImageLimits
from fer_batch.imaging.faces import ExtractedFaces, FaceDetector, ImageKind, extract_faces
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.records import FetchedImage, ImageScore
from fer_batch.settings import Settings


class InProcessDecoders(Decoders):
    """Takes the place of the sandboxed decoders, for images that can be decoded."""

    def __init__(self, settings: Settings) -> None:
        cv2.setNumThreads(1)  # as in a decoder: each thread decodes other images
        self._local = threading.local()
        self._settings = settings
        self._limits = ImageLimits.from_settings(settings)

    def extract(
        self, fetched: Sequence[FetchedImage], kind: ImageKind
    ) -> list[ExtractedFaces | ImageScore]:
        if kind == "frames" and not hasattr(self._local, "detector"):
            self._local.detector = FaceDetector(self._settings)
        detector = getattr(self._local, "detector", None)
        return [self._extract(each, kind, detector) for each in fetched]

    def _extract(
        self, fetched: FetchedImage, kind: ImageKind, detector: FaceDetector | None
    ) -> ExtractedFaces:
        decoded = extract_faces(fetched.data, kind, self._limits, detector)
        return ExtractedFaces(
            fetched.image, decoded.width_px, decoded.height_px, decoded.faces, decoded.crops
        )
