"""The whole demo on its own servers but without Airflow: its table and its exit code."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.local.demo import run as demo
from fer_batch.local.demo import shops, sources
from fer_batch.local.demo.day import DemoFacility
from fer_batch.local.stack import Stack, get_demo_stack_dir
from fer_batch.pipeline import nightly
from fer_batch.pipeline.selection import Selection
from fer_batch.records import Outcome
from fer_batch.settings import Settings
from fer_batch.storage.reader import BucketReader
from tests.fixtures.command import Command
from tests.fixtures.night import format_facility, run_night


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
        _, findings = run_night(
            nightly.Run(
                ours,
                Selection(
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
    assert not folder.exists()
    shutil.rmtree(get_demo_stack_dir(folder))


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
    monkeypatch.setattr(sources, "draw_days", lambda _: nullcontext(lambda: [day]))
    count = sum(len(facility.images) for facility in day)
    assert demo.run_demo(settings) == 0
    printed = capsys.readouterr().out
    assert f"{count} images scored; 0 had their result already" in printed
    assert "warning of Lotus Mall: a camera delivered the same picture" in " ".join(printed.split())
    for facility in day:
        assert facility.true_rates is not None
        assert f"{100 * facility.true_rates.happy:.0f} %" in printed
    assert "camera food-court: one picture 41 times" in printed
    # One facility has an audit, labeled with the true expressions. Its interval is narrower, also
    # in the report, and contains the rate of the day (the exit code says so).
    title = printed.index("Audit of Harbour Café")
    audited, _ = [line for line in printed[title:].splitlines() if " local " in line]  # day, week
    without, with_audit = (
        int(high) - int(low) for low, high in re.findall(r"\((\d+) to (\d+)\)", audited)
    )
    assert with_audit <= 0.85 * without
    assert audited.split()[-1] == "200"
    (page,) = get_demo_stack_dir(settings.stack_dir).rglob("reports/2*.html")
    text = re.sub(r"<[^>]*>", "", page.read_text())
    assert "Corrected by 200 labeled faces of the facility (method local)" in text
    assert text.count("; not comparable") == 2, "two of three with a rate have no audit"
    verdicts = ("above target", "below target", "not clear", "no rate")
    rows = {
        facility.facility_id: next(line for line in printed.splitlines() if facility.name in line)
        for facility in day
    }
    for facility_id, verdict in zip(rows, verdicts, strict=True):
        assert f" {verdict} " in rows[facility_id]

    other_day = with_another_outcome(day)
    monkeypatch.setattr(sources, "draw_days", lambda _: nullcontext(lambda: [other_day]))
    assert demo.run_demo(settings) == 3
    again = capsys.readouterr()
    assert f"0 images scored; {count} had their result already" in again.out
    assert "unreadable" in again.out + again.err


def test_several_days_are_one_run_and_their_intervals_contain_the_truth(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cafe = next(shop for shop in shops.SHOPS if shop.facility_id == "harbour-cafe")
    monkeypatch.setattr(sources, "draw_days", draw_days_of(cafe))
    assert demo.run_demo(settings, days=7) == 0
    printed = capsys.readouterr().out
    assert "Intervals of days" in printed
    assert "Intervals of weeks" in printed
    assert "called happy, not corrected" in printed


def test_a_running_stack_of_the_user_is_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fer: Command
) -> None:
    cafe = next(shop for shop in shops.SHOPS if shop.facility_id == "harbour-cafe")
    monkeypatch.setattr(sources, "draw_days", draw_days_of(cafe))
    assert settings.stack_dir is not None
    stack = Stack(settings.stack_dir)

    def describe() -> tuple[Any, ...]:
        engine = connections.create_engine(stack.build_settings())
        with engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT * FROM fer.facility")).all()
            images = connection.execute(sa.text("SELECT * FROM fer.image")).all()
        engine.dispose()
        with BucketReader(stack.build_settings()) as reader:
            keys = [listed.key for listed in reader.list("")]
        return stack.facilities_file.read_text(), rows, images, keys, stack.build_env()

    try:
        stack.up(with_airflow=False)
        stack.write_registry(format_facility("mine"))
        photographs = fer.folder / "photographs" / "door"
        photographs.mkdir(parents=True)
        for name in ("a.png", ".DS_Store"):
            (photographs / name).write_bytes(b"x")
        arguments = ("stack", "upload", "photographs", "mine/2026-11-28/")
        assert "uploaded 1 files to s3://" in fer(*arguments, FER_STACK_DIR=str(stack.folder)).out
        selection = Selection(run_id="mine", capture_day=date(2026, 11, 28))
        run = nightly.Run(stack.build_settings(), selection)
        run.sync_facilities()
        run.list_images()
        run.engine.dispose()
        before = describe()
        demo.run_demo(settings)
        assert describe() == before
        assert len(before[1]) == len(before[2]) == 1
        assert before[3] == ["mine/2026-11-28/door/a.png"]
        assert not any(s.is_running for s in Stack(get_demo_stack_dir(stack.folder)).get_status())
    finally:
        stack.delete()


def draw_days_of(shop: shops.Shop) -> Callable[[int], Any]:
    """`draw_days` of one facility, in this process."""
    return lambda days: nullcontext(
        lambda: [[shops.draw_facility(shop, age)] for age in range(days)]
    )
