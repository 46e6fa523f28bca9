"""S3 times out, resets connections, returns errors, truncates listings or changes objects.

Every run ends in a defined state, and no image is lost without an outcome or a finding.

Whole runs use a proxy in front of the real server, which injects a different fault into the
requests of each facility. After a rerun the tables must equal those of an undisturbed run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from pydantic import SecretStr

from fer_batch.errors import RetryableError, StorageUnavailableError
from fer_batch.pipeline import listing
from fer_batch.settings import Settings
from fer_batch.storage import client as s3_module
from tests.faults.conftest import Tables, read_tables
from tests.faults.s3_night import (
    IMAGES,
    RETRIED,
    build_key,
    check_nothing_is_lost,
    check_rerun_repairs,
    fill,
    read_errors,
    read_night_tables,
    read_statuses,
    run,
)
from tests.fixtures.night import Night, encode_crop
from tests.fixtures.servers import fresh_database
from tests.support.faulty_s3 import PAGE, Fault, FaultyS3, running_proxy
from tests.support.models import write_tiny_cnn


@pytest.fixture
def proxy(s3: Any) -> Iterator[FaultyS3]:
    keys = Credentials(s3.access_key_id, s3.secret_access_key)
    with running_proxy(s3.endpoint, s3.bucket, keys) as server:
        yield server


@pytest.fixture
def night(
    stack_settings: Settings,
    s3: Any,
    proxy: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forked_scoring: None,
) -> Night:
    """A day whose runs reach the bucket through the proxy, and do not retry its listing."""
    monkeypatch.setattr(listing, "RETRY_DELAYS_S", ())
    folder = tmp_path / "cnn"
    folder.mkdir()
    changes = {
        "model_card": write_tiny_cnn(folder),
        "s3_endpoint": proxy.endpoint,
        "s3_timeout_s": 2.0,
        "s3_concurrency": 4,
        "chunk_images": 8,
    }
    return Night(stack_settings.model_copy(update=changes), s3)


@pytest.fixture
def undisturbed(night: Night, s3: Any, postgres_server: Any, migrated_template: str) -> Any:
    """The tables of a run without the proxy, of the bucket as it is when this is called."""

    def read_undisturbed() -> Tables:
        with fresh_database(postgres_server, migrated_template) as url:
            changes = {"s3_endpoint": s3.endpoint, "database_url": SecretStr(url)}
            night.with_settings(**changes).run()
            return read_tables(url)

    return read_undisturbed


TRANSIENT = ["slow", "reset", "500", "503", "cut"]


def test_transient_failures_are_retried(night: Night, proxy: FaultyS3, undisturbed: Any) -> None:
    fill(night, "images", "refused", "cut")
    expected = undisturbed()
    proxy.faults = [
        Fault(kind, build_key("images", n), times=1) for n, kind in enumerate(TRANSIENT)
    ]
    listings = {"refused": ("reset", "500", "503"), "cut": ("cut", "half")}
    proxy.faults += [
        Fault(kind, f"{name}/", times=1, is_listing=True)
        for name, kinds in listings.items()
        for kind in kinds
    ]
    run(night)
    # Without a rerun.
    assert read_night_tables(night) == expected
    assert proxy.injected["get: slow"] == 1
    pages = {f"list: {kind}" for kinds in listings.values() for kind in kinds}
    assert pages | {f"get: {kind}" for kind in TRANSIENT} == set(proxy.injected)
    check_rerun_repairs(night, proxy, expected)


PERSISTENT = {
    "reset": ("fetch_failed", ""),
    "500": ("fetch_failed", "S3 answers 500 InternalError"),
    "503": ("fetch_failed", "S3 answers 503 SlowDown"),
    "cut": ("fetch_failed", ""),
    "half": ("fetch_failed", "IncompleteReadError"),
    "403": ("refused", "S3 answers 403 AccessDenied"),
    "archived": ("archived", "restore the object, or exclude it"),
}


def test_a_persistent_failure_is_an_outcome_of_its_image_only(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a")
    expected = undisturbed()
    proxy.faults = [Fault(kind, build_key("a", 3 * n)) for n, kind in enumerate(PERSISTENT)]
    run(night)
    assert all(proxy.injected[f"get: {kind}"] for kind in PERSISTENT)
    rows = night.query("select image_key, outcome, reason from fer.image_result")
    outcomes = {row["image_key"]: (row["outcome"], row["reason"]) for row in rows}
    for number, (kind, (outcome, reason)) in enumerate(PERSISTENT.items()):
        assert outcomes[build_key("a", 3 * number)][0] == outcome, kind
        assert reason in outcomes[build_key("a", 3 * number)][1]
        assert outcomes[build_key("a", 3 * number)][1]
    assert night.count_outcomes("a")["scored"] == IMAGES - len(PERSISTENT)
    summary = night.read_summary("a")
    pending = sum(outcome in RETRIED for outcome, _ in PERSISTENT.values())
    assert (summary["images_pending"], summary["is_complete"]) == (pending, False)
    check_rerun_repairs(night, proxy, expected)


@pytest.mark.parametrize(
    ("kind", "outcome", "advice"),
    [("403", "refused", "allow reading them"), ("archived", "archived", "restore them")],
)
def test_a_block_of_objects_that_refuse_costs_only_these(
    night: Night, proxy: FaultyS3, undisturbed: Any, kind: str, outcome: str, advice: str
) -> None:
    night = night.with_settings(s3_concurrency=16)
    fill(night, "a", "b")
    expected = undisturbed()
    proxy.faults = [Fault(kind, build_key("a", n)) for n in range(20)]
    for run_id in ("night", "next night"):  # in the second one, only the refused images are left
        run(night, run_id)
        assert night.count_outcomes("a") == {"scored": IMAGES - 20, outcome: 20}
        assert night.count_outcomes("b") == {"scored": IMAGES}
        finding = read_errors(night, "a")["outcome_hits_many"]
        assert finding.startswith(f"20 of {IMAGES} images are {outcome}")
        assert advice in finding
    assert not night.read_summary("a")["is_complete"]
    check_rerun_repairs(night, proxy, expected)


def test_etags_that_differ_from_the_listing_do_not_matter_if_nothing_changed(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a", "b")
    expected = undisturbed()
    proxy.faults = [Fault("wrong etag", "a/"), Fault("chunked", "b/")]
    run(night)
    assert set(proxy.injected) == {"get: wrong etag", "get: chunked"}
    assert night.count_outcomes("a") == night.count_outcomes("b") == {"scored": IMAGES}
    check_rerun_repairs(night, proxy, expected)


def test_a_day_whose_objects_are_gone_after_the_listing_is_an_error(
    night: Night, proxy: FaultyS3
) -> None:
    fill(night, "a", "b")
    step = night.open("night")
    step.sync_facilities()
    step.list_images()
    for number in range(IMAGES):
        night.s3.client.delete_object(Bucket=night.s3.bucket, Key=build_key("a", number))
    for shard in step.plan_shards():
        step.score_shard(shard)
    step.summarize()
    assert night.count_outcomes("a") == {"missing": IMAGES}
    assert night.count_outcomes("b") == {"scored": IMAGES}
    assert "25 of 25 images are missing" in read_errors(night, "a")["outcome_hits_many"]
    assert not night.read_summary("a")["is_complete"]
    assert night.read_summary("b")["is_complete"]


def test_a_run_in_which_many_images_cannot_be_fetched_is_retried(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    night = night.with_settings(s3_concurrency=16)
    fill(night, "a", "b")
    expected = undisturbed()
    proxy.faults = [Fault("503", build_key("a", n)) for n in range(0, IMAGES, 2)]
    with pytest.raises(RetryableError, match="13 of 25 images could not be fetched"):
        run(night)
    assert night.count_outcomes("a") == {"scored": 12, "fetch_failed": 13}
    assert night.count_outcomes("b") == {"scored": IMAGES}
    check_rerun_repairs(night, proxy, expected)


@pytest.mark.parametrize("kind", ["reset", "503"])
def test_a_bucket_from_which_no_image_can_be_read_fails_its_shard(
    night: Night, proxy: FaultyS3, undisturbed: Any, kind: str
) -> None:
    night = night.with_settings(s3_concurrency=16)
    fill(night, "a", "b")
    expected = undisturbed()
    proxy.faults = [Fault(kind, build_key("a", n)) for n in range(IMAGES)]
    with pytest.raises(RetryableError, match=r"facility a|bucket"):
        run(night)
    assert night.count_outcomes("b") == {"scored": IMAGES}
    assert night.count_outcomes("a") == {}
    assert (night.read_summary("a")["images_pending"], night.read_summary("a")["is_complete"]) == (
        IMAGES,
        False,
    )
    check_rerun_repairs(night, proxy, expected)


LISTINGS = {
    "reset": "does not answer",
    "500": "500 InternalError",
    "503": "503 SlowDown",
    "cut": "busy or broken",
    "half": "busy or broken",
    "no token": "more keys without a continuation token",
    "first page repeated": "repeats its pages",
    "cycle": "repeats its pages",
    "no IsTruncated": "does not say whether there are more keys",
    "a key is missing": "9 of 10 keys arrived",
}
TOLERATED = (
    "marked as last",
    "marked as last, with a token",
    "no etags",
    "weak etags",
    "times without zone",
    "no times",
)


def test_a_truncated_listing_is_never_used(night: Night, proxy: FaultyS3, undisturbed: Any) -> None:
    names = {kind: f"list-{n}" for n, kind in enumerate((*LISTINGS, *TOLERATED, "wrong etag"))}
    fill(night, *names.values(), "good")
    expected = undisturbed()
    proxy.faults = [
        # On the second page, or on the last one for a fault that only the last page can have.
        Fault(kind, f"{name}/", after=2 if kind == "cycle" else 1, is_listing=True)
        for kind, name in names.items()
    ]
    run(night)
    assert all(proxy.injected[f"list: {kind}"] for kind in names)
    statuses = read_statuses(night)
    for kind, reason in LISTINGS.items():
        status, text = statuses[names[kind]]
        assert (status, reason in text) == ("failed", True), (kind, text)
        assert night.query("select 1 from fer.image where facility_id = %s", names[kind]) == []
        assert not night.read_summary(names[kind])["is_complete"]
    # A page that is wrongly marked as the last one does not end the listing.
    for kind in TOLERATED:
        assert night.count_outcomes(names[kind]) == {"scored": IMAGES}, kind
    # Each object must still be the one of the listing. Here the listing differs from itself.
    assert night.count_outcomes(names["wrong etag"]) == {"scored": PAGE, "changed": IMAGES - PAGE}
    assert night.count_outcomes("good") == {"scored": IMAGES}
    assert {names[kind] for kind in LISTINGS} <= {
        f["facility_id"] for f in night.open("night").check_data() if f["check"] == "listing_failed"
    }
    check_rerun_repairs(night, proxy, expected)


def test_a_later_listing_that_fails_removes_nothing(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a", "b")
    expected = undisturbed()
    run(night, "first")
    before = night.read_snapshot()
    proxy.faults = [
        Fault("no token", "a/", is_listing=True),
        Fault("503", "b/", is_listing=True),
    ]
    run(night, "second")
    assert {status for status, _ in read_statuses(night).values()} == {"failed"}
    assert night.read_snapshot() == before
    check_rerun_repairs(night, proxy, expected)


def test_if_every_listing_fails_the_run_fails_with_a_retryable_error(
    night: Night, proxy: FaultyS3, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "MAX_ATTEMPTS", 1)
    fill(night, "a")
    expected = undisturbed()
    proxy.faults = [Fault("slow", "a/", is_listing=True)]
    with pytest.raises(StorageUnavailableError, match="ReadTimeoutError"):
        run(night)
    check_rerun_repairs(night, proxy, expected)


def test_objects_deleted_or_replaced_between_listing_and_reading(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a")
    step = night.open("night")
    step.sync_facilities()
    step.list_images()
    night.s3.client.delete_object(Bucket=night.s3.bucket, Key=build_key("a", 0))
    night.put(build_key("a", 3), encode_crop(True) + b" ")
    for shard in step.plan_shards():
        step.score_shard(shard)
    step.summarize()
    rows = night.query("select image_key, outcome, reason from fer.image_result")
    not_scored = {r["image_key"]: r["outcome"] for r in rows if r["outcome"] != "scored"}
    assert not_scored == {build_key("a", 0): "missing", build_key("a", 3): "changed"}
    assert all(row["reason"] for row in rows if row["outcome"] != "scored")
    check_nothing_is_lost(night)
    night.put(build_key("a", 0), encode_crop(False))  # the object exists again
    check_rerun_repairs(night, proxy, undisturbed())


def test_deleted_objects_do_not_reduce_a_finished_day(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a")
    run(night, "first")
    before, expected = night.read_snapshot(), undisturbed()
    for number in range(0, IMAGES, 2):
        night.s3.client.delete_object(Bucket=night.s3.bucket, Key=build_key("a", number))
    # Also if the listing of the remaining objects is truncated.
    proxy.faults = [Fault("no token", "a/", is_listing=True)]
    run(night, "second")
    assert night.read_snapshot() == before
    proxy.faults = []
    run(night, "third")
    assert night.read_snapshot() == before
    contents = read_night_tables(night)
    assert {name: contents[name] for name in expected if name != "batch"} == {
        name: expected[name] for name in expected if name != "batch"
    }
