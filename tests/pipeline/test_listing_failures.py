"""Listing where a server is down, slow or refuses; other facilities are not affected."""

import threading
from datetime import timedelta

import pytest

from fer_batch.errors import StorageUnavailableError
from fer_batch.pipeline import listing
from fer_batch.storage.reader import BucketReader
from tests.fixtures.s3 import DAY, build_facility

CLOSED = "http://127.0.0.1:9"


def test_the_failure_of_one_facility_does_not_affect_the_others(no_retries, lists, put):
    put("good/2026-03-09/a.jpg", "late/2026-03-09/a.jpg")
    listings = lists(
        build_facility("bad-bucket", bucket="no-such-bucket"),
        build_facility("bad-keys", credentials="nobody"),
        build_facility("down", endpoint=CLOSED),
        build_facility("good"),
        build_facility("late"),
    )

    assert [(f.batch.facility_id, f.status) for f in listings] == [
        ("bad-bucket", "failed"),
        ("bad-keys", "failed"),
        ("down", "failed"),
        ("good", "listed"),
        ("late", "listed"),
    ]
    assert [f.is_retryable for f in listings[:3]] == [False, False, True]
    recorded = {row[0]: row[3] for row in lists.query_batches()}
    assert "'no-such-bucket' at" in recorded["bad-bucket"]
    assert "FER_S3_CREDENTIALS__NOBODY__ACCESS_KEY_ID" in recorded["bad-keys"]
    assert "does not answer" in recorded["down"]
    assert recorded["good"] == ""


def test_an_unexpected_exception_belongs_to_its_facility(
    no_retries, lists, put, monkeypatch, capsys
):
    put("good/2026-03-09/a.jpg", "late/2026-03-09/a.jpg")
    usual = BucketReader.list

    def fail(self, prefix):
        if prefix.startswith("odd/"):
            raise TypeError("can't compare offset-naive and offset-aware datetimes\0")
        return usual(self, prefix)

    monkeypatch.setattr(BucketReader, "list", fail)

    listings = lists(*map(build_facility, ("good", "odd", "late")))

    assert [listed.status for listed in listings] == ["listed", "failed", "listed"]
    assert not listings[1].is_retryable
    recorded = {row[0]: row[3] for row in lists.query_batches()}
    assert recorded["odd"].startswith("unexpected error: TypeError: can't compare")
    output = capsys.readouterr()
    assert "Traceback" in output.out + output.err


@pytest.mark.parametrize("listed_time", ["2026-03-09T12:00:00", ""])
def test_a_server_whose_times_have_no_zone_is_listed(no_retries, lists, put, scripted, listed_time):
    put("good/2026-03-09/a.jpg")
    scripted.objects = {"odd/2026-03-09/a.jpg": b"a", "odd/2026-03-09/b.jpg": b"b"}
    scripted.listed_time = listed_time
    odd = build_facility("odd", endpoint=scripted.endpoint, bucket="bucket", settle_minutes=30)

    listings = lists(odd, build_facility("good"))

    assert [(listed.status, listed.images) for listed in listings] == [("listed", 2), ("listed", 1)]


def test_if_every_facility_fails_the_listing_is_retryable(no_retries, lists):
    without = build_facility("without", permission=None)

    with pytest.raises(StorageUnavailableError, match="no facility could be listed"):
        lists(build_facility("a", endpoint=CLOSED), build_facility("b", endpoint=CLOSED), without)

    assert [(row[0], row[2]) for row in lists.query_batches()] == [
        ("a", "failed"),
        ("b", "failed"),
        ("without", "no_permission"),
    ]


def test_permanent_failures_are_not_retried(no_retries, lists):
    listings = lists(
        build_facility("a", bucket="no-such-bucket"), build_facility("b", endpoint=CLOSED)
    )

    assert [f.status for f in listings] == ["failed", "failed"]


def test_a_facility_that_does_not_answer_is_tried_for_one_day_only(no_retries, lists, scripted):
    days = [DAY - timedelta(days=n) for n in range(4)]
    down = build_facility("down", endpoint=scripted.endpoint, bucket="bucket")
    scripted.respond = lambda _: scripted.build_error(503, "SlowDown")

    listings = lists(down, build_facility("good"), days=days)

    assert [(f.batch.facility_id, f.status) for f in listings] == [
        ("down", "failed"),
        ("good", "listed"),
    ] * 4
    assert len(scripted.requests) == 1


@pytest.fixture
def short_delays(monkeypatch):
    """Two retries, almost without delay."""
    monkeypatch.setattr(listing, "RETRY_DELAYS_S", (0.001, 0.001))


def test_transient_failures_are_retried_after_the_others_are_listed(
    no_retries, short_delays, lists, scripted
):
    busy = build_facility("busy", endpoint=scripted.endpoint, bucket="bucket")
    answers = [
        scripted.build_error(503, "SlowDown"),
        scripted.build_listing("busy/2026-03-09/a.jpg"),
    ]
    scripted.respond = lambda _: answers.pop(0)

    listings = lists(busy, build_facility("bad", bucket="no-such-bucket"), build_facility("good"))

    assert [f.status for f in listings] == ["listed", "failed", "listed"]
    assert lists.query_images() == [("busy", "busy/2026-03-09/a.jpg", 4)]
    assert [row[2] for row in lists.query_batches()] == ["failed", "listed", "listed"]


def test_an_unreachable_endpoint_is_not_tried_for_each_of_its_facilities(
    no_retries, short_delays, lists, scripted
):
    release = threading.Event()
    scripted.respond = lambda _: release.wait(60) and None
    lists.settings = lists.settings.model_copy(update={"s3_timeout_s": 2.0})
    down = [
        build_facility(f"down-{n:02}", endpoint=scripted.endpoint, bucket="bucket")
        for n in range(30)
    ]
    try:
        listings = lists(*down, build_facility("good"))
    finally:
        release.set()

    assert [f.status for f in listings] == ["failed"] * 30 + ["listed"]
    assert all(f.is_retryable for f in listings[:30])
    tried = [f for f in listings if "does not answer" in f.reason]
    assert len(tried) + sum("was not tried" in f.reason for f in listings) == 30
    # At most the concurrent ones, in each of three passes.
    assert len(scripted.requests) <= 3 * listing.CONCURRENT_FACILITIES


def test_a_facility_that_always_times_out_does_not_fail_the_others(
    no_retries, short_delays, lists, scripted, monkeypatch
):
    # One at a time, so that no other is listed while the slow one waits.
    monkeypatch.setattr(listing, "CONCURRENT_FACILITIES", 1)
    release = threading.Event()
    scripted.respond = lambda key: (
        release.wait(60) and None if key == "slow" else scripted.build_listing()
    )
    lists.settings = lists.settings.model_copy(update={"s3_timeout_s": 2.0})
    shops = [
        build_facility(f"shop-{n:02}", endpoint=scripted.endpoint, bucket="bucket")
        for n in range(12)
    ]
    try:
        listings = lists(build_facility("slow", endpoint=scripted.endpoint, bucket="slow"), *shops)
    finally:
        release.set()

    assert [f.status for f in listings] == ["failed"] + ["listed"] * 12
