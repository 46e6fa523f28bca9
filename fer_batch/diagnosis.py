"""Does everything that a run needs work? `fer-batch check` asks, before the night does.

Each part is tried by the code that a run would use. What fails says what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from fer_batch import registry
from fer_batch.errors import FerError
from fer_batch.registry import Facility
from fer_batch.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One part that was tried. `detail` is what was found, or what failed and what to do."""

    what: str
    is_ok: bool
    detail: str


def check_all(settings: Settings) -> list[Finding]:
    """Try the database, the CNN, the face detector, the registry and each facility's bucket."""
    return list(_check(settings))


def _check(settings: Settings) -> Iterator[Finding]:
    yield _try("database", lambda: _database(settings))
    yield _try("CNN", lambda: _cnn(settings))
    yield _try("face detector", lambda: _detector(settings))
    try:
        facilities = registry.load(settings.facilities_file, settings)
    except FerError as error:
        yield Finding("facility registry", False, str(error))
        return
    yield Finding("facility registry", True, ", ".join(facilities))
    for facility in facilities.values():
        yield _try(f"facility {facility.facility_id}", lambda f=facility: _facility(settings, f))  # type: ignore[misc]


def _try(what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, attempt())
    except FerError as error:
        return Finding(what, False, str(error))


def _database(settings: Settings) -> str:
    from fer_batch import database

    engine = database.engine(settings)
    database.check_migrated(engine)
    return f"{engine.url.host}:{engine.url.port}/{engine.url.database} is up to date"


def _cnn(settings: Settings) -> str:
    from fer_batch import choice
    from fer_batch.classifier import Classifier

    chosen = choice.in_use(settings)
    used = Classifier(settings, chosen.cnn)
    return f"{used.card.name}, model version {used.model_version[:12]}: {chosen.why}"


def _detector(settings: Settings) -> str:
    from fer_batch.faces import FaceFinder

    FaceFinder(settings)
    return "YuNet is loaded"


def _facility(settings: Settings, facility: Facility) -> str:
    now = datetime.now(UTC)
    today = facility.local_day(now)
    if refusal := facility.refusal(today, now):
        # Without a permission not even the bucket is asked.
        return f"skipped: {refusal}"
    from fer_batch.storage import BucketReader

    with BucketReader(settings, facility) as reader:
        reader.check(facility.prefix(today))
        # A key that nobody has: who may read is told that it is missing, who may not is refused.
        reader.exists(f"{facility.prefix(today)}fer-batch-check")
        return f"{reader.place} may be listed and read"
