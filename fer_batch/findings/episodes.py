"""Which findings are opened, extended and closed by what the checked days show.

Arithmetic on days only, without any input or output; loading and storing are left to storing.py.
The decision depends on the days that show a problem and on those that are clear of it, not on the
order in which they were checked. So a run of an old day, or of another time zone, closes and opens
nothing that newer days decide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from fer_batch.facilities.registry import WEEKDAYS

ClosingRule = Literal[
    "same day",
    "later day",
    "same weekday",
    "later images",
    "same camera",
    "later figure",
    "later change",
]
"""What closes a finding if it does not show the problem: see `Evidence.is_clear`."""

State = Literal["open", "acknowledged", "closed"]
"""The states of a finding."""
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What a finding is about: a check and, of the facility, a camera or the like."""

    facility_id: str
    check: str
    subject: str


@dataclass(frozen=True, slots=True)
class Episode:
    """A stored finding: its days, whether it is closed, and whether a person has closed it."""

    finding_id: int
    first_day: date
    last_day: date
    is_closed: bool = False
    is_closed_by_person: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a checked day of a facility could have shown.

    `has_images`: the day was open, is complete and has images; `cameras` are those that delivered,
    None if the keys name none. `has_figure`: the facility published a figure of enough faces and
    sessions of the day, or of the week that ends with it; `changes` are the periods with a
    comparison of such figures.
    """

    day: date
    has_images: bool = False
    cameras: frozenset[str] | None = None
    has_figure: bool = False
    changes: frozenset[str] = frozenset()

    def is_clear(self, rule: ClosingRule, subject: str) -> bool:
        """Whether the problem would have been seen on this day, if it still existed.

        A day on which a camera delivered nothing says nothing about its pictures.
        """
        match rule:
            case "later day":
                return True
            case "same weekday":
                return WEEKDAYS[self.day.weekday()] == subject
            case "later images":
                return self.has_images
            case "same camera":
                is_unknown = not subject or self.cameras is None
                return self.has_images and (is_unknown or subject in (self.cameras or ()))
            case "later figure":
                return self.has_figure
            case "later change":
                return subject in self.changes
            case "same day":  # only a new check of the day itself
                return False


@dataclass(slots=True)
class Decision:
    """What to store about one problem.

    `attached` are days that belong to stored findings. `opened` are the days of a new finding, if
    there is one. `past` are the days of new findings that are closed already, each with the
    reason. `closed` is why the stored finding that is not closed gets closed; empty: it stays.
    """

    attached: dict[date, int] = field(default_factory=dict)
    opened: list[date] = field(default_factory=list)
    past: list[tuple[list[date], str]] = field(default_factory=list)
    closed: str = ""


def decide(
    rule: ClosingRule,
    episodes: Sequence[Episode],
    shown: Mapping[date, int | None],
    clear_days: Collection[date],
) -> Decision:
    """What becomes of one problem.

    `episodes` are its stored findings, of which at most one is not closed. `shown` are the capture
    days that show it, each with its finding, None if the day shows it for the first time.
    `clear_days` are the checked days that do not show it, although they could have.

    A day is over if a clear day follows. The finding is closed when all its days are over or have
    been checked again without it. What a person has closed is not opened by days that the finding
    had, nor by days before them; under the rule `same day` each day is a problem of its own.
    """
    decision = Decision()
    current = next((each for each in episodes if not each.is_closed), None)
    days = sorted(shown)
    new_days = [day for day in days if shown[day] is None]
    past = []
    for day in new_days:
        owner = _find_owner(rule, day, episodes, clear_days)
        if owner is not None:
            decision.attached[day] = owner.finding_id
        elif _find_clear(rule, day, clear_days) is not None:
            past.append(day)
        elif current is not None:
            decision.attached[day] = current.finding_id
        else:
            decision.opened.append(day)
    decision.past = [
        (group, _explain(_find_clear(rule, group[-1], clear_days)))
        for group in _group(past, clear_days)
    ]
    if current is not None:
        owners = {**shown, **decision.attached}
        own = [day for day in days if owners[day] == current.finding_id]
        end = _find_clear(rule, own[-1], clear_days) if own else None
        if end is not None or not own:
            decision.closed = _explain(end)
    return decision


def _find_owner(
    rule: ClosingRule, day: date, episodes: Sequence[Episode], clear_days: Collection[date]
) -> Episode | None:
    """The stored finding that a new day belongs to without changing whether it is closed."""
    if rule == "same day":
        return None
    is_over = _find_clear(rule, day, clear_days) is not None
    for each in episodes:
        if is_over and each.first_day <= day <= each.last_day:
            return each
        if not is_over and each.is_closed_by_person and day <= each.last_day:
            return each
    return None


def _find_clear(rule: ClosingRule, day: date, clear_days: Collection[date]) -> date | None:
    """The newest clear day after a day; None if there is none, so that the day is not over."""
    if rule == "same day":
        return None
    return max((clear for clear in clear_days if clear > day), default=None)


def _group(days: Sequence[date], clear_days: Iterable[date]) -> list[list[date]]:
    """The days, in order, divided at the clear days between them."""
    clear = sorted(clear_days)
    groups: list[list[date]] = []
    for day in days:
        if groups and not any(groups[-1][-1] < each < day for each in clear):
            groups[-1].append(day)
        else:
            groups.append([day])
    return groups


def _explain(clear: date | None) -> str:
    if clear is None:
        return "its days were checked again and do not show it"
    return f"{clear} does not show it"
