"""Whether a bucket keeps what was deleted: versioning, and the lifecycle rule that ends it.

In a bucket with versioning, a deleted image is only hidden. Asking needs more rights than a run
has (`s3:GetBucketVersioning`, `s3:GetLifecycleConfiguration`); without them nothing is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from fer_batch.storage.s3_errors import get_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def keeps_old_versions(client: S3Client, bucket: str, prefix: str) -> bool:
    """Whether deleted objects below a prefix are kept for good; False if S3 does not tell."""
    try:
        if "Status" not in client.get_bucket_versioning(Bucket=bucket):
            return False  # never enabled
        rules = client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", [])
    except ClientError as error:
        return get_code(error) == "NoSuchLifecycleConfiguration"
    except BotoCoreError:
        return False
    return not expire(rules, prefix)


def expire(rules: Iterable[Any], prefix: str) -> bool:
    """Whether an enabled rule deletes noncurrent versions of every object below the prefix."""
    return any(
        rule.get("Status") == "Enabled"
        and "NoncurrentVersionExpiration" in rule
        and _covers(rule, prefix)
        for rule in rules
    )


def _covers(rule: dict[str, Any], prefix: str) -> bool:
    chosen = rule.get("Filter", {})
    combined = chosen.get("And", chosen)
    others = combined.keys() - {"Prefix"}
    return not others and prefix.startswith(combined.get("Prefix", rule.get("Prefix", "")))
