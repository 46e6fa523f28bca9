"""Writing images into S3 for the local stack, tests and benchmarks; a run writes nothing there.

As in reader.py, obstore is tried first and boto3 writes what obstore cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import obstore
from botocore.exceptions import ClientError

from fer_batch.concurrency import map_bounded
from fer_batch.log import get_logger
from fer_batch.settings import Settings
from fer_batch.storage.client import OBSTORE_ERRORS, OBSTORE_UNSUPPORTED_KEY, Clients
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.reader import PREFETCH_BYTES
from fer_batch.storage.s3_errors import get_status, translate_errors

log = get_logger(__name__)


def ensure_bucket(settings: Settings, bucket: str, expire_days: int | None = None) -> None:
    """Create the bucket if it does not exist.

    S3 deletes the objects of a new bucket `expire_days` days after their upload; None: never. The
    objects of a bucket that exists belong to somebody: it gets no rule.
    """
    location = BucketLocation(bucket, settings.s3_endpoint)
    clients = Clients(settings, location)
    with translate_errors(location):
        try:
            clients.boto.head_bucket(Bucket=location.bucket)
        except ClientError as error:
            if get_status(error) != 404:
                raise
            # AWS rejects a constraint that names us-east-1, and requires one for other regions.
            constraint: dict[str, Any] = {
                "CreateBucketConfiguration": {"LocationConstraint": settings.s3_region}
            }
            is_default = settings.s3_region == "us-east-1"
            clients.boto.create_bucket(Bucket=location.bucket, **({} if is_default else constraint))
            if expire_days is not None:
                _add_lifecycle_rule(clients, location, expire_days)


def _add_lifecycle_rule(clients: Clients, location: BucketLocation, days: int) -> None:
    clients.boto.put_bucket_lifecycle_configuration(
        Bucket=location.bucket,
        LifecycleConfiguration={
            "Rules": [
                {
                    "ID": "delete images",
                    "Status": "Enabled",
                    "Filter": {"Prefix": ""},
                    "Expiration": {"Days": days},
                }
            ]
        },
    )


def upload_many(settings: Settings, bucket: str, items: Iterable[tuple[str, bytes]]) -> int:
    """Write objects, given as key and bytes, and return how many.

    Creates the bucket if it does not exist. Raises StorageError or StorageUnavailableError.
    """
    ensure_bucket(settings, bucket)
    location = BucketLocation(bucket, settings.s3_endpoint)
    clients = Clients(settings, location)

    def put(item: tuple[str, bytes]) -> None:
        key, data = item
        if not OBSTORE_UNSUPPORTED_KEY.search(key):
            try:
                obstore.put(clients.obstore, key, data, use_multipart=False)
            except OBSTORE_ERRORS:
                log.debug("uploading with boto3", location=str(location))
            else:
                return
        with translate_errors(location):
            clients.boto.put_object(Bucket=bucket, Key=key, Body=data)

    done = map_bounded(
        put,
        items,
        threads=settings.s3_concurrency,
        ahead_bytes=PREFETCH_BYTES,
        bytes_of=lambda item: len(item[1]),
    )
    return sum(1 for _ in done)
