"""Every data check reports its defect, and nothing for a correct day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch import resources
from fer_batch.database import ledger
from fer_batch.errors import DatabaseError
from fer_batch.pipeline import checks
from fer_batch.records import Batch, ImageScore, Outcome
from fer_batch.settings import Settings
from tests.fixtures.tables import name_etag
from tests.sql.checking import find, run, write_healthy_day


def test_healthy_day_has_no_finding(tables: Any) -> None:
    write_healthy_day(tables)
    assert run(tables) == []


def test_day_that_was_never_handled_has_no_finding(tables: Any) -> None:
    assert run(tables) == []


def test_empty_day_with_expected_images(tables: Any) -> None:
    tables.add("north-mall", expected_images_min=10)
    tables.list([])
    tables.summarize()
    assert find(tables)["fewer_images_than_expected"] == "0 images; an open day has at least 10"


def test_finding_has_facility_day_and_severity(tables: Any) -> None:
    write_healthy_day(tables)
    tables.execute("DELETE FROM fer.face_result WHERE image_key = '000000.jpg'")
    other = tables.add("outlet")
    with tables.transaction() as connection:
        ledger.record_batch(
            connection,
            other,
            "no_permission",
            run_id="r",
            attempted_at=datetime.now(UTC),
            reason="permission ended on 2026-01-01",
        )
    findings = run(tables, other, tables.batch)
    assert [f["severity"] for f in findings] == ["error", "error", "warning"]
    assert findings[-1] == {
        "check": "no_permission",
        "subject": "",
        "closing_rule": "later day",
        "example": "",
        "severity": "warning",
        "facility_id": "outlet",
        "capture_day": tables.batch.capture_day,
        "meaning": "a facility was skipped because its images may not be read",
        "finding": "permission ended on 2026-01-01",
    }


def test_only_the_given_facilities_and_days_are_checked(tables: Any) -> None:
    tables.list(["a.jpg"])
    other = tables.add("outlet")
    next_day = Batch("north-mall", tables.batch.capture_day + timedelta(1))
    assert run(tables, other) == run(tables, next_day) == []
    assert run(tables) != []


def broken(tables: Any, sql: str) -> dict[str, str]:
    """The findings after a manual change of the tables."""
    write_healthy_day(tables)
    tables.execute(sql)
    return find(tables)


def test_images_without_outcome(tables: Any) -> None:
    write_healthy_day(tables)
    tables.list(["new.jpg"])
    assert find(tables)["images_without_outcome"] == "1 of 101 images have no outcome"


def test_overwritten_images_without_outcome(tables: Any) -> None:
    write_healthy_day(tables)
    tables.list({"000000.jpg": "etag-2"})
    assert find(tables)["images_without_outcome"] == "1 of 100 images have no outcome"


def test_images_of_a_facility_without_permission_are_not_reported(tables: Any) -> None:
    tables.list(["a.jpg"])
    with tables.transaction() as connection:
        ledger.record_batch(
            connection, tables.batch, "no_permission", run_id="r", attempted_at=datetime.now(UTC)
        )
    assert "images_without_outcome" not in find(tables)


def test_images_to_retry(tables: Any) -> None:
    tables.list([f"{n}.jpg" for n in range(5)])
    work = tables.list_work()
    tables.write(*(ImageScore(i, Outcome.FETCH_FAILED) for i in work[:2]))
    tables.write(ImageScore(work[2], Outcome.CHANGED), *map(tables.build_score, work[3:]))
    tables.summarize()
    assert find(tables) == {"images_to_retry": "3 images: 1 changed, 2 fetch_failed"}


@pytest.mark.parametrize(("broken_images", "is_found"), [(20, False), (21, True)])
def test_many_images_not_scored(tables: Any, broken_images: int, is_found: bool) -> None:
    tables.list([f"{n:03d}.jpg" for n in range(100)])
    work = tables.list_work()
    tables.write(ImageScore(work[0], Outcome.EMPTY))
    tables.write(*(ImageScore(i, Outcome.NO_FACE) for i in work[1:broken_images]))
    tables.write(*map(tables.build_score, work[broken_images:]))
    tables.summarize()
    expected = {"many_images_not_scored": "21 % of 100 images were not scored: 20 no_face, 1 empty"}
    assert find(tables) == (expected if is_found else {})


def write_outcomes(tables: Any, images: int, outcomes: dict[Outcome, int]) -> dict[str, str]:
    """The findings of a day with so many images, of which some have these outcomes."""
    tables.list([f"{n:03d}.jpg" for n in range(images)])
    work = list(tables.list_work())
    for outcome, count in outcomes.items():
        tables.write(*(ImageScore(work.pop(), outcome, "a reason") for _ in range(count)))
    tables.write(*map(tables.build_score, work))
    tables.summarize()
    return find(tables)


@pytest.mark.parametrize(
    "outcome",
    [o for o in Outcome if o not in (Outcome.SCORED, Outcome.NO_FACE)],
)
def test_outcome_that_hits_the_whole_day_is_an_error(tables: Any, outcome: Outcome) -> None:
    finding = write_outcomes(tables, 5, {outcome: 5})["outcome_hits_many"]
    assert finding.startswith(f"5 of 5 images are {outcome.value}: ")
    assert finding.endswith(", a reason")
    (error,) = (f for f in run(tables) if f["check"] == "outcome_hits_many")
    assert (error["severity"], error["subject"]) == ("error", outcome.value)


@pytest.mark.parametrize(
    ("images", "count", "is_found"),
    [(15, 4, True), (15, 3, False), (10, 2, False), (10, 3, True), (2, 1, False), (1, 1, True)],
)
def test_outcome_hits_many_from_a_share_on(
    tables: Any, images: int, count: int, is_found: bool
) -> None:
    findings = write_outcomes(tables, images, {Outcome.REFUSED: count})
    assert ("outcome_hits_many" in findings) is is_found
    (is_complete,) = tables.query("SELECT is_complete FROM fer.satisfaction_daily")[0]
    assert is_complete is not is_found


def test_thumbnail_beside_each_photograph_is_left_to_its_own_check(tables: Any) -> None:
    outcomes = {Outcome.TOO_SMALL: 10, Outcome.UNSUPPORTED: 5}
    assert "outcome_hits_many" not in write_outcomes(tables, 25, outcomes)


def test_day_whose_images_are_gone_is_not_complete(tables: Any) -> None:
    findings = write_outcomes(tables, 20, {Outcome.MISSING: 20})
    assert "a lifecycle rule deletes them" in findings["outcome_hits_many"]
    (row,) = tables.query("SELECT is_complete, images_pending FROM fer.satisfaction_daily")
    assert (row.is_complete, row.images_pending) == (False, 0)


def test_face_count_differs(tables: Any) -> None:
    findings = broken(tables, "DELETE FROM fer.face_result WHERE image_key < '000002'")
    assert findings["face_count_differs"] == "2 images"


def test_probabilities_do_not_sum_to_one(tables: Any) -> None:
    findings = broken(tables, "UPDATE fer.face_result SET p_sad = 0.2 WHERE image_key < '000002'")
    assert findings == {"probabilities_do_not_sum_to_one": "2 images"}


def test_result_without_image(tables: Any) -> None:
    findings = broken(tables, "DELETE FROM fer.image WHERE image_key < '000002'")
    assert findings["result_without_image"] == "2 images"


def test_face_without_result(tables: Any) -> None:
    findings = broken(tables, "DELETE FROM fer.image_result WHERE image_key < '000002'")
    assert findings["result_without_image"] == "2 images"


def test_unknown_model_version(tables: Any) -> None:
    findings = broken(
        tables,
        "UPDATE fer.image_result SET model_version = repeat('f', 64) WHERE image_key < '000002'",
    )
    assert findings["unknown_model_version"] == "2 results of ffffffffffff"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE fer.face_result SET called_class = 'neither' WHERE called_class = 'sad'",
        "UPDATE fer.face_result SET called_class = 'sad' WHERE called_class = 'happy'",
    ],
)
def test_summary_differs_from_recount(tables: Any, sql: str) -> None:
    """The finding does not reveal how the faces divide: it appears in logs and in the report."""
    findings = broken(tables, sql)
    assert findings["summary_differs_from_recount"] == (
        "images, scored, pending, faces: 100 100 0 100 in the summary, 100 100 0 100 counted; "
        "the called classes differ"
    )


def test_one_face_is_enough_in_a_suppressed_summary(tables: Any) -> None:
    tables.fill(happy=20, sad=0)
    tables.summarize()
    assert find(tables) == {}
    tables.execute("UPDATE fer.face_result SET called_class = 'sad' WHERE image_key = '000000.jpg'")
    assert find(tables)["summary_differs_from_recount"] == (
        "images, pending: 20 0 in the summary, 20 0 counted; the faces differ"
    )


def overwrite(tables: Any, count: int) -> dict[str, str]:
    """Replace the first happy images of a day by sad ones; returns the ETags of all by key."""
    happy = tables.query(
        "SELECT image_key FROM fer.face_result WHERE called_class = 'happy' ORDER BY 1"
    )
    etags = {f"{n:06d}.jpg": name_etag(f"{n:06d}.jpg") for n in range(100)}
    etags |= {key: f"other content of {key}" for (key,) in happy[:count]}
    tables.list(etags)
    sad = tables.build_face(0.125, 0.75)
    tables.write(*(tables.build_score(image, sad) for image in tables.list_work()))
    return etags


@pytest.mark.parametrize(("overwritten", "is_kept"), [(1, True), (14, True), (15, False)])
def test_figure_that_stays_on_purpose_is_no_difference(
    tables: Any, overwritten: int, is_kept: bool
) -> None:
    """Of 15 overwritten images 15 happy and 15 sad faces differ, which is enough for a new one."""
    write_healthy_day(tables)
    overwrite(tables, overwritten)
    (summary,) = tables.summarize()
    assert summary["called_sad"] == (20 if is_kept else 20 + overwritten)
    assert find(tables) == {}


def test_late_images_of_a_published_day_are_no_difference(tables: Any) -> None:
    write_healthy_day(tables)
    tables.list([*(f"{n:06d}.jpg" for n in range(100)), *(f"late-{n}.jpg" for n in range(29))])
    assert "summary_differs_from_recount" in find(tables)
    tables.write(*map(tables.build_score, tables.list_work()))
    (summary,) = tables.summarize()
    assert (summary["faces"], summary["faces_scored"]) == (100, 129)
    assert find(tables) == {}
    tables.execute("DELETE FROM fer.face_result WHERE image_key = 'late-0.jpg'")
    assert "100 counted" not in str(find(tables))
    assert find(tables)["summary_differs_from_recount"].endswith("129 129 0 128 counted")


def test_sessions_that_did_not_change_keep_the_figure(tables: Any) -> None:
    tables.fill(happy=60, sad=20, neither=20)
    at = "UPDATE fer.image SET camera = 'a', captured_at_utc = capture_day + interval '100 seconds'"
    at += " * left(image_key, 6)::int"
    tables.execute(at)
    tables.summarize()
    overwrite(tables, 40)
    tables.execute(at)
    (summary,) = tables.summarize()
    assert (summary["session_rule"], summary["called_sad"]) == ("gap", 20)
    assert find(tables) == {}


def test_pictures_with_the_same_content_are_no_difference(tables: Any) -> None:
    tables.list({f"{n:03}.jpg": f"picture {n % 50}" for n in range(100)})
    tables.write(*map(tables.build_score, tables.list_work()))
    (summary,) = tables.summarize()
    assert (summary["images_scored"], summary["faces"]) == (100, 50)
    assert "summary_differs_from_recount" not in find(tables)


def test_changes_of_a_concurrent_run_are_left_to_its_own_checks(tables: Any) -> None:
    write_healthy_day(tables)
    with tables.transaction() as connection:
        for run_id in ("run-2", "by hand", "run-3"):
            ledger.begin_run(connection, run_id, tables.version)
    everything = [*(f"{n:06d}.jpg" for n in range(100)), "late.jpg"]
    tables.list(everything, attempted_at=datetime.now(UTC) + timedelta(seconds=1), run_id="by hand")
    assert "summary_differs_from_recount" not in find(tables, run_id="run-2")
    assert "summary_differs_from_recount" in find(tables, run_id="by hand")
    tables.list(everything, attempted_at=datetime.now(UTC) - timedelta(days=1), run_id="run-1")
    tables.write(*map(tables.build_score, tables.list_work()), run_id="by hand")
    assert find(tables, run_id="run-2") == {}
    assert "summary_differs_from_recount" in find(tables, run_id="by hand")
    with tables.transaction() as connection:
        ledger.begin_run(connection, "run-4", tables.version)
    assert "summary_differs_from_recount" in find(tables, run_id="run-4"), "no other run checks it"
    tables.summarize()
    assert find(tables, run_id="by hand") == find(tables, run_id="run-4") == {}


def test_missing_summary_of_scored_images_is_reported(tables: Any) -> None:
    write_healthy_day(tables)
    with tables.transaction() as connection:
        ledger.begin_run(connection, "run-2", tables.version)
    tables.list([*(f"{n:06d}.jpg" for n in range(100)), "late.jpg"], run_id="run-2")
    tables.write(*map(tables.build_score, tables.list_work()), run_id="run-2")
    assert list(find(tables, run_id="run-2")) == ["summary_differs_from_recount"]


def test_summary_of_an_emptied_day_differs_from_recount(tables: Any) -> None:
    findings = broken(
        tables,
        "TRUNCATE fer.image_2026_03_01, fer.image_result_2026_03_01, fer.face_result_2026_03_01",
    )
    assert findings["summary_differs_from_recount"].endswith(
        "0 0 0 0 counted; the called classes differ"
    )


def test_summary_missing(tables: Any) -> None:
    tables.list([])
    assert find(tables) == {
        "summary_missing": "0 images listed",
        "facility_without_images": "no image begins with {facility_id}/{capture_day:%Y-%m-%d}/",
    }


@pytest.mark.parametrize(
    ("status", "check"),
    [
        ("failed", "listing_failed"),
        ("not_ready", "upload_not_finished"),
        ("no_permission", "no_permission"),
    ],
)
def test_days_that_could_not_be_listed(tables: Any, status: Any, check: str) -> None:
    with tables.transaction() as connection:
        ledger.record_batch(
            connection,
            tables.batch,
            status,
            run_id="r",
            attempted_at=datetime.now(UTC),
            reason="because",
        )
    assert find(tables) == {check: "because"}


def test_every_check_has_a_test() -> None:
    source = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for check in checks.load_checks():
        assert f'"{check.name}"' in source, check.name


def test_no_plan_of_a_check_has_the_partitions_of_other_days(tables: Any) -> None:
    write_healthy_day(tables)
    tables.list(["a.jpg"], Batch("north-mall", tables.batch.capture_day + timedelta(1)))
    params = {
        "facility_ids": ["north-mall"],
        "capture_days": [tables.batch.capture_day],
        "model_version": tables.version,
        "run_id": "run-1",
        "figure_days": checks.list_figure_days([tables.batch.capture_day]),
        "max_q_value": 0.05,
        **checks.read_thresholds(Settings(_env_file=None)),
    }
    for check in checks.load_checks():
        plan = tables.query(f"EXPLAIN {check.statement.text}", **params)
        text = "\n".join(line for (line,) in plan)
        assert "2026_03_02" not in text, check.name
        assert "Function Scan on image_outcome" not in text, check.name


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "-- error: odd\nSELECT 1",
        "-- closed by: same day\n-- error: odd\nSELECT 1",
        "-- error: odd\n-- closed by: tomorrow\nSELECT 1",
        "-- note: odd\n-- closed by: same day\nSELECT 1",
    ],
)
def test_file_without_its_head_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "mute.sql").write_text(text)
    monkeypatch.setattr(resources, "find_sql_dir", lambda: tmp_path)
    with pytest.raises(DatabaseError, match=r"mute\.sql"):
        checks.load_checks.__wrapped__()
