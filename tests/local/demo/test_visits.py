"""Visits: alike within a visit, at different seconds of a camera, with the rates of the mix."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fer_batch.local.demo.visits import (
    CORRELATION,
    MEAN_PHOTOGRAPHS,
    Mix,
    Traffic,
    Visit,
    count_faces,
    draw_visits,
)
from fer_batch.records import CalledClass

MIX = Mix(happy=0.3, sad=0.1)


def draw(visits: int, most_people: int = 1, seed: int = 1) -> list[Visit]:
    traffic = Traffic(visits, ("a", "b"), 8, 20, most_people)
    return list(draw_visits(np.random.default_rng(seed), traffic, MIX))


def test_visits_depend_only_on_the_seed() -> None:
    assert draw(30) == draw(30)
    assert draw(30) != draw(30, seed=2)


def test_a_visit_has_several_photographs_a_few_seconds_apart() -> None:
    visits = draw(3000)
    assert np.mean([len(visit) for visit in visits]) == pytest.approx(MEAN_PHOTOGRAPHS, rel=0.1)
    for visit in visits:
        assert len({photograph.camera for photograph in visit}) == 1
        for one, other in itertools.pairwise(visit):
            assert other.second > one.second


def test_no_camera_delivers_two_photographs_in_one_second() -> None:
    photographs = list(itertools.chain.from_iterable(draw(2000)))
    assert len({(p.camera, p.second) for p in photographs}) == len(photographs)
    assert min(photograph.second for photograph in photographs) >= 8 * 3600


def test_the_rates_are_those_of_the_mix() -> None:
    days = (draw(500, seed=seed) for seed in range(40))
    faces = count_faces(itertools.chain.from_iterable(itertools.chain.from_iterable(days)))
    assert faces[CalledClass.HAPPY] / faces.total() == pytest.approx(MIX.happy, abs=0.02)
    assert faces[CalledClass.SAD] / faces.total() == pytest.approx(MIX.sad, abs=0.02)


def test_two_photographs_of_a_visitor_correlate() -> None:
    pairs = np.array(
        [
            [photograph.faces[0] == CalledClass.HAPPY for photograph in visit[:2]]
            for seed in range(60)  # days that leave the cameras seconds to choose from
            for visit in draw(500, seed=seed)
            if len(visit) >= 2
        ],
        float,
    )
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(CORRELATION, abs=0.03)


def test_each_person_of_a_group_is_in_each_photograph() -> None:
    visits = draw(200, most_people=3)
    for visit in visits:
        assert len({len(photograph.faces) for photograph in visit}) == 1
    assert {len(visit[0].faces) for visit in visits} == {1, 2, 3}


def test_the_name_says_camera_and_time() -> None:
    (first, *_), *_ = draw(1)
    hours, rest = divmod(first.second, 3600)
    assert first.name == f"{first.camera}_{hours:02}{rest // 60:02}{rest % 60:02}"


def test_a_smaller_day_has_fewer_visits() -> None:
    traffic = Traffic(7, ("a",), 8, 20)
    assert traffic.shrink(0.5).visits == 4
    assert traffic.shrink(0.01).visits == 1
