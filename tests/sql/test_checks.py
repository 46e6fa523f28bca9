"""Every data check reports its defect, and nothing for a correct day."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch import resources
from fer_batch.database import ledger
from fer_batch.errors import DatabaseError
from fer_batch.pipeline import checks
from fer_batch.records import Batch, Box, FaceScore, ImageScore, Outcome
from tests.fixtures.tables import name_etag


def run(tables: Any, *batches: Batch, run_id: str = "run-1") -> list[dict[str, Any]]:
    return checks.check_data(tables.engine, batches or [tables.batch], tables.version, run_id)


def find(tables: Any, *batches: Batch, run_id: str = "run-1") -> dict[str, str]:
    """The findings by check."""
    return {f["check"]: f["finding"] for f in run(tables, *batches, run_id=run_id)}


def healthy(tables: Any) -> None:
    tables.fill(happy=60, sad=20, neither=20)
    tables.summarize()


def test_healthy_day_has_no_finding(tables: Any) -> None:
    healthy(tables)
    assert run(tables) == []


def test_day_that_was_never_handled_has_no_finding(tables: Any) -> None:
    assert run(tables) == []


def test_empty_day_with_expected_images(tables: Any) -> None:
    tables.add("north-mall", expected_images_min=10)
    tables.list([])
    tables.summarize()
    assert find(tables)["fewer_images_than_expected"] == "0 images; an open day has at least 10"


def test_finding_has_facility_day_and_severity(tables: Any) -> None:
    healthy(tables)
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
        "severity": "warning",
        "facility_id": "outlet",
        "capture_day": tables.batch.capture_day,
        "meaning": "a facility was skipped because it has no valid permission",
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
    healthy(tables)
    tables.execute(sql)
    return find(tables)


def test_images_without_outcome(tables: Any) -> None:
    healthy(tables)
    tables.list(["new.jpg"])
    assert find(tables)["images_without_outcome"] == "1 of 101 images have no outcome"


def test_overwritten_images_without_outcome(tables: Any) -> None:
    healthy(tables)
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
    assert finding.startswith(f"5 of 5 images are {outcome.value} (a reason): ")
    (error,) = (f for f in run(tables) if f["check"] == "outcome_hits_many")
    assert error["severity"] == "error"


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
    assert findings == {"probabilities_do_not_sum_to_one": "2 faces"}


def test_result_without_image(tables: Any) -> None:
    findings = broken(tables, "DELETE FROM fer.image WHERE image_key < '000002'")
    assert findings["result_without_image"] == "2 results, 0 faces"


def test_face_without_result(tables: Any) -> None:
    findings = broken(tables, "DELETE FROM fer.image_result WHERE image_key < '000002'")
    assert findings["result_without_image"] == "0 results, 2 faces"


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
    assert find(tables)["summary_differs_from_recount"].endswith("the called classes differ")


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
    healthy(tables)
    overwrite(tables, overwritten)
    (summary,) = tables.summarize()
    assert summary["called_sad"] == (20 if is_kept else 20 + overwritten)
    assert find(tables) == {}


def test_late_images_of_a_published_day_are_no_difference(tables: Any) -> None:
    healthy(tables)
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
    healthy(tables)
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
    healthy(tables)
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


def test_frozen_camera_is_named_and_counted_once(tables: Any) -> None:
    tables.add("north-mall", name_template="{camera}_{captured_at:%H%M%S}.jpg")
    prefix = f"north-mall/{tables.batch.capture_day}/"
    moving = {f"{prefix}door_10{n:02}00.jpg": f"picture {n}" for n in range(40)}
    frozen = {f"{prefix}till_11{n:02}00.jpg": "one picture" for n in range(9)}
    for copies, expected in ((9, {}), (10, {"frozen_camera"})):
        frozen |= {f"{prefix}till_12{n:02}00.jpg": "one picture" for n in range(copies - 9)}
        tables.list(moving | frozen)
        tables.write(*map(tables.build_score, tables.list_work()))
        (summary,) = tables.summarize()
        assert (summary["images_scored"], summary["faces"]) == (40 + copies, 41)
        assert find(tables).keys() == set(expected)
    assert find(tables)["frozen_camera"] == (
        f"camera till: one picture 10 times, first {prefix}till_110000.jpg"
    )


@pytest.mark.parametrize(
    ("posters", "jitter_px", "is_found"),
    [(30, 6, True), (16, 6, True), (15, 6, False), (30, 90, False)],
)
def test_face_that_never_moves_is_found_in_frames(
    tables: Any, posters: int, jitter_px: int, is_found: bool
) -> None:
    """In more than half of 30 frames, although its box moves by a few pixels."""
    tables.add("north-mall", image_kind="frames")
    tables.list([f"{n:03}.jpg" for n in range(30)])
    rng = random.Random(7)

    def build_faces(number: int) -> list[FaceScore]:
        visitor = Box(15 * number, 8 * number, 60, 60)
        poster = Box(
            400 + rng.randrange(jitter_px), 90 + rng.randrange(jitter_px), 70 + rng.randrange(4), 70
        )
        boxes = [visitor, poster] if number < posters else [visitor]
        return [tables.build_face(box=box) for box in boxes]

    work = tables.list_work()
    tables.write(*(tables.build_score(image, *build_faces(n)) for n, image in enumerate(work)))
    tables.summarize()
    findings = find(tables)
    assert ("face_that_never_moves" in findings) is is_found
    if is_found:
        assert findings["face_that_never_moves"].startswith("unknown camera: near (")
        assert findings["face_that_never_moves"].endswith(" of 30 frames")


def test_names_without_time_are_counted(tables: Any) -> None:
    prefix = f"north-mall/{tables.batch.capture_day}/"
    keys = [f"{prefix}10{n:02}00.jpg" for n in range(30)] + [f"{prefix}hall.jpg"]
    tables.list(keys)
    assert "names_without_time" not in find(tables)
    tables.add("north-mall", name_template="{captured_at:%H%M%S}{*}")
    tables.list(keys)
    assert find(tables)["names_without_time"] == f"1 of 31 keys, first {prefix}hall.jpg"


def test_every_check_has_a_test() -> None:
    source = Path(__file__).read_text()
    for check in checks.load_checks():
        assert f'"{check.name}"' in source, check.name


def test_file_without_severity_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "mute.sql").write_text("SELECT 1")
    monkeypatch.setattr(resources, "find_sql_dir", lambda: tmp_path)
    with pytest.raises(DatabaseError, match=r"mute\.sql"):
        checks.load_checks.__wrapped__()


# Days without images


def test_a_day_without_images_is_an_error_once_there_were_some(tables: Any) -> None:
    day = tables.batch.capture_day  # a Sunday
    healthy(tables)
    days = [Batch("north-mall", day + timedelta(n)) for n in range(1, 4)]
    for empty in days[:2]:
        tables.list([], empty)
    tables.list(
        [], days[2], attempted_at=datetime(day.year, day.month, day.day + 3, 12, tzinfo=UTC)
    )
    tables.summarize(*days)
    found = [f for f in run(tables, *days) if f["check"] == "day_without_images"]
    # The last day was not over when it was listed.
    assert [(f["severity"], f["capture_day"]) for f in found] == [
        ("error", each.capture_day) for each in days[:2]
    ]
    assert found[0]["finding"] == (
        "no image begins with {facility_id}/{capture_day:%Y-%m-%d}/; the newest image is of "
        "2026-03-01"
    )
    tables.add("north-mall", closed_weekdays=("mon",))
    assert [f["capture_day"] for f in run(tables, *days)] == [days[1].capture_day]
    tables.add("north-mall", empty_days="allowed")
    assert run(tables, *days) == []


def test_a_day_without_images_is_an_error_if_only_later_days_have_some(tables: Any) -> None:
    healthy(tables)
    day = tables.batch.capture_day
    before = Batch("north-mall", day - timedelta(1))  # a Saturday
    same_run = datetime(day.year, day.month, day.day + 2, tzinfo=UTC)
    tables.list([], before, attempted_at=same_run)
    tables.summarize(before)
    assert run(tables, before) == [], "before the cameras were installed"
    tables.list([], before, attempted_at=same_run + timedelta(1))
    assert find(tables, before) == {
        "day_without_images": "no image begins with {facility_id}/{capture_day:%Y-%m-%d}/; "
        "the newest image is of 2026-03-01"
    }
    tables.add("north-mall", closed_weekdays=("sat",))
    assert run(tables, before) == []
    tables.add("north-mall", empty_days="allowed")
    assert run(tables, before) == []


@pytest.mark.parametrize(
    "registry", [{}, {"empty_days": "allowed"}, {"key_template": ("North/{capture_day}/",)}]
)
def test_a_listing_that_finds_none_of_the_stored_images_is_an_error(
    tables: Any, registry: dict[str, Any]
) -> None:
    healthy(tables)
    facility = tables.add("north-mall", **registry)
    (before,) = tables.summarize()
    tables.list([])
    (summary,) = tables.summarize()
    (finding,) = run(tables, facility)
    assert (finding["check"], finding["severity"]) == ("images_not_listed", "error")
    template = registry.get("key_template", ["{facility_id}/{capture_day:%Y-%m-%d}/"])[0]
    assert finding["finding"] == (
        f"no image begins with {template}, but 100 images of the day are stored"
    )
    assert (before["is_complete"], summary["is_complete"]) == (True, False)
    assert (before["happy_rate"], before["faces"]) == (summary["happy_rate"], summary["faces"])
    tables.list([f"{n:06d}.jpg" for n in range(100)])
    (summary,) = tables.summarize()
    assert (run(tables), summary["is_complete"]) == ([], True)


def test_objects_that_are_gone_after_they_were_scored_are_no_empty_day(tables: Any) -> None:
    """The same run finds images of another day, so the prefix is right."""
    healthy(tables)
    later = Batch("north-mall", tables.batch.capture_day + timedelta(1))
    tables.fill(20, 20, later)
    (listed_at,) = tables.query("SELECT listed_at FROM fer.batch WHERE capture_day > '2026-03-01'")
    tables.list([], attempted_at=listed_at[0])
    summaries = tables.summarize(tables.batch, later)
    assert run(tables, tables.batch, later) == []
    assert [summary["is_complete"] for summary in summaries] == [True, True]


@pytest.mark.parametrize(("images", "is_found"), [(5, True), (4, False)])
def test_images_on_a_closed_day_are_found(tables: Any, images: int, is_found: bool) -> None:
    tables.add("north-mall", closed_weekdays=("sat", "sun"))
    tables.fill(images, 0)
    tables.fill(20, 0, monday := Batch("north-mall", tables.batch.capture_day + timedelta(1)))
    tables.summarize(tables.batch, monday)
    found = {"images_on_closed_day": "5 images; sun is in closed_weekdays"} if is_found else {}
    assert find(tables, tables.batch, monday) == found


def test_a_facility_that_never_had_an_image_is_a_finding(tables: Any) -> None:
    days = [Batch("north-mall", tables.batch.capture_day + timedelta(n)) for n in range(2)]
    for day in days:
        tables.list([], day)
    tables.summarize(*days)
    (finding,) = run(tables, *days)
    assert (finding["check"], finding["severity"]) == ("facility_without_images", "warning")
    assert finding["capture_day"] == days[1].capture_day
    assert finding["finding"] == "no image begins with {facility_id}/{capture_day:%Y-%m-%d}/"
    tables.fill(20, 20, Batch("north-mall", days[0].capture_day - timedelta(9)))
    assert [f["check"] for f in run(tables, *days)] == ["day_without_images"] * 2


# Objects that are no photographs


def judge(tables: Any, **counts: int) -> dict[str, str]:
    """The findings about a day with a number of files for each form of their names.

    Those whose form ends with jpg are scored, the others are not supported.
    """
    keys = [form.format(n) for form, count in counts.items() for n in range(count)]
    tables.list(keys)
    tables.write(
        *(
            tables.build_score(image)
            if image.key.lower().endswith("jpg")
            else ImageScore(image, Outcome.UNSUPPORTED, "not an image")
            for image in tables.list_work()
        )
    )
    tables.summarize()
    names = ("thumbnails", "unsupported_files")
    return {f["check"]: f["finding"] for f in run(tables, tables.batch) if f["check"] in names}


def test_sidecars_are_named_with_the_pattern_that_excludes_them(tables: Any) -> None:
    found = judge(tables, **{"a/{:03}.jpg": 60, "a/{:03}.json": 60, "a/{:03}_thumb.jpg": 60})
    assert found == {
        "unsupported_files": "60 of 180 images are *.json files; if they are no photographs, add "
        'exclude = ["*.json"] to the facility',
        "thumbnails": "60 of 180 images are like a/000_thumb.jpg; if they are copies, add "
        'exclude = ["*_thumb.*"] to the facility',
    }


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("thumbs/{}.jpg", "*/thumbs/*"),
        ("a/.thumbnails/{}.jpg", "*/.thumbnails/*"),
        ("a/@eaDir/{}.jpg/SYNOPHOTO_THUMB_M.jpg", "*/@eaDir/*"),
        ("a/{}-thumbnail.JPG", "*-thumbnail.*"),
        ("a/thumb_{}.jpg", "thumb_*"),
        ("a/thumbsup{}.jpg", None),
        ("small-mall/{}.jpg", None),
    ],
)
def test_thumbnails_are_told_by_their_names(tables: Any, form: str, pattern: str | None) -> None:
    found = judge(tables, **{"b/{}.jpg": 20, form: 5})
    assert found == {} if pattern is None else f'exclude = ["{pattern}"]' in found["thumbnails"]


def test_few_files_and_photographs_of_the_kind_suggest_no_pattern(tables: Any) -> None:
    assert judge(tables, **{"{}.jpg": 20, "{}.json": 2, "{}_thumb.jpg": 2}) == {}


def test_photographs_in_another_format_are_to_be_converted(tables: Any) -> None:
    tables.list([f"{n}.jpg" for n in range(20)])
    images = tables.list_work()
    tables.write(
        *(ImageScore(image, Outcome.UNSUPPORTED, "HEIC") for image in images[:8]),
        *(tables.build_score(image) for image in images[8:]),
    )
    tables.summarize()
    (finding,) = (f for f in run(tables, tables.batch) if f["check"] == "unsupported_files")
    assert finding["finding"].startswith("8 of 20 *.jpg files have another format than JPEG")
    assert "exclude" not in finding["finding"]


def test_a_folder_of_thumbnails_that_holds_all_images_is_no_finding(tables: Any) -> None:
    assert judge(tables, **{"thumbs/{}.jpg": 20}) == {}


def test_images_after_the_lookback_are_reported_on_the_day_of_the_run(tables: Any) -> None:
    healthy(tables)
    old = Batch("north-mall", tables.batch.capture_day - timedelta(5))
    tables.fill(20, 20, old)
    tables.execute("UPDATE fer.batch SET images_late = 7 WHERE capture_day = '2026-02-24'")
    (finding,) = run(tables, tables.batch)
    assert (finding["check"], finding["severity"]) == ("images_after_lookback", "warning")
    assert finding["capture_day"] == tables.batch.capture_day
    assert finding["finding"] == "7 images of 2026-02-24; run this day again with lookback_days 0"
    tables.list(["000000.jpg"], old)
    assert run(tables, tables.batch) == []
