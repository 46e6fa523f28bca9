"""Whether a bucket's lifecycle rules fit its images, and whether it keeps what was deleted."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.storage.bucket_rules import BucketRules, ImageNeeds, judge, read_rules

TODAY = date(2026, 11, 30)
NEEDS = ImageNeeds(["north/2026-"], lookback_days=3, retention_days=400)
NO_RULE = "no lifecycle rule deletes all images"
LATE = "FER_RETENTION_DAYS is 400"
EARLY = "surely scored after 5 days"


def build_rule(days: int | None = 14, **others: Any) -> dict[str, Any]:
    expiration = {} if days is None else {"Expiration": {"Days": days}}
    return {"Status": "Enabled", **expiration, **others}


def move(to: str, **when: Any) -> dict[str, Any]:
    return {"Transitions": [{"StorageClass": to, **when}]}


TAGGED = {"And": {"Prefix": "north/", "Tags": [{"Key": "a", "Value": "b"}]}}
PAST, FUTURE = datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rules", "faults"),
    [
        ([build_rule()], []),
        ([build_rule(5)], []),
        ([build_rule(400)], []),
        ([build_rule(Filter={})], []),
        ([build_rule(Filter={"Prefix": ""})], []),
        ([build_rule(Filter={"Prefix": "north/"})], []),
        ([build_rule(Prefix="north/")], []),
        ([build_rule(Filter={"And": {"Prefix": "north/", "Tags": []}})], []),
        ([], [NO_RULE]),
        ([build_rule(Status="Disabled")], [NO_RULE]),
        ([build_rule(Filter={"Prefix": "south/"})], [NO_RULE]),
        ([build_rule(Filter={"Prefix": "north/2026-11-30/door/"})], [NO_RULE]),
        ([build_rule(Filter=TAGGED)], [NO_RULE]),
        ([build_rule(Filter={"Tag": {"Key": "a", "Value": "b"}})], [NO_RULE]),
        ([build_rule(Filter={"ObjectSizeGreaterThan": 9})], [NO_RULE]),
        ([build_rule(None, Expiration={"ExpiredObjectDeleteMarker": True})], [NO_RULE]),
        ([build_rule(None, NoncurrentVersionExpiration={"NoncurrentDays": 3})], [NO_RULE]),
        ([build_rule(None, **move("GLACIER", Days=30))], [NO_RULE]),
        ([build_rule(401)], [LATE]),
        # The first rule to act counts; a partial rule does not make up for the others.
        ([build_rule(900), build_rule(20)], []),
        ([build_rule(900), build_rule(20, Filter=TAGGED)], [LATE]),
        ([build_rule(4)], [EARLY]),
        ([build_rule(20), build_rule(1, ID="x")], ["rule 'x' deletes images after 1 day. They"]),
        ([build_rule(20), build_rule(1, Filter=TAGGED)], ["deletes some images after 1 day. They"]),
        ([build_rule(20), build_rule(1, Filter={"Prefix": "north/2026-11-3"})],
         ["deletes some images after 1 day. They"]),
        ([build_rule(20), build_rule(1, Filter={"Prefix": "south/"})], []),
        ([build_rule(20), build_rule(1, Status="Disabled")], []),
        ([build_rule(None, Expiration={"Date": PAST})], ["from 2026-11-01 on, new ones too"]),
        ([build_rule(None, Expiration={"Date": FUTURE})],
         [NO_RULE, "from 2027-01-01 on, new ones too"]),
        ([build_rule(60, **move("GLACIER", Days=0))],
         ["moves to GLACIER, where they cannot be read, images after 0 days"]),
        ([build_rule(60, **move("DEEP_ARCHIVE", Date=PAST))], ["moves to DEEP_ARCHIVE"]),
        ([build_rule(60, **move("GLACIER", Days=5))], []),
        ([build_rule(60, **move("GLACIER_IR", Days=0))], []),
        ([build_rule(60, **move("STANDARD_IA", Days=0))], []),
    ],
)  # fmt: skip
def test_images_must_be_deleted_neither_too_early_nor_too_late(
    rules: list[Any], faults: list[str]
) -> None:
    found = judge(BucketRules(rules), NEEDS, TODAY)
    assert len(found) == len(faults), found
    for text, fault in zip(found, faults, strict=True):
        assert fault in text


def test_every_key_template_of_a_facility_needs_a_rule() -> None:
    needs = ImageNeeds(["a/", "b/"], lookback_days=3, retention_days=400)
    assert judge(BucketRules([build_rule()]), needs, TODAY) == []
    [fault] = judge(BucketRules([build_rule(Prefix="a/")]), needs, TODAY)
    assert "below 'b/'" in fault
    [fault] = judge(BucketRules([build_rule(2)]), needs, TODAY)  # told once
    assert EARLY in fault
    [fault] = judge(BucketRules([build_rule(Prefix="a/")]), ImageNeeds([""], 3, 400), TODAY)
    assert "images of the bucket" in fault


@given(st.integers(1, 1000), st.integers(0, 30), st.integers(31, 500))
def test_one_rule_for_all_images_fits_exactly_between_the_two_limits(
    days: int, lookback_days: int, retention_days: int
) -> None:
    needs = ImageNeeds(["north/"], lookback_days, max(retention_days, lookback_days + 2))
    fits = lookback_days + 2 <= days <= needs.retention_days
    assert (judge(BucketRules([build_rule(days)]), needs, TODAY) == []) is fits


def end_versions(**when: Any) -> dict[str, Any]:
    return {"NoncurrentVersionExpiration": when}


@pytest.mark.parametrize(
    ("rule", "how_long"),
    [
        (build_rule(**end_versions(NoncurrentDays=3)), None),
        (build_rule(**end_versions(NoncurrentDays=401)), "for 401 days"),
        (build_rule(**end_versions(NoncurrentDays=3, NewerNoncurrentVersions=2)), "for good"),
        (build_rule(Status="Disabled", **end_versions(NoncurrentDays=3)), "for good"),
        (build_rule(Filter=TAGGED, **end_versions(NoncurrentDays=3)), "for good"),
        (build_rule(Prefix="north/2026-11-30/", **end_versions(NoncurrentDays=3)), "for good"),
        (build_rule(), "for good"),  # it only hides them
    ],
)
def test_old_versions_must_be_deleted_too(rule: dict[str, Any], how_long: str | None) -> None:
    rules = [build_rule(), rule]
    found = judge(BucketRules(rules, is_versioned=True), NEEDS, TODAY)
    assert [f"images {how_long}: add" in fault for fault in found] == [True] * bool(how_long)
    assert judge(BucketRules(rules), NEEDS, TODAY) == []


@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [
        (403, "AccessDenied", "the S3 account has no s3:GetLifecycleConfiguration"),
        (501, "NotImplemented", "the S3 server does not implement them"),
        (405, "MethodNotAllowed", "the S3 server does not implement them"),
        (503, "SlowDown", "S3 answers 503 SlowDown"),
    ],
)
def test_what_s3_does_not_tell_is_not_judged(status: int, code: str, problem: str) -> None:
    client = boto3.client(
        "s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    with Stubber(client) as stub:
        stub.add_response("get_bucket_versioning", {"Status": "Enabled"})
        stub.add_client_error("get_bucket_lifecycle_configuration", code, http_status_code=status)
        told = read_rules(client, "images")
    assert told == BucketRules(is_versioned=True, problem=problem)
    assert judge(told, NEEDS, TODAY) == []
    # A server without the request has no versions; otherwise it is said that it is not known.
    with Stubber(client) as stub:
        stub.add_client_error("get_bucket_versioning", code, http_status_code=status)
        stub.add_response("get_bucket_lifecycle_configuration", {"Rules": []})
        told = read_rules(client, "images")
    problem = problem.replace("s3:GetLifecycleConfiguration", "s3:GetBucketVersioning")
    assert told == BucketRules([], versioning_problem="" if status in (405, 501) else problem)


def test_a_real_bucket(s3: Any) -> None:
    assert read_rules(s3.client, s3.bucket) == BucketRules()
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    rule = build_rule(14, ID="old", Filter={"Prefix": "north/"})
    s3.client.put_bucket_lifecycle_configuration(
        Bucket=s3.bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    told = read_rules(s3.client, s3.bucket)
    [fault] = judge(told, NEEDS, TODAY)
    assert "keeps old versions of deleted images for good" in fault
    rule |= end_versions(NoncurrentDays=3)
    s3.client.put_bucket_lifecycle_configuration(
        Bucket=s3.bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    assert judge(read_rules(s3.client, s3.bucket), NEEDS, TODAY) == []
