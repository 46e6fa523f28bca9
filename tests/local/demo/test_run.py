"""The whole demo on its own servers but without Airflow: its table and its exit code."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fer_batch.local.demo import run as demo
from fer_batch.local.demo import shops
from fer_batch.local.demo.day import DemoFacility
from fer_batch.local.stack import Stack
from fer_batch.pipeline import nightly
from fer_batch.records import Outcome
from fer_batch.settings import Settings


@pytest.fixture
def settings(servers_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A stack for the demo; each run performs the steps of the DAG in this process."""
    running = Stack.running

    def without_airflow(
        stack: Stack, *, with_airflow: bool, **others: Any
    ) -> AbstractContextManager[None]:
        assert with_airflow
        return running(stack, with_airflow=False, **others)

    def run(self: Any) -> str:
        run_id = f"{demo.DAG_ID}/{secrets.token_hex(4)}"
        ours = self._settings.model_copy(update={"threads": 1})
        _, findings = nightly.run_night(
            nightly.Run(
                ours,
                nightly.Selection(
                    run_id=run_id,
                    capture_day=self._last_day,
                    lookback_days=(self._last_day - self._first_day).days,
                ),
            )
        )
        self._findings = [
            {**finding, "capture_day": finding["capture_day"].isoformat()} for finding in findings
        ]
        return run_id

    monkeypatch.setattr(Stack, "running", without_airflow)
    monkeypatch.setattr(demo._Demo, "run", run)
    folder = servers_dir / secrets.token_hex(4)
    yield Settings(_env_file=None, stack_dir=folder)
    shutil.rmtree(folder)


def with_another_outcome(day: list[DemoFacility]) -> list[DemoFacility]:
    """The same images, one of which is expected to be broken."""
    facility = day[0]
    first, *others = facility.images
    wrong = replace(first, outcome=Outcome.UNREADABLE)
    return [replace(facility, images=[wrong, *others]), *day[1:]]


def test_the_result_matches_the_drawn_day_and_a_second_run_scores_nothing(
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    day = [shops.draw_facility(shop, 0) for shop in shops.SHOPS]
    monkeypatch.setattr(demo, "draw_days", lambda _: [day])
    count = sum(len(facility.images) for facility in day)
    assert demo.run_demo(settings) == 0
    printed = capsys.readouterr().out
    assert f"{count} images scored; 0 had their result already" in printed
    for facility in day:
        assert facility.true_rates is not None
        assert f"{100 * facility.true_rates.happy:.0f} %" in printed
    assert "camera food-court: one picture 41 times" in printed
    verdicts = ("satisfied", "not satisfied", "inconclusive", "suppressed")
    rows = {
        facility.facility_id: next(line for line in printed.splitlines() if facility.name in line)
        for facility in day
    }
    for facility_id, verdict in zip(rows, verdicts, strict=True):
        assert f" {verdict} " in rows[facility_id]

    monkeypatch.setattr(demo, "draw_days", lambda _: [with_another_outcome(day)])
    assert demo.run_demo(settings) == 3
    again = capsys.readouterr()
    assert f"0 images scored; {count} had their result already" in again.out
    assert "unreadable" in again.out + again.err


def test_several_days_are_one_run_and_their_intervals_contain_the_truth(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cafe = next(shop for shop in shops.SHOPS if shop.facility_id == "harbour-cafe")
    monkeypatch.setattr(demo, "draw_days", draw_days_of(cafe))
    assert demo.run_demo(settings, days=7) == 0
    printed = capsys.readouterr().out
    assert "Intervals of days" in printed
    assert "Intervals of weeks" in printed
    assert "called happy, not corrected" in printed


def draw_days_of(shop: shops.Shop) -> Callable[[int], list[list[DemoFacility]]]:
    """`draw_days` of one facility, in this process."""
    return lambda days: [[shops.draw_facility(shop, age)] for age in range(days)]
