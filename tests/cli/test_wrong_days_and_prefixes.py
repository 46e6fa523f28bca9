"""Runs of a day that has not begun, and of a facility whose prefix is wrong."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.cli.nights import ON_DAY, row_counts
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, encode_crop, format_facility


def test_a_day_that_has_not_begun_is_refused_by_every_command(
    nightly: Command, eraser: Command, night: Night
) -> None:
    night.write_registry(
        format_facility("a"), format_facility("b").replace("Europe/Berlin", "Pacific/Pago_Pago")
    )
    # Not tomorrow, which begins if midnight passes during the test.
    future = (datetime.now(ZoneInfo("Europe/Berlin")) + timedelta(days=2)).date().isoformat()
    steps = ("run", "plan", "list-images", "plan-shards", "score", "summarize", "check-data")
    for command in (*steps, "report"):
        ended = nightly(command, "--capture-day", future, "--json")
        assert (ended.code, ended.out) == (2, ""), command
        assert f"the capture day {future} has not begun yet for a, b" in ended.err
    assert row_counts(night)["batch"] == 0
    forced = nightly("run", "--capture-day", future, "--facility", "a", "--force", "--json")
    assert (forced.code, len(forced.json["summaries"])) == (0, 1)
    # It is withdrawn again.
    erased = eraser("erase", "--facility", "a", "--day", future, "--yes", "--json")
    assert [(day["images"], day["revision"]) for day in erased.json] == [(0, None)]
    assert row_counts(night)["batch"] == row_counts(night)["satisfaction_summary"] == 0


def test_a_wrong_prefix_is_found(nightly: Command, night: Night) -> None:
    night.write_registry(
        format_facility("kolkata", more='key_template = "Kolkata/{{capture_day}}/"\n')
    )
    night.fill("kolkata", happy=1, sad=0)
    near = "nothing lies below 'Kolkata/', but 'kolkata/' is there"
    planned = nightly("plan", *ON_DAY, "--json")
    assert planned.code == 3
    assert near in planned.json[0]["problem"]
    checked = nightly("check", "--json")
    (part,) = (each for each in checked.json if each["part"] == "facility kolkata")
    assert not part["ok"]
    assert near in part["detail"]
    ran = nightly("run", *ON_DAY, "--json")
    assert [f["check"] for f in ran.json["findings"]] == ["facility_without_images"]


@pytest.mark.parametrize("more", ["", 'include = ["door/*"]\n'])
def test_a_prefix_that_becomes_wrong_is_an_error(nightly: Command, night: Night, more: str) -> None:
    night.write_registry(format_facility("kolkata", more=more))
    for number in range(8):
        night.put(f"kolkata/{DAY}/door/{number}.png", encode_crop(True, number=number))
    assert nightly("run", *ON_DAY, "--json").json["summaries"][0]["is_complete"]
    night.write_registry(
        format_facility("kolkata", more='key_template = "Kolkata/{{capture_day}}/"\n' + more)
    )
    ran = nightly("run", *ON_DAY, "--json")
    assert ran.code == 3
    assert [(f["check"], f["severity"]) for f in ran.json["findings"]] == [
        ("images_not_listed", "error")
    ]
    (summary,) = ran.json["summaries"]
    assert (summary["images"], summary["is_complete"]) == (8, False)
    before = nightly("run", "--capture-day", str(DAY - timedelta(days=1)), "--json")
    assert before.code == 3
    assert [f["check"] for f in before.json["findings"]] == ["day_without_images"]
