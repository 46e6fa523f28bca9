"""Listing where a server is down, slow or refuses: one facility's trouble is its own."""

import threading
from datetime import timedelta

import pytest

from fer_batch import listing
from fer_batch.errors import StorageUnavailableError
from tests.s3.conftest import DAY, facility

CLOSED = "http://127.0.0.1:9"


def test_one_facilitys_trouble_is_its_own(one_attempt, lists, put):
    put("good/2026-03-09/a.jpg", "late/2026-03-09/a.jpg")
    found = lists(
        facility("bad-bucket", bucket="no-such-bucket"),
        facility("bad-keys", credentials="nobody"),
        facility("down", endpoint=CLOSED),
        facility("good"),
        facility("late"),
    )

    assert [(f.batch.facility_id, f.status) for f in found] == [
        ("bad-bucket", "failed"),
        ("bad-keys", "failed"),
        ("down", "failed"),
        ("good", "listed"),
        ("late", "listed"),
    ]
    assert [f.is_retryable for f in found[:3]] == [False, False, True]
    recorded = {row[0]: row[3] for row in lists.batches()}
    assert "'no-such-bucket' at" in recorded["bad-bucket"]
    assert "FER_S3_CREDENTIALS__NOBODY__ACCESS_KEY_ID" in recorded["bad-keys"]
    assert "does not answer" in recorded["down"]
    assert recorded["good"] == ""


def test_if_no_facility_answers_the_listing_may_be_tried_again(one_attempt, lists):
    without = facility("without", permission=None)

    with pytest.raises(StorageUnavailableError, match="no facility could be listed"):
        lists(facility("a", endpoint=CLOSED), facility("b", endpoint=CLOSED), without)

    assert [(row[0], row[2]) for row in lists.batches()] == [
        ("a", "failed"),
        ("b", "failed"),
        ("without", "no_permission"),
    ]


def test_facilities_that_can_never_be_listed_are_not_tried_again(one_attempt, lists):
    found = lists(facility("a", bucket="no-such-bucket"), facility("b", endpoint=CLOSED))

    assert [f.status for f in found] == ["failed", "failed"]


def test_a_silent_facility_is_asked_for_one_day_only(one_attempt, lists, scripted):
    days = [DAY - timedelta(days=n) for n in range(4)]
    silent = facility("silent", endpoint=scripted.endpoint, bucket="bucket")
    scripted.answer = lambda _: scripted.error(503, "SlowDown")

    found = lists(silent, facility("good"), days=days)

    assert [(f.batch.facility_id, f.status) for f in found] == [
        ("silent", "failed"),
        ("good", "listed"),
    ] * 4
    assert len(scripted.requests) == 1


@pytest.fixture
def waits(monkeypatch):
    """Two more looks, without the waits before them."""
    monkeypatch.setattr(listing, "WAITS_S", (0.001, 0.001))


def test_what_may_pass_is_looked_at_again_while_others_are_listed(
    one_attempt, waits, lists, scripted
):
    busy = facility("busy", endpoint=scripted.endpoint, bucket="bucket")
    answers = [scripted.error(503, "SlowDown"), scripted.listing("busy/2026-03-09/a.jpg")]
    scripted.answer = lambda _: answers.pop(0)

    found = lists(busy, facility("bad", bucket="no-such-bucket"), facility("good"))

    assert [f.status for f in found] == ["listed", "failed", "listed"]
    assert lists.images() == [("busy", "busy/2026-03-09/a.jpg", 4)]
    assert [row[2] for row in lists.batches()] == ["failed", "listed", "listed"]


def test_a_server_that_does_not_answer_is_not_asked_for_each_of_its_facilities(
    one_attempt, waits, lists, scripted
):
    leave = threading.Event()
    scripted.answer = lambda _: leave.wait(60) and None
    lists.settings = lists.settings.model_copy(update={"s3_timeout_s": 2.0})
    down = [
        facility(f"down-{n:02}", endpoint=scripted.endpoint, bucket="bucket") for n in range(30)
    ]
    try:
        found = lists(*down, facility("good"))
    finally:
        leave.set()

    assert [f.status for f in found] == ["failed"] * 30 + ["listed"]
    assert all(f.is_retryable for f in found[:30])
    asked = [f for f in found if "does not answer" in f.reason]
    assert len(asked) + sum("was not asked" in f.reason for f in found) == 30
    # Some at once, in each of three looks.
    assert len(scripted.requests) <= 3 * listing.FACILITIES_AT_ONCE


def test_one_that_is_always_slow_takes_no_other_with_it(
    one_attempt, waits, lists, scripted, monkeypatch
):
    monkeypatch.setattr(listing, "FACILITIES_AT_ONCE", 1)  # so none is listed beside it
    leave = threading.Event()
    scripted.answer = lambda key: leave.wait(60) and None if key == "slow" else scripted.listing()
    lists.settings = lists.settings.model_copy(update={"s3_timeout_s": 2.0})
    shops = [
        facility(f"shop-{n:02}", endpoint=scripted.endpoint, bucket="bucket") for n in range(12)
    ]
    try:
        found = lists(facility("slow", endpoint=scripted.endpoint, bucket="slow"), *shops)
    finally:
        leave.set()

    assert [f.status for f in found] == ["failed"] + ["listed"] * 12
