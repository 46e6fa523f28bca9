"""Key templates: how a facility's keys say the capture day.

A template such as `{facility_id}/{capture_day:%Y-%m-%d}/` is turned into the prefix of one
day's keys. The parts of a day have a fixed width, so two days of a template have prefixes of
the same length that differ, and neither can begin with the other. What else is known of a
facility belongs to registry.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from datetime import date

DEFAULT_TEMPLATE = "{facility_id}/{capture_day:%Y-%m-%d}/"

MAX_PREFIX_BYTES = 512
"""S3 keys end at 1,024 bytes; half of them are left to the image's own name."""

_WIDTHS = {"%Y": 4, "%m": 2, "%d": 2, "%j": 3}
_ISO = "%Y-%m-%d"
_DIRECTIVE = re.compile(r"%(?:.|\Z)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DIGITS = frozenset(string.digits)

# Stands for a digit of the date in a pattern; no template may hold it.
_ANY_DIGIT = "\x00"


def check_template(template: str) -> str:
    """The template itself. Raises ValueError that says what is allowed."""
    directives: set[str] = set()
    last_literal = ""
    for literal, field, spec, conversion in _parsed(template):
        last_literal = literal if field is None else ""
        if field is None or (field == "facility_id" and not spec and not conversion):
            continue
        if field != "capture_day" or conversion:
            raise ValueError("may hold only the fields {facility_id} and {capture_day:…}")
        directives |= _directives(spec or _ISO)
    if _CONTROL.search(template):
        raise ValueError("must hold no control character")
    if not ({"%Y", "%m", "%d"} <= directives or {"%Y", "%j"} <= directives):
        raise ValueError(
            "must hold the capture day down to the day, such as {capture_day:%Y-%m-%d}"
        )
    if not last_literal or last_literal[-1] in _DIGITS:
        raise ValueError("must end with a character that is no digit and no field, such as /")
    if len(expand(template, "x" * 63, date(2000, 1, 1)).encode()) > MAX_PREFIX_BYTES:
        raise ValueError(f"must give prefixes of at most {MAX_PREFIX_BYTES} bytes")
    return template


def expand(template: str, facility_id: str, day: date) -> str:
    """The prefix of one capture day's keys."""
    # Not strftime, whose %Y has four digits on some systems only.
    written = {
        "%Y": f"{day.year:04}",
        "%m": f"{day.month:02}",
        "%d": f"{day.day:02}",
        "%j": f"{day.timetuple().tm_yday:03}",
    }
    return _filled(template, facility_id, written)


def overlapping(templates: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of facility ids whose prefixes may begin with one another, on whatever days.

    `templates` maps a facility id to its template. Any digit counts as a possible digit of a
    date, so a pair that can never meet (a month 13 in plain text) may be named, but none that
    meets is left out.
    """
    wildcards = {directive: _ANY_DIGIT * width for directive, width in _WIDTHS.items()}
    patterns = [
        (_filled(t, facility_id, wildcards), facility_id) for facility_id, t in templates.items()
    ]
    heads = sorted((p.partition(_ANY_DIGIT)[0], p, facility_id) for p, facility_id in patterns)
    # Prefixes can only meet if one head begins with the other, and those sort side by side.
    for i, (head, pattern, facility_id) in enumerate(heads):
        for other_head, other_pattern, other_id in heads[i + 1 :]:
            if not other_head.startswith(head):
                break
            if _may_meet(pattern, other_pattern):
                yield facility_id, other_id


def _may_meet(a: str, b: str) -> bool:
    return all(
        x == y or (x == _ANY_DIGIT and y in _DIGITS) or (y == _ANY_DIGIT and x in _DIGITS)
        for x, y in zip(a, b, strict=False)
    )


def _filled(template: str, facility_id: str, written: Mapping[str, str]) -> str:
    parts = []
    for literal, field, spec, _ in _parsed(template):
        parts.append(literal)
        if field == "facility_id":
            parts.append(facility_id)
        elif field is not None:
            parts.append(_DIRECTIVE.sub(lambda found: written[found[0]], spec or _ISO))
    return "".join(parts)


def _directives(spec: str) -> set[str]:
    found = set(_DIRECTIVE.findall(spec))
    if not found <= set(_WIDTHS) or "{" in spec:
        raise ValueError(
            f"may use only {', '.join(_WIDTHS)} in {{capture_day:…}}, which have a fixed width"
        )
    return found


def _parsed(template: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    try:
        yield from string.Formatter().parse(template)
    except ValueError as error:
        raise ValueError(f"is no template: {error}") from None
