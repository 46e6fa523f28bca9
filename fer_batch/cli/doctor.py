"""The diagnosis of `fer-batch check`: tests everything that a run needs before the nightly run.

Each part is tested with the code that a run uses. A failure comes with a hint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from fer_batch.cli.common import explain_error
from fer_batch.errors import FerError
from fer_batch.facilities import registry
from fer_batch.facilities.registry import Facility
from fer_batch.settings import Settings


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result for one part. `detail` is its state, or the error with its hint."""

    part: str
    is_ok: bool
    detail: str


def diagnose(settings: Settings) -> list[Diagnosis]:
    """Test the database, the CNN, the face detector, the registry and each facility's bucket."""
    return list(_run_checks(settings))


def _run_checks(settings: Settings) -> Iterator[Diagnosis]:
    yield _try("database", lambda: _check_database(settings))
    yield _try("CNN", lambda: _check_cnn(settings))
    yield _try("face detector", lambda: _check_detector(settings))
    try:
        facilities = registry.load_registry(settings.facilities_file, settings)
    except FerError as error:
        yield Diagnosis("facility registry", False, explain_error(error))
        return
    yield Diagnosis("facility registry", True, ", ".join(facilities))
    for facility in facilities.values():
        yield _try(f"facility {facility.facility_id}", partial(_check_facility, settings, facility))


def _try(part: str, check: Callable[[], str]) -> Diagnosis:
    try:
        return Diagnosis(part, True, check())
    except FerError as error:
        return Diagnosis(part, False, str(error))


def _check_database(settings: Settings) -> str:
    from fer_batch.database import connections, schema

    engine = connections.create_engine(settings)
    schema.check_migrated(engine)
    return f"{engine.url.host}:{engine.url.port}/{engine.url.database} is up to date"


def _check_cnn(settings: Settings) -> str:
    from fer_batch.model import active_model
    from fer_batch.model.classifier import Classifier

    active = active_model.load_active(settings)
    classifier = Classifier(settings, active.cnn)
    version = classifier.model_version[:12]
    return f"{classifier.card.name}, model version {version}: {active.why}"


def _check_detector(settings: Settings) -> str:
    from fer_batch.imaging.faces import FaceDetector

    FaceDetector(settings)
    return "YuNet is loaded"


def _check_facility(settings: Settings, facility: Facility) -> str:
    now = datetime.now(UTC)
    today = facility.compute_local_day(now)
    if denial_reason := facility.get_denial_reason(today, now):
        # Without a permission, not even the bucket is accessed.
        return f"skipped: {denial_reason}"
    from fer_batch.storage.reader import BucketReader

    with BucketReader(settings, facility) as reader:
        reader.check(facility.build_prefix(today))
        # A key that does not exist: with read access S3 reports it as missing, without it denies.
        reader.exists(f"{facility.build_prefix(today)}fer-batch-check")
        return f"{reader.location} may be listed and read"
