"""CSV that a spreadsheet opens safely.

UTF-8 with a byte-order mark, without which Excel takes it for another encoding; lines end with
CRLF, as RFC 4180 wants. Numbers have a decimal point, dates and times are in ISO 8601, NULL is an
empty cell. A text that a spreadsheet would run as a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from io import StringIO
from typing import Any

_FORMULA = re.compile(
    # The beginning of the cell, and of what would be a cell: spreadsheets of many countries
    # separate cells by semicolons or tabs, and then do not see the quotes around this one.
    r"(?:^|(?<=[;\t\r\n]))"
    # What they may strip before they look at the first character.
    r"(?=[\s\x00-\x1f\u200b-\u200f\u2060\ufeff\"]*[=+\-@＝＋－＠]|[\t\r\n])"
)
"""Where a formula could begin: =, +, - and @, also in full width; tabs and line breaks first."""


def encode(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A CSV file with a header; a row holds values by column."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(map(defuse, columns))
    writer.writerows([format_cell(row[name]) for name in columns] for row in rows)
    return text.getvalue().encode("utf-8-sig")


def format_cell(value: Any) -> str:
    """A value as the text of a cell; numbers stay numbers."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return defuse(str(value))


def defuse(text: str) -> str:
    """The text, with an apostrophe before everything that a spreadsheet could run as a formula."""
    return _FORMULA.sub("'", text.replace("\0", ""))
