"""Scores the faces of an audit with another model version, so that a promotion keeps the audit.

The labels say what people see, whatever the CNN: only what the model version calls the faces is
computed again, from the objects in S3, as in a nightly run. Objects that are gone or were
overwritten are counted; their faces do not count for this model version. Showing faces to raters is
left to crops.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from fer_batch.audit import audits
from fer_batch.audit.audits import Audit
from fer_batch.audit.labeling import AuditFace, build_face, load_rows
from fer_batch.concurrency import group_chunks
from fer_batch.database import connections, schema
from fer_batch.database.statements import load_statements
from fer_batch.errors import StorageUnavailableError
from fer_batch.facilities.registry import Facility
from fer_batch.imaging.faces import DetectedFace, ExtractedFaces
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.log import get_logger
from fer_batch.model.classifier import Classifier, Cnn, score_faces
from fer_batch.records import Box, CalledClass, Image, ImageScore, Outcome
from fer_batch.settings import Settings
from fer_batch.storage.reader import BucketReader

log = get_logger(__name__)

SAME_FACE_OVERLAP = 0.5
"""A detected face is the labeled one if their boxes overlap at least so much (intersection over
union, 0 to 1). Of several, the one that overlaps most is."""
NOT_FOUND = "face not found"
NOT_PERMITTED = "not permitted"
DROPPED = "dropped by retention"

_CHUNK_IMAGES = 64
_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The faces of an audit that a model version has scored.

    `not_scored` counts the other faces by reason: an outcome, `NOT_FOUND` if the model version's
    detector does not find the face, `NOT_PERMITTED`, or `DROPPED`. `same` is how many faces are
    called as by the model version of the draw.
    """

    audit: Audit
    model_version: str
    scored: int
    same: int
    not_scored: Mapping[str, int]


def refresh(settings: Settings, audit_id: int, cnn: Cnn) -> Refreshed:
    """Score the faces of an audit with a CNN under these settings, and store what it calls them.

    What was stored for this model version before is replaced, all in one transaction. Raises
    ConfigurationError if there is no such audit or it has no face left, PermanentError if the
    images of the facility may not be read, StorageUnavailableError if S3 fails for some of them
    (nothing is stored then), and the errors of S3, the decoders and the CNN.
    """
    classifier = Classifier(settings, cnn)
    with schema.open_engine(settings) as engine:
        with connections.transaction(engine) as connection:
            audit = audits.load(connection, audit_id)
            rows = load_rows(connection, audit)
        facility = audits.load_facility(settings, audit.facility_id)
        days = audits.find_permitted(
            settings, audit.facility_id, sorted({row["capture_day"] for row in rows})
        )
        faces = [
            build_face(audit.facility_id, row, facility.image_kind)
            for row in rows
            if row["capture_day"] in days
        ]
        not_scored = Counter({NOT_PERMITTED: len(rows) - len(faces)})
        called: dict[int, CalledClass] = {}
        of_image: dict[Image, list[AuditFace]] = defaultdict(list)
        for face in faces:
            of_image[face.image].append(face)
        images = _list_remaining(engine, audit_id, of_image)
        for number, result in _score(settings, facility, images, of_image, classifier):
            if isinstance(result, CalledClass):
                called[number] = result
            else:
                not_scored[result] += 1
        if failed := not_scored[Outcome.FETCH_FAILED.value]:
            raise StorageUnavailableError(
                f"{failed} images of audit {audit_id} could not be fetched",
                "Nothing was stored; run the command again",
            )
        params = {"audit_id": audit_id, "model_version": classifier.model_version}
        with connections.transaction(engine) as connection:
            counts = connection.execute(_STATEMENTS["count_dropped"], params).scalar_one()
            not_scored[DROPPED] = counts
            connection.execute(_STATEMENTS["delete_results"], params)
            if called:
                connection.execute(
                    _STATEMENTS["insert_result"],
                    [
                        params | {"face_number": number, "called_class": each.value}
                        for number, each in sorted(called.items())
                    ],
                )
            same = connection.execute(_STATEMENTS["count_same"], params).scalar_one()
    log.info(
        "audit refreshed",
        facility=audit.facility_id,
        audit=audit_id,
        model_version=classifier.model_version[:12],
        faces=len(called),
    )
    return Refreshed(audit, classifier.model_version, len(called), same, dict(+not_scored))


def _list_remaining(
    engine: sa.Engine, audit_id: int, of_image: Mapping[Image, Sequence[AuditFace]]
) -> Iterator[Image]:
    """The images, without those that were erased or dropped before their turn comes."""
    for chunk in group_chunks(of_image, _CHUNK_IMAGES):
        with connections.transaction(engine) as connection:
            rows = connection.execute(_STATEMENTS["list_remaining"], {"audit_id": audit_id})
            numbers = set(rows.scalars())
        for image in chunk:
            if any(face.number in numbers for face in of_image[image]):
                yield image


def _score(
    settings: Settings,
    facility: Facility,
    images: Iterable[Image],
    of_image: Mapping[Image, Sequence[AuditFace]],
    classifier: Classifier,
) -> Iterator[tuple[int, CalledClass | str]]:
    """The number of each face with its called class, or why it was not scored."""
    with BucketReader(settings, facility) as reader, Decoders(settings) as decoders:
        for chunk in group_chunks(reader.fetch_many(images), _CHUNK_IMAGES):
            for fetched in chunk:
                wanted = of_image[fetched.image]
                if isinstance(fetched, ImageScore):
                    extracted: ExtractedFaces | ImageScore = fetched
                else:
                    (extracted,) = decoders.extract([fetched], facility.image_kind)
                if isinstance(extracted, ImageScore):
                    yield from ((face.number, extracted.outcome.value) for face in wanted)
                else:
                    yield from _call(extracted, wanted, classifier)


def _call(
    extracted: ExtractedFaces, wanted: Sequence[AuditFace], classifier: Classifier
) -> Iterator[tuple[int, CalledClass | str]]:
    scores = score_faces(classifier.classify(extracted.crops), extracted.faces, classifier.rule)
    for face in wanted:
        index = find_same_face(face.box, extracted.faces)
        yield face.number, NOT_FOUND if index is None else scores[index].called_class


def find_same_face(box: Box, faces: Sequence[DetectedFace]) -> int | None:
    """The index of the detected face whose box is that of a labeled face; None if none is."""
    overlaps = np.array([compute_overlap(box, face.box) for face in faces])
    if not len(overlaps) or overlaps.max() < SAME_FACE_OVERLAP:
        return None
    return int(overlaps.argmax())


def compute_overlap(first: Box, second: Box) -> float:
    """The intersection over union of two boxes, 0 to 1."""
    shared = first.count_shared_px(second)
    both = first.width * first.height + second.width * second.height
    return shared / (both - shared)
