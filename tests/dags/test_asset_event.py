"""The extra of the asset event: which facility days were summarized, and no figure."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def nightly(
    fer_command: ModuleType, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.syspath_prepend(str(repo_root / "dags"))
    (registry := tmp_path / "facilities.toml").write_text('[facility.a]\ntime_zone = "UTC"\n')
    monkeypatch.setenv("FER_FACILITIES_FILE", str(registry))
    return importlib.import_module("satisfaction_nightly")


def build_summary(facility_id: str, day: str, **changes: Any) -> dict[str, Any]:
    """A row as `fer-batch summarize --json` prints it."""
    return {
        "facility_id": facility_id,
        "facility_name": "North Mall",
        "capture_day": day,
        "revision": 2,
        "is_complete": True,
        "faces": 12,
        "not_scored": {"empty": 3},
        "happy_rate": None,
        "verdict": "suppressed",
        "method": "suppressed",
    } | changes


def test_the_extra_has_the_facility_days_newest_first_and_nothing_else(nightly: Any) -> None:
    summaries = [
        build_summary("mall", "2026-11-28"),
        build_summary("kiosk", "2026-11-29", is_complete=False, revision=1),
        build_summary("clinic", "2026-11-29"),
    ]
    assert nightly.build_event_extra(summaries) == {
        "partitions": [
            {
                "facility_id": facility_id,
                "capture_day": day,
                "revision": revision,
                "is_complete": is_complete,
            }
            for facility_id, day, revision, is_complete in (
                ("clinic", "2026-11-29", 2, True),
                ("kiosk", "2026-11-29", 1, False),
                ("mall", "2026-11-28", 2, True),
            )
        ],
        "is_truncated": False,
    }
    assert nightly.build_event_extra([]) == {"partitions": [], "is_truncated": False}


def test_the_extra_of_very_many_facilities_is_bounded_and_says_so(nightly: Any) -> None:
    """The longest ids, and as many days as a run may look back."""
    days = [f"2026-{month}-{day:02}" for month in (10, 11) for day in range(1, 17)]
    summaries = [build_summary(f"{number:063}", day) for day in days for number in range(1_000)]
    extra = nightly.build_event_extra(summaries)
    assert extra["is_truncated"]
    assert len(extra["partitions"]) == nightly.MAX_PARTITIONS
    assert len(json.dumps(extra)) < 1_000_000
    newest = [each for each in extra["partitions"] if each["capture_day"] == days[-1]]
    assert len(newest) == 1_000


def test_the_example_of_the_docs_reads_the_extra(nightly: Any, repo_root: Path) -> None:
    file = repo_root / "docs" / "examples" / "after_satisfaction.py"
    spec = importlib.util.spec_from_file_location("after_satisfaction", file)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    summaries = [
        build_summary("mall", "2026-11-29"),
        build_summary("kiosk", "2026-11-29", is_complete=False),
    ]
    events = [SimpleNamespace(extra=nightly.build_event_extra(each)) for each in (summaries, [])]
    list_days = example.dag.get_task("list_complete_days").python_callable
    assert list_days({example.SATISFACTION_DAILY: events}) == ["mall 2026-11-29"]
