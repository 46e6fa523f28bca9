"""The whole demo on its own servers but without Airflow: its table and its exit code."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fer_batch.local.demo import run as demo
from fer_batch.local.demo.day import DemoFacility, draw_day
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
        nightly.run_night(
            nightly.Run(ours, nightly.Selection(capture_day=self._day, run_id=run_id))
        )
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
    day = draw_day()
    count = sum(len(facility.images) for facility in day)
    assert demo.run_demo(settings) == 0
    said = capsys.readouterr().out
    assert f"{count} images scored; 0 had their result already" in said
    for facility in day:
        assert f"{facility.true_share:.3f}" in said

    monkeypatch.setattr(demo, "draw_day", lambda: with_another_outcome(day))
    assert demo.run_demo(settings) == 3
    again = capsys.readouterr()
    assert f"0 images scored; {count} had their result already" in again.out
    assert "unreadable" in again.out + again.err
