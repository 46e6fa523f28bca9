"""A night whose S3 server misbehaves: its images, its runs, and what must hold after each."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fer_batch.storage.writer import upload_many
from tests.faults.conftest import Tables, read_tables
from tests.fixtures.night import DAY, Night, encode_crop, format_facility
from tests.support.faulty_s3 import PAGE, FaultyS3

IMAGES = 2 * PAGE + 5
"""Per facility: three pages of a listing."""


def fill(night: Night, *names: str) -> None:
    """Upload a day of each facility, and register them."""
    night.write_registry(*(format_facility(name) for name in names))
    direct = night.settings.model_copy(update={"s3_endpoint": night.s3.endpoint})
    items = [
        (f"{name}/{DAY}/{n:03}.png", encode_crop(n % 3 > 0, number=n))
        for name in names
        for n in range(IMAGES)
    ]
    upload_many(direct, night.s3.bucket, items)


def build_key(name: str, number: int) -> str:
    return f"{name}/{DAY}/{number:03}.png"


def run(night: Night, run_id: str = "night") -> list[dict[str, Any]]:
    return list(night.run(run_id))


def read_night_tables(night: Night) -> Tables:
    url = night.settings.database_url
    assert url is not None
    return read_tables(url.get_secret_value())


def read_statuses(night: Night) -> dict[str, tuple[str, str]]:
    rows = night.query("select facility_id, status, reason from fer.batch")
    return {row["facility_id"]: (row["status"], row["reason"]) for row in rows}


def check_nothing_is_lost(night: Night) -> None:
    """Each object in the bucket has a final outcome for its ETag, or its day is incomplete."""
    pages = night.s3.client.get_paginator("list_objects_v2").paginate(Bucket=night.s3.bucket)
    stored = {o["Key"]: o["ETag"].strip('"') for page in pages for o in page.get("Contents", ())}
    listed = night.query("select facility_id, image_key, etag from fer.image")
    listed_etags = {row["image_key"]: row["etag"] for row in listed}
    rows = night.query("select image_key, etag, outcome from fer.image_result")
    results = {row["image_key"]: row for row in rows}
    complete = {
        row["facility_id"]: row["is_complete"]
        for row in night.query("select facility_id, is_complete from fer.satisfaction_daily")
    }
    for image_key, etag in (stored | listed_etags).items():
        name = image_key.partition("/")[0]
        result = results.get(image_key)
        is_final = (
            result is not None and result["etag"] == etag and result["outcome"] not in RETRIED
        )
        assert is_final or not complete.get(name, False), (image_key, result)
    unscored = Counter(
        row["facility_id"]
        for row in listed
        if results.get(row["image_key"], {}).get("etag") != row["etag"]
    )
    reported = {
        f["facility_id"] for f in night.open("night").check_data() if f["severity"] == "error"
    }
    assert set(unscored) <= reported


def check_rerun_repairs(night: Night, proxy: FaultyS3, expected: Tables) -> None:
    """An undisturbed rerun leaves the tables of an undisturbed run."""
    check_nothing_is_lost(night)
    print(f"faults injected: {dict(proxy.injected)}")  # noqa: T201  (for the report of `make test-faults`)
    proxy.faults = []
    run(night)
    assert read_night_tables(night) == expected
    assert all(row["is_complete"] for row in night.query("select * from fer.satisfaction_daily"))


RETRIED = ("fetch_failed", "changed")


def read_errors(night: Night, name: str) -> dict[str, str]:
    """The findings about a facility that are errors."""
    findings = night.open("night").check_data()
    return {
        f["check"]: f["finding"]
        for f in findings
        if (f["facility_id"], f["severity"]) == (name, "error")
    }
