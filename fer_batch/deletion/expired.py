"""What maintenance deletes because it is older than its period: one row per kind of data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Expired:
    """How much of a kind of data has expired and is to delete, or was deleted.

    `setting` is the name of the setting with the period, such as `FER_RETENTION_DAYS`. What is
    older than the UTC day `before` has expired. `count` is in `unit`: days, rows, files or bytes.
    """

    kind: str
    setting: str
    before: date
    count: int
    unit: str
