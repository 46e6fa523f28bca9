"""Which facilities of the registry own an object, by its bucket and key, and of which day it is.

A run starts from a facility and finds its keys; this module starts from a key. The endpoint is not
compared: one server has many names, so a bucket of the same name counts as the same bucket. Reading
a key is left to day_keys.py, what is done about an owner to predict/objects.py.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from fer_batch.facilities import key_template as keys
from fer_batch.facilities.day_keys import DayKeys
from fer_batch.facilities.key_overlaps import may_overlap
from fer_batch.facilities.loading import InvalidFacility, Registry
from fer_batch.facilities.registry import Facility

_EPOCH_DIGITS = re.compile("[0-9]{1,14}")
_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Owner:
    """A facility with images in a bucket.

    `facility` says where they are; of an invalid entry it is a stand-in, whose other fields mean
    nothing, or None if the entry does not tell. `invalid` is that entry.
    """

    facility_id: str
    facility: Facility | None
    invalid: InvalidFacility | None = None
    _day_keys: dict[date, DayKeys] = field(default_factory=dict, repr=False, compare=False)

    def may_own_below(self, prefix: str) -> bool:
        """Whether a key that begins with `prefix` may be an image of the facility."""
        if self.facility is None:
            return True
        return any(
            may_overlap(template, self.facility_id, spelling)
            for template in self.facility.key_template
            for spelling in spell(prefix)
        )

    def owns(self, key: str) -> bool:
        """Whether the key is below a prefix of the facility, on any day."""
        return any(
            pattern.match(spelling) for _, pattern in self._patterns for spelling in spell(key)
        )

    def find_day(self, key: str) -> date | None:
        """The capture day of a key of the facility; None if it is of no day that a run lists."""
        if self.facility is None:
            return None
        for template, pattern in self._patterns:
            for spelling in spell(key):
                if found := pattern.match(spelling):
                    for day in _list_days(template, spelling, found):
                        if self._is_of_day(self.facility, spelling, day):
                            return day
        return None

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        if self.facility is None:
            return []
        return [
            (template, keys.compile_template(template, self.facility_id))
            for template in self.facility.key_template
        ]

    def _is_of_day(self, facility: Facility, key: str, day: date) -> bool:
        if day not in self._day_keys:
            self._day_keys[day] = facility.build_day_keys(day)
        day_keys = self._day_keys[day]
        return day_keys.contains(key) and day_keys.is_of_day(key)


def list_owners(registry: Registry, bucket: str, default_bucket: str) -> list[Owner]:
    """The facilities with images in the bucket, valid or not; also those that may be anywhere."""
    valid = [Owner(i, facility) for i, facility in registry.facilities.items()]
    invalid = [Owner(i, entry.stand_in, entry) for i, entry in registry.invalid.items()]
    return [
        owner
        for owner in (*valid, *invalid)
        if owner.facility is None
        or (owner.facility.bucket or default_bucket).lower() == bucket.lower()
    ]


def spell(key: str) -> tuple[str, ...]:
    """A key, and what some servers make of it: without empty and dotted segments."""
    if not re.search(r"(?:^|/)\.{0,2}/|/\.{1,2}$", key):
        return (key,)
    plain = posixpath.normpath("/" + key).lstrip("/")
    return key, plain + "/" if plain and key.endswith(("/", "/.", "/..")) else plain


def _list_days(template: str, key: str, found: re.Match[str]) -> Iterator[date]:
    """The days that a key may belong to, the one that it names first."""
    if keys.has_date(template):
        named = [keys.read_date(template, found)]
    else:
        digits = _EPOCH_DIGITS.match(key, found.end())
        number = int(digits[0]) if digits else 0
        named = [_read_epoch(number), _read_epoch(number // 1000)]
    for day in filter(None, named):
        # By the clock in UTC, the local day may be another one.
        for shift in (0, -1, 1):
            with suppress(OverflowError):
                yield day + shift * _ONE_DAY


def _read_epoch(seconds: int) -> date | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).date()
    except (ValueError, OverflowError, OSError):
        return None
