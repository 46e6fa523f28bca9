"""Which facilities and days a run processes, and how it scores them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import date, timedelta

from fer_batch.errors import ConfigurationError
from fer_batch.facilities.loading import Registry


@dataclass(frozen=True, slots=True)
class Selection:
    """The facilities and days of a run, and how it scores them.

    `run_id` identifies the run. `Run.begin` records the CNN when it is first called; every later
    step with the same id uses that CNN, in any process. `model_version` is the version that must be
    active, or a prefix of it; None accepts any. With `rescore`, images whose results are older than
    the run count as unfinished. With `force`, the capture day may be one that has not begun.
    """

    run_id: str
    capture_day: date
    facility_ids: tuple[str, ...] = ()
    time_zone: str | None = None
    lookback_days: int = 0
    model_version: str | None = None
    rescore: bool = False
    force: bool = False

    def select_facilities(self, known: Registry) -> Registry:
        """The selected facilities.

        Raises ConfigurationError for an unknown id, and if none of the facilities is valid.
        """
        selected = known.select(self.facility_ids, self.time_zone)
        if not selected.facilities:
            raise self._make_empty_error(known)
        return selected

    def _make_empty_error(self, known: Registry) -> ConfigurationError:
        """The error for a selection without a facility: of its time zone, there is none."""
        zones = sorted({f.time_zone for f in known.facilities.values()})
        if self.time_zone is None or self.time_zone in zones:
            names = ", ".join(sorted(known.facilities)) or "none"
            return ConfigurationError("no facility is selected", f"The registry has {names}")
        near = difflib.get_close_matches(self.time_zone, zones, n=3)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        return ConfigurationError(
            f"no facility has the time zone {self.time_zone!r}",
            f"{hint}The registry has the time zones {', '.join(zones)}",
        )

    def list_days(self) -> list[date]:
        """The capture day and the lookback days before it, newest first."""
        return [self.capture_day - timedelta(days=n) for n in range(self.lookback_days + 1)]

    def list_days_since(self, first_day: date) -> list[date]:
        """The days from `first_day` to the capture day, oldest first.

        Raises ConfigurationError if `first_day` is after the capture day.
        """
        if first_day > self.capture_day:
            raise ConfigurationError(
                f"--from {first_day} is after --to {self.capture_day}",
                "Give the first day in --from and the last one in --to",
            )
        return [
            first_day + timedelta(days=n) for n in range((self.capture_day - first_day).days + 1)
        ]

    def find_last_due_day(self) -> date:
        """The last day whose rates are published even if it is incomplete.

        It is the oldest day of the lookback, since the next night does not look at it again. A run
        without a lookback may be repeated, so it publishes its day only if that is complete.
        """
        return self.capture_day - timedelta(days=self.lookback_days or 1)
