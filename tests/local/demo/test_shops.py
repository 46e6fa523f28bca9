"""What there is to find out over four weeks: a fall, a dead camera, closed days, groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from fer_batch.facilities.loading import load_registry
from fer_batch.local.demo import shops
from fer_batch.local.demo.day import DemoImage, format_registry
from fer_batch.records import CalledClass

LAST_DAY = date(2026, 11, 22)
AGES = range(28)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the visits only, which is fast."""

    def draw(rng: np.random.Generator, *arguments: object) -> Iterator[DemoImage]:
        *_, visits = arguments
        assert isinstance(visits, Sequence)
        yield from (DemoImage(f"{each.name}.jpg", b"") for visit in visits for each in visit)

    monkeypatch.setattr(shops, "_draw_crops", draw)
    monkeypatch.setattr(shops, "_draw_frames", draw)


def find_shop(facility_id: str) -> shops.Shop:
    return next(shop for shop in shops.SHOPS if shop.facility_id == facility_id)


def list_cameras(shop: shops.Shop, age: int) -> Counter[str]:
    """The images of each camera, broken files left out."""
    images = shops.draw_facility(shop, age).images
    return Counter(i.name.rpartition("_")[0] for i in images if "_0000" not in i.name)


def test_one_rate_fell_in_the_last_week_and_the_others_did_not() -> None:
    for shop in shops.SHOPS:
        drawn = [shops.draw_facility(shop, age) for age in AGES]
        earlier, later = {d.mix for d in drawn[7:]}, {d.mix for d in drawn[:7]}
        assert len(earlier) == len(later) == 1
        if shop.facility_id == "harbour-cafe":
            before, after = (
                sum((d.faces for d in part if d.faces), Counter())
                for part in (drawn[7:], drawn[:7])
            )
            assert find_happy_rate(before) - find_happy_rate(after) > 0.1
        else:
            assert earlier == later


def find_happy_rate(faces: Counter[CalledClass]) -> float:
    return faces[CalledClass.HAPPY] / faces.total()


def test_a_camera_of_the_clinic_stops_some_days_before_the_end() -> None:
    clinic = find_shop("maple-clinic")
    assert clinic.dead_camera is not None
    alive = [age for age in AGES if list_cameras(clinic, age)[clinic.dead_camera]]
    assert alive == [age for age in AGES if age >= shops.DEAD_DAYS]
    assert all(set(list_cameras(clinic, age)) >= {"desk", "hall"} for age in AGES)


def test_on_closed_weekdays_nobody_comes(tmp_path: Path) -> None:
    (file := tmp_path / "facilities.toml").write_text(format_registry(shops.list_facilities()))
    registry = load_registry(file).facilities
    closed = 0
    for shop in shops.SHOPS:
        for age in AGES:
            drawn = shops.draw_facility(shop, age)
            is_closed = registry[shop.facility_id].is_closed(LAST_DAY - timedelta(age))
            assert (not drawn.images) == (drawn.true_rates is None) == is_closed
            closed += is_closed
    assert closed == 4
    groups = Counter(entry.group for entry in registry.values())
    assert groups == {"Europe": 2, "Overseas": 2}


def test_the_last_day_is_the_same_for_any_number_of_days() -> None:
    for shop in shops.SHOPS:
        assert not shop.is_closed(0)
        assert shop.find_mix(0) == shop.mix
        assert shop.dead_camera != shop.traffic.cameras[0]  # its broken files still arrive
