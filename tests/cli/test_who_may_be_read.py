"""Facilities whose audience, jurisdiction or permission's dates keep them from being read."""

from __future__ import annotations

import pytest

from tests.cli.nights import ON_DAY
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, PERMISSION, Night, format_facility

FORMER_PERMISSION = PERMISSION.replace("notice_day = 2020-01-01\nassessment_day = 2020-01-01\n", "")
GAP = (
    "the registry lacks audience, jurisdiction, permission.notice_day, permission.assessment_day, "
    "required from {} on"
)
BEFORE, AFTER = "2999-01-01", "2026-11-01"


def write_registry(night: Night) -> None:
    """A complete entry, one of an earlier version, and entries about people at work and school."""
    allowed = 'empty_days = "allowed"\n'  # `check` is about the days before today
    complete = format_facility("shop", more=allowed)
    former = format_facility("former", more=allowed, permission=FORMER_PERMISSION)
    former = former.replace('audience = "customers"\njurisdiction = "DE"\n', "")
    school = format_facility("school").replace('"customers"', '["visitors", "pupils"]')
    office = format_facility("office").replace('"customers"', '"staff"').replace('"DE"', '"us"')
    late = format_facility("late", permission=PERMISSION.replace("2020-01-01", "2026-11-21"))
    night.write_registry(complete, former, school, office, late)


def test_who_may_be_read(nightly: Command, night: Night) -> None:
    write_registry(night)
    for name in ("shop", "former", "school", "office", "late"):
        night.fill(name, happy=2, sad=1)
    prohibited = (
        "pupils may not be read in DE, which is in the EU or the EEA: Article 5(1)(f) of "
        "Regulation (EU) 2024/1689 prohibits emotion recognition at work and in education"
    )
    too_late = "the notice at the entrance is dated 2026-11-21, after the capture day"

    ended = nightly("run", *ON_DAY, "--json", FER_STRICT_REGISTRY_FROM=BEFORE)

    assert ended.code == 0
    assert {s["facility_id"]: s["images"] for s in ended.json["summaries"]} == {
        "shop": 3, "former": 3, "office": 3,
    }  # fmt: skip
    found = {f["facility_id"]: (f["check"], f["finding"]) for f in ended.json["findings"]}
    assert found.pop("office")[0] == "people_at_work_or_in_education"
    assert found == {
        "former": ("incomplete_in_registry", GAP.format(BEFORE)),
        "school": ("no_permission", prohibited),
        "late": ("no_permission", too_late),
    }
    stored = night.query("select facility_id, audience, jurisdiction, permission_notice_day::text"
                         " from fer.facility order by 1")  # fmt: skip
    assert [tuple(row.values()) for row in stored] == [
        ("former", [], None, None), ("late", ["customers"], "DE", "2026-11-21"),
        ("office", ["staff"], "US", "2020-01-01"),
        ("school", ["visitors", "pupils"], "DE", "2020-01-01"),
        ("shop", ["customers"], "DE", "2020-01-01"),
    ]  # fmt: skip

    # The other commands give the same reasons. From the date of the setting on, one more is denied.
    listed = nightly("facilities", "list", "--json", FER_STRICT_REGISTRY_FROM=AFTER)
    problems = {row["facility"]: row["problem"] for row in listed.json}
    assert problems == {
        "shop": None, "office": None, "school": prohibited, "late": None,
        "former": GAP.format(AFTER),
    }  # fmt: skip
    assert listed.json[1]["missing"] == GAP[len("the registry lacks ") :].partition(", req")[0]
    synced = nightly("facilities", "sync", FER_STRICT_REGISTRY_FROM=AFTER)
    assert (synced.code, GAP.format(AFTER) in synced.err) == (0, True)
    planned = nightly("plan", *ON_DAY, "--json", FER_STRICT_REGISTRY_FROM=AFTER)
    assert {row["facility"]: row["problem"] for row in planned.json} == {
        "shop": "", "office": "", "school": prohibited, "late": too_late,
        "former": GAP.format(AFTER),
    }  # fmt: skip
    checked = nightly("check", "--json", FER_STRICT_REGISTRY_FROM=BEFORE).json
    details = {row["part"]: row["detail"] for row in checked}
    assert details["facility school"] == f"skipped: {prohibited}"
    assert f"Warning: {GAP.format(BEFORE)}" in details["facility former"]
    assert "the registry lacks" not in details["facility shop"]


@pytest.mark.parametrize("change", ["audience", "date"])
def test_a_listed_facility_is_not_read_any_more(
    nightly: Command, night: Night, change: str
) -> None:
    """The registry, or the date of the setting, changes between listing and scoring."""
    night.write_registry(format_facility("a", permission=FORMER_PERMISSION))
    night.fill("a", happy=2, sad=1)
    early, strict = {"FER_STRICT_REGISTRY_FROM": BEFORE}, {"FER_STRICT_REGISTRY_FROM": AFTER}
    assert nightly("list-images", *ON_DAY, **early).code == 0
    if change == "audience":
        night.write_registry(format_facility("a").replace('"customers"', '"students"'))
        strict = early
    assert nightly("score", *ON_DAY, **strict).code == 0
    assert night.query("select 1 from fer.image_result") == []
    assert night.query("select 1 from fer.image where capture_day = %s", DAY)
