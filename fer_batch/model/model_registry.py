"""The model registry in Postgres: registered CNNs with their bytes, and the promotion history.

The promoted CNN is the one of the newest promotion. Rows are only added, never changed. Every CNN
that scores is registered, so the model behind a result can be restored. The hash of the bytes is
verified before they are returned. Opening the artifact is left to classifier.py; choosing between
the promoted CNN and the settings is left to active_model.py. Every function works in the caller's
transaction; `connections.translate_errors` turns its database errors into DatabaseError.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from fer_batch.database import connections, tables
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError
from fer_batch.model import classifier
from fer_batch.model.classifier import Card, Cnn

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class RegisteredCnn:
    """A CNN of the table `cnn`, without its bytes."""

    cnn_sha256: str
    card: Card
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Promotion:
    """One row of the promotion history. `name` is the name of the CNN; a rollback reverts the
    promotion before it."""

    promotion_id: int
    cnn_sha256: str
    name: str
    is_rollback: bool
    promoted_by: str
    why: str
    promoted_at: datetime


def register(connection: sa.Connection, cnn: Cnn) -> str:
    """Store a CNN with its bytes unless it is registered; returns the name in the stored card.

    The card of the first registration is kept.
    """
    table = tables.cnn
    stored_card = sa.select(table.c.card).where(table.c.cnn_sha256 == cnn.cnn_sha256)
    if card := connection.execute(stored_card).scalar():  # avoids sending the bytes again
        return str(card["name"])
    row = {
        "cnn_sha256": cnn.cnn_sha256,
        "artifact_sha256": cnn.card.artefact_sha256,
        "card": cnn.card.model_dump(mode="json"),
        "artifact": cnn.artifact,
        "registered_at": sa.func.now(),
    }
    connection.execute(insert(table).values(row).on_conflict_do_nothing())
    return cnn.card.name


def list_registered(connection: sa.Connection) -> list[RegisteredCnn]:
    """The registered CNNs, newest first."""
    table = tables.cnn
    rows = connection.execute(
        sa.select(table.c.cnn_sha256, table.c.card, table.c.registered_at).order_by(
            table.c.registered_at.desc(), table.c.cnn_sha256
        )
    )
    return [RegisteredCnn(key, Card.model_validate(card), at) for key, card, at in rows]


def load(connection: sa.Connection, cnn_sha256: str) -> Cnn | None:
    """A registered CNN, or None. Raises ModelError if the bytes do not have the card's hash."""
    table = tables.cnn
    row = connection.execute(
        sa.select(table.c.card, table.c.artifact).where(table.c.cnn_sha256 == cnn_sha256)
    ).one_or_none()
    return None if row is None else classifier.parse_registered(row.card, bytes(row.artifact))


def load_by_version(connection: sa.Connection, model_version: str) -> Cnn | None:
    """The CNN of a model version, or None if one of them is not registered. Raises as `load`."""
    table = tables.model_version
    manifest = connection.execute(
        sa.select(table.c.manifest).where(table.c.model_version == model_version)
    ).scalar_one_or_none()
    if manifest is None or "cnn" not in manifest:
        return None
    return load(connection, classifier.hash_manifest(manifest["cnn"]))


def count_images_scored(connection: sa.Connection) -> dict[str, int]:
    """The number of images with faces in the newest summaries, by model version."""
    rows = connection.execute(_STATEMENTS["count_scored"])
    return {row.model_version: row.images_scored for row in rows}


# ---------------------------------------------------------------- promotions


def list_promotions(connection: sa.Connection) -> list[Promotion]:
    """Every promotion and rollback, newest first."""
    promotion, cnn = tables.cnn_promotion, tables.cnn
    rows = connection.execute(
        sa.select(
            promotion.c.promotion_id,
            promotion.c.cnn_sha256,
            cnn.c.card["name"].astext,
            promotion.c.is_rollback,
            promotion.c.promoted_by,
            promotion.c.why,
            promotion.c.promoted_at,
        )
        .join(cnn, cnn.c.cnn_sha256 == promotion.c.cnn_sha256)
        .order_by(promotion.c.promotion_id.desc())
    )
    return [Promotion(*row) for row in rows]


def find_promoted(connection: sa.Connection) -> Promotion | None:
    """The newest row of the history, or None if no CNN was ever promoted."""
    return next(iter(list_promotions(connection)), None)


def promote(connection: sa.Connection, cnn: Cnn, by: str, why: str) -> Promotion:
    """Make this CNN the promoted one, and register it unless it is registered.

    `by` is the person who decided it, `why` the reason. Raises ConfigurationError if the CNN is
    already promoted, and if `by` or `why` is blank.
    """
    connections.lock(connection, "promotion")
    newest = find_promoted(connection)
    if newest is not None and newest.cnn_sha256 == cnn.cnn_sha256:
        raise ConfigurationError(
            f"{newest.name} is already promoted, by {newest.promoted_by} on "
            f"{newest.promoted_at:%Y-%m-%d %H:%M} UTC",
            "Nothing was written; see `fer-batch models history`",
        )
    return _insert_promotion(connection, cnn, by, why, is_rollback=False)


def rollback(connection: sa.Connection, shipped: Cnn, by: str, why: str) -> Promotion:
    """Revert the newest promotion: promote the CNN before it again, as a new row of the history.

    A further rollback reverts one promotion more; before the first promotion the CNN is `shipped`.
    Raises ConfigurationError if there is no promotion to revert, and if `by` or `why` is blank.
    """
    connections.lock(connection, "promotion")
    stack: list[str] = []
    for row in reversed(list_promotions(connection)):
        if row.is_rollback:
            del stack[-1:]
        else:
            stack.append(row.cnn_sha256)
    if not stack:
        raise ConfigurationError(
            "there is no promotion to roll back", "See `fer-batch models history`"
        )
    previous = load(connection, stack[-2]) if len(stack) > 1 else None
    return _insert_promotion(connection, previous or shipped, by, why, is_rollback=True)


def _insert_promotion(
    connection: sa.Connection, cnn: Cnn, by: str, why: str, *, is_rollback: bool
) -> Promotion:
    if not by.strip() or not why.strip():
        raise ConfigurationError(
            "a promotion needs the person who decided it and the reason", "Give --by and --why"
        )
    register(connection, cnn)
    connection.execute(
        sa.insert(tables.cnn_promotion).values(
            cnn_sha256=cnn.cnn_sha256,
            is_rollback=is_rollback,
            promoted_by=by.strip(),
            why=why.strip(),
        )
    )
    return list_promotions(connection)[0]
