"""Listing batches: permission first, then readiness, then the ledger, each facility for itself."""

import socket
from datetime import UTC, date, datetime, timedelta

import pytest

from fer_batch import listing
from fer_batch.records import Batch
from tests.s3.conftest import DAY, NOW, facility


@pytest.fixture
def untouched():
    """An endpoint that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


# Permission


@pytest.mark.parametrize(
    ("permission", "day", "reason"),
    [
        ({"permission": None}, DAY, "no permission is recorded"),
        ({"valid_until": date(2026, 3, 8)}, DAY, "permission ended on 2026-03-08"),
        # It held on the capture day, but not today.
        ({"valid_until": date(2026, 3, 9)}, DAY, "permission ended on 2026-03-09"),
        # It holds today, but not on the capture day.
        ({"valid_until": date(2026, 3, 10)}, date(2026, 3, 11), "permission ended on 2026-03-10"),
    ],
)
def test_without_a_permission_no_request_is_sent(lists, untouched, permission, day, reason):
    mall = facility("mall", endpoint=untouched, ready_marker="_SUCCESS", **permission)

    (found,) = lists(mall, days=[day])

    assert (found.status, found.reason) == ("no_permission", reason)
    assert lists.batches() == [
        ("mall", day, "no_permission", reason, None, None, None, NOW, "run-1")
    ]


def test_a_preview_without_a_permission_sends_no_request(stack_settings, untouched):
    mall = facility("mall", endpoint=untouched, permission=None)

    (found,) = listing.preview(stack_settings, {"mall": mall}, [Batch("mall", DAY)], NOW)

    assert (found.status, found.images) == ("no_permission", 0)


def test_a_permission_ends_by_the_facilitys_own_calendar(lists, put):
    # At this moment it is the 10th in Berlin and still the 9th in Chicago.
    here = facility("here", valid_until=DAY)
    there = facility("there", valid_until=DAY, time_zone="America/Chicago")

    assert [found.status for found in lists(here, there)] == ["no_permission", "listed"]


# What is listed


def test_the_days_images_are_listed_into_the_ledger(lists, put):
    put("mall/2026-03-09/a.jpg", "mall/2026-03-09/cam 1/b.jpg", "mall/2026-03-09/empty.jpg")
    put("mall/2026-03-09/empty.jpg", "mall/2026-03-09/cam 1/", data=b"")
    put("mall/2026-03-08/old.jpg", "mall/2026-03-09.jpg", "other/2026-03-09/a.jpg")

    (found,) = lists(facility("mall"))

    assert found == listing.BatchListing(
        batch=Batch("mall", DAY),
        status="listed",
        images=3,
        bytes=8,
        new_images=3,
        folder_markers=1,
    )
    assert lists.images() == [
        ("mall", "mall/2026-03-09/a.jpg", 4),
        ("mall", "mall/2026-03-09/cam 1/b.jpg", 4),
        ("mall", "mall/2026-03-09/empty.jpg", 0),
    ]
    assert lists.batches() == [("mall", DAY, "listed", "", 3, 8, NOW, NOW, "run-1")]


def test_listing_again_finds_only_what_is_new(lists, put):
    put("mall/2026-03-09/a.jpg", "mall/2026-03-09/b.jpg")
    lists(facility("mall"))
    put("mall/2026-03-09/b.jpg", data=b"changed")
    put("mall/2026-03-09/c.jpg")

    (found,) = lists(facility("mall"))

    assert (found.images, found.new_images) == (3, 2)


def test_an_empty_day_is_a_result(lists):
    (found,) = lists(facility("mall"))

    assert (found.status, found.images, found.new_images) == ("listed", 0, 0)


def test_hostile_keys_reach_the_ledger(lists, put):
    keys = [
        f"mall/2026-03-09/{name}"
        for name in ("a%2Fb", "tab\tx", "line\nbreak", "back\\N", "uml\u00e9", "ume\u0301")
    ]
    put(*keys)

    lists(facility("mall"))

    # SeaweedFS takes a backslash for a slash.
    assert {key for _, key, _ in lists.images()} == {key.replace("\\", "/") for key in keys}


@pytest.fixture
def on_moto(moto, settings_of):
    """A facility with a bucket of its own on moto's server, which keeps every key."""
    from fer_batch.uploading import upload_many

    def made(bucket, keys):
        upload_many(settings_of(moto, "unused"), bucket, [(key, b"x") for key in keys])
        return facility("mall", bucket=bucket, endpoint=moto, key_template="m//{capture_day}/")

    return made


def test_keys_that_a_server_keeps_as_they_are_reach_the_ledger(lists, on_moto):
    keys = [
        f"m//2026-03-09/{name}" for name in ("a//b", "../x", "./y", "back\\N", "\\.", "\x01", "/")
    ]

    lists(on_moto("hostile-listing", keys))

    assert {key for _, key, _ in lists.images()} == set(keys)


def test_a_key_that_the_database_cannot_hold_fails_its_batch_alone(lists, on_moto, put):
    put("shop/2026-03-09/a.jpg")
    mall = on_moto("nul-listing", ["m//2026-03-09/a", "m//2026-03-09/b\0"])

    found = lists(mall, facility("shop"))

    assert [f.status for f in found] == ["failed", "listed"]
    assert "'m//2026-03-09/b\\x00', which PostgreSQL cannot store" in found[0].reason
    assert lists.images() == [("shop", "shop/2026-03-09/a.jpg", 4)]


# Readiness


def test_a_day_waits_for_its_ready_marker(lists, put):
    mall = facility("mall", ready_marker="_SUCCESS")
    put("mall/2026-03-09/a.jpg")

    (before,) = lists(mall)
    assert (before.status, before.reason) == (
        "not_ready",
        "there is no mall/2026-03-09/_SUCCESS yet",
    )
    assert lists.images() == []

    put("mall/2026-03-09/_SUCCESS", data=b"done")
    (after,) = lists(mall)
    assert (after.status, after.images, after.bytes) == ("listed", 1, 4)
    assert lists.images() == [("mall", "mall/2026-03-09/a.jpg", 4)]


def test_a_missing_bucket_is_no_missing_marker(lists):
    (found,) = lists(facility("mall", ready_marker="_SUCCESS", bucket="no-such-bucket"))

    assert found.status == "failed"
    assert "does not exist" in found.reason


def test_a_day_settles(lists, put):
    mall = facility("mall", settle_minutes=30, valid_until=date(2100, 1, 1))
    put("mall/2026-03-09/a.jpg")
    now = datetime.now(UTC)

    (early,) = lists(mall, now=now + timedelta(minutes=29))
    assert early.status == "not_ready"
    assert early.reason.startswith("not settled before ")
    assert lists.images() == []

    (later,) = lists(mall, now=now + timedelta(minutes=31))
    assert (later.status, later.new_images) == ("listed", 1)


@pytest.mark.parametrize(
    ("hour", "minute", "status"), [(22, 59, "not_ready"), (23, 29, "not_ready"), (23, 30, "listed")]
)
def test_an_empty_day_settles_after_its_end(lists, hour, minute, status):
    now = datetime(2026, 3, 9, hour, minute, tzinfo=UTC)  # the day ends at 23:00 UTC

    (found,) = lists(facility("mall", settle_minutes=30), now=now)

    assert found.status == status


def test_what_was_listed_once_is_kept_when_a_later_listing_fails(lists, put):
    put("mall/2026-03-09/a.jpg")
    lists(facility("mall"))

    (found,) = lists(facility("mall", bucket="no-such-bucket"), now=NOW + timedelta(hours=1))

    assert found.status == "failed"
    assert lists.batches() == [
        ("mall", DAY, "failed", found.reason, 1, 4, NOW, NOW + timedelta(hours=1), "run-1")
    ]
    assert len(lists.images()) == 1


# Preview


def test_a_preview_counts_and_writes_nothing(lists, put):
    put("mall/2026-03-09/a.jpg", "mall/2026-03-09/b.jpg", "mall/2026-03-09/_SUCCESS")
    known = {
        "mall": facility("mall", ready_marker="_SUCCESS"),
        "bad": facility("bad", bucket="no-such-bucket"),
    }

    mall, bad = listing.preview(lists.settings, known, [Batch("mall", DAY), Batch("bad", DAY)], NOW)

    assert (mall.status, mall.images, mall.bytes) == ("listed", 2, 8)
    assert (bad.status, bad.images) == ("failed", 0)
    assert "does not exist" in bad.reason
    assert lists.batches() == []
    assert lists.images() == []
