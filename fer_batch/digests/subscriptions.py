"""Who gets a digest of which facilities, and when: the TOML file of the subscriptions.

An invalid subscription costs only its own recipients: the others get their digests, and the command
then fails with what is wrong. The file has no secrets: the webhook of a chat is a setting, which
the subscription names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from fer_batch.errors import ConfigurationError
from fer_batch.facilities.registry import WEEKDAYS, FacilityId, Line, Weekday
from fer_batch.facilities.registry_file import FileKind, read_document
from fer_batch.settings import Settings

FILE_NAME = "subscriptions.toml"
KIND = FileKind(
    "file of subscriptions",
    "subscription",
    "FER_SUBSCRIPTIONS_FILE",
    "fer-batch subscriptions init",
)
HINT = "docs/notify.md describes every field"

_ADDRESS = re.compile(r'([^\s@<>()\[\],;:\\"]{1,64})@([^\s@<>()\[\],;:\\"/]{1,255})')
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f]")


def check_address(text: str) -> str:
    """An address whose domain is in ASCII, as mail servers want it."""
    match = None if _UNPRINTABLE.search(text) else _ADDRESS.fullmatch(text)
    if match is not None:
        try:
            return f"{match[1]}@{match[2].encode('idna').decode()}"
        except UnicodeError:
            pass
    raise ValueError(f"{text!r} is not an address such as anna@example.com, without a name")


def _check_chat(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name):
        raise ValueError(
            "must be a name such as north, of a-z, 0-9 and _; the webhook, which is a secret, is "
            "the setting FER_CHAT_URLS__NORTH or the Airflow Connection fer_chat_north"
        )
    return name


class Subscription(BaseModel):
    """Recipients, their facilities, and when they get a digest."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: FacilityId = Field(description="The name of the TOML table")
    to: list[Annotated[str, AfterValidator(check_address)]] = Field(
        default=[], description="Mail addresses; each gets a mail of its own"
    )
    chat: Annotated[str, AfterValidator(_check_chat)] | None = Field(
        default=None, description="Name of a chat, whose webhook is `FER_CHAT_URLS__NAME`"
    )
    groups: list[Line] = Field(default=[], description="Groups of the facility registry")
    facilities: list[FacilityId] = Field(default=[], description="Ids of single facilities")
    all_facilities: bool = Field(default=False, description="`true`: every facility")
    every: Literal["day", "week"] = Field(
        default="day", description="`day`, or `week` for a digest of the last whole week"
    )
    weekday: Weekday | None = Field(
        default=None, description="Morning of a weekly digest, of mon to sun; default `mon`"
    )

    @model_validator(mode="after")
    def _check_fields(self) -> Subscription:
        if not self.to and self.chat is None:
            raise ValueError("has no recipient: set to, chat or both")
        if self.all_facilities and (self.groups or self.facilities):
            raise ValueError("all_facilities excludes groups and facilities")
        if not (self.all_facilities or self.groups or self.facilities):
            raise ValueError("has no facility: set groups, facilities or all_facilities")
        if self.weekday is not None and self.every == "day":
            raise ValueError('weekday is for every = "week"')
        return self

    def list_addresses(self) -> list[str]:
        """The mail addresses, each once."""
        found: dict[str, str] = {}
        for address in self.to:
            found.setdefault(address.casefold(), address)
        return list(found.values())

    def find_due_day(self, capture_day: date) -> date:
        """The newest capture day, not after this one, with which a digest is due."""
        if self.every == "day":
            return capture_day
        morning = capture_day + timedelta(days=1)
        weekday = WEEKDAYS.index(self.weekday or "mon")
        return capture_day - timedelta(days=(morning.weekday() - weekday) % 7)

    def is_due(self, capture_day: date, last_sent: date | None) -> bool:
        """Whether a recipient gets the digest of a capture day.

        `last_sent` is the capture day of the newest digest that the recipient got, None if there is
        none. A weekly digest whose night did not happen is due with the next one.
        """
        due_day = self.find_due_day(capture_day)
        if last_sent is None:
            return due_day == capture_day
        return last_sent < due_day


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """The valid subscriptions of a file, and what is wrong with the others, by name."""

    path: Path | None
    valid: Sequence[Subscription] = ()
    problems: Mapping[str, Sequence[str]] = field(default_factory=dict)


def find_file(settings: Settings) -> Path | None:
    """The file of subscriptions; None if none is set, and none is beside the registry."""
    if settings.subscriptions_file is not None:
        return settings.subscriptions_file
    beside = settings.facilities_file.with_name(FILE_NAME)
    return beside if beside.exists() else None


def load_subscriptions(settings: Settings) -> Subscriptions:
    """Read and validate the subscriptions; none without a file.

    Raises ConfigurationError if the file as a whole cannot be used.
    """
    path = find_file(settings)
    if path is None:
        return Subscriptions(None)
    document = read_document(path, KIND)
    tables = document.get("subscription", {})
    unknown = [name for name in document if name != "subscription"]
    if unknown or not isinstance(tables, dict):
        raise ConfigurationError(
            f"{path}: unknown table or key {', '.join(map(repr, unknown)) or 'subscription'} at "
            "the top",
            "Each subscription is a table [subscription.its-name]",
        )
    valid, problems = [], {}
    for name, table in tables.items():
        if not isinstance(table, dict) or "name" in table:
            problems[name] = ["must be a table [subscription.its-name] without a field name"]
            continue
        try:
            valid.append(Subscription(name=name, **table))
        except ValidationError as error:
            problems[name] = [_describe(e) for e in error.errors(include_url=False)]
    return Subscriptions(path, valid, problems)


def _describe(error: ErrorDetails) -> str:
    """A problem as text: field, what is allowed."""
    fields = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        names = [name for name in Subscription.model_fields if name != "name"]
        near = difflib.get_close_matches(fields, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known fields: {', '.join(names)}"
        return f"unknown field {fields} ({hint})"
    if error["type"] == "value_error":
        return f"{fields} {error['ctx']['error']}".strip()
    return f"{fields} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def select_facilities(
    subscription: Subscription, groups: Mapping[str, str | None]
) -> tuple[list[str], list[str]]:
    """The ids of a subscription's facilities, and what is wrong with its groups and ids.

    `groups` has the group of each facility of the registry by id, None without one. An unknown
    group or id does not affect the others.
    """
    if subscription.all_facilities:
        return list(groups), []
    problems = []
    known = sorted({group for group in groups.values() if group})
    for kind, names, existing in (
        ("group", subscription.groups, known),
        ("facility", subscription.facilities, list(groups)),
    ):
        for name in names:
            if name not in existing:
                near = difflib.get_close_matches(name, existing, n=3, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known: {_list(existing)}"
                problems.append(f"the registry has no {kind} {name!r} ({hint})")
    members = [
        facility_id
        for facility_id, group in groups.items()
        if facility_id in subscription.facilities or (group and group in subscription.groups)
    ]
    return members, problems


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) or "none"
