"""The whole job without Airflow: from objects in a bucket to a summary, in real processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.credentials import Credentials

from fer_batch import nightly
from fer_batch.errors import ConfigurationError, ModelError, PermanentError, RetryableError
from fer_batch.nightly import score_all
from fer_batch.records import Batch, KeyRange, Shard
from tests.end_to_end.conftest import DAY, PERMISSION, Night, crop, facility
from tests.support import pictures
from tests.support.faulty_s3 import Fault, faulty


def test_a_day_of_crops_becomes_a_summary(night: Night) -> None:
    night.registry(facility("north-mall"))
    night.fill("north-mall", happy=40, sad=10)
    assert night.run() == []
    summary = night.summary("north-mall")
    assert (summary["images"], summary["images_scored"], summary["images_pending"]) == (50, 50, 0)
    assert (summary["faces"], summary["happy"], summary["sad"]) == (50, 40, 10)
    assert summary["happy_share"] == pytest.approx(0.8)
    # Wilson's interval for 40 of 50 at 95 %, from its formula by hand.
    assert summary["happy_share_low"] == pytest.approx(0.6696, abs=5e-4)
    assert summary["happy_share_high"] == pytest.approx(0.8876, abs=5e-4)
    assert summary["verdict"] == "satisfied"
    assert summary["is_complete"]


def test_each_bad_image_has_one_outcome_and_harms_no_other(night: Night) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=5, sad=5)
    whole = pictures.encoded(pictures.scene(), ".jpg")
    night.put(f"a/{DAY}/empty.jpg", b"")
    night.put(f"a/{DAY}/short.jpg", whole[: len(whole) // 2])
    night.put(f"a/{DAY}/page.jpg", b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>")
    night.put(f"a/{DAY}/tiny.png", pictures.encoded(pictures.scene(8, 8), ".png"))
    night.put(f"a/{DAY}/_folder/", b"")
    night.run()
    assert night.outcomes("a") == {
        "scored": 10,
        "empty": 1,
        "unreadable": 1,
        "unsupported": 1,
        "too_small": 1,
    }
    assert night.summary("a")["not_scored"] == {
        "empty": 1,
        "unreadable": 1,
        "unsupported": 1,
        "too_small": 1,
    }
    assert night.summary("a")["is_complete"]


@pytest.mark.parametrize(
    "name",
    [
        "with space.png",
        "ünïcödé-日本.png",
        "100%2F.png",
        "a+b&c=d?e#f.png",
        "'; drop table image;--.png",
        "deep/" * 190 + "key.png",
    ],
)
def test_keys_are_only_names(night: Night, name: str) -> None:
    night.registry(facility("a"))
    night.put(f"a/{DAY}/{name}", crop(True))
    night.run()
    rows = night.rows("select image_key, outcome from fer.image_result")
    assert [(r["image_key"], r["outcome"]) for r in rows] == [(f"a/{DAY}/{name}", "scored")]


def test_a_second_run_scores_nothing_and_changes_no_row(night: Night) -> None:
    night.registry(facility("a"), facility("b"))
    night.fill("a", happy=35, sad=5)
    night.fill("b", happy=3, sad=2)
    night.run("first")
    before = night.snapshot()
    assert night.open("second").plan_shards() == []
    night.run("second")
    assert night.snapshot() == before


def test_a_second_run_reads_no_image(night: Night, s3: Any) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=2, sad=1)
    with faulty(
        s3.endpoint, s3.bucket, Credentials(s3.access_key_id, s3.secret_access_key)
    ) as proxy:
        reads = Fault("none", of="", times=0)
        listings = Fault("none", of="", times=0, is_listing=True)
        proxy.faults = [reads, listings]
        seen = night.with_settings(s3_endpoint=proxy.endpoint)
        seen.run("first")
        assert set(reads.seen) == {f"a/{DAY}/{number:04}.png" for number in range(3)}
        reads.seen.clear()
        listings.seen.clear()
        seen.run("second")
        assert not reads.seen
        assert set(listings.seen) == {f"a/{DAY}/"}


def test_what_is_left_is_what_has_no_final_result(night: Night) -> None:
    night.registry(facility("a"), facility("b"))
    night.fill("a", happy=2, sad=1)
    night.put(f"a/{DAY}/empty.jpg", b"")
    run = night.open()
    assert run.count_finished() == {}
    night.run(facility_ids=("a",))
    assert run.count_finished() == {Batch("a", DAY): 4}


def test_few_faces_are_not_published(night: Night) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=29, sad=0)
    night.run()
    summary = night.summary("a")
    assert summary["verdict"] == "suppressed"
    assert summary["happy_share"] is None
    assert summary["neither_share"] is None


def test_a_late_image_makes_a_new_revision(night: Night) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=30, sad=10)
    night.run("first")
    night.put(f"a/{DAY}/late.png", crop(False))
    night.run("next", capture_day=DAY + timedelta(days=1), lookback_days=1)
    revisions = night.rows(
        "select revision, images, sad from fer.satisfaction_summary"
        " where capture_day = %s order by revision",
        DAY,
    )
    assert [(r["revision"], r["images"], r["sad"]) for r in revisions] == [(1, 40, 10), (2, 41, 11)]
    daily = night.rows("select revision from fer.satisfaction_daily where capture_day = %s", DAY)
    assert [r["revision"] for r in daily] == [2]


def test_an_image_that_was_replaced_is_scored_anew(night: Night) -> None:
    night.registry(facility("a"))
    night.put(f"a/{DAY}/x.png", crop(True))
    night.run("first")
    night.put(f"a/{DAY}/x.png", crop(False))
    night.run("second")
    (row,) = night.rows("select emotion, run_id from fer.image_result")
    assert (row["emotion"], row["run_id"]) == ("Sad", "second")
    assert len(night.rows("select 1 from fer.face_result")) == 1


def test_images_deleted_later_stay_counted(night: Night) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=40, sad=0)
    night.run("first")
    before = night.summary("a")
    for number in range(20):
        night.s3.client.delete_object(Bucket=night.s3.bucket, Key=f"a/{DAY}/{number:04}.png")
    night.run("second")
    assert night.summary("a") == before


def test_without_a_permission_nothing_is_asked_of_s3(
    night: Night, watched: Callable[[], list[str]]
) -> None:
    night.registry(facility("secret", permission=""))
    night.fill("secret", happy=1, sad=0)
    watched().clear()
    findings = night.run()
    assert watched() == []
    assert night.rows("select 1 from fer.image") == []
    assert night.rows("select 1 from fer.satisfaction_summary") == []
    assert [(f["facility_id"], f["check"]) for f in findings] == [("secret", "no_permission")]


def test_images_listed_under_a_permission_are_not_read_after_it_ended(night: Night) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=2, sad=0)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    shards = run.plan_shards()
    night.registry(facility("a", permission=PERMISSION.replace("2099-12-31", "2026-11-20")))
    assert night.open().plan_shards() == []
    with pytest.raises(PermanentError, match="permission ended"):
        night.open().score(shards[0])
    assert night.rows("select 1 from fer.image_result") == []


def listed(night: Night, *facilities: str) -> nightly.Run:
    """A run that has listed one image of each facility."""
    night.registry(*map(facility, facilities))
    for name in facilities:
        night.fill(name, happy=1, sad=0)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    return run


def all_of(*facilities: str, images: int) -> Shard:
    """A shard of these facilities' whole day, with so many images of each."""
    batches = [Batch(name, DAY) for name in facilities]
    ranges = tuple(KeyRange(batch, "\x01", "\U0010ffff", images) for batch in batches)
    return Shard("-".join(facilities), ranges)


def test_what_fails_for_good_takes_no_retry_from_a_facility_whose_trouble_may_pass(
    night: Night,
) -> None:
    night.registry(facility("a"), facility("b"))
    night.fill("a", happy=2, sad=0)
    night.fill("b", happy=2, sad=0)
    night.run("before")
    night.registry(
        facility("a", permission=PERMISSION.replace("2099-12-31", "2026-11-20")), facility("b")
    )
    run = night.with_settings(s3_endpoint="http://127.0.0.1:9", s3_timeout_s=1.0).open()
    shard = all_of("a", "b", images=2)
    assert night.rows("update fer.image set etag = 'other' returning 1")
    with pytest.raises(RetryableError, match=r"permission ended.*; b on "):
        run.score(shard)


def test_a_facility_that_left_the_registry_in_the_middle_of_a_run_fails_alone(night: Night) -> None:
    run = listed(night, "a", "b")
    (shard,) = run.plan_shards()
    night.registry(facility("b"))
    with pytest.raises(PermanentError, match=f"a on {DAY}: a is not in the facility registry"):
        run.score(shard)
    assert (night.outcomes("a"), night.outcomes("b")) == ({}, {"scored": 1})


def test_summaries_are_written_some_at_a_time(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightly, "SUMMARIES_AT_ONCE", 2)
    names = ["a", "b", "c"]
    night.registry(*map(facility, names))
    for name in names:
        night.fill(name, happy=1, sad=0)
    summaries, _ = nightly.run_all(night.open())
    assert [summary["facility_id"] for summary in summaries] == names
    written = night.rows("select facility_id from fer.satisfaction_summary order by 1")
    assert [row["facility_id"] for row in written] == names


def test_what_may_pass_decides_whether_a_run_by_hand_is_tried_again(night: Night) -> None:
    """Whichever shard failed first: who tries again gets the other one done."""
    listed(night, "gone", "slow").begin()
    shards = {name: all_of(name, images=1) for name in ("gone", "slow")}
    night.registry(
        facility("gone", permission=PERMISSION.replace("2099-12-31", "2026-11-20")),
        facility("slow"),
    )
    run = night.with_settings(s3_endpoint="http://127.0.0.1:9", s3_timeout_s=1.0).open()
    for order in (["gone", "slow"], ["slow", "gone"]):
        done, failed = score_all(run, [shards[name] for name in order])
        assert done == []
        assert isinstance(failed, RetryableError)
    assert isinstance(score_all(run, [shards["gone"]])[1], PermanentError)


def test_each_selection_of_a_day_has_a_report_of_its_own(night: Night) -> None:
    names = [f"f{n}" for n in range(5)]
    night.registry(*map(facility, names))
    chosen = [
        {},
        {"time_zone": "Europe/Berlin"},
        {"facility_ids": ("f0",)},
        {"time_zone": "Europe/Berlin", "facility_ids": ("f0",)},
        {"facility_ids": ("f0", "f1", "f2")},
        {"facility_ids": ("f0", "f1", "f2", "f3")},
        {"facility_ids": ("f0", "f1", "f2", "f4")},
    ]
    files = [night.open(**selection).selection.file_name() for selection in chosen]
    assert len(set(files)) == len(files)
    assert files[:2] == [f"{DAY}", f"{DAY}-Europe_Berlin"]
    assert night.open(facility_ids=("f1", "f0")).selection.file_name() == f"{DAY}-f0.f1"


def test_one_facility_without_a_bucket_leaves_the_others_alone(night: Night) -> None:
    night.registry(facility("a"), facility("lost", more='bucket = "no-such-bucket"\n'))
    night.fill("a", happy=40, sad=0)
    findings = night.run()
    assert night.summary("a")["is_complete"]
    assert not night.summary("lost")["is_complete"]
    assert {f["facility_id"] for f in findings if f["severity"] == "error"} == {"lost"}
    assert any("no-such-bucket" in str(f["finding"]) for f in findings)


def test_an_empty_day_is_a_result_and_on_an_open_day_a_finding(night: Night) -> None:
    night.registry(facility("a", more="expected_images_min = 10\n"))
    findings = night.run()
    summary = night.summary("a")
    assert (summary["images"], summary["is_complete"]) == (0, True)
    assert [f["check"] for f in findings] == ["fewer_images_than_expected"]


def test_rescoring_writes_each_result_once_more_and_only_once(night: Night) -> None:
    night.registry(facility("a"))
    night.fill("a", happy=3, sad=2)
    night.run("first")
    night.run("again", rescore=True)
    assert {r["run_id"] for r in night.rows("select run_id from fer.image_result")} == {"again"}
    before = night.snapshot()
    night.run("again", rescore=True)  # as a cleared task would
    assert night.snapshot() == before


def test_a_large_day_is_cut_into_shards_that_hold_each_image_once(night: Night) -> None:
    night = night.with_settings(shard_images=7, chunk_images=3)
    night.registry(facility("a"), facility("b"))
    night.fill("a", happy=20, sad=11)
    night.fill("b", happy=1, sad=1)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    shards = run.plan_shards()
    assert len(shards) == 5
    assert len({shard.name for shard in shards}) == 5
    assert sum(run.score(shard).image_count for shard in reversed(shards)) == 33
    assert run.plan_shards() == []
    assert night.outcomes("a") == {"scored": 31}


def test_another_model_version_than_asked_for_is_refused(night: Night) -> None:
    night.registry(facility("a"))
    with pytest.raises(ModelError, match="is not the one in use"):
        night.open(model_version="abcdef").plan_shards()


def test_an_altered_model_file_is_refused(night: Night) -> None:
    card = night.settings.model_card
    assert card is not None
    artefact = card.with_name("tiny.onnx")
    artefact.write_bytes(artefact.read_bytes() + b"\0")
    night.registry(facility("a"))
    night.fill("a", happy=1, sad=0)
    with pytest.raises(ModelError, match="SHA-256"):
        night.run()


def test_an_unknown_facility_is_named(night: Night) -> None:
    night.registry(facility("north-mall"))
    with pytest.raises(ConfigurationError, match="north-mal"):
        night.open(facility_ids=("north-mal",))


def test_a_database_that_is_not_migrated_says_what_to_do(night: Night, postgres_url: str) -> None:
    from pydantic import SecretStr

    night.registry(facility("a"))
    fresh = night.with_settings(database_url=SecretStr(postgres_url))
    with pytest.raises(PermanentError, match="fer-batch db upgrade"):
        fresh.run()
