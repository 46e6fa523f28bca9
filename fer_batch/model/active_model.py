"""The active model: the CNN of the setting, else the promoted CNN, else the shipped CNN.

The setting FER_MODEL_CARD is explicit and takes precedence; the database is not queried then. A
run uses the CNN of the model version that it was planned with, even if another CNN is promoted in
the meantime. Storing CNNs in Postgres is left to model_registry.py; without a database SQLAlchemy
is not imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_batch.errors import ModelError
from fer_batch.model.classifier import (
    Cnn,
    build_manifest,
    find_shipped_card,
    hash_manifest,
    load_artifact,
)
from fer_batch.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from fer_batch.model.classifier import Card


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """The CNN that is in use, and the reason (`why`) as a phrase for people."""

    cnn: Cnn
    why: str


@dataclass(frozen=True, slots=True)
class _NamedCnn:
    """A CNN that can be selected by name: a registered one, or one with a card file (`path`)."""

    name: str
    model_version: str
    cnn_sha256: str
    path: Path | None = None


def compute_version(settings: Settings, card: Card) -> str:
    """The model version (64 hexadecimal digits) of a CNN under these settings.

    Raises ModelError as `build_manifest` does.
    """
    return hash_manifest(build_manifest(card, settings))


def load_active(settings: Settings) -> ActiveModel:
    """The active model.

    Raises ModelError for an invalid card or an artifact with another hash, and DatabaseError.
    """
    if settings.model_card is not None:
        return ActiveModel(
            load_artifact(settings.model_card), f"FER_MODEL_CARD names {settings.model_card}"
        )
    if settings.database_url is None:
        return ActiveModel(load_artifact(find_shipped_card()), "shipped; no database is set")
    from fer_batch.model import model_registry

    with connect(settings) as connection:
        newest = model_registry.find_promoted(connection)
        cnn = None if newest is None else model_registry.load(connection, newest.cnn_sha256)
    if newest is None or cnn is None:
        return ActiveModel(load_artifact(find_shipped_card()), "shipped; none was promoted")
    return ActiveModel(
        cnn,
        f"{'rolled back to' if newest.is_rollback else 'promoted'} on "
        f"{newest.promoted_at:%Y-%m-%d %H:%M} UTC by {newest.promoted_by}: {newest.why}",
    )


def load_active_version(settings: Settings) -> str:
    """The model version of the active model. Raises as `load_active` does."""
    return compute_version(settings, load_active(settings).cnn.card)


def load_version(settings: Settings, model_version: str) -> Cnn:
    """Load the CNN of the model version that a run was planned with.

    It is the CNN of FER_MODEL_CARD if that is set, otherwise the registered CNN of this version,
    otherwise the active CNN. Raises ModelError, before the artifact is opened, if that CNN has
    another model version under these settings.
    """
    registered: Cnn | None = None
    if settings.model_card is None and settings.database_url is not None:
        from fer_batch.model import model_registry

        with connect(settings) as connection:
            registered = model_registry.load_by_version(connection, model_version)
    cnn = registered or load_active(settings).cnn
    version_here = compute_version(settings, cnn.card)
    if version_here != model_version:
        raise ModelError(
            f"the run was planned with model version {model_version[:12]}, this process has "
            f"{version_here[:12]}",
            "Give the scheduler and its workers the same FER_ settings, or start a new run",
        )
    return cnn


# ---------------------------------------------------------------- by name


def find_cnn(settings: Settings, query: str) -> Cnn:
    """The CNN that `query` names: a name, a prefix of a model version (at least 6 hexadecimal
    digits), or the path of a card.

    Raises ModelError if no CNN or several CNNs match, and as `load_artifact` does.
    """
    if "/" in query or query.endswith(".json"):
        return load_artifact(Path(query))
    candidates = _list_named(settings)
    matches = [cnn for cnn in candidates if cnn.name == query]
    if not matches and re.fullmatch("[0-9a-f]{6,64}", query):
        matches = [cnn for cnn in candidates if cnn.model_version.startswith(query)]
    if len({cnn.model_version for cnn in matches}) != 1:
        raise ModelError(
            f"{'several CNNs are' if matches else 'no CNN is'} called {query}",
            "Name one by its model version: "
            + ", ".join(f"{c.model_version[:12]} ({c.name})" for c in matches or candidates),
        )
    return _load_named(settings, matches[0])


def _list_named(settings: Settings) -> list[_NamedCnn]:
    """The CNNs of the card files and of the registry, each once; a card file takes precedence.

    They are told apart by their model versions: a CNN that an earlier release registered has
    another SHA-256 there.
    """
    named = []
    for path in (settings.model_card, find_shipped_card()):
        if path is not None:
            cnn = load_artifact(path)
            version = compute_version(settings, cnn.card)
            named.append(_NamedCnn(cnn.card.name, version, cnn.cnn_sha256, path))
    if settings.database_url is not None:
        from fer_batch.model import model_registry

        with connect(settings) as connection:
            named += [
                _NamedCnn(row.card.name, compute_version(settings, row.card), row.cnn_sha256)
                for row in model_registry.list_registered(connection)
            ]
    return list({cnn.model_version: cnn for cnn in reversed(named)}.values())


def _load_named(settings: Settings, named: _NamedCnn) -> Cnn:
    if named.path is not None:
        return load_artifact(named.path)
    from fer_batch.model import model_registry

    with connect(settings) as connection:
        cnn = model_registry.load(connection, named.cnn_sha256)
    if cnn is None:
        raise ModelError(
            f"{named.name} was deleted while the command ran",
            "List the CNNs with `fer-batch models`",
        )
    return cnn


# ---------------------------------------------------------------- lists


def list_cnns(settings: Settings) -> list[dict[str, Any]]:
    """A row per CNN under these settings and per model version ever used; the active model first.

    Keys: `name`, `model_version`, `in_use` (the reason why it is active, else None),
    `registered_at` (None if never registered), `multiply_adds` (for one crop), `parameters`,
    `happy_sad_accuracy` (0 to 1, on PrivateTest, from the card) and `images_scored` (in the newest
    summaries). Raises as `load_active` does.
    """
    active = load_active(settings)
    rows = {} if settings.database_url is None else _read_tables(settings)
    for card in (load_artifact(find_shipped_card()).card, active.cnn.card):
        version = compute_version(settings, card)
        rows.setdefault(version, _make_row(card.model_dump(mode="json"), version, None))
    rows[version]["in_use"] = active.why
    return sorted(rows.values(), key=lambda row: row["in_use"] is None)


def list_promotions(settings: Settings) -> list[dict[str, Any]]:
    """Every promotion and rollback, newest first.

    Keys: those of `model_registry.Promotion`, and `model_version`, the version of its CNN under
    these settings. Raises as `connect` and `compute_version` do.
    """
    from fer_batch.model import model_registry

    with connect(settings) as connection:
        rows = model_registry.list_promotions(connection)
        versions = {
            c.cnn_sha256: compute_version(settings, c.card)
            for c in model_registry.list_registered(connection)
        }
    return [{"model_version": versions[row.cnn_sha256], **asdict(row)} for row in rows]


def _read_tables(settings: Settings) -> dict[str, dict[str, Any]]:
    """The rows of `list_cnns` that the database knows, by model version."""
    from fer_batch.database import results
    from fer_batch.model import model_registry

    with connect(settings) as connection:
        registered = model_registry.list_registered(connection)
        used_versions = results.list_model_versions(connection)
        images_scored = model_registry.count_images_scored(connection)
    rows = {}
    for cnn in registered:
        version = compute_version(settings, cnn.card)
        rows[version] = _make_row(cnn.card.model_dump(mode="json"), version, cnn.registered_at)
    for row in used_versions:  # also those of earlier settings, thresholds or releases
        version = row["model_version"]
        rows.setdefault(version, _make_row(row["card"], version, row["registered_at"]))
    for version, images in images_scored.items():
        rows[version]["images_scored"] = images
    return rows


def _make_row(card: dict[str, Any], model_version: str, registered_at: Any) -> dict[str, Any]:
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
def connect(settings: Settings) -> Iterator[sa.Connection]:
    """A connection in one transaction, for work on the model registry.

    Raises ConfigurationError if no database is set, and DatabaseError.
    """
    from fer_batch.database import connections

    engine = connections.create_engine(settings)
    try:
        with connections.transaction(engine) as connection:
            yield connection
    finally:
        engine.dispose()
