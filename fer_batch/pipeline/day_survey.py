"""What lies in a facility's bucket for the last days, and near a prefix below which nothing lies.

A wrong prefix is no error of S3: its listing is empty, and so is that of a day without images.
`fer-batch check` and `fer-batch plan` tell the two apart with this survey. It sends a few requests
a day and reads no object. What counts as an image is decided in facilities/day_keys.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta

from fer_batch.errors import StorageError, StorageUnavailableError
from fer_batch.facilities.key_template import KeyPrefix
from fer_batch.facilities.registry import Facility
from fer_batch.pipeline.day_listing import DayListing
from fer_batch.pipeline.listing import BatchListing
from fer_batch.settings import Settings
from fer_batch.storage.listing_pages import ListedLevel
from fer_batch.storage.reader import BucketReader

SURVEYED_DAYS = 7
_MAX_NAMES = 3
"""Names that a text quotes of those near a prefix."""


@dataclass(frozen=True, slots=True)
class DayCount:
    """The images of a day in the first page of each prefix, and the objects that are `excluded`.

    `is_more`: a prefix has more than a page, so there may be more images.
    """

    day: date
    images: int
    excluded: int
    is_more: bool

    def __str__(self) -> str:
        excluded = f" and {self.excluded:,} excluded" if self.excluded else ""
        return f"{self.day} {self.images:,}{' or more' if self.is_more else ''}{excluded}"


@dataclass(frozen=True, slots=True)
class Survey:
    """The last days of a facility, newest first, and if they have no image, what lies nearby.

    `is_bucket_empty`: the whole bucket is empty, so nothing tells whether the prefix is right.
    `is_misspelled`: a name in the bucket differs from one in the prefix only by a few letters.
    """

    days: Sequence[DayCount]
    nearby: str = ""
    is_bucket_empty: bool = False
    is_misspelled: bool = False

    @property
    def has_images(self) -> bool:
        """Whether one of the days has an image."""
        return any(day.images for day in self.days)

    @property
    def is_suspicious(self) -> bool:
        """Whether the prefix may be wrong: other objects are in the bucket."""
        return not self.has_images and not self.is_bucket_empty

    def __str__(self) -> str:
        if self.has_images:
            return f"images: {', '.join(map(str, self.days))}"
        excluded = sum(day.excluded for day in self.days)
        reason = f"include and exclude leave out all {excluded:,} objects" if excluded else ""
        return f"no image from {self.days[-1].day} to {self.days[0].day}: {reason or self.nearby}"


@dataclass(frozen=True, slots=True)
class _Nearby:
    """What lies near a prefix, of which the first `known` characters exist.

    `is_misspelled`: a name there differs from the expected one only by a few letters.
    """

    known: int
    text: str
    is_misspelled: bool = False


def survey_empty_facilities(
    settings: Settings, facilities: Mapping[str, Facility], listings: Sequence[BatchListing]
) -> dict[str, Survey]:
    """A survey of each facility that was listed and has no image on any day of the listings.

    It ends with the newest of these days. A facility whose survey fails is left out.
    """
    newest: dict[str, date] = {}
    for listing in listings:
        facility_id, day = listing.batch.facility_id, listing.batch.capture_day
        if listing.status == "listed":
            newest[facility_id] = max(newest.get(facility_id, day), day)
    for listing in listings:
        if listing.status == "failed" or listing.images:
            newest.pop(listing.batch.facility_id, None)
    surveys = {}
    for facility_id, day in newest.items():
        with (
            suppress(StorageError, StorageUnavailableError),
            BucketReader(settings, facilities[facility_id]) as reader,
        ):
            surveys[facility_id] = survey_days(reader, facilities[facility_id], day, day)
    return surveys


def survey_days(reader: BucketReader, facility: Facility, newest: date, expected: date) -> Survey:
    """Count the images of the last `SURVEYED_DAYS` days up to `newest`, which is included.

    If they have none, look for what lies near the prefix of the day `expected`. Raises StorageError
    or StorageUnavailableError.
    """
    counts = [
        _count_day(reader, facility, newest - timedelta(days=n)) for n in range(SURVEYED_DAYS)
    ]
    survey = Survey(counts)
    if survey.has_images or any(day.excluded for day in counts):
        return survey
    spellings = _group_spellings(facility.build_day_keys(expected).prefixes)
    try:
        bucket = reader.list_level("", max_pages=1)
        if not (bucket.folders or bucket.objects):
            return Survey(counts, "the bucket is empty", is_bucket_empty=True)
        found = [_look_nearest(reader, each) for each in spellings]
    except StorageError:  # the account may list some prefixes only
        found = [_Nearby(0, f"nothing lies below {each[0].example!r}") for each in spellings]
    texts = list(dict.fromkeys(each.text for each in found))
    return Survey(
        counts,
        "; ".join(texts[:_MAX_NAMES]),
        is_misspelled=any(each.is_misspelled for each in found),
    )


def _count_day(reader: BucketReader, facility: Facility, day: date) -> DayCount:
    listing = DayListing(reader, facility, day)
    images, is_more = 0, False
    for prefix in listing.find_prefixes():
        page = reader.list_level(prefix, delimiter="", max_pages=1)
        is_more |= not page.is_complete
        for listed in page.objects:
            is_marker = listed.key == f"{prefix}{facility.ready_marker}"
            if not (is_marker or listed.is_folder_marker):
                images += listing.select(listed)
    return DayCount(day, images, listing.excluded, is_more)


def _group_spellings(prefixes: Sequence[KeyPrefix]) -> list[list[KeyPrefix]]:
    """The prefixes, those together that differ only in case: `%b` gives Nov, nov and NOV."""
    groups: dict[str, list[KeyPrefix]] = {}
    for prefix in prefixes:
        groups.setdefault(prefix.example.casefold(), []).append(prefix)
    return list(groups.values())


def _look_nearest(reader: BucketReader, spellings: Sequence[KeyPrefix]) -> _Nearby:
    """What lies near the spelling of a prefix of which most exists."""
    return max((_look(reader, prefix) for prefix in spellings), key=lambda each: each.known)


def _look(reader: BucketReader, prefix: KeyPrefix) -> _Nearby:
    """Up to where something lies on the way to a prefix, and what lies there instead."""
    known = ""
    for name in _split(prefix.head):
        if not reader.has_objects(known + name):
            return _compare(reader.list_level(known, max_pages=1), known, name)
        known += name
    if prefix.tail is None:
        return _Nearby(len(known), f"{prefix.build()!r} has objects, but no image of the day")
    level = reader.list_level(prefix.head, max_pages=1)
    if not level.folders:
        return _Nearby(len(known), f"no folder of a camera lies below {prefix.head!r}")
    # The folder that has the most of the rest.
    known, rest = max(
        (_follow(reader, folder.removesuffix("/"), prefix.tail) for folder in level.folders[:20]),
        key=lambda followed: len(followed[0]),
    )
    if not rest:
        return _Nearby(len(known), f"{known!r} has objects, but no image of the day")
    return _compare(reader.list_level(known, max_pages=1), known, rest)


def _follow(reader: BucketReader, known: str, rest: str) -> tuple[str, str]:
    """The longest beginning of `known` and `rest` below which something lies, and the next name."""
    for name in _split(rest):
        if not reader.has_objects(known + name):
            return known, name
        known += name
    return known, ""


def _split(prefix: str) -> Iterator[str]:
    """The names of a prefix, each with its slash, which the last one may lack."""
    yield from re.findall("[^/]*/|[^/]+$", prefix)


def _compare(level: ListedLevel, known: str, missing: str) -> _Nearby:
    """What lies below `known`, below which nothing begins with the name `missing`."""
    names = [*level.folders, *(listed.key for listed in level.objects)]
    expected = known + missing
    what = f"nothing lies below {expected!r}"
    if not names:
        return _Nearby(len(known), what)
    if alike := _find_alike(names, expected):
        text = f"{what}, but {_quote(alike)} is there; keys are compared letter by letter"
        return _Nearby(len(known), text, is_misspelled=True)
    where = f"below {known!r}" if known else "in the bucket"
    # Names of days are sorted by date in most layouts, so the newest are the last ones.
    newest = names[-_MAX_NAMES:]
    count = f"{len(names):,}{'' if level.is_complete else ' or more'}"
    more = f", the last of {count} names" if len(names) > len(newest) else ""
    return _Nearby(len(known), f"{what}; {where} there is {_quote(newest)}{more}")


def _find_alike(names: Sequence[str], expected: str) -> list[str]:
    """The names that differ from the expected one only in case, separators or a few letters."""
    simple = [_simplify(name) for name in names]
    same = [name for name, short in zip(names, simple, strict=True) if short == _simplify(expected)]
    if same:
        return same[:_MAX_NAMES]
    if re.search("[0-9]", expected.rstrip("/").rpartition("/")[2]):
        return []  # other days are alike, and no misspelling
    near = set(difflib.get_close_matches(_simplify(expected), simple, n=_MAX_NAMES, cutoff=0.75))
    return [name for name, short in zip(names, simple, strict=True) if short in near][:_MAX_NAMES]


def _simplify(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _quote(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
