"""Whose image a key is: the same answer, from the key, as a run gives from the facility."""

from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.facilities.loading import load_registry
from fer_batch.facilities.ownership import Owner, list_owners
from tests.facilities.test_day_keys import INSTANTS, LAYOUTS, ZONES, build
from tests.fixtures.night import format_facility

DAY = date(2026, 11, 20)


@given(INSTANTS, st.sampled_from(ZONES), st.sampled_from(sorted(LAYOUTS)))
def test_a_key_has_the_day_on_which_a_run_lists_it(instant, zone, layout):
    fields, form = LAYOUTS[layout]
    owner = Owner("mall", build(time_zone=zone, **fields))
    local = instant.astimezone(ZoneInfo(zone))
    key = form.format(id="mall", local=local, utc=instant, seconds=int(instant.timestamp()))
    assert owner.owns(key)
    assert owner.find_day(key) == local.date()
    # And every prefix above and below concerns the facility.
    assert all(owner.may_own_below(key[:end]) for end in range(len(key) + 1))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a/{capture_day:%y%m%d}/", "a/261120/"),
        ("a/{capture_day:%Y/%j}/", "a/2026/324/"),
        ("{camera}-x/{capture_day:%-d.%-m.%Y}/", "cam 1-x/20.11.2026/"),
        ("a/{capture_day:%d-%B-%Y}/", "a/20-NOVEMBER-2026/"),
        ("a/{capture_day:%Y}/{capture_day:%Y-%m-%d}/", "a/2026/2026-11-20/"),
    ],
)
def test_each_kind_of_date_is_read(template, text):
    owner = Owner("mall", build(key_template=template))
    assert owner.find_day(f"{text}x.jpg") == DAY
    assert not owner.owns(f"b/{text}x.jpg")
    assert not owner.may_own_below("b/")


def test_a_key_with_an_impossible_date_is_owned_but_of_no_day():
    owner = Owner("mall", build())
    assert owner.owns("mall/2026-13-45/x.jpg")
    assert owner.find_day("mall/2026-13-45/x.jpg") is None
    assert not owner.owns("mall/notes/x.jpg")


@pytest.mark.parametrize(
    "key", ["/mall/2026-11-20/x", "./mall//2026-11-20/x", "b/../mall/2026-11-20/x"]
)
def test_another_spelling_that_a_server_may_accept_is_the_same_key(key):
    owner = Owner("mall", build())
    assert (owner.owns(key), owner.find_day(key)) == (True, DAY)


def test_a_bucket_is_known_by_its_name_whatever_the_endpoint(tmp_path: Path):
    path = tmp_path / "facilities.toml"
    elsewhere = 'bucket = "Shops"\nendpoint = "https://S3.example.com:443"\n'
    path.write_text(
        format_facility("a", more=elsewhere)
        + format_facility("b")
        + format_facility("c", more='bucket = "shops"\nkey_template = "{{oops}}/"\n')
        + format_facility("d", more='bucket = "other"\nclosed = 1\n')
    )
    registry = load_registry(path)
    assert [owner.facility_id for owner in list_owners(registry, "shops", "images")] == ["a", "c"]
    # An entry that does not tell where the images are may be about any bucket.
    found = list_owners(registry, "other", "images")
    assert [(owner.facility_id, owner.facility is None) for owner in found] == [
        ("c", True),
        ("d", False),
    ]
    assert [owner.facility_id for owner in list_owners(registry, "images", "images")] == ["b", "c"]
