"""Key templates: how a facility's keys encode the capture day, and the camera if it comes first.

A template such as `{facility_id}/{capture_day:%Y-%m-%d}/` is expanded into prefixes of one day's
keys. No prefix of one day begins with a prefix of another day of the same template: the parts of a
date have a fixed width, or end where text that is no digit begins. A template without a date is
only a beginning: day_keys.py adds the leading digits of the times in the names. The other fields of
a facility are left to registry.py, whether two facilities share keys to key_overlaps.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise, product, takewhile
from typing import Literal, TypeAlias

DEFAULT_TEMPLATE = "{facility_id}/{capture_day:%Y-%m-%d}/"

MAX_PREFIX_BYTES = 512
"""S3 keys have at most 1,024 bytes; half of them are reserved for the name of the image."""

MAX_TEMPLATES = 50
"""Each template is at least one listing a day."""

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
           "October", "November", "December")  # fmt: skip
_WIDTHS = {"%Y": 4, "%y": 2, "%m": 2, "%d": 2, "%j": 3}
_UNPADDED = {"%-m": 2, "%-d": 2, "%-j": 3}
"""Numbers without leading zeros, and their largest width."""
_NAMES = ("%b", "%B")
"""Names of months: English, whatever the locale, in any of the spellings Nov, nov and NOV."""
_SPELLINGS = (str, str.lower, str.upper)
_CODES = (*_WIDTHS, *_UNPADDED, *_NAMES)
_YEARS, _MONTHS_OF, _DAYS, _DAYS_OF_YEAR = (
    {"%Y", "%y"},
    {"%m", "%-m", "%b", "%B"},
    {"%d", "%-d"},
    {"%j", "%-j"},
)
_TIMES = ("%H", "%M", "%S", "%f", "%z")
_ISO = "%Y-%m-%d"
_CODE = re.compile(r"%-?(?:.|\Z)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DIGITS = frozenset(string.digits)
_NAME_OF_IMAGE = re.compile(r"\.(?:jpe?g|png|webp|heic|gif|bmp|tiff?|json|txt)$", re.IGNORECASE)
_EXAMPLE = "such as {capture_day:%Y-%m-%d}"

# No template contains these characters.
ANY_DIGIT = "\x00"
"""Represents a digit of a date in a pattern."""
ANY_CAMERA = "\x01"
"""Represents the name of a camera in a pattern."""

_Kind: TypeAlias = Literal["text", "id", "code", "camera"]
_Part: TypeAlias = tuple[_Kind, str]
"""A part of a template: literal text, the facility id, a code of the date, or the camera."""


@dataclass(frozen=True, slots=True)
class KeyPrefix:
    """The beginning of keys of one capture day.

    It is `head`, or if `tail` is set, `head`, the name of a camera and `tail`. `tail` begins with
    text and contains the slash that ends the camera's folder. `digits`, if any, follow at the end:
    they are the first digits of a time that belongs to the name of the image.
    """

    head: str
    tail: str | None = None
    digits: str = ""

    def build(self, camera: str = "") -> str:
        """The prefix to list. `camera` is the name of the camera, if `tail` is set."""
        middle = "" if self.tail is None else camera + self.tail
        return f"{self.head}{middle}{self.digits}"

    @property
    def example(self) -> str:
        """The prefix for people, with `{camera}` in the place of a camera."""
        return self.build("{camera}")


def check_printable(text: str) -> str:
    """Return a text without control characters. Raises ValueError for one with some."""
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def check_template(template: str) -> str:
    """Validate a template and return it. Raises ValueError that says what is allowed."""
    check_printable(template)
    parts = _parse(template)
    codes = [text for kind, text in parts if kind == "code"]
    if codes:
        _check_date(codes)
    _check_text(parts, has_date=bool(codes))
    for part, following in pairwise([("text", ""), *parts, ("text", "")]):
        _check_neighbors(part, following)
    last_kind, last = parts[-1] if parts else ("text", "")
    if last_kind != "text" or last[-1:] in _DIGITS or not last:
        raise ValueError("must end with a literal character other than a digit, such as /")
    if _count_cameras(parts) > 1:
        raise ValueError("may contain {camera} only once")
    for prefix in expand_template(template, "x" * 63, date(2000, 9, 30)):
        if prefix.tail is not None and "/" not in prefix.tail:
            raise ValueError(
                "must have a / after {camera}: only the names of folders can be found in a listing"
            )
        if len(prefix.build("x" * 100).encode()) > MAX_PREFIX_BYTES:
            raise ValueError(f"must expand to prefixes of at most {MAX_PREFIX_BYTES} bytes")
    return template


def check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    """Validate the templates of a facility and return them.

    Raises ValueError that says what is allowed.
    """
    if not 1 <= len(templates) <= MAX_TEMPLATES:
        raise ValueError(f"must be a template, or a list of 1 to {MAX_TEMPLATES} templates")
    for template in templates:
        try:
            check_template(template)
        except ValueError as error:
            which = f"{template!r} " if len(templates) > 1 else ""
            raise ValueError(f"{which}{error}") from None
    return templates


def has_date(template: str) -> bool:
    """Whether a valid template contains the capture day."""
    return any(kind == "code" for kind, _ in _parse(template))


def has_camera(template: str) -> bool:
    """Whether a valid template contains the camera."""
    return _count_cameras(_parse(template)) > 0


def expand_template(template: str, facility_id: str, day: date) -> list[KeyPrefix]:
    """The prefixes of one day's keys: one for each spelling of a month's name.

    `template` must be valid, see `check_template`.
    """
    prefixes = []
    # Not strftime: its %Y does not have four digits on every system, and %b depends on the locale.
    month = _MONTHS[day.month - 1]
    day_of_year = day.timetuple().tm_yday
    values = {
        "%Y": f"{day.year:04}", "%y": f"{day.year % 100:02}", "%m": f"{day.month:02}",
        "%d": f"{day.day:02}", "%j": f"{day_of_year:03}",
        "%-m": f"{day.month}", "%-d": f"{day.day}", "%-j": f"{day_of_year}",
    }  # fmt: skip
    parts = _parse(template)
    has_names = any(text in _NAMES for kind, text in parts if kind == "code")
    for spell in _SPELLINGS if has_names else (str,):
        named = {"%b": spell(month[:3]), "%B": spell(month)}
        head, *tail = _fill(parts, facility_id, values | named).split(ANY_CAMERA)
        prefixes.append(KeyPrefix(head, tail[0] if tail else None))
    return prefixes


def find_beginning(template: str, facility_id: str) -> str:
    """What all keys of a valid template begin with, whatever the day and the camera; may be ''."""
    fixed = takewhile(lambda part: part[0] in ("text", "id"), _parse(template))
    return "".join(facility_id if kind == "id" else text for kind, text in fixed)


def compile_template(template: str, facility_id: str) -> re.Pattern[str]:
    """The regular expression of the beginning of any day's keys.

    Its groups `code0`, `code1`, … are the parts of the date, for `read_date`.
    """
    forms = {
        **{code: f"[0-9]{{{width}}}" for code, width in _WIDTHS.items()},
        **{code: f"[0-9]{{1,{width}}}" for code, width in _UNPADDED.items()},
        **{code: "|".join(_list_month_names(code)) for code in _NAMES},
    }
    texts = []
    for number, (kind, text) in enumerate(_parse(template)):
        if kind == "code":
            texts.append(f"(?P<code{number}>{forms[text]})")
        elif kind == "camera":
            texts.append("[^/]+")
        else:
            texts.append(re.escape(facility_id if kind == "id" else text))
    return re.compile("".join(texts))


def read_date(template: str, match: re.Match[str]) -> date | None:
    """The date in a match of the template's regular expression; None if there is no such date."""
    read = {
        text: match[f"code{number}"]
        for number, (kind, text) in enumerate(_parse(template))
        if kind == "code"
    }
    named = (read.get("%b") or read.get("%B") or "")[:3].title()
    month = [m[:3] for m in _MONTHS].index(named) + 1 if named else read.get("%m", read.get("%-m"))
    day, of_year = read.get("%d", read.get("%-d")), read.get("%j", read.get("%-j"))
    try:
        # Two digits are of this century, as in expand_template: years from 2000 on.
        year = int(read["%Y"]) if "%Y" in read else 2000 + int(read["%y"])
        if month is not None and day is not None:
            return date(year, int(month), int(day))
        return date(year, 1, 1) + timedelta(days=int(of_year or 0) - 1)
    except (KeyError, ValueError, OverflowError):
        return None


def list_patterns(template: str, facility_id: str) -> list[str]:
    """The forms of a valid template's prefixes of any day, with `ANY_DIGIT` and `ANY_CAMERA`.

    Each form of a month's name and each width of a number is a pattern of its own.
    """
    parts = _parse(template)
    codes = [text for kind, text in parts if kind == "code" and text not in _WIDTHS]
    fixed = {code: ANY_DIGIT * width for code, width in _WIDTHS.items()}
    forms = {
        **{code: [ANY_DIGIT * n for n in range(1, w + 1)] for code, w in _UNPADDED.items()},
        **{code: _list_month_names(code) for code in _NAMES},
    }
    return [
        _fill(parts, facility_id, fixed | dict(zip(codes, chosen, strict=True)))
        for chosen in product(*(forms[code] for code in codes))
    ]


def _list_month_names(code: str) -> list[str]:
    """Every spelling of each month's name, as the code %b or %B stands for it."""
    names = [month[:3] if code == "%b" else month for month in _MONTHS]
    return [spell(name) for name in names for spell in _SPELLINGS]


def _fill(parts: Sequence[_Part], facility_id: str, values: Mapping[str, str]) -> str:
    """The text of the parts, with the value of each code such as %Y, and a mark for the camera."""
    texts = {"id": facility_id, "camera": ANY_CAMERA}
    return "".join(
        values[text] if kind == "code" else texts.get(kind, text) for kind, text in parts
    )


def _count_cameras(parts: Sequence[_Part]) -> int:
    return sum(kind == "camera" for kind, _ in parts)


def _check_text(parts: Sequence[_Part], *, has_date: bool) -> None:
    """Raise ValueError for text that would never be part of a key, with what to write instead."""
    texts = [text for kind, text in parts if kind == "text"]
    for text in texts:
        wildcard = next((character for character in "*?" if character in text), None)
        if wildcard:
            raise ValueError(
                f"must not contain the wildcard {wildcard}: a listing finds the keys that begin "
                "with a text. Write {camera} for the name of a folder that is another one for each "
                "camera, or give a list of templates; include selects files by their names"
            )
        if not has_date and (code := next((code for code in _CODES if code in text), None)):
            raise ValueError(f"has {code} outside of a field; write the date {_EXAMPLE}")
    if texts and parts[0][0] == "text" and re.match("[a-z0-9]+://", texts[0]):
        raise ValueError("must be the beginning of keys, not a URL; the bucket has its own field")
    if parts and parts[-1][0] == "text" and (suffix := _NAME_OF_IMAGE.search(parts[-1][1])):
        raise ValueError(
            f"must end before the names of the images, which never continue after {suffix[0]}: it "
            "is only the beginning of a day's keys; name_template describes the rest"
        )


def _check_date(codes: Sequence[str]) -> None:
    present = set(codes)
    has_day = (present & _MONTHS_OF and present & _DAYS) or present & _DAYS_OF_YEAR
    if not (present & _YEARS and has_day):
        raise ValueError(f"must contain the complete capture day, {_EXAMPLE}")


def _check_neighbors(part: _Part, following: _Part) -> None:
    """Raise ValueError if it is ambiguous where one part ends and the next one begins."""
    (kind, text), (next_kind, next_text) = part, following
    if "camera" in (kind, next_kind):
        other_kind, is_missing = (next_kind, not next_text) if kind == "camera" else (kind, False)
        if other_kind != "text" or is_missing:
            raise ValueError("must separate {camera} from other fields with text, such as / or _")
    for unpadded, other_kind, touching in (
        (part, next_kind, next_text[:1]),
        (following, kind, text[-1:]),
    ):
        if unpadded[0] == "code" and unpadded[1] in _UNPADDED:
            is_digit = other_kind == "text" and touching in _DIGITS and touching
            if is_digit or other_kind in ("code", "id", "camera"):
                raise ValueError(
                    f"must separate {unpadded[1]}, which has no fixed width, from other fields and "
                    "digits with text, such as / or -"
                )


def _parse(template: str) -> list[_Part]:
    """The parts of a template. Raises ValueError for an unknown field."""
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"is not a valid template: {error}") from None
    parts: list[_Part] = []
    for literal, field, spec, conversion in fields:
        if literal:
            # Formatter divides the text at an escaped brace.
            is_continued = parts and parts[-1][0] == "text"
            text = parts.pop()[1] if is_continued else ""
            parts.append(("text", text + literal))
        if field is None:
            continue
        if field == "facility_id" and not spec and not conversion:
            parts.append(("id", ""))
        elif field == "camera" and not spec and not conversion:
            parts.append(("camera", ""))
        elif field == "capture_day" and not conversion:
            parts += _parse_date(spec or _ISO)
        else:
            is_of_name = field in ("captured_at", "*")
            raise ValueError(
                "may contain only the fields {facility_id}, {camera} and {capture_day:…}"
                + (f"; {{{field}}} is a field of name_template" if is_of_name else "")
            )
    return parts


def _parse_date(spec: str) -> Iterator[_Part]:
    position = 0
    for match in _CODE.finditer(spec):
        if match[0] not in _CODES or "{" in spec:
            raise ValueError(
                f"may use only {', '.join(_CODES)} in {{capture_day:…}}"
                + ("; the time belongs to name_template" if match[0] in _TIMES else "")
            )
        if match.start() > position:
            yield "text", spec[position : match.start()]
        yield "code", match[0]
        position = match.end()
    if position == 0:
        raise ValueError(f"must contain the complete capture day, {_EXAMPLE}")
    if position < len(spec):
        yield "text", spec[position:]
