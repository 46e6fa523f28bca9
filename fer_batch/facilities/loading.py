"""Loads the facility registry: the valid facilities, and what is wrong with the others.

An invalid entry costs only its facility: the others are processed. The invalid one is never read,
nor treated as removed; the commands report it together with the facilities that they process.
Reading the file is left to registry_file.py, the fields and their rules to registry.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fer_batch.errors import ConfigurationError, FormerTargetError, PermanentError
from fer_batch.facilities.key_overlaps import find_overlaps
from fer_batch.facilities.registry import Facility, Permission
from fer_batch.facilities.registry_file import read_document
from fer_batch.phrases import suggest
from fer_batch.records import Batch
from fer_batch.settings import Settings

HINT = "docs/registry.md describes every field"

_LOCATION_FIELDS = ("key_template", "name_template", "bucket", "endpoint")
"""The fields that determine which objects belong to a facility."""


@dataclass(frozen=True, slots=True)
class InvalidFacility:
    """A facility whose entry is invalid; nothing of it is listed or read.

    `problems` has a text for each fault, with the field and what is allowed.
    `time_zone` is as written, None if it is not a text. `has_former_target`: it has `target_share`.
    `stand_in` is a facility with the same bucket and keys; None if the entry does not tell them.
    """

    facility_id: str
    problems: tuple[str, ...]
    time_zone: str | None = None
    has_former_target: bool = False
    stand_in: Facility | None = None

    @property
    def reason(self) -> str:
        """All problems as one text."""
        return "; ".join(self.problems)


@dataclass(frozen=True, slots=True)
class Registry:
    """The valid and the invalid facilities of a registry file by id, in the order of the file."""

    path: Path
    facilities: Mapping[str, Facility]
    invalid: Mapping[str, InvalidFacility]

    def select(self, ids: Sequence[str] = (), time_zone: str | None = None) -> Registry:
        """The facilities with these ids and this time zone, in the registry's order; default all.

        Raises ConfigurationError for an unknown id, with close matches, and for a selection in
        which no facility is valid, with what is wrong with them.
        """
        known = [*self.facilities, *self.invalid]
        for facility_id in ids:
            if facility_id not in known:
                near = suggest(facility_id, known)
                hint = f"Did you mean {near}?" if near else f"Known facilities: {', '.join(known)}"
                raise ConfigurationError(f"the registry has no facility {facility_id!r}", hint)

        def is_selected(facility: Facility | InvalidFacility) -> bool:
            return (not ids or facility.facility_id in ids) and (
                time_zone is None or facility.time_zone == time_zone
            )

        selected = Registry(
            self.path,
            {i: facility for i, facility in self.facilities.items() if is_selected(facility)},
            {i: facility for i, facility in self.invalid.items() if is_selected(facility)},
        )
        if not selected.facilities:
            selected.check()
        return selected

    def get_permitted(self, batch: Batch, strict_from: date) -> Facility:
        """The facility of a batch whose images may be read at this moment.

        `strict_from` is that of `Facility.get_denial_reason`. Raises PermanentError if the entry is
        missing or invalid, or the images may not be read.
        """
        if invalid := self.invalid.get(batch.facility_id):
            raise PermanentError(
                f"the entry of {batch.facility_id} in the registry is invalid: {invalid.reason}",
                "Nothing of it is read until the entry is corrected",
            )
        facility = self.facilities.get(batch.facility_id)
        if facility is None:
            raise PermanentError(
                f"{batch.facility_id} is not in the facility registry any more",
                "Nothing of it is read; put it back, or start a new run",
            )
        denial_reason = facility.get_denial_reason(
            batch.capture_day, datetime.now(UTC), strict_from
        )
        if denial_reason:
            raise PermanentError(f"{batch.facility_id} may not be read: {denial_reason}")
        return facility

    def check(self) -> None:
        """Raise ConfigurationError with every problem if a facility is invalid.

        It is a FormerTargetError if a facility has `target_share`.
        """
        if not self.invalid:
            return
        problems = [
            f"facility {facility_id}: {problem}"
            for facility_id, facility in self.invalid.items()
            for problem in facility.problems
        ]
        what = f"{self.path}: {'; '.join(problems)}"
        former = [i for i, facility in self.invalid.items() if facility.has_former_target]
        if former:
            raise FormerTargetError(what, HINT, former)
        raise ConfigurationError(what, HINT)


def load_registry(path: Path, settings: Settings | None = None) -> Registry:
    """Read and validate the registry.

    With `settings`, a facility that names the default bucket or endpoint and one that omits it
    are treated as sharing it when prefixes are compared. Raises ConfigurationError that names file,
    line and remedy if the file as a whole cannot be used.
    """
    document = read_document(path)
    tables = document.get("facility", {})
    problems: dict[str, list[str]] = {}
    for facility_id, problem in _find_misplaced(document):
        problems.setdefault(facility_id, []).append(problem)
    if not isinstance(tables, dict) or not (tables or problems):
        raise ConfigurationError(
            f"{path} contains no facility", "Each facility is a table [facility.its-id]"
        )
    facilities: dict[str, Facility] = {}
    for facility_id, table in tables.items():
        facility = _validate(facility_id, table)
        if isinstance(facility, Facility):
            facilities[facility_id] = facility
        else:
            problems.setdefault(facility_id, []).extend(facility)
    # An invalid facility takes part: nothing of it may be read in the name of another one either.
    stand_ins = {i: _build_stand_in(i, tables[i]) for i in problems if i in tables}
    located = [
        *facilities.values(),
        *(facility for facility in stand_ins.values() if facility is not None),
    ]
    for first, second in _find_overlaps(located, settings):
        for facility_id, other in ((first, second), (second, first)):
            problems.setdefault(facility_id, []).append(
                f"key_template gives it and facility {other} overlapping prefixes in the same "
                "bucket"
            )
    return Registry(
        path,
        {i: facility for i, facility in facilities.items() if i not in problems},
        {
            i: _describe_invalid(i, tables.get(i), texts, facilities.get(i) or stand_ins.get(i))
            for i, texts in problems.items()
        },
    )


def _find_misplaced(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each facility with a table that is not below `facility`: its presumed id and the problem."""
    for name, value in document.items():
        if name == "facility":
            continue
        problem = (
            f"unknown table or key {name!r} at the top; each facility is a table [facility.its-id]"
        )
        # [facilities.mall] is about mall, and so is [mall] or [mall.permission].
        is_group = (
            isinstance(value, dict)
            and "permission" not in value
            and bool(value)
            and all(isinstance(table, dict) for table in value.values())
        )
        for facility_id in value if is_group else (name,):
            yield facility_id, problem


def _validate(facility_id: str, table: Any) -> Facility | list[str]:
    """The facility of a table, or what is wrong with it."""
    if not isinstance(table, dict) or "facility_id" in table:
        return ["must be a table [facility.its-id]; the id is only the name of the table"]
    try:
        return Facility(facility_id=facility_id, **table)
    except ValidationError as error:
        return [_describe_error(e) for e in error.errors(include_url=False)]


def _build_stand_in(facility_id: str, table: Any) -> Facility | None:
    """A valid facility whose images are where those of an invalid one are; None if it is unknown
    where."""
    if not isinstance(table, dict):
        return None
    location = {name: table[name] for name in _LOCATION_FIELDS if name in table}
    stand_in = _validate(
        facility_id, {"name": "-", "time_zone": "UTC", "image_kind": "crops", **location}
    )
    return stand_in if isinstance(stand_in, Facility) else None


def _describe_invalid(
    facility_id: str, table: Any, problems: Sequence[str], stand_in: Facility | None
) -> InvalidFacility:
    time_zone = table.get("time_zone") if isinstance(table, dict) else None
    return InvalidFacility(
        facility_id,
        tuple(problems),
        time_zone if isinstance(time_zone, str) else None,
        isinstance(table, dict) and "target_share" in table,
        stand_in,
    )


def _describe_error(error: ErrorDetails) -> str:
    """A problem as text: field, what is allowed."""
    fields = ".".join(str(part) for part in error["loc"]).strip()
    if not fields:
        return _describe_allowed(error)
    if error["type"] == "extra_forbidden":
        if fields == "target_share":
            return (
                "target_share is no longer a field: it was a share of the happy and sad faces; set "
                "target_rate, a share of all faces, or remove it"
            )
        names = Permission.model_fields if "." in fields else Facility.model_fields
        near = suggest(fields.rpartition(".")[2], names, 1)
        hint = f"did you mean {near}?" if near else f"known fields: {', '.join(names)}"
        return f"unknown field {fields} ({hint})"
    return f"{fields} {_describe_allowed(error)}"


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


def _find_overlaps(
    facilities: Iterable[Facility], settings: Settings | None
) -> Iterator[tuple[str, str]]:
    """The ids of each pair of facilities whose listings would overlap."""
    by_location: dict[tuple[str | None, str | None], dict[str, Sequence[str]]] = {}
    for facility in facilities:
        bucket, endpoint = facility.bucket, facility.endpoint
        if settings is not None:
            bucket = bucket or settings.s3_bucket
            endpoint = endpoint or (settings.s3_endpoint or "").rstrip("/") or None
        templates = by_location.setdefault((endpoint, bucket), {})
        templates[facility.facility_id] = facility.key_template
    for templates in by_location.values():
        yield from find_overlaps(templates)
