"""The faces of an audit as pictures, for the people who label them.

A picture is the square that the CNN is given, in color and at the camera's own resolution, enlarged
to a fixed size. It exists in memory only: it is fetched from S3, decoded in a process without
rights, and encoded as PNG; nothing is written. Permission and erasure hold as for a run: each face
is looked up in the registry and in the ledger before its image is read. Showing the pictures is
left to the package page.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import cv2
import sqlalchemy as sa

from fer_batch.audit.labeling import AuditFace
from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.errors import PermanentError, StorageUnavailableError
from fer_batch.facilities.loading import Registry, load_registry
from fer_batch.facilities.registry import Facility
from fer_batch.imaging.faces import crop_square
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.records import FetchedImage, Image, Outcome
from fer_batch.settings import Settings
from fer_batch.storage.reader import BucketReader

_STATEMENTS = load_statements(__file__)

SIDE_PX = 480
"""Side of a picture. Smaller faces are enlarged by cubic interpolation, as for the CNN."""
UNLISTED = "the image was erased, or is not listed any more"


@dataclass(frozen=True, slots=True)
class HiddenFace:
    """A face that cannot be shown. `reason` has nothing of the image's key or content."""

    reason: str


class CropReader:
    """Reads faces of one facility as pictures. Safe to use from threads; `with` closes it.

    `engine` and `decoders` are not closed here.
    """

    def __init__(
        self, settings: Settings, engine: sa.Engine, decoders: Decoders, facility: Facility
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._decoders = decoders
        self._registry = _RegistryFile(settings)
        self._reader = BucketReader(settings, facility)

    def __enter__(self) -> CropReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def find_obstacle(self, face: AuditFace) -> HiddenFace | None:
        """Why the face may not be shown at this moment, by the registry and the ledger.

        Raises ConfigurationError for a registry that cannot be read, and the database's errors.
        """
        found = self._find_image(face)
        return found if isinstance(found, HiddenFace) else None

    def read(self, face: AuditFace) -> bytes | HiddenFace:
        """The picture of a face: a PNG of `SIDE_PX` × `SIDE_PX`, in color.

        Raises what `find_obstacle` raises; StorageError or StorageUnavailableError where S3 as a
        whole refuses or does not answer; ModelError, SandboxError or ScoringProcessError where
        nothing can be decoded.
        """
        image = self._find_image(face)
        if isinstance(image, HiddenFace):
            return image
        (fetched,) = self._reader.fetch_many([image])
        if not isinstance(fetched, FetchedImage):
            if fetched.outcome is Outcome.FETCH_FAILED:
                raise StorageUnavailableError(
                    f"the image could not be fetched: {fetched.reason}", "Try again"
                )
            return HiddenFace(fetched.reason)
        try:
            pixels = self._decoders.decode_pixels(fetched)
        except UndecodableImageError as error:
            return HiddenFace(error.reason)
        # The encoder gets pixels that were checked, never the bytes of an image.
        _, picture = cv2.imencode(".png", crop_square(pixels, face.box, SIDE_PX))
        return picture.tobytes()

    def _find_image(self, face: AuditFace) -> Image | HiddenFace:
        batch = face.image.batch
        registry = self._registry.load()
        try:
            registry.get_permitted(batch, self._settings.strict_registry_from)
        except PermanentError as error:
            return HiddenFace(str(error))
        params = {
            "facility_id": batch.facility_id,
            "capture_day": batch.capture_day,
            "image_key": face.image.key,
            "member": face.image.member,
        }
        with connections.transaction(self._engine) as connection:
            is_archived = connection.execute(_STATEMENTS["find_image"], params).scalar()
        if is_archived is None:
            return HiddenFace(UNLISTED)
        return replace(face.image, is_archived=is_archived)


class _RegistryFile:
    """The facility registry, read again when its file changes: a permission may be withdrawn."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._version: object = None
        self._registry: Registry | None = None

    def load(self) -> Registry:
        """The registry as its file is at this moment. Raises ConfigurationError."""
        path = self._settings.facilities_file
        with self._lock:
            try:
                state = path.stat()
            except OSError:
                version = None  # reading it says what is wrong
            else:
                version = (state.st_mtime_ns, state.st_size, state.st_ino)
            if self._registry is None or version is None or version != self._version:
                self._registry = load_registry(path, self._settings)
                self._version = version
            return self._registry
