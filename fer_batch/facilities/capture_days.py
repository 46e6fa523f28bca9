"""Which capture days may be processed: a day must have begun at each facility.

The date depends on the facility's time zone. Whether a day is over is decided in registry.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from fer_batch.errors import ConfigurationError
from fer_batch.facilities.registry import Facility

_MAX_NAMES = 3
"""A message lists the ids of at most this many facilities."""


def check_has_begun(facilities: Iterable[Facility], capture_day: date, now_utc: datetime) -> None:
    """Raise ConfigurationError if the capture day has not begun yet at one of the facilities.

    Its listing would find no images and look complete. `now_utc` must be timezone-aware.
    """
    early = [f for f in facilities if f.compute_local_day(now_utc) < capture_day]
    if not early:
        return
    names = [facility.facility_id for facility in early]
    zones = sorted({f"{f.time_zone}, where it is {f.compute_local_day(now_utc)}" for f in early})
    raise ConfigurationError(
        f"the capture day {capture_day} has not begun yet for {', '.join(names[:_MAX_NAMES])}"
        f"{', …' if len(names) > _MAX_NAMES else ''} (in {'; in '.join(zones)})",
        "Choose a day that has begun, or select other facilities; for a test, the commands accept "
        "any day with --force",
    )
