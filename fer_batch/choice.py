"""Which CNN is used: the setting's, else the promoted one, else the one that ships.

The setting FER_MODEL_CARD is explicit and wins; then no database is asked. A run takes the CNN of
the version that it was planned with, whatever is promoted meanwhile. How CNNs are kept in
Postgres is told by models.py; without a database nothing of SQLAlchemy is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_batch.classifier import Cnn, load_artefact, manifest_of, shipped_card, version_of
from fer_batch.errors import ModelError
from fer_batch.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from fer_batch.classifier import Card


@dataclass(frozen=True, slots=True)
class Choice:
    """A CNN and why it is the one."""

    cnn: Cnn
    why: str


@dataclass(frozen=True, slots=True)
class _Known:
    """A CNN that can be named: one that is registered, or a card at hand."""

    name: str
    model_version: str
    cnn_sha256: str
    path: Path | None = None


def version(settings: Settings, card: Card) -> str:
    """The model version that a CNN makes under these settings. Raises as `manifest_of` does."""
    return version_of(manifest_of(card, settings))


def in_use(settings: Settings) -> Choice:
    """The CNN that is used now.

    Raises ModelError for a card or artefact that does not fit, and the database's errors.
    """
    if settings.model_card is not None:
        return Choice(
            load_artefact(settings.model_card), f"FER_MODEL_CARD names {settings.model_card}"
        )
    if settings.database_url is None:
        return Choice(load_artefact(shipped_card()), "it ships; no database is set")
    from fer_batch import models

    with connected(settings) as connection:
        newest = models.promoted(connection)
        cnn = None if newest is None else models.load(connection, newest.cnn_sha256)
    if newest is None or cnn is None:
        return Choice(load_artefact(shipped_card()), "it ships; none was promoted")
    return Choice(
        cnn,
        f"{'rolled back to' if newest.is_rollback else 'promoted'} on "
        f"{newest.promoted_at:%Y-%m-%d %H:%M} UTC by {newest.promoted_by}: {newest.why}",
    )


def version_in_use(settings: Settings) -> str:
    """The model version that is used now. Raises as `in_use` does."""
    return version(settings, in_use(settings).cnn.card)


def of_version(settings: Settings, model_version: str) -> Cnn:
    """The CNN of a version that was planned with: the setting's, else the registered one.

    Raises ModelError, before anything is opened, where it does not make that version here.
    """
    found: Cnn | None = None
    if settings.model_card is None and settings.database_url is not None:
        from fer_batch import models

        with connected(settings) as connection:
            found = models.load_of_version(connection, model_version)
    cnn = found or in_use(settings).cnn
    here = version(settings, cnn.card)
    if here != model_version:
        raise ModelError(
            f"the run was planned with model version {model_version[:12]}, this process has "
            f"{here[:12]}",
            "Give the scheduler and its workers the same FER_ settings, or start a new run",
        )
    return cnn


# ---------------------------------------------------------------- by name


def find(settings: Settings, wanted: str) -> Cnn:
    """The CNN of a name, of the first characters of its model version (6 at least), or of a
    card's path.

    Raises ModelError where none or several are meant, and as `load_artefact` does.
    """
    if "/" in wanted or wanted.endswith(".json"):
        return load_artefact(Path(wanted))
    known = _known(settings)
    found = [k for k in known if k.name == wanted]
    if not found and re.fullmatch("[0-9a-f]{6,64}", wanted):
        found = [k for k in known if k.model_version.startswith(wanted)]
    if len({k.cnn_sha256 for k in found}) != 1:
        listed = found or known
        raise ModelError(
            f"{'several CNNs are' if found else 'no CNN is'} called {wanted}",
            "Name one by its model version: "
            + ", ".join(f"{k.model_version[:12]} ({k.name})" for k in listed),
        )
    return _load(settings, found[0])


def _known(settings: Settings) -> list[_Known]:
    known = []
    for path in (settings.model_card, shipped_card()):
        if path is not None:
            cnn = load_artefact(path)
            at_hand = version(settings, cnn.card)
            known.append(_Known(cnn.card.name, at_hand, cnn.cnn_sha256, path))
    if settings.database_url is not None:
        from fer_batch import models

        with connected(settings) as connection:
            known += [
                _Known(row.card.name, version(settings, row.card), row.cnn_sha256)
                for row in models.registered(connection)
            ]
    return list({k.cnn_sha256: k for k in reversed(known)}.values())


def _load(settings: Settings, known: _Known) -> Cnn:
    if known.path is not None:
        return load_artefact(known.path)
    from fer_batch import models

    with connected(settings) as connection:
        cnn = models.load(connection, known.cnn_sha256)
    if cnn is None:
        raise ModelError(f"{known.name} was deleted meanwhile", "See `fer-batch models`")
    return cnn


# ---------------------------------------------------------------- all of them


def overview(settings: Settings) -> list[dict[str, Any]]:
    """A row for each CNN under these settings and each version that was ever used, the one in use
    first.

    `name`, `model_version`, `in_use` (None, or why), `registered_at` (None: never),
    `multiply_adds`, `parameters`, `happy_sad_accuracy` (of PrivateTest, as the card says) and
    `images_scored` (in the newest summaries). Raises as `in_use` does.
    """
    used = in_use(settings)
    rows = {} if settings.database_url is None else _from_tables(settings)
    for card in (load_artefact(shipped_card()).card, used.cnn.card):
        name = version(settings, card)
        rows.setdefault(name, _row(card.model_dump(mode="json"), name, None))
    rows[name]["in_use"] = used.why
    return sorted(rows.values(), key=lambda row: row["in_use"] is None)


def history(settings: Settings) -> list[dict[str, Any]]:
    """Every promotion and rollback, newest first: the keys of `models.Promotion`, and
    `model_version`, what its CNN makes under these settings.

    Raises as `connected` and `version` do.
    """
    from fer_batch import models

    with connected(settings) as connection:
        rows = models.history(connection)
        versions = {c.cnn_sha256: version(settings, c.card) for c in models.registered(connection)}
    return [{"model_version": versions[row.cnn_sha256], **asdict(row)} for row in rows]


def _from_tables(settings: Settings) -> dict[str, dict[str, Any]]:
    from fer_batch import models, results

    with connected(settings) as connection:
        registered = models.registered(connection)
        used = results.model_versions(connection)
        scored = models.images_scored(connection)
    rows = {}
    for cnn in registered:
        name = version(settings, cnn.card)
        rows[name] = _row(cnn.card.model_dump(mode="json"), name, cnn.registered_at)
    for row in used:  # of earlier settings, thresholds, programs
        name = row["model_version"]
        rows.setdefault(name, _row(row["card"], name, row["registered_at"]))
    for name, images in scored.items():
        rows[name]["images_scored"] = images
    return rows


def _row(card: dict[str, Any], model_version: str, registered_at: Any) -> dict[str, Any]:
    happy_sad = card.get("metrics", {}).get("PrivateTest", {}).get("happy_sad", {})
    return {
        "name": card.get("name"),
        "model_version": model_version,
        "in_use": None,
        "registered_at": registered_at,
        "multiply_adds": card.get("multiply_adds"),
        "parameters": card.get("parameters"),
        "happy_sad_accuracy": happy_sad.get("accuracy"),
        "images_scored": 0,
    }


@contextmanager
def connected(settings: Settings) -> Iterator[sa.Connection]:
    """A connection in one transaction, for those who work on the registry of CNNs.

    Raises ConfigurationError without a database, and the database's errors.
    """
    from fer_batch import database

    engine = database.engine(settings)
    try:
        with database.transaction(engine) as connection:
            yield connection
    finally:
        engine.dispose()
