"""Draws the faces of an audit: a random sample in which each face has the same probability.

The faces are those of the published results of a window of capture days, ordered by sessions in a
random order, and within a session by time. From a random start, every (N/n)-th face is drawn
(systematic sampling; W. G. Madow and L. H. Madow 1944, On the theory of systematic sampling, Annals
of Mathematical Statistics 15, 1-24). So each of N faces is drawn with the probability n/N, and a
session of s faces gives at most ⌈s·n/N⌉ of them. Both orders follow from the seed, not from the
order of rows. How precise rates become is left to precision.py, labeling the faces to labeling.py.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from fer_batch.audit import audits, precision
from fer_batch.audit.audits import Audit
from fer_batch.audit.drift import compute_reference
from fer_batch.audit.precision import Expectation
from fer_batch.database import connections, schema
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError, RetryableError
from fer_batch.log import get_logger
from fer_batch.model.confusion import read_confusion
from fer_batch.records import CalledClass
from fer_batch.satisfaction.audits import LOCAL_LABELS
from fer_batch.settings import Settings

log = get_logger(__name__)

WINDOW_DAYS = 28
"""Length of the window if none is given: as four weeks have a summary of their own."""
MIN_FACES_DRAWN, MAX_FACES_DRAWN = 30, 5000

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A new audit, and how wide intervals become with its labels.

    `sessions` is the number of sessions that the drawn faces are of, `days` that of the capture
    days of the window with faces.
    """

    audit: Audit
    sessions: int
    days: int
    expectations: tuple[Expectation, ...]


def sample(
    settings: Settings,
    facility_id: str,
    faces: int,
    first_day: date | None = None,
    last_day: date | None = None,
    seed: int | None = None,
) -> Drawn:
    """Draw `faces` faces of the facility from the window, and store them as a new audit.

    The window ends with the newest published day and has 28 days unless it is given. Only days
    count whose images may be read now, and that were summarized for the model version of the newest
    of them. If the window has fewer faces, all of them are drawn. `seed` is random by default.

    Raises ConfigurationError for wrong arguments or a window without published results, and
    PermanentError if the images of the facility may not be read.
    """
    _check_arguments(faces, first_day, last_day, seed)
    chosen = secrets.randbelow(2**32) if seed is None else seed
    facility = audits.load_facility(settings, facility_id)
    with schema.open_engine(settings) as engine, connections.transaction(engine) as connection:
        # An erasure or retention either ends before this, or begins after it and then finds the
        # drawn faces.
        connections.lock_shared(connection, "retention")
        connections.lock(connection, f"audit faces:{facility_id}")
        window = _find_window(
            connection, settings, facility_id, facility.publish_period, first_day, last_day
        )
        connections.prefer_hash_joins(connection)
        called = _count_faces(connection, window)
        drawn = _draw(connection, window, sum(called.values()), faces, chosen)
        audit = _store(connection, window, drawn, chosen)
        matrix = read_confusion(
            connection.execute(
                _STATEMENTS["load_card"], {"model_version": window.model_version}
            ).scalar_one()
        )
    log.info(
        "faces sampled", facility=facility_id, audit=audit.audit_id, faces=len(drawn), seed=chosen
    )
    expectations = precision.expect(
        tuple(called[each] for each in CalledClass),
        days=len(window.days),
        days_a_week=window.days_a_week,
        design_effect=window.design_effect or facility.design_effect,
        confusion=matrix,
        labels=len(drawn),
        publish_period=facility.publish_period,
    )
    sessions = len({row["session_number"] for row in drawn})
    return Drawn(audit, sessions, len(window.days), expectations)


def _check_arguments(
    faces: int, first_day: date | None, last_day: date | None, seed: int | None
) -> None:
    """Raise ConfigurationError for arguments of `sample` that are out of range."""
    if not MIN_FACES_DRAWN <= faces <= MAX_FACES_DRAWN:
        raise ConfigurationError(
            f"an audit of {faces} faces cannot be sampled",
            f"Sample {MIN_FACES_DRAWN} to {MAX_FACES_DRAWN}; the method is `local` from "
            f"{LOCAL_LABELS} labels on",
        )
    if first_day is not None and last_day is not None and first_day > last_day:
        raise ConfigurationError(
            f"--from {first_day} is after --to {last_day}",
            "Give the first day in --from and the last one in --to",
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise ConfigurationError(f"the seed {seed} is out of range", "Give 0 to 2^63 - 1")


def choose_positions(faces: int, many: int, seed: int) -> list[int]:
    """The positions, from 0, of the faces that are drawn of `faces` faces in their order.

    At most `many` and all different. Over the starts, which the seed decides, each position is
    drawn equally often.
    """
    wanted = min(many, faces)
    digest = hashlib.sha256(f"{seed}:start".encode()).digest()
    return space_positions(faces, wanted, int.from_bytes(digest) % faces)


def space_positions(faces: int, wanted: int, start: int) -> list[int]:
    """Every (faces / wanted)-th position, from `start` / wanted on; 0 <= `start` < `faces`.

    Of the `faces` possible starts, exactly `wanted` draw a given position.
    """
    return [(start + k * faces) // wanted for k in range(wanted)]


@dataclass(frozen=True, slots=True)
class _Window:
    """The capture days that faces are drawn from, and what is known of them."""

    facility_id: str
    model_version: str
    first_day: date
    last_day: date
    days: tuple[date, ...]
    design_effect: float | None

    @property
    def days_a_week(self) -> float:
        """How many days of a week have published results, from the first to the last of them."""
        span = (self.days[-1] - self.days[0]).days + 1
        return 7 * len(self.days) / span

    @property
    def params(self) -> dict[str, Any]:
        return {
            "facility_id": self.facility_id,
            "model_version": self.model_version,
            "days": list(self.days),
        }


def _find_window(
    connection: sa.Connection,
    settings: Settings,
    facility_id: str,
    publish_period: str,
    first_day: date | None,
    last_day: date | None,
) -> _Window:
    params = {
        "facility_id": facility_id,
        "first_day": first_day or date(2000, 1, 1),
        "last_day": last_day or date(2099, 12, 31),
        "publishes_by_week": publish_period == "week",
    }
    published = connection.execute(_STATEMENTS["list_published_days"], params).all()
    end = last_day or (published[-1].capture_day if published else date.max)
    begin = first_day or end - timedelta(days=WINDOW_DAYS - 1)
    rows = [row for row in published if row.capture_day >= begin]
    if not rows:
        span = "" if first_day is None and last_day is None else " in this window"
        raise ConfigurationError(
            f"{facility_id} has no published results{span}",
            "An audit is sampled from published days: see `fer-batch query "
            "which_days_are_not_complete`, or give another window in --from and --to",
        )
    readable = set(audits.find_permitted(settings, facility_id, [row.capture_day for row in rows]))
    rows = [row for row in rows if row.capture_day in readable]
    version = rows[-1].model_version
    rows = [row for row in rows if row.model_version == version]
    effects = sorted(row.design_effect for row in rows if row.design_effect is not None)
    return _Window(
        facility_id,
        version,
        begin,
        end,
        tuple(row.capture_day for row in rows),
        effects[len(effects) // 2] if effects else None,
    )


def _count_faces(connection: sa.Connection, window: _Window) -> dict[CalledClass, int]:
    """The faces of the window by called class. Raises ConfigurationError if there are none."""
    rows = connection.execute(_STATEMENTS["count_faces"], window.params)
    called = dict.fromkeys(CalledClass, 0) | {CalledClass(name): n for name, n in rows}
    if not sum(called.values()):
        raise ConfigurationError(
            f"the tables hold no face of {window.facility_id} in this window",
            "Retention or an erasure has deleted them; give a later window in --from and --to",
        )
    return called


def _draw(
    connection: sa.Connection, window: _Window, faces: int, wanted: int, seed: int
) -> Sequence[Any]:
    """The rows of the drawn faces, in the order of the draw."""
    positions = choose_positions(faces, wanted, seed)
    params = window.params | {"seed": str(seed), "positions": positions}
    drawn = connection.execute(_STATEMENTS["draw_faces"], params).mappings().all()
    if len(drawn) != len(positions) or any(row["faces"] != faces for row in drawn):
        raise RetryableError(
            f"the results of {window.facility_id} changed while faces were sampled",
            "A run was writing them: sample again when it has ended",
        )
    return drawn


def _store(connection: sa.Connection, window: _Window, drawn: Sequence[Any], seed: int) -> Audit:
    """Write the audit with its faces and what the model version calls them."""
    row = {
        "facility_id": window.facility_id,
        "model_version": window.model_version,
        "first_day": window.first_day,
        "last_day": window.last_day,
        "seed": seed,
        "faces_in_window": drawn[0]["faces"],
        "faces_drawn": len(drawn),
        "reference": json.dumps(
            compute_reference(connection, window.facility_id, window.days, window.model_version)
        ),
    }
    audit_id = connection.execute(_STATEMENTS["insert_audit"], row).scalar_one()
    rows = [
        {name: each[name] for name in each if name != "faces"}
        | {
            "audit_id": audit_id,
            "face_number": number,
            "facility_id": window.facility_id,
            "model_version": window.model_version,
        }
        for number, each in enumerate(drawn, start=1)
    ]
    connection.execute(_STATEMENTS["insert_face"], rows)
    connection.execute(_STATEMENTS["insert_result"], rows)
    return audits.load(connection, audit_id)
