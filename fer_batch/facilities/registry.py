"""The entries of the facility registry: which facilities may be read, the format of their keys.

Unknown fields are rejected, so that a typo is not silently replaced by a default. The capture day
of an image comes from its key only; the time zone determines when that day is over, and by which
clock names tell the time. Templates are validated in key_template.py and name_template.py and used
in day_keys.py. Loading the registry is left to loading.py, its copy in the database to
database/ledger.py, enforcing permissions before anything is read to pipeline/listing.py and
pipeline/scoring.py.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    model_validator,
)

from fer_batch.facilities import audience as audiences
from fer_batch.facilities import key_template as keys
from fer_batch.facilities import name_template as names
from fer_batch.facilities.audience import Audience
from fer_batch.facilities.day_keys import DayKeys, KeyLayout
from fer_batch.facilities.key_overlaps import find_own_overlap
from fer_batch.facilities.name_template import Clock, NameParser
from fer_batch.phrases import suggest

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _check_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        # An abbreviation such as EST has no place, and the sign of Etc/GMT+2 is the opposite.
        areas = [zone for zone in available_timezones() if "/" in zone and zone[:4] != "Etc/"]
        near = suggest(name, areas)
        hint = f" (did you mean {near}?)" if near else ""
        raise ValueError(
            "must be an IANA time zone such as Europe/Berlin or Asia/Kolkata, written "
            f"Area/City{hint}"
        ) from None
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


def _to_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _check_relative_key(name: str) -> str:
    if name.startswith("/"):
        raise ValueError("must be a key below the day's prefix, such as _SUCCESS")
    return name


Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(keys.check_printable),
]
Patterns = Annotated[
    tuple[Line, ...], Strict(False), BeforeValidator(_to_tuple), Field(max_length=100)
]
FacilityId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Permission(_Table):
    """Why a facility's images may be processed, who decided it, and on which days."""

    purpose: Line = Field(description="The purpose of processing the images, in a sentence")
    lawful_basis: Line = Field(
        description="The legal basis, such as the article and the underlying agreement"
    )
    approved_by: Line = Field(description="The person or office that approved it")
    valid_until: date = Field(
        description="The last day on which images may be read; a nightly run reads a capture day "
        "on the next day"
    )
    notice_day: date | None = Field(
        default=None,
        description="The day since which a notice at the entrance informs people, before a camera "
        "records them. No earlier capture day is read",
    )
    assessment_day: date | None = Field(
        default=None,
        description="The day of the impact assessment, of the first one if it was revised. No "
        "earlier capture day is read",
    )


class Facility(_Table):
    """A shop, center or branch: the location of its images, its days, target and permission."""

    facility_id: FacilityId = Field(description="The name of the TOML table")
    name: Line = Field(description="The display name")
    group: Line | None = Field(
        default=None,
        description="The area or brand that the facility belongs to; the report has a section and "
        "a total for each group",
    )
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] = Field(
        description="IANA time zone, such as `Europe/Berlin`; determines when a capture day is over"
    )
    audience: Annotated[
        tuple[Audience, ...],
        Strict(False),
        BeforeValidator(_to_tuple),
        AfterValidator(audiences.sort_audience),
    ] = Field(
        default=(),
        description="Whom the cameras record, one or a list of: "
        f"{', '.join(f'`{each}`' for each in get_args(Audience))}; see below",
    )
    jurisdiction: Annotated[str, AfterValidator(audiences.check_jurisdiction)] | None = Field(
        default=None,
        description="The country whose law applies, as an ISO 3166-1 code such as `DE`, or `EU`; "
        "see below",
    )
    image_kind: Literal["crops", "frames"] = Field(
        description="`crops` are images of single faces, `frames` are camera images in which faces "
        "are detected"
    )
    key_template: Annotated[
        tuple[str, ...],
        Strict(False),
        BeforeValidator(_to_tuple),
        AfterValidator(keys.check_templates),
    ] = Field(
        default=(keys.DEFAULT_TEMPLATE,),
        description="The prefix of one capture day's keys, or a list of them; see below",
    )
    day_clock: Clock = Field(
        default="local",
        description="The clock of the dates in `key_template`: `local`, in `time_zone`, or `UTC`",
    )
    include: Patterns = Field(
        default=(),
        description="Patterns such as `*.jpg`: only matching objects are images; see below. "
        "Without them, every object is one",
    )
    exclude: Patterns = Field(
        default=(),
        description="Patterns such as `*.json` or `*/thumbs/*`: matching objects are not images",
    )
    name_template: Annotated[str, AfterValidator(names.check_name_template)] | None = Field(
        default=None,
        description="Where the rest of a key names camera and capture time, such as "
        "`{camera}/{captured_at:%H%M%S}-{*}.jpg`; see below. Without it, images have no times",
    )
    name_clock: Clock = Field(
        default="local",
        description="The clock of these times: `local`, in `time_zone`, or `UTC`",
    )
    bucket: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]{3,255}$")] = Field(
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
    empty_days: Literal["error", "allowed"] = Field(
        default="error",
        description="Whether an open day without any image is an error of `check_data`, once the "
        "facility had images: `error` or `allowed`",
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
        description="With `key_order` `none`: how many faces count as one independent face, "
        "because faces of one visit are alike (1 to 1000)",
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
        if self.day_clock == "UTC" and self.name_template is None:
            raise ValueError(
                'day_clock = "UTC" needs a name_template: the capture time decides to which '
                "local day an image belongs"
            )
        return self

    @model_validator(mode="after")
    def _check_key_fields(self) -> Facility:
        if overlap := find_own_overlap(self.key_template, self.facility_id):
            first, second = map(repr, overlap)
            raise ValueError(
                f"key_template has overlapping prefixes: {first} and {second} would list the same "
                "images twice"
            )
        has_epoch = self.name_template is not None and names.begins_with_epoch(self.name_template)
        if not has_epoch and not all(map(keys.has_date, self.key_template)):
            raise ValueError(
                "key_template must contain the complete capture day, such as "
                "{capture_day:%Y-%m-%d}. Only in front of a name_template that begins with "
                "{captured_at:epoch} or {captured_at:epoch_ms} it may be left out"
            )
        names_camera = self.name_template is not None and names.has_camera(self.name_template)
        if names_camera and any(map(keys.has_camera, self.key_template)):
            raise ValueError("only one of key_template and name_template may contain {camera}")
        return self

    def build_day_keys(self, day: date) -> DayKeys:
        """The keys of the capture day: where to list them, and how to read them."""
        return DayKeys(
            KeyLayout(
                facility_id=self.facility_id,
                key_templates=self.key_template,
                name_template=self.name_template,
                name_clock=self.name_clock,
                day_clock=self.day_clock,
                time_zone=self.time_zone,
                include=self.include,
                exclude=self.exclude,
            ),
            day,
        )

    def list_key_beginnings(self) -> list[str]:
        """What the keys of all days begin with, for each key template; may be empty texts."""
        return [keys.find_beginning(each, self.facility_id) for each in self.key_template]

    def build_name_parser(self, day: date) -> NameParser:
        """The function that reads camera and capture time from a key of the capture day."""
        return self.build_day_keys(day).parse

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

    def list_missing_fields(self) -> list[str]:
        """What the entry lacks of what it must record about the people in the images."""
        found = [name for name in ("audience", "jurisdiction") if not getattr(self, name)]
        if self.permission is not None:
            dates = ("notice_day", "assessment_day")
            found += [f"permission.{d}" for d in dates if getattr(self.permission, d) is None]
        return found

    def describe_gap(self, strict_from: date) -> str:
        """What the entry lacks, and from when on nothing is read without it; empty: nothing."""
        missing = ", ".join(self.list_missing_fields())
        when = f"required from {strict_from.isoformat()} on"
        return f"the registry lacks {missing}, {when}" if missing else ""

    def get_denial_reason(
        self, capture_day: date, now_utc: datetime, strict_from: date
    ) -> str | None:
        """Why images of this capture day may not be read now, or None if they may.

        The permission must be valid on the capture day and on the day of reading. The notice and
        the impact assessment must not be later than the capture day. From `strict_from` on, the
        setting `strict_registry_from`, nothing of `list_missing_fields` may be missing.
        """
        last_day = max(capture_day, self.compute_local_day(now_utc))
        return (
            audiences.find_prohibition(self.audience, self.jurisdiction)
            or self.find_permission_problem(last_day)
            or self._find_late_date(capture_day)
            or (self.describe_gap(strict_from) if last_day >= strict_from else "")
            or None
        )

    def _find_late_date(self, capture_day: date) -> str | None:
        if self.permission is None:
            return None
        dates = {
            "the notice at the entrance": self.permission.notice_day,
            "the impact assessment": self.permission.assessment_day,
        }
        for what, since in dates.items():
            if since is not None and capture_day < since:
                return f"{what} is dated {since.isoformat()}, after the capture day"
        return None
