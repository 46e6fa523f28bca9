"""Which findings are opened and closed, by what the checked days show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.findings.episodes import ClosingRule, Episode, Evidence, decide

DAY = date(2026, 3, 2)  # a Monday


def day(number: int) -> date:
    return DAY + timedelta(number)


class History:
    """Findings about one problem, decided as runs check days; a person may close one."""

    def __init__(self, rule: ClosingRule) -> None:
        self.rule: ClosingRule = rule
        self.episodes: dict[int, Episode] = {}
        self.shown: dict[date, int] = {}
        self.clear: set[date] = set()

    def check(self, *checked: tuple[int, bool | None]) -> None:
        """A run checks days: each shows the problem, or is clear, or says nothing (None)."""
        new: dict[date, int | None] = {}
        for number, shows in checked:
            self.clear.discard(day(number))
            if shows:
                new[day(number)] = self.shown.get(day(number))
            else:
                self.shown.pop(day(number), None)
                if shows is False:
                    self.clear.add(day(number))
        shown: dict[date, int | None] = {**self.shown, **new}
        clear = set() if self.rule == "same day" else self.clear - shown.keys()
        decision = decide(self.rule, list(self.episodes.values()), shown, clear)
        owners = {**shown, **decision.attached}
        for days, reason in [(decision.opened, ""), *decision.past]:
            if days:
                number = len(self.episodes)
                self.episodes[number] = Episode(number, days[0], days[-1], bool(reason))
                owners |= dict.fromkeys(days, number)
        self.shown = {each: owner for each, owner in owners.items() if owner is not None}
        assert self.shown.keys() == shown.keys()
        opened = {self.shown[each] for each in decision.opened}
        for number, each in self.episodes.items():
            own = [d for d, owner in self.shown.items() if owner == number]
            self.episodes[number] = replace(
                each,
                first_day=min([each.first_day, *own]),
                last_day=max([each.last_day, *own]),
                is_closed=each.is_closed or bool(decision.closed and number not in opened),
            )

    def close(self) -> None:
        (number,) = (n for n, each in self.episodes.items() if not each.is_closed)
        each = self.episodes[number]
        self.episodes[number] = replace(each, is_closed=True, is_closed_by_person=True)

    @property
    def open_days(self) -> list[tuple[int, int]]:
        """The first and the last day of the finding that is not closed."""
        return [
            ((each.first_day - DAY).days, (each.last_day - DAY).days)
            for each in self.episodes.values()
            if not each.is_closed
        ]


def test_the_same_problem_the_next_night_is_the_same_finding() -> None:
    history = History("later images")
    history.check((0, True))
    history.check((0, True), (1, True))
    assert (len(history.episodes), history.open_days) == (1, [(0, 1)])
    history.check((0, True), (1, True), (2, False))
    assert (len(history.episodes), history.open_days) == (1, [])
    history.check((2, False), (3, True))
    assert (len(history.episodes), history.open_days) == (2, [(3, 3)])


def test_a_day_that_says_nothing_closes_nothing() -> None:
    history = History("later images")
    history.check((0, True))
    history.check((1, None))
    assert history.open_days == [(0, 0)]
    history.check((2, True))
    assert (len(history.episodes), history.open_days) == (1, [(0, 2)])


def test_an_old_day_that_is_checked_again_opens_and_closes_nothing() -> None:
    history = History("later images")
    history.check((5, True))
    history.check((1, False))
    assert history.open_days == [(5, 5)]
    history.check((6, False))
    history.check((2, True), (3, True))
    assert history.open_days == []
    assert [(e.first_day, e.is_closed) for e in history.episodes.values()] == [
        (day(5), True),
        (day(2), True),  # part of the history, but over
    ]
    history.check((3, True))
    assert len(history.episodes) == 2


def test_a_day_that_is_repaired_closes_its_finding() -> None:
    for rule in get_args(ClosingRule):
        history = History(rule)
        history.check((0, True))
        history.check((0, None))
        assert history.open_days == []
        history.check((0, True))
        assert (len(history.episodes), history.open_days) == (2, [(0, 0)])


def test_a_defect_of_a_day_stays_until_the_day_is_checked_again() -> None:
    history = History("same day")
    history.check((0, True), (1, True))
    history.check((2, False), (3, False))
    assert history.open_days == [(0, 1)]
    history.check((1, False))
    assert history.open_days == [(0, 1)]
    history.check((0, False))
    assert history.open_days == []


@pytest.mark.parametrize("rule", ["later images", "same day"])
def test_what_a_person_closed_is_opened_by_later_days_only(rule: ClosingRule) -> None:
    history = History(rule)
    history.check((3, True), (4, True))
    history.close()
    history.check((3, True), (4, True))
    assert history.open_days == []
    history.check((2, True))  # a backfill
    assert history.open_days == ([(2, 2)] if rule == "same day" else [])
    history.check((5, True))
    assert history.open_days == [(2 if rule == "same day" else 5, 5)]


CHECKS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([True, False, None])),
    unique_by=lambda check: check[0],
    min_size=1,
)


@given(CHECKS, st.randoms(use_true_random=False), st.sampled_from(["later images", "same day"]))
def test_the_order_of_the_checks_does_not_matter(
    checks: list[tuple[int, bool | None]], rng: Any, rule: ClosingRule
) -> None:
    """Time zones and backfills check days in any order, one or several at once."""

    def run(order: Sequence[tuple[int, bool | None]], size: int) -> History:
        history = History(rule)
        for begin in range(0, len(order), size):
            history.check(*order[begin : begin + size])
        return history

    shuffled = list(checks)
    rng.shuffle(shuffled)
    first, second = run(sorted(checks, key=lambda c: c[0]), 1), run(shuffled, rng.randint(1, 4))
    last_days = [[last for _, last in history.open_days] for history in (first, second)]
    assert last_days[0] == last_days[1]
    shows = [number for number, shown in checks if shown]
    clear = [number for number, shown in checks if shown is False]
    is_open = bool(shows) and (rule == "same day" or max(shows) > max(clear, default=-1))
    assert len(first.open_days) == is_open
    again = first.open_days, len(first.episodes)
    first.check(*checks)
    assert (first.open_days, len(first.episodes)) == again


@pytest.mark.parametrize(
    ("rule", "subject", "evidence", "is_clear"),
    [
        ("same day", "", Evidence(DAY, has_images=True, has_figure=True), False),
        ("later day", "", Evidence(DAY), True),
        ("same weekday", "mon", Evidence(DAY), True),
        ("same weekday", "sun", Evidence(DAY), False),
        ("later images", "", Evidence(DAY), False),
        ("later images", "no_face", Evidence(DAY, has_images=True), True),
        ("same camera", "till", Evidence(DAY, True, frozenset({"door"})), False),
        ("same camera", "till", Evidence(DAY, True, frozenset({"till"})), True),
        ("same camera", "", Evidence(DAY, True, frozenset({"till"})), True),
        ("same camera", "till", Evidence(DAY, True, None), True),
        ("later figure", "", Evidence(DAY, has_images=True), False),
        ("later figure", "", Evidence(DAY, has_figure=True), True),
        ("later change", "week", Evidence(DAY, changes=frozenset({"day"})), False),
        ("later change", "day", Evidence(DAY, changes=frozenset({"day"})), True),
    ],
)
def test_which_days_could_have_shown_a_problem(
    rule: ClosingRule, subject: str, evidence: Evidence, is_clear: bool
) -> None:
    assert evidence.is_clear(rule, subject) is is_clear
