"""Parts of sentences that the messages of several packages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands import it only when they need it
    from pydantic import ValidationError


def format_count(number: int, noun: str) -> str:
    """A number with a noun, in the plural unless it is one."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def join_names(names: Sequence[str], most: int) -> str:
    """The first `most` names in the order given, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def suggest(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.6) -> str:
    """The known names that are most like a misspelled one, as `a or b`; empty if none is.

    `cutoff` is the least similarity, 0 to 1.
    """
    return " or ".join(difflib.get_close_matches(name, [*known], most, cutoff))


def describe_validation_error(error: ValidationError, whole: str) -> str:
    """Each invalid field of an object with what is wrong; `whole` names the object itself."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or whole}: {each['msg']}" for each in error.errors()
    )
