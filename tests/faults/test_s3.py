"""S3 is slow, breaks off, refuses, forgets and changes its mind: a defined end, never a silent gap.

Whole runs go through a proxy before the real server. Each facility has a day, and a fault of its
own. What must be there at last is what a run leaves that nobody disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from pydantic import SecretStr

from fer_batch import listing
from fer_batch import s3 as s3_module
from fer_batch.errors import RetryableError, StorageUnavailableError
from fer_batch.settings import Settings
from fer_batch.uploading import upload_many
from tests.conftest import fresh_database
from tests.end_to_end.conftest import DAY, Night, crop, facility
from tests.faults.conftest import Tables, tables
from tests.support.faulty_s3 import PAGE, Fault, FaultyS3, faulty
from tests.support.models import write_tiny_cnn

IMAGES = 2 * PAGE + 5
"""Per facility: three pages of a listing."""


@pytest.fixture
def proxy(s3: Any) -> Iterator[FaultyS3]:
    keys = Credentials(s3.access_key_id, s3.secret_access_key)
    with faulty(s3.endpoint, s3.bucket, keys) as server:
        yield server


@pytest.fixture
def night(
    stack_settings: Settings,
    s3: Any,
    proxy: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Night:
    """A day whose runs see the bucket through the proxy, and list it in one look."""
    monkeypatch.setattr(listing, "WAITS_S", ())
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

    def found() -> Tables:
        with fresh_database(postgres_server, migrated_template) as url:
            changes = {"s3_endpoint": s3.endpoint, "database_url": SecretStr(url)}
            night.with_settings(**changes).run()
            return tables(url)

    return found


def fill(night: Night, *names: str) -> None:
    """A day for each, and a registry of them all."""
    night.registry(*(facility(name) for name in names))
    direct = night.settings.model_copy(update={"s3_endpoint": night.s3.endpoint})
    items = [(f"{name}/{DAY}/{n:03}.png", crop(n % 3 > 0)) for name in names for n in range(IMAGES)]
    upload_many(direct, night.s3.bucket, items)


def key(name: str, number: int) -> str:
    return f"{name}/{DAY}/{number:03}.png"


def run(night: Night, run_id: str = "night") -> list[dict[str, Any]]:
    return list(night.run(run_id))


def tables_of(night: Night) -> Tables:
    url = night.settings.database_url
    assert url is not None
    return tables(url.get_secret_value())


def statuses(night: Night) -> dict[str, tuple[str, str]]:
    rows = night.rows("select facility_id, status, reason from fer.batch")
    return {row["facility_id"]: (row["status"], row["reason"]) for row in rows}


def check_nothing_is_silent(night: Night) -> None:
    """Whatever is in the bucket has an outcome for its ETag, or the day says it is incomplete."""
    pages = night.s3.client.get_paginator("list_objects_v2").paginate(Bucket=night.s3.bucket)
    there = {o["Key"]: o["ETag"].strip('"') for page in pages for o in page.get("Contents", ())}
    listed = night.rows("select facility_id, image_key, etag from fer.image")
    known = {row["image_key"]: row["etag"] for row in listed}
    rows = night.rows("select image_key, etag, outcome from fer.image_result")
    results = {row["image_key"]: row for row in rows}
    complete = {
        row["facility_id"]: row["is_complete"]
        for row in night.rows("select facility_id, is_complete from fer.satisfaction_daily")
    }
    for image_key, etag in (there | known).items():
        name = image_key.partition("/")[0]
        result = results.get(image_key)
        is_settled = result is not None and result["etag"] == etag
        is_final = is_settled and result["outcome"] not in ("fetch_failed", "changed")
        assert is_final or not complete.get(name, False), (image_key, result)
    findings = Counter(
        row["facility_id"]
        for row in listed
        if results.get(row["image_key"], {}).get("etag") != row["etag"]
    )
    found = {f["facility_id"] for f in night.open("night").check() if f["severity"] == "error"}
    assert set(findings) <= found


def check_it_mends(night: Night, proxy: FaultyS3, wanted: Tables) -> None:
    """The rerun that nobody disturbs leaves what an undisturbed run would have left."""
    check_nothing_is_silent(night)
    print(f"faults injected: {dict(proxy.injected)}")  # noqa: T201  (the counts are asked for)
    proxy.faults = []
    run(night)
    assert tables_of(night) == wanted
    assert all(row["is_complete"] for row in night.rows("select * from fer.satisfaction_daily"))


ONCE = ["slow", "reset", "500", "503", "cut"]


def test_what_passes_is_tried_again_and_scored(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "images", "refused", "cut")
    wanted = undisturbed()
    proxy.faults = [Fault(kind, key("images", n), times=1) for n, kind in enumerate(ONCE)]
    listings = {"refused": ("reset", "500", "503"), "cut": ("cut", "half")}
    proxy.faults += [
        Fault(kind, f"{name}/", times=1, is_listing=True)
        for name, kinds in listings.items()
        for kind in kinds
    ]
    run(night)
    # Nobody had to come back for it.
    assert tables_of(night) == wanted
    assert proxy.injected["get: slow"] == 1
    pages = {f"list: {kind}" for kinds in listings.values() for kind in kinds}
    assert pages | {f"get: {kind}" for kind in ONCE} == set(proxy.injected)
    check_it_mends(night, proxy, wanted)


STAYS = {
    "reset": ("fetch_failed", ""),
    "500": ("fetch_failed", "S3 answers 500 InternalError"),
    "503": ("fetch_failed", "S3 answers 503 SlowDown"),
    "cut": ("fetch_failed", ""),
    "half": ("changed", "the object is no longer the one that was listed"),
    "wrong etag": ("changed", "the object is no longer the one that was listed"),
}


def test_what_stays_is_an_outcome_of_that_image_alone(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a")
    wanted = undisturbed()
    proxy.faults = [Fault(kind, key("a", 3 * n)) for n, kind in enumerate(STAYS)]
    run(night)
    assert all(proxy.injected[f"get: {kind}"] for kind in STAYS)
    rows = night.rows("select image_key, outcome, reason from fer.image_result")
    found = {row["image_key"]: (row["outcome"], row["reason"]) for row in rows}
    for number, (kind, (outcome, reason)) in enumerate(STAYS.items()):
        assert found[key("a", 3 * number)][0] == outcome, kind
        assert reason in found[key("a", 3 * number)][1]
        assert found[key("a", 3 * number)][1]
    assert night.outcomes("a")["scored"] == IMAGES - len(STAYS)
    summary = night.summary("a")
    assert (summary["images_pending"], summary["is_complete"]) == (len(STAYS), False)
    check_it_mends(night, proxy, wanted)


def test_a_night_in_which_many_images_cannot_be_fetched_is_tried_again(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    night = night.with_settings(s3_concurrency=16)
    fill(night, "a", "b")
    wanted = undisturbed()
    proxy.faults = [Fault("503", key("a", n)) for n in range(0, IMAGES, 2)]
    with pytest.raises(RetryableError, match="13 of 25 images could not be fetched"):
        run(night)
    assert night.outcomes("a") == {"scored": 12, "fetch_failed": 13}
    assert night.outcomes("b") == {"scored": IMAGES}
    check_it_mends(night, proxy, wanted)


@pytest.mark.parametrize("kind", ["reset", "503"])
def test_a_place_that_answers_for_no_image_fails_its_shard(
    night: Night, proxy: FaultyS3, undisturbed: Any, kind: str
) -> None:
    night = night.with_settings(s3_concurrency=16)
    fill(night, "a", "b")
    wanted = undisturbed()
    proxy.faults = [Fault(kind, key("a", n)) for n in range(IMAGES)]
    with pytest.raises(RetryableError, match=r"facility a|bucket"):
        run(night)
    assert night.outcomes("b") == {"scored": IMAGES}
    assert night.outcomes("a") == {}
    assert (night.summary("a")["images_pending"], night.summary("a")["is_complete"]) == (
        IMAGES,
        False,
    )
    check_it_mends(night, proxy, wanted)


LISTINGS = {
    "reset": "does not answer",
    "500": "500 InternalError",
    "503": "503 SlowDown",
    "cut": "busy or broken",
    "half": "busy or broken",
    "no token": "says that there is more and not where",
    "first page again": "goes in a circle",
    "circle": "goes in a circle",
    "does not say whether it is the last": "does not say whether there is more",
    "a key is missing": "9 of 10 keys came",
    "no etags": "an object has no 'ETag'",
}
PASSED = ("says it is the last", "says it is the last, with a token", "wrong etag")


def test_a_listing_that_ends_early_never_counts(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    names = {kind: f"list-{n}" for n, kind in enumerate((*LISTINGS, *PASSED))}
    fill(night, *names.values(), "good")
    wanted = undisturbed()
    proxy.faults = [
        # In the middle of the listing, or in its end for what only its end can do.
        Fault(kind, f"{name}/", after=2 if kind == "circle" else 1, is_listing=True)
        for kind, name in names.items()
    ]
    run(night)
    assert all(proxy.injected[f"list: {kind}"] for kind in names)
    found = statuses(night)
    for kind, reason in LISTINGS.items():
        status, said = found[names[kind]]
        assert (status, reason in said) == ("failed", True), (kind, said)
        assert night.rows("select 1 from fer.image where facility_id = %s", names[kind]) == []
        assert not night.summary(names[kind])["is_complete"]
    # A page that lies about its being the last is not believed.
    for kind in PASSED[:2]:
        assert night.outcomes(names[kind]) == {"scored": IMAGES}, kind
    # The ETag of the listing is the one that must come.
    assert night.outcomes(names["wrong etag"]) == {"scored": PAGE, "changed": IMAGES - PAGE}
    assert night.outcomes("good") == {"scored": IMAGES}
    assert {names[kind] for kind in LISTINGS} <= {
        f["facility_id"] for f in night.open("night").check() if f["check"] == "listing_failed"
    }
    check_it_mends(night, proxy, wanted)


def test_a_listing_that_fails_later_takes_nothing_away(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a", "b")
    wanted = undisturbed()
    run(night, "first")
    before = night.snapshot()
    proxy.faults = [
        Fault("no token", "a/", is_listing=True),
        Fault("503", "b/", is_listing=True),
    ]
    run(night, "second")
    assert {status for status, _ in statuses(night).values()} == {"failed"}
    assert night.snapshot() == before
    check_it_mends(night, proxy, wanted)


def test_if_no_listing_is_answered_the_run_fails_and_may_be_tried_again(
    night: Night, proxy: FaultyS3, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "ATTEMPTS", 1)
    fill(night, "a")
    wanted = undisturbed()
    proxy.faults = [Fault("slow", "a/", is_listing=True)]
    with pytest.raises(StorageUnavailableError, match="ReadTimeoutError"):
        run(night)
    check_it_mends(night, proxy, wanted)


def test_what_vanishes_or_changes_between_listing_and_reading(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a")
    step = night.open("night")
    step.sync_facilities()
    step.list_images()
    night.s3.client.delete_object(Bucket=night.s3.bucket, Key=key("a", 0))
    night.put(key("a", 3), crop(True) + b" ")
    for shard in step.plan_shards():
        step.score(shard)
    step.summarize()
    rows = night.rows("select image_key, outcome, reason from fer.image_result")
    found = {row["image_key"]: row["outcome"] for row in rows if row["outcome"] != "scored"}
    assert found == {key("a", 0): "vanished", key("a", 3): "changed"}
    assert all(row["reason"] for row in rows if row["outcome"] != "scored")
    check_nothing_is_silent(night)
    night.put(key("a", 0), crop(False))  # and there it is again
    check_it_mends(night, proxy, undisturbed())


def test_sources_that_were_deleted_since_never_shrink_a_day(
    night: Night, proxy: FaultyS3, undisturbed: Any
) -> None:
    fill(night, "a")
    run(night, "first")
    before, wanted = night.snapshot(), undisturbed()
    for number in range(0, IMAGES, 2):
        night.s3.client.delete_object(Bucket=night.s3.bucket, Key=key("a", number))
    # Also where the listing of what is left ends early.
    proxy.faults = [Fault("no token", "a/", is_listing=True)]
    run(night, "second")
    assert night.snapshot() == before
    proxy.faults = []
    run(night, "third")
    assert night.snapshot() == before
    found = tables_of(night)
    assert {name: found[name] for name in wanted if name != "batch"} == {
        name: wanted[name] for name in wanted if name != "batch"
    }
