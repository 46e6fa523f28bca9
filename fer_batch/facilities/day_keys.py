"""The keys of one facility and capture day: where they are listed, which of them are images of the
day, and what they say about camera and capture time.

Key template, name template and patterns work together here. Usually a day is one prefix, and every
key below it belongs to the day. Where keys are filed by the date in UTC, or by nothing but the
time in their name, the prefixes contain images of other days too: then the capture time decides.
Listing the prefixes is left to pipeline/day_listing.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fnmatch import translate
from functools import lru_cache
from typing import TypeAlias
from zoneinfo import ZoneInfo

from fer_batch.facilities.key_template import KeyPrefix, expand_template, has_date
from fer_batch.facilities.name_template import (
    NO_CAPTURE_INFO,
    CaptureInfo,
    Clock,
    build_name_reader,
    is_camera,
)

_SECONDS_PER_PREFIX = 10_000
"""A prefix of keys that are filed by epoch: a day is 9 or 10 of them, and the images of the days
before and after that are listed too are a few hours."""

_Match: TypeAlias = tuple[str | None, str]
"""The camera that a key names before the name of the image, and that name."""


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """How a facility files its images: the fields of the registry that decide about keys."""

    facility_id: str
    key_templates: tuple[str, ...]
    name_template: str | None
    name_clock: Clock
    day_clock: Clock
    time_zone: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A prefix with the function that splits its keys and the one that reads the names.

    `is_of_day` is whether a name without a time belongs to the capture day.
    """

    prefix: KeyPrefix
    match: Callable[[str], _Match | None]
    read_name: Callable[[str], CaptureInfo]
    is_of_day: bool


class DayKeys:
    """The keys of a facility's capture day."""

    def __init__(self, layout: KeyLayout, day: date) -> None:
        self._day = day
        self._zone = ZoneInfo(layout.time_zone)
        self._places = tuple(_list_places(layout, day))
        self._is_mixed = layout.day_clock == "UTC" or not all(map(has_date, layout.key_templates))
        self._include = [_compile_pattern(pattern) for pattern in layout.include]
        self._exclude = [_compile_pattern(pattern) for pattern in layout.exclude]

    @property
    def prefixes(self) -> tuple[KeyPrefix, ...]:
        """The prefixes to list; no key begins with two of them."""
        return tuple(place.prefix for place in self._places)

    def contains(self, key: str) -> bool:
        """Whether the key is below one of the prefixes."""
        return self._find(key) is not None

    def is_selected(self, key: str) -> bool:
        """Whether `include` and `exclude` select the object."""
        if not (self._include or self._exclude):
            return True
        found = self._find(key)
        name = found[1][1] if found else key
        included = not self._include or any(matches(key, name) for matches in self._include)
        return included and not any(matches(key, name) for matches in self._exclude)

    def is_of_day(self, key: str) -> bool:
        """Whether an object below the prefixes belongs to the day."""
        if not self._is_mixed:
            return True
        found = self._find(key)
        if found is None:
            return False
        place, (_, name) = found
        captured_at = place.read_name(name).captured_at_utc
        if captured_at is None:
            return place.is_of_day
        return captured_at.astimezone(self._zone).date() == self._day

    def parse(self, key: str) -> CaptureInfo:
        """Camera and capture time of a key; none of a key outside of the prefixes."""
        found = self._find(key)
        if found is None:
            return NO_CAPTURE_INFO
        place, (camera, name) = found
        info = place.read_name(name)
        return info if camera is None else info._replace(camera=camera)

    def _find(self, key: str) -> tuple[_Place, _Match] | None:
        for place in self._places:
            if (matched := place.match(key)) is not None:
                return place, matched
        return None


def _list_places(layout: KeyLayout, day: date) -> Iterator[_Place]:
    zone = ZoneInfo(layout.time_zone)
    begin, end = (
        datetime.combine(d, time(), zone).astimezone(UTC) for d in (day, day + timedelta(days=1))
    )

    def make(prefix: KeyPrefix, key_day: date | None, *, is_of_day: bool) -> _Place:
        return _Place(
            prefix,
            _build_matcher(prefix),
            build_name_reader(
                layout.name_template, day, layout.time_zone, layout.name_clock, key_day
            ),
            is_of_day,
        )

    for template in layout.key_templates:
        if not has_date(template):
            for prefix in expand_template(template, layout.facility_id, day):
                for digits in _list_epoch_digits(begin, end):
                    yield make(KeyPrefix(prefix.head, prefix.tail, digits), None, is_of_day=False)
        elif layout.day_clock == "UTC":
            for key_day in _list_dates(begin.date(), (end - timedelta(microseconds=1)).date()):
                for prefix in expand_template(template, layout.facility_id, key_day):
                    yield make(prefix, key_day, is_of_day=key_day == day)
        else:
            for prefix in expand_template(template, layout.facility_id, day):
                yield make(prefix, None, is_of_day=True)


def _list_dates(first: date, last: date) -> Iterable[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def _list_epoch_digits(begin: datetime, end: datetime) -> Sequence[str]:
    """The first digits of the seconds, or milliseconds, since 1970 of all times of the day."""
    first, last = (int(moment.timestamp()) for moment in (begin, end))
    numbers = range(first // _SECONDS_PER_PREFIX, (last - 1) // _SECONDS_PER_PREFIX + 1)
    return [str(number) for number in numbers]


def _build_matcher(prefix: KeyPrefix) -> Callable[[str], _Match | None]:
    """The function that splits a key into camera and name; None for a key outside of the prefix.

    The digits at the end of the prefix are a part of the name.
    """
    if prefix.tail is None:
        head, digits = prefix.head, prefix.digits
        whole, start = head + digits, len(head)
        return lambda key: (None, key[start:]) if key.startswith(whole) else None
    pattern = re.compile(
        f"{re.escape(prefix.head)}([^/]+){re.escape(prefix.tail)}({re.escape(prefix.digits)}.*)",
        re.DOTALL,
    )

    def match(key: str) -> _Match | None:
        found = pattern.fullmatch(key)
        if found is None:
            return None
        return (found[1] if is_camera(found[1]) else None), found[2]

    return match


@lru_cache(maxsize=4096)
def _compile_pattern(pattern: str) -> Callable[[str, str], bool]:
    """The function that tells whether a key, and its part below the prefix, match a pattern.

    A pattern without a slash is compared with the file name, another one with the part below the
    prefix. Upper and lower case are alike.
    """
    match = re.compile(translate(pattern), re.IGNORECASE).match
    if "/" not in pattern:
        return lambda key, _: match(key.rpartition("/")[2]) is not None
    # The slash in front lets */thumbs/* match a folder directly below the prefix too.
    return lambda _, name: match(name) is not None or match(f"/{name}") is not None
