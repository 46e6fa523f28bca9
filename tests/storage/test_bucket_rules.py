"""Whether a bucket with versioning deletes what was deleted."""

from __future__ import annotations

from typing import Any

import pytest

from fer_batch.storage import bucket_rules


def build_rule(**others: Any) -> dict[str, Any]:
    return {"Status": "Enabled", "NoncurrentVersionExpiration": {"NoncurrentDays": 3}, **others}


@pytest.mark.parametrize(
    ("rule", "is_enough"),
    [
        (build_rule(), True),
        (build_rule(Filter={}), True),
        (build_rule(Filter={"Prefix": ""}), True),
        (build_rule(Filter={"Prefix": "north/"}), True),
        (build_rule(Prefix="north/"), True),
        (build_rule(Filter={"And": {"Prefix": "north/", "Tags": [{"Key": "a", "Value": "b"}]}}),
         False),
        (build_rule(Filter={"And": {"Prefix": "north/"}}), True),
        (build_rule(Filter={"Prefix": "south/"}), False),
        (build_rule(Filter={"Prefix": "north/2026-11-30/door/"}), False),  # of a part only
        (build_rule(Filter={"Tag": {"Key": "a", "Value": "b"}}), False),
        (build_rule(Filter={"ObjectSizeGreaterThan": 9}), False),
        (build_rule(Status="Disabled"), False),
        ({"Status": "Enabled", "Expiration": {"Days": 3}}, False),  # it only hides them
    ],
)  # fmt: skip
def test_a_rule_must_cover_every_object_of_the_facility(rule: Any, is_enough: bool) -> None:
    assert bucket_rules.expire([build_rule(Status="Disabled"), rule], "north/2026-") is is_enough


def test_a_real_bucket(s3: Any) -> None:
    def keeps() -> bool:
        return bucket_rules.keeps_old_versions(s3.client, s3.bucket, "north/")

    assert not keeps()
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    assert keeps()
    s3.client.put_bucket_lifecycle_configuration(
        Bucket=s3.bucket,
        LifecycleConfiguration={"Rules": [build_rule(ID="old", Filter={"Prefix": ""})]},
    )
    assert not keeps()
