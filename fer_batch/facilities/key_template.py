"""Key templates: how a facility's keys encode the capture day.

A template such as `{facility_id}/{capture_day:%Y-%m-%d}/` is expanded into the prefix of one
day's keys. The parts of a date have a fixed width, so the prefixes of two days of a template have
the same length and differ: neither begins with the other. All other fields of a facility are left
to registry.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from datetime import date

DEFAULT_TEMPLATE = "{facility_id}/{capture_day:%Y-%m-%d}/"

MAX_PREFIX_BYTES = 512
"""S3 keys have at most 1,024 bytes; half of them are reserved for the name of the image."""

_WIDTHS = {"%Y": 4, "%m": 2, "%d": 2, "%j": 3}
_ISO = "%Y-%m-%d"
_DIRECTIVE = re.compile(r"%(?:.|\Z)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DIGITS = frozenset(string.digits)

# Represents any digit of a date in a pattern; a template cannot contain this character.
_ANY_DIGIT = "\x00"


def check_template(template: str) -> str:
    """Validate a template and return it. Raises ValueError that says what is allowed."""
    directives: set[str] = set()
    last_literal = ""
    for literal, field, spec, conversion in _parse(template):
        last_literal = literal if field is None else ""
        if field is None or (field == "facility_id" and not spec and not conversion):
            continue
        if field != "capture_day" or conversion:
            raise ValueError("may contain only the fields {facility_id} and {capture_day:…}")
        directives |= _parse_directives(spec or _ISO)
    if _CONTROL.search(template):
        raise ValueError("must not contain control characters")
    if not ({"%Y", "%m", "%d"} <= directives or {"%Y", "%j"} <= directives):
        raise ValueError("must contain the complete capture day, such as {capture_day:%Y-%m-%d}")
    if not last_literal or last_literal[-1] in _DIGITS:
        raise ValueError("must end with a literal character other than a digit, such as /")
    if len(expand_template(template, "x" * 63, date(2000, 1, 1)).encode()) > MAX_PREFIX_BYTES:
        raise ValueError(f"must expand to prefixes of at most {MAX_PREFIX_BYTES} bytes")
    return template


def expand_template(template: str, facility_id: str, day: date) -> str:
    """The prefix of one capture day's keys. `template` must be valid, see `check_template`."""
    # Not strftime: its %Y does not have four digits on every system.
    values = {
        "%Y": f"{day.year:04}",
        "%m": f"{day.month:02}",
        "%d": f"{day.day:02}",
        "%j": f"{day.timetuple().tm_yday:03}",
    }
    return _fill(template, facility_id, values)


def find_overlaps(templates: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of facility ids of which a prefix of one can begin with a prefix of the other, on any
    two days.

    `templates` maps a facility id to its template. Any digit counts as a possible digit of a
    date: a pair that cannot overlap (such as a literal month 13) may be reported, but no
    overlapping pair is missed.
    """
    wildcards = {directive: _ANY_DIGIT * width for directive, width in _WIDTHS.items()}
    patterns = [
        (_fill(t, facility_id, wildcards), facility_id) for facility_id, t in templates.items()
    ]
    heads = sorted((p.partition(_ANY_DIGIT)[0], p, facility_id) for p, facility_id in patterns)
    # Prefixes overlap only if one head begins with the other, and such heads are adjacent when
    # sorted.
    for i, (head, pattern, facility_id) in enumerate(heads):
        for other_head, other_pattern, other_id in heads[i + 1 :]:
            if not other_head.startswith(head):
                break
            if _may_overlap(pattern, other_pattern):
                yield facility_id, other_id


def _may_overlap(a: str, b: str) -> bool:
    return all(
        x == y or (x == _ANY_DIGIT and y in _DIGITS) or (y == _ANY_DIGIT and x in _DIGITS)
        for x, y in zip(a, b, strict=False)
    )


def _fill(template: str, facility_id: str, values: Mapping[str, str]) -> str:
    """The template with the facility id and, for each directive such as %Y, its value."""
    parts = []
    for literal, field, spec, _ in _parse(template):
        parts.append(literal)
        if field == "facility_id":
            parts.append(facility_id)
        elif field is not None:
            parts.append(_DIRECTIVE.sub(lambda match: values[match[0]], spec or _ISO))
    return "".join(parts)


def _parse_directives(spec: str) -> set[str]:
    directives = set(_DIRECTIVE.findall(spec))
    if not directives <= set(_WIDTHS) or "{" in spec:
        raise ValueError(
            f"may use only {', '.join(_WIDTHS)} in {{capture_day:…}}, which have a fixed width"
        )
    return directives


def _parse(template: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    try:
        yield from string.Formatter().parse(template)
    except ValueError as error:
        raise ValueError(f"is not a valid template: {error}") from None
