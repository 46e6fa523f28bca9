"""`fer-batch findings`: what runs found, over several nights, and what people note about it."""

from __future__ import annotations

import getpass
from datetime import timedelta

import pytest

from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility

BEFORE = DAY - timedelta(1)


def test_findings_of_two_nights_are_listed_acknowledged_and_closed(
    nightly: Command, night: Night
) -> None:
    night.write_registry(format_facility("a", permission=""), format_facility("c"))
    night.fill("c", happy=1, sad=0, day=BEFORE)
    assert [nightly("run", "--capture-day", str(d)).code for d in (BEFORE, DAY)] == [0, 3]
    rows = nightly("findings", "list", "--json").json
    names = ("facility_id", "check", "severity", "first_day", "days", "state")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("a", "no_permission", "warning", str(BEFORE), 2, "open"),
        ("c", "day_without_images", "error", str(DAY), 1, "open"),
    ]
    first, second = (str(row["finding_id"]) for row in rows)
    assert "no permission is recorded" in nightly("findings").out
    for filters, number in (
        (("--facility", "c"), second),
        (("--severity", "warning"), first),
        (("--state", "open", "--severity", "error"), second),
        (("--state", "closed"), None),
    ):
        found = nightly("findings", "list", "--json", *filters).json
        assert [str(row["finding_id"]) for row in found] == ([number] if number else [])

    ended = nightly("findings", "ack", first, second, "--comment", "asked the shop", "--json")
    assert {row["acknowledged_by"] for row in ended.json} == {getpass.getuser()}
    again = nightly("findings", "ack", second, first, "--comment", "asked the shop", "--json")
    assert (again.code, again.json) == (0, ended.json)
    closed = nightly("findings", "close", second, "--comment", "camera mended", "--by", "Ada")
    assert closed.code == 0
    assert "Ada: camera mended" in closed.out
    listed = nightly("findings", "list").out
    assert "asked the shop" in listed
    assert "camera mended" not in listed
    assert "camera mended" in nightly("findings", "list", "--state", "closed").out

    night.write_registry(format_facility("a"), format_facility("c"))
    assert nightly("run", "--capture-day", str(DAY), "--facility", "a").code == 0
    (over,) = nightly("findings", "list", "--facility", "a", "--state", "closed", "--json").json
    assert (over["finding_id"], over["closed_by"]) == (int(first), None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ack", "7", "--comment", "x"), "there is no finding 7"),
        (("close", "7", "99999999999999999999", "--comment", "x"), "there is no finding 7, 9999"),
        (("ack", "7"), "--comment"),
        (("close", "7", "--comment", " "), "the comment is empty"),
        (("close", "7", "--comment", "x", "--by", ""), "the name is empty"),
        (("close", "seven", "--comment", "x"), "seven"),
        (("ack", "--comment", "x"), "FIRST"),
        (("list", "--facility", "nowhere"), "unknown facility: 'nowhere'"),
        (("list", "--state", "over"), "over"),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(
    nightly: Command, arguments: tuple[str, ...], said: str
) -> None:
    ended = nightly("findings", *arguments)
    assert ended.code not in (0, 75)
    assert said in ended.err + ended.out
