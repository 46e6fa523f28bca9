"""The facility registry: which facilities may be read, and the format of their keys.

`load_registry` reads the TOML file and rejects unknown fields, so that a typo is not silently
replaced by a default. The key template is the only source of an image's capture day; the time zone
only determines when that day is over, and by which clock names tell the time. Templates are
validated in key_template.py and name_template.py. The copy of the registry in the database is left
to database/ledger.py, enforcing permissions before anything is read to pipeline/listing.py and
pipeline/scoring.py.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from fer_batch.errors import ConfigurationError, FormerTargetError
from fer_batch.facilities.key_template import (
    DEFAULT_TEMPLATE,
    check_template,
    expand_template,
    find_overlaps,
)
from fer_batch.facilities.name_template import (
    NameClock,
    NameParser,
    build_name_parser,
    check_name_template,
)
from fer_batch.settings import Settings

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _check_printable(value: str) -> str:
    if _UNPRINTABLE.search(value):
        raise ValueError("must not contain control characters")
    return value


def _check_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        near = difflib.get_close_matches(name, available_timezones(), n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin{hint}") from None
    if name == "localtime":
        raise ValueError("must be an IANA time zone; localtime differs from machine to machine")
    return name


def _check_endpoint(url: str) -> str:
    problem = "must be a URL such as https://s3.example.com, without credentials, query or fragment"
    try:
        parts = urlsplit(url)
        is_port_valid = parts.port != 0
    except ValueError:
        raise ValueError(problem) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not is_port_valid:
        raise ValueError(problem)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(problem)
    return url.rstrip("/")


def _sort_weekdays(days: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(day for day in WEEKDAYS if day in days)


def _check_relative_key(name: str) -> str:
    if name.startswith("/"):
        raise ValueError("must be a key below the day's prefix, such as _SUCCESS")
    return name


Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_check_printable),
]
FacilityId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Permission(_Table):
    """Why a facility's images may be processed, who decided it, and until when."""

    purpose: Line = Field(description="The purpose of processing the images, in a sentence")
    lawful_basis: Line = Field(
        description="The legal basis, such as the article and the underlying agreement"
    )
    approved_by: Line = Field(description="The person or office that approved it")
    valid_until: date = Field(
        description="The last day on which images may be read, and the last capture day"
    )


class Facility(_Table):
    """A shop, center or branch: the location of its images, its days, target and permission."""

    facility_id: FacilityId = Field(description="The name of the TOML table")
    name: Line = Field(description="The display name")
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] = Field(
        description="IANA time zone, such as `Europe/Berlin`; determines when a capture day is over"
    )
    image_kind: Literal["crops", "frames"] = Field(
        description="`crops` are images of single faces, `frames` are camera images in which faces "
        "are detected"
    )
    key_template: Annotated[str, AfterValidator(check_template)] = Field(
        default=DEFAULT_TEMPLATE, description="The prefix of one capture day's keys; see below"
    )
    name_template: Annotated[str, AfterValidator(check_name_template)] | None = Field(
        default=None,
        description="Where the rest of a key names camera and capture time, such as "
        "`{camera}/{captured_at:%H%M%S}-{*}.jpg`; see below. Without it, images have no times",
    )
    name_clock: NameClock = Field(
        default="local",
        description="The clock of these times: `local`, in `time_zone`, or `UTC`",
    )
    bucket: Annotated[str | None, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = Field(
        default=None, description="The facility's bucket; default `FER_S3_BUCKET`"
    )
    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = Field(
        default=None, description="URL of the facility's S3 server; default `FER_S3_ENDPOINT`"
    )
    credentials: Annotated[
        str | None, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=63)
    ] = Field(
        default=None,
        description="Name of the facility's S3 credentials, set as "
        "`FER_S3_CREDENTIALS__NAME__ACCESS_KEY_ID` and `…__SECRET_ACCESS_KEY`, or as the Airflow "
        "Connection `fer_s3_name`",
    )
    ready_marker: Annotated[Line, AfterValidator(_check_relative_key)] | None = Field(
        default=None,
        description="Key below the day's prefix, such as `_SUCCESS`, whose existence means that "
        "the day's upload is finished. Excludes `settle_minutes`",
    )
    settle_minutes: Annotated[int, Field(ge=1, le=10_080)] | None = Field(
        default=None,
        description="A day's upload is finished when its newest object is this many minutes old "
        "(1 to 10080). Excludes `ready_marker`",
    )
    expected_images_min: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="A finding is reported for an open day with fewer images",
    )
    closed_weekdays: Annotated[
        tuple[Weekday, ...], Strict(False), AfterValidator(_sort_weekdays)
    ] = Field(
        default=(),
        description="Weekdays without customers, of mon, tue, wed, thu, fri, sat, sun",
    )
    target_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The target of the happy rate, the share of all faces that show a happy "
        "expression, from 0 to 1; without it the verdict is `no target`",
    )
    publish_period: Literal["day", "week"] = Field(
        default="day",
        description="The shortest period whose rates are published: `week` suits a facility with "
        "few faces a day",
    )
    key_order: Literal["time", "none"] = Field(
        default="time",
        description="`time` if sorting a day's keys as text sorts the images by camera or time, "
        "`none` if names are random; used where keys carry no readable time",
    )
    design_effect: float = Field(
        default=6.0,
        ge=1,
        le=1000,
        description="With `key_order` `none`: how many faces count as one independent face, for "
        "faces of one visit are alike (1 to 1000)",
    )
    permission: Permission | None = Field(
        default=None, description="The recorded permission; without it nothing is listed or read"
    )

    @model_validator(mode="after")
    def _check_readiness_fields(self) -> Facility:
        if self.ready_marker is not None and self.settle_minutes is not None:
            raise ValueError("ready_marker and settle_minutes exclude each other; set only one")
        return self

    @model_validator(mode="after")
    def _check_name_fields(self) -> Facility:
        if self.name_clock != "local" and self.name_template is None:
            raise ValueError("name_clock is the clock of name_template; set name_template too")
        return self

    def build_prefix(self, day: date) -> str:
        """The prefix of all keys of the capture day."""
        return expand_template(self.key_template, self.facility_id, day)

    def build_name_parser(self, day: date) -> NameParser:
        """The function that reads camera and capture time from a key of the capture day."""
        return build_name_parser(
            self.name_template, self.build_prefix(day), day, self.time_zone, self.name_clock
        )

    def compute_day_end_utc(self, day: date) -> datetime:
        """The time (UTC) at which the capture day ends in the facility's time zone."""
        midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(self.time_zone))
        return midnight.astimezone(UTC)

    def compute_local_day(self, now_utc: datetime) -> date:
        """The calendar date in the facility's time zone. `now_utc` must be timezone-aware."""
        return now_utc.astimezone(ZoneInfo(self.time_zone)).date()

    def is_closed(self, day: date) -> bool:
        """Whether the capture day falls on a weekday without customers."""
        return WEEKDAYS[day.weekday()] in self.closed_weekdays

    def find_permission_problem(self, on: date) -> str | None:
        """Why the permission does not cover this day, or None if it does."""
        if self.permission is None:
            return "no permission is recorded"
        if on > self.permission.valid_until:
            return f"permission ended on {self.permission.valid_until.isoformat()}"
        return None

    def get_denial_reason(self, capture_day: date, now_utc: datetime) -> str | None:
        """Why images of this capture day may not be read now, or None if they may.

        The permission must be valid on the capture day and on the day of reading.
        """
        return self.find_permission_problem(max(capture_day, self.compute_local_day(now_utc)))


def load_registry(path: Path, settings: Settings | None = None) -> dict[str, Facility]:
    """Read and validate the registry; returns the facilities by id, in the order of the file.

    With `settings`, a facility that names the default bucket or endpoint and one that omits it
    are treated as sharing it when prefixes are compared. Raises ConfigurationError that names the
    file and, for every problem, the facility, the field and what is allowed; it is a
    FormerTargetError if a facility has `target_share`.
    """
    problems: list[str] = []
    facilities: dict[str, Facility] = {}
    tables = _read_tables(path)
    for facility_id, table in tables.items():
        if not isinstance(table, dict) or "facility_id" in table:
            problems.append(
                f"facility {facility_id}: must be a table [facility.its-id]; the id is only the "
                "name of the table"
            )
            continue
        try:
            facilities[facility_id] = Facility(facility_id=facility_id, **table)
        except ValidationError as error:
            problems += [_describe_error(facility_id, e) for e in error.errors(include_url=False)]
    problems += _find_overlaps(facilities.values(), settings)
    if problems:
        what, hint = f"{path}: {'; '.join(problems)}", "docs/registry.md describes every field"
        former = [i for i, t in tables.items() if isinstance(t, dict) and "target_share" in t]
        if former:
            raise FormerTargetError(what, hint, former)
        raise ConfigurationError(what, hint)
    return facilities


def select_facilities(
    facilities: Mapping[str, Facility], ids: Sequence[str]
) -> dict[str, Facility]:
    """The facilities with these ids, in the registry's order; without ids all of them.

    Raises ConfigurationError with close matches for an unknown id.
    """
    for facility_id in ids:
        if facility_id not in facilities:
            near = difflib.get_close_matches(facility_id, facilities, n=3)
            hint = (
                f"Did you mean {' or '.join(near)}?"
                if near
                else "Known facilities: " + ", ".join(facilities)
            )
            raise ConfigurationError(f"the registry has no facility {facility_id!r}", hint)
    return {i: f for i, f in facilities.items() if not ids or i in ids}


def _read_tables(path: Path) -> dict[str, Any]:
    """The tables below `facility`, not yet validated."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"the facility registry {path} cannot be read: {error.strerror}",
            "Set FER_FACILITIES_FILE, or copy config/facilities.toml and edit it",
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8", "Save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path} is not valid TOML: {error}", "Correct the syntax at that position"
        ) from None
    unknown = sorted(set(document) - {"facility"})
    if unknown:
        raise ConfigurationError(
            f"{path}: unknown table or key {', '.join(map(repr, unknown))} at the top",
            "Each facility is a table [facility.its-id]",
        )
    tables = document.get("facility")
    if not isinstance(tables, dict) or not tables:
        raise ConfigurationError(
            f"{path} contains no facility", "Each facility is a table [facility.its-id]"
        )
    return tables


def _describe_error(facility_id: str, error: ErrorDetails) -> str:
    """A problem as text: facility, field, what is allowed."""
    facility = f"facility {facility_id}"
    fields = ".".join(str(part) for part in error["loc"]).strip()
    if not fields:
        return f"{facility}: {_describe_allowed(error)}"
    if error["type"] == "extra_forbidden":
        if fields == "target_share":
            return (
                f"{facility}: target_share is no longer a field: it was a share of the happy and "
                "sad faces; set target_rate, a share of all faces, or remove it"
            )
        names = Permission.model_fields if "." in fields else Facility.model_fields
        near = difflib.get_close_matches(fields.rpartition(".")[2], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known fields: {', '.join(names)}"
        return f"{facility}: unknown field {fields} ({hint})"
    return f"{facility}: {fields} {_describe_allowed(error)}"


def _describe_allowed(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "date_type":
        return "must be a date such as 2027-12-31, without quotes"
    if error["type"] == "string_pattern_mismatch":
        return f"must match {error['ctx']['pattern']}, not {error['input']!r}"
    return f"is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _find_overlaps(facilities: Iterable[Facility], settings: Settings | None) -> list[str]:
    """A problem text for each pair of facilities whose listings would overlap."""
    by_location: dict[tuple[str | None, str | None], dict[str, str]] = {}
    for facility in facilities:
        bucket, endpoint = facility.bucket, facility.endpoint
        if settings is not None:
            bucket = bucket or settings.s3_bucket
            endpoint = endpoint or (settings.s3_endpoint or "").rstrip("/") or None
        templates = by_location.setdefault((endpoint, bucket), {})
        templates[facility.facility_id] = facility.key_template
    return [
        f"facility {first} and facility {second}: key_template gives them overlapping prefixes "
        "in the same bucket"
        for templates in by_location.values()
        for first, second in find_overlaps(templates)
    ]
