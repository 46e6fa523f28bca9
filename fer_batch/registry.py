"""The facility registry: which facilities may be read, and how their keys look.

`load` reads the TOML file and refuses anything it does not understand, so that a typo never
passes for a default. A facility's key template is the only source of an image's capture day;
its time zone only says when that day is over. Templates are checked in key_template.py, the
copy of the registry in the tables is kept by ledger.py, and whether a permission is asked for
before anything is read is decided in listing.py.
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

from fer_batch.errors import ConfigurationError
from fer_batch.key_template import DEFAULT_TEMPLATE, check_template, expand, overlapping
from fer_batch.settings import Settings

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _printable(value: str) -> str:
    if _UNPRINTABLE.search(value):
        raise ValueError("must hold no control character")
    return value


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        near = difflib.get_close_matches(name, available_timezones(), n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin{hint}") from None
    if name == "localtime":
        raise ValueError("must be an IANA time zone; localtime differs from machine to machine")
    return name


def _endpoint(url: str) -> str:
    must = "must be a URL such as https://s3.example.com, without keys, query or fragment"
    try:
        parts = urlsplit(url)
        port_is_right = parts.port != 0
    except ValueError:
        raise ValueError(must) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_right:
        raise ValueError(must)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(must)
    return url.rstrip("/")


def _weekdays(days: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(day for day in WEEKDAYS if day in days)


def _relative_key(name: str) -> str:
    if name.startswith("/"):
        raise ValueError("must be a key below the day's prefix, such as _SUCCESS")
    return name


Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_printable),
]
FacilityId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Permission(_Table):
    """Why a facility's images may be processed, who decided it, and until when."""

    purpose: Line = Field(description="What the images are processed for, in a sentence")
    lawful_basis: Line = Field(
        description="The legal ground, such as the article and the agreement that it rests on"
    )
    approved_by: Line = Field(description="Who approved it, by name or office")
    valid_until: date = Field(
        description="The last day on which it holds, and the last capture day that may be read"
    )


class Facility(_Table):
    """A shop, centre or branch: where its images are and what is known of its days."""

    facility_id: FacilityId = Field(description="The name of the TOML table")
    name: Line = Field(description="The name that people know it by")
    time_zone: Annotated[str, AfterValidator(_time_zone)] = Field(
        description="IANA time zone, such as `Europe/Berlin`; says when a capture day is over"
    )
    image_kind: Literal["crops", "frames"] = Field(
        description="`crops` are single faces, `frames` are camera pictures to find faces in"
    )
    key_template: Annotated[str, AfterValidator(check_template)] = Field(
        default=DEFAULT_TEMPLATE, description="The prefix of one capture day's keys; see below"
    )
    bucket: Annotated[str | None, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = Field(
        default=None, description="Its own bucket; none means `FER_S3_BUCKET`"
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        default=None, description="URL of its own S3 server; none means `FER_S3_ENDPOINT`"
    )
    credentials: Annotated[
        str | None, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=63)
    ] = Field(
        default=None,
        description="Name of its own keys, set as `FER_S3_CREDENTIALS__NAME__ACCESS_KEY_ID` and "
        "`…__SECRET_ACCESS_KEY`, or as the Airflow Connection `fer_s3_name`",
    )
    ready_marker: Annotated[Line, AfterValidator(_relative_key)] | None = Field(
        default=None,
        description="Key below the day's prefix, such as `_SUCCESS`, that appears when the day's "
        "upload is finished. Not together with `settle_minutes`",
    )
    settle_minutes: Annotated[int, Field(ge=1, le=10_080)] | None = Field(
        default=None,
        description="A day's upload is finished when its newest object is this old (1 to 10080)",
    )
    expected_images_min: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Fewer images on an open day are a finding"
    )
    closed_weekdays: Annotated[tuple[Weekday, ...], Strict(False), AfterValidator(_weekdays)] = (
        Field(
            default=(),
            description="Weekdays without customers, of mon, tue, wed, thu, fri, sat, sun",
        )
    )
    target_share: float = Field(
        default=0.8, ge=0, le=1, description="The happy share to reach, from 0 to 1"
    )
    permission: Permission | None = Field(
        default=None, description="The recorded permission; without one nothing is listed or read"
    )

    @model_validator(mode="after")
    def _one_sign_of_readiness(self) -> Facility:
        if self.ready_marker is not None and self.settle_minutes is not None:
            raise ValueError("ready_marker and settle_minutes exclude each other; keep one")
        return self

    def prefix(self, day: date) -> str:
        """What every key of the capture day begins with."""
        return expand(self.key_template, self.facility_id, day)

    def day_end_utc(self, day: date) -> datetime:
        """The instant at which the capture day is over in the facility's time zone."""
        midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(self.time_zone))
        return midnight.astimezone(UTC)

    def local_day(self, now_utc: datetime) -> date:
        """The calendar date at the facility."""
        return now_utc.astimezone(ZoneInfo(self.time_zone)).date()

    def is_closed(self, day: date) -> bool:
        """Whether the capture day falls on a weekday without customers."""
        return WEEKDAYS[day.weekday()] in self.closed_weekdays

    def permission_problem(self, on: date) -> str | None:
        """Why the facility's images may not be processed on that day; None if they may."""
        if self.permission is None:
            return "no permission is recorded"
        if on > self.permission.valid_until:
            return f"permission ended on {self.permission.valid_until.isoformat()}"
        return None

    def refusal(self, capture_day: date, now_utc: datetime) -> str | None:
        """Why images of that day may not be read now; None if they may.

        A permission must hold on the capture day and on the day of the reading.
        """
        return self.permission_problem(max(capture_day, self.local_day(now_utc)))


def load(path: Path, settings: Settings | None = None) -> dict[str, Facility]:
    """Read and check the registry; the order is the file's.

    With the settings, a facility that names the default bucket and one that leaves it out are
    known to share it when prefixes are compared. Raises ConfigurationError naming the file and,
    for everything that is wrong, the facility, the field and what is allowed.
    """
    problems: list[str] = []
    facilities: dict[str, Facility] = {}
    for facility_id, table in _tables(path).items():
        if not isinstance(table, dict) or "facility_id" in table:
            problems.append(
                f"facility {facility_id}: must be a table [facility.its-id] whose name is the "
                "only place of the id"
            )
            continue
        try:
            facilities[facility_id] = Facility(facility_id=facility_id, **table)
        except ValidationError as error:
            problems += [_in_words(facility_id, e) for e in error.errors(include_url=False)]
    problems += _overlaps(facilities.values(), settings)
    if problems:
        raise ConfigurationError(
            f"{path}: {'; '.join(problems)}", "docs/registry.md describes every field"
        )
    return facilities


def select(facilities: Mapping[str, Facility], ids: Sequence[str]) -> dict[str, Facility]:
    """The facilities with these ids, in the registry's order; all of them for no id.

    Raises ConfigurationError with near matches for an id that the registry does not know.
    """
    for wanted in ids:
        if wanted not in facilities:
            near = difflib.get_close_matches(wanted, facilities, n=3)
            hint = (
                f"Did you mean {' or '.join(near)}?"
                if near
                else "It knows " + ", ".join(facilities)
            )
            raise ConfigurationError(f"the registry knows no facility {wanted!r}", hint)
    return {i: f for i, f in facilities.items() if not ids or i in ids}


def _tables(path: Path) -> dict[str, Any]:
    """The tables below `facility`, not yet checked."""
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
        raise ConfigurationError(f"{path} is not TOML: {error}", "Correct that place") from None
    unknown = sorted(set(document) - {"facility"})
    if unknown:
        raise ConfigurationError(
            f"{path}: unknown table or key {', '.join(map(repr, unknown))} at the top",
            "Each facility is a table [facility.its-id]",
        )
    tables = document.get("facility")
    if not isinstance(tables, dict) or not tables:
        raise ConfigurationError(
            f"{path} names no facility", "Each facility is a table [facility.its-id]"
        )
    return tables


def _in_words(facility_id: str, error: ErrorDetails) -> str:
    """One thing that is wrong: facility, field, what is allowed."""
    where = f"facility {facility_id}"
    fields = ".".join(str(part) for part in error["loc"]).strip()
    if not fields:
        return f"{where}: {_allowed(error)}"
    if error["type"] == "extra_forbidden":
        known = Permission.model_fields if "." in fields else Facility.model_fields
        near = difflib.get_close_matches(fields.rpartition(".")[2], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"{where}: unknown field {fields} ({hint})"
    return f"{where}: {fields} {_allowed(error)}"


def _allowed(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "date_type":
        return "must be a date such as 2027-12-31, without quotes"
    if error["type"] == "string_pattern_mismatch":
        return f"must match {error['ctx']['pattern']}, not {error['input']!r}"
    return f"is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _overlaps(facilities: Iterable[Facility], settings: Settings | None) -> list[str]:
    """Pairs of facilities of which one would list the other's keys."""
    places: dict[tuple[str | None, str | None], dict[str, str]] = {}
    for facility in facilities:
        bucket, endpoint = facility.bucket, facility.endpoint
        if settings is not None:
            bucket = bucket or settings.s3_bucket
            endpoint = endpoint or (settings.s3_endpoint or "").rstrip("/") or None
        templates = places.setdefault((endpoint, bucket), {})
        templates[facility.facility_id] = facility.key_template
    return [
        f"facility {first} and facility {second}: key_template gives them overlapping prefixes "
        "in the same bucket"
        for templates in places.values()
        for first, second in overlapping(templates)
    ]
