"""Tables and sentences on stdout, complete at any width and stable for scripts; progress on stderr.

On a terminal sentences wrap at words. A table that is still too wide is divided into two, which
both begin with the first column; one that does not fit then either becomes a list, with a block of
lines for each row. Elsewhere, as in a pipe or a file, a row is one line of any width, whose cells
are separated by at least two spaces. No value is shortened, and no date, id or number is broken.
Nothing is colored or boxed.
"""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

NO_VALUE = "–"
"""An empty cell, so that the cells of a row can be counted."""
_GAP = 2
_LONGEST_PHRASE = 32
"""Cells up to this width wrap only after a comma: dates, times, and rates with their intervals."""
_MIN_WRAPPED = 20
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+( ?[%M])?")
_AFTER_WORDS = re.compile(r" +(?!%)")
"""Where a line may end; a number stays with its percent sign."""
_AFTER_COMMAS = re.compile(r"(?<=[,;]) +")

Column = Sequence[str]
"""The header of a column and its cells."""


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with a column for each key; a cell that is None or empty is a dash."""
    sys.stdout.write(format_table(title, rows, _get_width()))


def print_text(text: str) -> None:
    """Print a paragraph; on a terminal it wraps at words."""
    sys.stdout.write("\n".join(_wrap_text(text, _get_width())) + "\n")


def print_progress(text: str) -> None:
    """Print a line of progress to stderr; stdout is for the result."""
    print(f"  {text}", file=sys.stderr, flush=True)  # noqa: T201


def format_table(title: str, rows: Sequence[Mapping[str, Any]], width: int | None) -> str:
    """Return a table as text with a final line break.

    `width` is the number of columns of the terminal; None if lines may have any length.
    """
    if not rows:
        return f"{title}: none\n"
    columns = [
        [_clean(name.replace("_", " ")), *(_format_cell(row.get(name)) for row in rows)]
        for name in dict.fromkeys(name for row in rows for name in row)
    ]
    return "\n".join([*_wrap_text(title, width), *_lay_out(columns, width)]) + "\n"


def _get_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _format_cell(value: Any) -> str:
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):  # counts by name
        value = ", ".join(f"{count} {name}" for name, count in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return _clean(str(value)) or NO_VALUE


def _clean(text: str) -> str:
    """The text in one line; control characters, which could move the cursor, as escapes."""
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in ("Cc", "Cs") else char
        for char in re.sub(r"[ \t]*[\r\n\t\u2028\u2029]+[ \t]*", " ", text)
    )


def _lay_out(columns: Sequence[Column], width: int | None) -> Iterator[str]:
    if width is None:
        yield from _format_lines(columns, [max(map(cell_len, column)) for column in columns])
        return
    for cut in range(len(columns), 1, -1):
        tables = [columns[:cut]]
        if cut < len(columns):
            tables.append([columns[0], *columns[cut:]])
        fitted = [_fit(table, width) for table in tables]
        if all(fitted):
            for number, (table, widths) in enumerate(zip(tables, fitted, strict=True)):
                yield from [""] * number
                yield from _format_lines(table, widths)
            return
    yield from _format_list(columns, width)


def _fit(columns: Sequence[Column], width: int) -> list[int]:
    """Narrow the widest columns until the table fits; empty if a value would have to be broken."""
    fitted = [max(map(cell_len, column)) for column in columns]
    least = [
        max(_find_longest_part(header, _AFTER_WORDS), *map(_find_least_width, cells))
        for header, *cells in columns
    ]
    while sum(fitted) + _GAP * (len(fitted) - 1) > width:
        wider = [at for at in range(len(fitted)) if fitted[at] > least[at]]
        if not wider:
            return []
        fitted[max(wider, key=fitted.__getitem__)] -= 1
    return fitted


def _find_least_width(cell: str) -> int:
    if cell_len(cell) <= _LONGEST_PHRASE:
        return _find_longest_part(cell, _AFTER_COMMAS)
    return max(_find_longest_part(cell, _AFTER_WORDS), _MIN_WRAPPED)


def _find_longest_part(text: str, ends: re.Pattern[str]) -> int:
    return max(map(cell_len, ends.split(text)))


def _format_lines(columns: Sequence[Column], widths: Sequence[int]) -> Iterator[str]:
    """The header and the rows; a column of numbers is aligned to the right."""
    aligned = [_choose_alignment(cells) for _, *cells in columns]
    for number, row in enumerate(zip(*columns, strict=True)):
        wrapped = [
            _wrap_cell(cell, width, is_header=number == 0)
            for cell, width in zip(row, widths, strict=True)
        ]
        for at in range(max(map(len, wrapped))):
            line = [
                align(lines[at] if at < len(lines) else "", width)
                for align, lines, width in zip(aligned, wrapped, widths, strict=True)
            ]
            yield (" " * _GAP).join(line).rstrip(" ")


def _choose_alignment(cells: Sequence[str]) -> Callable[[str, int], str]:
    values = [cell for cell in cells if cell != NO_VALUE]
    is_number = bool(values) and all(map(_NUMBER.fullmatch, values))
    return _align_right if is_number else _align_left


def _align_left(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _align_right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


def _format_list(columns: Sequence[Column], width: int) -> Iterator[str]:
    """A block of lines for each row, with a name and its value on each line."""
    header, *rows = zip(*columns, strict=True)
    indent = max(map(cell_len, header)) + _GAP
    for number, row in enumerate(rows):
        yield from [""] * min(number, 1)
        for name, cell in zip(header, row, strict=True):
            first, *more = _wrap(cell, max(width - indent, _MIN_WRAPPED), _AFTER_WORDS)
            yield _align_left(name, indent) + first
            yield from (" " * indent + line for line in more)


def _wrap_cell(cell: str, width: int, *, is_header: bool) -> list[str]:
    is_phrase = cell_len(cell) <= _LONGEST_PHRASE and not is_header
    return _wrap(cell, width, _AFTER_COMMAS if is_phrase else _AFTER_WORDS)


def _wrap_text(text: str, width: int | None) -> list[str]:
    return [_clean(text)] if width is None else _wrap(_clean(text), width, _AFTER_WORDS)


def _wrap(text: str, width: int, ends: re.Pattern[str]) -> list[str]:
    """The lines of a text; a part between two possible ends of a line stays whole."""
    if cell_len(text) <= width:
        return [text]
    first, *parts = ends.split(text)
    lines = [first]
    for part in parts:
        longer = f"{lines[-1]} {part}"
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines
