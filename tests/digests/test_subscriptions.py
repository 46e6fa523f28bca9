"""The file of subscriptions: who gets which facilities, and on which mornings."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.digests.subscriptions import (
    Subscription,
    load_subscriptions,
    select_facilities,
)
from fer_batch.errors import ConfigurationError
from fer_batch.facilities.registry import WEEKDAYS
from fer_batch.resources import find_example_subscriptions
from fer_batch.settings import Settings

GROUPS = {"mall": "North", "park": "North", "pier": "South", "kiosk": None}
DAYS = st.dates(date(2024, 1, 1), date(2028, 1, 1))


def build(**others: Any) -> Subscription:
    values: dict[str, Any] = {"name": "north", "to": ["anna@example.com"], "groups": ["North"]}
    return Subscription(**values | others)


def load(folder: Path, text: str, **others: Any) -> Any:
    (folder / "subscriptions.toml").write_text(text, encoding="utf-8")
    return load_subscriptions(build_settings(folder, **others))


def build_settings(folder: Path, **others: Any) -> Settings:
    return Settings(_env_file=None, facilities_file=folder / "facilities.toml", **others)


def test_without_a_file_there_are_no_subscriptions(tmp_path: Path) -> None:
    assert load_subscriptions(build_settings(tmp_path)).valid == ()
    missing = build_settings(tmp_path, subscriptions_file=tmp_path / "other.toml")
    with pytest.raises(ConfigurationError, match="FER_SUBSCRIPTIONS_FILE"):
        load_subscriptions(missing)


def test_an_invalid_subscription_costs_only_its_own_recipients(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        '[subscription.good]\nto = ["a@x.org"]\ngroups = ["North"]\n'
        '[subscription.bad]\nto = ["b@x.org"]\ngroup = ["North"]\n',
    )
    assert [each.name for each in found.valid] == ["good"]
    assert "did you mean groups?" in found.problems["bad"][0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"to": []}, "has no recipient"),
        ({"groups": []}, "has no facility"),
        ({"all_facilities": True}, "all_facilities excludes"),
        ({"weekday": "mon"}, 'weekday is for every = "week"'),
        ({"every": "month"}, "'day' or 'week'"),
        ({"chat": "https://hooks.slack.com/services/T/B/s3cr3t"}, "FER_CHAT_URLS__NORTH"),
        *(
            ({"to": [address]}, "is not an address")
            for address in (
                *("anna", "anna@", "@x.org", "a@b@c", "Anna <anna@x.org>", "a@x.org, b@x.org"),
                *("a@x.org\nBcc: eve@x.org", "a b@x.org", "a@x..org", "a\u2028@x.org", "", "a@x/y"),
            )
        ),
    ],
)
def test_a_wrong_field_is_explained(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build(**changes)


def test_an_address_gets_one_mail_and_its_domain_is_in_ascii() -> None:
    subscription = build(to=["anna@müller.example", "ben@x.org", "Anna@MÜLLER.example"])
    assert [a.casefold() for a in subscription.list_addresses()] == [
        "anna@xn--mller-kva.example",
        "ben@x.org",
    ]


def test_groups_and_facilities_are_added_up_and_all_means_all() -> None:
    assert select_facilities(build(), GROUPS) == (["mall", "park"], [])
    both = build(facilities=["kiosk"])
    assert select_facilities(both, GROUPS) == (["mall", "park", "kiosk"], [])
    everything = build(groups=[], all_facilities=True)
    assert select_facilities(everything, GROUPS) == (list(GROUPS), [])


def test_an_unknown_group_or_facility_is_named_with_close_matches() -> None:
    wrong = build(groups=["north", "South"], facilities=["piers"])
    members, problems = select_facilities(wrong, GROUPS)
    assert members == ["pier"]
    assert problems == [
        "the registry has no group 'north' (did you mean North or South?)",
        "the registry has no facility 'piers' (did you mean pier?)",
    ]


def test_the_shipped_example_is_valid_and_reaches_nobody(tmp_path: Path) -> None:
    found = load(tmp_path, find_example_subscriptions().read_text())
    assert not found.problems
    for subscription in found.valid:
        assert select_facilities(subscription, GROUPS)[0] == []
    line = r"^# (\[subscription\.[a-z]+\]$|[a-z_]+ = )"
    whole = re.sub(line, r"\1", find_example_subscriptions().read_text(), flags=re.MULTILINE)
    assert len(load(tmp_path, whole).valid) == 3


def test_the_docs_describe_every_field(repo_root: Path) -> None:
    page = (repo_root / "docs" / "notify.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert described == [name for name in Subscription.model_fields if name != "name"]


@given(DAYS, st.sampled_from(WEEKDAYS), st.lists(st.booleans(), min_size=30, max_size=30))
def test_a_weekly_digest_comes_once_a_week_even_if_nights_are_missing(
    first: date, weekday: str, happens: list[bool]
) -> None:
    weekly = build(every="week", weekday=weekday)
    sent: list[date] = []
    for number, is_night in enumerate(happens):
        day = first + timedelta(days=number)
        if is_night and weekly.is_due(day, sent[-1] if sent else None):
            sent.append(day)
    dues = [weekly.find_due_day(day) for day in sent]
    assert len(set(dues)) == len(dues)  # no week twice
    for due in dues:
        assert WEEKDAYS[(due + timedelta(days=1)).weekday()] == weekday
    if sent:  # and no week is left out that has a night
        assert sent[0] == dues[0]
        days = [first + timedelta(n) for n, is_night in enumerate(happens) if is_night]
        assert set(dues) == {weekly.find_due_day(day) for day in days if day >= sent[0]}


@given(DAYS, st.lists(st.integers(0, 5), max_size=20))
def test_a_daily_digest_is_never_older_than_the_last_one(first: date, numbers: list[int]) -> None:
    sent: list[date] = []
    for number in numbers:
        day = first + timedelta(days=number)
        if build().is_due(day, sent[-1] if sent else None):
            sent.append(day)
    assert sent == sorted(set(sent))
