"""Listing batches: permission first, then readiness, then the ledger."""

import socket
from datetime import UTC, date, datetime, timedelta

import pytest

from fer_batch.pipeline import listing
from fer_batch.records import Batch
from tests.fixtures.s3 import DAY, NOW, build_facility


@pytest.fixture
def unused_endpoint():
    """An endpoint that must not be contacted."""
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
        # Valid on the capture day, but not today.
        ({"valid_until": date(2026, 3, 9)}, DAY, "permission ended on 2026-03-09"),
        # Valid today, but not on the capture day.
        ({"valid_until": date(2026, 3, 10)}, date(2026, 3, 11), "permission ended on 2026-03-10"),
    ],
)
def test_without_a_permission_no_request_is_sent(lists, unused_endpoint, permission, day, reason):
    mall = build_facility("mall", endpoint=unused_endpoint, ready_marker="_SUCCESS", **permission)

    (listed,) = lists(mall, days=[day])

    assert (listed.status, listed.reason) == ("no_permission", reason)
    assert lists.query_batches() == [
        ("mall", day, "no_permission", reason, None, None, None, NOW, "run-1")
    ]


def test_a_preview_without_a_permission_sends_no_request(stack_settings, unused_endpoint):
    mall = build_facility("mall", endpoint=unused_endpoint, permission=None)

    (listed,) = listing.preview_images(stack_settings, {"mall": mall}, [Batch("mall", DAY)], NOW)

    assert (listed.status, listed.images) == ("no_permission", 0)


def test_a_permission_ends_by_the_local_date_of_the_facility(lists, put):
    # At this time it is the 10th in Berlin and still the 9th in Chicago.
    here = build_facility("here", valid_until=DAY)
    there = build_facility("there", valid_until=DAY, time_zone="America/Chicago")

    assert [listed.status for listed in lists(here, there)] == ["no_permission", "listed"]


# Listed images


def test_the_images_of_the_day_are_listed_into_the_ledger(lists, put):
    put("mall/2026-03-09/a.jpg", "mall/2026-03-09/cam 1/b.jpg", "mall/2026-03-09/empty.jpg")
    put("mall/2026-03-09/empty.jpg", "mall/2026-03-09/cam 1/", data=b"")
    put("mall/2026-03-08/old.jpg", "mall/2026-03-09.jpg", "other/2026-03-09/a.jpg")

    (listed,) = lists(build_facility("mall"))

    assert listed == listing.BatchListing(
        batch=Batch("mall", DAY),
        status="listed",
        images=3,
        bytes=8,
        new_images=3,
        folder_markers=1,
    )
    assert lists.query_images() == [
        ("mall", "mall/2026-03-09/a.jpg", 4),
        ("mall", "mall/2026-03-09/cam 1/b.jpg", 4),
        ("mall", "mall/2026-03-09/empty.jpg", 0),
    ]
    assert lists.query_batches() == [("mall", DAY, "listed", "", 3, 8, NOW, NOW, "run-1")]


def test_a_second_listing_finds_only_new_images(lists, put):
    put("mall/2026-03-09/a.jpg", "mall/2026-03-09/b.jpg")
    lists(build_facility("mall"))
    put("mall/2026-03-09/b.jpg", data=b"changed")
    put("mall/2026-03-09/c.jpg")

    (listed,) = lists(build_facility("mall"))

    assert (listed.images, listed.new_images) == (3, 2)


def test_a_listing_stores_camera_and_capture_time(lists, put):
    put("mall/2026-03-09/door/122500.jpg", "mall/2026-03-09/old.jpg", "shop/2026-03-09/122500")

    lists(
        build_facility("mall", name_template="{camera}/{captured_at:%H%M%S}.jpg"),
        build_facility("shop", name_template="{captured_at:%H%M%S}", time_zone="Asia/Tokyo"),
    )

    assert lists.query(
        "select image_key, camera, captured_at_utc from fer.image order by facility_id, image_key"
    ) == [
        ("mall/2026-03-09/door/122500.jpg", "door", datetime(2026, 3, 9, 11, 25, tzinfo=UTC)),
        ("mall/2026-03-09/old.jpg", None, None),
        ("shop/2026-03-09/122500", None, datetime(2026, 3, 9, 3, 25, tzinfo=UTC)),
    ]


def test_an_empty_day_is_listed(lists):
    (listed,) = lists(build_facility("mall"))

    assert (listed.status, listed.images, listed.new_images) == ("listed", 0, 0)


def test_hostile_keys_reach_the_ledger(lists, put):
    keys = [
        f"mall/2026-03-09/{name}"
        for name in ("a%2Fb", "tab\tx", "line\nbreak", "back\\N", "uml\u00e9", "ume\u0301")
    ]
    put(*keys)

    lists(build_facility("mall"))

    # SeaweedFS converts backslashes to slashes.
    assert {key for _, key, _ in lists.query_images()} == {key.replace("\\", "/") for key in keys}


@pytest.fixture
def on_moto(moto, build_s3_settings):
    """A facility with its own bucket on moto's server, which preserves every key."""
    from fer_batch.storage.writer import upload_many

    def made(bucket, keys):
        upload_many(build_s3_settings(moto, "unused"), bucket, [(key, b"x") for key in keys])
        return build_facility(
            "mall", bucket=bucket, endpoint=moto, key_template="m//{capture_day}/"
        )

    return made


def test_keys_that_the_server_preserves_reach_the_ledger(lists, on_moto):
    keys = [
        f"m//2026-03-09/{name}" for name in ("a//b", "../x", "./y", "back\\N", "\\.", "\x01", "/")
    ]

    lists(on_moto("hostile-listing", keys))

    assert {key for _, key, _ in lists.query_images()} == set(keys)


def test_a_key_that_the_database_cannot_store_fails_only_its_batch(lists, on_moto, put):
    put("shop/2026-03-09/a.jpg")
    mall = on_moto("nul-listing", ["m//2026-03-09/a", "m//2026-03-09/b\0"])

    listings = lists(mall, build_facility("shop"))

    assert [f.status for f in listings] == ["failed", "listed"]
    assert "a null character, which PostgreSQL cannot store" in listings[0].reason
    assert lists.query_images() == [("shop", "shop/2026-03-09/a.jpg", 4)]


# Readiness


def test_a_day_waits_for_its_ready_marker(lists, put):
    mall = build_facility("mall", ready_marker="_SUCCESS")
    put("mall/2026-03-09/a.jpg")

    (before,) = lists(mall)
    assert (before.status, before.reason) == (
        "not_ready",
        "there is no mall/2026-03-09/_SUCCESS yet",
    )
    assert lists.query_images() == []

    put("mall/2026-03-09/_SUCCESS", data=b"done")
    (after,) = lists(mall)
    assert (after.status, after.images, after.bytes) == ("listed", 1, 4)
    assert lists.query_images() == [("mall", "mall/2026-03-09/a.jpg", 4)]


def test_a_missing_bucket_is_not_reported_as_a_missing_marker(lists):
    (listed,) = lists(build_facility("mall", ready_marker="_SUCCESS", bucket="no-such-bucket"))

    assert listed.status == "failed"
    assert "does not exist" in listed.reason


def test_a_day_is_listed_once_it_has_settled(lists, put):
    mall = build_facility("mall", settle_minutes=30, valid_until=date(2100, 1, 1))
    put("mall/2026-03-09/a.jpg")
    now = datetime.now(UTC)

    (early,) = lists(mall, now=now + timedelta(minutes=29))
    assert early.status == "not_ready"
    assert early.reason.startswith("not settled before ")
    assert lists.query_images() == []

    (later,) = lists(mall, now=now + timedelta(minutes=31))
    assert (later.status, later.new_images) == ("listed", 1)


@pytest.mark.parametrize(
    ("hour", "minute", "status"), [(22, 59, "not_ready"), (23, 29, "not_ready"), (23, 30, "listed")]
)
def test_an_empty_day_settles_from_its_end(lists, hour, minute, status):
    now = datetime(2026, 3, 9, hour, minute, tzinfo=UTC)  # the day ends at 23:00 UTC

    (listed,) = lists(build_facility("mall", settle_minutes=30), now=now)

    assert listed.status == status


def test_an_earlier_listing_is_kept_when_a_later_one_fails(lists, put):
    put("mall/2026-03-09/a.jpg")
    lists(build_facility("mall"))

    (listed,) = lists(build_facility("mall", bucket="no-such-bucket"), now=NOW + timedelta(hours=1))

    assert listed.status == "failed"
    assert lists.query_batches() == [
        ("mall", DAY, "failed", listed.reason, 1, 4, NOW, NOW + timedelta(hours=1), "run-1")
    ]
    assert len(lists.query_images()) == 1


# Preview


def test_a_preview_counts_and_writes_nothing(lists, put):
    put("mall/2026-03-09/a.jpg", "mall/2026-03-09/b.jpg", "mall/2026-03-09/_SUCCESS")
    known = {
        "mall": build_facility("mall", ready_marker="_SUCCESS"),
        "bad": build_facility("bad", bucket="no-such-bucket"),
    }

    mall, bad = listing.preview_images(
        lists.settings, known, [Batch("mall", DAY), Batch("bad", DAY)], NOW
    )

    assert (mall.status, mall.images, mall.bytes) == ("listed", 2, 8)
    assert (bad.status, bad.images) == ("failed", 0)
    assert "does not exist" in bad.reason
    assert lists.query_batches() == []
    assert lists.query_images() == []
