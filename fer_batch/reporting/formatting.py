"""Numbers and days as people read them, in reports, digests and messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from fer_batch.console import NO_VALUE

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def format_rate(summary: Mapping[str, Any], name: str) -> str:
    """A rate of a summary with its interval, such as `26 % (13 to 41)`; a dash if suppressed."""
    if summary[name] is None:
        return NO_VALUE
    rate, low, high = (
        format_percent(summary[key]) for key in (name, f"{name}_low", f"{name}_high")
    )
    return f"{rate} % ({low} to {high})"


def format_interval(summary: Mapping[str, Any], name: str = "happy_rate") -> str:
    """As `format_rate`, with spaces at which prose does not break."""
    return format_rate(summary, name).replace(" % ", "\u00a0% ").replace(" to ", "\u00a0to\u00a0")


def format_percent(share: float) -> str:
    """A share from 0 to 1 in whole percents, without the sign."""
    return f"{100 * share:.0f}"


def round_up(number: int) -> int:
    """Rounded up to two digits, because more would claim too much."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step


def format_day(day: date) -> str:
    """A day with its weekday, such as `Sat 28 Nov`."""
    return f"{WEEKDAYS[day.weekday()][:3]} {day.day} {MONTHS[day.month - 1][:3]}"


def format_long_day(day: date) -> str:
    """A day in full, such as `Saturday, 28 November 2026`."""
    return f"{WEEKDAYS[day.weekday()]}, {day.day} {MONTHS[day.month - 1]} {day.year}"


def format_days(first_day: date, last_day: date) -> str:
    """The days of a period, such as `Mon 23 to Sun 29 Nov`."""
    is_one_month = (first_day.year, first_day.month) == (last_day.year, last_day.month)
    first = format_day(first_day)
    return f"{first.rpartition(' ')[0] if is_one_month else first} to {format_day(last_day)}"
