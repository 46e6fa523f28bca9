"""Name templates: how the names of a facility's images encode camera and capture time.

A template such as `{camera}/{captured_at:%H%M%S}-{*}.jpg` describes the part of a key after the
key template (see key_template.py). It is compiled to one regular expression whose time
grows only linearly with the length of a key, because anyone who may upload can choose the keys. A
name that does not match has neither camera nor time; that is not an error. Which part of a key is
the name is left to day_keys.py, storing the results to database/ledger.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from fer_batch.facilities.key_template import check_printable

Clock: TypeAlias = Literal["local", "UTC"]

MAX_TEMPLATE_CHARACTERS = 200
MAX_CAMERA_CHARACTERS = 100

MAX_FROM_NOON = timedelta(hours=48)
"""A time that is further from the capture day's local noon comes from a camera with a wrong clock.
This accepts 36 hours before and after the day, enough for every time zone and for a night that is
filed under the day before."""

_EXAMPLE = "such as {captured_at:%H%M%S}"
_DATE = frozenset({"%Y", "%m", "%d"})
_CODES = {
    "%Y": "([0-9]{4})",
    "%m": "([0-9]{2})",
    "%d": "([0-9]{2})",
    "%H": "([0-9]{2})",
    "%M": "([0-9]{2})",
    "%S": "([0-9]{2})",
    "%f": "([0-9]{1,9}+)",
    "%z": "(Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?+)",
    "epoch": "([0-9]{1,11}+)",
    "epoch_ms": "([0-9]{1,14}+)",
}
_VARIABLE_WIDTH = frozenset({"%f", "%z", "epoch", "epoch_ms"})
_EPOCHS = frozenset({"epoch", "epoch_ms"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ANY = "{*}"
_CAMERA = "{camera}"
_SPEC_PART = re.compile(r"(%(?:.|\Z))", re.DOTALL)
_DIGITS = frozenset(string.digits)
# No control characters, no line separators, and none that reorder the text around them.
_NOT_IN_CAMERA = r"/\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CAMERA_NAME = f"([^{_NOT_IN_CAMERA}]{{1,{MAX_CAMERA_CHARACTERS}}}?)"
_IS_CAMERA = re.compile(_CAMERA_NAME)


class CaptureInfo(NamedTuple):
    """What the name of an image says about its capture; None for what it does not say.

    `captured_at_utc` is timezone-aware. A camera without a time: the time does not exist or is
    not plausible for the capture day.
    """

    camera: str | None
    captured_at_utc: datetime | None


NO_CAPTURE_INFO = CaptureInfo(None, None)

NameParser: TypeAlias = Callable[[str], CaptureInfo]
"""Returns the capture info of a key of one facility and capture day."""


@dataclass(frozen=True, slots=True)
class _Code:
    """A code of {captured_at:…}: one of `_CODES`."""

    code: str


@dataclass(frozen=True, slots=True)
class _Text:
    """Literal text."""

    text: str


_Part: TypeAlias = "_Code | _Text | str"
"""A part of a template; the strings are `_ANY` and `_CAMERA`."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The regular expression of a template, and what its groups are, in their order."""

    pattern: re.Pattern[str]
    groups: tuple[str, ...]


def check_name_template(template: str) -> str:
    """Validate a template and return it. Raises ValueError that says what is allowed."""
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise ValueError(f"must have at most {MAX_TEMPLATE_CHARACTERS} characters")
    check_printable(template)
    parts = _parse(template)
    _check_codes([part.code for part in parts if isinstance(part, _Code)])
    if parts.count(_CAMERA) > 1:
        raise ValueError("may contain {camera} only once")
    for part, following in pairwise(parts):
        _check_neighbors(part, following)
    return template


def is_camera(text: str) -> bool:
    """Whether the text can be stored as the name of a camera."""
    return _IS_CAMERA.fullmatch(text) is not None


def has_camera(template: str) -> bool:
    """Whether a valid template contains the camera."""
    return _CAMERA in _parse(template)


def begins_with_epoch(template: str) -> bool:
    """Whether the names of a valid template begin with the seconds or milliseconds since 1970."""
    first = _parse(template)[0]
    return isinstance(first, _Code) and first.code in _EPOCHS


def build_name_reader(
    template: str | None, day: date, time_zone: str, clock: Clock, key_day: date | None = None
) -> Callable[[str], CaptureInfo]:
    """Build the function that reads the names of a capture day's images.

    `template` must be valid, see `check_name_template`; without one, no name has capture info.
    Wall-clock times are by the clock of `time_zone` or UTC. `key_day` is the date in the key, by
    the same clock; None if the key has the capture day itself. A local time that occurs twice, when
    the clock is set back, is taken as the first occurrence; one that the clock skips, as if it had
    not been set forward yet.
    """
    if template is None:
        return lambda _: NO_CAPTURE_INFO
    compiled = _compile(template)
    zone = ZoneInfo(time_zone)
    noon = datetime.combine(day, time(12), zone).astimezone(UTC)
    name_zone = UTC if clock == "UTC" else zone
    match_name, groups = compiled.pattern.fullmatch, compiled.groups
    has_no_date = not {"%Y", *_EPOCHS} & set(groups)
    has_other_clock = clock == "UTC" or "%z" in groups
    is_day_open = has_no_date and has_other_clock and key_day is None

    def read(name: str) -> CaptureInfo:
        match = match_name(name)
        if match is None:
            return NO_CAPTURE_INFO
        values = dict(zip(groups, match.groups(), strict=True))
        try:
            captured_at = _read_time(values, key_day or day, name_zone)
            if is_day_open:
                captured_at = _move_to_day(captured_at, day, zone)
        except (ValueError, OverflowError):  # there is no such time, such as 25:00
            return CaptureInfo(values.get(_CAMERA), None)
        is_plausible = abs(captured_at - noon) <= MAX_FROM_NOON
        return CaptureInfo(values.get(_CAMERA), captured_at if is_plausible else None)

    return read


def _move_to_day(captured_at: datetime, day: date, zone: ZoneInfo) -> datetime:
    """The same time of day, on the date on which it falls on the local capture day."""
    for days in (0, -1, 1):
        moved = captured_at + timedelta(days=days)
        if moved.astimezone(zone).date() == day:
            return moved
    return captured_at  # a time that the local day does not have, because it is shorter


def _read_time(values: dict[str, str], day: date, zone: tzinfo) -> datetime:
    """The capture time in UTC. Raises ValueError or OverflowError for a time that does not exist.

    Without a date in the name, the time is on `day` by the clock of the name.
    """
    if "epoch" in values:
        return datetime.fromtimestamp(int(values["epoch"]), UTC)
    if "epoch_ms" in values:
        return _EPOCH + timedelta(milliseconds=int(values["epoch_ms"]))
    if "%Y" in values:
        day = date(int(values["%Y"]), int(values["%m"]), int(values["%d"]))
    return datetime(
        day.year,
        day.month,
        day.day,
        int(values["%H"]),
        int(values["%M"]),
        int(values.get("%S", 0)),
        int(values["%f"][:6].ljust(6, "0")) if "%f" in values else 0,
        _read_offset(values["%z"]) if "%z" in values else zone,
    ).astimezone(UTC)


def _read_offset(text: str) -> tzinfo:
    """The offset from UTC, of the form Z, +HH, +HHMM or +HH:MM."""
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if text[0] == "-" else offset)


@lru_cache(maxsize=4096)
def _compile(template: str) -> _Compiled:
    """Compile a valid template.

    What stands between two `{*}` is an atomic group, which matches at the first possible position:
    it is not tried again elsewhere when a later part does not match.
    """
    parts = _parse(template)
    segments: list[list[_Part]] = [[]]
    for part in parts:
        if part == _ANY:
            segments.append([])
        else:
            segments[-1].append(part)
    patterns = [
        _translate_segment(segment, is_first=index == 0, is_last=index == len(segments) - 1)
        for index, segment in enumerate(segments)
    ]
    pattern = "".join(f"(?>{atomic})" for atomic in patterns[:-1]) + patterns[-1]
    groups = tuple(
        part.code if isinstance(part, _Code) else _CAMERA
        for part in parts
        if part == _CAMERA or isinstance(part, _Code)
    )
    return _Compiled(re.compile(pattern, re.DOTALL), groups)


def _translate_segment(parts: list[_Part], *, is_first: bool, is_last: bool) -> str:
    """The regular expression of the parts up to the next `{*}`, and of the `{*}` before them."""
    translated = [_translate(part) for part in parts]
    # Next to {*}, the digits must not be a part of a longer number.
    if parts and isinstance(parts[0], _Code) and not is_first:
        translated[0] = "(?<![0-9])" + translated[0]
    if parts and isinstance(parts[-1], _Code) and not is_last:
        translated[-1] += "(?![0-9])"
    if is_first:
        return "".join(translated)
    if _CAMERA in parts:
        index = parts.index(_CAMERA)
        if not any(isinstance(part, _Text) and "/" in part.text for part in parts[:index]):
            # A camera contains no slash. In each folder of the name only the first match of what
            # stands before {camera} is tried; trying them all takes quadratic time.
            head, rest = "".join(translated[:index]), "".join(translated[index:])
            return f"(?:[^/]*+/)*?(?>[^/]*?{head}){rest}"
    return ".*?" + "".join(translated)


def _translate(part: _Part) -> str:
    if isinstance(part, _Code):
        return _CODES[part.code]
    return re.escape(part.text) if isinstance(part, _Text) else _CAMERA_NAME


def _check_codes(codes: list[str]) -> None:
    if not codes:
        raise ValueError(f"must contain the capture time, {_EXAMPLE}")
    if len(set(codes)) < len(codes):
        raise ValueError("may contain each code of {captured_at:…} only once")
    present = set(codes)
    if present & _EPOCHS:
        if len(present) > 1:
            raise ValueError("may contain no other {captured_at:…} beside epoch or epoch_ms")
        return
    if not {"%H", "%M"} <= present:
        raise ValueError(f"must contain the hour and the minute, {_EXAMPLE}")
    if present & _DATE and not present >= _DATE:
        raise ValueError("must contain all of %Y, %m and %d, or none of them")
    if "%f" in present and "%S" not in present:
        raise ValueError("may contain %f, the fraction of a second, only together with %S")


def _check_neighbors(part: _Part, following: _Part) -> None:
    """Raise ValueError if it is ambiguous where one part ends and the next one begins."""
    if part == following == _ANY:
        raise ValueError("must not contain {*} twice in a row")
    if _CAMERA in (part, following) and not isinstance(
        following if part == _CAMERA else part, _Text
    ):
        raise ValueError("must separate {camera} from other fields with text, such as / or _")
    if isinstance(part, _Code) and part.code in _VARIABLE_WIDTH:
        is_digit = isinstance(following, _Text) and following.text[0] in _DIGITS
        if is_digit or (isinstance(following, _Code) and following.code != "%z"):
            raise ValueError(f"must separate {part.code} from the digits that follow it with text")


def _parse(template: str) -> list[_Part]:
    """The parts of a template; adjacent texts are one part."""
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"is not a valid template: {error}") from None
    parts: list[_Part] = []
    for literal, field, spec, conversion in fields:
        _append_text(parts, literal)
        if field is None:
            continue
        if field == "captured_at" and not conversion:
            _append_time(parts, spec or "")
        elif field in ("*", "camera") and not spec and not conversion:
            parts.append(_ANY if field == "*" else _CAMERA)
        else:
            raise ValueError("may contain only the fields {camera}, {captured_at:…} and {*}")
    return parts


def _append_text(parts: list[_Part], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, _Text):
        parts[-1] = _Text(last.text + text)
    elif text:
        parts.append(_Text(text))


def _append_time(parts: list[_Part], spec: str) -> None:
    if spec in _EPOCHS:
        parts.append(_Code(spec))
        return
    if "%" not in spec:
        raise ValueError(f"must say in {{captured_at:…}} how the time is written, {_EXAMPLE}")
    for piece in _SPEC_PART.split(spec):
        if piece.startswith("%"):
            if piece not in _CODES:
                raise ValueError(
                    "may use only %Y, %m, %d, %H, %M, %S, %f and %z in {captured_at:…}, or be "
                    f"epoch or epoch_ms, not {piece}"
                )
            parts.append(_Code(piece))
        elif "{" in piece:
            raise ValueError("must not contain a field within {captured_at:…}")
        else:
            _append_text(parts, piece)
