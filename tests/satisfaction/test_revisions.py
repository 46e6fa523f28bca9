"""Summaries of the stored results, and when a new revision is written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fer_batch.database import ledger, results
from fer_batch.errors import DatabaseError
from fer_batch.records import Batch, ImageScore, Outcome
from fer_batch.satisfaction import revisions
from fer_batch.satisfaction.figures import PRECISION, RATES
from tests.fixtures.tables import name_etag

BLOCKS = {
    "clusters": 10,
    "counts": [60, 20, 20],
    "products": [[360, 120, 120], [120, 40, 40], [120, 40, 40]],
}
"""The totals of 60, 20 and 20 faces that are spread evenly over ten blocks."""
FIGURES = {
    "happy_rate": 0.66305,
    "happy_rate_low": 0.500944,
    "happy_rate_high": 0.860636,
    "sad_rate": 0.304125,
    "sad_rate_low": 0.078482,
    "sad_rate_high": 0.544824,
    "neither_rate": 0.032825,
    "called_happy_rate": 0.6,
    "called_happy_rate_low": 0.486931,
    "called_happy_rate_high": 0.703333,
    "called_sad_rate": 0.2,
    "called_sad_rate_low": 0.125148,
    "called_sad_rate_high": 0.304061,
    "sessions_effective": 10.0,
    # The square of 1.96 / 2.262, the quantiles of the normal distribution and of t with 9 degrees
    # of freedom, times 100 faces: the blocks are alike.
    "faces_effective": 75.067272,
    "design_effect": 1.332138,
    "benchmark_weight": 1.0,
}
NOT_IN_VIEW = {
    *("called_happy", "called_sad", "called_neither"),
    *("totals", "hours", "cameras", "former_figures"),
}
DAILY = "SELECT * FROM fer.satisfaction_daily ORDER BY facility_id, capture_day"


def test_summary_holds_all_figures_of_a_day(tables: Any) -> None:
    tables.add("north-mall", target_rate=0.3)
    tables.fill(happy=60, sad=20, neither=20)
    tables.list(["broken.jpg", "empty.jpg", "lost.jpg", *(f"{n:06d}.jpg" for n in range(100))])
    outcomes = [Outcome.UNREADABLE, Outcome.EMPTY, Outcome.FETCH_FAILED]
    tables.write(*(ImageScore(i, o) for i, o in zip(tables.list_work(), outcomes, strict=True)))
    (summary,) = tables.summarize(run_id="run-9")
    expected = {
        "facility_id": "north-mall",
        "capture_day": date(2026, 3, 1),
        "revision": 1,
        "model_version": tables.version,
        "period": "day",
        "first_day": date(2026, 3, 1),
        "target_rate": 0.3,
        "time_zone": "Europe/Berlin",
        "images": 103,
        "images_scored": 100,
        "images_pending": 1,
        "not_scored": {"unreadable": 1, "empty": 1},
        "faces": 100,
        "faces_scored": 100,
        "called_happy": 60,
        "called_sad": 20,
        "called_neither": 20,
        "totals": {"blocks": BLOCKS},
        "hours": None,
        "cameras": None,
        "former_figures": None,
        **FIGURES,
        "method": "benchmark",
        "session_rule": "blocks",
        "sessions": 10,
        "faces_needed": None,
        "confidence": 0.95,
        "verdict": "satisfied",
        "is_complete": False,
        "is_below_expected": False,
        "run_id": "run-9",
        "audit_id": None,
        "audit_labels": None,
        "reason": "",
        "is_new_revision": True,
    }
    assert {name: summary[name] for name in expected} == expected
    assert set(summary) == {*expected, "created_at"}
    (row,) = tables.query(DAILY)
    assert row.facility_name == "North-Mall"
    in_view = set(expected) - {"is_new_revision", "period", "first_day", *NOT_IN_VIEW}
    assert {n: v for n, v in row._mapping.items() if n in expected} == {
        n: v for n, v in expected.items() if n in in_view
    }
    assert tables.query(
        "SELECT outcome, images, all_images FROM fer.not_scored_daily ORDER BY 1"
    ) == [
        ("empty", 1, 103),
        ("unreadable", 1, 103),
    ]


def test_equal_summary_is_not_written_again(tables: Any) -> None:
    tables.fill(happy=40, sad=10)
    (first,) = tables.summarize(run_id="run-1")
    (second,) = tables.summarize(run_id="run-2")
    assert second == first | {"is_new_revision": False}
    assert tables.query("SELECT count(*) FROM fer.satisfaction_summary") == [(1,)]


def test_equal_suppressed_summary_is_not_written_again(tables: Any) -> None:
    tables.fill(happy=29, sad=0)
    (first,) = tables.summarize()
    assert first["verdict"] == "suppressed"
    assert first["happy_rate"] is first["happy_rate_low"] is first["neither_rate"] is None
    assert tables.summarize()[0]["is_new_revision"] is False


def test_view_shows_no_number_of_faces_of_a_suppressed_day(tables: Any) -> None:
    tables.fill(happy=17, sad=4, neither=2)
    tables.summarize()
    (row,) = tables.query(DAILY)
    assert (row.images, row.verdict) == (23, "suppressed")
    hidden = (*RATES, *PRECISION, "faces_needed", "faces", "faces_scored", "images_scored")
    assert {name: row._mapping[name] for name in hidden} == dict.fromkeys(hidden)


@pytest.mark.parametrize("view", ["satisfaction_daily", "satisfaction_period"])
def test_views_show_no_count_by_class(tables: Any, view: str) -> None:
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = :view"
    names = {name for (name,) in tables.query(columns, view=view)}
    assert set(RATES) <= names
    assert not {name for name in names if name in NOT_IN_VIEW}


def test_late_image_creates_a_second_revision_with_the_published_figure(tables: Any) -> None:
    tables.fill(happy=30, sad=0)
    (first,) = tables.summarize()
    tables.list([*(f"{n:06d}.jpg" for n in range(30)), "late.jpg"])
    tables.write(*map(tables.build_score, tables.list_work()))
    (summary,) = tables.summarize()
    assert (summary["revision"], summary["images"], summary["images_scored"]) == (2, 31, 31)
    assert (summary["faces_scored"], summary["faces"], summary["called_happy"]) == (31, 30, 30)
    assert {name: summary[name] for name in RATES} == {name: first[name] for name in RATES}
    assert tables.summarize()[0] == summary | {"is_new_revision": False}
    assert [row.revision for row in tables.query(DAILY)] == [2]
    kept = tables.query("SELECT revision, images FROM fer.satisfaction_summary ORDER BY revision")
    assert kept == [(1, 30), (2, 31)]


def test_deleted_objects_never_shrink_a_day(tables: Any) -> None:
    tables.fill(happy=30, sad=10)
    tables.summarize()
    tables.list(["000000.jpg"])
    assert tables.summarize()[0]["is_new_revision"] is False


def test_changed_target_creates_a_revision_with_another_verdict(tables: Any) -> None:
    tables.add("north-mall", target_rate=0.2)
    tables.fill(happy=100, sad=20, neither=80)
    assert tables.summarize()[0]["verdict"] == "satisfied"
    tables.add("north-mall", target_rate=0.9)
    (summary,) = tables.summarize()
    assert (summary["revision"], summary["verdict"]) == (2, "not satisfied")


def test_model_versions_are_counted_separately(tables: Any) -> None:
    tables.fill(happy=40, sad=0)
    tables.summarize()
    other = "b" * 64
    with tables.transaction() as connection:
        results.register_model_version(connection, other, {}, {})
    work = tables.list_work(model_version=other)
    tables.write(
        *(tables.build_score(i, tables.build_face(0, 1)) for i in work), model_version=other
    )
    (summary,) = tables.summarize(model_version=other)
    assert (summary["revision"], summary["called_happy"], summary["called_sad"]) == (2, 0, 40)
    assert (summary["model_version"], summary["method"]) == (other, "raw")


def test_faces_of_an_overwritten_image_do_not_count_until_it_is_scored(tables: Any) -> None:
    tables.fill(happy=40, sad=0)
    tables.list({f"{n:06d}.jpg": name_etag(f"{n:06d}.jpg") if n else "etag-2" for n in range(40)})
    (summary,) = tables.summarize()
    assert (summary["images_scored"], summary["images_pending"], summary["faces"]) == (39, 1, 39)
    assert not summary["is_complete"]


def test_faces_of_one_frame_are_counted_separately(tables: Any) -> None:
    tables.list(["a.jpg"])
    faces = [tables.build_face(0.75, 0.125)] * 3 + [tables.build_face(0.125, 0.75)] * 2
    tables.write(tables.build_score(*tables.list_work(), *faces))
    (summary,) = tables.summarize()
    assert (summary["images"], summary["faces"]) == (1, 5)
    assert (summary["called_happy"], summary["called_sad"]) == (3, 2)


OTHER = "b" * 64


def day_of_two_versions(tables: Any, outcome: Outcome) -> Any:
    """A published day, and a run of another version that gets `outcome` for its last image."""
    tables.fill(happy=40, sad=0)
    with tables.transaction() as connection:
        ledger.begin_run(connection, "run-1", tables.version)
    (published,) = tables.summarize()
    with tables.transaction() as connection:
        results.register_model_version(connection, OTHER, {}, {})
        ledger.begin_run(connection, "run-2", OTHER)
    *work, last = tables.list_work(model_version=OTHER)
    tables.write(*map(tables.build_score, work), model_version=OTHER)
    score = tables.build_score(last) if outcome is Outcome.SCORED else ImageScore(last, outcome)
    tables.write(score, model_version=OTHER)
    return published


@pytest.mark.parametrize("outcome", [Outcome.FETCH_FAILED, Outcome.MISSING])
def test_version_that_could_not_read_all_images_does_not_replace_the_summary(
    tables: Any, outcome: Outcome
) -> None:
    published = day_of_two_versions(tables, outcome)
    (summary,) = tables.summarize(model_version=OTHER, run_id="run-2")
    assert summary == published | {"is_new_revision": False}


@pytest.mark.parametrize("outcome", [Outcome.FETCH_FAILED, Outcome.MISSING])
def test_day_with_more_images_is_summarized_although_one_cannot_be_read(
    tables: Any, outcome: Outcome
) -> None:
    """The published summary does not count that image, nor many others."""
    tables.fill(happy=40, sad=0)
    tables.summarize()
    with tables.transaction() as connection:
        results.register_model_version(connection, OTHER, {}, {})
    tables.list([f"{n:06d}.jpg" for n in range(50)])
    *work, last = tables.list_work(model_version=OTHER)
    tables.write(*map(tables.build_score, work), ImageScore(last, outcome), model_version=OTHER)
    (summary,) = tables.summarize(model_version=OTHER, run_id="run-2")
    assert (summary["model_version"], summary["images_scored"]) == (OTHER, 49)
    assert summary["is_complete"] is (outcome is Outcome.MISSING)


def test_undecodable_image_does_not_prevent_a_summary(tables: Any) -> None:
    day_of_two_versions(tables, Outcome.UNREADABLE)
    (summary,) = tables.summarize(model_version=OTHER, run_id="run-2")
    assert (summary["model_version"], summary["revision"]) == (OTHER, 2)


def test_older_run_of_another_version_does_not_replace_the_summary(tables: Any) -> None:
    day_of_two_versions(tables, Outcome.SCORED)
    (later,) = tables.summarize(model_version=OTHER, run_id="run-2")
    assert tables.summarize(run_id="run-1") == [later | {"is_new_revision": False}]
    with tables.transaction() as connection:
        ledger.begin_run(connection, "after the rollback", tables.version)
    (back,) = tables.summarize(run_id="after the rollback")
    assert (back["model_version"], back["revision"]) == (tables.version, 3)


def test_unregistered_model_version_is_rejected(tables: Any) -> None:
    with pytest.raises(DatabaseError, match="not registered"):
        tables.summarize(model_version="c" * 64)


# Which days have a summary


@pytest.mark.parametrize(
    ("status", "has_summary"), [("failed", True), ("not_ready", False), ("no_permission", False)]
)
def test_day_that_was_never_listed(tables: Any, status: Any, has_summary: bool) -> None:
    with tables.transaction() as connection:
        ledger.record_batch(
            connection, tables.batch, status, run_id="r", attempted_at=datetime.now(UTC)
        )
    summaries = tables.summarize()
    assert [(s["images"], s["is_complete"], s["verdict"]) for s in summaries] == (
        [(0, False, "suppressed")] if has_summary else []
    )


def test_day_that_was_never_handled_has_no_summary(tables: Any) -> None:
    assert tables.summarize() == []


def test_failure_of_one_facility_does_not_affect_another(tables: Any) -> None:
    other = tables.add("outlet")
    tables.add("north-mall", target_rate=0.5)
    tables.fill(happy=40, sad=0)
    with tables.transaction() as connection:
        ledger.record_batch(connection, other, "failed", run_id="r", attempted_at=datetime.now(UTC))
    mall, outlet = tables.summarize(other, tables.batch)
    assert (mall["facility_id"], mall["is_complete"], mall["verdict"]) == (
        "north-mall",
        True,
        "satisfied",
    )
    assert (outlet["facility_id"], outlet["is_complete"]) == ("outlet", False)


def test_later_failed_listing_does_not_change_the_summary(tables: Any) -> None:
    tables.fill(happy=40, sad=0)
    tables.summarize()
    with tables.transaction() as connection:
        ledger.record_batch(
            connection, tables.batch, "failed", run_id="r", attempted_at=datetime.now(UTC)
        )
    assert tables.summarize()[0]["is_new_revision"] is False


# Complete, and as many as expected


@pytest.mark.parametrize(
    ("listed_at", "is_complete"),
    [
        (datetime(2026, 3, 1, 22, 59, 59, tzinfo=UTC), False),  # Berlin's midnight is 23:00 UTC
        (datetime(2026, 3, 1, 23, 0, 0, tzinfo=UTC), True),
    ],
)
def test_day_is_complete_if_it_was_listed_after_its_end(
    tables: Any, listed_at: datetime, is_complete: bool
) -> None:
    tables.list(["a.jpg"], attempted_at=listed_at)
    tables.write(*map(tables.build_score, tables.list_work()))
    assert tables.summarize()[0]["is_complete"] is is_complete


@pytest.mark.parametrize(
    ("closed", "images", "attempted", "expected"),
    [
        ((), 9, 2, True),
        ((), 10, 2, False),
        ((), 0, 2, True),
        (("sun",), 0, 2, False),  # 1 March 2026 is a Sunday
        (("sat",), 0, 2, True),
        ((), 9, 1, False),  # the day is not over yet
    ],
)
def test_open_day_with_few_images_is_marked(
    tables: Any, closed: tuple[str, ...], images: int, attempted: int, expected: bool
) -> None:
    tables.add("north-mall", expected_images_min=10, closed_weekdays=closed)
    at = datetime(2026, 3, attempted, 12, tzinfo=UTC)
    tables.list([f"{n}.jpg" for n in range(images)], attempted_at=at)
    assert tables.summarize()[0]["is_below_expected"] is expected


def test_empty_day_is_a_result(tables: Any) -> None:
    tables.list([])
    (summary,) = tables.summarize()
    assert (summary["images"], summary["is_complete"], summary["not_scored"]) == (0, True, {})


# At once


def test_concurrent_runs_write_one_revision(tables: Any) -> None:
    tables.fill(happy=40, sad=0)
    with ThreadPoolExecutor(1) as pool, tables.transaction() as first:
        arguments = [tables.batch], tables.version, tables.facilities
        (summary,) = revisions.write_summaries(first, *arguments, "run-1")
        waiting = pool.submit(tables.summarize, run_id="run-2")
        while not tables.is_anyone_waiting():
            assert not waiting.done()
        first.commit()
        assert waiting.result(30) == [summary | {"is_new_revision": False}]


# What others read


def test_load_daily_reads_a_range_of_days(tables: Any) -> None:
    other = tables.add("outlet", name="Aaa")
    days = [tables.batch.capture_day + timedelta(n) for n in range(3)]
    for day in days:
        tables.fill(40, 0, replace(tables.batch, capture_day=day))
    tables.fill(5, 0, other)
    tables.summarize(other, *(Batch("north-mall", day) for day in days))
    with tables.transaction() as connection:
        frame = revisions.load_daily(connection, ["north-mall", "outlet"], days[0], days[1])
        assert revisions.load_daily(connection, ["north-mall"], days[2], days[2]).shape[0] == 1
        nothing = revisions.load_daily(connection, [], days[0], days[1])
    assert frame[["facility_id", "capture_day"]].to_numpy().tolist() == [
        ["outlet", days[0]],
        ["north-mall", days[0]],
        ["north-mall", days[1]],
    ]
    assert frame["happy_rate"].isna().tolist() == [True, False, False]
    assert nothing.empty
    assert nothing["happy_rate"].dtype == frame["happy_rate"].dtype == "float64"


def test_load_daily_keeps_counts_whole_and_knows_closed_days(tables: Any) -> None:
    """A pandas column of integers with a NULL would become one of floats: "54.0 faces"."""
    sunday = tables.batch.capture_day
    closed = tables.add("outlet", closed_weekdays=["sun"], publish_period="week")
    tables.fill(40, 20)
    tables.list([], closed)
    tables.summarize(tables.batch, closed)
    with tables.transaction() as connection:
        daily = revisions.load_daily(connection, ["north-mall", "outlet"], sunday, sunday)
    (suppressed,), (published,) = (daily[daily["facility_id"] == name].to_dict("records")
                                   for name in ("outlet", "north-mall"))  # fmt: skip
    assert (suppressed["is_closed"], published["is_closed"]) == (True, False)
    assert (suppressed["publish_period"], published["publish_period"]) == ("week", "day")
    nullable = [name for name, value in suppressed.items() if value is None]
    assert "sessions" in nullable
    assert {name for name, value in published.items() if isinstance(value, float)} <= {
        *RATES, *PRECISION, "target_rate", "confidence", "benchmark_weight",
    }  # fmt: skip
