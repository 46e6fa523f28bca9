"""Writing images into S3, which the demo, tests and benchmarks do; a nightly run never does.

As in storage.py, obstore goes first and boto3 takes what obstore does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import obstore
from botocore.exceptions import ClientError

from fer_batch.log import logger
from fer_batch.readahead import in_threads
from fer_batch.s3 import Clients, Place, status_of, translated_errors
from fer_batch.settings import Settings
from fer_batch.storage import AHEAD_BYTES, NOT_FOR_OBSTORE, OBSTORE_ERRORS

log = logger(__name__)


def ensure_bucket(settings: Settings, bucket: str) -> None:
    """Create the bucket if there is none."""
    place = Place(bucket, settings.s3_endpoint)
    clients = Clients(settings, place)
    with translated_errors(place):
        try:
            clients.boto.head_bucket(Bucket=place.bucket)
        except ClientError as error:
            if status_of(error) != 404:
                raise
            # AWS wants its oldest region unsaid and every other one said.
            elsewhere: dict[str, Any] = {
                "CreateBucketConfiguration": {"LocationConstraint": settings.s3_region}
            }
            is_oldest = settings.s3_region == "us-east-1"
            clients.boto.create_bucket(Bucket=place.bucket, **({} if is_oldest else elsewhere))


def upload_many(settings: Settings, bucket: str, items: Iterable[tuple[str, bytes]]) -> int:
    """Write objects, given as key and bytes, and say how many.

    Creates the bucket if there is none. Raises StorageError or StorageUnavailableError.
    """
    ensure_bucket(settings, bucket)
    place = Place(bucket, settings.s3_endpoint)
    clients = Clients(settings, place)

    def put(item: tuple[str, bytes]) -> None:
        key, data = item
        if not NOT_FOR_OBSTORE.search(key):
            try:
                obstore.put(clients.obstore, key, data, use_multipart=False)
            except OBSTORE_ERRORS:
                log.debug("uploading with boto3", place=str(place))
            else:
                return
        with translated_errors(place):
            clients.boto.put_object(Bucket=bucket, Key=key, Body=data)

    done = in_threads(
        put,
        items,
        threads=settings.s3_concurrency,
        ahead_bytes=AHEAD_BYTES,
        bytes_of=lambda item: len(item[1]),
    )
    return sum(1 for _ in done)
