"""Who may be read: audience, jurisdiction, the dates of the permission, incomplete entries."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.facilities import audience as audiences
from fer_batch.facilities.audience import Audience
from fer_batch.facilities.registry import Facility, Permission
from tests.facilities.conftest import GOOD, PERMISSION

DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 21, 4, tzinfo=UTC)
NEVER = date(2999, 1, 1)

MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
ACT_APPLIES = {"EU", *MEMBERS.split(), "IS", "LI", "NO", "AX", "GF", "GP", "MF", "MQ", "RE", "YT"}
PROHIBITED = {"staff", "applicants", "pupils", "students"}

Load = Callable[..., Mapping[str, Facility]]


def build(
    audience: Any = "customers",
    jurisdiction: str | None = "DE",
    notice_day: date | None = date(2026, 1, 1),
    assessment_day: date | None = date(2026, 1, 1),
) -> Facility:
    permission = Permission(
        purpose="p",
        lawful_basis="l",
        approved_by="a",
        valid_until=date(2099, 1, 1),
        notice_day=notice_day,
        assessment_day=assessment_day,
    )
    return Facility(
        facility_id="mall",
        name="Mall",
        time_zone="Europe/Berlin",
        image_kind="crops",
        audience=audience,
        jurisdiction=jurisdiction,
        permission=permission,
    )


def deny(facility: Facility, strict_from: date = NEVER) -> str:
    return facility.get_denial_reason(DAY, NOW, strict_from) or ""


@given(
    st.lists(st.sampled_from(get_args(Audience)), min_size=1, max_size=4),
    st.sampled_from(sorted({*audiences.COUNTRIES, "EU"})) | st.none(),
)
def test_one_prohibited_group_suffices(groups: list[str], jurisdiction: str | None) -> None:
    """The whole table of audience and jurisdiction; no jurisdiction counts as the strictest."""
    is_prohibited = bool(PROHIBITED & {*groups}) and jurisdiction in {*ACT_APPLIES, None}
    reason = deny(build(groups, jurisdiction))
    assert bool(reason) is is_prohibited
    if is_prohibited:
        assert "Article 5(1)(f) of Regulation (EU) 2024/1689" in reason
        assert all(group in reason for group in PROHIBITED & {*groups})
        assert jurisdiction is None or jurisdiction in reason


@pytest.mark.parametrize("code", sorted(ACT_APPLIES))
def test_staff_are_refused_wherever_the_act_applies(code: str) -> None:
    assert "prohibits" in deny(build("staff", code))
    assert deny(build("customers", code)) == ""


@pytest.mark.parametrize("code", ["GB", "CH", "US", "SG", "GL", "NC", "SJ", "TR"])
def test_elsewhere_staff_are_not_refused(code: str) -> None:
    assert deny(build("staff", code)) == ""


def test_an_entry_as_written_in_a_file(load: Load) -> None:
    text = f'{GOOD}audience = ["staff", "customers", "staff"]\njurisdiction = "de"{PERMISSION}'
    mall = load(text)["mall"]
    assert (mall.audience, mall.jurisdiction) == (("customers", "staff"), "DE")
    assert load(GOOD + 'audience = "patients"')["mall"].audience == ("patients",)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('audience = "shoppers"', "audience.0 is 'shoppers': input should be 'customers'"),
        ('audience = "Staff"', "audience.0 is 'Staff': input should be"),
        ('jurisdiction = "UK"', "country code of ISO 3166-1 .* not 'UK' .did you mean GB"),
        ('jurisdiction = "EL"', "not 'EL' .did you mean GR"),
        ('jurisdiction = "DEU"', "jurisdiction must be a country code"),
        ('jurisdiction = "Germany"', "jurisdiction must be a country code"),
        ('jurisdiction = ""', "jurisdiction must be a country code"),
        ('jurisdiction = ["DE"]', "jurisdiction is"),
    ],
)
def test_an_unknown_audience_or_jurisdiction_is_rejected(
    rejected: Any, line: str, problem: str
) -> None:
    message = rejected(f"{GOOD}{line}")

    assert re.search(problem, message), message


@pytest.mark.parametrize(
    ("field", "what"),
    [("notice_day", "notice at the entrance"), ("assessment_day", "impact assessment")],
)
def test_no_day_before_notice_and_assessment_is_read(field: str, what: str) -> None:
    on_day, later = ({field: day} for day in (DAY, date(2026, 11, 21)))
    assert deny(build(**on_day)) == ""  # type: ignore[arg-type]
    reason = deny(build(**later))  # type: ignore[arg-type]
    assert reason == f"the {what} is dated 2026-11-21, after the capture day"


@pytest.mark.parametrize(
    ("lacking", "missing"),
    [
        ({"audience": ()}, "audience"),
        ({"jurisdiction": None}, "jurisdiction"),
        ({"notice_day": None}, "permission.notice_day"),
        ({"assessment_day": None}, "permission.assessment_day"),
        (
            {"audience": (), "jurisdiction": None, "notice_day": None, "assessment_day": None},
            "audience, jurisdiction, permission.notice_day, permission.assessment_day",
        ),
    ],
)
def test_incomplete_entries_are_read_until_a_date(lacking: Any, missing: str) -> None:
    facility = build(**lacking)
    today = date(2026, 11, 21)  # when the day is read
    assert deny(facility, date(2026, 11, 22)) == ""
    assert deny(facility, today) == f"the registry lacks {missing}, required from 2026-11-21 on"
    assert deny(build(), today) == ""
    assert build().describe_gap(today) == ""


def test_a_missing_permission_is_the_only_reason(load: Load) -> None:
    mall = load(GOOD)["mall"]
    assert mall.list_missing_fields() == ["audience", "jurisdiction"]
    assert deny(mall, DAY) == "no permission is recorded"
