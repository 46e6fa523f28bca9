"""CNNs in Postgres: registered with their bytes, promoted, rolled back, and the history of that.

The one in use is a pointer: the newest promotion. Nothing here is ever overwritten. Every CNN
that scores is registered, so what made a result can be had again. Bytes are hashed before they
are handed out; opening them, and what stands above a promotion, is left to classifier.py and
choice.py. Every function works in the caller's transaction and raises what
`database.translate_errors` translates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from fer_batch import classifier, database, tables
from fer_batch.classifier import Card, Cnn
from fer_batch.database import statement
from fer_batch.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Registered:
    """A CNN of the table `cnn`, without its bytes."""

    cnn_sha256: str
    card: Card
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Promotion:
    """One row of the history. `name` is the CNN's; a rollback took the promotion before back."""

    promotion_id: int
    cnn_sha256: str
    name: str
    is_rollback: bool
    promoted_by: str
    why: str
    promoted_at: datetime


def register(connection: sa.Connection, cnn: Cnn) -> str:
    """Write a CNN down with its bytes, once; the first card stays. The name in that card."""
    table = tables.cnn
    known = sa.select(table.c.card).where(table.c.cnn_sha256 == cnn.cnn_sha256)
    if card := connection.execute(known).scalar():  # the bytes need not travel
        return str(card["name"])
    row = {
        "cnn_sha256": cnn.cnn_sha256,
        "artefact_sha256": cnn.card.artefact_sha256,
        "card": cnn.card.model_dump(mode="json"),
        "artefact": cnn.artefact,
        "registered_at": sa.func.now(),
    }
    connection.execute(insert(table).values(row).on_conflict_do_nothing())
    return cnn.card.name


def registered(connection: sa.Connection) -> list[Registered]:
    """The registered CNNs, newest first."""
    table = tables.cnn
    rows = connection.execute(
        sa.select(table.c.cnn_sha256, table.c.card, table.c.registered_at).order_by(
            table.c.registered_at.desc(), table.c.cnn_sha256
        )
    )
    return [Registered(key, Card.model_validate(card), at) for key, card, at in rows]


def load(connection: sa.Connection, cnn_sha256: str) -> Cnn | None:
    """A registered CNN, None if there is none. Raises ModelError for bytes of another hash."""
    table = tables.cnn
    row = connection.execute(
        sa.select(table.c.card, table.c.artefact).where(table.c.cnn_sha256 == cnn_sha256)
    ).one_or_none()
    return None if row is None else classifier.from_table(row.card, bytes(row.artefact))


def load_of_version(connection: sa.Connection, model_version: str) -> Cnn | None:
    """The CNN of a model version, None if either is not registered. Raises as `load` does."""
    table = tables.model_version
    manifest = connection.execute(
        sa.select(table.c.manifest).where(table.c.model_version == model_version)
    ).scalar_one_or_none()
    if manifest is None or "cnn" not in manifest:
        return None
    return load(connection, classifier.version_of(manifest["cnn"]))


def images_scored(connection: sa.Connection) -> dict[str, int]:
    """Images with faces in the newest summaries of each model version."""
    rows = connection.execute(statement("count_scored"))
    return {row.model_version: row.images_scored for row in rows}


# ---------------------------------------------------------------- promotions


def history(connection: sa.Connection) -> list[Promotion]:
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


def promoted(connection: sa.Connection) -> Promotion | None:
    """The newest row of the history, None if nothing was ever promoted."""
    return next(iter(history(connection)), None)


def promote(connection: sa.Connection, cnn: Cnn, by: str, why: str) -> Promotion:
    """Point at this CNN from now on, and register it if it is not.

    Raises ConfigurationError where it is promoted already, or `by` or `why` say nothing.
    """
    database.lock(connection, "promotion")
    newest = promoted(connection)
    if newest is not None and newest.cnn_sha256 == cnn.cnn_sha256:
        raise ConfigurationError(
            f"{newest.name} is promoted already, by {newest.promoted_by} on "
            f"{newest.promoted_at:%Y-%m-%d %H:%M} UTC",
            "Nothing was written; see `fer-batch models history`",
        )
    return _point_at(connection, cnn, by, why, is_rollback=False)


def rollback(connection: sa.Connection, shipped: Cnn, by: str, why: str) -> Promotion:
    """Take the newest promotion back: point at the CNN before it, in a new row.

    Rolling back again goes one promotion further; before the first one stands `shipped`. Raises
    ConfigurationError where there is nothing to take back, or `by` or `why` say nothing.
    """
    database.lock(connection, "promotion")
    stack: list[str] = []
    for row in reversed(history(connection)):
        if row.is_rollback:
            del stack[-1:]
        else:
            stack.append(row.cnn_sha256)
    if not stack:
        raise ConfigurationError(
            "there is no promotion to take back", "See `fer-batch models history`"
        )
    before = load(connection, stack[-2]) if len(stack) > 1 else None
    return _point_at(connection, before or shipped, by, why, is_rollback=True)


def _point_at(
    connection: sa.Connection, cnn: Cnn, by: str, why: str, *, is_rollback: bool
) -> Promotion:
    if not by.strip() or not why.strip():
        raise ConfigurationError("a promotion needs who did it and why", "Say it with --by, --why")
    register(connection, cnn)
    connection.execute(
        sa.insert(tables.cnn_promotion).values(
            cnn_sha256=cnn.cnn_sha256,
            is_rollback=is_rollback,
            promoted_by=by.strip(),
            why=why.strip(),
            promoted_at=sa.func.clock_timestamp(),
        )
    )
    return history(connection)[0]
