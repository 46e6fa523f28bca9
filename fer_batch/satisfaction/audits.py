"""Which audit corrects a summary, and the confusion matrix of its labels.

An audit corrects the summaries of the capture days from `start_day` until before `expiry_day`,
of each model version that has scored its faces. A summary that was corrected with an audit keeps
it, so that no later run takes it back. Drawing and labeling faces is left to the package `audit`,
the estimate to estimator.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import sqlalchemy as sa

from fer_batch.database.statements import load_statements
from fer_batch.records import CalledClass
from fer_batch.satisfaction.intervals import Floats

LOCAL_LABELS = 200
"""From this many labeled faces on, the method of a summary is `local`."""
_CLASSES = tuple(CalledClass)

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True, eq=False)
class LocalAudit:
    """The labels of an audit for one model version.

    `counts` [3,3] are faces by true and called class, in the order happy, sad, neither. A face on
    which raters disagree counts in parts. `labels` is the number of labeled faces. From
    `start_day` until before `expiry_day`, the audit corrects summaries.
    """

    audit_id: int
    counts: Floats
    labels: int
    start_day: date
    expiry_day: date

    @property
    def method(self) -> str:
        """The method of the summaries that it corrects."""
        return "local" if self.labels >= LOCAL_LABELS else "benchmark"


class Audits:
    """The finished audits of facilities, each facility and model version read once."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._loaded: dict[tuple[str, str], list[LocalAudit]] = {}

    def find(
        self,
        facility_id: str,
        model_version: str,
        last_day: date,
        *,
        used_id: int | None = None,
        is_asked: bool = False,
    ) -> LocalAudit | None:
        """The audit that corrects the period until `last_day`; None without one.

        `used_id` is the audit of the newest summary of the period. With `is_asked`, also an audit
        that came into force later may correct it. Of several, the one that came into force last
        does.
        """
        usable = [
            audit
            for audit in self._load(facility_id, model_version)
            if last_day < audit.expiry_day
            and (is_asked or audit.start_day <= last_day or audit.audit_id == used_id)
        ]
        return max(usable, key=lambda each: (each.start_day, each.audit_id), default=None)

    def get(self, facility_id: str, model_version: str, audit_id: int | None) -> LocalAudit | None:
        """The audit with this number, whenever it is in force; None for None or without labels."""
        audits = self._load(facility_id, model_version)
        return next((audit for audit in audits if audit.audit_id == audit_id), None)

    def _load(self, facility_id: str, model_version: str) -> Sequence[LocalAudit]:
        key = (facility_id, model_version)
        if key not in self._loaded:
            self._loaded[key] = [
                audit
                for audit in load_audits(self._connection, facility_id, model_version)
                if audit.labels > 0
            ]
        return self._loaded[key]


def load_audits(
    connection: sa.Connection, facility_id: str, model_version: str
) -> list[LocalAudit]:
    """The finished audits of a facility whose faces this model version has scored."""
    params = {"facility_id": facility_id, "model_version": model_version}
    counts: dict[int, Floats] = {}
    audits: dict[int, tuple[int, date, date]] = {}
    for row in connection.execute(_STATEMENTS["count_labels"], params):
        matrix = counts.setdefault(row.audit_id, np.zeros((3, 3)))
        matrix[_CLASSES.index(row.true_class), _CLASSES.index(row.called_class)] += row.faces
        audits[row.audit_id] = (row.labels, row.start_day, row.expiry_day)
    return [
        LocalAudit(audit_id, counts[audit_id], *details)
        for audit_id, details in sorted(audits.items())
    ]
