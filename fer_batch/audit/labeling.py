"""The labels of an audit: the faces in the order of a rater, and labels that are stored at once.

A rater is a name. Each sees the same faces in an order of their own, which the seed of the audit
and the name decide. Two people may label an audit; a third pass (`settle`) shows only the faces on
which they disagree. Showing the faces is left to `page`, fetching their images to crops.py.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from fer_batch.audit import audits
from fer_batch.audit.audits import Audit
from fer_batch.database import connections, schema
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError
from fer_batch.facilities.registry import Facility
from fer_batch.imaging.faces import ImageKind
from fer_batch.records import Batch, Box, Image
from fer_batch.settings import Settings

MAX_RATERS = 2

_STATEMENTS = load_statements(__file__)


class Label(StrEnum):
    """What a rater sees in a face."""

    HAPPY = "happy"
    SAD = "sad"
    NEITHER = "neither"
    CANNOT_TELL = "cannot_tell"  # counts as neither


@dataclass(frozen=True, slots=True)
class AuditFace:
    """A face to label. `number` is its number in the audit, from 1.

    `box` is the face in the upright image, and `face_index` its number in the image, from 0. The
    image may be fetched only with the ETag of `image`.
    """

    number: int
    image: Image
    face_index: int
    box: Box
    image_kind: ImageKind


class Labeling:
    """A rater's pass through an audit; `with` closes its connections. It is thread-safe.

    `faces` are the faces in the order in which this rater sees them, `labels` what this pass has
    stored so far, by number of the face. `facility` says where the images are.
    """

    def __init__(
        self,
        engine: sa.Engine,
        facility: Facility,
        audit: Audit,
        rater: str,
        faces: tuple[AuditFace, ...],
        labels: dict[int, Label],
        *,
        is_settlement: bool,
    ) -> None:
        self.audit = audit
        self.facility = facility
        self.rater = rater
        self.faces = faces
        self.labels = labels
        self.is_settlement = is_settlement
        self._engine = engine
        self._numbers = {face.number for face in faces}
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def save(self, number: int, label: Label) -> None:
        """Store the label of a face, in place of an earlier one of this pass, and commit it.

        Raises ConfigurationError if the face was erased meanwhile, two others have begun to label
        the audit, or it was finished, and ValueError for a number that `faces` has not.
        """
        self._check(number)
        params = self._make_params(number) | {"label": Label(label).value}
        with self._lock:
            with connections.transaction(self._engine) as connection:
                audits.load_open(connection, self.audit.audit_id)
                connection.execute(_STATEMENTS["delete_label"], params)
                if connection.execute(_STATEMENTS["insert_label"], params).rowcount == 0:
                    raise ConfigurationError(
                        f"face {number} of audit {self.audit.audit_id} cannot be labeled any more: "
                        f"it was erased, or {MAX_RATERS} others label this audit",
                        "Go on with the next face; if none can be labeled, settle with --settle",
                    )
            self.labels[number] = Label(label)

    def remove(self, number: int) -> None:
        """Delete the label of this pass, if there is one, and commit it.

        Raises ConfigurationError if the audit was finished meanwhile, and ValueError for a number
        that `faces` has not.
        """
        self._check(number)
        with self._lock:
            with connections.transaction(self._engine) as connection:
                audits.load_open(connection, self.audit.audit_id)
                connection.execute(_STATEMENTS["delete_label"], self._make_params(number))
            self.labels.pop(number, None)

    def _check(self, number: int) -> None:
        if number not in self._numbers:
            raise ValueError(f"this pass has no face {number}")

    def _make_params(self, number: int) -> dict[str, Any]:
        return {
            "audit_id": self.audit.audit_id,
            "face_number": number,
            "rater": self.rater,
            "is_settlement": self.is_settlement,
            "max_raters": MAX_RATERS,
        }


def open_labeling(
    settings: Settings, audit_id: int, rater: str, *, settle: bool = False
) -> Labeling:
    """Open a rater's pass through an audit, to begin it or to continue.

    With `settle`, the faces are those on which two raters disagree; `rater` may be one of them.
    Faces of days that may not be read now are left out, and so are faces whose keys retention has
    dropped. Raises PermanentError if the images of the facility may not be read, and
    ConfigurationError if there is no such audit, it is finished, two others have labeled it, or
    there is nothing to settle.
    """
    name = " ".join(rater.split())
    if not name or not name.isprintable() or len(name) > 100:
        raise ConfigurationError(
            "a rater needs a name of 1 to 100 printable characters", "Give --rater"
        )
    engine = connections.create_engine(settings)
    try:
        schema.check_migrated(engine)
        with connections.transaction(engine) as connection:
            audit = audits.load_open(connection, audit_id)
            ratings, settlements = load_labels(connection, audit_id)
            faces = _load_faces(connection, settings, audit, name)
    except BaseException:
        engine.dispose()
        raise
    facility = audits.load_facility(settings, audit.facility_id)
    if settle:
        disputed = find_disputed(ratings)
        faces = tuple(face for face in faces if face.number in disputed)
        if not faces:
            engine.dispose()
            raise ConfigurationError(
                f"audit {audit_id} has nothing to settle: two raters disagree on no face",
                "Let a second person label it first: `fer-batch audit label --rater NAME`",
            )
        labels = {number: label for number, (_, label) in settlements.items()}
    else:
        raters = sorted({each for of_face in ratings.values() for each in of_face} | {name})
        if len(raters) > MAX_RATERS:
            engine.dispose()
            others = " and ".join(each for each in raters if each != name)
            raise ConfigurationError(
                f"audit {audit_id} was labeled by {others}; a third rater is not needed",
                "Settle their disagreements with --settle",
            )
        labels = {n: of_face[name] for n, of_face in ratings.items() if name in of_face}
    numbers = {face.number for face in faces}
    return Labeling(
        engine,
        facility,
        audit,
        name,
        faces,
        {number: label for number, label in labels.items() if number in numbers},
        is_settlement=settle,
    )


def load_labels(
    connection: sa.Connection, audit_id: int
) -> tuple[dict[int, dict[str, Label]], dict[int, tuple[str, Label]]]:
    """The ratings by face and rater, and the settlements by face with who settled it."""
    ratings: dict[int, dict[str, Label]] = defaultdict(dict)
    settlements: dict[int, tuple[str, Label]] = {}
    rows = connection.execute(_STATEMENTS["load_labels"], {"audit_id": audit_id})
    for number, rater, is_settlement, label in rows:
        if is_settlement:
            settlements[number] = (rater, Label(label))
        else:
            ratings[number][rater] = Label(label)
    return dict(ratings), settlements


def find_disputed(ratings: Mapping[int, Mapping[str, Label]]) -> set[int]:
    """The faces that two raters count as different classes, whether or not that is settled."""
    return {
        number
        for number, of_face in ratings.items()
        if len({count_as(label) for label in of_face.values()}) > 1
    }


def count_as(label: Label) -> str:
    """The true class that a label counts as: `cannot_tell` is neither."""
    return Label.NEITHER.value if label is Label.CANNOT_TELL else label.value


def order_faces(seed: int, rater: str, numbers: list[int]) -> list[int]:
    """The numbers in the order in which this rater sees them."""

    def hash_number(number: int) -> bytes:
        return hashlib.sha256(f"{seed}:{rater}:{number}".encode()).digest()

    return sorted(numbers, key=hash_number)


def _load_faces(
    connection: sa.Connection, settings: Settings, audit: Audit, rater: str
) -> tuple[AuditFace, ...]:
    """The faces whose images may be read, in the rater's order.

    Raises PermanentError if none may be read, and ConfigurationError if none is left.
    """
    rows = {row["face_number"]: row for row in load_rows(connection, audit)}
    kind = audits.load_facility(settings, audit.facility_id).image_kind
    days = sorted({row["capture_day"] for row in rows.values()})
    permitted = set(audits.find_permitted(settings, audit.facility_id, days))
    return tuple(
        build_face(audit.facility_id, rows[number], kind)
        for number in order_faces(audit.seed, rater, list(rows))
        if rows[number]["capture_day"] in permitted
    )


def load_rows(connection: sa.Connection, audit: Audit) -> Sequence[Mapping[Any, Any]]:
    """The rows of `fer.audit_face` that have their keys. Raises ConfigurationError without any."""
    params = {"audit_id": audit.audit_id}
    rows = connection.execute(_STATEMENTS["load_faces"], params).mappings().all()
    if not rows:
        raise ConfigurationError(
            f"of audit {audit.audit_id} no face is left that can be shown",
            "Erasure and retention have deleted them. Take a new one: `fer-batch audit sample`",
        )
    return rows


def build_face(facility_id: str, row: Mapping[Any, Any], kind: ImageKind) -> AuditFace:
    """The face of a row of `fer.audit_face` that has its key."""
    image = Image(
        Batch(facility_id, row["capture_day"]),
        row["image_key"],
        row["etag"],
        row["size_bytes"],
        row["member"],
    )
    box = Box(row["box_x"], row["box_y"], row["box_width"], row["box_height"])
    return AuditFace(row["face_number"], image, row["face_index"], box, kind)
