"""The whole job without Airflow: from objects in a bucket to a summary, with real processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from botocore.credentials import Credentials

from fer_batch.database import connections
from fer_batch.deletion import erasure
from fer_batch.errors import ConfigurationError, ModelError, PermanentError, RetryableError
from fer_batch.pipeline import nightly, summarizing
from fer_batch.pipeline.whole_run import score_shards
from fer_batch.records import Batch, KeyRange, Shard
from fer_batch.satisfaction.figures import RATES
from tests.fixtures.night import DAY, PERMISSION, Night, encode_crop, format_facility, run_night
from tests.fixtures.servers import ERASER, SECRET, switch_login
from tests.support import pictures
from tests.support.faulty_s3 import Fault, running_proxy


def test_a_day_of_crops_becomes_a_summary(night: Night) -> None:
    night.write_registry(format_facility("north-mall"))
    night.fill("north-mall", happy=40, sad=10)
    assert night.run() == []
    summary = night.read_summary("north-mall")
    assert (summary["images"], summary["images_scored"], summary["images_pending"]) == (50, 50, 0)
    assert (summary["faces"], summary["sessions"], summary["session_rule"]) == (50, 10, "blocks")
    assert summary["called_happy_rate"] == pytest.approx(0.8)
    # Wilson's interval for 80 % at 95 %, from its formula by hand. Ten blocks that are alike count
    # as 50 × (1.960 / 2.262)² = 37.5 faces; 2.262 is the quantile of t.
    assert summary["faces_effective"] == pytest.approx(37.53, abs=5e-3)
    assert summary["called_happy_rate_low"] == pytest.approx(0.6471, abs=5e-4)
    assert summary["called_happy_rate_high"] == pytest.approx(0.8972, abs=5e-4)
    # The equations of the card's confusion matrix give 83.9, 24.3 and -8.2 %; the nearest shares
    # that are not negative are 79.8, 20.2 and 0 %.
    assert summary["happy_rate"] == pytest.approx(0.798, abs=1e-3)
    assert summary["sad_rate"] == pytest.approx(0.202, abs=1e-3)
    assert (summary["neither_rate"], summary["method"]) == (0, "benchmark")
    assert summary["happy_rate_low"] < 0.7 < 0.9 < summary["happy_rate_high"]
    assert summary["verdict"] == "satisfied"
    assert summary["is_complete"]


def test_each_invalid_image_has_one_outcome_and_affects_no_other(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=5, sad=5)
    valid = pictures.encode(pictures.draw_scene(), ".jpg")
    night.put(f"a/{DAY}/empty.jpg", b"")
    night.put(f"a/{DAY}/short.jpg", valid[: len(valid) // 2])
    night.put(f"a/{DAY}/page.jpg", b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>")
    night.put(f"a/{DAY}/tiny.png", pictures.encode(pictures.draw_scene(8, 8), ".png"))
    night.put(f"a/{DAY}/_folder/", b"")
    night.run()
    assert night.count_outcomes("a") == {
        "scored": 10,
        "empty": 1,
        "unreadable": 1,
        "unsupported": 1,
        "too_small": 1,
    }
    assert night.read_summary("a")["not_scored"] == {
        "empty": 1,
        "unreadable": 1,
        "unsupported": 1,
        "too_small": 1,
    }
    assert night.read_summary("a")["is_complete"]


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
def test_special_characters_in_keys_have_no_meaning(night: Night, name: str) -> None:
    night.write_registry(format_facility("a"))
    night.put(f"a/{DAY}/{name}", encode_crop(True))
    night.run()
    rows = night.query("select image_key, outcome from fer.image_result")
    assert [(r["image_key"], r["outcome"]) for r in rows] == [(f"a/{DAY}/{name}", "scored")]


def test_a_second_run_scores_nothing_and_changes_no_row(night: Night) -> None:
    night.write_registry(format_facility("a"), format_facility("b"))
    night.fill("a", happy=35, sad=5)
    night.fill("b", happy=3, sad=2)
    night.run("first")
    before = night.read_snapshot()
    assert night.open("second").plan_shards() == []
    night.run("second")
    assert night.read_snapshot() == before


def test_a_second_run_reads_no_image(night: Night, s3: Any) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=2, sad=1)
    with running_proxy(
        s3.endpoint, s3.bucket, Credentials(s3.access_key_id, s3.secret_access_key)
    ) as proxy:
        reads = Fault("none", of="", times=0)
        listings = Fault("none", of="", times=0, is_listing=True)
        proxy.faults = [reads, listings]
        proxied = night.with_settings(s3_endpoint=proxy.endpoint)
        proxied.run("first")
        assert set(reads.seen) == {f"a/{DAY}/{number:04}.png" for number in range(3)}
        reads.seen.clear()
        listings.seen.clear()
        proxied.run("second")
        assert not reads.seen
        assert set(listings.seen) == {f"a/{DAY}/"}


def test_a_share_of_few_faces_is_suppressed(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=29, sad=0)
    night.run()
    summary = night.read_summary("a")
    assert summary["verdict"] == "suppressed"
    assert {summary[name] for name in RATES} == {None}


def test_a_figure_is_published_once_its_day_is_complete_or_its_lookback_ends(
    night: Night,
) -> None:
    night = night.with_settings(shard_images=40)
    night.write_registry(format_facility("a"))
    night.fill("a", happy=30, sad=30)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    run.score_shard(next(shard for shard in run.plan_shards()))
    (summary,) = run.summarize()
    done = summary["images_scored"]
    assert (summary["verdict"], summary["happy_rate"]) == ("pending", None)
    later = {"capture_day": DAY + timedelta(2), "lookback_days": 2}
    assert night.open("next", **later | {"lookback_days": 3}).summarize()[0]["verdict"] == "pending"
    (summary,) = night.open("last", **later).summarize()
    assert (summary["method"], summary["faces"], summary["is_complete"]) == (
        "benchmark",
        done,
        False,
    )
    night.run("again")
    summary = night.read_summary("a")
    assert summary["is_complete"]
    assert (summary["faces_scored"], summary["faces"]) == (60, done if 60 - done < 30 else 60)


def test_a_late_image_makes_a_new_revision(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=30, sad=10)
    night.run("first")
    night.put(f"a/{DAY}/late.png", encode_crop(False, number=99))
    night.run("next", capture_day=DAY + timedelta(days=1), lookback_days=1)
    revisions = night.query(
        "select revision, images, faces_scored, faces from fer.satisfaction_summary"
        " where capture_day = %s order by revision",
        DAY,
    )
    assert [tuple(r.values()) for r in revisions] == [(1, 40, 40, 40), (2, 41, 41, 40)]
    daily = night.query("select revision from fer.satisfaction_daily where capture_day = %s", DAY)
    assert [r["revision"] for r in daily] == [2]


def test_a_replaced_image_is_rescored(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.put(f"a/{DAY}/x.png", encode_crop(True))
    night.run("first")
    night.put(f"a/{DAY}/x.png", encode_crop(False))
    night.run("second")
    (row,) = night.query("select emotion, run_id from fer.image_result")
    assert (row["emotion"], row["run_id"]) == ("Sad", "second")
    assert len(night.query("select 1 from fer.face_result")) == 1


def test_deleted_objects_remain_counted(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=40, sad=0)
    night.run("first")
    before = night.read_summary("a")
    for number in range(20):
        night.s3.client.delete_object(Bucket=night.s3.bucket, Key=f"a/{DAY}/{number:04}.png")
    night.run("second")
    assert night.read_summary("a") == before


def test_without_a_permission_no_request_is_sent_to_s3(
    night: Night, sent_operations: Callable[[], list[str]]
) -> None:
    night.write_registry(format_facility("secret", permission=""))
    night.fill("secret", happy=1, sad=0)
    sent_operations().clear()
    findings = night.run()
    assert sent_operations() == []
    assert night.query("select 1 from fer.image") == []
    assert night.query("select 1 from fer.satisfaction_summary") == []
    assert [(f["facility_id"], f["check"]) for f in findings] == [("secret", "no_permission")]


def test_images_listed_under_a_permission_are_not_read_after_it_ended(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=2, sad=0)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    shards = run.plan_shards()
    night.write_registry(
        format_facility("a", permission=PERMISSION.replace("2099-12-31", "2026-11-20"))
    )
    assert night.open().plan_shards() == []
    with pytest.raises(PermanentError, match="permission ended"):
        night.open().score_shard(shards[0])
    assert night.query("select 1 from fer.image_result") == []


def list_one_image_each(night: Night, *facilities: str) -> nightly.Run:
    """Start a run and list one image of each facility."""
    night.write_registry(*map(format_facility, facilities))
    for name in facilities:
        night.fill(name, happy=1, sad=0)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    return run


def build_shard(*facilities: str, images: int) -> Shard:
    """A shard of the whole day of these facilities, each with this number of images."""
    batches = [Batch(name, DAY) for name in facilities]
    ranges = tuple(KeyRange(batch, "\x01", "\U0010ffff", images) for batch in batches)
    return Shard("-".join(facilities), ranges)


def test_a_permanent_failure_of_one_facility_does_not_prevent_the_retry_of_another(
    night: Night,
) -> None:
    night.write_registry(format_facility("a"), format_facility("b"))
    night.fill("a", happy=2, sad=0)
    night.fill("b", happy=2, sad=0)
    night.run("before")
    night.write_registry(
        format_facility("a", permission=PERMISSION.replace("2099-12-31", "2026-11-20")),
        format_facility("b"),
    )
    run = night.with_settings(s3_endpoint="http://127.0.0.1:9", s3_timeout_s=1.0).open()
    shard = build_shard("a", "b", images=2)
    assert night.query("update fer.image set etag = 'other' returning 1")
    with pytest.raises(RetryableError, match=r"permission ended.*; b on "):
        run.score_shard(shard)


def test_only_the_facility_removed_from_the_registry_during_a_run_fails(night: Night) -> None:
    run = list_one_image_each(night, "a", "b")
    (shard,) = run.plan_shards()
    night.write_registry(format_facility("b"))
    with pytest.raises(PermanentError, match=f"a on {DAY}: a is not in the facility registry"):
        run.score_shard(shard)
    assert (night.count_outcomes("a"), night.count_outcomes("b")) == ({}, {"scored": 1})


def test_a_night_goes_on_with_its_lookback_if_the_capture_day_was_erased(night: Night) -> None:
    """And it publishes the week of a weekly facility, although days of it never had a summary."""
    night.write_registry(format_facility("a", more='publish_period = "week"\n'))
    sunday, wednesday = DAY + timedelta(2), DAY + timedelta(5)
    night.fill("a", happy=20, sad=20, day=sunday)
    night.fill("a", happy=1, sad=0, day=wednesday)
    night.run("sunday", capture_day=sunday)
    weeks = "select verdict, faces from fer.satisfaction_period where period = 'week'"
    night.put(f"a/{sunday}/late.png", encode_crop(is_happy=True, number=99))
    erase_unlisted(night, wednesday)
    assert [row["verdict"] for row in night.query(weeks)] == ["pending"]
    night.run("wednesday", capture_day=wednesday, lookback_days=3)
    assert night.query(weeks) == [{"verdict": "inconclusive", "faces": 41}]
    listed = night.query("select distinct capture_day from fer.image")
    assert [row["capture_day"] for row in listed] == [sunday]


def test_a_week_whose_sunday_was_erased_is_published_once_its_lookback_ends(night: Night) -> None:
    """No night after it lists a day of this week."""
    night.write_registry(format_facility("a", more='publish_period = "week"\n'))
    saturday, sunday, monday = (DAY + timedelta(n) for n in (1, 2, 3))
    night.fill("a", happy=20, sad=20, day=saturday)
    night.run("saturday", capture_day=saturday)
    erase_unlisted(night, sunday)
    weeks = "select verdict, faces from fer.satisfaction_period where period = 'week'"
    for days_later, lookback_days, verdict in (
        (0, 3, "pending"),
        (1, 3, "pending"),
        (2, 0, "pending"),  # such as a backfill, which may not have come to the other days yet
        (2, 3, "inconclusive"),
    ):
        night.run(
            f"night-{days_later}-{lookback_days}",
            capture_day=monday + timedelta(days_later),
            lookback_days=lookback_days,
        )
        assert [row["verdict"] for row in night.query(weeks)] == [verdict]
    assert night.query(weeks) == [{"verdict": "inconclusive", "faces": 40}]


def erase_unlisted(night: Night, day: date) -> None:
    """Erase a day of the facility `a` that no run has listed yet."""
    assert night.settings.database_url is not None
    eraser = connections.create_engine(
        switch_login(night.settings.database_url.get_secret_value(), ERASER)
    )
    erasure.erase_unlisted(eraser, erasure.Target("a", day), None, SECRET)
    eraser.dispose()


def test_summaries_are_written_in_batches(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summarizing, "SUMMARY_BATCH", 2)
    names = ["a", "b", "c"]
    night.write_registry(*map(format_facility, names))
    for name in names:
        night.fill(name, happy=1, sad=0)
    summaries, _ = run_night(night.open())
    assert [summary["facility_id"] for summary in summaries] == names
    written = night.query("select facility_id from fer.satisfaction_summary order by 1")
    assert [row["facility_id"] for row in written] == names


def test_a_run_with_permanent_and_transient_failures_is_retryable(night: Night) -> None:
    """In whichever order the shards fail: a retry completes the one with the transient failure."""
    list_one_image_each(night, "gone", "slow").begin()
    shards = {name: build_shard(name, images=1) for name in ("gone", "slow")}
    night.write_registry(
        format_facility("gone", permission=PERMISSION.replace("2099-12-31", "2026-11-20")),
        format_facility("slow"),
    )
    run = night.with_settings(s3_endpoint="http://127.0.0.1:9", s3_timeout_s=1.0).open()
    for order in (["gone", "slow"], ["slow", "gone"]):
        done, failed = score_shards(run, [shards[name] for name in order])
        assert done == []
        assert isinstance(failed, RetryableError)
    assert isinstance(score_shards(run, [shards["gone"]])[1], PermanentError)


def test_a_missing_bucket_affects_only_its_facility(night: Night) -> None:
    night.write_registry(
        format_facility("a"), format_facility("lost", more='bucket = "no-such-bucket"\n')
    )
    night.fill("a", happy=40, sad=0)
    findings = night.run()
    assert night.read_summary("a")["is_complete"]
    assert not night.read_summary("lost")["is_complete"]
    assert {f["facility_id"] for f in findings if f["severity"] == "error"} == {"lost"}
    assert any("no-such-bucket" in str(f["finding"]) for f in findings)


def test_an_empty_day_is_complete_and_a_finding_if_images_were_expected(night: Night) -> None:
    night.write_registry(format_facility("a", more="expected_images_min = 10\n"))
    findings = night.run()
    summary = night.read_summary("a")
    assert (summary["images"], summary["is_complete"]) == (0, True)
    assert [f["check"] for f in findings] == [
        "facility_without_images",
        "fewer_images_than_expected",
    ]


def test_rescoring_writes_each_result_exactly_once_again(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=3, sad=2)
    night.run("first")
    night.run("again", rescore=True)
    assert {r["run_id"] for r in night.query("select run_id from fer.image_result")} == {"again"}
    before = night.read_snapshot()
    night.run("again", rescore=True)  # as after clearing the task
    assert night.read_snapshot() == before


def test_a_large_day_is_split_into_shards_that_contain_each_image_once(night: Night) -> None:
    night = night.with_settings(shard_images=7, chunk_images=3)
    night.write_registry(format_facility("a"), format_facility("b"))
    night.fill("a", happy=20, sad=11)
    night.fill("b", happy=1, sad=1)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    shards = run.plan_shards()
    assert len(shards) == 5
    assert len({shard.name for shard in shards}) == 5
    assert sum(run.score_shard(shard).image_count for shard in reversed(shards)) == 33
    assert run.plan_shards() == []
    assert night.count_outcomes("a") == {"scored": 31}


def test_a_different_model_version_than_requested_is_rejected(night: Night) -> None:
    night.write_registry(format_facility("a"))
    with pytest.raises(ModelError, match="is not the one in use"):
        night.open(model_version="abcdef").plan_shards()


def test_a_modified_model_file_is_rejected(night: Night) -> None:
    card = night.settings.model_card
    assert card is not None
    artifact = card.with_name("tiny.onnx")
    artifact.write_bytes(artifact.read_bytes() + b"\0")
    night.write_registry(format_facility("a"))
    night.fill("a", happy=1, sad=0)
    with pytest.raises(ModelError, match="SHA-256"):
        night.run()


def test_the_error_names_an_unknown_facility(night: Night) -> None:
    night.write_registry(format_facility("north-mall"))
    with pytest.raises(ConfigurationError, match="north-mal"):
        night.open(facility_ids=("north-mal",))


def test_the_error_of_an_unmigrated_database_has_a_hint(night: Night, postgres_url: str) -> None:
    from pydantic import SecretStr

    night.write_registry(format_facility("a"))
    fresh = night.with_settings(database_url=SecretStr(postgres_url))
    with pytest.raises(PermanentError, match="fer-batch db upgrade"):
        fresh.run()
