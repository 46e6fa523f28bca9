"""Activates the labels of an audit: from a capture day on, they correct the summaries.

Earlier days are not changed; `fer-batch summarize --from --to` re-estimates them. Which audit
corrects which summary is decided in satisfaction/audits.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from fer_batch.audit import audits
from fer_batch.audit.agreement import Agreement, compare_raters
from fer_batch.audit.audits import Audit
from fer_batch.audit.labeling import load_labels
from fer_batch.database import connections, schema
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError
from fer_batch.log import get_logger
from fer_batch.satisfaction.audits import LocalAudit, load_audits
from fer_batch.settings import Settings

log = get_logger(__name__)

MIN_LABELS = 30
"""With fewer labels an audit is not activated: single faces would move the figures."""

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class Finished:
    """An audit that was activated, its labels for the model version of the sample, and how far
    its raters agree."""

    audit: Audit
    local: LocalAudit
    agreement: Agreement


def finish(settings: Settings, audit_id: int, start_day: date | None = None) -> Finished:
    """Activate an audit from a capture day on, by default from today in its time zone.

    Its labels do not change any more, apart from erasures. It expires `audit_days` later. Faces
    that nobody has labeled are left out: what was labeled is a random sample too, because each
    rater sees the faces in a random order.

    Raises ConfigurationError if there is no such audit, it is finished already, or has fewer than
    `MIN_LABELS` labeled faces, and PermanentError if the images of its facility may not be read.
    """
    with schema.open_engine(settings) as engine, connections.transaction(engine) as connection:
        # Waits for labels that are being stored.
        connections.lock(connection, f"audit:{audit_id}")
        audit = audits.load_open(connection, audit_id)
        facility = audits.load_facility(settings, audit.facility_id)
        today = facility.compute_local_day(datetime.now(UTC))
        audits.find_permitted(settings, audit.facility_id, [today])
        agreement = load_agreement(connection, audit_id)
        first_day = start_day or today
        params = {
            "audit_id": audit_id,
            "start_day": first_day,
            "expiry_day": first_day + timedelta(days=settings.audit_days),
        }
        connection.execute(_STATEMENTS["finish_audit"], params)
        local = find_local(connection, audits.load(connection, audit_id), audit.model_version)
        if local is None or local.labels < MIN_LABELS:
            labels = 0 if local is None else local.labels
            raise ConfigurationError(
                f"audit {audit_id} has {labels} labeled faces, and {MIN_LABELS} are needed",
                "Go on with `fer-batch audit label`",
            )
        finished = Finished(audits.load(connection, audit_id), local, agreement)
    log.info(
        "audit activated",
        facility=audit.facility_id,
        audit=audit_id,
        labels=local.labels,
        day=first_day.isoformat(),
    )
    return finished


def find_local(connection: sa.Connection, audit: Audit, model_version: str) -> LocalAudit | None:
    """The labels of a finished audit for a model version; None if it has scored no labeled face."""
    found = load_audits(connection, audit.facility_id, model_version)
    return next((each for each in found if each.audit_id == audit.audit_id), None)


def load_agreement(connection: sa.Connection, audit_id: int) -> Agreement:
    """How far the raters of an audit agree."""
    ratings, settlements = load_labels(connection, audit_id)
    return compare_raters(ratings, settlements)
